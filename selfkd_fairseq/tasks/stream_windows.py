"""A corpus as parallel streams of tokens, read window by window, as by Zaremba et al. (2014, arXiv 1409.2329)."""

from dataclasses import dataclass
from typing import Any, Dict, List

import numpy as np
import torch
from fairseq.data import FairseqDataset

__all__ = ["Streams", "TokenStream", "WindowedStreams", "fixed_windows", "variable_windows"]


class TokenStream(FairseqDataset):
    """One split of a corpus, all its lines end to end, each line closed by ``</s>``.

    Args:
        tokens: (T,) integer array.
    """

    def __init__(self, tokens: np.ndarray):
        self.tokens = tokens

    @classmethod
    def of_lines(cls, lines: Any, vocabulary_size: int) -> "TokenStream":
        """Join the lines of an indexed dataset.

        Args:
            lines: fairseq's dataset: items (L,) of word ids, and ``sizes``.
            vocabulary_size: V, which decides the dtype: uint16 if every id fits, else int32.

        Returns:
            A stream of all their tokens, copied.
        """
        dtype = np.uint16 if vocabulary_size <= np.iinfo(np.uint16).max else np.int32
        tokens = np.empty(int(np.sum(lines.sizes)), dtype=dtype)
        end = 0
        for i in range(len(lines)):
            line = lines[i]
            tokens[end : end + len(line)] = line.numpy()
            end += len(line)
        return cls(tokens)

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


def fixed_windows(stream_length: int, tokens_per_sample: int) -> List[int]:
    """Cut a stream into windows of one length.

    Args:
        stream_length: predictions per stream, at least 1.
        tokens_per_sample: T, at least 1.

    Returns:
        Where the windows begin, and the end of the stream: ``[0, T, 2 T, ..., stream_length]``.
    """
    return [*range(0, stream_length, tokens_per_sample), stream_length]


def variable_windows(stream_length: int, tokens_per_sample: int, seed: int, epoch: int) -> List[int]:
    """Random windows of AWD-LSTM (Merity et al., 2018), drawn anew each epoch.

    The mean length is ``tokens_per_sample`` with probability 0.95, else half of it; the length is normal around the
    mean with standard deviation 5, and at least 5.

    Args:
        stream_length: predictions per stream.
        tokens_per_sample: the usual mean length of a window, in tokens.
        seed: of the run.
        epoch: counted from 1.

    Returns:
        Where the windows of a stream begin, and its end: a pure function of the arguments, so that every worker and
        every resumed run reads the same windows.
    """
    random = np.random.default_rng([seed, epoch])
    bounds = [0]
    while bounds[-1] < stream_length:
        mean = tokens_per_sample if random.random() < 0.95 else tokens_per_sample / 2
        length = max(5, int(random.normal(mean, 5)))
        bounds.append(min(bounds[-1] + length, stream_length))
    return bounds


@dataclass(frozen=True)
class Streams:
    """Which of the parallel streams of a corpus a worker reads.

    Attributes:
        total: number of streams that the corpus is cut into, over all workers.
        first: the worker's first stream.
        count: number of its streams.
    """

    total: int
    first: int
    count: int

    def length(self, num_tokens: int) -> int:
        """How long each stream is.

        Args:
            num_tokens: of the whole corpus, at least 1.

        Returns:
            Predictions per stream; the last streams may have fewer.
        """
        return -(-(num_tokens - 1) // self.total)


class WindowedStreams(FairseqDataset):
    """Batches of one epoch, in order: item w is window w of each of this worker's streams.

    The corpus of T tokens has T - 1 predictions (each token but the first, given all before it). They are cut into
    ``streams.total`` contiguous streams, so the target of a stream's last position is the first token of the next
    stream, and each prediction belongs to exactly one stream. What the last stream lacks is padding.

    Args:
        stream: T tokens.
        streams: this worker's share.
        bounds: see :func:`fixed_windows`.
        padding_idx: marks positions without a target.
    """

    def __init__(self, stream: TokenStream, streams: Streams, bounds: List[int], padding_idx: int):
        self.streams, self.bounds, self.padding_idx = streams, bounds, padding_idx
        length = streams.length(len(stream))
        own = slice(streams.first * length, (streams.first + streams.count) * length)
        self.inputs = self._rows(stream.tokens[:-1][own])
        self.targets = self._rows(stream.tokens[1:][own])

    def _rows(self, tokens: np.ndarray) -> np.ndarray:
        missing = self.streams.count * self.bounds[-1] - len(tokens)
        if missing > 0:
            tokens = np.concatenate([tokens, np.full(missing, self.padding_idx, dtype=tokens.dtype)])
        return tokens.reshape(self.streams.count, -1)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> Dict[str, Any]:
        """A fairseq batch: ``target`` (B, T) and, in ``net_input``, ``src_tokens`` (B, T), both int64."""
        window = slice(self.bounds[index], self.bounds[index + 1])
        inputs, targets = (torch.from_numpy(rows[:, window].astype(np.int64)) for rows in (self.inputs, self.targets))
        count, length = inputs.shape
        return {
            "id": torch.arange(self.streams.first, self.streams.first + count),
            "window": index,
            "ends_stream": index == len(self) - 1,
            "nsentences": count,
            "ntokens": int(targets.ne(self.padding_idx).sum()),
            "net_input": {
                "src_tokens": inputs,
                "src_lengths": torch.full((count,), length),
                "starts_stream": index == 0,
            },
            "target": targets,
        }

    def collater(self, samples: List[Dict[str, Any]]) -> Dict[str, Any]:
        """Give the batch that an item already is.

        Args:
            samples: one item.

        Returns:
            That item, see :meth:`__getitem__`.
        """
        (batch,) = samples
        return batch

    def num_tokens(self, index: int) -> int:
        """Size of a window, for fairseq.

        Args:
            index: of the window, from 0.

        Returns:
            Its positions, B * T, with padding.
        """
        return self.size(index) * self.streams.count

    def size(self, index: int) -> int:
        """Length of a window.

        Args:
            index: of the window, from 0.

        Returns:
            Its time steps, T.
        """
        return self.bounds[index + 1] - self.bounds[index]
