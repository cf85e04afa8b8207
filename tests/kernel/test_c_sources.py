"""What no compiler says of the C parts: headers do not hide or need each other, and each idea has one place."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src" / "layerstore"
HEADERS = sorted(SOURCES.glob("**/*.h"))
ALL = sorted(path for path in SOURCES.glob("**/*.[ch]") if path.name != "_shim.c")


def includes(path: Path) -> list[Path]:
    """Our own headers that a file includes itself."""
    return [(path.parent / name).resolve() for name in re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE)]


def in_rings(needed: Mapping[Path, list[Path]]) -> list[str]:
    """The files that need each other, and those that need one of them."""
    left = dict(needed)
    while ready := [path for path, others in left.items() if not any(other in left for other in others)]:
        for path in ready:
            del left[path]
    return sorted(path.name for path in left)


def test_no_two_headers_share_a_guard() -> None:
    # Of two with one guard, whichever comes second is empty.
    guards = Counter(guard for path in HEADERS for guard in re.findall(r"^#ifndef (LS_\w+_H)$", path.read_text(), re.M))
    assert [guard for guard, times in guards.items() if times > 1] == []


def test_no_headers_include_each_other() -> None:
    assert in_rings({path.resolve(): includes(path) for path in HEADERS}) == []


def test_no_files_call_each_other() -> None:
    code = {path: re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S) for path in ALL if path.suffix == ".c"}
    begins = re.compile(r"^(?!static\b)[a-z][^;{}=()]*?\b(ls_\w+)\([^;{}]*\) \{", re.M)
    makers = {name: path for path, text in code.items() for name in begins.findall(text)}
    assert len(makers) > 200
    needed = {
        path: [makers[name] for name in re.findall(r"\b(ls_\w+)\(", text) if makers.get(name, path) != path]
        for path, text in code.items()
    }
    assert in_rings(needed) == []


def test_folders_are_listed_in_one_way() -> None:
    # `readdir` returns NULL at the end and on a failure alike, and is easily taken for the former.
    found = {path.name for path in ALL if re.search(r"\b(readdir|opendir|fdopendir|getdents64)\(", path.read_text())}
    assert found == {"listing.c"}


def test_names_of_marks_are_written_once() -> None:
    found = {path.name for path in ALL if re.search(r'"\.wh\.', path.read_text())}
    assert found == {"marks.h"}
