"""What is wrong with a lazy layer before all of it is there: `check` names it, and `--repair` has it anew."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore.digest import short
from layerstore.errors import KernelError, LayerstoreError
from layerstore.layers import arrived
from layerstore.layers.lazy import Lazy, fetched
from layerstore.seekable import LayerIndex
from layerstore.store import Store
from lazy.conftest import LARGE, LAYERS, Lazies, bytes_of, until
from lazy.gate import Gate
from registry.servers.quirks import Quirks

pytestmark = pytest.mark.root


@pytest.fixture
def gate(quirks: Quirks, pushed: str) -> Gate:
    """Closed."""
    return Gate(quirks)


@pytest.fixture
def layer(lazies: Lazies, pushed: str, gate: Gate) -> Path:
    """The folder of a layer of which a part has come, in a store that nobody has open and whose holder is killed."""
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        gate.is_open = True
        with store.create_container(image, name="box").mount() as tree:
            assert (tree / "data/3").read_bytes() == bytes_of(300_000, 3)
            gate.is_open = False
        [key] = [one.key for one in store._parts.layers.lazy() if one.diff_id == image.layers[0]]
        assert 0 < fetched(lazies.root / "erofs" / key) < len(LAYERS[0])
    lazies.kill("warden", "fetcher", "holder")
    return lazies.root / "erofs" / key


def alter(folder: Path) -> None:
    """One byte that has come is another."""
    with (folder / "layer.tar").open("r+b") as tar:
        at = os.lseek(tar.fileno(), 0, os.SEEK_DATA)
        tar.seek(at)
        [byte] = tar.read(1)
        tar.seek(at)
        tar.write(bytes([byte ^ 1]))


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "lazy" / name).unlink()


def garble(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "lazy" / name).write_bytes(b"{}")


def lose_bits(folder: Path) -> None:
    lose("have")(folder)
    lose("now")(folder)


def cut_bits(folder: Path) -> None:
    (folder / "lazy/have").write_bytes(b"")
    lose("now")(folder)


WRONG = {
    "a part that came and was altered": (alter, "are not what came"),
    "a tar that was cut": (lambda folder: os.truncate(folder / "layer.tar", 1 << 20), "the tar has 1048576 bytes"),
    "no tar": (lambda folder: (folder / "layer.tar").unlink(), "the tar cannot be found"),
    "no index": (lose("index"), "is missing: lazy/index"),
    "an index that is none": (garble("index"), "index"),
    "no list of chunks": (lose_bits, "is missing: lazy/have"),
    "a list of chunks that was cut": (cut_bits, "not noted as it should be"),
    "no source": (lose("source"), "is missing: lazy/source"),
    "a source that is none": (garble("source"), "not noted as it should be"),
}


@pytest.mark.parametrize("what", WRONG)
def test_it_is_named_without_the_registry_and_had_anew_with_it(
    lazies: Lazies, pushed: str, gate: Gate, layer: Path, what: str
) -> None:
    spoil, words = WRONG[what]
    spoil(layer)
    with lazies.open() as store:
        [problem] = store.check(content=True)
        assert problem.kind in ("damaged layer", "missing layer")
        assert words in problem.text
        assert {str(one) for one in problem.affects} == {f"image {pushed}", "container box"}
        assert store.images()[0].layers  # lists go on
        assert len(store.lacking()) == 2
        gate.is_open = True
        [repair] = store.repair([problem])
        assert repair.error is None
        read_all(store, pushed)
        until(lambda: not store.lacking())
        assert [str(one) for one in store.check(content=True)] == []
    until(lambda: not lazies.processes())


def read_all(store: Store, name: str) -> None:
    with store.container("box").mount() as tree:
        assert (tree / "data/3").read_bytes() == bytes_of(300_000, 3)
        assert (tree / "large").read_bytes() == LARGE


def test_what_is_there_is_checked_and_nobody_waits_for_the_rest(lazies: Lazies, layer: Path, quirks: Quirks) -> None:
    quirks.forget()
    with lazies.open() as store:
        assert list(store.check(content=True)) == []
        assert len(store.lacking()) == 2
    assert quirks.requests == []


@pytest.mark.parametrize("what", ["no index", "an index that is none"])
def test_nobody_waits_for_a_layer_whose_index_is_gone(lazies: Lazies, pushed: str, layer: Path, what: str) -> None:
    WRONG[what][0](layer)
    with lazies.open() as store:
        image = store.image(pushed)
        with pytest.raises(LayerstoreError, match="index"):
            store.write_layer(image.layers[0], lambda data: None)
        with store.container("box").mount() as tree, pytest.raises(OSError, match="Input/output error"):
            (tree / "data/9").read_bytes()
        assert until(lambda: [one.layer for one in store.check()]) == [image.layers[0]]


def test_content_of_a_lazy_layer_is_read_once_no_faster_than_is_said_and_that_is_told(
    lazies: Lazies, layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[LayerIndex] = []
    unpacked = LayerIndex.unpacked
    monkeypatch.setattr(LayerIndex, "unpacked", lambda *given: parsed.append(made := unpacked(*given)) or made)
    size = fetched(layer)
    told: list[tuple[str, int, int]] = []
    with lazies.open() as store:
        began = time.monotonic()
        assert list(store.check(content=True, rate=size, progress=lambda *what: told.append(what))) == []
        assert time.monotonic() - began >= 0.9
        [image] = store.images()
        assert [one for one in told if one[0] == short(image.layers[0])][-1][1:] == (size, size)
    assert sorted(one.diff_id for one in parsed) == sorted(image.layers)


def test_a_layer_that_goes_while_it_is_looked_at_is_not_damaged(lazies: Lazies, layer: Path) -> None:
    with lazies.open() as store:
        [stored] = [one for one in store._parts.layers.lazy() if one.key == layer.name]
    assert arrived.damages(layer.with_name("gone"), stored, None) == []
    with pytest.raises(KernelError, match="No such file"):
        Lazy.of_folder(layer.with_name("gone"))
