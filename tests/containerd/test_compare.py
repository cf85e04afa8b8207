"""Layers that the store makes of snapshots: a client does what containerd 1.7 does, with the content of a real 1.6."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import zstandard
from google.protobuf.empty_pb2 import Empty

from containerd.client import GZIP, KEPT, Client, mounted
from containerd.daemon import Daemon
from containerd.test_diff import BOTTOM, PLAIN, TOP, ZSTD, put, require_nothing
from containerd.test_rules import refused
from layerstore import Store
from layerstore.digest import chain_ids
from layerstore.faces.containerd import rows
from layerstore.faces.containerd.api import content_pb2
from layerstore.faces.containerd.content import SERVICE, UNCOMPRESSED, Content
from layerstore.faces.containerd.errors import Refused
from layerstore.faces.containerd.server import Server
from support import images

pytestmark = [pytest.mark.root, pytest.mark.tools("containerd", "ctr")]

DRIVERS = ("overlay2", "btrfs", "vfs", "erofs", "aufs")
INFLATED: dict[str, Callable[[bytes], bytes]] = {
    PLAIN: bytes,
    GZIP: gzip.decompress,
    ZSTD: lambda blob: zstandard.ZstdDecompressor().stream_reader(blob).read(),
    "application/vnd.docker.image.rootfs.diff.tar.gzip": gzip.decompress,
}


class Both:
    """A containerd, the snapshotter beside it, and a client of that."""

    def __init__(self, daemon: Daemon, client: Client) -> None:
        self.daemon = daemon
        self.client = client

    def tar(self, descriptor: object) -> bytes:
        """The tar of a blob of containerd's content, which has the digest, size and label that it has to have."""
        kind, digest, size = (getattr(descriptor, name) for name in ("media_type", "digest", "size"))
        command = self.daemon._ctr("content", "get", digest)
        blob = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
        assert (images.digest(blob), len(blob)) == (digest, size)
        tar = INFLATED[kind](blob)
        [line] = [line for line in self.daemon("content", "ls").splitlines() if line.startswith(digest)]
        assert (f"{UNCOMPRESSED}={images.digest(tar)}" in line) == (kind != PLAIN)
        return tar

    def names(self, descriptor: object) -> list[str]:
        """What is in it, but for the root, whose time may have changed."""
        with tarfile.open(fileobj=io.BytesIO(self.tar(descriptor))) as tar:
            return sorted(set(tar.getnames()) - {"."})

    def create_diff(self, key: str, media_type: str = GZIP, **fields: object) -> object:
        """What containerd's `rootfs.CreateDiff` does: a view of the parent, and one of the snapshot, if committed."""
        info = self.client.stat(key)
        lower = self.client.view(f"{key} below", info.parent)
        is_active = info.kind == 2
        upper = self.client.mounts(key) if is_active else self.client.view(f"{key} itself", key)
        try:
            return self.client.compare(lower, upper, media_type, **fields)
        finally:
            self.client.remove(f"{key} below")
            if not is_active:
                self.client.remove(f"{key} itself")


@pytest.fixture
def start(open_store: Callable[..., Store]) -> Iterator[Callable[[str], tuple[Both, Store]]]:
    """`start("btrfs")`: both on a store with this driver, and the store, opened a second time here."""
    running: list[tuple[Daemon, Client]] = []

    def begin(driver: str) -> tuple[Both, Store]:
        store = open_store(driver)
        daemon = Daemon(store.config).__enter__()
        client = Client(daemon.folder / "snap.sock", namespace=daemon.namespace).__enter__()
        running.append((daemon, client))
        return Both(daemon, client), store

    yield begin
    for daemon, client in running:
        client.__exit__(None, None, None)
        daemon.__exit__(None, None, None)


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_was_written_becomes_a_layer(
    driver: str, start: Callable[[str], tuple[Both, Store]], tmp_path: Path
) -> None:
    both, store = start(driver)
    client, at = both.client, tmp_path / "at"
    client.layer("below", "", {"etc/gone": "gone", "etc/kept": "kept"}, at)
    with mounted(client.prepare("middle-active", "below"), at) as root:
        (root / "etc/gone").unlink()
        (root / "etc/new").write_text("new")
    # A container in use: only what was written since its parent, be there checkpoints or not.
    assert both.names(both.create_diff("middle-active")) == ["etc", "etc/.wh.gone", "etc/new"]
    client.commit("middle", "middle-active")
    with mounted(client.prepare("top-active", "middle"), at) as root:
        (root / "first").write_text("1")
    store.containers()[0].checkpoint("one")
    with mounted(client.mounts("top-active"), at) as root:
        (root / "second").write_text("2")
    assert both.names(both.create_diff("top-active")) == ["first", "second"]
    client.commit("top", "top-active")
    assert both.names(both.create_diff("top")) == ["first", "second"]
    assert both.names(both.create_diff("below")) == ["etc", "etc/gone", "etc/kept"]
    tars = {both.tar(both.create_diff("middle", kind)) for kind in INFLATED}
    assert {images.digest(tar) for tar in tars} == {snapshot.diff_id() for snapshot in store.snapshots.all()[1:2]}
    assert both.create_diff("middle", "").media_type == GZIP  # type: ignore[attr-defined]
    # BuildKit gives no mounts for nothing.
    upper = client.view("look", "below")
    assert both.names(client.compare([], upper)) == ["etc", "etc/gone", "etc/kept"]
    client.prepare("empty-active", "top")
    assert both.names(both.create_diff("empty-active")) == []
    client.commit("empty", "empty-active")
    assert both.names(both.create_diff("empty", PLAIN)) == []
    assert both.daemon("content", "active").splitlines()[1:] == []
    require_nothing(client, store)


