"""Keys to detach with: how they are written, and how they are found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore import ConfigError
from layerstore.runtime.streams.keys import Detach, parse


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-a,a", b"\x01a"),
        ("ctrl-@", b"\0"),
        ("ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x1b\x1c\x1d\x1e\x1f"),
        ("a,,", None),
        ("ctrl-1", None),
        ("ctrl-é", None),
        ("é", None),
        ("", b""),
    ],
)
def test_written(text: str, keys: bytes | None) -> None:
    if keys is None:
        with pytest.raises(ConfigError, match="no key to detach with"):
            parse(text)
    else:
        assert parse(text) == keys


few = st.lists(st.sampled_from(b"pq\x10"), max_size=12).map(bytes)


@given(few.filter(bool), few, st.data())
def test_found_however_the_bytes_come(keys: bytes, typed: bytes, data: st.DataObject) -> None:
    pieces, rest = [], typed
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        pieces.append(rest[:size])
        rest = rest[size:]
    detach, out, found = Detach(keys), b"", False
    for piece in pieces:
        more, found = detach.feed(piece)
        out += more
        if found:
            break
    at = typed.find(keys)
    assert found == (at >= 0)
    if found:
        assert out == typed[:at]
    else:  # only what may become the keys is kept back, and all that may
        kept = typed[len(out) :]
        assert typed.startswith(out)
        assert keys.startswith(kept)
        assert not any(typed.endswith(keys[:size]) for size in range(len(kept) + 1, min(len(keys), len(typed) + 1)))


def test_no_keys_keep_nothing_back() -> None:
    assert Detach(b"").feed(b"\x10\x11") == (b"\x10\x11", False)
