"""Random texts as settings of a checkpoint: what touches an object when fairseq evaluates it is refused.

The judge is eval itself, in a namespace where each name is a spy. Reading a name or an attribute, and ``+ - /`` between
such, is how Python understands the name of a file, and is no touch; everything else is.
"""

import ast
import re

import hypothesis.strategies as st
import pytest
from hypothesis import event, given

from selfkd_fairseq.checkpoints.settings import runs, why_refused
from tests.hostile.fuzzing import fuzzed

NAMES = ("a", "b", "os", "exit", "__import__", "runs")
ATTRIBUTES = ("pt", "system", "__class__", "__class_getitem__", "en", "x1")
TOUCHES = (
    "call getitem setitem delitem iter contains len bool index int float str repr format eq ne lt le gt ge mul rmul "
    "mod rmod pow rpow matmul rmatmul lshift rlshift rshift rrshift and rand or ror xor rxor invert"
).split()
WORDS = "add radd sub rsub truediv rtruediv floordiv rfloordiv neg pos".split()


class Touched(BaseException):
    """No expression catches it."""


class Spy:
    """All names and all attributes; ends the evaluation at the first touch."""

    def __getattr__(self, name):
        if name == "keys":  # as a mapping, by {**spy}
            raise Touched
        return self

    def __setattr__(self, name, value):
        raise Touched

    __hash__ = object.__hash__


def _touched(*_):
    raise Touched


for touch in TOUCHES:
    setattr(Spy, f"__{touch}__", _touched)
for word in WORDS:
    setattr(Spy, f"__{word}__", lambda self, *_: self)
SPIES = dict.fromkeys(NAMES, Spy())


def touches(text):
    """Whether evaluating a text touches a spy. What else goes wrong is its own affair."""
    try:
        eval(text, {**SPIES, "__builtins__": SPIES})
    except Touched:
        return True
    except Exception:
        return False
    return False


def _joined(template, *parts):
    return st.tuples(*parts).map(lambda values: template.format(*values))


def _larger(inner):
    """Expressions around expressions: of each kind that Python has, harmless or not."""
    templates = [
        "({})", "[{}]", "({},)", "{{{}}}", "-{}", "+{}", "~{}", "not {}", "{}()", "[*{}]", "{{**{}}}", "f'{{{}}}'",
        "f'{{{}!r}}'", "{}.real", "(lambda: {})()", "[{} for i in '12']", "({})*3", "{}, ", "(i := {})",
        "#coding:x\n{}", "{}#", "\n{}", "{}; 1", "print({})", "lambda: {}", "'%s' % {}", "(yield {})", "await {}",
    ]  # fmt: skip
    pairs = [
        "{}+{}", "{}-{}", "{}/{}", "{}//{}", "{}*{}", "{}%{}", "{}@{}", "{}|{}", "{}&{}", "{}^{}", "{}<{}", "{}=={}",
        "{} in {}", "{} is {}", "{} and {}", "{} or {}", "{}[{}]", "{}({})", "{},{}", "{}:{}", "{{{}: {}}}", "[{},{}]",
        "f'{{{}:{{{}}}}}'", "[i for i in {} if {}]", "{}[{}:]", "{{'x': {}, **{}}}", "[0 for {}.x in [{}]]", "{} {}",
        "[i[{}] for i.__class_getitem__ in [{}]]", "({}, *{})", "{}if 1 else{}", "{} if {} else 0", "{}\n{}",
    ]  # fmt: skip
    small = st.one_of(*[_joined(template, inner) for template in templates])
    return st.one_of(small, *[_joined(template, inner, inner) for template in pairs])


LEAVES = st.one_of(
    st.sampled_from(NAMES),
    st.tuples(st.sampled_from(NAMES), st.sampled_from(ATTRIBUTES)).map(".".join),
    st.sampled_from(["0", "1", "2.5", "'s'", "b's'", "None", "True", "...", "1j", "()", "[]", "{}", "'{0}'", "-3"]),
)
EXPRESSIONS = st.recursive(LEAVES, _larger, max_leaves=6)
BLANKS = st.sampled_from(
    ["", "", " ", "\t ", "\f", "\n", "\ufeff", "#coding:nosuch\n", "#coding:utf-7\n", "\\\n", "\x00"]
)
# With a few characters put in, taken out or changed; without powers, with which eval may not come to an end.
CHARACTERS = "()[]{}.,:;*@'\"\\#=!-+/ \n\tab10fr\u00b5\ud800"


@st.composite
def _spoiled(draw):
    text = draw(BLANKS) + draw(EXPRESSIONS) + draw(BLANKS)
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(["", *CHARACTERS])) + text[place + draw(st.integers(0, 1)) :]
    return re.sub(r"(?<![{ ])\*\*+", "*", text)


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@fuzzed(usual=2000, long=100_000)
@given(_spoiled())
def test_what_touches_anything_is_refused(text):
    touching = touches(text)
    event(f"touches {touching}, refused {runs(text)}")
    if touching:
        assert runs(text)
        assert why_refused({"cfg": {"model": {"x": [text]}}}) is not None


LITERALS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.tuples(inner, inner), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@fuzzed(usual=200)
@given(LITERALS)
def test_no_literal_is_refused(value):
    assert ast.literal_eval(repr(value)) == value
    assert not runs(repr(value))


@fuzzed(usual=100)
@given(st.lists(st.tuples(st.tuples(st.integers(1, 4096), st.integers(1, 7)), st.integers(0, 1000)), min_size=1))
def test_no_list_of_layers_is_refused(layers):
    assert not runs(" + ".join(f"[{layer}] * {count}" for layer, count in layers))


@fuzzed(usual=200)
@given(st.lists(st.from_regex(r"[a-zA-Z]\w*_", fullmatch=True), min_size=1, max_size=9), st.sampled_from("./-+,"))
def test_no_name_of_a_file_is_refused(words, joint):
    assert not runs(joint.join(words))
