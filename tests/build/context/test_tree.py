"""What the sources of COPY mean in a tree."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerstore.build import BuildError
from layerstore.build.context import Chosen, Context, Ignore, Tree, open_context

FILES = ("a.txt", "b.txt", "c.md", "src/main.c", "src/lib/x.c", "src/lib/x.h", "docs/a.txt", "docs/deep/er/b.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "to-main").symlink_to("src/main.c")
    (tmp_path / "to-docs").symlink_to("/docs/deep")
    (tmp_path / "to-host").symlink_to("/etc/hostname")
    (tmp_path / "above").symlink_to("../../../a.txt")
    (tmp_path / "src/self").symlink_to("self")
    return tmp_path


Open = Callable[..., Tree]


@pytest.fixture
def opened(folder: Path) -> Iterator[Open]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def tree(ignore: str = "") -> Tree:
        return Tree(descriptor, "the build context", ignore=Ignore(ignore) if ignore else None)

    yield tree
    os.close(descriptor)


def shown(chosen: list[Chosen]) -> list[str]:
    """Each thing chosen, with what is below it."""
    found = []
    for one in chosen:
        below = sorted(os.fsdecode(path) for path, _ in one.below)
        found.append(f"{os.fsdecode(one.path)}: {' '.join(below)}" if one.is_folder else os.fsdecode(one.path))
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.txt", ["a.txt"]),
        ("/a.txt", ["a.txt"]),
        ("./src/../a.txt", ["a.txt"]),
        ("../../a.txt", ["a.txt"]),
        ("*.txt", ["a.txt", "b.txt"]),
        ("[a-b].*", ["a.txt", "b.txt"]),
        ("[^a].txt", ["b.txt"]),
        ("?.md", ["c.md"]),
        ("s*/lib", ["src/lib: src/lib/x.c src/lib/x.h"]),
        ("src/lib/", ["src/lib: src/lib/x.c src/lib/x.h"]),
        ("*/a.txt", ["docs/a.txt"]),
        ("src/l*/x.?", ["src/lib/x.c", "src/lib/x.h"]),
        ("to-main", ["src/main.c"]),
        ("to-docs", ["docs/deep: docs/deep/er docs/deep/er/b.txt"]),
        ("to-docs/er", ["docs/deep/er: docs/deep/er/b.txt"]),
        ("above", ["a.txt"]),
    ],
)
def test_a_source_means(source: str, expected: list[str], opened: Open) -> None:
    assert shown(opened().choose([source])) == expected


def test_a_link_is_known_by_the_name_it_was_asked_for(opened: Open) -> None:
    [chosen] = opened().choose(["to-main"])
    assert (chosen.path, chosen.named) == (b"src/main.c", b"to-main")


def test_a_tree_itself_is_all_that_is_in_it(folder: Path, opened: Open) -> None:
    [chosen] = opened().choose(["."])
    everything = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert {os.fsdecode(path) for path, _ in chosen.below} == everything


def test_parents_keep_what_is_behind_the_pivot(opened: Open) -> None:
    tree = opened()
    assert [one.keeps for one in tree.choose(["src/lib/x.c", "docs/./deep/er"], parents=True)] == [
        b"src/lib/x.c",
        b"deep/er",
    ]
    assert [one.keeps for one in tree.choose(["./**/*.txt"], parents=True)] == [
        b"a.txt",
        b"b.txt",
        b"docs/a.txt",
        b"docs/deep/er/b.txt",
    ]


def test_exclude_counts_from_the_folder_of_the_source(opened: Open) -> None:
    tree = opened()
    assert shown(tree.choose(["src"], exclude=["lib/*.h", "self"])) == ["src: src/lib src/lib/x.c src/main.c"]
    assert shown(tree.choose(["*.txt"], exclude=["b.*"])) == ["a.txt"]
    assert shown(tree.choose(["src"], exclude=["**/*.c"])) == ["src: src/lib src/lib/x.h src/self"]


@pytest.mark.parametrize("bad", ["[z-a]", "nowhere/[", "a\\", "src/[a"])
def test_what_is_no_pattern_is_said_to_be_none(bad: str, opened: Open) -> None:
    if "[" in bad:
        with pytest.raises(BuildError, match="not a pattern"):
            opened().choose([bad])
    with pytest.raises(BuildError, match="not a pattern"):
        opened().choose(["src"], exclude=[bad])


def test_what_is_ignored_is_not_there_but_for_what_is_taken_back(opened: Open) -> None:
    tree = opened("docs\n*.txt\n!docs/deep\n")
    assert shown(tree.choose(["docs"])) == ["docs: docs/deep docs/deep/er docs/deep/er/b.txt"]
    assert shown(tree.choose(["*"]))[0] == "c.md"
    with pytest.raises(BuildError, match=r"\.dockerignore leaves it out") as caught:
        tree.choose(["a.txt"])
    assert "!a.txt" in str(caught.value.remedy)


@pytest.mark.parametrize("source", ["to-host", "nothing", "src/self", "a.txt/x"])
def test_a_source_that_means_nothing_is_an_error(source: str, opened: Open) -> None:
    with pytest.raises(BuildError, match="not found"):
        opened().choose([source])


def test_what_is_there_and_can_be_no_source_is_told_as_what_it_is(opened: Open, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(folder / "sock"))
        for ignore in ("", "nothing\n"):
            with pytest.raises(BuildError, match="not found: it is a socket, which no image can have"):
                opened(ignore).choose(["sock"])
            with pytest.raises(BuildError, match="not found: it is a symbolic link that leads nowhere in it"):
                opened(ignore).choose(["to-host"])


def test_a_pattern_may_mean_nothing(opened: Open) -> None:
    assert opened().choose(["*.none", "nowhere/?"]) == []


def test_the_error_lists_what_is_near(opened: Open) -> None:
    with pytest.raises(BuildError) as caught:
        opened().choose(["src/mian.c"])
    assert "src/main.c" in str(caught.value.remedy)


# --- the Dockerfile --------------------------------------------------------------------------------------------------


def read(folder: Path, **options: str) -> Context:
    with open_context(folder, reads_dockerfile=True, **options) as context:
        return context


def test_the_dockerfile_and_its_own_ignore_file_come_first(folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "other.Dockerfile").write_text("FROM other\n")
    (folder / ".dockerignore").write_text("*\n")
    (folder / "other.Dockerfile.dockerignore").write_text("*\n!c.md\n")
    context = read(folder)
    assert context.dockerfile is not None
    assert (context.dockerfile.name, context.dockerfile.text) == ("Dockerfile", "FROM scratch\n")
    assert context.tree.ignore is not None
    assert context.tree.ignore.patterns == ["*"]
    other = read(folder, file="other.Dockerfile")
    assert other.dockerfile is not None
    assert other.dockerfile.text == "FROM other\n"
    assert other.tree.ignore is not None
    assert (other.tree.ignore.name, other.tree.ignore.patterns) == ("other.Dockerfile.dockerignore", ["*", "!c.md"])


def test_podman_s_names_come_before_docker_s(folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM docker\n")
    (folder / "Containerfile").write_text("FROM podman\n")
    for name in (".dockerignore", ".containerignore", "Containerfile.dockerignore", "Containerfile.containerignore"):
        (folder / name).write_text(f"{name}\n")
        (folder / f"Dockerfile{name.removeprefix('Containerfile')}").write_text("not this\n")
    found = []
    for name in ("Containerfile.containerignore", "Containerfile.dockerignore", ".containerignore", ".dockerignore"):
        context = read(folder)
        assert context.dockerfile is not None
        assert context.dockerfile.text == "FROM podman\n"
        assert context.tree.ignore is not None
        found.append(context.tree.ignore.patterns == [context.tree.ignore.name] == [name])
        (folder / name).unlink()
    assert found == [True] * 4
    named = read(folder, file=str(folder / "Dockerfile"))
    assert named.dockerfile is not None
    assert named.dockerfile.text == "FROM docker\n"


def test_what_podman_preprocesses_is_refused_and_not_read_as_comments(folder: Path) -> None:
    (folder / "Containerfile.in").write_text('#include "base.in"\nFROM scratch\n')
    (folder / "plain.in").write_text("# included\nFROM scratch\n")
    with pytest.raises(BuildError, match=r"Containerfile\.in is a text for cpp \(#include\)") as caught:
        read(folder, file="Containerfile.in")
    assert "cpp -E -P Containerfile.in >Containerfile" in str(caught.value.remedy)
    with pytest.raises(BuildError, match="no such file") as missing:
        read(folder)
    assert "Containerfile.in" in str(missing.value.remedy)
    plain = read(folder, file=str(folder / "plain.in"))
    assert plain.dockerfile is not None


def test_a_dockerfile_that_is_not_there_is_an_error_with_those_that_are(folder: Path) -> None:
    (folder / "build.Dockerfile").touch()
    with pytest.raises(BuildError, match="failed to read dockerfile") as caught:
        read(folder)
    assert "build.Dockerfile" in str(caught.value.remedy)
