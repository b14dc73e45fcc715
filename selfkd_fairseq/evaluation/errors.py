"""The exceptions of evaluation."""

from ..common.errors import MendableError


class ScoringError(Exception):
    """Something that the user can mend: an incomplete output, files of different lengths. The message is one line."""


class ComparisonError(ScoringError):
    """Runs that cannot be compared: a file that is missing or damaged, other data. The message is one line."""


class EvaluationError(MendableError):
    """Something that the user can mend: a damaged checkpoint, data that do not fit it. The message is one line."""
