"""AWD-LSTM of Merity et al. (2018), *Regularizing and Optimizing LSTM Language Models* (arXiv 1708.02182).

LSTM layers with weight-dropped recurrence, locked dropout on the embeddings, between the layers and on the outputs,
dropout of whole words in the embedding, tied embeddings, and the activation regularisers AR and TAR, which the task
``bptt_language_modeling`` adds to the training loss.
"""

from dataclasses import dataclass, field
from typing import List, Optional, Tuple

from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from fairseq.models import register_model
from torch import Tensor, nn

from .architecture_defaults import register_variant
from .lstm_regularisation import (
    EmbeddingDropout,
    LockedDropout,
    WeightDropLSTM,
    activation_regularisation,
    check_probability,
    temporal_activation_regularisation,
)
from .stateful_language_model import State, StatefulDecoder, StatefulLanguageModel

__all__ = ["AWDLSTMConfig", "AWDLSTMDecoder", "AWDLSTMLanguageModel"]


@dataclass
class AWDLSTMConfig(FairseqDataclass):
    """Options of ``awd_lstm_lm``; the defaults are those of the paper's model for the Penn Treebank."""

    decoder_embed_dim: int = field(default=400, metadata={"help": "width of the word embeddings"})
    decoder_hidden_size: int = field(
        default=1150,
        metadata={"help": "width of the LSTM layers (the last one of a tied model has --decoder-embed-dim)"},
    )
    decoder_layers: int = field(default=3, metadata={"help": "number of LSTM layers"})
    no_share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "do not tie the output embedding to the input embedding"}
    )
    dropout: float = field(default=0.4, metadata={"help": "locked dropout on the outputs of the last layer"})
    input_dropout: float = field(default=0.4, metadata={"help": "locked dropout on the embeddings (dropouti)"})
    hidden_dropout: float = field(default=0.25, metadata={"help": "locked dropout between the layers (dropouth)"})
    embedding_dropout: float = field(default=0.1, metadata={"help": "dropout of whole words (dropoute)"})
    weight_dropout: float = field(default=0.5, metadata={"help": "dropout of recurrent weights (wdrop)"})
    activation_regularization: float = field(
        default=2.0, metadata={"help": "weight of AR, the mean square of the outputs after dropout (alpha)"}
    )
    temporal_activation_regularization: float = field(
        default=1.0, metadata={"help": "weight of TAR, the mean square of the change of the outputs (beta)"}
    )
    init_range: float = field(
        default=0.1, metadata={"help": "embeddings are drawn uniformly from [-INIT_RANGE, INIT_RANGE]"}
    )


class AWDLSTMDecoder(StatefulDecoder):
    """See the module's docstring.

    Args:
        cfg: :class:`AWDLSTMConfig`.
        dictionary: fairseq dictionary of V words.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(self, cfg: AWDLSTMConfig, dictionary: Dictionary):
        super().__init__(dictionary)
        self.ar_weight, self.tar_weight = cfg.activation_regularization, cfg.temporal_activation_regularization
        if self.ar_weight < 0 or self.tar_weight < 0:
            raise ValueError("the weights of AR and TAR must not be negative")
        if cfg.decoder_layers < 1:
            raise ValueError(f"--decoder-layers must be at least 1, not {cfg.decoder_layers}")
        for name in ("dropout", "input_dropout", "hidden_dropout", "embedding_dropout", "weight_dropout"):
            check_probability("--" + name.replace("_", "-"), getattr(cfg, name))
        tied = not cfg.no_share_decoder_input_output_embed
        widths = [cfg.decoder_embed_dim] + [cfg.decoder_hidden_size] * cfg.decoder_layers
        if tied:
            widths[-1] = cfg.decoder_embed_dim
        self.embed_tokens = nn.Embedding(len(dictionary), cfg.decoder_embed_dim)
        self.embedding_dropout = EmbeddingDropout(cfg.embedding_dropout)
        self.input_dropout = LockedDropout(cfg.input_dropout)
        self.layers = nn.ModuleList(
            WeightDropLSTM(inputs, outputs, weight_dropout=cfg.weight_dropout)
            for inputs, outputs in zip(widths, widths[1:])
        )
        self.hidden_dropout = LockedDropout(cfg.hidden_dropout)
        self.output_dropout = LockedDropout(cfg.dropout)
        self.output_projection = nn.Linear(widths[-1], len(dictionary))
        nn.init.uniform_(self.embed_tokens.weight, -cfg.init_range, cfg.init_range)
        nn.init.uniform_(self.output_projection.weight, -cfg.init_range, cfg.init_range)
        nn.init.zeros_(self.output_projection.bias)
        if tied:
            self.output_projection.weight = self.embed_tokens.weight

    def recurrence(self, tokens: Tensor, state: Optional[State]) -> Tuple[Tensor, State]:
        """Features of every position, and the state after the last; in training also AR and TAR.

        Args:
            tokens: (T, B), integers in [0, V).
            state: h and c of the first layer, of the second, and so on, each (1, B, width); None: zeros.

        Returns:
            (features (T, B, d), with gradient; the state, as it was given). In training ``activation_loss`` is set: a
            scalar in nats per token, the mean over those that are not padding, with gradient.
        """
        x = self.input_dropout(self.embedding_dropout(self.embed_tokens, tokens))
        new_state: List[Tensor] = []
        for i, layer in enumerate(self.layers):
            if i > 0:
                x = self.hidden_dropout(x)
            x, layer_state = layer(x, None if state is None else tuple(state[2 * i : 2 * i + 2]))
            new_state.extend(layer_state)
        dropped = self.output_dropout(x)
        if self.training and (self.ar_weight > 0 or self.tar_weight > 0):
            self.activation_loss = self._activation_loss(x, dropped, tokens)
        return dropped, new_state

    def _activation_loss(self, outputs: Tensor, dropped: Tensor, tokens: Tensor) -> Tensor:
        counts = tokens.ne(self.dictionary.pad())
        return self.ar_weight * activation_regularisation(
            dropped, counts
        ) + self.tar_weight * temporal_activation_regularisation(outputs, counts)


@register_model("awd_lstm_lm", dataclass=AWDLSTMConfig)
class AWDLSTMLanguageModel(StatefulLanguageModel):
    """See the module's docstring; for ``--task bptt_language_modeling``."""

    decoder_class = AWDLSTMDecoder


register_variant(
    "awd_lstm_ptb",
    AWDLSTMLanguageModel,
    AWDLSTMConfig,
    "3 x 1150, embeddings 400. PTB: test perplexity 58.8 (the authors' code), 57.3 (paper).",
)
register_variant(
    "awd_lstm_wikitext2",
    AWDLSTMLanguageModel,
    AWDLSTMConfig,
    "As ``awd_lstm_ptb`` with the dropouts of the authors' WikiText-2 command: test perplexity 65.8.",
    input_dropout=0.65,
    hidden_dropout=0.2,
)
