"""Where a copy lands, by docker's rules, and what a path means within a tree. Needs no store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore.copying import places
from layerstore.copying.places import Asked, Landing, Spot, Tree, asked, landing
from layerstore.errors import CannotCopy, KernelError, NotFound


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a/b", ("/a", "b", False, False)),
        ("b", (".", "b", False, False)),
        ("/b", (".", "b", False, False)),
        ("a/b/", ("a", "b", False, True)),
        ("a/b//", ("a", "b", False, True)),
        ("a/b/.", ("a", "b", True, True)),
        ("a/./.", (".", "a", True, True)),
        ("a/..", ("a/..", "", True, True)),
        ("a/../", ("a/..", "", True, True)),
        ("/", (".", "", True, True)),
        ("", (".", "", True, True)),
        (".", (".", "", True, True)),
        ("a/.b", ("a", ".b", False, False)),
        ("a/b..", ("a", "b..", False, False)),
    ],
)
def test_path_in_its_parts(text: str, expected: tuple[str, str, bool, bool]) -> None:
    folder, name, contents, folder_only = expected
    assert asked(text) == Asked(text, folder, name, contents, folder_only)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """A tree of a few files, with links that lead out of it where nobody takes care."""
    root = tmp_path / "root"
    (root / "folder/inner").mkdir(parents=True)
    (root / "file").write_text("in the tree")
    (root / "folder/file").write_text("in the folder")
    (tmp_path / "file").write_text("of the host")
    os.symlink("/file", root / "absolute")
    os.symlink("../../../../file", root / "folder/up")
    os.symlink(str(tmp_path), root / "out")
    os.symlink("/", root / "slash")
    os.symlink("folder", root / "way")
    os.symlink("new", root / "folder/dangling")
    os.symlink("folder/dangling", root / "twice")
    os.symlink("circle", root / "circle")
    os.symlink("folder/inner/..", root / "back")
    fd = os.open(root, os.O_PATH)
    yield Tree(fd, "in the tree")
    os.close(fd)


def read(tree: Tree, path: str, *, follow: bool = True) -> str:
    with places.source(tree, path, follow=follow) as found, open(f"/proc/self/fd/{found.handle}") as file:
        return file.read()


@pytest.mark.parametrize("path", ["absolute", "/absolute", "folder/up", "slash/file", "slash/slash/file", "../../file"])
def test_no_link_leads_out_of_the_tree(tree: Tree, path: str) -> None:
    assert read(tree, path) == "in the tree"


def test_link_is_itself_unless_it_is_followed(tree: Tree) -> None:
    with places.source(tree, "way", follow=False) as found:
        assert not found.is_folder
    for path, follow in (("way", True), ("way/", False), ("way/.", False)):
        with places.source(tree, path, follow=follow) as found:
            assert (found.is_folder, found.name) == (True, "way")
    assert read(tree, "way/file", follow=False) == "in the folder"


@pytest.mark.parametrize("path", ["nothing", "file/inner", "out/file", "folder/nothing/at/all"])
def test_what_is_not_there_is_named(tree: Tree, path: str) -> None:
    with pytest.raises(NotFound, match=f"could not find the file {path} in the tree"):
        read(tree, path)


def test_file_with_a_slash_is_no_folder(tree: Tree) -> None:
    for path in ("folder/file/..", "file/", "file/."):
        with pytest.raises((CannotCopy, NotFound)):
            read(tree, path)


@pytest.mark.parametrize(
    ("path", "name", "there"),
    [
        ("file", "file", "file"),
        ("absolute", "file", "file"),
        ("folder/up", "file", "file"),
        ("way", "folder", "folder"),
        ("way/file", "file", "file"),
        ("twice", "new", None),
        ("fresh", "fresh", None),
        ("/", "", "folder"),
        ("slash", "", "folder"),
        ("back", "", "folder"),
    ],
)
def test_spot_is_where_the_links_lead_within_the_tree(tree: Tree, path: str, name: str, there: str | None) -> None:
    with places.spot(tree, path) as found:
        assert found.name == name
        assert found.is_folder == (there == "folder")
        assert (found.facts is None) == (there is None)


def test_spot_has_to_have_a_folder(tree: Tree) -> None:
    for path in ("nothing/new", "file/new", "out/new"):
        with pytest.raises(CannotCopy, match=r"there is no directory .* in the tree"), places.spot(tree, path):
            pass
    with pytest.raises(KernelError), places.spot(tree, "circle"):
        pass


FILE, FOLDER = os.stat(__file__), os.stat("/")


@pytest.mark.parametrize(
    ("folder", "contents", "there", "folder_only", "expected"),
    [
        (False, False, None, False, Landing.AT),
        (False, False, None, True, None),
        (False, False, FILE, False, Landing.AT),
        (False, False, FILE, True, None),
        (False, False, FOLDER, False, Landing.INSIDE),
        (False, False, FOLDER, True, Landing.INSIDE),
        (True, False, None, False, Landing.AT),
        (True, False, None, True, Landing.AT),
        (True, True, None, False, Landing.AT),
        (True, False, FILE, False, None),
        (True, True, FILE, False, None),
        (True, False, FOLDER, False, Landing.INSIDE),
        (True, True, FOLDER, True, Landing.MERGED),
    ],
)
def test_landing_by_the_rules_of_docker(
    *, folder: bool, contents: bool, there: os.stat_result | None, folder_only: bool, expected: Landing | None
) -> None:
    spot = Spot(-1, "x", there, "/x")
    if expected is None:
        with pytest.raises(CannotCopy, match="/x"):
            landing(folder=folder, contents=contents, there=spot, folder_only=folder_only)
    else:
        assert landing(folder=folder, contents=contents, there=spot, folder_only=folder_only) is expected
