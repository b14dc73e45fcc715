"""What LSTM language models need to carry their state from one window of a stream to the next.

So Zaremba et al. (2014, arXiv 1409.2329) and Merity et al. (2018, arXiv 1708.02182) train theirs.
"""

import contextlib
import logging
from typing import Any, Callable, ClassVar, Dict, Iterator, List, Optional, Set, Tuple

from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder, FairseqLanguageModel
from torch import Tensor, nn

__all__ = ["StatefulDecoder", "StatefulLanguageModel"]

logger = logging.getLogger(__name__)

State = List[Tensor]  # each (layers, B, width): one row for each of the B streams
IncrementalState = Dict[str, Dict[str, Optional[Tensor]]]  # what fairseq keeps between the steps of a decoding


class StatefulDecoder(FairseqIncrementalDecoder):
    """A recurrent decoder that can go on from where its last window ended.

    The state of training and that of evaluation are kept apart, so that a validation in the middle of an epoch leaves
    the training state alone. What is carried is detached: no gradient flows from one window into the one before
    (truncated back-propagation through time).

    A subclass sets ``output_projection`` and implements :meth:`recurrence`.

    Args:
        dictionary: fairseq dictionary of V words.
    """

    output_projection: nn.Linear

    def __init__(self, dictionary: Dictionary):
        super().__init__(dictionary)
        self.activation_loss: Optional[Tensor] = None
        self._carried: Dict[bool, Optional[State]] = {}
        self._warned: Set[str] = set()

    def recurrence(self, tokens: Tensor, state: Optional[State]) -> Tuple[Tensor, State]:
        """Features of every position, and the state after the last.

        Args:
            tokens: (T, B), integers in [0, V).
            state: as returned by an earlier call, tensors (layers, B, width); None: zeros.

        Returns:
            (features (T, B, d), state). A subclass that regularises activations sets ``activation_loss`` in training:
            a scalar in nats per token, with gradient.
        """
        raise NotImplementedError

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Optional[Any] = None,
        incremental_state: Optional[IncrementalState] = None,
        starts_stream: Optional[bool] = None,
        features_only: bool = False,
        src_lengths: Optional[Tensor] = None,
    ) -> Tuple[Tensor, None]:
        """Logits (or features) of every position.

        Args:
            prev_output_tokens: (B, T), integers in [0, V).
            encoder_out: unused, a language model has none.
            incremental_state: fairseq's cache of step-by-step decoding.
            starts_stream: True: start from a zero state and carry the state on; False: go on from the carried state;
                None: start from a zero state and carry nothing.
            features_only: leave out the output projection.
            src_lengths: (B,), unused.

        Returns:
            ((B, T, V) logits, or (B, T, d) features; None)
        """
        features = self.extract_features(prev_output_tokens, encoder_out, incremental_state, starts_stream)[0]
        return (features if features_only else self.output_layer(features)), None

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: Optional[Any] = None,
        incremental_state: Optional[IncrementalState] = None,
        starts_stream: Optional[bool] = None,
        **_: Any,
    ) -> Tuple[Tensor, None]:
        """As :meth:`forward` without the output projection.

        Args:
            prev_output_tokens: (B, T), integers in [0, V).
            encoder_out: unused.
            incremental_state: as of :meth:`forward`.
            starts_stream: as of :meth:`forward`.

        Returns:
            ((B, T, d) features; None)
        """
        if incremental_state is not None:
            tokens = prev_output_tokens[:, -1:]
            cached = self.get_incremental_state(incremental_state, "state")
            features, state = self.recurrence(tokens.t(), None if cached is None else list(cached.values()))
            self.set_incremental_state(incremental_state, "state", {str(i): part for i, part in enumerate(state)})
        else:
            batch = prev_output_tokens.size(0)
            features, state = self.recurrence(prev_output_tokens.t(), self._starting_state(starts_stream, batch))
            if starts_stream is not None:
                self._carried[self.training] = [part.detach() for part in state]
        return features.transpose(0, 1), None

    def _starting_state(self, starts_stream: Optional[bool], batch: int) -> Optional[State]:
        if starts_stream:
            return None
        if starts_stream is None:
            self._warn("the state is not carried from batch to batch; --task bptt_language_modeling does that")
            return None
        state = self._carried.get(self.training)
        if state is None:
            self._warn("no state was carried to this window, so it starts from a zero state")
            return None
        streams = state[0].size(1)
        if streams != batch:
            raise ValueError(f"the carried state is of {streams} streams and this window has {batch}")
        weight = self.output_projection.weight
        return [part.to(device=weight.device, dtype=weight.dtype) for part in state]

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            logger.warning(message)
            self._warned.add(message)

    def output_layer(self, features: Tensor) -> Tensor:
        """Make logits, with gradient.

        Args:
            features: (..., d).

        Returns:
            (..., V).
        """
        logits: Tensor = self.output_projection(features)
        return logits

    def take_activation_loss(self) -> Optional[Tensor]:
        """The regularisation of the last training window, once: a scalar in nats per token, None if there is none."""
        loss, self.activation_loss = self.activation_loss, None
        return loss

    @contextlib.contextmanager
    def as_in_training(self) -> Iterator[None]:
        """Within it, a pass in either mode goes on from the state of the training; afterwards all is as before.

        Yields:
            None.
        """
        carried, activation_loss = dict(self._carried), self.activation_loss
        self._carried[False] = self._carried.get(True)
        try:
            yield
        finally:
            self._carried, self.activation_loss = carried, activation_loss

    def carried_state(self) -> Optional[State]:
        """The state of training after the last window: tensors (layers, B, width); None before the first."""
        return self._carried.get(True)

    def set_carried_state(self, state: Optional[State]) -> None:
        """Go on from another state in the next training window.

        Args:
            state: as of :meth:`carried_state`: tensors (layers, B, width), no gradient flows; None: zeros, with a
                warning.
        """
        self._carried[True] = state

    def reorder_incremental_state(self, incremental_state: IncrementalState, new_order: Tensor) -> None:
        """Reorder the cache of step-by-step decoding after a step of beam search.

        Args:
            incremental_state: fairseq's cache, changed in place.
            new_order: (B,) int64: for each row of the beams the row that it goes on from.
        """
        cached = self.get_incremental_state(incremental_state, "state")
        if cached is not None:
            reordered = {name: part.index_select(1, new_order) for name, part in cached.items()}
            self.set_incremental_state(incremental_state, "state", reordered)

    def max_positions(self) -> int:
        """No limit: the state is carried on."""
        return int(1e6)


