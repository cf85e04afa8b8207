"""A night's bookkeeping: what it has tried, of which sources, and what is there when it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz import building, night, seeds
from layerstore.kernel import _build

HELD = {"revision": "r", "target": "unpack", "inputs": 60, "seconds": 1.0, "covered": 1, "broke": ""}


def taken(state: Path, sources: str) -> list[str]:
    """The targets that are tried of these sources, a slice each."""
    turns = night.Turns(state, ["changes", "unpack"], 100, sources)
    found = []
    while (target := turns.take()) is not None:
        found.append(target)
    return found


def test_what_broke_a_target_counts_until_its_sources_are_others(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text('{"revision": "r", "target": "changes", "inputs": 100, "broke": "as it was noted before"}\n')
    turns = night.Turns(state, ["changes", "unpack"], 100, "before")
    for row in (HELD, HELD | {"target": "changes", "broke": "heap-buffer-overflow"}):
        turns.take()
        turns._busy = {str(row["target"])}
        turns.give_back(str(row["target"]), row)
    assert taken(state, "before") == ["unpack"]
    assert taken(state, "mended") == ["changes", "unpack"]
    assert night.tried(night.rows(state, "before"), "unpack") == 60
    assert night.rows(state, "mended") == []


def test_the_sources_are_all_c_that_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here/a.c", "package/b.c", "package/deep/c.h"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(building, "HERE", tmp_path / "here")
    monkeypatch.setattr(_build, "PACKAGE", tmp_path / "package")
    seen = {building.sources()}
    for name in ("here/a.c", "package/b.c", "package/deep/c.h"):
        (tmp_path / name).write_text("int altered;")
        seen.add(building.sources())
    assert len(seen) == 4
    (tmp_path / "package/d.py").write_text("other")
    (tmp_path / "package/_shim.c").write_text("made")
    assert building.sources() in seen


def test_what_a_target_is_given_first_is_there_as_a_whole_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(target: str, _: Path) -> Iterator[bytes]:
        yield b"first"
        raise KeyboardInterrupt

    work, place = tmp_path / "work", tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(seeds, "of", broken_off)
    with pytest.raises(KeyboardInterrupt):
        night.slice_of("unpack", Path("/bin/true"), work, place, "r")
    assert not (work / "unpack").exists()
    (place / "making").rmdir()  # which is gone with the night
    monkeypatch.setattr(seeds, "of", lambda *_: iter([b"first", b"second"]))
    night.slice_of("unpack", Path("/bin/true"), work, place, "r")
    assert {path.name: path.read_bytes() for path in work.rglob("*") if path.is_file()} == {
        "seed0": b"first",
        "seed1": b"second",
    }
