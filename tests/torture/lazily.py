"""Operations with lazy layers, for drivers that have some: pulled, stood on, mounted, read, waited for, removed.

The store is broken off, not what fetches: another lazy image, of which nothing comes meanwhile, keeps that alive, and
so it is begun by nobody who is watched. Before a store is looked at everything comes, and what fetches has ended.
"""

from __future__ import annotations

import ctypes
import gzip
import io
import os
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from layerstore.digest import DiffID, Digest
from layerstore.errors import LayerstoreError
from layerstore.kernel.mounts import processes_with
from layerstore.registry.indexing import OF_BLOB
from layerstore.seekable import ARTIFACT, INDEX_TYPE, WINDOWS_TYPE
from layerstore.seekable.making import make
from layerstore.testing import tars
from layerstore.testing.torture import Operation, Place
from registry.servers.listening import Answer, Seen
from registry.servers.memory import CONFIG, LAYER, MANIFEST, Registry, digest
from support import images

_PORT = 5000
"""Of the registry, in a network of its own: what is on a disk names it, and so it is the same in another life."""
_APP, _OTHER = f"127.0.0.1:{_PORT}/app:1", f"127.0.0.1:{_PORT}/other:1"

_DATA = re.compile(r"/v2/other/blobs/\S+ bytes=(\d+)-(?!\1$)\d+")
"""Who asks for a single byte wants to know whether there are ranges."""

_CLONE_NEWNET = 0x40000000
_PATIENCE = 60.0

_libc = ctypes.CDLL(None, use_errno=True)


class _Gated(Registry):
    """Of one of its images nothing comes until everything is to come."""

    def __init__(self) -> None:
        super().__init__(port=_PORT)
        self.gate = threading.Event()

    def answer(self, seen: Seen) -> Answer:
        if _DATA.fullmatch(f"{seen.path} {seen.headers['Range']}"):
            self.gate.wait()
        return super().answer(seen)


_registries: dict[Path, _Gated] = {}
"""Of those that this process has beside it, by exec-root."""


@cache
def _layers(name: str) -> Sequence[bytes]:
    def data(seed: int) -> bytes:
        return random.Random(f"{name} {seed}").randbytes(200_000)

    if name == "other":
        return [tars.archive(tars.file(b"other", data(0)))]
    below = (tars.folder(b"usr/"), *(tars.file(b"usr/%d" % number, data(number)) for number in range(4)))
    return [tars.archive(*below), tars.archive(tars.whiteout(b"usr/1"), tars.file(b"usr/9", data(9)))]


def _put(registry: Registry, name: str) -> None:
    """Have an image, and the indexes of its layers."""
    layers = _layers(name)
    blobs = [gzip.compress(tar, 1, mtime=0) for tar in layers]
    described = [registry.describe(name, blob, f"{LAYER}+gzip") for blob in blobs]
    settings = registry.describe(name, images.config(layers), CONFIG)
    image = {"schemaVersion": 2, "mediaType": MANIFEST, "config": settings, "layers": described}
    found = registry.put_manifest(name, "1", image)
    parts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for tar, blob in zip(layers, blobs, strict=True):
            made = make(
                blob,
                Digest(digest(blob)),
                len(blob),
                "gzip",
                DiffID(Digest(digest(tar))),
                io.BytesIO(tar),
                Path(folder),
            )
            assert made is not None
            index, windows = made
            of = {"annotations": {OF_BLOB: digest(blob)}}
            parts += [{**registry.describe(name, index.packed(), INDEX_TYPE), **of}]
            parts += [registry.describe(name, windows, WINDOWS_TYPE)] if windows else []
    subject = {"mediaType": MANIFEST, "digest": found, "size": len(registry.manifests[name, found][1])}
    empty = registry.describe(name, b"{}", "application/vnd.oci.empty.v1+json")
    referrer = {"artifactType": ARTIFACT, "config": empty, "layers": parts, "subject": subject}
    registry.put_manifest(name, None, {"schemaVersion": 2, "mediaType": MANIFEST, **referrer})


@contextmanager
def _beside(at: Place) -> Iterator[None]:
    """The registry; at the end nothing fetches any more."""
    assert _libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with _Gated() as registry:
        for name in ("app", "other"):
            _put(registry, name)
        _registries[at.exec_root] = registry
        try:
            yield
        finally:
            at.close()
            registry.gate.set()
            _end(at)


def _fetching(at: Place) -> list[int]:
    return processes_with(at.data_root / at.driver / ".lazy" / "lock")


def _end(at: Place) -> None:
    """All at once, or one takes another's place."""
    found = [pid for pid in _fetching(at) if pid != os.getpid()]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    _until(lambda: not _fetching(at))


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "what fetches lazy layers goes on"
        time.sleep(0.02)


def _settle(at: Place) -> None:
    """Everything comes, and is an ordinary layer."""
    _registries[at.exec_root].gate.set()
    layers = at.store._parts.layers
    for one in layers.lazy():
        with suppress(LayerstoreError):  # which `check` is going to tell
            layers.files.make_whole(one)
    at.close()
    _until(lambda: not _fetching(at))


def _kept_alive(at: Place) -> None:
    at.store.pull(_OTHER, lazy=True)


def _pull(at: Place) -> None:
    at.store.pull(_APP, lazy=True)


def _pulled(at: Place) -> None:
    _kept_alive(at)
    _pull(at)


def _create(at: Place) -> None:
    at.store.create_container(_APP, name="lazy")


def _created(at: Place) -> None:
    _pulled(at)
    if all(box.name != "lazy" for box in at.store.containers()):
        _create(at)


def _read(at: Place) -> None:
    at.store.container("lazy").copy_out("/usr/.", at.out / "copied")


LAZILY: Sequence[Operation] = (
    Operation("pull lazily", _pull, ready=_kept_alive, beside=_beside, settle=_settle),
    Operation("create lazily", _create, ready=_pulled, beside=_beside, settle=_settle),
    Operation(
        "mount lazily", lambda at: at.store.container("lazy").mount(persistent=True), ready=_created, beside=_beside,
        settle=_settle, lasts=False,
    ),
    Operation(
        "cp out lazily", _read, ready=_created, beside=_beside, settle=_settle, lasts=False,
        loose=frozenset({"file copied"}),
    ),
    Operation("pull what is lazy", lambda at: at.store.pull(_APP), ready=_pulled, beside=_beside, settle=_settle),
    Operation("rmi lazily", lambda at: at.store.remove_image(_APP), ready=_pulled, beside=_beside, settle=_settle),
)  # fmt: skip
