"""Checkpoints that mean harm, are damaged, or are of another model: nothing of them runs, and each is one line."""

import argparse
import contextlib
import io
import os
import pickle
import random
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils, models, options, tasks, utils

from selfkd_fairseq import hardening
from selfkd_fairseq.checkpoints.damage import RunningSetting
from selfkd_fairseq.cli import average_checkpoints
from tests import fairseq_setup, forked
from tests.hostile.commands import (
    COMMANDS,
    FAIRSEQ_COMMANDS,
    ON_DATA,
    PLUGIN,
    TRAIN_TRANSFORMER,
    changed,
    refused,
    refused_by_fairseq,
)
from tests.hostile.payloads import Opens


class Shell(Opens):
    """Makes it by a shell."""

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Settings(argparse.Namespace):
    """A relative of a class that is allowed, with code of its own."""

    def __setstate__(self, state):
        Opens(state["path"]).__reduce__()[0](state["path"], "w")


class Array(np.ndarray):
    """A relative of numpy's array, with code of its own."""

    def __setstate__(self, state):
        super().__setstate__(state)
        Opens(None).__reduce__()[0](self.tobytes().decode(), "w")


class Scalar(Opens):
    """Makes it on the way to a scalar of numpy."""

    def __reduce__(self):
        return np.float64(0).__reduce__()[0], (np.dtype("O"), Opens(self.path))


PLANTED = {
    "open": Opens,
    "os.system": Shell,
    "in a numpy array": lambda path: np.array([Opens(path)], dtype=object),
    "a subclass of a numpy array": lambda path: np.frombuffer(str(path).encode(), "u1").view(Array),
    "in a numpy scalar": Scalar,
    "in an allowed Namespace": lambda path: argparse.Namespace(x=[{"y": Shell(path)}]),
    "a subclass of Namespace": lambda path: Settings(path=str(path)),
}
PLACES = {
    "top": lambda state, x: state.update(x=x),
    "cfg": lambda state, x: state["cfg"]["common"].update(seed=x),
    "settings of the model": lambda state, x: setattr(state["cfg"]["model"], "dropout", x),
    "args": lambda state, x: state.update(args=x),
    "extra_state": lambda state, x: state["extra_state"]["train_iterator"].update(epoch=x),
    "optimizer_history": lambda state, x: state["optimizer_history"][-1].update(num_updates=x),
    "model": lambda state, x: state["model"].update(x=x),
}


def plant(checkpoint, path, place, payload, **format):
    state = torch.load(checkpoint, weights_only=True)
    PLACES[place](state, payload)
    torch.save(state, path, **format)
    return path


