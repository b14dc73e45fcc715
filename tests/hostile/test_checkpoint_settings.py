"""Which settings of a checkpoint fairseq would run, and which only look as if."""

import argparse
import ast
import pathlib
import re

import fairseq
import numpy as np
import pytest
from omegaconf import OmegaConf

from selfkd_fairseq.checkpoints.settings import _PLAIN_TEXT, runs, why_refused

RUN = [
    "print()", "  print()", "\tprint()", "\nprint()", "[(512, 3)] * int('9')", "(lambda: 1)()",
    "[f() for f in [exit]]", "f'{exit()}'", "${oc.env:HOME}",
    ["x", "exit()"], {"a": {"b": ("exit()",)}}, argparse.Namespace(x=argparse.Namespace(y="exit()")),
    # bytes that are a source to eval
    b"exit()", b"True", b"", bytearray(b"exit()"), np.frombuffer(b"exit()", np.uint8), [{"a": bytearray(b"1")}],
    # an encoding, which eval of a str does not heed
    "#coding:nosuch\n__import__('os').system('x')", "# -*- coding: utf-16 -*-\nexit()",
    "#coding:latin-1\nexit('\u20ac')",
    # calls that are not written as such
    "[a['x'] for a.__class_getitem__ in [os.system]]", "{a['x'] for a.b in c}", "{a: 1 for a in b}", "(a for a in b)",
    "[a for a in b]", "[*a]", "(*a,)", "{**a}", "{'a': 1, **a}", "a[0]", "a[b:c]", "a[0].b", "f'{a}'", "f'{a!r:>{b}}'",
    "f'a'", "(a := 1)", "a @ b", "a % b", "a | b", "a ** b", "a < b", "a in b", "a is b", "not a", "~a", "a and b",
    "a if b else c", "lambda: 1", "-a[0]", "(1, [2, {3: a[0]}])", "a.b[c].d",
    # time and memory without bound
    "10 ** 10 ** 10", "'a' * 10 ** 10", "'a' * 10000001", "[0] * 100000 * 1000", "10000 * ([0] * 1000 + [1])",
    "a * 9", "9 * a.b", "(1 + a) * 9", "[0] * 1000000," * 1000, "9999 * 9999", "[0] * (999 + 9999999)",
    "1*" * 5000 + "1",
    "'%1000000000d' % 1", "1 << 1000000000", "[" * 40 + "a[0]" + "]" * 40, "1," * 60_000,
    "1" + "+1" * 20_000 + "+exit()", "not " * 10_000 + "a",
]  # fmt: skip
KEPT = [
    "True", "[(512, 3)] * 20", "([(8, 3)] * 2 + [(8, 5)]) * 2", "[(8, 3)] * (2 + 1)", "9 * (1, a)", "1e-3 * 0.5",
    "1e999", "[(512, 3)] * 4 + [(768, 3)] * 2 + [(1024, 1)]", "2 * [(1, 2)]", "5000,50000",
    "(0.9, 0.98)", "transformer-big", "{'beam': 5}", '{"beam": 5}', "1+1", "-1e-8", "relu", "", "a b", "print(",
    "x" * 10, "\0", "exit()\nexit()", "en-de,de-en", "spm.model", "runs/1.5/kd-2/model.pt", "//a/b", "[MASK]",
    "{src}-{tgt}", "/a", "~/a", "<unk>", "@@ ", "tcp://localhost:1", "#coding:nosuch\n1", "#", "None", "{1, 2}", "b'a'",
    "1," * 5_000, "exit(" * 3, None, 3, 0.5, 1j, True, [1, 2], "\ud800", [], {}, {"exit()": 1}, {3: "a"},
]  # fmt: skip


def label(value):
    return ascii(value)[:40]


def states(value):
    """A checkpoint with the value in each place where fairseq looks for settings."""
    yield {"cfg": {"model": argparse.Namespace(x=value), "task": {}}}
    yield {"cfg": {"model": {"deep": {"x": value}}}}
    yield {"cfg": {"model": None, "task": {"x": value}}, "args": None}
    yield {"cfg": {"criterion": {"_name": "ctc", "wer_args": value}}}
    yield {"cfg": None, "args": argparse.Namespace(x=value)}