class StatefulLanguageModel(FairseqLanguageModel):
    """A language model whose decoder is a :class:`StatefulDecoder`.

    Attributes:
        decoder_class: what a subclass is made of; takes the config and the dictionary.
    """

    decoder_class: ClassVar[Callable[..., StatefulDecoder]]

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "StatefulLanguageModel":
        """The model for a fairseq command line.

        Args:
            cfg: options of the model, a fairseq dataclass.
            task: fairseq task; its ``target_dictionary`` holds the V words.

        Returns:
            A new model with random parameters.

        Raises:
            SystemExit: an option is out of its range; one line.
        """
        try:
            return cls(cls.decoder_class(cfg, task.target_dictionary))
        except ValueError as error:
            raise SystemExit(f"{cfg._name}: {error}") from None

    def load_state_dict(
        self,
        state_dict: Dict[str, Any],
        strict: bool = True,
        model_cfg: Optional[Any] = None,
        args: Optional[Any] = None,
    ) -> Any:
        """As of every fairseq model.

        Args:
            state_dict: name -> tensor, of a checkpoint.
            strict: refuse missing and superfluous names.
            model_cfg: options of the model, for fairseq's pruning of layers.
            args: the same in the form of older versions.

        Returns:
            What PyTorch returns: the missing and the superfluous names.

        Raises:
            SystemExit: the checkpoint is of another vocabulary size; one line instead of a list of tensors.
        """
        name = "decoder.output_projection.weight"
        if name in state_dict and state_dict[name].size(0) != self.decoder.output_projection.weight.size(0):
            raise SystemExit(
                f"the checkpoint has a vocabulary of {state_dict[name].size(0)} words and the data one of "
                f"{self.decoder.output_projection.weight.size(0)}: use the dict.txt that it was trained with "
                "(fairseq-preprocess --srcdict)"
            )
        return super().load_state_dict(state_dict, strict, model_cfg, args)
