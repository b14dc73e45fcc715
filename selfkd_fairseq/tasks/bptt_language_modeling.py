"""The task ``bptt_language_modeling``: language models whose hidden state is carried along the whole corpus.

Here is how they are trained and what a checkpoint holds; the data are in :mod:`.stream_task`.
"""

import hashlib
import math
from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq import utils
from fairseq.data import Dictionary
from fairseq.logging import metrics
from fairseq.optim import AMPOptimizer
from fairseq.tasks import register_task
from torch import Tensor, nn

from ..models.stateful_language_model import State, StatefulDecoder
from ..models.unwrapped import unwrapped
from ..optim.nt_asgd import NTASGD, averaging_optimizer
from .stream_state import gather_streams, workers
from .stream_task import NAME, BPTTLanguageModelingConfig, StreamTask

__all__ = ["BPTTLanguageModelingConfig", "BPTTLanguageModelingTask"]


@register_task(NAME, dataclass=BPTTLanguageModelingConfig)
class BPTTLanguageModelingTask(StreamTask):
    """Language modelling with truncated back-propagation through time over contiguous streams.

    So Zaremba et al. (2014, arXiv 1409.2329) train, and with windows of random length Merity et al. (2018,
    arXiv 1708.02182).

    The corpus, all lines end to end, is cut into ``--batch-size`` parallel streams (for each data-parallel worker its
    own), which are read in windows of ``--tokens-per-sample``. Each window starts from the hidden state in which the
    last one ended; an epoch and a validation start from zeros. Every token of the corpus but the first is a target
    exactly once, so a logged perplexity is that of the whole stream; with ``--batch-size 1`` in evaluation the state
    is never reset, as in published results.

    A checkpoint holds the carried state of all streams, so that a run resumed in the middle of an epoch is the same
    run, and a fingerprint of the dictionary.

    Args:
        cfg: :class:`BPTTLanguageModelingConfig`.
        dictionary: of V words.
    """

    def __init__(self, cfg: BPTTLanguageModelingConfig, dictionary: Dictionary):
        super().__init__(cfg, dictionary)
        self._all_streams: Optional[State] = None  # the state of every worker's streams after the last window
        self._restored_streams: Optional[State] = None  # the same, from a checkpoint, until the first window
        self._update: Optional[int] = None
        self._first_window: Optional[int] = None
        self._state_before: Optional[State] = None
        self._window_lengths: List[int] = []  # since the last update
        self._averaging: Optional[NTASGD] = None
        self._validation_is_recorded = True

    def begin_epoch(self, epoch: int, model: nn.Module) -> None:
        """Check a carried state before fairseq's reading threads start, so that an error ends the program cleanly.

        Args:
            epoch: counted from 1; unused.
            model: as the trainer holds it; unused.

        Raises:
            SystemExit: the checkpoint's state is of another number of streams than this run's.
        """
        if self._restored_streams is not None:
            there, here = self._restored_streams[0].size(1), (self.cfg.batch_size or 0) * workers()
            if there != here:
                raise SystemExit(
                    f"{NAME}: the checkpoint was written in the middle of an epoch of {there} streams and this run "
                    f"has {here}: use the same --batch-size (over all workers)"
                )

    def _take_up_state(self, sample: Dict[str, Any], decoder: StatefulDecoder, update_num: int) -> None:
        """Before a window: the state that a checkpoint carried, or that of a window which fairseq gives once more."""
        restored, self._restored_streams = self._restored_streams, None
        if restored is not None and not sample["net_input"]["starts_stream"]:
            decoder.set_carried_state([part[:, sample["id"].to(part.device)] for part in restored])
        if update_num != self._update:
            self._update, self._first_window = update_num, sample["window"]
            self._state_before = decoder.carried_state()
        elif sample["window"] == self._first_window:  # --amp gives a batch again after an overflow
            decoder.set_carried_state(self._state_before)
            self._window_lengths = []

    def train_step(
        self,
        sample: Dict[str, Any],
        model: nn.Module,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Tuple[Tensor, int, Dict[str, Any]]:
        """Forward and backward of one window, with the model's activation regularisation (AR, TAR) in the loss.

        The criterion's ``nll_loss`` never holds the regularisation; its ``loss`` does if there is an ``nll_loss``
        beside it.

        Args:
            sample: an item of :class:`WindowedStreams`.
            model: as the trainer holds it.
            criterion: fairseq criterion; its loss is a sum over tokens.
            optimizer: of the trainer; it scales the loss in half precision.
            update_num: updates done so far.
            ignore_grad: multiply the loss by 0 (a batch that only keeps the workers in step).

        Returns:
            (loss in nats, a scalar, sum over tokens; sample size that fairseq divides by; logging outputs)
        """
        decoder: StatefulDecoder = unwrapped(model).decoder
        self._take_up_state(sample, decoder, update_num)

        def regularised(model: nn.Module, sample: Dict[str, Any]) -> Tuple[Tensor, int, Dict[str, Any]]:
            loss, sample_size, logging_output = criterion(model, sample)
            activation_loss = decoder.take_activation_loss()
            if activation_loss is not None:
                activation_loss = activation_loss * sample["ntokens"]
                loss = loss + activation_loss
                logging_output["activation_loss"] = activation_loss.detach()
                if "nll_loss" in logging_output:
                    logging_output["loss"] = logging_output["loss"] + activation_loss.detach()
            return loss, sample_size, logging_output

        loss, sample_size, logging_output = super().train_step(
            sample, model, regularised, optimizer, update_num, ignore_grad
        )
        self._window_lengths.append(sample["target"].size(1))
        carried = decoder.carried_state()
        self._all_streams = None if carried is None or sample["ends_stream"] else gather_streams(carried)
        return loss, sample_size, logging_output

    def optimizer_step(self, optimizer: Any, model: nn.Module, update_num: int) -> None:
        """One update; with ``--variable-bptt`` the learning rate is in proportion to the length of the window.

        Args:
            optimizer: of the trainer, wrapped for half precision or not.
            model: as the trainer holds it; its gradients are summed and clipped.
            update_num: updates done so far.

        Raises:
            SystemExit: SGD with --amp: fairseq divides its gradient by the loss scale twice.
        """
        if isinstance(optimizer, AMPOptimizer) and isinstance(optimizer.optimizer, torch.optim.SGD):
            raise SystemExit("fairseq's --amp scales the gradient of SGD down twice: leave it out, or use adam")
        lengths, self._window_lengths = self._window_lengths, []
        self._averaging = averaging_optimizer(optimizer)
        if not self.cfg.variable_bptt or not lengths:
            super().optimizer_step(optimizer, model, update_num)
            return
        lr = optimizer.get_lr()
        optimizer.set_lr(lr * sum(lengths) / len(lengths) / self.cfg.tokens_per_sample)
        try:
            super().optimizer_step(optimizer, model, update_num)
        finally:
            optimizer.set_lr(lr)

    def reduce_metrics(self, logging_outputs: List[Dict[str, Any]], criterion: Any) -> None:
        """Aggregate as the criterion does; and ``activation_loss``, AR and TAR, where the model has them.

        It is logged as the mean in bits per token, as the losses are.

        Args:
            logging_outputs: of all batches and workers; ``activation_loss`` is a sum over tokens in nats.
            criterion: of the trainer.
        """
        super().reduce_metrics(logging_outputs, criterion)
        if any("activation_loss" in log for log in logging_outputs):
            total = utils.item(sum(log.get("activation_loss", 0) for log in logging_outputs))
            ntokens = utils.item(sum(log.get("ntokens", 0) for log in logging_outputs))
            metrics.log_scalar("activation_loss", total / max(ntokens, 1) / math.log(2), ntokens, round=3)

    # ----------------------------------------------------------------------------------- validation with nt_asgd

    def begin_valid_epoch(self, epoch: int, model: nn.Module) -> None:
        """An optimizer that averages weights (``nt_asgd``) validates with the average.

        Args:
            epoch: counted from 1; unused.
            model: as the trainer holds it; its parameters become the average if there is one.
        """
        self._validation_is_recorded = False
        if self._averaging is not None:
            self._averaging.use_average()

    def post_validate(self, model: nn.Module, stats: Dict[str, Any], agg: Any) -> None:
        """Tell such an optimizer the perplexity of the first validation subset, before fairseq saves a checkpoint.

        Args:
            model: as the trainer holds it; unused.
            stats: of the subset; ``ppl`` is its perplexity.
            agg: fairseq's meters; unused.
        """
        if self._averaging is not None and not self._validation_is_recorded:
            self._averaging.record_validation(float(stats["ppl"]))
        self._validation_is_recorded = True

    # ------------------------------------------------------------------------------------------------ checkpoints

    def get_checkpoint_dict(self) -> Dict[str, Dict[str, Any]]:
        """What fairseq saves of this task for a resumed run: in mid-epoch, the carried state of every stream."""
        saved = self.state_dict()
        if self._all_streams is not None:
            saved["carried_state"] = [part.cpu() for part in self._all_streams]
        return {type(self).__name__: saved}

    def set_checkpoint_dict(self, saved: Dict[str, Any]) -> None:
        """Take up what :meth:`get_checkpoint_dict` gave.

        Args:
            saved: the entry of this task in a checkpoint.

        Raises:
            SystemExit: the checkpoint is of another dictionary.
        """
        self.load_state_dict(saved)
        self._restored_streams = saved.get("carried_state")

    def state_dict(self) -> Dict[str, Any]:
        """What every use of a checkpoint needs: the fingerprint of the dictionary."""
        symbols = "\n".join(self.dictionary.symbols)
        return {
            "dictionary_size": len(self.dictionary),
            "dictionary_sha256": hashlib.sha256(symbols.encode("utf-8")).hexdigest(),
        }

    def load_state_dict(self, state_dict: Dict[str, Any]) -> None:
        """Check the dictionary of a checkpoint against the data's.

        Args:
            state_dict: what :meth:`state_dict` gave when the checkpoint was written.

        Raises:
            SystemExit: they differ.
        """
        own, path = self.state_dict(), self.dictionary_path(self.cfg)
        for key, value in own.items():
            if state_dict.get(key, value) != value:
                raise SystemExit(
                    f"the checkpoint was trained with another dictionary ({state_dict['dictionary_size']} words) than "
                    f"{path} ({own['dictionary_size']} words): binarise the data with the dictionary that it was "
                    "trained with (fairseq-preprocess --srcdict)"
                )
