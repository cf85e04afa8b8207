"""Layers that the store unpacks for containerd: a client does what containerd 1.7 and later does, with a real store.

Debian's containerd 1.6 asks no differ of others; what it has as content is read as it lies there.
"""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from containerd.client import GZIP, Client, mounted
from containerd.daemon import Daemon
from containerd.test_rules import refused
from layerstore import ChainID, Store
from layerstore.digest import chain_ids
from layerstore.faces.containerd.server import Server
from support import images

pytestmark = pytest.mark.root

ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
PLAIN = "application/vnd.oci.image.layer.v1.tar"
BOTTOM = images.layer(
    images.file("z/last", "before its folder", mtime=1_700_000_000.25, xattrs={"user.who": b"me"}),
    images.folder("z", mode=0o2751, uid=7),
    images.symlink("a", "z/last"),
    images.hard_link("b", "z/last"),
    images.file("etc/gone", "gone"),
    images.file("l" * 180 + "/" + "m" * 180, "long"),
)
TOP = images.layer(images.whiteout("etc/gone"), images.file("etc/new", "new")) + bytes(5 * 512)
"""With more zeros at its end than anybody would write again."""


@pytest.fixture
def content(socket: Path) -> Path:
    """containerd's content, as it lies in its root."""
    folder = socket.parent / "containerd/io.containerd.content.v1.content/blobs/sha256"
    folder.mkdir(parents=True)
    return folder


def put(content: Path, blob: bytes) -> str:
    """Have a blob there; its digest."""
    digest = images.digest(blob)
    (content / digest[7:]).write_bytes(blob)
    return digest


def tar_of(store: Store, chain: str) -> bytes:
    """A layer of the store, as it is given out."""
    parts: list[bytes] = []
    store.write_layer(ChainID(chain), lambda part: parts.append(bytes(part)))
    return b"".join(parts)


def require_nothing(client: Client, store: Store) -> None:
    """All snapshots are removed, and nothing of them is left."""
    while infos := client("List"):
        for key in {info.name for info in infos} - {info.parent for info in infos}:
            client.remove(key)
    client("Cleanup")
    assert (store.containers(), store.snapshots.all(), store.leases("containerd"), store.check()) == ([], [], {}, [])


@pytest.mark.parametrize("driver", ["overlay2", "btrfs", "vfs", "erofs", "aufs"])
def test_what_is_unpacked_is_a_layer_of_the_store_to_the_bit(
    driver: str,
    open_store: Callable[..., Store],
    serve: Callable[[Store], Client],
    content: Path,
    tmp_path: Path,
) -> None:
    store = open_store(driver)
    client = serve(store)
    chains = chain_ids([images.digest(BOTTOM), images.digest(TOP)])  # type: ignore[list-item]
    parent = ""
    for tar, blob, kind, chain in (
        (BOTTOM, gzip.compress(BOTTOM), GZIP, chains[0]),
        (TOP, zstandard.compress(TOP), ZSTD, chains[1]),
    ):
        mounts = client.prepare(f"extract {chain}", parent)
        client.prepare(f"another on {parent}", parent)
        done = client.apply(mounts, put(content, blob), kind)
        assert (done.media_type, done.digest, done.size) == (PLAIN, images.digest(tar), len(tar))
        assert client("Usage", key=f"extract {chain}").size == len(tar)
        store.prune(all_images=True)
        client.commit(chain, f"extract {chain}", {"containerd.io/snapshot.ref": chain})
        assert tar_of(store, chain) == tar
        parent = chain
    with mounted(client.view("look", parent), tmp_path / "at") as root:
        assert (root / "a").read_text() == "before its folder"
        assert sorted(os.listdir(root / "etc")) == ["new"]
        assert ((root / "z").stat().st_mode & 0o7777, (root / "z").stat().st_uid) == (0o2751, 7)
    assert store.leases("containerd") == {}, "the snapshots keep them now"
    assert [snapshot.diff_id() for snapshot in store.snapshots.all()] == [images.digest(BOTTOM), images.digest(TOP)]
    # An image that comes shares them, whoever came first.
    images.docker_archive(tmp_path / "same.tar", [BOTTOM, TOP], ["same:1"])
    [image] = store.load(tmp_path / "same.tar")
    assert [layer.chain_id for layer in store.layers()] == sorted(image.chain_ids)
    again = client.prepare("again", chains[0])
    assert client.apply(again, put(content, TOP), PLAIN).digest == images.digest(TOP)
    client.commit("same", "again")
    assert len(store.layers()) == 2
    assert store.check(content=True) == []
    store.remove_image("same:1")
    assert len(store.layers()) == 2
    require_nothing(client, store)
    assert store.layers() == []


