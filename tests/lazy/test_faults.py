"""What is no fault of a lazy layer's is not held against it: what is configured, a disk, who died at a bad moment."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore.driver import LayerKey
from layerstore.errors import Damaged, LayerstoreError
from layerstore.limits import Limits
from layerstore.recovery import recover
from layerstore.session import Session
from layerstore.store import Store
from lazy.conftest import LARGE, Lazies, bytes_of, until
from lazy.gate import Gate
from lazy.test_lazy import reader, said
from registry.servers.quirks import Quirks
from support import images

pytestmark = pytest.mark.root

EIO = os.strerror(5).encode()

DIES = """
import os, sys
if "layerstore.holding.fetcher" in sys.orig_argv:
    from layerstore.layers.layers import Layers

    complete = Layers.complete

    def complete_and_die(self, key):
        complete(self, key)
        if not os.path.exists({mark!r}):
            open({mark!r}, "x").close()
            os._exit(9)

    Layers.complete = complete_and_die
"""


DAMAGED = """
import os, sys
if "layerstore.holding.fetcher" in sys.orig_argv:
    import layerstore.store
    from layerstore.errors import Damaged

    Store = layerstore.store.Store

    def open_not_at_once(config):
        if not os.path.exists({mark!r}):
            open({mark!r}, "x").close()
            raise Damaged("the database is damaged")
        return Store(config)

    layerstore.store.Store = open_not_at_once
"""


@pytest.fixture
def gate(quirks: Quirks, pushed: str) -> Gate:
    """Closed."""
    return Gate(quirks)


@pytest.fixture
def box(lazies: Lazies, pushed: str, gate: Gate) -> Iterator[tuple[Store, Path]]:
    """A store and the tree of a container in it, of whose layers nothing has come yet."""
    lazies.patience = "3"
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        with store.create_container(image, name="box").mount() as tree:
            yield store, tree


def key_of(store: Store, number: int) -> LayerKey:
    """Of a layer of the image."""
    [image] = store.images()
    [key] = [one.key for one in store._parts.layers.lazy() if one.diff_id == image.layers[number]]
    return key


def test_what_is_configured_wrongly_fails_reads_and_is_no_damage(
    lazies: Lazies, pushed: str, gate: Gate, box: tuple[Store, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = box
    lazies.kill("warden", "fetcher", "holder")
    conf = tmp_path / "registries.conf"
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    domain = pushed.partition("/")[0]
    for words in (f'[[registry]]\nprefix = "{domain}"\nlocation = "no registry"\n', "this is no TOML"):
        conf.write_text(words)
        image = store.image(pushed)
        with pytest.raises(LayerstoreError, match=r"registries\.conf"):
            store.write_layer(image.layers[0], lambda data: None)
        assert "registries.conf" in lazies.log()
        assert list(store.check()) == []
        lazies.kill("fetcher")
    conf.write_text("")
    gate.is_open = True
    with lazies.open() as again, again.container("box").mount() as fresh:
        assert until(lambda: (found := said(reader(fresh / "data/3"))) != EIO and found) == bytes_of(300_000, 3)
    until(lambda: not store.lacking())
    assert list(store.check(content=True)) == []


def test_a_limit_that_a_layer_exceeds_fails_reads_and_is_no_damage(
    lazies: Lazies, pushed: str, store: Store, gate: Gate
) -> None:
    name = pushed.replace("/app:", "/zstd:")
    store.image(pushed).tag(name)
    store.push(name, with_index=True, compression="zstd")
    lazies.patience = "3"
    gate.is_open = True
    lazies.limits = Limits(zstd_window=1 << 10)
    with lazies.open() as narrow, narrow.create_container(narrow.pull(name, lazy=True), name="box").mount() as tree:
        assert said(reader(tree / "data/3")) == EIO
        assert "max-zstd-window" in lazies.log()
        lazies.kill("warden", "fetcher", "holder")
        assert list(narrow.check()) == []
    lazies.limits = Limits()
    with lazies.open() as wide, wide.container("box").mount() as tree:
        assert until(lambda: (found := said(reader(tree / "data/3"))) != EIO and found) == bytes_of(300_000, 3)
        until(lambda: not wide.lacking())
        assert list(wide.check(content=True)) == []


def test_what_a_disk_refuses_the_fetcher_is_no_damage_and_is_tried_again(
    lazies: Lazies, gate: Gate, box: tuple[Store, Path]
) -> None:
    store, tree = box
    have = lazies.root / "erofs" / key_of(store, 0) / "lazy/have"
    with away(have):
        lazies.kill("fetcher")
        gate.is_open = True
        assert said(reader(tree / "data/3")) == EIO
        assert "Too many levels of symbolic links" in lazies.log()
        assert list(store.check()) == []
    assert until(lambda: (found := said(reader(tree / "data/3"))) != EIO and found) == bytes_of(300_000, 3)
    until(lambda: not store.lacking())


class away:
    """While inside, this file cannot be opened: something stands in its place that is refused."""

    def __init__(self, path: Path) -> None:
        self.path, self.other = path, path.with_name("elsewhere")

    def __enter__(self) -> None:
        self.path.rename(self.other)
        self.path.symlink_to(self.other)

    def __exit__(self, *_: object) -> None:
        self.other.rename(self.path)


@pytest.mark.parametrize("killed", [("holder",), ("holder", "fetcher")], ids=" and ".join)
def test_a_layer_that_the_next_holder_cannot_hold_is_read_as_an_error_and_never_as_zeros(
    lazies: Lazies, gate: Gate, box: tuple[Store, Path], killed: tuple[str, ...]
) -> None:
    """Also when no other layer is lazy any more. It is tried again, and goes on."""
    store, tree = box
    with away(lazies.root / "erofs" / key_of(store, 0) / "lazy/have"):
        lazies.kill(*killed)
        gate.is_open = True
        until(lambda: len(store._parts.layers.lazy()) == 1)
        time.sleep(3)  # in which a holder that had nothing to do would have ended
        assert said(reader(tree / "data/3")) == EIO
        assert lazies.log().count("cannot be watched") == 1  # though it is tried each second
    assert until(lambda: (found := said(reader(tree / "data/3"))) != EIO and found) == bytes_of(300_000, 3)
    assert (tree / "large").read_bytes() == LARGE
    until(lambda: not lazies.processes())
    assert list(store.check(content=True)) == []


def test_a_fetcher_that_dies_before_it_can_say_that_a_layer_is_whole_has_made_it_whole(
    lazies: Lazies, pushed: str, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "died"
    (tmp_path / "sitecustomize.py").write_text(DIES.format(mark=str(mark)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    gate.is_open = True
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        with store.create_container(image, name="box").mount() as tree:
            until(mark.exists)
            until(lambda: not store.lacking())
            until(lambda: not lazies.processes())  # none waits for a layer that is there
            assert (tree / "large").read_bytes() == LARGE
        assert list(store.check(content=True)) == []


@pytest.fixture
def whole(lazies: Lazies, pushed: str) -> Iterator[tuple[Store, Path]]:
    """A store, and half of the folder that makes lazy a layer that is not."""
    with lazies.open() as store:
        store.pull(pushed)
        lazy = lazies.root / "erofs" / any_key(store) / "lazy"
    lazy.mkdir()
    (lazy / "index").touch()
    with lazies.open() as store:
        yield store, lazy


def any_key(store: Store) -> LayerKey:
    """Of a layer that is whole."""
    with store._parts.database.read() as tx:
        return LayerKey(tx.execute("SELECT key FROM diffs WHERE NOT lazy ORDER BY key").fetchone()[0])


def test_what_made_a_layer_lazy_goes_at_once_whoever_dies_while_it_is_deleted(
    whole: tuple[Store, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, lazy = whole
    layers, key = store._parts.layers, LayerKey(lazy.parent.name)
    monkeypatch.setattr(Session, "discard", lambda *_: None)  # as of who dies before it is done

    layers.files.forget_lazy(key)

    assert not lazy.exists()
    assert os.listdir(layers.session.folder / f"{key}.lazy.gone") == ["index"]


def test_what_made_a_layer_lazy_goes_at_once_on_a_disk_that_is_full(
    whole: tuple[Store, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for another name in the folder that it is in."""
    store, lazy = whole
    rename = os.rename

    def refused(source: Path, target: Path) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    def dies(path: Path) -> None:
        if os.path.lexists(path):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refused)
        patched.setattr("layerstore.kernel.files.folders.remove_tree", dies)
        patched.setattr("layerstore.layers.lazy.remove_tree", dies)
        with pytest.raises(KeyboardInterrupt):
            store._parts.layers.files.forget_lazy(LayerKey(lazy.parent.name))
    assert not lazy.exists()
    assert "lazy.gone" in os.listdir(lazy.parent)

    recover(store._parts)
    assert "lazy.gone" not in os.listdir(lazy.parent)


