"""The criterion ``self_kd``: fairseq's label-smoothed cross-entropy mixed with self-knowledge distillation."""

import contextlib
import functools
import logging
import math
from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq import utils
from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.logging import metrics
from torch import Tensor, nn

from ..core.alpha_schedule import alpha_at_update
from ..core.geometry import SIMILARITIES
from ..core.options import SelfKDOptions, check_loss_weights, check_one_of, options_of_teacher
from ..core.reference_loss import SelfKDLoss, self_kd_loss_from_logits
from ..core.self_kd_loss import IMPLEMENTATIONS, self_kd_loss
from ..core.soft_targets import of_partners
from .model_output import can_give_features, checked_logits, features_instead_of_logits
from .output_embedding import OutputEmbedding, UnsupportedModelError, find_output_embedding
from .self_kd_config import SelfKDCriterionConfig
from .support_state import SupportState
from .teacher_pass import TEACHER_MODES, check_can_train_passes, teacher_pass
from .update_number import pass_update_number_to_criterion, refuse_unsupported_models

__all__ = ["SelfKDCriterion", "SelfKDCriterionConfig"]

logger = logging.getLogger(__name__)

# For updates before the start: alpha is 0, so any soft targets will do, and these cost least.
_NOTHING_TO_DISTIL = SelfKDOptions(control="uniform")


def mean_of_passes(result: SelfKDLoss, passes: int) -> SelfKDLoss:
    """The mean of one or two passes over the same tokens.

    Args:
        result: of all passes, those of a token one after the other; in nats, sums over all, or of each.
        passes: how many they are.

    Returns:
        Sums over N' tokens, or (N',) of each; counts are halved like all else, in floating point. Pairs are those of
        all passes.
    """
    if passes == 1:
        return result

    def mean(x: Tensor) -> Tensor:
        return (x if x.dim() == 0 else x.view(-1, passes).sum(dim=1)) / passes

    loss, ce_loss, nll_loss, skd_loss, statistics = result
    means = {key: mean(getattr(statistics, key)) for key in ("ntokens", "n_correct", "target_prob", "entropy")}
    statistics = statistics._replace(**means)
    return SelfKDLoss(mean(loss), mean(ce_loss), mean(nll_loss), mean(skd_loss), statistics)