def facts(tar: bytes) -> dict[str, tuple[object, ...]]:
    """What is in a tar, but for folders, of which a walk names more, and how they are emptied."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        return {
            entry.name: (entry.type, entry.mode, entry.uid, entry.size, entry.linkname)
            for entry in found
            if not entry.isdir() and not entry.name.startswith("old/.wh.")
        }


def test_it_is_what_containerd_finds_by_a_walk(start: Callable[[str], tuple[Both, Store]], tmp_path: Path) -> None:
    both, _ = start("overlay2")
    at, snapshots = tmp_path / "at", both.daemon.snapshots()
    with snapshots:
        with mounted(snapshots.prepare("below-active", labels=KEPT), at) as root:
            for name in ("etc/gone", "etc/kept", "old/a", "old/b"):
                (root / name).parent.mkdir(exist_ok=True)
                (root / name).write_text(name)
        snapshots.commit("below", "below-active", KEPT)
        with mounted(snapshots.prepare("active", "below", KEPT), at) as root:
            (root / "etc/gone").unlink()
            (root / "etc/new").write_text("new")
            os.link(root / "etc/new", root / "same")
            shutil.rmtree(root / "old")
            (root / "old").mkdir()
            (root / "old/c").symlink_to("../etc")
            os.chmod(root / "etc/kept", 0o600)
        command = both.daemon._ctr("snapshots", "--snapshotter", "layerstore", "diff", "active")
        walked = gzip.decompress(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
        lower = list(snapshots("View", key="look", parent="below", labels=KEPT).mounts)
        upper = snapshots.mounts("active")
        assert facts(both.tar(both.client.compare(lower, upper))) == facts(walked)
        snapshots.remove("look")


def test_a_layer_of_the_store_comes_out_to_the_bit(start: Callable[[str], tuple[Both, Store]], tmp_path: Path) -> None:
    both, store = start("overlay2")
    client = both.client
    content = both.daemon.root / "io.containerd.content.v1.content/blobs/sha256"
    content.mkdir(parents=True, exist_ok=True)
    chains = chain_ids([images.digest(BOTTOM), images.digest(TOP)])  # type: ignore[list-item]
    client.apply(client.prepare("a"), put(content, BOTTOM), PLAIN)
    client.commit(chains[0], "a")
    before = client.prepare("b", chains[0])
    client.apply(before, put(content, TOP), PLAIN)
    lower = client.view("below", chains[0])
    with refused("UNIMPLEMENTED"):  # nothing is in what these show
        client.compare(lower, before)
    assert both.tar(both.create_diff("b")) == TOP
    with mounted(client.mounts("b"), tmp_path / "at") as root:
        (root / "own").write_text("own")
    with refused("UNIMPLEMENTED"):
        both.create_diff("b")
    client.remove("b")
    client.apply(client.prepare("b", chains[0]), put(content, TOP), PLAIN)
    client.commit(chains[1], "b")
    assert both.tar(both.create_diff(chains[1])) == TOP
    assert both.tar(both.create_diff(chains[0], ZSTD)) == BOTTOM
    require_nothing(client, store)


def test_what_is_left_to_the_walk(start: Callable[[str], tuple[Both, Store]], tmp_path: Path) -> None:
    both, store = start("overlay2")
    client, at = both.client, tmp_path / "at"
    client.layer("below", "", {"a": "a"}, at)
    client.layer("other", "", {"b": "b"}, at)
    client.layer("above", "below", {"c": "c"}, at)
    below, other, above = (client.view(f"look at {name}", name) for name in ("below", "other", "above"))
    active = client.prepare("active", "above")
    bind = type(active[0])(type="bind", source=str(tmp_path), options=["rbind", "ro"])
    for lower, upper in (
        (below, below),
        (above, below),
        (other, above),
        (below, active),
        ([], above),
        (above, []),
        (below, [bind]),
        ([bind], above),
        (below * 2, above),
        (below, above * 2),
    ):
        with refused("UNIMPLEMENTED"):
            client.compare(lower, upper)
    for kind in ("application/vnd.oci.image.layer.nondistributable.v1.tar", f"{GZIP}+encrypted", "text/plain"):
        with refused("UNIMPLEMENTED"):
            client.compare(below, above, kind)
    assert both.daemon("content", "ls", "-q").split() == []
    both.daemon.kill_containerd()
    with refused("UNAVAILABLE"):
        client.compare(below, above)
    (both.daemon.folder / "c.sock").unlink()
    with refused("UNIMPLEMENTED"):
        client.compare(below, above)
    require_nothing(client, store)


@pytest.mark.parametrize("driver", DRIVERS)
def test_all_that_a_snapshot_of_nothing_has_is_told_be_there_checkpoints_or_not(
    driver: str, start: Callable[[str], tuple[Both, Store]], tmp_path: Path
) -> None:
    both, store = start(driver)
    client, at = both.client, tmp_path / "at"
    with mounted(client.prepare("active"), at) as root:
        (root / "first").write_text("1")
    [box] = store.containers()
    box.checkpoint("one")
    client.commit("nothing since", "active")
    with mounted(client.prepare("active"), at) as root:
        (root / "first").write_text("1")
    [box] = store.containers()
    box.checkpoint("one")
    with mounted(client.mounts("active"), at) as root:
        (root / "second").write_text("2")
    client.commit("something since", "active")
    for key, names in {"nothing since": ["first"], "something since": ["first", "second"]}.items():
        assert both.names(client.compare([], client.view(f"look at {key}", key))) == names


def test_what_was_written_on_a_layer_of_its_own_is_left_to_the_walk(
    start: Callable[[str], tuple[Both, Store]], tmp_path: Path
) -> None:
    both, _ = start("overlay2")
    client = both.client
    content = both.daemon.root / "io.containerd.content.v1.content/blobs/sha256"
    content.mkdir(parents=True, exist_ok=True)
    client.apply(client.prepare("active"), put(content, BOTTOM), PLAIN)
    with mounted(client.mounts("active"), tmp_path / "at") as root:
        (root / "own").write_text("own")
    client.commit("both", "active")
    view = client.view("look", "both")
    with refused("UNIMPLEMENTED"):  # it would lack the layer
        client.compare([], view)


def test_no_time_is_later_than_is_asked_for(start: Callable[[str], tuple[Both, Store]], tmp_path: Path) -> None:
    both, _ = start("overlay2")
    client, at, epoch = both.client, tmp_path / "at", {"seconds": 1_000_000, "nanos": 500_000_000}
    with mounted(client.prepare("below-active"), at) as root:
        for name, when in {"old": 10, "new": 2_000_000}.items():
            (root / name).write_text(name)
            os.utime(root / name, (when, when))
    client.commit("below", "below-active")
    with mounted(client.prepare("active", "below"), at) as root:
        (root / "old").unlink()
        (root / "late").write_text("late")

    def times(descriptor: object) -> dict[str, float]:
        with tarfile.open(fileobj=io.BytesIO(both.tar(descriptor))) as tar:
            return {entry.name: entry.mtime for entry in tar if entry.isfile()}

    assert times(both.create_diff("below", source_date_epoch=epoch)) == {"old": 10, "new": 1_000_000.5}
    assert times(both.create_diff("active", source_date_epoch=epoch)) == {".wh.old": 0, "late": 1_000_000.5}
    assert times(both.create_diff("below"))["new"] == 2_000_000
    content = both.daemon.root / "io.containerd.content.v1.content/blobs/sha256"
    client.apply(client.prepare("layer"), put(content, BOTTOM), PLAIN)
    client.commit("applied", "layer")
    view = client.view("look", "applied")
    with refused("UNIMPLEMENTED"):  # its times are its own
        client.compare([], view, source_date_epoch=epoch)
    with refused("INVALID_ARGUMENT"):
        client.compare([], view, source_date_epoch={"seconds": 1 << 60})
    assert both.tar(client.compare([], view)) == BOTTOM


class Hanging:
    """A containerd that answers so many messages of a blob that is written, and none after those."""

    def __init__(self, socket: Path, answered: int) -> None:
        self._answered = answered
        self._end = threading.Event()
        self.seen = 0
        self.refs: list[str] = []
        """Those that were to be aborted."""
        self.waited: list[float] = []
        """For how many seconds the answer to that is waited for."""
        ways = {
            "Write": grpc.stream_stream_rpc_method_handler(
                self._write, content_pb2.WriteContentRequest.FromString, bytes_of
            ),
            "Abort": grpc.unary_unary_rpc_method_handler(self._abort, content_pb2.AbortRequest.FromString, bytes_of),
        }
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, ways),))
        self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()

    def _write(self, requests: Iterator[Any], _: object) -> Iterator[content_pb2.WriteContentResponse]:
        offset = 0
        for request in requests:
            self.seen += 1
            if self.seen > self._answered:
                self._end.wait()
                return
            offset += len(request.data)
            yield content_pb2.WriteContentResponse(action=request.action, offset=offset)

    def _abort(self, request: content_pb2.AbortRequest, context: grpc.ServicerContext) -> Empty:
        self.refs.append(request.ref)
        self.waited.append(context.time_remaining())
        return Empty()

    def close(self) -> None:
        self._end.set()
        self._server.stop(None).wait()


def bytes_of(message: Any) -> bytes:
    return bytes(message.SerializeToString())


@pytest.mark.parametrize(("answered", "ref"), [(0, "mine"), (1, "mine"), (3, "mine"), (3, "")])
def test_a_containerd_that_hangs_is_not_waited_for(
    answered: int, ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the beginning, at the first piece, at the end; nor is it waited for once more, to abort a ref of our own."""
    monkeypatch.setattr("layerstore.faces.containerd.content._PATIENCE_AT_END", 1.0)
    if answered < 3:
        monkeypatch.setattr("layerstore.faces.containerd.content._PATIENCE", 1.0)
    hanging = Hanging(tmp_path / "c.sock", answered)
    try:
        with (
            Content(tmp_path / "c.sock", [], "me") as content,
            refused_here("UNAVAILABLE", "no answer in 1 seconds"),
            content.upload(ref) as upload,
        ):
            upload.write(memoryview(bytes(2 << 20)))
            upload.commit({})
    finally:
        hanging.close()
    assert hanging.seen == answered + 1
    assert len(hanging.refs) == (0 if ref else 1)
    assert all(own.startswith("layerstore-me-") for own in hanging.refs)
    assert all(seconds < 10 for seconds in hanging.waited)


