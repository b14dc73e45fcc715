"""The mean of checkpoints: its bits, its form, and what is refused."""

import argparse
import collections
import math
import os
import zipfile
from fractions import Fraction

import numpy as np
import pytest
import torch

from selfkd_fairseq.checkpoints import average
from selfkd_fairseq.checkpoints.average import average_checkpoints, round_once, save_checkpoint
from selfkd_fairseq.checkpoints.average_inputs import AverageError, CheckpointFile, last_checkpoints
from tests.hostile.payloads import Opens

HALF_FORMS = {torch.float16: (11, -24), torch.bfloat16: (8, -133), torch.float32: (24, -149)}


def checkpoint(model, updates=10, **entries):
    """What fairseq saves, with a given model."""
    return {
        "args": None,
        "cfg": {"model": {"_name": "transformer"}, "updates": updates},
        "model": model if hasattr(model, "_metadata") else collections.OrderedDict(model),
        "criterion": None,
        "optimizer_history": [{"num_updates": updates - 1}, {"num_updates": updates}],
        "task_state": {"updates": updates},
        "extra_state": {"train_iterator": {"epoch": updates // 10}},
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(7)}}},
        **entries,
    }


def write(folder, models, **entries):
    """One file per model, with 10, 20, ... updates."""
    paths = [folder / f"checkpoint{index}.pt" for index in range(1, len(models) + 1)]
    for index, (path, model) in enumerate(zip(paths, models), 1):
        torch.save(checkpoint(model, 10 * index, **entries), path)
    return paths


def nearest(value, dtype):
    """The number of a binary floating-point format that is nearest to a fraction, ties to even; no overflow."""
    digits, smallest = HALF_FORMS[dtype]
    unit = Fraction(2) ** max(smallest, math.frexp(value)[1] - digits)
    return float(round(value / unit) * unit)  # a fraction is rounded to the nearest, ties to even


