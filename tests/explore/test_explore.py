"""The terminal view, by its keys: images, containers and checkpoints, light and dark, wide and narrow."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.style import Style
from textual.pilot import Pilot
from textual.widgets import DataTable, Static, Tree
from textual.worker import WorkerCancelled

from core.adding import Adder
from layerstore import Store
from layerstore.cli.front import front
from layerstore.explore.app import Explorer
from layerstore.explore.model import File, Mark, explore
from layerstore.explore.words import file_label
from support import images as make

pytestmark = pytest.mark.root

BASE = make.layer(
    make.folder("etc/"),
    make.file("etc/conf", "first\n"),
    make.file("etc/bad\x1b[31mname", "x"),
    make.folder("data/"),
    make.file("data/a", b"a" * 7000),
    make.file("data/b", b"\x00\xff" * 40),
)
CHANGE = make.layer(make.file("etc/conf", "second\n"), make.whiteout("data/a"), make.file("etc/new", "n"))
HISTORY = [
    {"created": "2024-01-02T03:04:01Z", "created_by": "COPY base /"},
    {"created": "2024-01-02T03:04:02Z", "created_by": "ENV A=b", "empty_layer": True},
    {"created": "2024-01-02T03:04:03Z", "created_by": "RUN change [red]it"},
]


@pytest.fixture
def image(store: Store) -> Any:
    from looking.conftest import sources

    return store.add(make.config([BASE, CHANGE], history=HISTORY), list(sources([BASE, CHANGE])), ["app:1"])


def shown(
    store: Store,
    name: str | None,
    act: Callable[[Pilot[Any]], Awaitable[None]],
    size: tuple[int, int] = (130, 34),
) -> Explorer:
    """Run the view, do something in it, and leave it. With LAYERSTORE_PICTURES, pictures are left in that folder."""

    async def run() -> Explorer:
        app = Explorer(store, name)
        async with app.run_test(size=size) as pilot:
            await settled(pilot)
            await act(pilot)
            await settled(pilot)
            if folder := os.environ.get("LAYERSTORE_PICTURES"):
                words = f"{name or 'choice'}-{act.__name__}-{size[0]}-{app.theme}".replace("/", "_")
                Path(folder, f"{words}.svg").write_text(app.export_screenshot())
        return app

    return asyncio.run(run())


async def settled(pilot: Pilot[Any]) -> None:
    """Wait until everything that was begun is done."""
    for _ in range(2):
        with suppress(WorkerCancelled):  # by the end of it all
            await pilot.app.workers.wait_for_complete()
        await pilot.pause()


def files(app: Any) -> list[str]:
    """The lines of the tree of files, as far as it is open."""
    tree = app.screen.query_one("#files", Tree)
    return [str(tree.get_node_at_line(line).label) for line in range(tree.last_line + 1)]


def names(app: Any) -> list[str]:
    return [f"{line[0]} {line.rsplit('  ', 1)[1]}" for line in files(app)]


def said(app: Any, which: str) -> str:
    return str(app.screen.query_one(which, Static).content)


def test_what_each_line_did_is_marked(store: Store, image: Any) -> None:
    found = explore(store, "app:1")
    assert [(row.text, row.bytes, row.lost) for row in found.rows] == [
        ("COPY base /", 7087, 7006),
        ("ENV A=b", 0, 0),
        ("RUN change [red]it", 8, 0),
    ]
    root = found.files(found.rows[2])
    marks = {one.path: one.mark for folder in root.inside.values() for one in folder.inside.values()}
    assert marks == {
        "etc/conf": Mark.CHANGED,
        "etc/new": Mark.ADDED,
        "etc/bad\x1b[31mname": Mark.KEPT,
        "data/a": Mark.REMOVED,
        "data/b": Mark.KEPT,
    }
    assert (root.size, found.waste[0].path, round(found.efficiency, 3)) == (89, "/data/a", 0.013)
    first, second = found.files(found.rows[0]), found.files(found.rows[1])
    assert (sorted(first.inside), first.size) == (sorted(second.inside), second.size)
    assert {one.mark for one in first.inside.values()} == {Mark.ADDED}
    assert {one.mark for one in second.inside.values()} == {Mark.KEPT}, "ENV does nothing with files"
    assert not second.changed


@pytest.mark.parametrize(("dark", "ground"), [(True, "#1e1e1e"), (False, "#d0d0d0")])
@pytest.mark.parametrize("mark", [mark for mark in Mark if mark is not Mark.KEPT])
def test_marks_can_be_read_on_what_is_behind_them(*, mark: Mark, dark: bool, ground: str) -> None:
    label = file_label(File("name", "name", mark), dark=dark)
    styles = [Style.parse(str(span.style)) for span in label.spans]
    colours = [style.color.get_truecolor() for style in styles if style.color is not None]
    assert len(colours) == 2, "the mark and the name"
    lights = [luminance(Color.parse(ground).get_truecolor())] + [luminance(colour) for colour in colours]
    # WCAG 2.2, 1.4.3: the least contrast of text.
    assert all((max(one, lights[0]) + 0.05) / (min(one, lights[0]) + 0.05) >= 4.5 for one in lights[1:])


def luminance(colour: ColorTriplet) -> float:
    """How bright a colour is (WCAG 2.2, relative luminance)."""
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def test_what_is_waited_for_is_told_until_it_is_shown(
    store: Store, image: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    come = threading.Event()

    def slow(*given: Any, told: Callable[[int], None]) -> Any:
        told(2_500_000)
        come.wait()
        return explore(*given, told=told)

    monkeypatch.setattr("layerstore.explore.app.explore", slow)

    async def run() -> None:
        app = Explorer(store, "app:1")
        async with app.run_test() as pilot:
            try:
                while not app._notifications:
                    await pilot.pause()
                [notification] = app._notifications
                assert notification.message == "2.5MB of lazy layers are waited for"
                assert notification.time_left > 3600
            finally:
                come.set()
            await settled(pilot)
            assert names(app)
            assert not app._notifications

    asyncio.run(run())


@pytest.mark.parametrize("size", [(130, 34), (72, 40)])
def test_the_files_follow_the_line(store: Store, image: Any, size: tuple[int, int]) -> None:
    async def look(pilot: Pilot[Any]) -> None:
        assert names(pilot.app) == ["  / *", "  data/ *", "  etc/ *"]
        assert "RUN change [red]it" in said(pilot.app, "#said")
        assert str(pilot.app.screen.query_one("#rows", DataTable).get_row_at(2)[3]) == "RUN change [red]it"
        await pilot.press("tab", "down", "enter", "down", "down", "down", "enter")
        await settled(pilot)
        assert names(pilot.app) == [
            "  / *",
            "  data/ *",
            "R a",
            "  b",
            "  etc/ *",
            "  bad\\x1b[31mname",
            "M conf",
            "A new",
        ]
        await pilot.press("c")
        assert names(pilot.app) == ["  / *", "  data/ *", "R a", "  etc/ *", "M conf", "A new"]
        await pilot.press("c", "shift+tab", "up", "up")
        await settled(pilot)
        assert names(pilot.app)[1:4] == ["A data/", "A a", "A b"]
        await pilot.press("down", "down")

    app = shown(store, "app:1", look, size)
    assert app.return_code in (0, None)
    shown(store, "app:1", _light, size)


async def _light(pilot: Pilot[Any]) -> None:
    await pilot.press("tab", "down", "enter")
    await settled(pilot)
    before = colours(pilot.app)
    assert before
    await pilot.press("t")
    assert pilot.app.theme == "textual-light"
    await pilot.pause()
    assert files(pilot.app)
    assert colours(pilot.app).isdisjoint(before)


def colours(app: Any) -> set[str]:
    """Of the marks that are seen."""
    tree = app.screen.query_one("#files", Tree)
    labels = [tree.get_node_at_line(line).label for line in range(tree.last_line + 1)]
    return {str(span.style) for label in labels for span in label.spans} - {"", "dim"}


def test_in_a_narrow_terminal_nothing_of_the_summary_is_cut(store: Store, image: Any) -> None:
    async def narrow(pilot: Pilot[Any]) -> None:
        summary = pilot.app.screen.query_one("#summary", Static)
        seen = "".join(strip.text for strip in summary.render_lines(summary.region.reset_offset))
        assert "efficiency" in seen
        assert "%" in seen

    shown(store, "app:1", narrow, (50, 30))


def test_files_are_read_and_found(store: Store, image: Any) -> None:
    async def read(pilot: Pilot[Any]) -> None:
        await pilot.press("slash", *"conf", "enter")
        await settled(pilot)
        assert names(pilot.app) == ["  / *", "  etc/ *", "M conf"]
        await pilot.press("down", "down", "v")
        await settled(pilot)
        assert (said(pilot.app, "#text"), said(pilot.app, "#summary")) == ("second\n", "/etc/conf   7B")
        await pilot.press("escape", "escape")
        await settled(pilot)
        assert len(names(pilot.app)) > 3
        first = explore(store, "app:1")
        assert [first.read(row, "etc/conf", 3) for row in first.rows] == [(b"fir", 6), (b"fir", 6), (b"sec", 7)]
        await pilot.press("w")
        assert said(pilot.app, "#text").splitlines()[0].split() == ["7kB", "1", "×", "/data/a"]

    shown(store, "app:1", read)


def test_what_a_container_wrote_is_its_last_line(store: Store, image: Any) -> None:
    box = store.create_container(image, name="box")
    with box.mount() as root:
        (root / "etc/conf").write_bytes(b"\x00" * 20)
        (root / "data/b").unlink()
    box.checkpoint("before")

    async def look(pilot: Pilot[Any]) -> None:
        assert "written in the container" in said(pilot.app, "#said")
        await pilot.press("tab", "down", "enter", "down", "down", "enter", "down", "down", "v")
        await settled(pilot)
        assert said(pilot.app, "#text").startswith("00000000  00 00")
        await pilot.press("escape")
        await settled(pilot)
        assert names(pilot.app)[2:6] == ["R b", "M etc/", "  bad\\x1b[31mname", "M conf"]

    shown(store, "box", look)
    kept = explore(store, "box@before")
    assert kept.files(kept.rows[-1]).inside["data"].inside["b"].mark is Mark.REMOVED


def test_it_is_chosen_from_a_list(store: Store, image: Any) -> None:
    Adder(store)(BASE, name="other:1")
    store.create_container(image, name="box")

    async def choose(pilot: Pilot[Any]) -> None:
        table = pilot.app.screen.query_one(DataTable)
        assert sorted(str(table.get_row_at(row)[1]) for row in range(table.row_count)) == ["app:1", "box", "other:1"]
        await pilot.press("down", "down", "enter")
        await settled(pilot)
        assert said(pilot.app, "#summary").startswith("box")
        await pilot.press("escape")
        assert pilot.app.screen.query_one(DataTable).row_count == 3

    shown(store, None, choose)


def test_what_is_not_there_is_told(store: Store) -> None:
    async def nothing(pilot: Pilot[Any]) -> None:
        await settled(pilot)

    app = shown(store, "none", nothing)
    assert app.failure is not None
    assert "none" in app.failure.message


def test_without_a_terminal_other_commands_are_named(store: Store, data_root: Path) -> None:
    done = CliRunner().invoke(front, ["--root", str(data_root), "explore", "app:1"])
    assert done.exit_code == 1
    assert "needs a terminal" in done.output
    assert "layerstore advise" in done.output
