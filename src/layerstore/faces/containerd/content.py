"""containerd's content, as its service `containerd.services.content.v1.Content` takes it in: one blob, piece by piece.

Whoever asked for the blob is named with each call, so that it is of that namespace and kept by that lease. What is not
whole yet lies in containerd under a ref. One that was made here begins with what says whose it is, and of which
process: what a process that died has left is aborted by the next one.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from layerstore.digest import Digest
from layerstore.faces.containerd.api import content_pb2 as api
from layerstore.faces.containerd.errors import Code, Refused

__all__ = ["SERVICE", "UNCOMPRESSED", "Caller", "Content", "Upload"]

SERVICE: Final = "containerd.services.content.v1.Content"
UNCOMPRESSED: Final = "containerd.io/uncompressed"
"""The label by which containerd knows what a compressed layer is when it is inflated."""

Caller = Sequence[tuple[str, str]]
"""Of whose call this is part: containerd's headers for the namespace and the lease."""

_PIECE: Final = 1 << 20
"""Bytes in one message: containerd takes 16 MiB."""
_PATIENCE: Final = 60.0
"""Seconds in which containerd has to answer a question, and to take a piece of a blob."""
_PATIENCE_AT_END: Final = 900.0
"""Seconds in which it has to have all of a blob on its disk."""
_PATIENCE_TO_ABORT: Final = 5.0
"""Seconds in which it has to drop what is not whole: one that was waited for in vain is not waited for twice."""
_PROCESS: Final = os.urandom(8).hex()


class Content:
    """The content of the containerd that listens on a socket. A context manager, for one caller and one thread."""

    def __init__(self, address: Path, caller: Caller, owner: str) -> None:
        """`owner`: whose the refs are that are made here. One process at a time may call itself so."""
        self._caller = tuple(caller)
        self._prefix = f"layerstore-{owner}-"
        self._channel = grpc.insecure_channel(f"unix:{address}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    @contextmanager
    def upload(self, ref: str) -> Iterator[Upload]:
        """A blob that is written under this ref, or, if it is empty, under one of its own: begun anew in any case.

        What was not committed is aborted, unless the ref is the caller's. Raises `Refused`.
        """
        own = "" if ref else f"{self._prefix}{_PROCESS}-{os.urandom(8).hex()}"
        messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        done = self._channel.stream_stream(f"/{SERVICE}/Write", _bytes_of, api.WriteContentResponse.FromString)
        replies = done(iter(messages.get, None), metadata=self._caller)
        upload = Upload(self, ref or own, messages, replies)
        try:
            upload.begin()
            yield upload
        finally:
            messages.put(None)
            replies.cancel()
            if own and not upload.is_there:
                with suppress(Refused):  # containerd may be what failed, and whoever comes next tries it again
                    self._abort(own)

    def abort_left(self) -> None:
        """Abort what earlier processes of this owner have left half-written in the caller's namespace."""
        for status in self._ask("ListStatuses", api.ListStatusesRequest(), api.ListStatusesResponse).statuses:
            if status.ref.startswith(self._prefix) and not status.ref.startswith(f"{self._prefix}{_PROCESS}"):
                with suppress(Refused):
                    self._abort(status.ref)

    def label(self, blob: Digest, name: str, value: str) -> None:
        """Let a blob that is there have a label, if it has none of that name."""
        info = self._ask("Info", api.InfoRequest(digest=blob), api.InfoResponse).info
        if name not in info.labels:
            told = api.Info(digest=blob, labels={name: value})
            mask = FieldMask(paths=[f"labels.{name}"])
            self._ask("Update", api.UpdateRequest(info=told, update_mask=mask), api.UpdateResponse)

    def _abort(self, ref: str) -> None:
        self._ask("Abort", api.AbortRequest(ref=ref), Empty, _PATIENCE_TO_ABORT)

    def _ask(self, call: str, request: Any, response: Any, patience: float | None = None) -> Any:
        way = self._channel.unary_unary(f"/{SERVICE}/{call}", _bytes_of, response.FromString)
        try:
            return way(request, metadata=self._caller, timeout=_PATIENCE if patience is None else patience)
        except grpc.RpcError as error:
            raise _refused(error) from None


class Upload:
    """A blob on its way. `is_there`: it is part of containerd's content."""

    def __init__(self, content: Content, ref: str, messages: queue.SimpleQueue[Any], replies: Any) -> None:
        self._content = content
        self._ref = ref
        self._messages = messages
        self._replies = replies
        self._hash = hashlib.sha256()
        self._piece = bytearray()
        self._sent = 0
        self.size = 0
        self.is_there = False

    def begin(self) -> None:
        """Have containerd keep the ref for this upload. Raises `Refused`: UNAVAILABLE if somebody else writes it."""
        self._send(api.STAT)

    def write(self, data: memoryview) -> None:
        """Take in what comes next."""
        self._hash.update(data)
        self.size += len(data)
        while len(data):
            part = data[: _PIECE - len(self._piece)]
            self._piece += part
            data = data[len(part) :]
            if len(self._piece) == _PIECE:
                self._send(api.WRITE)

    def commit(self, labels: Mapping[str, str]) -> Digest:
        """Have it kept, with these labels, when it is on containerd's disk as a whole. It may be there already."""
        blob = Digest(f"sha256:{self._hash.hexdigest()}")
        if self._piece:
            self._send(api.WRITE)
        try:
            self._send(api.COMMIT, _PATIENCE_AT_END, total=self.size, expected=blob, labels=dict(labels))
        except Refused as error:
            if error.code is not Code.ALREADY_EXISTS:
                raise
            if UNCOMPRESSED in labels:  # whoever brought it may not have known
                self._content.label(blob, UNCOMPRESSED, labels[UNCOMPRESSED])
        self.is_there = True
        return blob

    def _send(self, action: api.WriteAction, patience: float | None = None, **fields: Any) -> None:
        """Send what has gathered, and wait until containerd has taken it."""
        data = bytes(self._piece)
        self._messages.put(
            api.WriteContentRequest(action=action, ref=self._ref, offset=self._sent, data=data, **fields)
        )
        reply = self._reply(_PATIENCE if patience is None else patience)
        self._sent += len(data)
        self._piece.clear()
        if action != api.STAT and reply.offset != self._sent:
            raise Refused(Code.UNKNOWN, f"containerd's content has {reply.offset} bytes of {self._sent} sent")

    def _reply(self, patience: float) -> Any:
        """What containerd answers next. A stream has a deadline as a whole, and none for each message."""
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            self._replies.cancel()

        clock = threading.Timer(patience, end)
        clock.daemon = True
        clock.start()
        try:
            return next(self._replies)
        except grpc.RpcError as error:
            if is_late.is_set():
                raise Refused(Code.UNAVAILABLE, f"containerd's content: no answer in {patience:g} seconds") from None
            raise _refused(error) from None
        except StopIteration:
            raise Refused(Code.UNAVAILABLE, "containerd ended the writing of its content") from None
        finally:
            clock.cancel()


def _bytes_of(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def _refused(error: Any) -> Refused:
    """What containerd answered, as our own answer to whoever asked."""
    name = error.code().name
    code = Code[name] if name in Code.__members__ else Code.UNKNOWN
    return Refused(code, f"containerd's content: {error.details()}")