def forget(store: Store, key: str) -> None:
    """Remove the row of a snapshot, as who is faster than the call that is looking for it."""
    with store.tables(rows.TABLES).write() as tx:
        tx.execute("DELETE FROM containerd_snapshots WHERE key = ?", (key,))


def test_a_view_whose_snapshot_goes_meanwhile_is_passed_over(
    start: Callable[[str], tuple[Both, Store]], tmp_path: Path
) -> None:
    both, store = start("overlay2")
    both.client.layer("below", "", {"a": "a"}, tmp_path / "at")
    both.client.layer("other", "", {"b": "b"}, tmp_path / "at")
    view = both.client.view("look", "below")
    both.client.view("newer", "other")
    forget(store, "other")
    assert both.names(both.client.compare([], view)) == ["a"]


def test_a_snapshot_that_goes_meanwhile_is_left_to_the_walk(
    start: Callable[[str], tuple[Both, Store]], tmp_path: Path
) -> None:
    """Not told to be missing: containerd would not ask its own differ then. erofs mounts what it shows itself."""
    both, store = start("erofs")
    client = both.client
    client.layer("below", "", {"a": "a"}, tmp_path / "at")
    view, active = client.view("look", "below"), client.prepare("active", "below")
    forget(store, "below")
    with refused("UNIMPLEMENTED"):
        client.compare([], view)
    with refused("UNIMPLEMENTED"):
        client.compare(view, active)