def random_model(seed, dtype=torch.float32, size=500):
    generator = torch.Generator().manual_seed(seed)
    magnitude = torch.exp2(torch.randint(-12, 4, (size,), generator=generator).double())
    return {"w": (torch.randn(size, generator=generator, dtype=torch.float64) * magnitude).to(dtype)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_mean_is_the_exact_mean_rounded_once(tmp_path, dtype, count):
    models = [random_model(seed, dtype) for seed in range(count)]
    mean = average_checkpoints(write(tmp_path, models))["model"]["w"]
    assert mean.dtype == dtype
    columns = zip(*(model["w"].tolist() for model in models))
    assert mean.tolist() == [nearest(sum(map(Fraction, column)) / count, dtype) for column in columns]


def test_mean_in_float64_is_numpys(tmp_path):
    models = [random_model(seed, torch.float64) for seed in range(7)]
    mean = average_checkpoints(write(tmp_path, models))["model"]["w"].numpy()
    total = np.zeros(500)
    for model in models:
        total = total + model["w"].numpy()
    np.testing.assert_array_equal(mean, total / 7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_is_not_double(dtype):
    digits, smallest = HALF_FORMS[dtype]
    middle = 1 + 2.0**-digits  # between 1 and its neighbour
    largest = torch.finfo(dtype).max
    values = [0.0, 1.0, middle, middle + 2.0**-40, middle - 2.0**-40, 1 + 3 * 2.0**-digits - 2.0**-40, 1 / 3]
    values += [2.0**smallest * f for f in (0.5, 0.5 + 2.0**-40, 1, 1.5 - 2.0**-40)] + [1e-300, largest]
    got = round_once(torch.tensor(values + [-v for v in values], dtype=torch.float64), dtype)
    assert got.dtype == dtype
    expected = [nearest(Fraction(v), dtype) for v in values]
    assert got.tolist() == expected + [-v for v in expected]
    plain = torch.tensor([middle + 2.0**-40], dtype=torch.float64).to(dtype)
    assert plain.item() == 1.0 != got[3].item()  # torch's own conversion rounds twice, which is why there is another


def test_special_values():
    infinity = float("inf")
    values = torch.tensor([infinity, -infinity, 1e300, -1e300, -0.0, float("nan")], dtype=torch.float64)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        got = round_once(values, dtype)
        assert got[:4].tolist() == [infinity, -infinity, infinity, -infinity]
        assert got[4] == 0 and torch.signbit(got[4]) and torch.isnan(got[5])


def test_parts_cut_through_tensors(tmp_path, monkeypatch):
    shapes = {"a": (3, 5), "scalar": (), "none": (0, 4), "b": (7,), "c": (2, 3, 4)}
    models = [{key: torch.randn(shape) for key, shape in shapes.items()} for _ in range(3)]
    models[1]["a"] = models[1]["a"].t().contiguous().t()  # other strides
    paths = write(tmp_path, models)
    whole = average_checkpoints(paths)["model"]
    monkeypatch.setattr(average, "PART_ELEMENTS", 4)  # and a sixteenth is 3
    parted = average_checkpoints(paths)["model"]
    for key, shape in shapes.items():
        mean = np.mean([model[key].double().numpy() for model in models], axis=0).astype(np.float32)
        assert whole[key].shape == parted[key].shape == shape
        np.testing.assert_array_equal(whole[key].numpy(), mean)
        np.testing.assert_array_equal(parted[key].numpy(), mean)


def test_all_else_is_of_the_newest_but_the_optimizers_state(tmp_path):
    model = collections.OrderedDict(w=torch.ones(2), version=torch.tensor([3]), on=torch.tensor(True))
    model._metadata = {"": {"version": 2}}
    paths = write(tmp_path, [model] * 3, args=argparse.Namespace(arch="transformer"), fairseq_of_tomorrow=[1])
    state = torch.load(paths[2], weights_only=True)
    state["model"]["w"] += 3
    torch.save(state, paths[2])
    result = average_checkpoints([paths[2], paths[0], paths[1]])
    assert list(result.pop("model")) == ["w", "version", "on"]
    assert result.pop("averaged_checkpoints") == [
        {"file": str(paths[index]), "num_updates": updates} for index, updates in ((2, 30), (0, 10), (1, 20))
    ]
    expected = checkpoint(model, 30, args=argparse.Namespace(arch="transformer"), fairseq_of_tomorrow=[1])
    assert result == {k: v for k, v in expected.items() if k not in ("model", "last_optimizer_state")}


def test_model_keeps_its_form_in_the_file(tmp_path):
    model = collections.OrderedDict(w=torch.ones(2), version=torch.tensor([3]), on=torch.tensor(True))
    model._metadata = {"": {"version": 2}}
    save_checkpoint(average_checkpoints(write(tmp_path, [model] * 2)), tmp_path / "new" / "average.pt")
    assert os.listdir(tmp_path / "new") == ["average.pt"]
    saved = torch.load(tmp_path / "new" / "average.pt", weights_only=True)["model"]
    assert type(saved) is collections.OrderedDict and saved._metadata == model._metadata
    assert all(torch.equal(saved[key], model[key]) and saved[key].dtype == model[key].dtype for key in model)


def test_tied_parameters_stay_tied(tmp_path):
    models = []
    for scale in (1.0, 2.0, 6.0):
        tied, loose = torch.full((300, 10), scale), torch.full((5,), scale)
        models.append({"embed": tied, "project": tied, "rows": tied[:2], "loose": loose, "other": loose})
    models[1]["other"] = models[1]["loose"].clone()  # shared in two files of three: not a tie of the model
    models[2] = dict(reversed(models[2].items()))  # no order of the parameters is relied on
    paths = write(tmp_path, models)
    save_checkpoint(average_checkpoints(paths), tmp_path / "average.pt")
    saved = torch.load(tmp_path / "average.pt", weights_only=True)["model"]
    assert saved["embed"].data_ptr() == saved["project"].data_ptr()
    assert len({saved[key].data_ptr() for key in ("embed", "rows", "loose", "other")}) == 4
    assert all((tensor == 3).all() for tensor in saved.values())
    with zipfile.ZipFile(tmp_path / "average.pt") as archive:
        sizes = [info.file_size for info in archive.infolist() if "/data/" in info.filename]
    assert sizes.count(300 * 10 * 4) == 1


def test_old_file_format(tmp_path):
    for index in (1, 2):
        state = checkpoint({"w": torch.tensor([float(index)])}, index)
        torch.save(state, tmp_path / f"{index}.pt", _use_new_zipfile_serialization=False)
    assert average_checkpoints([tmp_path / "1.pt", tmp_path / "2.pt"])["model"]["w"].item() == 1.5


def test_last_checkpoints(tmp_path):
    for name in ("1", "2", "9", "10", "_1_50", "_2_900", "_2_1000", "_best", "_last", ".best_loss_3.0", "3-shard0"):
        (tmp_path / f"checkpoint{name}.pt").touch()
    (tmp_path / "checkpoint11.pt.tmp").touch()

    def names(*arguments):
        return [path.name[len("checkpoint") : -len(".pt")] for path in last_checkpoints(tmp_path, *arguments)]

    assert names(3, "epoch") == ["2", "9", "10"]
    assert names(2, "epoch", 9) == ["2", "9"]
    assert names(2, "update") == ["_2_900", "_2_1000"]
    assert names(1, "update", 999) == ["_2_900"]
    with pytest.raises(AverageError, match="holds 4 epoch checkpoints, 5 are wanted"):
        names(5, "epoch")
    with pytest.raises(AverageError, match="holds 1 update checkpoints up to update 60, 2 are wanted"):
        names(2, "update", 60)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"w": torch.ones(2)}, "hold different models: v is in .*checkpoint1.pt alone"),
        ({"w": torch.ones(2), "v": torch.tensor(1), "x": torch.ones(1)}, "x is in .*checkpoint2.pt alone"),
        ({"w": torch.ones(3), "v": torch.tensor(1)}, r"w is \(2,\) float32 in .*1.pt and \(3,\) float32 in .*2.pt"),
        ({"w": torch.ones(2).half(), "v": torch.tensor(1)}, r"w is \(2,\) float32 .* and \(2,\) float16"),
        ({"w": torch.ones(2), "v": torch.tensor(2)}, "v holds no floating-point numbers and differs"),
        ({"w": torch.tensor([1.0, float("nan")]), "v": torch.tensor(1)}, "mean of w is not a number"),
    ],
)
def test_models_that_do_not_fit_together(tmp_path, model, message):
    paths = write(tmp_path, [{"w": torch.ones(2), "v": torch.tensor(1)}, model])
    with pytest.raises(AverageError, match=message):
        average_checkpoints(paths)


