"""The error that every program of this package, and of fairseq if it is asked to, prints as one line."""

from hydra.errors import CompactHydraException

__all__ = ["MendableError"]


class MendableError(CompactHydraException):
    """Something that the user can mend, such as a damaged file. The message is one line and names the file.

    hydra prints the message of its own compact errors without a stack: so ``fairseq-hydra-train``, where no error
    comes to Python, prints this one.
    """