def test_mounts_that_are_asked_for_after_it_show_it(
    store: Store, serve: Callable[[Store], Client], content: Path, tmp_path: Path
) -> None:
    client, at = serve(store), tmp_path / "at"
    blob = put(content, gzip.compress(BOTTOM))
    mounts = client.prepare("a")
    first = client.apply(mounts, blob)
    assert client.apply(mounts, blob) == first, "whoever has had no answer asks again"
    with refused("FAILED_PRECONDITION"):
        client.apply(mounts, put(content, TOP), PLAIN)
    with mounted(client.mounts("a"), at) as root:
        assert (root / "z/last").read_text() == "before its folder"
        (root / "own").write_text("own")
    assert client("Usage", key="a").inodes > 0
    with refused("UNIMPLEMENTED"):  # containerd puts it on that itself
        client.apply(client.mounts("a"), blob)
    with refused("UNIMPLEMENTED"):
        client.apply(mounts, blob)
    client.commit("b", "a")
    with mounted(client.view("look", "b"), at) as root:
        assert {"own", "z"} < set(os.listdir(root))
    assert [layer.diff_id for layer in store.layers()] == [first.digest]
    # What was written by mounts from before is not hidden.
    before = client.prepare("c")
    client.apply(before, blob)
    with mounted(before, at) as root:
        assert os.listdir(root) == []
        (root / "lost").write_text("")
    for call in (lambda: client.commit("d", "c"), lambda: client.mounts("c")):
        with refused("FAILED_PRECONDITION"):
            call()
    require_nothing(client, store)


def test_what_is_left_to_containerd(
    store: Store, serve: Callable[[Store], Client], content: Path, tmp_path: Path
) -> None:
    client = serve(store)
    blob = put(content, gzip.compress(BOTTOM))
    client.layer("foreign", "", {"a": "a"}, tmp_path / "at")
    active = client.prepare("active")
    bind = type(active[0])
    for mounts in (
        [],
        active * 2,
        client.view("look", "foreign"),
        client.prepare("on foreign", "foreign"),
        [bind(type="bind", source=str(tmp_path), options=["rbind", "rw"])],
        [bind(type="overlay", source="overlay", options=["lowerdir=/", f"upperdir={tmp_path}"])],
        [bind(type="erofs", source=str(tmp_path))],
    ):
        with refused("UNIMPLEMENTED"):
            client.apply(mounts, blob)
    (content / ("1" * 64)).symlink_to(content / blob[7:])
    os.mkfifo(content / ("2" * 64))
    (content / ("3" * 64)).mkdir()
    for digest in (*(f"sha256:{number * 64}" for number in "0123"), "sha256:../../x", "sha512:" + "0" * 128, ""):
        with refused("UNIMPLEMENTED"):
            client.apply(active, digest)
    for kind in ("", f"{GZIP}+encrypted", "application/vnd.oci.image.config.v1+json"):
        with refused("UNIMPLEMENTED"):
            client.apply(active, blob, kind)
    with refused("UNIMPLEMENTED"):
        client.diff("Diff", left=[], right=active)
    with mounted(active, tmp_path / "at") as root:
        (root / "a").write_text("a")
    with refused("UNIMPLEMENTED"):
        client.apply(active, blob)
    client.commit("written", "active")
    assert store.layers() == []
    require_nothing(client, store)


def test_bad_layers_leave_nothing(store: Store, serve: Callable[[Store], Client], content: Path) -> None:
    client = serve(store)
    mounts = client.prepare("a")
    good = gzip.compress(BOTTOM)
    wrong = put(content, good)
    (content / wrong[7:]).write_bytes(gzip.compress(TOP))
    noise = random.Random(1).randbytes(2000)
    for digest in (
        wrong,
        put(content, good[:-20]),
        put(content, gzip.compress(BOTTOM[:2000])),
        put(content, gzip.compress(noise)),
        put(content, noise),
        put(content, images.layer(images.hard_link("a", "../../etc/passwd"))),
        put(content, images.layer(images.symlink("a", "/etc"), images.file("../../../x", "x"))),
    ):
        with refused("INVALID_ARGUMENT"):
            client.apply(mounts, digest)
    assert (store.layers(), store.leases("containerd"), store.check()) == ([], {}, [])
    (content / wrong[7:]).write_bytes(good)
    assert client.apply(mounts, wrong).digest == images.digest(BOTTOM)
    require_nothing(client, store)


def test_a_lease_that_was_left_is_ended_at_the_start(store: Store, socket: Path, content: Path) -> None:
    with Server(store, socket, socket.parent / "containerd"), Client(socket) as client:
        kept = client.apply(client.prepare("a"), put(content, gzip.compress(BOTTOM))).digest
        client.apply(client.prepare("b"), put(content, TOP), PLAIN)
        client.commit("c", "b")
        store.lease(None, ChainID(images.digest(TOP)), owner="containerd", name="left")  # as if it died there
        client.remove("c")
        assert len(store.layers()) == 2
    with Server(store, socket), Client(socket) as client:
        assert [layer.chain_id for layer in store.layers()] == list(store.leases("containerd").values()) == [kept]
        client.commit("d", "a")
        require_nothing(client, store)


@pytest.mark.tools("containerd", "ctr")
def test_content_of_a_real_containerd(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store("overlay2")
    images.docker_archive(tmp_path / "small.tar", [BOTTOM, TOP], ["small:1"])
    with Daemon(store.config) as daemon, Client(daemon.folder / "snap.sock") as client:
        daemon("images", "import", "--no-unpack", tmp_path / "small.tar")
        parent = ""
        for tar, chain in zip(
            (BOTTOM, TOP),
            chain_ids([images.digest(BOTTOM), images.digest(TOP)]),
            strict=True,  # type: ignore[list-item]
        ):
            assert client.apply(client.prepare("x", parent), images.digest(tar), PLAIN).digest == images.digest(tar)
            client.commit(chain, "x")
            assert tar_of(store, chain) == tar
            parent = chain
        require_nothing(client, store)
