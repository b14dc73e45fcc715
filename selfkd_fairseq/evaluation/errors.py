"""The exceptions of evaluation."""


class ScoringError(Exception):
    """Something that the user can mend: an incomplete output, files of different lengths. The message is one line."""
