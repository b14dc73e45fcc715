"""The exceptions of data preparation."""


class PreparationError(Exception):
    """Something that the user can mend: bad input, a bad option, a failed download. The message is one line."""


class UsageError(PreparationError):
    """An option that the dataset needs and did not get, or got and cannot take."""