def test_what_containerd_has_taken_is_not_asked_for_again(
    start: Callable[[str], tuple[Both, Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob that was committed has its labels; only one that was there before may lack them."""
    asked: list[str] = []
    ask = Content._ask
    monkeypatch.setattr(
        Content, "_ask", lambda content, call, *rest: (asked.append(call), ask(content, call, *rest))[1]
    )
    both, _ = start("overlay2")
    socket, caller = both.daemon.folder / "c.sock", [("containerd-namespace", both.daemon.namespace)]
    told = {**KEPT, UNCOMPRESSED: images.digest(b"x")}
    with Content(socket, caller, "me") as content:
        for expected in ([], ["Info"]):
            with content.upload("") as upload:
                upload.write(memoryview(b"blob"))
                upload.commit(told)
            assert asked == expected


def test_the_content_is_the_callers(start: Callable[[str], tuple[Both, Store]], tmp_path: Path) -> None:
    both, _ = start("overlay2")
    client, daemon = both.client, both.daemon
    client.layer("below", "", {"a": "a"}, tmp_path / "at")
    view = client.view("look", "below")
    lease = daemon("leases", "create").strip()
    client.lease(lease)
    made = client.compare([], view, ref="mine", labels={"who": "me"})
    assert "who=me" in daemon("content", "ls")
    # It is there: the same again, and under another label that counts no more.
    assert client.compare([], view, labels={"who": "you"}) == made
    assert "who=me" in daemon("content", "ls")
    daemon("content", "label", made.digest, f"{UNCOMPRESSED}=")
    assert client.compare([], view) == made
    assert both.tar(made)
    daemon("leases", "rm", "--sync", lease)
    assert daemon("content", "ls", "-q").split() == []


def test_what_a_process_that_died_has_left_is_aborted(
    start: Callable[[str], tuple[Both, Store]], tmp_path: Path
) -> None:
    both, store = start("overlay2")
    daemon = both.daemon
    socket, caller = daemon.folder / "c.sock", [("containerd-namespace", daemon.namespace)]
    child = (
        "import os, signal, sys; from pathlib import Path; from layerstore.faces.containerd.content import Content\n"
        "with Content(Path(sys.argv[1]), [('containerd-namespace', sys.argv[2])], sys.argv[3]) as content:\n"
        "    with content.upload('') as upload:\n"
        "        upload.write(memoryview(bytes(3 << 20)))\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    owner = Server(store, daemon.folder / "snap.sock").owner
    for whose in (owner, "another"):
        subprocess.run([sys.executable, "-c", child, str(socket), daemon.namespace, whose], timeout=60)

    def left() -> list[str]:
        """Whose uploads are on their way."""
        return sorted(line.split()[0].split("-")[1] for line in daemon("content", "active").splitlines()[1:])

    assert left() == sorted([owner, "another"])
    with Content(socket, caller, "third") as content, content.upload("") as going:
        going.write(memoryview(bytes(2 << 20)))
        both.client.layer("below", "", {"a": "a"}, tmp_path / "at")
        assert both.names(both.client.compare([], both.client.view("look", "below"))) == ["a"]
        assert left() == ["another", "third"]
    with (
        Content(socket, caller, owner) as content,
        pytest.raises(RuntimeError, match="on the way"),
        content.upload(""),
    ):
        raise RuntimeError("on the way")
    assert left() == ["another"]


def refused_here(code: str, words: str | None = None) -> pytest.RaisesExc[Refused]:
    """The block raises `Refused` with this code, and these words."""
    return pytest.RaisesExc(Refused, match=words, check=lambda error: error.code.value == code)


def test_a_ref_of_the_callers_is_begun_anew(start: Callable[[str], tuple[Both, Store]]) -> None:
    both, _ = start("overlay2")
    daemon = both.daemon
    socket, caller = daemon.folder / "c.sock", [("containerd-namespace", daemon.namespace)]
    with Content(socket, caller, "me") as content:
        with content.upload("mine") as upload:
            upload.write(memoryview(os.urandom(5 << 20)))
            with refused_here("UNAVAILABLE"), content.upload("mine"):
                pass
        assert "mine" in daemon("content", "active")
        with content.upload("mine") as upload:
            upload.write(memoryview(b"short"))
            blob = upload.commit(KEPT)
    assert blob == images.digest(b"short")
    assert daemon("content", "get", blob) == "short"
    assert daemon("content", "active").splitlines()[1:] == []
