"""The task ``bptt_language_modeling``: language models whose hidden state is carried along the whole corpus."""

import hashlib
import math
import os
from dataclasses import dataclass, field
from typing import Optional

import torch
from fairseq import utils
from fairseq.data import Dictionary, data_utils, iterators
from fairseq.data.indexed_dataset import get_available_dataset_impl
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from fairseq.optim import AMPOptimizer
from fairseq.tasks import register_task
from fairseq.tasks.language_modeling import LanguageModelingTask
from omegaconf import II

from ..models.stateful_language_model import StatefulLanguageModel
from ..models.unwrapped import unwrapped
from ..optim.nt_asgd import averaging_optimizer
from .stream_state import gather_streams, workers
from .stream_windows import Streams, TokenStream, WindowedStreams, fixed_windows, variable_windows

__all__ = ["BPTTLanguageModelingConfig", "BPTTLanguageModelingTask"]

NAME = "bptt_language_modeling"


@dataclass
class BPTTLanguageModelingConfig(FairseqDataclass):
    """Options of ``bptt_language_modeling``, beside fairseq's own ``--batch-size`` and ``--batch-size-valid``."""

    data: Optional[str] = field(default=None, metadata={"help": "path to data directory"})
    tokens_per_sample: int = field(
        default=35, metadata={"help": "length of a window: the gradient flows back that many tokens (bptt)"}
    )
    variable_bptt: bool = field(
        default=False,
        metadata={
            "help": "random window lengths around --tokens-per-sample in training, and a learning rate in proportion "
            "to the length (AWD-LSTM)"
        },
    )
    batch_size: Optional[int] = II("dataset.batch_size")
    train_subset: str = II("dataset.train_subset")
    dataset_impl: Optional[ChoiceEnum(get_available_dataset_impl())] = II("dataset.dataset_impl")


