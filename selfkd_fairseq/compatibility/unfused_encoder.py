"""The fused encoder layer of fairseq 0.12.2, switched off.

Outside training, a post-norm Transformer encoder that has loaded a checkpoint makes a call in fairseq 0.12.2 that torch
refuses from 1.13 on, with ``Mask Type should be defined`` (issue 4899 of fairseq): ``fairseq-generate`` and the like
fail. The layer's ordinary path computes the same, and is the only one that fairseq 0.12.3 has.
"""

from __future__ import annotations

import functools
from typing import Any

from fairseq.modules.transformer_layer import TransformerEncoderLayerBase


def switch_off_fused_layers() -> None:
    """Make encoder layers take their ordinary path, for this process; nothing to do with 0.12.3."""
    load = vars(TransformerEncoderLayerBase).get("_load_from_state_dict")
    if load is None:
        return

    @functools.wraps(load)
    def load_and_stay_unfused(self: TransformerEncoderLayerBase, *arguments: Any, **keywords: Any) -> None:
        load(self, *arguments, **keywords)
        self.load_to_BT = False

    TransformerEncoderLayerBase._load_from_state_dict = load_and_stay_unfused
