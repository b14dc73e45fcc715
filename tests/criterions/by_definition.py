"""What an update of the criterion self_kd should be, from the definition: the model is called here, in copies."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests import definition
from tests.core import chance


class Update(NamedTuple):
    """Sums (L, L_CE, nll, L_SKD) and statistics of each batch in nats; gradients of the sum of all L, by name."""

    sums: list[list[float]]
    statistics: list[dict[str, float]]
    gradients: dict[str, Tensor]


def output_matrix(model: Any) -> Tensor:
    """(V, d), the parameter that makes the logits."""
    decoder = model.decoder
    if hasattr(decoder, "output_projection"):
        weight: Tensor = decoder.output_projection.weight
    else:
        shared = getattr(decoder, "share_input_output_embed", False)
        weight = decoder.embed_tokens.weight if shared else decoder.fc_out.weight
    return weight


def logits_without_dropout(model: Any, net_input: dict[str, Any]) -> Tensor:
    """Logits (B, T, V) of a copy in evaluation mode, from the state that the training has carried so far."""
    teacher = copy.deepcopy(model).eval()
    if not hasattr(teacher.decoder, "recurrence"):
        logits: Tensor = teacher(**net_input)[0]
        return logits
    state = None if net_input["starts_stream"] else model.decoder.carried_state()
    features, _ = teacher.decoder.recurrence(net_input["src_tokens"].t(), state)
    logits = teacher.decoder.output_projection(features.transpose(0, 1))
    return logits


def logits_with_dropout(model: Any, net_input: dict[str, Any]) -> Tensor:
    """Logits (B, T, V) in training mode, of a model that carries no state."""
    logits: Tensor = model(**net_input)[0]
    return logits


def update_of(
    setup: Any, samples: list[Any], options: dict[str, Any], *, alpha: float, num_updates: int = 0, prefix: int = 0
) -> Update:
    """The update that a Trainer makes of these batches, in the dtype of the model.

    The model is left as it is. The seed of its dropout is fairseq's, which sets it before each update. A teacher with
    dropout draws first; it must carry no state.
    """
    model, twin = setup.model, copy.deepcopy(setup.model).train()
    dictionary, smoothing = setup.task.target_dictionary, setup.cfg.criterion.label_smoothing
    pad, bos = dictionary.pad(), dictionary.bos()
    chosen = definition.Options(**options)
    support_state = copy.deepcopy(setup.criterion.support_state)
    support_state.set_num_updates(num_updates)
    weight = output_matrix(model).detach()
    torch.manual_seed(setup.cfg.common.seed + num_updates)
    sums, statistics = [], []
    for sample in samples:
        teacher = None  # where alpha stays at 0 there is no second pass: the model is its own teacher
        mode = setup.cfg.criterion.skd_teacher_mode
        if setup.criterion.alpha_max > 0:
            of_mode = {"eval": logits_without_dropout, "train": logits_with_dropout, "both": logits_with_dropout}
            with torch.set_grad_enabled(mode == "both"):
                teacher = of_mode[mode](twin, sample["net_input"])
        whole, target = twin(**sample["net_input"])[0], sample["target"]
        teacher = whole.detach() if teacher is None else teacher
        passes = 1
        if teacher.requires_grad:  # each of them is the teacher of the other, and the mean counts
            whole, teacher, passes = torch.cat([whole, teacher]), torch.cat([teacher, whole]).detach(), 2
            target = torch.cat([target, target])
        logits, target = whole[:, prefix:], target[:, prefix:].reshape(-1)
        flat = logits.reshape(len(target), -1)
        made = chance.of_form(
            options, weight, target, chosen.support_size, (bos, pad), support_state.generator(True), ignore_index=pad
        )
        expected = definition.losses(
            flat.detach().numpy(), weight.numpy(), target, alpha=alpha, label_smoothing=smoothing, pad=pad,
            excluded=(bos,), teacher_logits=teacher[:, prefix:].reshape(len(target), -1).numpy(), **made, **options,
        )  # fmt: skip
        flat.backward(torch.from_numpy(expected.gradient).to(flat.dtype) / passes)
        sums.append([float(value) / passes for value in expected.sums])
        of_pairs = ("measure", "num_pairs")
        found = {name: float(value) for name, value in expected.statistics.items()}
        statistics.append({name: value if name in of_pairs else value / passes for name, value in found.items()})
        if hasattr(twin.decoder, "take_activation_loss"):
            twin.decoder.take_activation_loss()
    gradients = {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}
    assert all(np.isfinite(values).all() for values in sums)
    return Update(sums, statistics, gradients)
