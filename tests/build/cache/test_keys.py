"""Keys of steps: the same for the same, and another for whatever decides the result."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from layerstore import ChainID
from layerstore.build.cache import step_key

BASE = ChainID("sha256:" + "a" * 64)


def test_a_key_does_not_depend_on_the_order_in_which_values_are_given() -> None:
    assert step_key(BASE, "RUN make", {"A": "1", "B": "2"}) == step_key(BASE, "RUN make", {"B": "2", "A": "1"})


def test_a_key_is_sixty_four_hex_digits_that_never_change() -> None:
    """Keys lie in caches of other machines: a change of what they are made of is a new version."""
    assert step_key(BASE, "RUN make", {"A": "1"}, ["sha256:1"], epoch=1) == (
        "ee653e3e04d6e8cb6a701aa4c37e058a9e9946a2f0105202138991d826dcaf61"
    )


def test_whatever_decides_the_result_makes_another_key() -> None:
    keys = [
        step_key(BASE, "RUN make", {"A": "1"}, ["x", "y"]),
        step_key(None, "RUN make", {"A": "1"}, ["x", "y"]),
        step_key(BASE, "RUN make -j", {"A": "1"}, ["x", "y"]),
        step_key(BASE, "RUN make", {"A": "2"}, ["x", "y"]),
        step_key(BASE, "RUN make", {"A": "1", "B": ""}, ["x", "y"]),
        step_key(BASE, "RUN make", {"A": "1"}, ["y", "x"]),
        step_key(BASE, "RUN make", {"A": "1"}, ["xy"]),
        step_key(BASE, "RUN make", {"A": "1"}, ["x", "y"], epoch=0),
    ]
    assert len(set(keys)) == len(keys)


@given(some.text(), some.text(), some.text(), some.text())
def test_values_cannot_be_moved_across_their_borders(name: str, value: str, other: str, rest: str) -> None:
    """`A=B` with the value `C` is not `A` with the value `B=C`."""
    one, two = {name: value}, {other: rest}
    assert (step_key(None, "RUN x", one) == step_key(None, "RUN x", two)) == (one == two)


def test_a_value_that_is_no_utf8_has_a_key() -> None:
    assert step_key(None, "RUN x", {"A": "\udcff"}) != step_key(None, "RUN x", {"A": "\\udcff"})