def tar_of(payload, path):
    """The container of torch's first versions: a tar file of pickles."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(payload)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def run_without_care(path):
    """What the refused files would do."""
    torch.load(path, weights_only=False)


@pytest.mark.parametrize("payload", PLANTED)
def test_the_payloads_do_harm_where_nobody_refuses(transformer, tmp_path, payload):
    harm = tmp_path / "harm"
    path = plant(transformer, tmp_path / "x.pt", "top", PLANTED[payload](harm))
    with contextlib.suppress(TypeError):  # of numpy 2, for a scalar of an object, when the harm is done
        run_without_care(path)
    assert harm.exists()


CASES = [*[("os.system", place) for place in PLACES], *[(payload, "extra_state") for payload in PLANTED]]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(("payload", "place"), CASES)
def test_a_planted_pickle_is_refused(transformer, tiny_translation, tmp_path, capsys, payload, place, zipped):
    harm, path = tmp_path / "harm", tmp_path / "planted.pt"
    plant(transformer, path, place, PLANTED[payload](harm), _use_new_zipfile_serialization=zipped)
    for message in refused(capsys, path, tiny_translation, tmp_path / "out").values():
        assert message.startswith(f"{path} holds ") and message.endswith(", which safe loading refuses")
    with pytest.raises(pickle.UnpicklingError):  # what every command of fairseq opens a checkpoint with
        checkpoint_utils.load_checkpoint_to_cpu(str(path))
    assert not harm.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [tar_of, lambda payload, path: path.write_bytes(pickle.dumps(payload))])
def test_pickles_in_other_containers_are_refused(tiny_translation, tmp_path, capsys, content):
    harm, path = tmp_path / "harm", tmp_path / "planted.pt"
    content(Shell(harm), path)
    for message in refused(capsys, path, tiny_translation, tmp_path / "out").values():
        assert message.startswith(f"{path} ")
    with pytest.raises(pickle.UnpicklingError, match=re.escape(str(path))):
        checkpoint_utils.load_checkpoint_to_cpu(str(path))
    assert not harm.exists()


def test_fairseqs_own_commands_refuse_it(transformer, tiny_translation, tmp_path):
    """Whole command lines, each of which ends with one line of an error."""
    harm = tmp_path / "harm"
    path = plant(transformer, tmp_path / "planted.pt", "extra_state", Shell(harm))
    train = [tiny_translation, *PLUGIN, *TRAIN_TRANSFORMER, "--save-dir", tmp_path / "new"]
    call = f"__import__('os').system('touch {harm}')"
    setting = changed(transformer, tmp_path / "setting.pt", settings_of_model(adaptive_softmax_cutoff=call))
    held = f"{path} holds {os.system.__module__}.system, which safe loading refuses"
    lines = [
        (["fairseq-generate", tiny_translation, *PLUGIN, "--path", path], held),
        (["fairseq-generate", tiny_translation, *PLUGIN, "--path", setting], f"{setting} is refused: "),
        (["fairseq-train", *train, "--restore-file", path], held),
        (["fairseq-train", *train, "--finetune-from-model", path], held),
    ]
    commands = [forked.start(*arguments) for arguments, _ in lines]
    for command, (arguments, reason) in zip(commands, lines):
        done = command.finish(check=False)
        output = done.stdout + done.stderr
        assert done.returncode == 1 and "Traceback" not in output, output[-2000:]
        assert f"\n{arguments[0]}: error: {reason}" in output and output.count("error: ") == 1, output[-2000:]
        assert output.splitlines()[-1].startswith(f"{arguments[0]}: error: "), output[-2000:]
    assert not harm.exists() and not list(tmp_path.glob("new/*"))


def settings_of_model(**settings):
    return lambda state: vars(state["cfg"]["model"]).update(settings)


# What fairseq hands to eval() when it builds a model: no pickle is needed. In what model, and spelled how.
CALL = " __import__('os').system('touch {}')"
IN_AN_UNKNOWN_ENCODING = "#coding:nosuch\n__import__('os').system('touch {}')"
WITHOUT_A_CALL = "[set_torch_seed['touch {}'] for set_torch_seed.__class_getitem__ in [os.system]]"
EVALUATED = [
    ("adaptive_softmax_cutoff", "transformer", CALL),
    ("adaptive_softmax_cutoff", "transformer", IN_AN_UNKNOWN_ENCODING),
    ("adaptive_softmax_cutoff", "transformer", WITHOUT_A_CALL),
    ("encoder_xformers_att_config", "transformer", CALL),
    ("decoder_attention", "lstm", CALL),
    ("decoder_attention", "lstm", b"__import__('os').system('touch {}')"),
]


def filled_in(text, harm):
    return text.format(harm) if isinstance(text, str) else bytearray(text.decode().format(harm).encode())


@pytest.fixture
def without_care(monkeypatch):
    """A call that makes fairseq what it is without hardening."""

    def undo():
        hardening.remove()
        monkeypatch.setattr(utils.set_torch_seed, "__class_getitem__", None, raising=False)

    return undo


@pytest.mark.parametrize(("setting", "model", "text"), EVALUATED)
def test_a_setting_that_fairseq_would_run_is_refused(
    request, tiny_translation, tmp_path, capsys, without_care, setting, model, text
):
    harm = tmp_path / "harm"
    settings = settings_of_model(**{setting: filled_in(text, harm)})
    path = changed(request.getfixturevalue(model), tmp_path / "planted.pt", settings)
    expected = f"{path} is refused: fairseq would run what its setting {setting} says as Python"
    messages = set(refused(capsys, path, tiny_translation, tmp_path / "out").values())
    unloadable = f"{path} holds builtins.bytearray, which safe loading refuses"  # torch 2.4
    assert messages == {expected} or (isinstance(text, bytes) and messages == {unloadable})
    with pytest.raises(
        pickle.UnpicklingError, match=f"{setting}|bytearray"
    ):  # fairseq-generate, from_pretrained() and the like
        checkpoint_utils.load_model_ensemble_and_task([str(path)], {"data": str(tiny_translation)})
    assert not harm.exists()
    without_care()
    with pytest.raises(Exception):  # noqa: B017 (of any kind: fairseq takes the result for something else)
        checkpoint_utils.load_model_ensemble_and_task([str(path)], {"data": str(tiny_translation)})[1].nothing  # noqa: B018
    assert harm.exists()  # else the test would say nothing


def build_as_a_converter_does(path, data):
    """Like ct2-fairseq-converter: no function of fairseq reads the file."""
    settings = torch.load(path, weights_only=True)["cfg"]["model"]
    settings.data = str(data)
    task = tasks.setup_task(settings)
    models.build_model(settings, task)


FCONV = {"_name": "fconv", "arch": "fconv", "dropout": 0.1, "share_input_output_embed": False}
FCONV_SIZES = {"encoder_embed_dim": 8, "decoder_embed_dim": 8, "decoder_out_embed_dim": 8, "decoder_attention": "True"}


@pytest.mark.parametrize(
    ("setting", "model", "others"),
    [
        ("adaptive_softmax_cutoff", "transformer", {}),
        ("decoder_attention", "lstm", {}),
        ("encoder_layers", "lstm", {**FCONV, **FCONV_SIZES, "decoder_layers": "[(8, 3)]"}),  # eval in the model itself
    ],
)
def test_such_a_setting_does_not_run_where_a_program_reads_by_itself(
    request, tiny_translation, tmp_path, without_care, setting, model, others
):
    harm = tmp_path / "harm"
    settings = settings_of_model(**others, **{setting: filled_in(CALL, harm)})
    path = changed(request.getfixturevalue(model), tmp_path / "planted.pt", settings)
    with pytest.raises(RunningSetting, match="fairseq would run .*touch.* as Python: refused"):
        build_as_a_converter_does(path, tiny_translation)
    assert not harm.exists()
    without_care()
    with contextlib.suppress(Exception):
        build_as_a_converter_does(path, tiny_translation)
    assert harm.exists()


def test_fairseq_evaluates_literals_as_before(tiny_translation, tmp_path, lstm):
    assert utils.eval_str_list("5000,50000", int) == options.eval_str_list("(5000, 50000)", int) == [5000, 50000]
    assert utils.eval_str_list("3") == [3.0] and utils.eval_str_list([1]) == [1.0]
    assert utils.eval_str_dict("{'name': 'x'}") == {"name": "x"} and utils.eval_str_dict(None) is None
    assert (utils.eval_bool("True"), utils.eval_bool("0"), utils.eval_bool(True, True)) == (True, False, True)
    for name_or_nothing in ("os", "os.sep", "x-large"):
        with pytest.raises(NameError):
            utils.eval_bool(name_or_nothing)
    settings = {**FCONV, **FCONV_SIZES, "encoder_layers": "[(8, 3)] * 2", "decoder_layers": "[(8, 3)]"}
    build_as_a_converter_does(changed(lstm, tmp_path / "x.pt", settings_of_model(**settings)), tiny_translation)


def test_such_a_setting_of_an_old_checkpoint(transformer, tiny_translation, tmp_path, capsys):
    harm = tmp_path / "harm"
    settings = argparse.Namespace(
        task="translation", arch="lstm", source_lang="src", target_lang="tgt", criterion="self_kd",
        decoder_attention=f"__import__('os').system('touch {harm}')",
    )  # fmt: skip
    path = changed(transformer, tmp_path / "old.pt", lambda state: state.update(cfg=None, args=settings))
    refused(capsys, path, tiny_translation, tmp_path / "out", ON_DATA)
    assert not harm.exists()


def zeroed(start, stop):
    return lambda content: content[: int(start)] + bytes(int(stop - start)) + content[int(stop) :]


def flipped(content, start, length):
    return content[:start] + bytes(byte ^ 0x5A for byte in content[start : start + length]) + content[start + length :]


DAMAGE = {
    **{f"cut at {length}": lambda content, length=length: content[:length] for length in (1, 3, 30, 500)},
    **{f"cut {length} before the end": lambda content, length=length: content[:-length] for length in (1, 21, 22, 500)},
    "cut in the middle": lambda content: content[: len(content) // 2],
    "cut in the list of the zip's files": lambda content: content[: content.index(b"PK\x01\x02") + 200],
    "nothing": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "zeros to the middle": lambda content: zeroed(0, len(content) // 2)(content),
    "zeros from the middle": lambda content: zeroed(len(content) // 2, len(content))(content),
    "other bytes": lambda content: flipped(content, 0, len(content)),
    "other bytes among the parameters": lambda content: flipped(content, len(content) * 6 // 10, 400),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_one_line(transformer, tiny_translation, tmp_path, capsys, damage):
    path = tmp_path / "damaged.pt"
    path.write_bytes(DAMAGE[damage](transformer.read_bytes()))
    for message in refused(capsys, path, tiny_translation, tmp_path / "out").values():
        assert message.startswith(f"{path} is damaged") or message == f"{path} is empty"


@pytest.mark.parametrize("name", FAIRSEQ_COMMANDS)
@pytest.mark.parametrize("damage", ["nothing", "cut in the middle", "zeros"])
def test_a_damaged_file_is_one_line_of_fairseq(
    transformer, tiny_translation, tmp_path, capsys, monkeypatch, name, damage
):
    path = tmp_path / "damaged.pt"
    path.write_bytes({**DAMAGE, "nothing": lambda content: b""}[damage](transformer.read_bytes()))
    message = refused_by_fairseq(capsys, monkeypatch, name, tiny_translation, *FAIRSEQ_COMMANDS[name], path)
    assert message == f"{path} is {'empty' if damage == 'nothing' else 'damaged, or not a checkpoint'}"


def test_a_damaged_checkpoint_last_is_one_line_of_fairseq(transformer, tiny_translation, tmp_path, capsys, monkeypatch):
    path = tmp_path / "checkpoint_last.pt"
    path.write_bytes(bytes(1000))
    train = [*TRAIN_TRANSFORMER, "--save-dir", tmp_path]
    message = refused_by_fairseq(capsys, monkeypatch, "fairseq-train", tiny_translation, *train)
    assert message == f"{path} is damaged, or not a checkpoint"
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_language_model_is_one_line_of_fairseq(
    stream_model, tiny_language_model, tmp_path, capsys, monkeypatch
):
    path = tmp_path / "damaged.pt"
    path.write_bytes(stream_model.read_bytes()[:9000])
    message = refused_by_fairseq(capsys, monkeypatch, "fairseq-eval-lm", tiny_language_model, "--path", path)
    assert message == f"{path} is damaged, or not a checkpoint"


@pytest.mark.parametrize(
    ("name", "content", "missing"),
    [
        ("fairseq-generate", lambda state: state["model"], "it holds no model"),  # what people save by themselves
        ("fairseq-train", lambda state: [state], "it holds no model"),
        ("fairseq-validate", lambda state: {**state, "model": {3: torch.ones(1)}}, "it holds no model"),
        ("fairseq-train", lambda state: {"model": state["model"]}, "it holds no history of an optimizer"),
        ("fairseq-generate", lambda state: {**state, "cfg": None, "args": None}, "it has neither cfg nor args"),
    ],
)
def test_another_file_of_torch_is_one_line_of_fairseq(
    transformer, tiny_translation, tmp_path, capsys, monkeypatch, name, content, missing
):
    path = tmp_path / "other.pt"
    torch.save(content(torch.load(transformer, weights_only=True)), path)
    message = refused_by_fairseq(capsys, monkeypatch, name, tiny_translation, *FAIRSEQ_COMMANDS[name], path)
    assert message == f"{path} is not a checkpoint of fairseq-train: {missing}"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_what_does_not_fit_into_memory_is_not_called_damaged(transformer, tmp_path, monkeypatch, capsys, error):
    def load(*arguments, **options):
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(type(error)) as caught:
        checkpoint_utils.load_checkpoint_to_cpu(str(transformer))
    assert caught.value is error
    assert average_checkpoints.main([str(transformer), "--output", str(tmp_path / "x.pt")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "selfkd-average-checkpoints: error: out of memory"


@pytest.mark.parametrize("error", [KeyError("my_table"), RuntimeError("out of luck"), AttributeError("no foo")])
def test_a_fault_of_the_model_keeps_fairseqs_error(transformer, tiny_translation, monkeypatch, error):
    from fairseq.trainer import Trainer

    def load_state_dict(*arguments, **options):
        raise error

    setup = fairseq_setup.build(tiny_translation, *fairseq_setup.TINY_TRANSFORMER, "--criterion", "self_kd")
    trainer = Trainer(setup.cfg, setup.task, setup.model, setup.criterion)
    monkeypatch.setattr(setup.model, "load_state_dict", load_state_dict)
    with pytest.raises(Exception, match="Cannot load model parameters") as caught:
        trainer.load_checkpoint(str(transformer))
    assert type(caught.value) is Exception


def test_a_thread_that_loads_something_else_meanwhile_is_left_alone(transformer, tmp_path, monkeypatch):
    """torch.load is never another function, also while fairseq reads a checkpoint."""
    load, found = torch.load, []
    torch.save([1], tmp_path / "no_checkpoint.pt")

    def load_and_look(*arguments, **options):
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(lambda: (torch.load, load(tmp_path / "no_checkpoint.pt"))).result())
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", load_and_look)
    checkpoint_utils.load_checkpoint_to_cpu(str(transformer))
    assert found == [(load_and_look, [1])]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_flipped_byte_is_an_error_or_changes_nothing(transformer, tiny_translation, tmp_path, capsys, zipped):
    path = tmp_path / "damaged.pt"
    state = torch.load(transformer, weights_only=True)
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    whole, rng = path.read_bytes(), random.Random(2)
    errors = 0
    for position in (rng.randrange(len(whole) if zipped else 3000) for _ in range(25)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        main, arguments = COMMANDS["selfkd-average-checkpoints"](path, None, tmp_path / "out")
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()[1:]
        assert (status, len(lines)) in ((0, 0), (1, 1)) and (not lines or str(path) in lines[0]), captured
        errors += status
        if zipped and status == 0:
            mean = torch.load(tmp_path / "out" / "x.pt", weights_only=True)["model"]
            assert all(torch.equal(value, mean[key]) for key, value in state["model"].items())
    assert errors > 10


def reshaped(reshape):
    return lambda state: state["model"].update({key: reshape(value) for key, value in state["model"].items()})


OTHER_MODELS = {
    "flat parameters": reshaped(lambda value: value.reshape(-1)),
    "transposed parameters": reshaped(lambda value: value.t().contiguous() if value.dim() == 2 else value),
    "a parameter too many": lambda state: state["model"].update(other=torch.ones(2)),
    "a parameter that is none": lambda state: state["model"].update(other=3),
    "a wider model": settings_of_model(encoder_embed_dim=32, decoder_embed_dim=32),
    "a model that fits no machine": settings_of_model(encoder_embed_dim=10**14, decoder_embed_dim=10**14),
    "a negative width": settings_of_model(encoder_embed_dim=-1, decoder_embed_dim=-1),
    "a width that is a word": settings_of_model(encoder_embed_dim="x"),
    "no heads": settings_of_model(decoder_attention_heads=0),
    "an unknown architecture": settings_of_model(_name="no_such", arch="no_such"),
    "an LSTM": settings_of_model(_name="lstm", arch="lstm"),
    "a language model": settings_of_model(_name="transformer_lm", arch="transformer_lm"),
    "no settings of the model": lambda state: state["cfg"].update(model=None),
    "no task": lambda state: state["cfg"].update(task=None),
    "a task without a name": lambda state: state["cfg"]["task"].pop("_name"),
    "settings that are a word": lambda state: state.update(cfg="x"),
    "old settings that lack all": lambda state: state.update(cfg=None, args=argparse.Namespace()),
    "old settings that lack most": lambda state: state.update(cfg=None, args=argparse.Namespace(task="translation")),
    "old settings that are a number": lambda state: state.update(cfg=None, args=3),
    "no place in the data": lambda state: state["extra_state"].update(train_iterator=3),
    "an epoch that is a word": lambda state: state["extra_state"]["train_iterator"].update(epoch="x"),
    "an epoch that is no number": lambda state: state["extra_state"]["train_iterator"].update(epoch=float("nan")),
    "updates that are a word": lambda state: state["optimizer_history"][-1].update(num_updates="x"),
}


@pytest.mark.parametrize("model", OTHER_MODELS)
def test_another_model_is_one_line(transformer, tiny_translation, tmp_path, capsys, model):
    path = changed(transformer, tmp_path / "other.pt", OTHER_MODELS[model])
    for message in refused(capsys, path, tiny_translation, tmp_path / "out", ON_DATA).values():
        assert str(path) in message


def test_parameters_of_an_lstm_in_a_transformer(transformer, lstm, tiny_translation, tmp_path, capsys):
    parameters = torch.load(lstm, weights_only=True)["model"]
    path = changed(transformer, tmp_path / "other.pt", lambda state: state.update(model=parameters))
    for message in refused(capsys, path, tiny_translation, tmp_path / "out", ON_DATA).values():
        # fairseq 0.12.2 fails before torch compares the names
        assert f"{path} is of another architecture: it has no " in message or "layers.0.self_attn.q_proj" in message
    average = COMMANDS["selfkd-average-checkpoints"](path, None, tmp_path / "out")[0]
    assert average([str(transformer), str(lstm), "--output", str(tmp_path / "x.pt")]) == 1
    assert "hold different models: " in capsys.readouterr().err and not (tmp_path / "x.pt").exists()


@pytest.mark.parametrize("name", FAIRSEQ_COMMANDS)
def test_parameters_of_another_width_are_one_line_of_fairseq(
    transformer, tiny_translation, tmp_path, capsys, monkeypatch, name
):
    path = transformer
    arguments = [*FAIRSEQ_COMMANDS[name], path]
    if name == "fairseq-train":
        arguments += ["--encoder-ffn-embed-dim", "24"]
    else:
        arguments[-1] = path = changed(transformer, tmp_path / "other.pt", settings_of_model(encoder_ffn_embed_dim=24))
    message = refused_by_fairseq(capsys, monkeypatch, name, tiny_translation, *arguments)
    assert message in [
        f"{path} is of another architecture: it has {name} of shape (16, 16), and the model of shape (24, 16)"
        for name in ("encoder.layers.0.fc1.weight", "encoder.layers.0.fc1_weight")  # the second: fairseq 0.12.2
    ]


def test_another_architecture_is_one_line_of_fairseq(lstm, tiny_translation, capsys, monkeypatch):
    arguments = [*FAIRSEQ_COMMANDS["fairseq-train"], lstm]
    message = refused_by_fairseq(capsys, monkeypatch, "fairseq-train", tiny_translation, *arguments)
    assert re.fullmatch(
        re.escape(f"{lstm} is of another architecture: it has no ") + r"encoder\.layers\.0\.self_attn\.\w+\.weight",
        message,
    )


def test_one_of_several_models(transformer, tiny_translation, tmp_path, capsys, monkeypatch):
    path = changed(transformer, tmp_path / "other.pt", settings_of_model(encoder_ffn_embed_dim=24))
    paths = f"{transformer}:{path}"
    message = refused_by_fairseq(capsys, monkeypatch, "fairseq-generate", tiny_translation, "--path", paths)
    assert message.startswith(f"{transformer} or {path} is of another architecture: ")


@pytest.mark.parametrize(
    ("part", "value"),
    [*[("common", value) for value in (None, "x", 3, [], {})], *[("criterion", value) for value in (None, "x", 3)]],
)
def test_settings_that_only_the_record_needs(transformer, tiny_translation, tmp_path, capsys, part, value):
    path = changed(transformer, tmp_path / "other.pt", lambda state: state["cfg"].update({part: value}))
    (message,) = refused(capsys, path, tiny_translation, tmp_path / "out", ["selfkd-evaluate"]).values()
    assert message.startswith(f"{path} does not have the settings of a checkpoint of fairseq-train: ")


@pytest.mark.parametrize("history", [3, "x", {"a": 1}, torch.ones(2), [None], [3], [{"num_updates": None}]])
def test_a_history_that_is_none(transformer, tmp_path, capsys, history):
    path = changed(transformer, tmp_path / "other.pt", lambda state: state.update(optimizer_history=history))
    (message,) = refused(capsys, path, None, tmp_path / "out", ["selfkd-average-checkpoints"]).values()
    assert message == f"{path} is not a fairseq checkpoint: its optimizer_history holds no number of updates"