@pytest.mark.parametrize("value", RUN, ids=label)
def test_what_could_run_is_found(value):
    assert all(why_refused(state) is not None for state in states(value))


@pytest.mark.parametrize("value", KEPT, ids=label)
def test_anything_else_is_left(value):
    assert [why_refused(state) for state in states(value)] == [None] * 5


PATHS = [
    "data", "checkpoint_suffix", "save_dir", "tensorboard_logdir", "finetune_from_model", "restore_file",
    "wandb_project", "bpe_codes", "sentencepiece_model", "srcdict", "lang_dict", "pretrained_model",
    "encoder_embed_path", "gpt2_encoder_json", "load_pretrained_encoder_from", "pretrained_xlm_checkpoint",
    "trainpref", "ema_seed_model",
]  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_names_of_files_may_look_like_calls_but_refer_to_nothing(name):
    assert why_refused({"cfg": {"model": {name: "runs(2)/spm.model"}}}) is None
    assert why_refused({"cfg": {"model": {"w2v_args": {name: "${evil}"}}}}) is not None
    assert why_refused({"cfg": {"model": {name: b"runs(2)/spm.model"}}}) is not None
    assert "encoder_layers" in why_refused({"cfg": {"model": {"encoder_layers": "runs(2)/spm.model", name: "x"}}})


def test_what_fairseq_evaluates_is_no_name_of_a_file():
    """In its sources: what stands behind the dot in ``eval(args.decoder_layers)``, ``eval_bool(cfg.x)`` and such."""
    evaluated = set()
    for file in pathlib.Path(fairseq.__file__).parent.rglob("*.py"):
        source = file.read_text(encoding="utf-8")
        calls = re.findall(r"(?:(?<!\.)\beval|\beval_(?:bool|str_list|str_dict))\(([^()]*)", source)
        evaluated.update(name for call in calls for name in re.findall(r"\.(\w+)", call))
    assert {"decoder_attention", "adaptive_softmax_cutoff", "conv_feature_layers", "character_filters"} <= evaluated
    assert {name for name in evaluated if _PLAIN_TEXT.fullmatch(name)} == set()


def test_the_message_is_one_line_whatever_the_name():
    reason = why_refused({"cfg": {"model": {"a\n\x1b[31mb" + "c" * 10**6: "exit()", 10**5000: 1}}})
    assert reason.isprintable() and len(reason) < 300


def shared(depth):
    """A list of 2 ** depth items, of which each half is the same."""
    value = ["x"]
    for _ in range(depth):
        value = [value, value]
    return value


def cycle():
    value = []
    value.append(value)
    return value


HUGE = {"shared": lambda: shared(40), "wide": lambda: [[[0] * 1000] * 1000] * 1000, "cycle": cycle}


@pytest.mark.parametrize("value", HUGE)
def test_settings_without_end_are_refused(value):
    reasons = {why_refused(state) for state in states(HUGE[value]())}
    reasons.add(why_refused({"cfg": {"common": {"x": HUGE[value]()}}}))  # which fairseq copies, too
    assert reasons == {"is refused: its settings hold more than 100,000 values"}
    assert why_refused({"cfg": {"model": {"x": shared(12)}}}) is None


def test_literals_have_the_values_that_ast_gives_them():
    literals = [text for text in KEPT if isinstance(text, str) and text[:1] in ("{", "(", "[", "-", "T")]
    harmless = [text for text in literals if "*" not in text and not re.search("MASK|src", text)]
    assert len(harmless) > 4 and [eval(text) for text in harmless] == list(map(ast.literal_eval, harmless))
    assert not any(map(runs, harmless))


def test_omegaconf_is_not_resolved(monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    settings = OmegaConf.create({"model": {"a": "${oc.env:SECRET}"}, "task": "${model}"})
    assert "its setting a says" in why_refused({"cfg": settings})
    settings = OmegaConf.create({"evil": {"x": "exit()"}, "model": "${evil}", "task": {}})
    assert why_refused({"cfg": settings}) is not None


@pytest.mark.parametrize("state", [{}, {"cfg": 3}, {"cfg": []}, {"args": "x"}])
def test_what_is_no_checkpoint(state):
    assert why_refused(state) is None