def _flip_a_bit_of_the_model(path):
    with zipfile.ZipFile(path) as archive:
        data = max((i for i in archive.infolist() if "/data/" in i.filename), key=lambda i: i.file_size)
    content = bytearray(path.read_bytes())
    content[data.header_offset + 200 + data.file_size // 2] ^= 1
    path.write_bytes(content)


NOT_PLAIN = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "compressed rows": lambda: torch.eye(3).to_sparse_csr(),
    "no values": lambda: torch.empty(3, device="meta"),
    "complex": lambda: torch.ones(3, dtype=torch.complex64),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of young and of old features
def test_other_tensors_are_refused(tmp_path, kind):
    paths = write(tmp_path, [{"x": torch.ones(3)}, {"x": NOT_PLAIN[kind]()}])
    with pytest.raises(AverageError) as caught:
        average_checkpoints(paths)
    assert str(caught.value) == f"{paths[1]} cannot be averaged: x is not a dense tensor of real numbers"


@pytest.mark.parametrize("place", [0, 1])
def test_settings_that_would_run_are_refused(tmp_path, place):
    paths = write(tmp_path, [{"w": torch.ones(3)}] * 2)
    settings = argparse.Namespace(decoder_attention="exit()")
    torch.save(checkpoint({"w": torch.ones(3)}, cfg={"model": settings}), paths[place])
    with pytest.raises(AverageError, match=f"^{paths[place]} is refused: .* its setting decoder_attention says as Py"):
        average_checkpoints(paths)


DAMAGE = {
    "is empty": lambda path: path.write_bytes(b""),
    "is damaged, or not a checkpoint": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "is damaged, or not a checkpoint$": lambda path: path.write_text("a text\n" * 50),
    "is damaged: .*/data/.* does not have its checksum": _flip_a_bit_of_the_model,
    "not a fairseq checkpoint: it holds no model": lambda path: torch.save([1], path),
    "not a fairseq checkpoint: it holds no model$": lambda path: torch.save({"model": {"a": "b"}, "cfg": {}}, path),
    "it has neither cfg nor args": lambda path: torch.save({"model": {"a": torch.ones(1)}, "cfg": None}, path),
    "changed while it was being read": None,
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damaged_files(tmp_path, message, monkeypatch):
    paths = write(tmp_path, [{"w": torch.ones(4000)}] * 2)
    if DAMAGE[message]:
        DAMAGE[message](paths[1])
    else:
        check = CheckpointFile.check
        monkeypatch.setattr(CheckpointFile, "check", lambda file: (check(file), os.utime(file.path, (1, 1))))
    with pytest.raises(AverageError, match=message) as caught:
        average_checkpoints(paths)
    assert "\n" not in str(caught.value)


def test_planted_code_is_refused_and_not_run(tmp_path):
    paths = write(tmp_path, [{"w": torch.ones(2)}] * 2)
    torch.save(checkpoint({"w": torch.ones(2)}, extra_state={"x": Opens(tmp_path / "harm")}), paths[1])
    with pytest.raises(AverageError, match=r"checkpoint2.pt holds (_io|io).open, which safe loading refuses$"):
        average_checkpoints(paths)
    assert not (tmp_path / "harm").exists()


def test_a_file_given_twice(tmp_path):
    paths = write(tmp_path, [{"w": torch.ones(2)}] * 2)
    (tmp_path / "link.pt").symlink_to(paths[0])
    with pytest.raises(AverageError, match="link.pt is given twice"):
        average_checkpoints([*paths, tmp_path / "link.pt"])


def test_a_disk_that_is_full(tmp_path):
    import resource

    state = checkpoint({"w": torch.ones(1 << 18)})
    (tmp_path / "average.pt").write_text("from before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, before[1]))
    try:
        with pytest.raises((AverageError, OSError)):
            save_checkpoint(state, tmp_path / "average.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == ["average.pt"]
    assert (tmp_path / "average.pt").read_text() == "from before"
