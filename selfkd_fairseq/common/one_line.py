"""One line of any text, for messages."""

import re


def in_one_line(message: str) -> str:
    """A message without line ends and other control characters, as names and texts of hostile files may have them.

    Args:
        message: any text.

    Returns:
        The text; each run of such characters is one space.
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", message)
