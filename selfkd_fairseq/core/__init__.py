"""Self-knowledge distillation in pure PyTorch: usable without fairseq, in any training loop."""

from .alpha_schedule import alpha_at_update
from .reference_loss import SelfKDLoss, Statistics, self_kd_loss_from_logits
from .soft_targets import SUPPORTS, TEMPERATURE_SCALES, SoftTargetOptions, SoftTargets, rms_distance, soft_targets

__all__ = [
    "SUPPORTS",
    "TEMPERATURE_SCALES",
    "SelfKDLoss",
    "SoftTargetOptions",
    "SoftTargets",
    "Statistics",
    "alpha_at_update",
    "rms_distance",
    "self_kd_loss_from_logits",
    "soft_targets",
]