@register_task(NAME, dataclass=BPTTLanguageModelingConfig)
class BPTTLanguageModelingTask(LanguageModelingTask):
    """Language modelling with truncated back-propagation through time over contiguous streams.

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

    def __init__(self, cfg, dictionary):
        super().__init__(cfg, dictionary)
        self.cfg = cfg  # the legacy base class keeps it as `args` alone
        self._all_streams = None  # the state of every worker's streams after the last window
        self._restored_streams = None  # the same, from a checkpoint, until the first window
        self._update = self._first_window = self._state_before = None
        self._window_lengths = []  # since the last update
        self._averaging = None
        self._validation_is_recorded = True

    @classmethod
    def setup_task(cls, cfg, **kwargs):
        """Load the dictionary of the (first) data folder.

        Raises:
            SystemExit: an option makes no sense.
        """
        if cfg.tokens_per_sample < 1:
            raise SystemExit(f"{NAME}: --tokens-per-sample must be at least 1, not {cfg.tokens_per_sample}")
        if not cfg.data:
            raise SystemExit(f"{NAME}: no data folder was given")
        return cls(cfg, Dictionary.load(cls._dictionary_path(cfg)))

    @staticmethod
    def _dictionary_path(cfg):
        return os.path.join(utils.split_paths(cfg.data)[0], "dict.txt")

    @classmethod
    def add_args(cls, parser):
        """Add the options to a command line."""
        super().add_args(parser)
        # fairseq-train asserts that there is some batch size before any task can say what it needs one for. 0 lets
        # it pass, and get_batch_iterator says it.
        parser.set_defaults(batch_size=0)

    def build_model(self, cfg, from_checkpoint=False):
        """The model that ``--arch`` names.

        Raises:
            SystemExit: it cannot carry its state.
        """
        model = super().build_model(cfg, from_checkpoint)
        if not isinstance(model, StatefulLanguageModel):
            raise SystemExit(
                f"{NAME} needs a model that carries its state, such as lstm_lm_zaremba_small or awd_lstm_ptb; "
                f"{type(model).__name__} does not (fairseq's own task for it: language_modeling)"
            )
        return model

    # ------------------------------------------------------------------------------------------------------- data

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """Load a split as one stream of tokens; of several data folders, the one of this epoch.

        Raises:
            FileNotFoundError: there is no such split.
        """
        paths = utils.split_paths(self.cfg.data)
        path = os.path.join(paths[(epoch - 1) % len(paths)], split)
        lines = data_utils.load_indexed_dataset(path, self.dictionary, self.cfg.dataset_impl, combine=combine)
        if lines is None:
            raise FileNotFoundError(f"Dataset not found: {split} ({path})")
        self.datasets[split] = TokenStream.of_lines(lines, len(self.dictionary))

    def get_batch_iterator(
        self, dataset, max_tokens=None, max_sentences=None, *, seed=1, num_shards=1, shard_id=0, epoch=1,
        skip_remainder_batch=False, **other
    ):  # fmt: skip
        """Windows of this worker's streams, in order; ``max_sentences`` is the number of its streams.

        A window is a slice of a tensor in memory, so nothing is read ahead: ``--num-workers`` and
        ``--data-buffer-size`` have no effect, and no reading thread or process is alive when the program ends.

        Raises:
            SystemExit: the number of streams was not given, or the corpus is too short for so many.
        """
        if (max_sentences or 0) < 1:
            raise SystemExit(
                f"{NAME} needs --batch-size, the number of parallel streams that the corpus is cut into "
                "(20 to train on the Penn Treebank, 1 to score)"
            )
        streams = Streams(total=max_sentences * num_shards, first=max_sentences * shard_id, count=max_sentences)
        length = self.cfg.tokens_per_sample
        if (len(dataset) - 1) // streams.total < length:
            raise SystemExit(
                f"{NAME}: {len(dataset):,} tokens are less than one window of --tokens-per-sample {length} for each "
                f"of {streams.total} streams; lower --batch-size or --tokens-per-sample"
            )
        if self.cfg.variable_bptt and dataset is self.datasets.get(self.cfg.train_subset):
            bounds = variable_windows(streams.length(len(dataset)), length, seed, epoch)
        else:
            bounds = fixed_windows(streams.length(len(dataset)), length)
        windows = WindowedStreams(dataset, streams, bounds, self.dictionary.pad())
        # The windows are this worker's own already, so for the iterator there is one shard.
        return iterators.EpochBatchIterator(
            dataset=windows,
            collate_fn=windows.collater,
            batch_sampler=[[index] for index in range(len(windows))],
            seed=seed,
            epoch=epoch,
            disable_shuffling=True,
            skip_remainder_batch=skip_remainder_batch,
        )

    def eval_lm_dataloader(self, dataset, batch_size=None, context_window=0, max_tokens=None, **other):
        """Windows for ``fairseq-eval-lm``.

        Raises:
            SystemExit: as :meth:`get_batch_iterator`, or a context window was asked for.
        """
        if context_window > 0:
            raise SystemExit(f"{NAME} carries the state along the whole corpus and takes no --context-window")
        return self.get_batch_iterator(dataset, max_sentences=batch_size, **other).next_epoch_itr(shuffle=False)

    def inference_step(self, *arguments, **keywords):
        """Refuse to generate text.

        Raises:
            SystemExit: always.
        """
        raise SystemExit(f"{NAME} trains and scores language models; it does not generate text")

    build_dataset_for_inference = inference_step

    # --------------------------------------------------------------------------------------------------- training

    def begin_epoch(self, epoch, model):
        """Check a carried state before fairseq's reading threads start, so that an error ends the program cleanly.

        Raises:
            SystemExit: the checkpoint's state is of another number of streams than this run's.
        """
        if self._restored_streams is not None:
            there, here = self._restored_streams[0].size(1), self.cfg.batch_size * workers()
            if there != here:
                raise SystemExit(
                    f"{NAME}: the checkpoint was written in the middle of an epoch of {there} streams and this run "
                    f"has {here}: use the same --batch-size (over all workers)"
                )

    def _take_up_state(self, sample, decoder, update_num):
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

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """Forward and backward of one window, with the model's activation regularisation (AR, TAR) in the loss.

        The criterion's ``nll_loss`` never holds the regularisation; its ``loss`` does if there is an ``nll_loss``
        beside it.
        """
        decoder = unwrapped(model).decoder
        self._take_up_state(sample, decoder, update_num)

        def regularised(model, sample):
            loss, sample_size, logging_output = criterion(model, sample)
            activation_loss = decoder.take_activation_loss()
            if activation_loss is not None:
                activation_loss = activation_loss * sample["ntokens"]
                loss = loss + activation_loss
                logging_output["activation_loss"] = activation_loss.detach()
                if "nll_loss" in logging_output:
                    logging_output["loss"] = logging_output["loss"] + activation_loss.detach()
            return loss, sample_size, logging_output

        result = super().train_step(sample, model, regularised, optimizer, update_num, ignore_grad)
        self._window_lengths.append(sample["target"].size(1))
        self._all_streams = None if sample["ends_stream"] else gather_streams(decoder.carried_state())
        return result

    def optimizer_step(self, optimizer, model, update_num):
        """One update; with ``--variable-bptt`` the learning rate is in proportion to the length of the window.

        Raises:
            SystemExit: SGD with --amp: fairseq divides its gradient by the loss scale twice.
        """
        if isinstance(optimizer, AMPOptimizer) and isinstance(optimizer.optimizer, torch.optim.SGD):
            raise SystemExit("fairseq's --amp scales the gradient of SGD down twice: leave it out, or use adam")
        lengths, self._window_lengths = self._window_lengths, []
        self._averaging = averaging_optimizer(optimizer)
        if not self.cfg.variable_bptt or not lengths:
            return super().optimizer_step(optimizer, model, update_num)
        lr = optimizer.get_lr()
        optimizer.set_lr(lr * sum(lengths) / len(lengths) / self.cfg.tokens_per_sample)
        try:
            return super().optimizer_step(optimizer, model, update_num)
        finally:
            optimizer.set_lr(lr)

    def reduce_metrics(self, logging_outputs, criterion):
        """As the criterion does; and ``activation_loss``, AR and TAR in bits per token, where the model has them."""
        super().reduce_metrics(logging_outputs, criterion)
        if any("activation_loss" in log for log in logging_outputs):
            total = utils.item(sum(log.get("activation_loss", 0) for log in logging_outputs))
            ntokens = utils.item(sum(log.get("ntokens", 0) for log in logging_outputs))
            metrics.log_scalar("activation_loss", total / max(ntokens, 1) / math.log(2), ntokens, round=3)

    # ----------------------------------------------------------------------------------- validation with nt_asgd

    def begin_valid_epoch(self, epoch, model):
        """An optimizer that averages weights (``nt_asgd``) validates with the average."""
        self._validation_is_recorded = False
        if self._averaging is not None:
            self._averaging.use_average()

    def post_validate(self, model, stats, agg):
        """Tell such an optimizer the perplexity of the first validation subset, before fairseq saves a checkpoint."""
        if self._averaging is not None and not self._validation_is_recorded:
            self._averaging.record_validation(float(stats["ppl"]))
        self._validation_is_recorded = True

    # ------------------------------------------------------------------------------------------------ checkpoints

    def get_checkpoint_dict(self):
        """What fairseq saves of this task for a resumed run: in mid-epoch, the carried state of every stream."""
        saved = self.state_dict()
        if self._all_streams is not None:
            saved["carried_state"] = [part.cpu() for part in self._all_streams]
        return {type(self).__name__: saved}

    def set_checkpoint_dict(self, saved):
        """Take up what :meth:`get_checkpoint_dict` gave.

        Raises:
            SystemExit: the checkpoint is of another dictionary.
        """
        self.load_state_dict(saved)
        self._restored_streams = saved.get("carried_state")

    def state_dict(self):
        """What every use of a checkpoint needs: the fingerprint of the dictionary."""
        symbols = "\n".join(self.dictionary.symbols)
        return {
            "dictionary_size": len(self.dictionary),
            "dictionary_sha256": hashlib.sha256(symbols.encode("utf-8")).hexdigest(),
        }

    def load_state_dict(self, state_dict):
        """Check the dictionary of a checkpoint against the data's.

        Raises:
            SystemExit: they differ.
        """
        own, path = self.state_dict(), self._dictionary_path(self.cfg)
        for key, value in own.items():
            if state_dict.get(key, value) != value:
                raise SystemExit(
                    f"the checkpoint was trained with another dictionary ({state_dict['dictionary_size']} words) than "
                    f"{path} ({own['dictionary_size']} words): binarise the data with the dictionary that it was "
                    "trained with (fairseq-preprocess --srcdict)"
                )
