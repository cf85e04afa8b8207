"""The services, between containerd's messages and what they mean: `SnapshotCalls` and `DiffCalls`, a method each.

gRPC's own stubs are not used: the tables of calls at the end are all that they would be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from layerstore.errors import FULL, InUse, InvalidArchive, LayerstoreError, NameInUse, NotFound, StoreClosed
from layerstore.faces.containerd.api import descriptor_pb2, diff_pb2, mount_pb2
from layerstore.faces.containerd.api import snapshots_pb2 as api
from layerstore.faces.containerd.errors import Code, Refused
from layerstore.faces.containerd.recipes import Plain
from layerstore.faces.containerd.snapshotter import Snapshotter
from layerstore.manifests.media_types import LAYER_TYPE

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.faces.containerd.comparer import Comparer
    from layerstore.faces.containerd.content import Caller
    from layerstore.faces.containerd.differ import Differ
    from layerstore.faces.containerd.rows import Row

__all__ = ["DIFF_SERVICE", "SERVICE", "DiffCalls", "SnapshotCalls", "handlers"]

SERVICE: Final = "containerd.services.snapshots.v1.Snapshots"
DIFF_SERVICE: Final = "containerd.services.diff.v1.Diff"
_BATCH: Final = 100
"""Snapshots in one message of a list, at most."""
_ROOM: Final = 1 << 20
"""Bytes of snapshots after which a message of a list is full: clients take 4 MiB."""
_WORDS: Final = 6000
"""Bytes of an error as it is sent: gRPC has room for 8 KiB, and drops the code with what is longer."""


_Calls = dict[str, tuple[type[Message], Callable[..., Any]]]


class SnapshotCalls:
    """A store's snapshots, for containerds of any name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _of(self, request: Any) -> Snapshotter:
        return Snapshotter(self._store, request.snapshotter)

    def prepare(self, request: api.PrepareSnapshotRequest) -> api.PrepareSnapshotResponse:
        """See `Snapshotter.prepare`; so with all others."""
        found = self._of(request).prepare(request.key, request.parent, dict(request.labels))
        return api.PrepareSnapshotResponse(mounts=[_mount(found)])

    def view(self, request: api.ViewSnapshotRequest) -> api.ViewSnapshotResponse:
        found = self._of(request).view(request.key, request.parent, dict(request.labels))
        return api.ViewSnapshotResponse(mounts=[_mount(found)])

    def mounts(self, request: api.MountsRequest) -> api.MountsResponse:
        return api.MountsResponse(mounts=[_mount(self._of(request).mounts(request.key))])

    def commit(self, request: api.CommitSnapshotRequest) -> Empty:
        self._of(request).commit(request.name, request.key, dict(request.labels), request.parent)
        return Empty()

    def remove(self, request: api.RemoveSnapshotRequest) -> Empty:
        self._of(request).remove(request.key)
        return Empty()

    def stat(self, request: api.StatSnapshotRequest) -> api.StatSnapshotResponse:
        return api.StatSnapshotResponse(info=_info(self._of(request).stat(request.key)))

    def update(self, request: api.UpdateSnapshotRequest) -> api.UpdateSnapshotResponse:
        told = request.info
        row = self._of(request).update(told.name, dict(told.labels), list(request.update_mask.paths))
        return api.UpdateSnapshotResponse(info=_info(row))

    def list(self, request: api.ListSnapshotsRequest) -> Iterator[api.ListSnapshotsResponse]:
        batch: list[api.Info] = []
        size = 0
        for row in self._of(request).walk(request.filters):
            info = _info(row)
            if batch and (len(batch) == _BATCH or size + info.ByteSize() > _ROOM):
                yield api.ListSnapshotsResponse(info=batch)
                batch, size = [], 0
            batch.append(info)
            size += info.ByteSize()
        if batch:
            yield api.ListSnapshotsResponse(info=batch)

    def usage(self, request: api.UsageRequest) -> api.UsageResponse:
        found = self._of(request).usage(request.key)
        return api.UsageResponse() if found is None else api.UsageResponse(size=found.size, inodes=found.inodes)

    def cleanup(self, request: api.CleanupRequest) -> Empty:
        self._of(request).cleanup()
        return Empty()


class DiffCalls:
    """Layers that become a store's, for snapshots of it; and snapshots that become layers."""

    def __init__(self, differ: Differ, comparer: Comparer) -> None:
        self._differ = differ
        self._comparer = comparer

    def apply(self, request: diff_pb2.ApplyRequest) -> diff_pb2.ApplyResponse:
        """See `Differ.apply`. It is durable, whether `sync_fs` asks for that or not."""
        layer = self._differ.apply(request.diff.media_type, request.diff.digest, _mounts(request.mounts))
        return diff_pb2.ApplyResponse(
            applied=descriptor_pb2.Descriptor(media_type=LAYER_TYPE, digest=layer.diff_id, size=layer.size)
        )

    def diff(self, request: diff_pb2.DiffRequest, caller: Caller) -> diff_pb2.DiffResponse:
        """See `Comparer.compare`."""
        latest = _moment(request.source_date_epoch) if request.HasField("source_date_epoch") else None
        lower, upper = _mounts(request.left), _mounts(request.right)
        labels = dict(request.labels)
        made = self._comparer.compare(lower, upper, request.media_type, request.ref, labels, caller, latest)
        return diff_pb2.DiffResponse(
            diff=descriptor_pb2.Descriptor(media_type=made.media_type, digest=made.digest, size=made.size)
        )


