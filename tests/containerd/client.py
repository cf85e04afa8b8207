"""A client of containerd's services Snapshots and Diff, and mounts as containerd makes them: mount(2), options in one
string."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.empty_pb2 import Empty

from layerstore.faces.containerd.api import diff_pb2 as diff_api
from layerstore.faces.containerd.api import snapshots_pb2 as api
from layerstore.faces.containerd.service import DIFF_SERVICE, SERVICE
from layerstore.testing.filesystems import unmount

_libc = ctypes.CDLL(None, use_errno=True)
_RDONLY, _NOATIME, _REMOUNT, _BIND, _REC = 1, 1024, 32, 4096, 16384
_FLAGS = {"ro": _RDONLY, "rw": 0, "noatime": _NOATIME, "bind": _BIND, "rbind": _BIND | _REC}
PAGE = 4096
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


KEPT = {"containerd.io/gc.root": "test"}
"""Labels of what containerd keeps though nothing refers to it."""


class Error(Exception):
    """What the service answered instead: a code, and a sentence."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(f"{code}: {words}")
        self.code = code


class Client:
    """Each call by its name, with the fields of its message: `client("Prepare", key="a")`."""

    def __init__(self, address: Path, snapshotter: str = "layerstore", namespace: str = "test") -> None:
        self._channel = grpc.insecure_channel(f"unix:{address}")
        self._snapshotter = snapshotter
        self._metadata: tuple[tuple[str, str], ...] = (("containerd-namespace", namespace),)

    def __call__(self, call: str, **fields: Any) -> Any:
        name = {"Mounts": "Mounts", "Usage": "Usage", "Cleanup": "Cleanup"}.get(call, f"{call}Snapshot")
        request = getattr(api, "ListSnapshotsRequest" if call == "List" else f"{name}Request")
        response = (
            Empty
            if call in ("Commit", "Remove", "Cleanup")
            else getattr(api, "ListSnapshotsResponse" if call == "List" else f"{name}Response")
        )
        way = self._channel.unary_stream if call == "List" else self._channel.unary_unary
        done: Any = way(
            f"/{SERVICE}/{call}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        try:
            found = done(request(snapshotter=self._snapshotter, **fields), timeout=60, metadata=self._metadata)
            return [info for part in found for info in part.info] if call == "List" else found
        except grpc.RpcError as error:
            raise Error(error.code().name, error.details() or "") from None

    def lease(self, name: str) -> None:
        """Let what comes of later calls be kept by this lease of containerd's."""
        self._metadata += (("containerd-lease", name),)

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> list[Any]:
        return list(self("Prepare", key=key, parent=parent, labels=labels or {}).mounts)

    def view(self, key: str, parent: str = "") -> list[Any]:
        return list(self("View", key=key, parent=parent).mounts)

    def mounts(self, key: str) -> list[Any]:
        return list(self("Mounts", key=key).mounts)

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None) -> None:
        self("Commit", name=name, key=key, labels=labels or {})

    def remove(self, key: str) -> None:
        self("Remove", key=key)

    def stat(self, key: str) -> Any:
        return self("Stat", key=key).info

    def keys(self, *filters: str) -> list[str]:
        return [info.name for info in self("List", filters=filters)]

    def diff(self, call: str, **fields: Any) -> Any:
        """A call of the Diff service."""
        done: Any = self._channel.unary_unary(
            f"/{DIFF_SERVICE}/{call}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=getattr(diff_api, f"{call}Response").FromString,
        )
        try:
            return done(getattr(diff_api, f"{call}Request")(**fields), timeout=60, metadata=self._metadata)
        except grpc.RpcError as error:
            raise Error(error.code().name, error.details() or "") from None

    def apply(self, mounts: Sequence[Any], digest: str, media_type: str = GZIP) -> Any:
        """Have a blob unpacked, as containerd 1.7 does; the descriptor of what it is uncompressed."""
        descriptor = {"media_type": media_type, "digest": digest, "size": 1}
        return self.diff("Apply", diff=descriptor, mounts=mounts, sync_fs=True).applied

    def compare(self, lower: Sequence[Any], upper: Sequence[Any], media_type: str = GZIP, **fields: Any) -> Any:
        """Have what `upper` has otherwise written into containerd's content, as 1.7 does; the descriptor of that.

        Without other labels it is kept, though nothing refers to it.
        """
        fields.setdefault("labels", KEPT)
        return self.diff("Diff", left=lower, right=upper, media_type=media_type, **fields).diff

    def layer(self, name: str, parent: str, files: Mapping[str, str], at: Path) -> None:
        """Unpack a layer, as containerd does: prepared, written, committed."""
        with mounted(self.prepare(f"{name}-active", parent), at) as root:
            for path, content in files.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(content)
        self.commit(name, f"{name}-active")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()


@contextmanager
def mounted(mounts: Sequence[Any], at: Path) -> Iterator[Path]:
    """While inside, what the service gave is mounted there."""
    [mount] = mounts
    assert mount.type in ("overlay", "bind"), "nobody else can mount that"
    assert not mount.target, "docker cannot have one"
    flags, rest = 0, []
    for option in mount.options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        else:
            rest.append(option)
    data = ",".join(rest).encode()
    assert len(data) < PAGE, "mount(2) would cut it"
    at.mkdir(exist_ok=True)
    words = (mount.source.encode(), os.fsencode(at), mount.type.encode())
    _call(*words, flags, data)
    if flags & _BIND and flags & _RDONLY:
        _call(*words, flags | _REMOUNT, data)
    try:
        yield at
    finally:
        unmount(at)


def _call(source: bytes, target: bytes, kind: bytes, flags: int, data: bytes) -> None:
    if _libc.mount(source, target, kind, flags, data):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(target))
