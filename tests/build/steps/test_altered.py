"""A context that is written to while it is read: no key may stand for other bytes than its layer has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerstore.build import BuildError, build
from layerstore.build.events import Event, Output, Warned
from layerstore.build.steps import copy
from support.building import Builder, Look

TREE = {"dir/one": "old", "dir/sub/two": "2", "aside": "a"}
COPIED = "FROM base\nCOPY dir /new\n"
Edit = Callable[[Path], object]


def replaced(file: Path) -> None:
    """Other bytes by another file, of the same size and time."""
    facts = file.stat()
    file.with_name("other").write_text("new")
    os.utime(file.with_name("other"), ns=(facts.st_atime_ns, facts.st_mtime_ns))
    file.with_name("other").rename(file)


BORNE: dict[str, Edit] = {
    "other bytes": lambda folder: (folder / "dir/one").write_text("new"),
    "another file": lambda folder: replaced(folder / "dir/one"),
    "more bytes": lambda folder: (folder / "dir/one").write_text("much more"),
    "a mode": lambda folder: (folder / "dir/one").chmod(0o700),
    "a new file": lambda folder: (folder / "dir/three").touch(),
    "a folder's mode": lambda folder: (folder / "dir/sub").chmod(0o700),
}
REFUSED: dict[str, Edit] = {
    "a file that is gone": lambda folder: (folder / "dir/one").unlink(),
    "a folder that is gone": lambda folder: shutil.rmtree(folder / "dir/sub"),
}


@pytest.fixture
def meanwhile(make: Builder, monkeypatch: pytest.MonkeyPatch) -> Callable[[Edit], None]:
    """`meanwhile(edit)`: the context is edited once, when the next COPY knows its key and has packed nothing."""
    real = copy.layer_of

    def at(edit: Edit) -> None:
        def edited(*arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(copy, "layer_of", real)
            edit(make.folder)
            return real(*arguments, **options)

        monkeypatch.setattr(copy, "layer_of", edited)

    return at


def warned(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize("edit", BORNE)
def test_a_step_whose_files_are_altered_meanwhile_is_not_remembered(
    edit: str, make: Builder, meanwhile: Callable[[Edit], None]
) -> None:
    make.context(TREE)
    meanwhile(BORNE[edit])
    first = make(COPIED)
    [said] = warned(make.events)
    assert "was altered while it was copied, so this step is not remembered" in said
    second = make(COPIED)
    assert make.done == ["COPY dir /new"]
    assert warned(make.events) == []
    make(COPIED)
    assert make.done == []
    make.context(TREE)
    assert make(COPIED).image.layers != second.image.layers  # what the first had seen before the edit
    assert first.image.layers[:-1] == second.image.layers[:-1]


@pytest.mark.parametrize("edit", REFUSED)
def test_a_file_that_vanishes_meanwhile_is_told_as_such(
    edit: str, make: Builder, meanwhile: Callable[[Edit], None]
) -> None:
    make.context(TREE)
    meanwhile(REFUSED[edit])
    with pytest.raises(BuildError, match="was altered while it was copied") as caught:
        make(COPIED)
    assert caught.value.place is not None
    assert caught.value.place.line == 2
    make(COPIED)
    assert make.done == ["COPY dir /new"]


def test_what_is_not_copied_may_be_written_to(make: Builder, meanwhile: Callable[[Edit], None]) -> None:
    def edit(folder: Path) -> None:
        (folder / "aside").write_text("b")
        (folder / "dir/left.log").touch()
        (folder / "dir/out").write_text("new")

    make.context({**TREE, "dir/out": "o", ".dockerignore": "**/*.log\n"})
    meanwhile(edit)
    text = "FROM base\nCOPY --exclude=out dir /new\n"
    make(text)
    assert warned(make.events) == []
    make(text)
    assert make.done == []


def test_a_program_whose_bind_is_altered_meanwhile_is_not_remembered(make: Builder, look: Look) -> None:
    make.context(TREE)
    text = "FROM base\nRUN --mount=type=bind,target=/c echo go && sleep 0.2 && {}\n"
    events: list[Event] = []

    def told(event: Event) -> None:
        events.append(event)
        if isinstance(event, Output) and event.data == b"go\n":
            (make.folder / "dir/one").write_text("new")

    for last in ("cat /c/dir/one > /one", "true"):  # with and without a layer
        make.context(TREE)
        (make.folder / "Dockerfile").write_text(text.format(last))
        events.clear()
        build(make.store, make.folder, progress=told)
        assert "dir/one was altered while it was used" in warned(events)[0]
        make.context(TREE)
        built = make(text.format(last))
        assert len(make.done) == 1
    built = make(text.format("cat /c/dir/one > /one"))
    assert look(built, "/one") == "old"