@register_criterion("self_kd", dataclass=SelfKDCriterionConfig)
class SelfKDCriterion(LabelSmoothedCrossEntropyCriterion):
    """Cross-entropy and self-knowledge distillation (Hahn and Choi, RANLP 2019, arXiv 1908.01851).

    The training loss is ``(1 - alpha) L_CE + alpha L_SKD``, a sum over tokens in nats, where L_CE is fairseq's
    own label-smoothed cross-entropy and alpha a pure function of the update number. In validation ``loss`` is
    L_CE whatever alpha is, so that the best checkpoint does not depend on the schedule. ``nll_loss`` and
    ``ppl`` never contain the distillation term. The log-softmax is taken in float32 (float64 for a float64
    model); no gradient flows through the soft targets.

    Args:
        cfg: :class:`SelfKDCriterionConfig`.
        task: the fairseq task; its ``train_step`` will tell this criterion the update number.

    Raises:
        ValueError: an option is out of its range (a fairseq command line shows it as one line).
    """

    def __init__(self, cfg: SelfKDCriterionConfig, task: Any):
        super().__init__(task, cfg.sentence_avg, cfg.label_smoothing, cfg.ignore_prefix_size, cfg.report_accuracy)
        self.alpha_max = cfg.skd_alpha
        self.warmup_updates = cfg.skd_warmup_updates
        self.start_update = cfg.skd_start_update
        self.options = options_of_teacher({name: getattr(cfg, f"skd_{name}") for name in SelfKDOptions._fields})
        dictionary = task.target_dictionary
        self.options.check(vocabulary_size=len(dictionary))
        self.excluded = (dictionary.pad(), dictionary.bos())
        check_loss_weights(self.alpha_max, self.eps)
        check_one_of("implementation", cfg.skd_implementation, IMPLEMENTATIONS)
        self.measure = SIMILARITIES[self.options.similarity].measure.name
        check_one_of("teacher_mode", cfg.skd_teacher_mode, TEACHER_MODES)
        self.teacher_mode = cfg.skd_teacher_mode
        self.implementation = cfg.skd_implementation
        self.support_state = SupportState(self.options, self.excluded, cfg.skd_refresh_updates, cfg.seed)
        self._set_alpha(0)
        pass_update_number_to_criterion(task)
        refuse_unsupported_models(task)

    @classmethod
    def build_criterion(cls, cfg: SelfKDCriterionConfig, task: Any) -> "SelfKDCriterion":
        """Construct the criterion for a fairseq command line: a bad option ends it with one line.

        Args:
            cfg: options of the criterion.
            task: the fairseq task that the trainer will use.

        Returns:
            The criterion, with alpha as before the first update.

        Raises:
            SystemExit: an option is out of its range.
        """
        try:
            return cls(cfg, task)
        except ValueError as error:
            raise SystemExit(f"self_kd: {error}") from None

    def set_num_updates(self, num_updates: int) -> None:
        """Begin an update: alpha, neighbours and random words are those of it. fairseq's trainer needs no such call.

        Args:
            num_updates: optimizer updates done so far, at least 0.
        """
        self._set_alpha(num_updates)
        self.support_state.set_num_updates(num_updates)

    def _set_alpha(self, num_updates: int) -> None:
        self.alpha = alpha_at_update(
            num_updates, alpha_max=self.alpha_max, warmup_updates=self.warmup_updates, start_update=self.start_update
        )
        self.started = num_updates >= self.start_update

    def forward(
        self, model: nn.Module, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Loss of one batch, as every fairseq criterion returns it.

        Args:
            model: a fairseq model; in training mode the distillation term is part of the loss.
            sample: a batch with ``net_input``, ``target`` (B, T), ``ntokens``.
            reduce: sum over tokens; if False, loss and nll_loss are (B * T,), 0 at padding.

        Returns:
            (loss in nats, a scalar or (B * T,), sample size that fairseq divides by, logging outputs, all of them sums)

        Raises:
            UnsupportedModelError: the model has no single output embedding matrix, or no logits that fit it; or its
                data-parallel wrapper cannot train two passes.
        """
        embedding = find_output_embedding(model)
        self._warn_without_update_number(model)
        gives_features = reduce and self.implementation != "reference" and can_give_features(model)
        one_pass = functools.partial(features_instead_of_logits, model) if gives_features else contextlib.nullcontext
        teacher_output = None
        needs_teacher_pass = self._needs_teacher_pass(model)
        if needs_teacher_pass:
            # Before it is made, so that a training is refused when it begins, and not at --skd-start-update.
            check_can_train_passes(model, self.teacher_mode)
        if needs_teacher_pass and self.started:
            with one_pass():
                teacher_output = teacher_pass(model, sample["net_input"], sample["target"].device, self.teacher_mode)
        with one_pass():
            net_output = model(**sample["net_input"])
        if gives_features:
            result = self._loss_from_features(embedding, model, net_output, teacher_output, sample)
        else:
            result = self._loss_from_logits(embedding, model, net_output, teacher_output, sample, reduce)
        loss = result.loss if model.training else result.ce_loss
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        statistics = result.statistics
        logging_output = {
            "loss": loss.data,
            "nll_loss": result.nll_loss.data,
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        if self._distils(model):
            of_soft_targets = {
                "skd_loss": result.skd_loss.data,
                "skd_ntokens": statistics.ntokens.data,
                "skd_target_prob": statistics.target_prob.data,
                "skd_entropy": statistics.entropy.data,
                f"skd_{self.measure}": statistics.measure.data,
                "skd_num_pairs": statistics.num_pairs.data,
            }
            logging_output.update(of_soft_targets)
        if model.training:
            # A sum like all others, so that workers and batches of one update can be added up.
            logging_output["alpha"] = self.alpha
            logging_output["skd_num_batches"] = 1
        if self.report_accuracy:
            logging_output["n_correct"] = utils.item(statistics.n_correct)
            logging_output["total"] = utils.item(statistics.ntokens)
        return loss, sample_size, logging_output

    def compute_loss(
        self, model: nn.Module, net_output: Any, sample: Dict[str, Any], reduce: bool = True
    ) -> Tuple[Tensor, Tensor]:
        """Losses from a model's output, for tasks that call a criterion by its parts.

        Args:
            model: as of :meth:`forward`.
            net_output: what the model returned for the batch: a tuple whose first item holds the logits (B, T, V).
            sample: as of :meth:`forward`.
            reduce: as of :meth:`forward`.

        Returns:
            (loss, nll_loss) in nats, each a scalar, the sum over tokens, or (B * T,) without ``reduce``.

        Raises:
            UnsupportedModelError: as of :meth:`forward`; or the soft targets need a second pass, which would have to be
                of the input that the model's own pass was of, and that is known to the caller alone.
        """
        embedding = find_output_embedding(model)
        if self._needs_teacher_pass(model):
            raise UnsupportedModelError(
                "self_kd: compute_loss cannot make the second pass of the teacher self, for it is not told the input "
                "of the first: call the criterion itself, or give --skd-teacher embedding"
            )
        result = self._loss_from_logits(embedding, model, net_output, None, sample, reduce)
        return (result.loss if model.training else result.ce_loss), result.nll_loss

    def _warn_without_update_number(self, model: nn.Module) -> None:
        waits_or_rises = self.start_update > 0 or self.warmup_updates > 0
        if model.training and waits_or_rises and self.support_state.num_updates is None:
            logger.warning(
                "self_kd was not told the update number, so alpha stays at 0: in a training loop of your own, call "
                "criterion.set_num_updates(num_updates) before each update"
            )
            self.support_state.set_num_updates(0)  # say it once

    def _logits(
        self, embedding: OutputEmbedding, model: Any, net_output: Any, sample: Dict[str, Any]
    ) -> Tuple[Tensor, Tensor]:
        """Logits (N', V) and targets (N',) of all positions that count."""
        target = model.get_targets(sample, net_output)
        return self._tokens(checked_logits(model, net_output, target != self.padding_idx, embedding), target)

    def _tokens(self, outputs: Tensor, target: Tensor) -> Tuple[Tensor, Tensor]:
        """Features or logits (N', d or V) and targets (N',) of all positions that count."""
        if self.ignore_prefix_size > 0:
            outputs, target = outputs[:, self.ignore_prefix_size :], target[:, self.ignore_prefix_size :]
        return outputs.reshape(-1, outputs.size(-1)), target.reshape(-1)

    def _needs_teacher_pass(self, model: nn.Module) -> bool:
        """Whether soft targets need a second pass, now or from ``--skd-start-update`` on.

        In validation there is no dropout, and the model is its own teacher. So it is where alpha stays at 0: a pass
        would draw random numbers, and the training would not be that of fairseq's own criterion. Where both passes
        are trained, the control whose soft targets need none has both, too.
        """
        both = self.options.teacher == "self" and self.teacher_mode == "both"
        return (both or self.options.needs_teacher_pass) and model.training and self.alpha_max > 0

    def _loss_from_features(
        self, embedding: OutputEmbedding, model: nn.Module, net_output: Any, teacher_output: Any, sample: Dict[str, Any]
    ) -> SelfKDLoss:
        features, target = self._tokens(net_output[0], sample["target"])
        of_teacher = None if teacher_output is None else self._tokens(teacher_output[0], sample["target"])[0]
        features, teacher_features, target, passes = self._passes(features, of_teacher, target)
        result = self_kd_loss(
            features, embedding.weight, target, bias=embedding.bias, teacher_features=teacher_features,
            paired=passes == 2, implementation=self.implementation, **self._options(model)._asdict(),
            **self._arguments(embedding, model),
        )  # fmt: skip
        return mean_of_passes(result, passes)

    def _passes(
        self, outputs: Tensor, of_teacher: Optional[Tensor], target: Tensor
    ) -> Tuple[Tensor, Optional[Tensor], Tensor, int]:
        """Features or logits (N', ...) of the passes that are trained, of the teacher, targets, number of passes.

        Where there is no other pass the model is its own teacher; in the mode ``both`` the two passes of a token stand
        one below the other, each the teacher of the other.
        """
        if of_teacher is None:
            return outputs, outputs.detach(), target, 1
        if self.teacher_mode != "both":
            return outputs, of_teacher, target, 1
        return torch.stack([outputs, of_teacher], dim=1).flatten(0, 1), None, target.repeat_interleave(2), 2

    def _loss_from_logits(
        self,
        embedding: OutputEmbedding,
        model: nn.Module,
        net_output: Any,
        teacher_output: Any,
        sample: Dict[str, Any],
        reduce: bool,
    ) -> SelfKDLoss:
        logits, target = self._logits(embedding, model, net_output, sample)
        of_teacher = None if teacher_output is None else self._logits(embedding, model, teacher_output, sample)[0]
        logits, teacher_logits, target, passes = self._passes(logits, of_teacher, target)
        teacher_logits = of_partners(logits) if teacher_logits is None else teacher_logits
        result = self_kd_loss_from_logits(
            logits, embedding.weight, target, teacher_logits=teacher_logits, options=self._options(model),
            reduction="sum" if reduce else "none", **self._arguments(embedding, model),
        )  # fmt: skip
        return mean_of_passes(result, passes)

    def _distils(self, model: nn.Module) -> bool:
        """Whether soft targets are made: in training from the start update on; in validation, to be logged, always."""
        return self.started or not model.training

    def _options(self, model: nn.Module) -> SelfKDOptions:
        return self.options if self._distils(model) else _NOTHING_TO_DISTIL

    def _arguments(self, embedding: OutputEmbedding, model: nn.Module) -> Dict[str, Any]:
        """What both losses are told in the same words."""
        # Found before the start, too: a validation would ask for them there, and training read what that one found.
        neighbours = self.support_state.neighbours(embedding.weight)
        return {
            "alpha": self.alpha,
            "label_smoothing": self.eps,
            "ignore_index": self.padding_idx,
            "excluded": self.excluded,
            "neighbours": neighbours if self._distils(model) else None,
            "generator": self.support_state.generator(model.training),
        }

    @classmethod
    def reduce_metrics(cls, logging_outputs: List[Dict[str, Any]]) -> None:
        """Aggregate the logging outputs of all batches and workers of an update, or of a validation.

        Logged are the losses as means in bits per token (base 2), as fairseq logs its own; ``skd_loss``,
        ``skd_entropy`` (of the soft targets, bits) and ``skd_target_prob`` (a fraction) are means over the tokens that
        are scored; ``skd_distance`` or ``skd_cosine`` over pairs; and ``alpha``.

        Args:
            logging_outputs: of :meth:`forward`: losses are sums over tokens in nats, the rest sums too.
        """
        super().reduce_metrics(logging_outputs)

        def total(key: str) -> Any:
            return utils.item(sum(log.get(key, 0) for log in logging_outputs))

        ntokens, num_pairs = total("skd_ntokens"), total("skd_num_pairs")
        if ntokens > 0:
            # Of the tokens that --ignore-prefix-size leaves, where fairseq divides by all of them.
            for key in ("skd_loss", "skd_entropy"):
                metrics.log_scalar(key, total(key) / ntokens / math.log(2), ntokens, round=3)
            metrics.log_scalar("skd_target_prob", total("skd_target_prob") / ntokens, ntokens, round=4)
        for key in {f"skd_{similarity.measure.name}": None for similarity in SIMILARITIES.values()}:
            if num_pairs > 0 and any(key in log for log in logging_outputs):
                metrics.log_scalar(key, total(key) / num_pairs, num_pairs, round=4)
        num_batches = total("skd_num_batches")
        if num_batches > 0:
            # Weight 0 as for lr: show the latest value, not the mean of an epoch.
            metrics.log_scalar("alpha", total("alpha") / num_batches, weight=0, round=5)
