"""The data of the task ``bptt_language_modeling``: a corpus as parallel streams, in windows that come in order."""

import os
from argparse import ArgumentParser
from dataclasses import dataclass, field
from typing import Any, NoReturn, Optional

from fairseq import utils
from fairseq.data import Dictionary, data_utils, iterators
from fairseq.data.indexed_dataset import get_available_dataset_impl
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks.language_modeling import LanguageModelingTask
from omegaconf import II

from ..models.stateful_language_model import StatefulLanguageModel
from .stream_windows import Streams, TokenStream, WindowedStreams, fixed_windows, variable_windows

__all__ = ["NAME", "BPTTLanguageModelingConfig", "StreamTask"]

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
    dataset_impl: Optional[ChoiceEnum(get_available_dataset_impl())] = II("dataset.dataset_impl")  # type: ignore[valid-type]


class StreamTask(LanguageModelingTask):
    """Dictionary, splits and windows, as of Zaremba et al. (2014, arXiv 1409.2329).

    How a model is trained on them is in :mod:`.bptt_language_modeling`.

    Args:
        cfg: :class:`BPTTLanguageModelingConfig`.
        dictionary: of V words.
    """

    def __init__(self, cfg: BPTTLanguageModelingConfig, dictionary: Dictionary):
        super().__init__(cfg, dictionary)
        self.cfg = cfg  # the legacy base class keeps it as `args` alone

    @classmethod
    def setup_task(cls, cfg: BPTTLanguageModelingConfig, **kwargs: Any) -> "StreamTask":
        """Load the dictionary of the (first) data folder.

        Args:
            cfg: options of the task.
            **kwargs: unused.

        Returns:
            The task, without data.

        Raises:
            SystemExit: an option makes no sense.
        """
        if cfg.tokens_per_sample < 1:
            raise SystemExit(f"{NAME}: --tokens-per-sample must be at least 1, not {cfg.tokens_per_sample}")
        if not cfg.data:
            raise SystemExit(f"{NAME}: no data folder was given")
        return cls(cfg, Dictionary.load(cls.dictionary_path(cfg)))

    @staticmethod
    def dictionary_path(cfg: BPTTLanguageModelingConfig) -> str:
        """Where the dictionary is.

        Args:
            cfg: options of the task.

        Returns:
            Its path, in the (first) data folder.
        """
        return os.path.join(utils.split_paths(cfg.data)[0], "dict.txt")

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """Add the options to a command line.

        Args:
            parser: of fairseq's command, changed in place.
        """
        super().add_args(parser)
        # fairseq-train asserts that there is some batch size before any task can say what it needs one for. 0 lets
        # it pass, and get_batch_iterator says it.
        parser.set_defaults(batch_size=0)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> StatefulLanguageModel:
        """The model that ``--arch`` names.

        Args:
            cfg: options of the model, a fairseq dataclass.
            from_checkpoint: whether weights of a checkpoint will be loaded into it.

        Returns:
            A new model with random parameters.

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

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a split as one stream of tokens; of several data folders, the one of this epoch.

        Args:
            split: train, valid, test and so on: the name of a binarised file.
            epoch: counted from 1.
            combine: join the parts that a split is stored in (``train``, ``train1``, ...).
            **kwargs: unused.

        Raises:
            FileNotFoundError: there is no such split.
            MendableError: a file of it is cut short, or holds a word that is not in the dictionary.
        """
        paths = utils.split_paths(self.cfg.data)
        path = os.path.join(paths[(epoch - 1) % len(paths)], split)
        lines = data_utils.load_indexed_dataset(path, self.dictionary, self.cfg.dataset_impl, combine=combine)
        if lines is None:
            raise FileNotFoundError(f"Dataset not found: {split} ({path})")
        self.datasets[split] = TokenStream.of_lines(lines, len(self.dictionary))

    def get_batch_iterator(
        self, dataset: TokenStream, max_tokens: Optional[int] = None, max_sentences: Optional[int] = None, *,
        seed: int = 1, num_shards: int = 1, shard_id: int = 0, epoch: int = 1, skip_remainder_batch: bool = False,
        **other: Any
    ) -> iterators.EpochBatchIterator:  # fmt: skip
        """Windows of this worker's streams, in order; ``max_sentences`` is the number of its streams.

        A window is a slice of a tensor in memory, so nothing is read ahead: ``--num-workers`` and
        ``--data-buffer-size`` have no effect, and no reading thread or process is alive when the program ends.

        Args:
            dataset: a loaded split.
            max_tokens: unused.
            max_sentences: B, streams of this worker, at least 1.
            seed: of random windows.
            num_shards: number of data-parallel workers.
            shard_id: this worker, counted from 0.
            epoch: counted from 1.
            skip_remainder_batch: leave out the windows that do not fill a last update (``--update-freq``).
            **other: what fairseq gives to tasks that shuffle; unused.

        Returns:
            fairseq's iterator over :class:`WindowedStreams`.

        Raises:
            SystemExit: the number of streams was not given, or the corpus is too short for so many.
        """
        if max_sentences is None or max_sentences < 1:
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

    def eval_lm_dataloader(
        self,
        dataset: TokenStream,
        batch_size: Optional[int] = None,
        context_window: int = 0,
        max_tokens: Optional[int] = None,
        **other: Any,
    ) -> iterators.CountingIterator:
        """Windows for ``fairseq-eval-lm``.

        Args:
            dataset: a loaded split.
            batch_size: number of parallel streams, at least 1.
            context_window: must be 0.
            max_tokens: unused.
            **other: for :meth:`get_batch_iterator`.

        Returns:
            fairseq's iterator over the windows of one epoch, in order.

        Raises:
            SystemExit: as :meth:`get_batch_iterator`, or a context window was asked for.
        """
        if context_window > 0:
            raise SystemExit(f"{NAME} carries the state along the whole corpus and takes no --context-window")
        return self.get_batch_iterator(dataset, max_sentences=batch_size, **other).next_epoch_itr(shuffle=False)

    def inference_step(self, *arguments: Any, **keywords: Any) -> NoReturn:
        """Refuse to generate text.

        Args:
            *arguments: unused.
            **keywords: unused.

        Raises:
            SystemExit: always.
        """
        raise SystemExit(f"{NAME} trains and scores language models; it does not generate text")

    build_dataset_for_inference = inference_step
