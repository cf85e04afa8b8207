"""The server is killed while something is pushed: what was acknowledged is there, what was not is not, or is whole.

Each point at which a push may break off is a call of a child that serves: the child ends itself there, by SIGKILL.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

import pytest

import layerstore
from layerstore.faces.serve import Registry
from layerstore.faces.serve.server import Server, Timing
from layerstore.testing.filesystems import Filesystems
from layerstore.testing.power import CUTTABLE, Disk
from serve.client import MANIFEST, Client, digest
from support import images
from support.moments import KILLED_AT

pytestmark = pytest.mark.root

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
TARS = [images.layer(images.file("a", os.urandom(3000))), images.layer(images.file("b", "y"))]
CONFIG = images.config(TARS)
PACKED = [gzip.compress(tar, mtime=0) for tar in TARS]
DOCUMENT = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(CONFIG),
            "size": len(CONFIG),
        },
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(data), "size": len(data)}
            for data in PACKED
        ],
    }
).encode()

# Dies at the N-th audited event that touches files or the database, counted from the word "now" of a header.
CHILD = KILLED_AT + textwrap.dedent(
    """
    import layerstore
    from layerstore.faces.serve import Registry
    from layerstore.faces.serve.server import Server, Timing

    root, point = sys.argv[1], int(sys.argv[2])

    config = layerstore.Config(data_root=root + "/root", exec_root=root + "/exec", storage_driver="overlay2")
    with layerstore.open(config=config) as store:
        registry = Registry(store)
        def application(environ, start_response):
            global armed
            if environ["PATH_INFO"] == "/arm":
                armed = True
                start_response("204 No Content", [])
                return []
            if environ["PATH_INFO"] == "/count":
                start_response("200 OK", [("Content-Length", str(len(str(count))))])
                return [str(count).encode()]
            return registry(environ, start_response)
        with Server("127.0.0.1", 0, application, timing=Timing(tick=0.02), threads=2) as server:
            print(server.port, flush=True)
            sys.stdin.read()
    """
)


@contextmanager
def serving(root: Path, point: int) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    """A server that dies at a point."""
    command = [sys.executable, "-c", CHILD, str(root), str(point)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        port = int(cast(IO[str], process.stdout).readline())
        with Client(f"127.0.0.1:{port}") as client:
            yield client, process
    finally:
        process.kill()
        process.communicate()


def reopened(root: Path) -> layerstore.Store:
    """The store, opened once more; what the dead left is put in order."""
    config = layerstore.Config(data_root=root / "root", exec_root=root / "exec", storage_driver="overlay2")
    return layerstore.open(config=config)


def push_blob(client: Client) -> bool:
    """A blob in two chunks. True: it was acknowledged."""
    place = client("POST", "/v2/app/blobs/uploads/").header["location"]
    client("PATCH", place, PACKED[0][:1000])
    done = client("PUT", place, PACKED[0][1000:], query={"digest": digest(PACKED[0])})
    return done.status == 201


def push_manifest(client: Client) -> bool:
    """A manifest, whose blobs are there."""
    return client("PUT", "/v2/app/manifests/1", DOCUMENT, Content_Type=MANIFEST).status == 201


def delete_manifest(client: Client) -> bool:
    """The same away."""
    return client("DELETE", f"/v2/app/manifests/{digest(DOCUMENT)}").status == 202


def prepare(root: Path, deed: Callable[[Client], bool]) -> None:
    """What is there before."""
    with (
        reopened(root) as store,
        Server("127.0.0.1", 0, Registry(store), timing=Timing(tick=0.02), threads=1) as server,
        Client(f"127.0.0.1:{server.port}") as client,
    ):
        for data in () if deed is push_blob else (CONFIG, *PACKED):
            client.put_blob("app", data)
        if deed is delete_manifest:
            assert push_manifest(client)


@pytest.mark.parametrize("deed", [push_blob, push_manifest, delete_manifest])
def test_a_kill_leaves_nothing_half_made(own_root: Callable[[], Path], deed: Callable[[Client], bool]) -> None:
    root = own_root()
    prepare(root, deed)
    with serving(root, 0) as (client, _):
        assert client("GET", "/arm").status == 204
        assert deed(client)
        points = int(client("GET", "/count").body)
    assert points > 5
    # One by day, two thirds of the way; all of them by night.
    for point in range(1, points + 1) if NIGHTLY else [2 * points // 3, points]:
        root = own_root()
        prepare(root, deed)
        is_acknowledged = False
        with serving(root, point) as (client, process):
            client("GET", "/arm")
            try:
                is_acknowledged = deed(client)
            except OSError:
                assert process.wait(10) == -signal.SIGKILL
        with reopened(root) as store:
            assert store.check(content=True) == [], f"at point {point}"
            there = deed_is_done(store, deed)
            assert there or not is_acknowledged, f"at point {point}: it was acknowledged, and is not there"


def deed_is_done(store: layerstore.Store, deed: Callable[[Client], bool]) -> bool:
    """Is it done, wholly? Not at all is False, and in parts is an error."""
    repositories, data = store.repositories, bytearray()
    name = "docker.io/library/app"
    if deed is push_blob:
        if (size := repositories.size_of_blob(name, digest(PACKED[0]))) is None:
            return False
        repositories.write_blob(name, digest(PACKED[0]), data.extend)
        assert (size, bytes(data)) == (len(PACKED[0]), PACKED[0])
        return True
    tagged, named = repositories.manifest(name, "1"), repositories.manifest(name, digest(DOCUMENT))
    if tagged is not None:
        assert named is not None
        assert tagged.data == named.data == DOCUMENT
        for content in (CONFIG, *PACKED):
            assert repositories.size_of_blob(name, digest(content)) == len(content)
        with store.image("app:1").mount() as tree:
            assert sorted(path.name for path in tree.iterdir()) == ["a", "b"]
    if deed is push_manifest:
        assert (tagged is None) == (named is None) == (store.images() == [])
        return tagged is not None
    return named is None


@pytest.fixture
def own_root(backing: Callable[[str], Path]) -> Callable[[], Path]:
    """A new folder each time."""
    folder, numbers = backing("ext4"), iter(range(10_000))

    def make() -> Path:
        path = folder / str(next(numbers))
        path.mkdir()
        return path

    return make


def test_an_upload_goes_on_after_a_kill(own_root: Callable[[], Path]) -> None:
    root = own_root()
    data = os.urandom(300_000)
    with serving(root, 0) as (client, process):
        place = client("POST", "/v2/app/blobs/uploads/").header["location"]
        assert client("PATCH", place, data[:200_000]).status == 202
        process.kill()
    with serving(root, 0) as (client, _):
        assert client("GET", place.replace("/app/", "/other/")).status == 204  # its number is all that it is known by
    with serving(root, 0) as (client, _):
        found = client("GET", place)
        assert (found.status, found.header["range"]) == (204, "0-199999")
        done = client("PUT", place, data[200_000:], query={"digest": digest(data)}, Content_Range="200000-299999")
        assert done.status == 201
        assert client("GET", f"/v2/app/blobs/{digest(data)}").body == data
        assert client("GET", place).code == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.parametrize("kind", CUTTABLE if NIGHTLY else ["ext4"])
@pytest.mark.parametrize("deed", [push_blob, push_manifest, delete_manifest])
def test_what_was_acknowledged_survives_a_power_cut(
    filesystems: Filesystems, kind: str, deed: Callable[[Client], bool]
) -> None:
    with Disk(filesystems, kind) as disk:
        prepare(disk.mountpoint, deed)
        with ExitStack() as running:
            store = running.enter_context(reopened(disk.mountpoint))
            server = running.enter_context(Server("127.0.0.1", 0, Registry(store), timing=Timing(tick=0.02), threads=1))
            with Client(f"127.0.0.1:{server.port}") as client:
                assert deed(client)
            with disk.cut():
                running.close()
        with reopened(disk.mountpoint) as store:
            assert store.check(content=True) == []
            if deed is push_blob:  # that it is in the repository may be lost, for its bytes are there
                assert store.repositories.link_blob("docker.io/library/app", digest(PACKED[0]))
            assert deed_is_done(store, deed)
