"""What needs all of a lazy layer waits until it is there, and is exact; or says why it does not come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import layerstore
from layerstore.config import Config
from layerstore.errors import LayerstoreError
from layerstore.store import Store
from lazy.conftest import LARGE, LAYERS, Lazies, bytes_of, until
from lazy.gate import Gate
from registry.servers.listening import Answer
from registry.servers.memory import Registry
from registry.servers.quirks import Quirks
from support.properties import NIGHTLY

pytestmark = pytest.mark.root

Act = Callable[[Store, str, Path, str], object]
"""Of an image by its name; with a folder, and a registry that has nothing."""


def save(store: Store, name: str, place: Path, _: str) -> None:
    store.save(name, place / "image.tar")


def save_oci(store: Store, name: str, place: Path, _: str) -> None:
    store.save(name, place / "image.tar", format="oci")


def push(store: Store, name: str, _: Path, registry: str) -> None:
    store.tag(name, f"{registry}/again:1")
    store.push(f"{registry}/again:1")


def squash(store: Store, name: str, place: Path, _: str) -> None:
    store.squash(name, tags=["flat:1"])


def export(store: Store, name: str, place: Path, _: str) -> None:
    with (place / "tree.tar").open("wb") as file:
        store.container("box").export(file.write)


ACTS = {"save": save, "save as OCI": save_oci, "push": push, "squash": squash, "export": export}


@pytest.fixture
def gate(quirks: Quirks, pushed: str) -> Gate:
    """Closed."""
    return Gate(quirks)


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Another registry, which cannot be told to mount a blob."""
    with Registry() as registry:
        yield registry.host


def made_of(what: str, mine: Store, other: Store, registry: str, place: Path) -> list[str]:
    """The DiffIDs of what was made, as a store by another driver has it."""
    match what:
        case "save" | "save as OCI":
            [image] = other.load(place / "image.tar", names=["back:1"])
        case "push":
            image = other.pull(f"{registry}/again:1")
        case "squash":
            mine.save("flat:1", place / "image.tar")
            [image] = other.load(place / "image.tar")
        case _:
            image = other.import_tar(place / "tree.tar", "back:1")
    return list(image.layers)


@pytest.mark.parametrize("what", ACTS)
def test_what_needs_all_of_it_waits_and_is_exact(
    lazies: Lazies, pushed: str, gate: Gate, elsewhere: str, store: Store, tmp_path: Path, what: str
) -> None:
    """As a store has it that has pulled it whole."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "whole").mkdir()
    with lazies.open() as mine:
        mine.create_container(mine.pull(pushed, lazy=True), name="box")
        assert len(mine.lacking()) == 2
        gate.is_open = True
        ACTS[what](mine, pushed, tmp_path / "mine", elsewhere)
        found = made_of(what, mine, store, elsewhere, tmp_path / "mine")
        until(lambda: not mine.lacking())
        assert list(mine.check(content=True)) == []
    if what in ("squash", "export"):
        store.create_container(pushed, name="box")
        ACTS[what](store, pushed, tmp_path / "whole", elsewhere)
        assert found == made_of(what, store, store, elsewhere, tmp_path / "whole")
    else:
        assert found == list(store.image(pushed).layers)
    until(lambda: not lazies.processes())


@pytest.mark.parametrize("what", ACTS if NIGHTLY else ["push", "export"])
def test_if_it_does_not_come_that_is_said_and_nothing_is_left(
    lazies: Lazies, pushed: str, gate: Gate, quirks: Quirks, elsewhere: str, tmp_path: Path, what: str
) -> None:
    lazies.patience = "1"
    with lazies.open() as mine:
        mine.create_container(mine.pull(pushed, lazy=True), name="box")
        quirks.refuse("GET", "/blobs/", lambda _: Answer(503))  # whole ones, too, which a push sends on
        before = len(mine.images())
        (tmp_path / "mine").mkdir()
        with pytest.raises(LayerstoreError, match=r"503|Input/output error"):
            ACTS[what](mine, pushed, tmp_path / "mine", elsewhere)
        assert len(mine.images()) == before
        assert not (tmp_path / "mine/image.tar").exists()
        assert len(mine.lacking()) == 2
        mine.wait()
        assert list(mine.check(content=True)) == []


def test_a_store_that_is_migrated_waits_until_its_layers_are_there(lazies: Lazies, pushed: str, gate: Gate) -> None:
    with lazies.open() as mine:
        image = mine.pull(pushed, lazy=True)
        mine.create_container(image, name="box")
        assert len(mine.lacking()) == 2
    gate.is_open = True
    config = Config(data_root=lazies.root, exec_root=lazies.exec_root)
    layerstore.migrate("overlay2", config=config)
    until(lambda: not lazies.processes())
    with layerstore.open(config=config) as mine:
        assert mine.driver_name == "overlay2"
        assert mine.image(pushed).layers == image.layers
        assert list(mine.check(content=True)) == []
        with mine.container("box").mount() as tree:
            assert (tree / "large").read_bytes() == LARGE
            assert (tree / "second").read_bytes() == bytes_of(2 << 20, 3)
        written: list[bytes] = []
        mine.write_layer(image.layers[0], lambda data: written.append(bytes(data)))
        assert b"".join(written) == LAYERS[0]


def test_a_store_whose_layers_do_not_come_is_not_migrated(lazies: Lazies, pushed: str, gate: Gate) -> None:
    with lazies.open() as mine:
        mine.pull(pushed, lazy=True)
    with pytest.raises(LayerstoreError, match="503"):
        layerstore.migrate("overlay2", config=Config(data_root=lazies.root, exec_root=lazies.exec_root))
    gate.is_open = True
    with lazies.open() as mine:
        assert mine.driver_name == "erofs"
        with mine.image(pushed).mount() as tree:
            assert (tree / "large").read_bytes() == LARGE
        until(lambda: not mine.lacking())
        assert list(mine.check(content=True)) == []
