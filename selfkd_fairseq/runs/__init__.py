"""What keeps runs apart, and what they say about where they come from."""
