"""Classes of values are what attrs makes of the same body, but for how long that takes."""

from __future__ import annotations

import pickle
from typing import Any

import attrs
import pytest

from layerstore import values


def made(decorators: Any) -> tuple[type, type]:
    """A class of values and one of objects that change, as one or the other maker's decorators make them."""

    @decorators.frozen
    class Point:
        x: int
        y: int = 0
        note: str = attrs.field(default="", eq=False)
        secret: str = attrs.field(default="s", repr=False, kw_only=True)

    @decorators.define
    class Box:
        content: object = None

    return Point, Box


OURS, THEIRS = made(values), made(attrs)


@pytest.mark.parametrize(
    ("one", "other"),
    [((1, 2), (1, 2)), ((1, 2), (1, 3)), ((1, 2, "a"), (1, 2, "b")), ((1, [2]), (1, [2])), ((1.0, 2), (1, 2))],
)
def test_values_are_equal_and_hashed_as_attrs_has_it(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    (point, _), (theirs, _) = OURS, THEIRS
    assert (point(*one) == point(*other)) is (theirs(*one) == theirs(*other))
    assert (point(*one) != point(*other)) is (theirs(*one) != theirs(*other))
    assert point(*one) != theirs(*one)
    assert point(1, secret="a") != point(1, secret="b")
    if isinstance(one[1], int):
        assert (hash(point(*one)) == hash(point(*other))) is (point(*one) == point(*other))
    else:
        with pytest.raises(TypeError, match="unhashable"):
            hash(point(*one))


def test_what_can_change_has_no_hash() -> None:
    for _, box in (OURS, THEIRS):
        assert box(1) == box(1) != box(2)
        with pytest.raises(TypeError, match="unhashable"):
            hash(box())


def test_values_are_shown_as_attrs_shows_them() -> None:
    for ours, theirs in zip(OURS, THEIRS, strict=True):
        assert repr(ours(1)) == repr(theirs(1))
    box, theirs = OURS[1](), THEIRS[1]()
    box.content, theirs.content = [box], [theirs]
    assert repr(box) == repr(theirs)


def test_values_are_never_altered() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        OURS[0](1).x = 2
    assert attrs.evolve(OURS[0](1), x=2) == OURS[0](2)
    assert not hasattr(OURS[0](1), "__dict__")


@values.frozen
class Named:
    """What says itself when it is equal, and how it is shown."""

    name: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Named) and self.name.lower() == other.name.lower()

    def __hash__(self) -> int:
        return hash(self.name.lower())

    def __repr__(self) -> str:
        return f"<{self.name}>"


@values.frozen
class Half:
    """What says when it is equal, and has no hash for that."""

    name: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Half)


@values.frozen(repr=False, eq=False)
class Heir(Named):
    """Equal and shown as what it descends from."""

    age: int


def test_methods_of_a_class_itself_stay() -> None:
    assert Named("a") == Named("A")
    assert hash(Named("a")) == hash(Named("A"))
    assert (repr(Named("a")), repr(Heir("b", 2))) == ("<a>", "<b>")
    assert Half("a") == Half("b")
    with pytest.raises(TypeError, match="unhashable"):
        hash(Half("a"))
    assert Heir("a", 1) == Heir("A", 2)
    assert pickle.loads(pickle.dumps(Heir("a", 1))).age == 1