def test_half_of_what_makes_a_layer_lazy_hinders_none_that_is_whole(whole: tuple[Store, Path], pushed: str) -> None:
    store, lazy = whole
    with store.create_container(pushed, name="box").mount() as tree:
        assert (tree / "large").read_bytes() == LARGE
    assert not lazy.exists()


def test_half_of_what_makes_a_layer_lazy_hinders_nobody_who_wants_all_of_it(whole: tuple[Store, Path]) -> None:
    store, lazy = whole
    assert list(store.check(content=True)) == []
    assert not lazy.exists()


def test_half_of_what_makes_a_layer_lazy_goes_when_a_store_is_put_in_order(whole: tuple[Store, Path]) -> None:
    store, lazy = whole
    recover(store._parts)
    assert not lazy.exists()


def test_half_of_what_makes_a_layer_lazy_keeps_no_holder(
    lazies: Lazies, gate: Gate, box: tuple[Store, Path], tmp_path: Path
) -> None:
    store, _ = box
    store.load(images.docker_archive(tmp_path / "other.tar", [images.layer(images.file("other", "whole"))]))
    lazy = lazies.root / "erofs" / any_key(store) / "lazy"
    lazy.mkdir()
    lazies.kill("holder")
    until(lambda: not lazy.exists())
    assert f"{lazy.parent}: cannot be watched" in lazies.log()
    gate.is_open = True
    until(lambda: not lazies.processes())


def test_a_database_that_is_damaged_is_no_proof_against_a_layer(
    lazies: Lazies, pushed: str, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "refused"
    (tmp_path / "sitecustomize.py").write_text(DAMAGED.format(mark=str(mark)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    gate.is_open = True
    with lazies.open() as store:
        store.pull(pushed, lazy=True)
        until(lambda: not store.lacking())
        assert mark.exists()
        assert list(store.check(content=True)) == []


def test_damage_below_a_layer_is_none_of_the_layer(box: tuple[Store, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = box
    layers, key = store._parts.layers, key_of(store, 1)

    def complete(*_: object) -> None:
        raise Damaged("the index of what it stands on is damaged")

    monkeypatch.setattr(type(layers.files), "complete", complete)
    with pytest.raises(Damaged):
        layers.complete(key)
    assert not any(one.damaged for one in layers.lazy())
