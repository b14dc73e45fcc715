"""The options of the criterion ``self_kd``, as fairseq shows them and reads them from a command line or YAML."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterionConfig
from omegaconf import II

from ..core.geometry import SIMILARITIES, TEMPERATURE_SCALES
from ..core.options import CONTROLS, GATES, NORMALISATIONS, TEACHERS
from ..core.self_kd_loss import IMPLEMENTATIONS
from ..core.supports import SUPPORTS
from .teacher_pass import TEACHER_MODES

__all__ = ["SelfKDCriterionConfig"]


@dataclass
class SelfKDCriterionConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """Options of ``self_kd``, on top of those of ``label_smoothed_cross_entropy``."""

    skd_alpha: float = field(
        default=0.5,
        metadata={"help": "cap of alpha, the weight of the distillation term, in [0, 1]; 0 trains without it"},
    )
    skd_warmup_updates: int = field(
        default=4000,
        metadata={"help": "alpha rises linearly from 0 to its cap over this many updates; 0: at the cap at once"},
    )
    skd_start_update: int = field(
        default=0,
        metadata={
            "help": "before this update there is one pass and no distillation: fairseq's label-smoothed cross-entropy; "
            "from it on alpha rises"
        },
    )
    skd_support: Optional[str] = field(
        default=None,
        metadata={
            "help": f"words that share probability with the target: {', '.join(SUPPORTS)} (default: full with the "
            "teacher self, predicted with the teacher embedding)"
        },
    )
    skd_support_size: int = field(
        default=1,
        metadata={"help": "number of words in the support beside the target"},
    )
    skd_similarity: Optional[str] = field(
        default=None,
        metadata={
            "help": f"similarity of two words in the embedding space: {', '.join(SIMILARITIES)} (default: cosine with "
            "the teacher self, distance with the teacher embedding)"
        },
    )
    skd_temperature: float = field(
        default=1.0,
        metadata={"help": "temperature of the soft targets, above 0; larger means flatter"},
    )
    skd_temperature_scale: str = field(
        default="relative",
        metadata={
            "help": f"unit of the temperature: {', '.join(TEMPERATURE_SCALES)} "
            "(relative: the root mean square distance of two rows of the output embedding matrix)"
        },
    )
    skd_min_target_prob: Optional[float] = field(
        default=None,
        metadata={
            "help": "floor of the target word's own soft-target probability, in [0, 1] (default: 0 with the teacher "
            "self, 0.5 with the teacher embedding)"
        },
    )
    skd_teacher: str = field(
        default="self",
        metadata={
            "help": f"where soft targets come from: {', '.join(TEACHERS)} (self: the model's own distribution in "
            "another pass; embedding: the output matrix alone, no other pass)"
        },
    )
    skd_teacher_mode: str = field(
        default="both",
        metadata={
            "help": f"teacher self: mode of the model in that pass: {', '.join(TEACHER_MODES)} (eval: without dropout; "
            "train: with dropout of its own; both: so too, and it is trained as well, each pass with the other as its "
            "teacher)"
        },
    )
    skd_embedding_weight: float = field(
        default=1.0,
        metadata={"help": "teacher self: weight of the embedding space beside the model's distribution, in [0, 1000]"},
    )
    skd_gate: str = field(
        default="all",
        metadata={
            "help": f"teacher self: which words the embedding space weights: {', '.join(GATES)} (all: every word, the "
            "target most; others: the target keeps the probability that the other pass gives it)"
        },
    )
    skd_student_temperature: float = field(
        default=1.0,
        metadata={"help": "temperature of the model where it is compared with the soft targets, in [0.001, 1000]"},
    )
    skd_normalise: str = field(
        default="vocabulary",
        metadata={"help": f"words over which the model's probabilities are compared: {', '.join(NORMALISATIONS)}"},
    )
    skd_control: str = field(
        default="none",
        metadata={"help": f"take the knowledge out of the soft targets, for comparison: {', '.join(CONTROLS)}"},
    )
    skd_refresh_updates: int = field(
        default=100,
        metadata={"help": "support nearest: find the neighbours anew at every update that this number divides"},
    )
    skd_implementation: str = field(
        default="auto",
        metadata={
            "help": f"how the loss is computed: {', '.join(IMPLEMENTATIONS)} (the same numbers; fused needs a fraction "
            "of the memory and less time than reference; compiled is fused by torch.compile; auto is compiled on a GPU "
            "where that works, else fused)"
        },
    )
    seed: int = II("common.seed")
