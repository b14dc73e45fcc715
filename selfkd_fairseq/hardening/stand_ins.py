"""Attributes of fairseq that something of this room stands in for, and how they were before."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

__all__ = ["put_back", "stand_in"]

_ABSENT = object()


class _Replaced(NamedTuple):
    owner: Any
    name: str
    original: Any
    stand_in: Any


_replaced: list[_Replaced] = []
_standing: set[tuple[int, int]] = set()


def stand_in(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put something in the place of an attribute, unless it stands there already.

    Args:
        owner: a module or a class.
        name: of its attribute, which need not be there yet.
        make: given what is there (None if nothing is), what stands in for it; a ``staticmethod`` for one of a class.
    """
    original = vars(owner).get(name, _ABSENT)
    if (id(owner), id(original)) in _standing:
        return
    made = make(getattr(owner, name, None))
    setattr(owner, name, made)
    _standing.add((id(owner), id(made)))
    _replaced.append(_Replaced(owner, name, original, made))


def put_back() -> None:
    """Put back what was there before, but where somebody else has put something since."""
    while _replaced:
        owner, name, original, made = _replaced.pop()
        _standing.discard((id(owner), id(made)))
        if vars(owner).get(name) is not made:
            continue
        if original is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, original)
