"""The digest of what is copied: of content alone, and of all content; what is unaltered is not read again."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerstore import Store
from layerstore.build.context import Digests, Tree, rows
from layerstore.testing.strategies import capability

pytestmark = pytest.mark.root

OLD = 1_500_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small tree."""
    folder = tmp_path / "context"
    (folder / "src/lib").mkdir(parents=True)
    (folder / "src/main.c").write_text("int main;")
    (folder / "src/lib/x.c").write_text("int x;")
    (folder / "src/link").symlink_to("main.c")
    os.mkfifo(folder / "src/pipe")
    return folder


def digest(folder: Path, source: str = "src", digests: Digests | None = None, **options: bool) -> str:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        tree = Tree(descriptor, "the context")
        return (digests or Digests()).of(descriptor, tree.choose([source]), **options)
    finally:
        os.close(descriptor)


EDITS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda src: (src / "main.c").write_text("int MAIN;"),
    "a name": lambda src: (src / "main.c").rename(src / "other.c"),
    "a new file": lambda src: (src / "lib/y.c").touch(),
    "a new folder": lambda src: (src / "new").mkdir(),
    "a file gone": lambda src: (src / "lib/x.c").unlink(),
    "a mode": lambda src: (src / "main.c").chmod(0o4755),
    "a folder's mode": lambda src: (src / "lib").chmod(0o700),
    "where a link leads": lambda src: ((src / "link").unlink(), (src / "link").symlink_to("lib/x.c")),
    "what a thing is": lambda src: ((src / "pipe").unlink(), (src / "pipe").touch()),
    "an xattr": lambda src: os.setxattr(src / "main.c", "user.x", b"y"),
    "a capability": lambda src: os.setxattr(src / "main.c", "security.capability", capability()),
    "a folder's xattr": lambda src: os.setxattr(src / "lib", "user.x", b"y"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_whatever_would_be_another_layer_is_another_digest(edit: str, folder: Path, store: Store) -> None:
    digests = Digests(store)
    before = digest(folder, digests=digests)
    EDITS[edit](folder / "src")
    assert digest(folder, digests=digests) == digest(folder) != before


def test_times_owners_and_where_it_lies_are_no_part_of_it(folder: Path, tmp_path: Path) -> None:
    before = digest(folder)
    shutil.copytree(folder, tmp_path / "other/place", symlinks=True, ignore=shutil.ignore_patterns("pipe"))
    os.mkfifo(tmp_path / "other/place/src/pipe")
    for path in [folder / "src/main.c", folder / "src/lib"]:
        os.utime(path, (OLD, OLD))
        os.chown(path, 7, 8)
    assert digest(folder) == digest(tmp_path / "other/place") == before


def test_owners_count_where_they_are_kept(folder: Path) -> None:
    before = digest(folder, owners=True)
    os.chown(folder / "src/main.c", 7, 8)
    assert digest(folder, owners=True) != before


def test_the_name_of_a_file_counts_and_that_of_a_folder_does_not(folder: Path) -> None:
    shutil.copy2(folder / "src/main.c", folder / "src/same.c")
    assert digest(folder, "src/main.c") != digest(folder, "src/same.c")
    shutil.copytree(folder / "src/lib", folder / "src/bil")
    assert digest(folder, "src/lib") == digest(folder, "src/bil")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths of the files that are read."""
    from layerstore.build.context import digests

    found: list[str] = []
    real = digests.open_beneath

    def noted(root: int, path: str, flags: int) -> int:
        found.append(path)
        return real(root, path, flags)

    monkeypatch.setattr(digests, "open_beneath", noted)
    return found


def test_what_is_unaltered_is_read_once(folder: Path, store: Store, reads: list[str]) -> None:
    time.sleep(0.1)
    first = digest(folder, digests=Digests(store))
    assert sorted(reads) == ["/src/lib/x.c", "/src/main.c"]
    assert digest(folder, digests=Digests(store)) == first
    assert len(reads) == 2
    (folder / "src/lib/x.c").write_text("int y;")
    assert digest(folder, digests=Digests(store)) != first
    assert reads[2:] == ["/src/lib/x.c"]


def test_content_that_changes_behind_equal_size_and_time_is_seen(folder: Path, store: Store) -> None:
    main = folder / "src/main.c"
    os.utime(main, (OLD, OLD))
    time.sleep(0.1)
    before = digest(folder, digests=Digests(store))
    main.write_text("int MAIN;")
    os.utime(main, (OLD, OLD))
    assert digest(folder, digests=Digests(store)) != before


def test_a_file_of_this_moment_is_read_each_time(folder: Path, store: Store, reads: list[str]) -> None:
    main = folder / "src/main.c"
    for number in range(50):
        main.write_text(f"int {number:04};")
        assert digest(folder, "src/main.c", Digests(store)) == digest(folder, "src/main.c")
    assert len(reads) == 100


def test_no_two_lists_of_what_is_left_out_have_one_digest(folder: Path, store: Store) -> None:
    for name in ("a", "b", "ab"):
        (folder / "src" / name).touch()
    time.sleep(0.1)
    digests = Digests(store)
    descriptor = os.open(folder / "src", os.O_RDONLY | os.O_DIRECTORY)
    try:
        tree = Tree(descriptor, "the context")
        found = {
            excluded: digests.of(descriptor, tree.choose(["."], exclude=excluded)) for excluded in (("a", "b"), ("ab",))
        }
    finally:
        os.close(descriptor)
    assert found["a", "b"] != found[("ab",)]


def test_one_file_that_has_altered_does_not_cost_all_others(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1200):
        (folder / f"src/lib/{number}").write_text(str(number))
    time.sleep(0.1)
    asked: list[int] = []
    real = rows.files
    digest(folder, digests=Digests(store))
    monkeypatch.setattr(rows, "files", lambda tx, places: (asked.append(len(places)), real(tx, places))[1])
    for number in (0, 700, 1199):
        (folder / f"src/lib/{number}").write_text("other")
        time.sleep(0.1)
        asked.clear()
        assert digest(folder, digests=Digests(store)) == digest(folder)
        assert sum(asked) <= 512
    (folder / "src/lib/1").unlink()  # and all after it move up
    assert digest(folder, digests=Digests(store)) == digest(folder)


def test_what_is_left_out_is_as_if_it_were_not_there(folder: Path, store: Store) -> None:
    for number in range(1200):
        (folder / f"src/lib/{number}").touch()
    time.sleep(0.1)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        chosen = Tree(descriptor, "the context").choose(["src"], exclude=["lib/1*"])
        found = Digests(store).of(descriptor, chosen)
    finally:
        os.close(descriptor)
    for path in (folder / "src/lib").glob("1*"):
        path.unlink()
    assert digest(folder, digests=Digests(store)) == found
