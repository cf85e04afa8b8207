"""Damaged layers that are fetched anew: from peers, buckets, registries; and when nobody has them."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import evolve

import layerstore
from core.adding import Adder
from layerstore import Limits, Store
from layerstore.blobs import KnownBlob, Place
from layerstore.digest import DiffID, Digest
from layerstore.errors import InvalidArchive
from layerstore.images import Image
from layerstore.registry.remotes import health
from layerstore.registry.remotes.bucket import Bucket
from layerstore.registry.remotes.remote import Address
from layerstore.registry.transport.http import Body
from support import images as make

from .servers.peers import ServedStore
from .servers.quirks import Quirks

pytestmark = pytest.mark.root

BASE = make.layer(make.folder("etc/"), make.file("etc/a", "a" * 5000), make.file("etc/b", os.urandom(5000)))
UPPER = make.layer(make.folder("etc/"), make.file("etc/a", "changed"), make.file("etc/c", "c" * 5000))
BLOB = gzip.compress(BASE, mtime=0)
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
FORM = KnownBlob(Digest(make.digest(BLOB)), DiffID(make.digest(BASE)), len(BLOB), GZIP)


@pytest.fixture(autouse=True)
def _all_are_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health.HEALTH, "_paused", {})
    monkeypatch.setattr(health.HEALTH, "_known", set())


@pytest.fixture
def opened(backing: Callable[[str], Path]) -> Iterator[Callable[[str, str], Store]]:
    """`opened("name", "vfs")`: a store with that driver."""
    with ExitStack() as stack:
        folder = backing("ext4")

        def open_store(name: str, driver: str = "overlay2") -> Store:
            place = folder / name
            settings = layerstore.Config(data_root=place, exec_root=place / "exec", storage_driver=driver)
            return stack.enter_context(layerstore.open(config=settings))

        yield open_store


def damaged(store: Store, *names: str) -> Image:
    """An image of BASE and UPPER with damage in these files; `check` has noted it."""
    image = Adder(store)(BASE, UPPER, name="image")
    folders = store._parts.images.folders_of(image)
    for name in names:  # also where a layer holds what is below it: else that is where it is had from
        for path in [path for folder in folders.values() for path in folder.rglob(name) if path.is_file()]:
            before = path.parent.stat()
            path.unlink()
            os.utime(path.parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert {problem.layer for problem in store.check(content=True)} == set(image.layers[: len(names)])
    return image


def is_whole(store: Store, image: Image) -> bool:
    with image.mount() as root:
        content = (root / "etc/a").read_text(), len((root / "etc/b").read_bytes())
    assert store.check(content=True) == []
    store.wait()  # what was damaged goes in the background
    assert os.listdir(store._parts.session.folder) == []
    return content == ("changed", 5000)


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_another_store_has_it_plain(opened: Callable[..., Store], driver: str) -> None:
    mine, other = opened("mine", driver), opened("other")
    image = damaged(mine, "b")
    Adder(other)(BASE)
    with ServedStore(other) as served:
        [mended] = mine.mend([image.layers[0]], remotes=[served.url])
    assert (mended.source, mended.error) == (served.url, None)
    assert is_whole(mine, image)


def test_a_bucket_has_its_blob(opened: Callable[..., Store], tmp_path: Path) -> None:
    store = opened("mine")
    image = damaged(store, "b")
    store.blobs.remember(None, FORM)
    bucket = f"file://{tmp_path}/bucket"
    Bucket(Address.parse(bucket)).write(FORM.digest, Body.of(BLOB))
    [mended] = store.mend(image.layers[:1], remotes=[bucket])
    assert (mended.source, mended.error) == (bucket, None)
    assert is_whole(store, image)


def test_the_registry_in_which_it_was_seen_has_it(opened: Callable[..., Store], quirks: Quirks) -> None:
    store = opened("mine")
    image = damaged(store, "b")
    store.blobs.remember(None, FORM, [Place(quirks.host, "gone"), Place(quirks.host, "team/app")])
    quirks.put_blob("team/app", BLOB)
    [mended] = store.mend(image.layers[:1])
    assert (mended.source, mended.error) == (f"{quirks.host}/team/app", None)
    assert is_whole(store, image)


def test_no_more_comes_from_a_registry_than_a_layer_may_have(opened: Callable[..., Store], quirks: Quirks) -> None:
    store = opened("mine")
    data = os.urandom(5000)
    digest, size = store.blobs.put(io.BytesIO(data))
    place = Place(quirks.host, "team/app")
    store.blobs.remember(None, KnownBlob(digest, DiffID(digest), size, GZIP), [place])
    quirks.put_blob("team/app", data)
    for path in (store.data_root / "blobs/sha256").iterdir():
        path.unlink()
    problems = store.check()

    with layerstore.open(config=evolve(store.config, limits=Limits(layer_size=4999))) as narrow:
        [refused] = narrow.repair(problems)
    [done] = store.repair(problems)

    assert refused.error is not None
    assert (done.how, done.error) == (f"fetched from {quirks.host}/team/app", None)


def test_it_is_kept_here(opened: Callable[..., Store]) -> None:
    store = opened("mine")
    image = damaged(store, "b")
    store.blobs.remember(None, FORM)
    store.blobs.put(io.BytesIO(BLOB))
    [mended] = store.mend(image.layers[:1])
    assert mended.error is None
    assert is_whole(store, image)


def _reversed() -> Callable[[bytes], list[bytes]]:
    return lambda data: [data[::-1]]


def test_who_lies_is_passed_over(opened: Callable[..., Store], tmp_path: Path) -> None:
    store, liar, other = opened("mine"), opened("liar"), opened("other")
    image = damaged(store, "b")
    Adder(liar)(BASE)
    Adder(other)(BASE)
    with (
        ServedStore(liar, spoil=lambda pieces: (piece[::-1] for piece in pieces)) as lying,
        ServedStore(other) as served,
    ):
        [mended] = store.mend(image.layers[:1], remotes=[lying.url, served.url])
    assert (mended.source, mended.error) == (served.url, None)
    assert is_whole(store, image)


def test_where_layers_hold_what_is_below_them_all_are_mended_at_once(opened: Callable[..., Store]) -> None:
    store, other = opened("mine", "vfs"), opened("other")
    image = damaged(store, "b", "c")
    Adder(other)(BASE, UPPER)
    with ServedStore(other) as served:
        mended = list(store.mend(image.layers, remotes=[served.url]))
    assert [(one.source, one.error) for one in mended] == [(served.url, None)] * 2
    assert is_whole(store, image)


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_nobody_has_it(opened: Callable[..., Store], driver: str) -> None:
    store = opened("mine", driver)
    image = damaged(store, "b")
    before = store.check(content=True)
    [mended] = store.mend(image.layers[:1])
    assert mended.error is not None
    assert mended.error.message == f"layer {image.layers[0]} is nowhere to be had"
    assert "--from" in str(mended.error.remedy)
    assert store.check(content=True) == before
    deadline = time.monotonic() + 10
    while os.listdir(store._parts.session.folder):  # whoever was still reading removes what he has made
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_of_two_one_is_mended(opened: Callable[..., Store]) -> None:
    store, other = opened("mine"), opened("other")
    image = damaged(store, "b", "c")
    Adder(other)(UPPER)
    with ServedStore(other) as served:
        first, second = store.mend(image.layers, remotes=[served.url])
    assert (first.error is None, second.error is None) == (False, True)
    assert {problem.layer for problem in store.check(content=True)} == {image.layers[0]}


def test_the_command(opened: Callable[..., Store], tmp_path: Path) -> None:
    store = opened("mine")
    image = damaged(store, "b")
    store.blobs.remember(None, FORM)
    bucket = f"file://{tmp_path}/bucket"
    (tmp_path / "daemon.json").write_text(
        json.dumps({"data-root": str(store.data_root), "exec-root": str(store.config.exec_root)})
    )
    command = ["--config", str(tmp_path / "daemon.json"), "check", "--content"]

    def run(*more: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-m", "layerstore.cli", *command, *more], capture_output=True, text=True)
        return done.returncode, done.stderr

    code, told = run("--repair", "--from", bucket)
    assert (code, "nowhere to be had" in told) == (1, True)
    Bucket(Address.parse(bucket)).write(FORM.digest, Body.of(BLOB))
    assert run("--repair", "--from", bucket) == (0, f"{image.layers[0]}: repaired from {bucket}\n")
    assert run() == (0, "")
    assert run("--from", bucket)[0] == 2
    code, told = run("--repair", "--from", "nonsense")  # nothing is damaged, so that nobody would be asked
    assert (code, "'nonsense' is no remote" in told) == (1, True)


# --- an archive that lacks layers


def thin_layout(folder: Path, lacks: bytes) -> Path:
    """An OCI layout of BASE and UPPER without the blob of one of them."""
    make.oci_layout(folder, [BASE, UPPER], "image")
    for path in (folder / "blobs/sha256").iterdir():
        if path.read_bytes()[:2] == b"\x1f\x8b" and gzip.decompress(path.read_bytes()) == lacks:
            path.unlink()
            return folder
    raise AssertionError("it is not compressed by gzip")


@pytest.fixture
def with_remotes(backing: Callable[[str], Path]) -> Iterator[Callable[..., Store]]:
    """`with_remotes(url, ...)`: an empty store with these remotes."""
    with ExitStack() as stack:

        def open_store(*remotes: str, driver: str = "overlay2") -> Store:
            place = backing("ext4") / f"with{os.urandom(4).hex()}"
            settings = layerstore.Config(
                data_root=place, exec_root=place / "exec", storage_driver=driver, remotes=remotes
            )
            return stack.enter_context(layerstore.open(config=settings))

        yield open_store


@pytest.mark.parametrize("driver", ["overlay2", "vfs", "erofs"])
def test_a_layer_that_an_archive_lacks_comes_from_another_store(
    opened: Callable[..., Store], with_remotes: Callable[..., Store], tmp_path: Path, driver: str
) -> None:
    liar, other = opened("liar"), opened("other")
    Adder(liar)(BASE)
    Adder(other)(BASE)
    layout = thin_layout(tmp_path / "layout", BASE)
    with ServedStore(liar, spoil=_reversed) as lying, ServedStore(other) as served:
        store = with_remotes(lying.url, served.url, driver=driver)
        [image] = store.load(layout)
    assert is_whole(store, image)


def test_a_layer_that_an_archive_lacks_comes_from_a_bucket(with_remotes: Callable[..., Store], tmp_path: Path) -> None:
    layout = thin_layout(tmp_path / "layout", BASE)
    manifest = next(
        found
        for path in (layout / "blobs/sha256").iterdir()
        if b'"layers"' in (found := path.read_bytes())[:2000] and b'"rootfs"' not in found
    )
    [digest] = [entry["digest"] for entry in json.loads(manifest)["layers"]][:1]
    text = f"file://{tmp_path}/bucket"
    whole = make.oci_layout(tmp_path / "whole", [BASE, UPPER], "image")
    blob = (whole / "blobs" / digest.replace(":", "/")).read_bytes()
    Bucket(Address.parse(text)).write(Digest(digest), Body.of(blob))
    store = with_remotes(text)
    [image] = store.load(layout)
    assert is_whole(store, image)


def test_a_layer_that_nobody_has(with_remotes: Callable[..., Store], tmp_path: Path) -> None:
    layout = thin_layout(tmp_path / "layout", BASE)
    store = with_remotes(f"file://{tmp_path}/bucket")
    with pytest.raises(InvalidArchive, match="is not in the archive, and no remote has it"):
        store.load(layout)
    with pytest.raises(InvalidArchive, match=r"is not in the archive\n"):
        with_remotes().load(layout)
    assert store.images() == []
    assert os.listdir(store._parts.session.folder) == []
