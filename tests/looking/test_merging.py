"""Layers laid on each other by their lists alone show what the real tree does, and each byte is counted once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings

from layerstore.driver import Dialect
from layerstore.looking.costs import Fate, payloads
from layerstore.looking.merging import Merged
from layerstore.tar import EntryKind, entries
from layerstore.testing import strategies
from layerstore.testing.tars import Entry, archive, file, folder, hardlink, opaque, whiteout
from tar.conftest import Scratch
from tar.engine import Stack

pytestmark = pytest.mark.root


def payloads_in(root: str) -> int:
    """The bytes of the files of a tree, each counted once whatever its names are, holes not at all."""
    sizes = {}
    for path, _, files in os.walk(root):
        for name in files:
            facts = os.lstat(os.path.join(path, name))
            if stat.S_ISREG(facts.st_mode):
                sizes[facts.st_dev, facts.st_ino] = facts.st_size
    return sum(sizes.values())


@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.value)
@settings(deadline=None)
@given(layers=strategies.stacks())
def test_names_that_show_are_those_of_the_tree(
    layers: list[strategies.Layer],
    dialect: Dialect,
    scratch: Scratch,
) -> None:
    merged = Merged()
    with scratch() as place:
        stack = Stack(place / "stack", dialect)
        for level, layer in enumerate(layers):
            merged.lay(level, entries(stack.push(layer.tar).skeleton))
            shown = {path for path, one in merged.shown.items() if one.entry.kind is not EntryKind.REMOVAL}
            assert shown | {b""} == {os.fsencode(name).lstrip(b"/") for name in stack.listing()} | {b""}
            assert all(name in merged.shown for name in merged.below(b""))


def costs(place: Path, *layers: list[Entry]) -> list[tuple[bytes, int, Fate, int | None, tuple[str, ...]]]:
    stack = Stack(place / "stack", Dialect.OVERLAY)
    found = payloads([list(entries(stack.push(archive(*layer)).skeleton)) for layer in layers])
    return [(one.path, one.size, one.fate, one.by, one.differs) for one in found]


def test_each_way_to_lose_a_file_is_told(scratch: Scratch) -> None:
    lower = [
        folder(b"d"),
        file(b"d/opaque", b"1"),
        file(b"removed", b"22"),
        file(b"changed", b"333"),
        file(b"moded", b"4444"),
        file(b"owned", b"55555"),
        file(b"kept", b"666666"),
        folder(b"becomes"),
        file(b"becomes/file", b"7777777"),
    ]
    upper = [
        folder(b"d"),
        opaque(b"d"),
        whiteout(b"removed"),
        file(b"changed", b"new"),
        file(b"moded", b"4444", mode=0o600),
        file(b"owned", b"55555", uid=1, mtime=0),
        file(b"becomes", b"88888888"),
    ]
    with scratch() as place:
        found = {path: rest for path, *rest in costs(place, lower, upper) if rest[1] is not Fate.SHOWN}
    assert {path: (size, fate, by) for path, (size, fate, by, _) in found.items()} == {
        b"d/opaque": (1, Fate.HIDDEN, 1),
        b"removed": (2, Fate.HIDDEN, 1),
        b"changed": (3, Fate.HIDDEN, 1),
        b"moded": (4, Fate.REWRITTEN, 1),
        b"owned": (5, Fate.REWRITTEN, 1),
        b"becomes/file": (7, Fate.HIDDEN, 1),
    }
    assert found[b"moded"][3] == ("mode",)
    assert found[b"owned"][3] == ("owner", "time")


def test_a_file_with_two_names_is_lost_with_the_last(scratch: Scratch) -> None:
    lower = [file(b"a", b"content"), hardlink(b"b", b"a")]
    with scratch() as place:
        [one] = costs(place / "1", lower, [whiteout(b"a")])
        assert one[2] is Fate.SHOWN
        [one] = costs(place / "2", lower, [whiteout(b"a")], [whiteout(b"b")])
        assert one[1:4] == (7, Fate.HIDDEN, 2)


@settings(deadline=None)
@given(layers=strategies.stacks())
def test_bytes_that_show_are_those_of_the_tree(layers: list[strategies.Layer], scratch: Scratch) -> None:
    with scratch() as place:
        stack = Stack(place / "stack", Dialect.MERGED)
        listed = [list(entries(stack.push(layer.tar).skeleton)) for layer in layers]
        found = payloads(listed)
        total = sum(entry.stored for entries_of in listed for entry in entries_of)
        assert sum(one.size for one in found) == total
        if not any(entry.kind is EntryKind.FILE and entry.stored != entry.size for one in listed for entry in one):
            shown = sum(one.size for one in found if one.fate is Fate.SHOWN)
            assert shown == payloads_in(str(place / "stack" / "tree"))
