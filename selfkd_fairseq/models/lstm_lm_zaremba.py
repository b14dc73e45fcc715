"""LSTM language models of Zaremba et al. (2014), *Recurrent Neural Network Regularization* (arXiv 1409.2329).

Dropout on the non-recurrent connections only: on the embeddings, between the layers and before the softmax. Every
parameter, biases included, is drawn from a uniform distribution. Unlike the paper's LSTM each gate has two biases, as
in ``nn.LSTM``: their sum starts on twice the range and learns at twice the rate.
"""

from dataclasses import dataclass, field
from typing import Optional, Tuple

import torch.nn.functional as F
from fairseq.data import Dictionary
from fairseq.dataclass import FairseqDataclass
from fairseq.models import register_model
from torch import Tensor, nn

from .architecture_defaults import register_variant
from .lstm_regularisation import check_probability
from .stateful_language_model import State, StatefulDecoder, StatefulLanguageModel

__all__ = ["ZarembaConfig", "ZarembaDecoder", "ZarembaLanguageModel"]


@dataclass
class ZarembaConfig(FairseqDataclass):
    """Options of ``lstm_lm_zaremba``; the defaults are the small model's."""

    decoder_embed_dim: int = field(default=200, metadata={"help": "width of the word embeddings"})
    decoder_hidden_size: int = field(default=200, metadata={"help": "width of the LSTM layers"})
    decoder_layers: int = field(default=2, metadata={"help": "number of LSTM layers"})
    dropout: float = field(
        default=0.0, metadata={"help": "dropout on embeddings, between layers and before the softmax"}
    )
    init_range: float = field(
        default=0.1, metadata={"help": "parameters are drawn uniformly from [-INIT_RANGE, INIT_RANGE]"}
    )
    share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "tie the output embedding to the input embedding (needs equal widths)"}
    )


class ZarembaDecoder(StatefulDecoder):
    """Embedding, ``nn.LSTM`` and output projection, with dropout around each layer.

    Args:
        cfg: :class:`ZarembaConfig`.
        dictionary: fairseq dictionary of V words.

    Raises:
        ValueError: the embeddings are to be tied and the widths differ, or a probability is not in [0, 1).
    """

    def __init__(self, cfg: ZarembaConfig, dictionary: Dictionary):
        super().__init__(dictionary)
        if cfg.share_decoder_input_output_embed and cfg.decoder_embed_dim != cfg.decoder_hidden_size:
            raise ValueError(
                "--share-decoder-input-output-embed needs --decoder-embed-dim equal to --decoder-hidden-size, not "
                f"{cfg.decoder_embed_dim} and {cfg.decoder_hidden_size}"
            )
        self.dropout = check_probability("--dropout", cfg.dropout)
        between_layers = cfg.dropout if cfg.decoder_layers > 1 else 0.0
        self.embed_tokens = nn.Embedding(len(dictionary), cfg.decoder_embed_dim)
        self.lstm = nn.LSTM(
            cfg.decoder_embed_dim, cfg.decoder_hidden_size, num_layers=cfg.decoder_layers, dropout=between_layers
        )
        self.output_projection = nn.Linear(cfg.decoder_hidden_size, len(dictionary))
        if cfg.share_decoder_input_output_embed:
            self.output_projection.weight = self.embed_tokens.weight
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -cfg.init_range, cfg.init_range)

    def recurrence(self, tokens: Tensor, state: Optional[State]) -> Tuple[Tensor, State]:
        """Features of every position, and the state after the last.

        Args:
            tokens: (T, B), integers in [0, V).
            state: h and c, each (layers, B, width); None: zeros.

        Returns:
            (features (T, B, d), with gradient; the state, as it was given)
        """
        embedded = F.dropout(self.embed_tokens(tokens), self.dropout, self.training)
        outputs, state = self.lstm(embedded, None if state is None else tuple(state))
        return F.dropout(outputs, self.dropout, self.training), list(state)


@register_model("lstm_lm_zaremba", dataclass=ZarembaConfig)
class ZarembaLanguageModel(StatefulLanguageModel):
    """See the module's docstring; for ``--task bptt_language_modeling``."""

    decoder_class = ZarembaDecoder


register_variant(
    "lstm_lm_zaremba_small", ZarembaLanguageModel, ZarembaConfig, "2 x 200, no dropout. PTB: test perplexity 114.5."
)
register_variant(
    "lstm_lm_zaremba_medium",
    ZarembaLanguageModel,
    ZarembaConfig,
    "2 x 650, dropout 0.5. PTB: test perplexity 82.7.",
    decoder_embed_dim=650,
    decoder_hidden_size=650,
    dropout=0.5,
    init_range=0.05,
)
register_variant(
    "lstm_lm_zaremba_large",
    ZarembaLanguageModel,
    ZarembaConfig,
    "2 x 1500, dropout 0.65. PTB: test perplexity 78.4.",
    decoder_embed_dim=1500,
    decoder_hidden_size=1500,
    dropout=0.65,
    init_range=0.04,
)
