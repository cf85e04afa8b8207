"""What a walk finds: everything of a tree, in order, but for what rules leave out; and any change of it is seen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2b_dockerfile_utils import PatternMatcher
from hypothesis import given
from hypothesis import strategies as st

from layerstore import KernelError
from layerstore.build.context.ignore import rules_of
from layerstore.gathering import Found, Listing, walk
from layerstore.testing import strategies, trees

pytestmark = pytest.mark.root


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def listed(folder: Path, top: bytes = b"", patterns: list[str] | None = None) -> Listing:
    with opened(folder) as root:
        return walk(root, top, rules=None if patterns is None else rules_of(patterns))


def paths(listing: Listing) -> list[str]:
    return [os.fsdecode(found.path) for found in listing]


def expected_of(path: Path, name: str) -> Found:
    facts = path.lstat()
    return Found(
        path=os.fsencode(name),
        target=os.fsencode(os.readlink(path)) if path.is_symlink() else b"",
        mode=facts.st_mode,
        uid=facts.st_uid,
        gid=facts.st_gid,
        size=0 if path.is_dir() and not path.is_symlink() else facts.st_size,
        mtime_ns=facts.st_mtime_ns,
        ctime_ns=facts.st_ctime_ns,
        device=facts.st_dev,
        inode=facts.st_ino,
        rdev=facts.st_rdev,
    )


@given(layers=strategies.stacks(max_layers=1))
def test_everything_is_found_with_all_that_stat_says(
    layers: list[strategies.Layer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from layerstore.driver import Dialect
    from tar.engine import Stack

    folder = tmp_path_factory.mktemp("walk")
    Stack(folder / "stack", Dialect.MERGED).push(layers[0].tar)
    tree = folder / "stack/tree"
    found = list(listed(tree))
    names = [path.split("/") if path else [] for path in trees.listing(tree, content=False)]
    in_order = ["/".join(parts) for parts in sorted(names, key=lambda parts: [os.fsencode(part) for part in parts])]
    assert found == [expected_of(tree / name, name) for name in in_order]
    subprocess.run(["rm", "-rf", folder], check=True)


NAMES = st.sampled_from(["a", "b", "ab", "a.b", "c"])
PATTERNS = st.builds(
    lambda taken, parts: taken + "/".join(parts),
    st.sampled_from(["", "", "!"]),
    st.lists(st.sampled_from(["a", "b", "ab", "*", "**", "a*", "?", "[ab]", "*.b"]), min_size=1, max_size=4),
)


@given(
    files=st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), max_size=12),
    patterns=st.lists(PATTERNS, min_size=1, max_size=5),
    top=st.sampled_from(["", "", "a", "a/b", "c"]),
)
def test_what_rules_leave_out_is_not_found_and_what_they_take_back_is(
    files: list[str], patterns: list[str], top: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rules")
    for name in files:
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError:
            pass  # a name is a file and a folder at once
    judge = PatternMatcher(patterns)
    everything = [path.relative_to(folder) for path in folder.rglob("*")]
    kept = {path for path in everything if not judge.matches(str(path))}
    kept |= {above for path in kept for above in path.parents}
    wanted = {str(path) for path in kept if not top or str(path) == top or str(path).startswith(f"{top}/")}
    wanted = {"" if path == "." else path for path in wanted} | (set() if top else {""})
    assert set(paths(listed(folder, os.fsencode(top), patterns))) == wanted
    subprocess.run(["rm", "-rf", folder], check=True)


def test_folders_that_nothing_can_be_taken_back_in_are_not_entered(tmp_path: Path) -> None:
    for name in ["node_modules/x", "kept/x", "docs/x"]:
        (tmp_path / name).mkdir(parents=True)
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-e",
            "trace=openat2",
            *PROGRAM,
            str(tmp_path),
            "node_modules",
            "docs",
            "!docs/*.md",
            "!kept/x",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    entered = [name for name in ("node_modules", "docs", "docs/x", "kept", "kept/x") if f'"{name}"' in done.stderr]
    assert entered == ["docs", "kept", "kept/x"]


PROGRAM = (
    sys.executable,
    "-c",
    "import os, sys; from layerstore.gathering import walk; from layerstore.build.context.ignore import rules_of;"
    "walk(os.open(sys.argv[1], os.O_RDONLY), rules=rules_of(sys.argv[2:]))",
)


def test_many_folders_are_found_once_each_whatever_thread_finds_them(tmp_path: Path) -> None:
    names = {f"{a}/{b}/{c}" for a in range(12) for b in range(12) for c in range(5)}
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    found = paths(listed(tmp_path))
    assert len(found) == len(set(found)) == 1 + 12 + 12 * 12 + len(names)
    assert listed(tmp_path).digest == listed(tmp_path).digest


EDITS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: path.write_bytes(b"CONTENT"),
    "a mode": lambda path: path.chmod(0o711),
    "an owner": lambda path: os.chown(path, 1, 1),
    "a time": lambda path: os.utime(path, (1, 1)),
    "an xattr": lambda path: os.setxattr(path, "user.x", b"y"),
    "a name": lambda path: path.rename(path.with_name("other")),
    "another file": lambda path: path.with_name("new").touch(),
    "none": lambda path: path.unlink(),
}


@pytest.mark.parametrize("edit", EDITS)
def test_whatever_is_done_to_a_file_alters_the_digest(edit: str, tmp_path: Path) -> None:
    path = tmp_path / "d/file"
    path.parent.mkdir()
    path.write_bytes(b"content")
    os.utime(path, (0, 0))
    before = listed(tmp_path).digest
    assert listed(tmp_path).digest == before
    EDITS[edit](path)
    assert listed(tmp_path).digest != before


def test_sockets_are_no_part_of_a_tree(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
        assert paths(listed(tmp_path)) == [""]
        assert paths(listed(tmp_path, b"socket")) == []


def test_a_walk_begins_where_it_is_told_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/file").touch()
    (tmp_path / "link").symlink_to("a")
    assert paths(listed(tmp_path, b"a/b")) == ["a/b", "a/b/c"]
    assert paths(listed(tmp_path, b"a/file")) == ["a/file"]
    assert paths(listed(tmp_path, b"link")) == ["link"]
    assert paths(listed(tmp_path, b"link/b")) == []
    assert paths(listed(tmp_path, b"none")) == []
    top = listed(tmp_path, b"link").top
    assert top is not None
    assert (top.target, top.is_folder) == (b"a", False)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    deep = tmp_path / "a"
    deep.mkdir()
    program = "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(25):\n os.mkdir('n' * 200); os.chdir('n' * 200)"
    subprocess.run([sys.executable, "-c", program, deep], check=True)
    with pytest.raises(KernelError, match="too long"):
        listed(tmp_path)
    subprocess.run(["rm", "-rf", deep], check=True)