def _moment(told: Timestamp) -> int:
    try:
        return int(told.ToNanoseconds())
    except ValueError as error:
        raise Refused(Code.INVALID_ARGUMENT, f"source_date_epoch: {error}") from None


def _mounts(told: Iterable[mount_pb2.Mount]) -> list[Plain]:
    return [Plain(mount.type, mount.source, tuple(mount.options)) for mount in told]


def _mount(found: Plain) -> mount_pb2.Mount:
    return mount_pb2.Mount(type=found.type, source=found.source, options=found.options)


def _info(row: Row) -> api.Info:
    info = api.Info(name=row.key, parent=row.parent, kind=api.Kind.Name(int(row.kind)), labels=row.labels)
    info.created_at.FromNanoseconds(row.created)
    info.updated_at.FromNanoseconds(row.updated)
    return info


def _code(error: LayerstoreError) -> Code:
    match error:
        case NotFound():
            return Code.NOT_FOUND
        case NameInUse():
            return Code.ALREADY_EXISTS
        case InUse():
            return Code.FAILED_PRECONDITION
        case InvalidArchive():
            return Code.INVALID_ARGUMENT
        case StoreClosed():
            return Code.UNAVAILABLE
        case _:
            return Code.RESOURCE_EXHAUSTED if error.errno in FULL else Code.UNKNOWN


def _short(words: str) -> str:
    """As much of `words` as there is room for. A byte that is not plain is sent as three."""
    room = _WORDS
    for at, character in enumerate(words):
        room -= 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode(errors="replace"))
        if room < 0:
            return f"{words[:at]}…"
    return words


def _refuse(context: grpc.ServicerContext, error: Refused | LayerstoreError) -> None:
    """End a call with an error: `abort` raises."""
    code = error.code if isinstance(error, Refused) else _code(error)
    context.abort(grpc.StatusCode[code.value], _short(str(error)))


_CALLS: Final[_Calls] = {
    "Prepare": (api.PrepareSnapshotRequest, SnapshotCalls.prepare),
    "View": (api.ViewSnapshotRequest, SnapshotCalls.view),
    "Mounts": (api.MountsRequest, SnapshotCalls.mounts),
    "Commit": (api.CommitSnapshotRequest, SnapshotCalls.commit),
    "Remove": (api.RemoveSnapshotRequest, SnapshotCalls.remove),
    "Stat": (api.StatSnapshotRequest, SnapshotCalls.stat),
    "Update": (api.UpdateSnapshotRequest, SnapshotCalls.update),
    "List": (api.ListSnapshotsRequest, SnapshotCalls.list),
    "Usage": (api.UsageRequest, SnapshotCalls.usage),
    "Cleanup": (api.CleanupRequest, SnapshotCalls.cleanup),
}
_DIFF_CALLS: Final[_Calls] = {
    "Apply": (diff_pb2.ApplyRequest, DiffCalls.apply),
    "Diff": (diff_pb2.DiffRequest, DiffCalls.diff),
}
_STREAMS: Final = "List"
_HEADERS: Final = ("containerd-namespace", "containerd-lease")


def handlers(store: Store, differ: Differ, comparer: Comparer) -> list[grpc.GenericRpcHandler]:
    """What a gRPC server is given to answer these calls."""
    diffs = DiffCalls(differ, comparer)
    return [_handler(SERVICE, _CALLS, SnapshotCalls(store)), _handler(DIFF_SERVICE, _DIFF_CALLS, diffs)]


def _handler(service: str, calls: _Calls, asked: object) -> grpc.GenericRpcHandler:
    made: dict[str, Any] = {}
    for name, (message, call) in calls.items():
        kind = grpc.unary_stream_rpc_method_handler if name == _STREAMS else grpc.unary_unary_rpc_method_handler
        answer = _streamed(asked, call) if name == _STREAMS else _answered(asked, call)
        made[name] = kind(
            answer,
            request_deserializer=message.FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )
    return grpc.method_handlers_generic_handler(service, made)


def _caller(context: grpc.ServicerContext) -> Caller:
    """Of which namespace a call is, and by which lease what comes of it is kept."""
    return [(name, str(value)) for name, value in context.invocation_metadata() if name in _HEADERS]


def _answered(asked: object, call: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return call(asked, request, _caller(context)) if call is DiffCalls.diff else call(asked, request)
        except (Refused, LayerstoreError) as error:
            return _refuse(context, error)

    return answer


def _streamed(asked: object, call: Callable[..., Iterable[Any]]) -> Callable[[Any, Any], Iterator[Any]]:
    def answer(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from call(asked, request)
        except (Refused, LayerstoreError) as error:
            _refuse(context, error)

    return answer
