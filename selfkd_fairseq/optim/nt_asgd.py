"""The optimizer ``nt_asgd``: SGD, then averaged SGD once validation stops getting better (Merity et al., 2018)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Optional

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import AMPOptimizer, FairseqOptimizer, FP16Optimizer, register_optimizer
from omegaconf import II
from torch import Tensor

logger = logging.getLogger(__name__)

__all__ = ["FairseqNTASGD", "NTASGD", "NTASGDConfig", "averaging_optimizer"]


class NTASGD(torch.optim.SGD):
    """SGD whose weights are averaged from a non-monotonic trigger on.

    The trigger (Merity et al., 2018, arXiv 1708.02182, as in the authors' code): a validation is worse than the best
    of all validations but the last ``nonmonotone``. From then on the average of the weights, those at the trigger
    included, is kept: after k more updates it is the mean of k + 1 points. Training goes on from the plain weights.

    ``use_average`` puts the average into the parameters, for validation and for a checkpoint; the next ``zero_grad``
    or ``step`` puts the plain weights back. All of it is in ``state_dict``, so a resumed run is the same run.

    Args:
        params: as for every optimizer: tensors of any shape, floating point, or groups of them.
        nonmonotone: n, at least 1.
        **keywords: of ``torch.optim.SGD``.

    Raises:
        ValueError: ``nonmonotone`` is below 1.
    """

    def __init__(self, params: Any, nonmonotone: int = 5, **keywords: Any):
        if nonmonotone < 1:
            raise ValueError(f"--nonmonotone must be at least 1, not {nonmonotone}")
        super().__init__(params, **keywords)
        self.nonmonotone = nonmonotone
        self._warned = False
        group = self.param_groups[0]  # what is set here is saved and loaded with the group
        group["validations"] = []
        group["averaged_points"] = 0

    @property
    def validations(self) -> List[float]:
        """Every recorded validation, the oldest first."""
        validations: List[float] = self.param_groups[0]["validations"]
        return validations

    @property
    def averaged_points(self) -> int:
        """How many points the average is the mean of; 0 before the trigger."""
        averaged_points: int = self.param_groups[0]["averaged_points"]
        return averaged_points

    def _parameters(self) -> Iterator[Tensor]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    def record_validation(self, value: float) -> None:
        """Tell the result of a validation. It may pull the trigger.

        Args:
            value: any measure of which lower is better, the same each time; the task gives the perplexity.
        """
        earlier = self.validations[: -self.nonmonotone]
        if self.averaged_points == 0 and earlier and value > min(earlier):
            self.param_groups[0]["averaged_points"] = 1
            for parameter in self._parameters():
                self.state[parameter]["average"] = parameter.detach().clone()
        self.validations.append(value)

    @torch.no_grad()
    def use_average(self) -> None:
        """Put the average into the parameters, if there is one."""
        for parameter in self._parameters():
            state = self.state[parameter] if self.averaged_points > 0 else {}
            if "average" in state and "plain" not in state:
                state["plain"] = parameter.detach().clone()
                parameter.copy_(state["average"])

    @torch.no_grad()
    def use_plain(self) -> None:
        """Put the plain weights back, if the average is in their place."""
        for parameter in self._parameters():
            state = self.state.get(parameter, {})
            if "plain" in state:
                parameter.copy_(state.pop("plain"))

    def consolidate_state_dict(self) -> None:
        """Called by fairseq on every worker before it writes a checkpoint: the average goes into the model."""
        if not self.validations and not self._warned:
            logger.warning("nt_asgd was told of no validation, so it is plain SGD (bptt_language_modeling tells it)")
            self._warned = True
        self.use_average()

    def zero_grad(self, *arguments: Any, **keywords: Any) -> None:
        """As of every optimizer; and the plain weights are back, for training goes on.

        Args:
            *arguments: of ``torch.optim.SGD.zero_grad``.
            **keywords: of ``torch.optim.SGD.zero_grad``.
        """
        self.use_plain()
        super().zero_grad(*arguments, **keywords)

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], float]] = None) -> Any:
        """One step of SGD from the plain weights, and of the average if it is kept.

        Args:
            closure: as of every optimizer: computes loss and gradients anew; None: the gradients are there.

        Returns:
            What ``closure`` returned, None without one.
        """
        self.use_plain()
        loss = super().step(closure)
        if self.averaged_points > 0:
            self.param_groups[0]["averaged_points"] += 1
            for parameter in self._parameters():
                self.state[parameter]["average"].lerp_(parameter, 1.0 / self.averaged_points)
        return loss


@dataclass
class NTASGDConfig(FairseqDataclass):
    """Options of ``nt_asgd``."""

    nonmonotone: int = field(
        default=5,
        metadata={"help": "average the weights once a validation is worse than the best but the last N of them"},
    )
    momentum: float = field(default=0.0, metadata={"help": "momentum factor"})
    weight_decay: float = field(default=0.0, metadata={"help": "weight decay", "argparse_alias": "--wd"})
    lr: List[float] = II("optimization.lr")


@register_optimizer("nt_asgd", dataclass=NTASGDConfig)
class FairseqNTASGD(FairseqOptimizer):
    """:class:`NTASGD` (Merity et al., 2018) for fairseq, with ``--task bptt_language_modeling``, which tells it the
    validations.

    Args:
        cfg: options of the optimizer.
        params: list of the parameters, of any shape, floating point.

    Raises:
        SystemExit: an option is out of its range; one line.
    """

    def __init__(self, cfg: NTASGDConfig, params: Any):
        super().__init__(cfg)
        try:
            self._optimizer = NTASGD(params, nonmonotone=cfg.nonmonotone, **self.optimizer_config)
        except ValueError as error:
            raise SystemExit(f"nt_asgd: {error}") from None

    @property
    def optimizer_config(self) -> Dict[str, Any]:
        """The settings of the command line for ``torch.optim.SGD``."""
        return {
            "lr": self.cfg.lr[0] if isinstance(self.cfg.lr, Sequence) else self.cfg.lr,
            "momentum": self.cfg.momentum,
            "weight_decay": self.cfg.weight_decay,
        }


def averaging_optimizer(optimizer: Any) -> Optional[NTASGD]:
    """The :class:`NTASGD` inside a fairseq optimizer.

    Args:
        optimizer: of fairseq's trainer, wrapped for half precision or not.

    Returns:
        The optimizer whose state holds the average; None if this is another optimizer.

    Raises:
        SystemExit: it is wrapped for training in half precision. There its parameters are copies of the model's
            (--fp16, --bf16), or fairseq divides its gradient by the loss scale twice (--amp), which no step of SGD
            survives.
    """
    inner = optimizer.optimizer
    if not isinstance(inner, NTASGD):
        return None
    if isinstance(optimizer, (FP16Optimizer, AMPOptimizer)):
        raise SystemExit("nt_asgd trains and averages float32 weights: leave out --fp16, --bf16 and --amp")
    return inner
