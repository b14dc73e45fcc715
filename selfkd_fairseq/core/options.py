"""The options of ``docs/method.md``, what each may be, and which of them do not go together."""

import math
from typing import Any, Dict, Iterable, Mapping, NamedTuple, Optional

from .geometry import SIMILARITIES, TEMPERATURE_SCALES
from .supports import SUPPORTS

__all__ = [
    "CONTROLS",
    "GATES",
    "NORMALISATIONS",
    "TEACHERS",
    "SelfKDOptions",
    "check_loss_weights",
    "check_one_of",
    "options_of_teacher",
]

TEACHERS = ("embedding", "self")
GATES = ("all", "others")
NORMALISATIONS = ("vocabulary", "support")
CONTROLS = ("none", "uniform", "shuffled", "shuffled_rows")


class SelfKDOptions(NamedTuple):
    """How soft targets are made and compared with the model.

    The defaults are the paper's approximation, which needs no second pass of the model. Those of the criterion
    ``self_kd`` follow from its teacher: :func:`options_of_teacher`.

    Attributes:
        support: which words share probability with the target, one of :data:`~.supports.SUPPORTS`.
        support_size: n, the number of words in the support beside the target, in [1, V); ``full`` does not read it.
        temperature: tau, above 0 and finite; larger means flatter.
        temperature_scale: unit of tau: ``relative`` (the root mean square distance of two rows of W) or ``absolute``
            (plain distance); ``cosine``, which has no unit, does not read it.
        min_target_prob: m, the floor of the target's own probability, in [0, 1].
        similarity: of two rows of W, one of :data:`~.geometry.SIMILARITIES`.
        teacher: ``embedding`` (the matrix W alone), or ``self`` (the model's own distribution in another
            pass).
        embedding_weight: lambda, what the matrix adds to the teacher ``self``, in [0, 1000]; 0: nothing. The teacher
            ``embedding`` does not read it.
        gate: which words the matrix weights beside the teacher ``self``: ``all``, so the target most of all, or
            ``others``: the target keeps the probability that the other pass gives it, and the others share the rest.
        student_temperature: T, which divides the logits of the model where they are compared with the soft targets,
            those of the teacher ``self`` too; in [0.001, 1000].
        normalise: ``vocabulary`` (the model's distribution over all words is compared) or ``support`` (its distribution
            over the words of the support alone).
        control: ``none``, or what takes the knowledge out and leaves the rest: ``uniform``, ``shuffled`` or
            ``shuffled_rows``.
    """

    support: str = "predicted"
    support_size: int = 1
    temperature: float = 1.0
    temperature_scale: str = "relative"
    min_target_prob: float = 0.5
    similarity: str = "distance"
    teacher: str = "embedding"
    embedding_weight: float = 1.0
    gate: str = "all"
    student_temperature: float = 1.0
    normalise: str = "vocabulary"
    control: str = "none"

    @property
    def needs_teacher_pass(self) -> bool:
        """Whether the soft targets read the logits of another pass."""
        return self.teacher == "self" and self.control != "uniform"

    @property
    def spares_target(self) -> bool:
        """Whether the target keeps the probability that the other pass gives it."""
        return self.gate == "others" and self.needs_teacher_pass

    @property
    def reads_embedding(self) -> bool:
        """Whether the soft targets read the matrix W, beyond the choice of words."""
        return self.control != "uniform" and (self.teacher == "embedding" or self.embedding_weight > 0)

    def check(self, vocabulary_size: Optional[int] = None) -> None:
        """Check that every option is in its range, and that they go together.

        Args:
            vocabulary_size: V, which ``support_size`` must be below; None: not known yet.

        Raises:
            ValueError: one is not, or two do not go together; the message names argument, value and what is allowed.
        """
        names: Dict[str, Iterable[str]] = {
            "support": SUPPORTS, "similarity": SIMILARITIES, "temperature_scale": TEMPERATURE_SCALES,
            "teacher": TEACHERS, "gate": GATES, "normalise": NORMALISATIONS, "control": CONTROLS,
        }  # fmt: skip
        for option, allowed in names.items():
            check_one_of(option, getattr(self, option), allowed)
        if self.support_size < 1:
            raise ValueError(f"support_size must be at least 1, got {self.support_size}")
        if vocabulary_size is not None and self.support_size >= vocabulary_size:
            raise ValueError(
                f"support_size must be less than the vocabulary size {vocabulary_size}, got {self.support_size}"
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature must be above 0 and finite, got {self.temperature}")
        # So that the square of T, and lambda times a score, are within the range of float32.
        for option, low, high in (
            ("min_target_prob", 0, 1), ("embedding_weight", 0, 1000), ("student_temperature", 0.001, 1000),
        ):  # fmt: skip
            if not low <= getattr(self, option) <= high:
                raise ValueError(f"{option} must be in [{low}, {high}], got {getattr(self, option)}")
        self._check_together()

    def _check_together(self) -> None:
        if self.normalise == "support" and self.support == "full":
            raise ValueError("normalise support needs a support of some words, got support full, which is all of them")
        if self.gate == "others" and self.teacher != "self":
            raise ValueError(f"gate others needs the teacher self, got teacher {self.teacher}")
        if self.student_temperature != 1 and self.normalise == "vocabulary" and self.support != "full":
            raise ValueError(
                f"a student_temperature other than 1 needs support full or normalise support, got "
                f"{self.student_temperature} with support {self.support} and normalise vocabulary"
            )


# What an option is that is not given, where it is not what SelfKDOptions has.
_OF_TEACHER: Dict[str, Dict[str, Any]] = {
    "self": {"support": "full", "similarity": "cosine", "min_target_prob": 0.0},
}


def options_of_teacher(given: Mapping[str, Any]) -> SelfKDOptions:
    """The options of a training: those that are given, and for the rest what goes with the teacher.

    With the teacher ``self`` that is the support ``full``, the similarity ``cosine`` and no floor; with ``embedding``
    the paper's approximation.

    Args:
        given: value by the name of the option; None: not given.

    Returns:
        The options, not yet checked.

    Raises:
        TypeError: there is no such option.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    return SelfKDOptions(**{**_OF_TEACHER.get(chosen.get("teacher", ""), {}), **chosen})


def check_one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    """Check the value of an option that is a name.

    Args:
        name: of the option, for the message.
        value: what was given.
        allowed: what may be given.

    Raises:
        ValueError: it is none of them; the message names option, value and what is allowed.
    """
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def check_loss_weights(alpha: float, label_smoothing: float) -> None:
    """Check the weights of the terms of the loss.

    Args:
        alpha: weight of L_SKD, in [0, 1].
        label_smoothing: eps of L_CE, in [0, 1).

    Raises:
        ValueError: one is out of its range; the message names argument, value and what is allowed.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
