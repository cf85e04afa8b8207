"""Operations of the rooms above a store: a build without programs, registries asked, a registry that it is."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import layerstore
from attached import record
from layerstore.build import build
from layerstore.errors import LayerstoreError
from layerstore.faces.containerd.snapshotter import Snapshotter
from layerstore.faces.serve import Registry as Served
from layerstore.testing import tars
from layerstore.testing.torture import Operation, Place
from registry.servers.memory import Registry
from serve.client import MANIFEST, digest
from serve.life import ask
from support import images

DOCKERFILE = """\
FROM base:1 AS one
WORKDIR /made
COPY --chown=1:2 tree /d/
FROM base:1
COPY --link --from=one /d /linked
COPY <<END /said
text
END
LABEL a=b
"""


@contextmanager
def _context(at: Place) -> Iterator[None]:
    context = at.exec_root / "context"
    context.mkdir()
    shutil.copytree(at.given / "tree", context / "tree")
    (context / "Dockerfile").write_text(DOCKERFILE)
    yield


def _build(at: Place) -> None:
    build(at.store, at.exec_root / "context", tags=["built:1"], source_date_epoch=1_600_000_000)


# --- other registries ---


_hosts: dict[Path, str] = {}
"""Of the registries that this process has beside it, by exec-root."""


@contextmanager
def _registry(at: Place) -> Iterator[None]:
    with Registry() as registry:
        registry.put_image("app", "1", [(at.given / "layer.tar").read_bytes()])
        _hosts[at.exec_root] = registry.host
        yield


def _pull(at: Place) -> None:
    at.store.load(f"docker://{_hosts[at.exec_root]}/app:1", names=["pulled:1"])


def _push(at: Place) -> None:
    at.store.save("base:1", f"docker://{_hosts[at.exec_root]}/base:1")


# --- the store as a registry ---

_TARS = [tars.archive(tars.file(b"pushed", b"p" * 9000))]
_CONFIG = images.config(_TARS)
_PACKED = [gzip.compress(tar, mtime=0) for tar in _TARS]


Asked = Callable[..., dict[str, str]]


@contextmanager
def _served(at: Place) -> Iterator[Asked]:
    """To ask it. What the registry could not do is an error here."""
    served = Served(at.store)

    def asked(method: str, path: str, body: bytes = b"", media_type: str = "") -> dict[str, str]:
        status, headers = ask(served, method, path, body, media_type)
        if status >= 500:
            raise LayerstoreError(f"{method} {path} was answered with {status}")
        assert status in (200, 201, 202), (method, path, status)
        return headers

    try:
        yield asked
    finally:
        served.close()


def _upload_at_once(at: Place) -> None:
    for data in (_CONFIG, *_PACKED):
        with _served(at) as asked:
            asked("POST", f"/v2/app/blobs/uploads/?digest={digest(data)}", data)


def _upload_in_pieces(at: Place) -> None:
    [data] = _PACKED
    with _served(at) as asked:
        place = asked("POST", "/v2/app/blobs/uploads/")["location"]
        asked("PATCH", place, data[:100])
        asked("PUT", f"{place}?digest={digest(data)}", data[100:])


def _mount_blob(at: Place) -> None:
    with _served(at) as asked:
        asked("POST", f"/v2/other/blobs/uploads/?mount={digest(_CONFIG)}&from=app")


def _push_manifest(at: Place) -> None:
    layer = "application/vnd.oci.image.layer.v1.tar+gzip"
    config = "application/vnd.oci.image.config.v1+json"
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": config, "digest": digest(_CONFIG), "size": len(_CONFIG)},
        "layers": [{"mediaType": layer, "digest": digest(data), "size": len(data)} for data in _PACKED],
    }
    with _served(at) as asked:
        asked("PUT", "/v2/app/manifests/1", json.dumps(document).encode(), MANIFEST)


# --- a store of docker's, attached ---


@contextmanager
def _attached(at: Place) -> Iterator[None]:
    record.unpacked("docker", at.exec_root / "docker")
    yield


def _adopt(at: Place) -> None:
    config = layerstore.Config(data_root=at.data_root, exec_root=at.exec_root)
    with layerstore.open(config=config, attach=[f"docker:{at.exec_root / 'docker'}"]) as store:
        store.adopt(record.NAME)


# --- the store as a snapshotter of containerd ---


def _prepare(at: Place) -> None:
    snapshotter = Snapshotter(at.store, "layerstore")
    if not list(snapshotter.walk(())):
        snapshotter.prepare("first", "", {})
        snapshotter.commit("base", "first", {})
        snapshotter.prepare("active", "base", {})


_BUILDS = ("row of build_cache_builds", "row of building_sessions")

MORE: Sequence[Operation] = (
    Operation("append", lambda at: at.store.image("made:1").append(at.given / "tree", tags=["grown:1"])),
    Operation("build", _build, beside=_context, has_steps=True, void=_BUILDS),
    Operation("pull", _pull, beside=_registry),
    Operation("push", _push, beside=_registry),
    Operation("adopt", _adopt, beside=_attached, opens=True),
    Operation("take a blob at once", _upload_at_once, has_steps=True),
    Operation("take a blob in pieces", _upload_in_pieces, has_steps=True),
    Operation("take a blob of another name", _mount_blob, ready=_upload_at_once),
    Operation("take a manifest", _push_manifest, ready=_upload_at_once),
    Operation(
        "prepare for containerd",
        lambda at: Snapshotter(at.store, "layerstore").prepare("new", "base", {}),
        ready=_prepare,
    ),
    Operation(
        "commit for containerd",
        lambda at: Snapshotter(at.store, "layerstore").commit("new", "active", {}),
        ready=_prepare,
    ),
    Operation(
        "remove for containerd",
        lambda at: Snapshotter(at.store, "layerstore").remove("active"),
        ready=_prepare,
    ),
)
