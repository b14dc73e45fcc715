"""numpy's names in a checkpoint that means harm: they make arrays and scalars of numbers, and nothing else."""

import argparse
import pickle

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from hypothesis import given

from selfkd_fairseq.checkpoints.safe_globals import CHECKPOINT_GLOBALS
from tests.hostile.commands import changed, refused
from tests.hostile.fuzzing import fuzzed

RECONSTRUCT = np.array(0).__reduce__()[0]
SCALAR = np.float64(0).__reduce__()[0]
WORD = np.dtype("i8")


class Made:
    """Is pickled as the call of a function, and the state that is given to what it returns."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def dtype(*state):
    return Made(np.dtype, "i8", False, True, state=(3, "<", *state, -1, -1, 0))


def array(shape, kind, data, of=np.ndarray):
    return Made(RECONSTRUCT, of, (0,), b"b", state=(1, shape, kind, False, data))


class Array(np.ndarray):
    """A relative with code of its own."""


OUTSIDE = dtype(None, ("a",), {"a": (WORD, 800)})
LARGE = dtype((WORD, (100,)), None, None)
FORGED = {
    "objects": Made(np.dtype, "O8", False, True),
    "fields outside of an item": OUTSIDE,
    "an item outside of the array": LARGE,
    "an array of items outside": array((1,), OUTSIDE, bytes(8)),
    "fields": Made(np.dtype, [("a", "O")]),
    "a list of names": Made(np.dtype, "i8,O"),
    "texts": np.array(["a"]),
    "times": np.array(["2000"], dtype="M8[D]"),
    "raw memory": np.array([b"a"], dtype="V1"),
    "an array of objects": np.array([[1], None], dtype=object),
    "an array of another class": array((1,), WORD, bytes(8), of=argparse.Namespace),
    "an array of a class with code": np.zeros(1).view(Array),
    "an array made by hand": Made(np.ndarray, (3,), "O"),
    "an array over memory": Made(np.ndarray, (3,), "i8", np.zeros(3)),
    "more items than memory": array((2,), WORD, bytes(8)),
    "more items than 64 bits count": array((2**32, 2**32), WORD, b"\0"),
    "less than no item": array((-1, -1), WORD, bytes(8)),
    "a list for memory": array((1,), WORD, [1]),
    "an array for memory": array((1,), WORD, np.zeros(8, "u1")),
    "a dtype by name": array((1,), "O", [1]),
    "a scalar of objects": Made(SCALAR, np.dtype("O"), [1]),
    "a scalar of fields": Made(SCALAR, np.dtype([("a", "O")]), np.zeros(8, "u1")),
    "a scalar of another array": Made(SCALAR, WORD, np.zeros(1)),
    "a scalar cut short": Made(SCALAR, WORD, b"\0"),
    "a scalar of two": Made(SCALAR, WORD, bytes(16)),
}


def test_numpy_itself_takes_such_states():
    """Else the list above would say nothing: this item lies 800 bytes behind the one that it is in."""
    forged = pickle.loads(pickle.dumps(OUTSIDE))
    assert (forged.itemsize, forged.fields["a"][1]) == (8, 800)


@pytest.mark.parametrize("name", list(FORGED))
def test_what_is_no_number_is_refused(tmp_path, name):
    path = tmp_path / "forged.pt"
    torch.save({"model": {}, "optimizer_history": [], "x": FORGED[name]}, path)
    with pytest.raises(Exception):  # noqa: B017 (of several kinds: numpy's and ours)
        torch.load(path, weights_only=True)
    with pytest.raises(pickle.UnpicklingError, match=r"forged.pt (holds .*refuses|is damaged)"):
        checkpoint_utils.load_checkpoint_to_cpu(str(path))


def test_the_message_names_it(transformer, tiny_translation, tmp_path, capsys):
    names = {"objects": "numpy.dtype('O8')", "fields": "numpy.dtype", "an array of another class": "numpy.ndarray"}
    for name, shown in names.items():
        state = FORGED[name]
        path = changed(transformer, tmp_path / "x.pt", lambda checkpoint, state=state: checkpoint.update(x=state))
        messages = refused(capsys, path, tiny_translation, tmp_path / "out")
        assert set(messages.values()) == {f"{path} holds {shown}, which safe loading refuses"}


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.sampled_from(["i8", "<", "b1", "O8", "f4", "V8", b"", bytes(8)]),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.lists(inner, max_size=3),
    max_leaves=6,
)


@fuzzed()
@given(
    code=ANY, order=st.sampled_from("<>|=") | ANY, rest=st.lists(st.none() | ANY, max_size=6),
    shape=st.lists(st.integers(-1, 3), max_size=3).map(tuple) | ANY, data=st.binary(max_size=40) | ANY, columns=ANY,
)  # fmt: skip
def test_any_state_gives_numbers_or_an_error(code, order, rest, shape, data, columns):
    array = CHECKPOINT_GLOBALS["numpy.ndarray"]()
    try:
        kind = CHECKPOINT_GLOBALS["numpy.dtype"](code)
        kind.__setstate__((3, order, *rest))
        array.__setstate__((1, shape, kind, columns, data))
    except (pickle.UnpicklingError, TypeError, ValueError):
        assert array.size == 0
        return
    assert array.dtype.kind in "biufc" and array.dtype.fields is None and array.dtype.subdtype is None
    assert array.nbytes == len(data) and array.shape == shape
