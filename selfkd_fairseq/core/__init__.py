"""Self-knowledge distillation in pure PyTorch: usable without fairseq, in any training loop."""

from .alpha_schedule import alpha_at_update
from .geometry import SIMILARITIES, TEMPERATURE_SCALES, rms_distance
from .options import CONTROLS, GATES, NORMALISATIONS, TEACHERS, SelfKDOptions
from .reference_loss import SelfKDLoss, Statistics, self_kd_loss_from_logits
from .self_kd_loss import IMPLEMENTATIONS, self_kd_loss
from .soft_targets import SoftTargets, soft_targets
from .supports import SUPPORTS, nearest_words

__all__ = [
    "CONTROLS",
    "GATES",
    "IMPLEMENTATIONS",
    "NORMALISATIONS",
    "SIMILARITIES",
    "SUPPORTS",
    "TEACHERS",
    "TEMPERATURE_SCALES",
    "SelfKDLoss",
    "SelfKDOptions",
    "SoftTargets",
    "Statistics",
    "alpha_at_update",
    "nearest_words",
    "rms_distance",
    "self_kd_loss",
    "self_kd_loss_from_logits",
    "soft_targets",
]
