"""`layerstore.values.frozen` makes what `attrs.frozen` does, sooner."""

from __future__ import annotations

import pickle
from typing import Any

import attrs
import pytest
from attrs import field
from hypothesis import given
from hypothesis import strategies as st

from layerstore import values


class _Point:
    x: int
    _y: str = field(default="", eq=False)
    z: tuple[int, ...] = field(default=(), repr=False)


def _made(by: Any, **settings: bool) -> Any:
    return by(type("_Point", (), dict(_Point.__dict__)), **settings)


_THEIRS, _OURS = _made(attrs.frozen), _made(values.frozen)

_ARGS = st.tuples(st.integers(0, 1), st.sampled_from(["", "a"]), st.lists(st.integers(0, 1), max_size=1).map(tuple))


@given(one=_ARGS, other=_ARGS)
def test_values_are_compared_hashed_and_shown_as_attrs_does(one: Any, other: Any) -> None:
    assert (_OURS(*one) == _OURS(*other)) is (_THEIRS(*one) == _THEIRS(*other))
    assert (_OURS(*one) != _OURS(*other)) is (_THEIRS(*one) != _THEIRS(*other))
    assert len({_OURS(*one), _OURS(*other)}) == len({_THEIRS(*one), _THEIRS(*other)})
    assert repr(_OURS(*one)) == repr(_THEIRS(*one))


@values.frozen
class _Kept:
    a: int
    b: str = "b"


@values.frozen
class _Base:
    a: int

    def __repr__(self) -> str:
        return "of its own"


@values.frozen
class _Derived(_Base):
    b: int = 0


@values.frozen
class _Nothing:
    pass


@values.frozen(eq=False, repr=False)
class _Alone:
    a: int


def test_a_value_is_frozen_slotted_and_pickled() -> None:
    value = _Kept(1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.a = 2  # type: ignore[misc]  # that is what is refused
    assert not hasattr(value, "__dict__")
    assert pickle.loads(pickle.dumps(value)) == value
    assert attrs.evolve(value, b="c") == _Kept(1, "c")


def test_classes_are_equal_to_their_own_alone() -> None:
    assert _Base(1) != _Derived(1)
    assert _Derived(1, 1) != _Derived(1, 2)
    assert _Nothing() == _Nothing()
    assert _Kept(1) != (1, "b")


def test_what_a_class_has_of_its_own_or_not_at_all_stays_so() -> None:
    assert repr(_Base(1)) == "of its own"
    assert repr(_Derived(1, 2)) == "_Derived(a=1, b=2)"
    assert _Alone(1) != _Alone(1)
    assert repr(_Alone(1)).startswith("<")
