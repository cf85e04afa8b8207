"""A context of which steps look at much is told of, with its largest folders; what nobody asks for is not looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

import layerstore
from layerstore import Store
from layerstore.build import build, check
from layerstore.build.context import Ignore, Tree
from layerstore.build.events import Event, Warned

MB = 10**6
FILES = {
    "app/main.py": 1,
    "data/one/a.bin": 30,
    "data/two/b.bin": 40,
    ".git/objects/pack/p.pack": 25,
    "logs/!odd [1].log": 20,
    "logs/two.log": 15,
    "dump.sql": 12,
    "docs/x": 2,
}


def made(folder: Path, files: dict[str, int]) -> Path:
    """A folder with files of so many megabytes, which have no blocks."""
    for name, size in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, size * MB)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "context", FILES)


def looked_at(folder: Path, *sources: str, ignore: str = "") -> Tree:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        tree = Tree(descriptor, "the build context", ignore=Ignore(ignore) if ignore else None)
        for source in sources:
            tree.choose([source])
        return tree
    finally:
        os.close(descriptor)


def test_the_largest_parts_are_told_with_the_lines_that_leave_them_out(folder: Path) -> None:
    assert looked_at(folder, ".").told() == (
        "the steps look at 145 MB of the build context, in 8 files; the largest parts of it:\n"
        "  70 MB  data\n  35 MB  logs\n  25 MB  .git\n  12 MB  dump.sql\n  2 MB  docs\n"
        "What no step needs is left out by lines in .dockerignore:\n  data\n  logs\n  .git\n  dump.sql\n  docs"
    )


def test_the_lines_mean_what_they_are_said_for(folder: Path) -> None:
    lines = looked_at(folder, "logs", "dump.sql").told().split(".dockerignore:\n")[1].replace("  ", "")
    assert looked_at(folder, ".", ignore=lines).weight.size == (145 - 35 - 12) * MB
    shown = looked_at(made(folder / "logs", {"\n": 1, "#x": 30}), ".").told()
    assert "  1 MB  \ufffd\n" in shown
    assert shown.split(".dockerignore:\n")[1].split("\n") == ["  /#x", "  /!odd \\[1].log", "  two.log"]


def test_what_has_nearly_all_gives_way_to_what_is_in_it_but_for_folders_of_programs(tmp_path: Path) -> None:
    inner = {"a/b/c/one": 500, "a/b/c/two": 400, "x": 1}
    shown = looked_at(made(tmp_path / "inner", inner), ".").told()
    assert "  500 MB  a/b/c/one\n  400 MB  a/b/c/two\n" in shown
    assert "  900 MB  .git\n" in looked_at(made(tmp_path / "own", {".git/objects/p": 900, "x": 1}), ".").told()


def test_what_is_looked_at_twice_counts_once_and_the_rest_not_at_all(folder: Path) -> None:
    weight = looked_at(folder, "data/one", "data/one/a.bin", "data", "docs/*").weight
    assert (weight.size, weight.files) == ((30 + 40 + 2) * MB, 3)
    assert looked_at(folder, ".", ignore="data\n.git\n").weight.size == (145 - 70 - 25) * MB


# --- builds


@pytest.fixture
def narrow(data_root: Path) -> Iterator[Store]:
    """A store to whose builds 3 MB are much."""
    settings = layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2")
    with layerstore.open(config=evolve(settings, large_context=3 * MB + 10_000)) as store:
        yield store


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return made(tmp_path / "context", {"big/one": 2, "big/two": 2, "small/one": 1})


def warned(store: Store, context: Path, dockerfile: str, **options: object) -> list[str]:
    """What a build warns of; what checks alone say is the same."""
    (context / "Dockerfile").write_text(dockerfile)
    events: list[Event] = []
    build(store, context, progress=events.append, **options)
    said = [event.message for event in events if isinstance(event, Warned)]
    assert [warning.message for warning in check(store, context, **options)] == said
    return said


@pytest.mark.root
def test_a_build_that_looks_at_much_says_so_once_and_no_other_does(narrow: Store, context: Path) -> None:
    [said] = warned(narrow, context, "FROM scratch\nCOPY . /a\nCOPY big /b\n")
    assert said.startswith(
        "the steps look at 5 MB of the build context, in 4 files; the largest parts of it:\n  4 MB  "
    )
    assert len(warned(narrow, context, "FROM scratch\nCOPY . /a\nCOPY big /b\n")) == 1  # though all is cached
    assert warned(narrow, context, "FROM scratch\nARG d=small\nCOPY $d /a\n") == []
    assert len(warned(narrow, context, "FROM scratch\nARG d=small\nCOPY $d /a\n", build_args={"d": "big"})) == 1
    assert warned(narrow, context, "FROM scratch\nENV a=b\n") == []
    (context / ".dockerignore").write_text("big/two\n")
    assert warned(narrow, context, "FROM scratch\nCOPY . /a\n") == []


@pytest.mark.root
def test_a_named_context_is_told_of_by_its_name(narrow: Store, context: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/Dockerfile").write_text("FROM scratch\nCOPY --from=more / /a\n")
    events: list[Event] = []
    build(narrow, tmp_path / "empty", progress=events.append, contexts={"more": str(context)})
    [said] = [event.message for event in events if isinstance(event, Warned)]
    assert said.startswith("the steps look at 5 MB of context more, in 3 files")
