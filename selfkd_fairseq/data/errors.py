"""The one exception of data preparation."""


class PreparationError(Exception):
    """Something that the user can mend: bad input, a bad option, a failed download. The message is one line."""
