"""What no compiler says of the C parts: headers do not hide or need each other, and each idea has one place."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src" / "layerstore"
HEADERS = sorted(SOURCES.glob("**/*.h"))
ALL = sorted(path for path in SOURCES.glob("**/*.[ch]") if path.name != "_shim.c")


def includes(path: Path) -> list[Path]:
    """Our own headers that a file includes itself."""
    return [(path.parent / name).resolve() for name in re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE)]


def test_no_two_headers_share_a_guard() -> None:
    # Of two with one guard, whichever comes second is empty.
    guards = Counter(guard for path in HEADERS for guard in re.findall(r"^#ifndef (LS_\w+_H)$", path.read_text(), re.M))
    assert [guard for guard, times in guards.items() if times > 1] == []


def test_no_headers_include_each_other() -> None:
    left = {path.resolve(): includes(path) for path in HEADERS}
    while ready := [path for path, needed in left.items() if not any(other in left for other in needed)]:
        for path in ready:
            del left[path]
    assert sorted(path.name for path in left) == []


def test_folders_are_listed_in_one_way() -> None:
    # `readdir` returns NULL at the end and on a failure alike, and is easily taken for the former.
    found = {path.name for path in ALL if re.search(r"\b(readdir|opendir|fdopendir|getdents64)\(", path.read_text())}
    assert found == {"listing.c"}


def test_names_of_marks_are_written_once() -> None:
    found = {path.name for path in ALL if re.search(r'"\.wh\.', path.read_text())}
    assert found == {"marks.h"}
