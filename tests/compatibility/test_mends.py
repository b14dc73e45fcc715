"""The mends of fairseq 0.12.2, on a fairseq that is made to have its faults."""

from types import SimpleNamespace

import pytest
from fairseq import checkpoint_utils
from fairseq.modules.transformer_layer import TransformerEncoderLayerBase
from fairseq.trainer import Trainer

from selfkd_fairseq.compatibility import checkpoint_entries, unfused_encoder

ENTRY = {"SomeTask": {"state": 1}}


class SomeTask:
    given = None

    def get_checkpoint_dict(self):
        return ENTRY

    def set_checkpoint_dict(self, entry):
        self.given = entry


def of_0_12_2(cfg, trainer, epoch_itr, val_loss):
    """Its save_checkpoint does not ask the task."""


@pytest.mark.parametrize("batches", [0, 3])
def test_the_entry_of_a_task_is_written_and_read(monkeypatch, batches):
    saved = {}
    place = SimpleNamespace(epoch=1, iterations_in_epoch=batches)
    monkeypatch.setattr(checkpoint_utils, "save_checkpoint", of_0_12_2)
    monkeypatch.setattr(Trainer, "save_checkpoint", lambda self, filename, extra: saved.update({filename: extra}))
    monkeypatch.setattr(checkpoint_utils, "load_checkpoint", lambda cfg, trainer, **_: (saved["x.pt"], place))
    checkpoint_entries.keep_entries_of_tasks()
    trainer = SimpleNamespace(task=SomeTask())
    Trainer.save_checkpoint(trainer, "x.pt", {"val_loss": 2})
    assert saved == {"x.pt": {"val_loss": 2, **ENTRY}}
    assert checkpoint_utils.load_checkpoint(None, trainer) == (saved["x.pt"], place)
    assert trainer.task.given == (ENTRY["SomeTask"] if batches else None)  # not where the data start anew


def test_a_layer_that_has_loaded_a_checkpoint_stays_unfused(monkeypatch):
    def load(self, *arguments, **keywords):
        self.load_to_BT = (arguments, keywords)

    monkeypatch.setattr(TransformerEncoderLayerBase, "_load_from_state_dict", load, raising=False)
    unfused_encoder.switch_off_fused_layers()
    layer = SimpleNamespace()
    TransformerEncoderLayerBase._load_from_state_dict(layer, {}, strict=True)
    assert layer.load_to_BT is False
