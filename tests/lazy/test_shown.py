"""What lists say of lazy images, how one becomes whole, and what is made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from layerstore import Store
from layerstore.cli import output
from layerstore.cli.front import front
from layerstore.digest import short
from layerstore.explore.model import explore
from layerstore.explore.words import waits
from lazy.conftest import LARGE, LAYERS, NIGHTLY, Lazies, until
from lazy.gate import Gate
from registry.servers.quirks import Quirks

pytestmark = pytest.mark.root


def command(lazies: Lazies, *words: str) -> str:
    settings = {"data-root": str(lazies.root), "exec-root": str(lazies.exec_root), "storage-driver": "erofs"}
    file = lazies.root.with_name("daemon.json")
    file.write_text(json.dumps(settings))
    result = CliRunner().invoke(front, ["--config", str(file), *words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def gate(pushed: str, quirks: Quirks, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Closed: what comes to it waits until a command has said that it waits for layers."""
    gate, warn = Gate(quirks, holds=True), output.warn

    def warn_and_open(*lines: str) -> None:
        warn(*lines)
        gate.is_open = True

    monkeypatch.setattr(output, "warn", warn_and_open)
    return gate


def test_lists_say_how_much_is_there(lazies: Lazies, pushed: str, quirks: Quirks) -> None:
    gate = Gate(quirks)
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        assert store.lacking() == dict(zip(image.layers, map(len, LAYERS), strict=True))
    heads = command(lazies, "images").splitlines()[0], command(lazies, "history", "--layers", pushed).splitlines()[0]
    assert all("FETCHED" in line for line in heads)
    assert command(lazies, "images", "--format", "{{.Fetched}}") == "0%\n"
    assert command(lazies, "history", "--format", "{{.Fetched}}", pushed) == "0%\n0%\n"
    assert command(lazies, "system", "df", "-v", "--format", "{{range .Layers}}{{.Fetched}} {{end}}") == "0% 0% \n"
    [said] = json.loads(command(lazies, "inspect", pushed))
    assert said["Lazy"] == {"Layers": list(image.layers), "Lacking": sum(map(len, LAYERS))}

    gate.is_open = True
    with lazies.open() as store:
        with image_read(store, pushed) as tree:
            assert (tree / "large").read_bytes() == LARGE
        until(lambda: not store.lacking())
    assert "FETCHED" not in command(lazies, "images") + command(lazies, "history", "--layers", pushed)
    assert command(lazies, "images", "--format", "{{.Fetched}}") == "all\n"
    assert "Lazy" not in json.loads(command(lazies, "inspect", pushed))[0]


def test_names_are_shown_at_once_and_who_waits_for_layers_says_so(lazies: Lazies, pushed: str, gate: Gate) -> None:
    with lazies.open() as store:
        store.pull(pushed, lazy=True)
    assert command(lazies, "ls", f"{pushed}:/etc").split() == ["hosts", "motd"]
    with lazies.open() as store:
        assert len(store.lacking()) == 2
    assert not gate.is_open
    said = command(lazies, "why", pushed, "/etc/motd")
    assert said.count("is lazy, and is waited for until all of it is there") == 2
    assert "/etc/motd" in said
    assert "waited for" not in command(lazies, "why", pushed, "/etc/hosts")


@pytest.mark.parametrize("what", ["save", "squash", "export"])
def test_what_needs_all_of_a_lazy_image_says_that_it_waits(
    lazies: Lazies, pushed: str, gate: Gate, tmp_path: Path, what: str
) -> None:
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        store.create_container(image, name="box")
    assert not gate.is_open
    target = str(tmp_path / "made.tar")
    words = {
        "save": ["save", pushed, "-o", target],
        "squash": ["squash", pushed],
        "export": ["export", "box", "-o", target],
    }[what]
    said = command(lazies, *words)
    waited = [line for line in said.splitlines() if "is lazy, and is waited for until all of it is there" in line]
    assert len(waited) == 2
    assert short(image.layers[1]) in waited[-1]
    with lazies.open() as store:
        until(lambda: not store.lacking())
    assert "waited for" not in command(lazies, *words)


def test_explore_says_what_it_waits_for(lazies: Lazies, pushed: str, gate: Gate) -> None:
    told: list[int] = []

    def tell(lacking: int) -> None:
        told.append(lacking)
        gate.is_open = True

    with lazies.open() as store:
        store.pull(pushed, lazy=True)
        assert len(explore(store, pushed, told=tell).rows) == 2
        explore(store, pushed, told=tell)
    assert told == [sum(map(len, LAYERS))]
    assert waits(2_500_000) == "2.5MB of lazy layers are waited for"


def test_a_pull_that_is_not_lazy_finishes_what_one_began(lazies: Lazies, pushed: str, quirks: Quirks) -> None:
    gate = Gate(quirks)
    told: list[str] = []
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        gate.is_open = True
        assert store.pull(pushed, told=told.append) == image
        assert not store.lacking()
    assert len(told) <= 2  # as many as were lazy by then


@pytest.mark.skipif(not NIGHTLY, reason="by night")
def test_a_lazy_layer_that_came_wrong_is_repaired(lazies: Lazies, pushed: str, quirks: Quirks) -> None:
    gate = Gate(quirks)
    with lazies.open() as store:
        store.pull(pushed, lazy=True)
        gate.spoil()
        gate.is_open = True
        problems = until(lambda: list(store.check()))
        assert {problem.kind for problem in problems} == {"damaged layer"}
    gate.spoil(wrong=False)
    with lazies.open() as store:
        image = store.pull(pushed)  # which takes what is damaged in anew
        assert list(store.check(content=True)) == []
        assert not store.lacking()
        with image_read(store, pushed) as tree:
            assert (tree / "large").read_bytes() == LARGE
    assert image.layers


def image_read(store: Store, name: str):  # type: ignore[no-untyped-def]
    return store.image(name).mount()


def test_what_is_made_of_a_lazy_image_is_exact(
    lazies: Lazies, pushed: str, store: Store, quirks: Quirks, tmp_path: Path
) -> None:
    """Saved, pushed elsewhere, committed upon: whatever wants all of it has it."""
    whole = store.image(pushed)
    with lazies.open() as mine:
        image = mine.pull(pushed, lazy=True)
        with mine.create_container(image, name="box").mount() as tree:
            (tree / "new").write_text("written\n")
        made = mine.container("box").commit("made:1")
        assert made.layers[:2] == whole.layers
        mine.save("made:1", str(tmp_path / "made.tar"))
        mine.tag(pushed, f"{quirks.host}/team/again:1")
        mine.push(f"{quirks.host}/team/again:1")
        assert list(mine.check(content=True)) == []
    [back] = store.load(tmp_path / "made.tar")
    assert back.layers == made.layers
    assert store.pull(f"{quirks.host}/team/again:1").id == whole.id
    assert list(store.check(content=True)) == []
