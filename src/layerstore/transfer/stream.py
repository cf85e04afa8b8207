"""An archive that can be read once, from beginning to end: standard input, or a compressed tar.

What it is for is known only at its end, so everything that may be a layer is staged as it passes, small members are
kept in memory, and nothing is spooled. Once the manifest has told which layers are wanted, the others are discarded. A
layer whose name is its DiffID, as docker has it since version 25 and skopeo always, is only hashed if the store has it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from layerstore.compression import Stream, open_stream, sniff
from layerstore.digest import DiffID, Digest
from layerstore.errors import DigestMismatch, InvalidArchive
from layerstore.transfer.archive import follow
from layerstore.transfer.documents import BLOB, BLOBS
from layerstore.transfer.incoming import Incoming
from layerstore.transfer.tarball import BLOCK, Member, is_header, members

if TYPE_CHECKING:
    from layerstore.layers import Layers, Progress, Staged

_KEPT_LIMIT: Final = 64 << 20
"""Bytes of documents in all."""

_SKIP: Final = 256 << 10

_DIGEST: Final = re.compile(f"(?:{re.escape(BLOBS)})?([0-9a-f]{{64}})(?:\\.tar)?")
"""A name that is the digest of what it names: docker's, and skopeo's."""


@contextmanager
def reading(raw: Any, layers: Layers, progress: Progress | None) -> Iterator[StreamArchive]:
    """Read an archive to its end. On the way out, what was staged and not used is discarded."""
    archive = StreamArchive(layers, progress)
    try:
        with layers.writeback(), open_stream(raw, limits=layers.limits) as stream:
            archive.read(stream)
        yield archive
    finally:
        archive.discard()


class StreamArchive:
    """The members of an archive that has passed. See `Documents`."""

    def __init__(self, layers: Layers, progress: Progress | None) -> None:
        self.limits = layers.limits
        self._layers = layers
        self._progress = progress
        self._members: dict[str, Member] = {}
        self._documents: dict[str, bytes] = {}
        self._staged: dict[str, Staged] = {}
        self._held: dict[str, DiffID] = {}
        self._leases: list[int] = []
        self._failures: dict[str, InvalidArchive] = {}
        self._all: list[Staged] = []
        self._kept = 0

    def document(self, name: str, kind: str = "manifest") -> bytes | None:
        """See `Documents`."""
        member = follow(self._members, name)
        if member is None:
            return None
        self.limits.check_document(kind, member.size, name)
        if member.name not in self._documents:
            raise InvalidArchive(f"{name} is no JSON", path=name)
        return self._documents[member.name]

    def size(self, name: str) -> int | None:
        """See `Documents`."""
        member = follow(self._members, name)
        return None if member is None else member.size

    def layers_of(self, image: Incoming) -> Mapping[DiffID, Staged]:
        """The staged layers of an image, or why there is one that cannot be. Those that the store has are left out."""
        found = {}
        for blob in image.layers:
            staged = self._layer(blob.member, blob.diff_id)
            actual = staged if isinstance(staged, str) else staged.diff_id
            if actual != blob.diff_id:
                raise DigestMismatch(f"layer {blob.member}", expected=blob.diff_id, actual=actual, layer=blob.diff_id)
            if not isinstance(staged, str):
                found[blob.diff_id] = staged
        return found

    def read(self, stream: Stream) -> None:
        """Take in all of an archive."""
        tar = _StreamInput(stream)
        for member in members(tar):
            self._members[member.name] = member
            if member.target is None:
                self._take(member, _MemberContent(tar, member.name, member.size))
                tar.check()
        tar.drain()

    def discard(self) -> None:
        """Give up what was staged. What has become part of an image is not touched by it."""
        for staged in self._all:
            self._layers.discard(staged)
        self._layers.end_leases(self._leases)

    # --- one member ---

    def _take(self, member: Member, content: _MemberContent) -> None:
        """Stage what looks like a layer, keep what looks like a document, and leave the rest to be skipped."""
        name = member.name
        for earlier in (self._documents, self._staged, self._held, self._failures):
            earlier.pop(name, None)  # the last member of a name counts
        head = content.look(BLOCK)
        if sniff(head) is not None or is_header(head) or (len(head) == BLOCK and not any(head)):
            try:
                if sniff(head) is not None or not self._hold(name, content):
                    self._staged[name] = self._stage(name, content, plain=sniff(head) is None)
            except InvalidArchive as error:
                self._failures[name] = error  # it matters only if it turns out to be a layer
        elif member.size <= BLOCK or (self.limits.may_be_document(member.size) and head.lstrip()[:1] in (b"{", b"[")):
            self._kept += member.size
            if self._kept > _KEPT_LIMIT:
                raise InvalidArchive(f"more than {_KEPT_LIMIT} bytes of JSON: this is no archive of images")
            self._documents[name] = content.rest()

    def _hold(self, name: str, content: _MemberContent) -> bool:
        """Pass over a layer that the store has, if its bytes are what its name says."""
        words = _DIGEST.fullmatch(name)
        diff_id = None if words is None else DiffID(Digest(f"sha256:{words[1]}"))
        leases = None if diff_id is None else self._layers.hold(diff_id, "it is being loaded")
        if diff_id is None or leases is None:
            return False
        self._leases += leases
        found = content.digest()
        if found != diff_id:
            raise DigestMismatch(f"layer {name}", expected=diff_id, actual=found, layer=diff_id)
        self._held[name] = diff_id
        return True

    def _stage(self, name: str, content: _MemberContent, *, plain: bool) -> Staged:
        blob = BLOB.fullmatch(name)
        expect = None if blob is None else Digest(f"sha256:{blob[1]}")
        label = name.removesuffix("/layer.tar").rpartition("/")[2][:12]
        if plain:
            # Its digest is its DiffID: hashed once.
            staged = self._layers.stage(
                content, expected=None if expect is None else DiffID(expect), label=label, progress=self._progress
            )
        else:
            stream = open_stream(content, expect=expect, limits=self.limits)
            try:
                staged = self._layers.stage(stream, label=label, progress=self._progress)
            finally:
                stream.close(wait=True)  # nobody else may read on before the thread has ended
        self._all.append(staged)
        return staged

    def _layer(self, name: str, diff_id: DiffID) -> Staged | DiffID:
        """A layer that was staged; the DiffID of one that was passed over."""
        member = follow(self._members, name)
        if member is None:
            raise InvalidArchive(f"layer {diff_id} ({name}) is not in the archive", layer=diff_id, path=name)
        if (failure := self._failures.get(member.name)) is not None:
            if failure.layer is None:
                failure.layer = diff_id
                failure.message = f"layer {diff_id}: {failure.message}"
            raise failure
        if member.name in self._held:
            return self._held[member.name]
        if member.name not in self._staged:
            # Too small to be told from a document, or no tar at all: then the unpacker says so.
            data = self._documents.get(member.name)
            if data is None:
                raise InvalidArchive(f"layer {diff_id} ({name}) is no tar", layer=diff_id, path=name)
            staged = self._layers.stage(BytesIO(data), expected=diff_id)
            self._all.append(staged)
            self._staged[member.name] = staged
        return self._staged[member.name]


class _StreamInput:
    """A stream, as `tarball` reads it. A failure stays: whoever was not told by `read` is told by `check`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._at = 0
        self._failure: BaseException | None = None

    def readinto(self, buffer: memoryview) -> int:
        self.check()
        try:
            count = self._stream.readinto(buffer)
        except BaseException as error:
            self._failure = error
            raise
        self._at += count
        return count

    def read(self, size: int) -> bytes:
        data = bytearray(size)
        filled = 0
        with memoryview(data) as view:
            while filled < size and (count := self.readinto(view[filled:])):
                filled += count
        return bytes(data[:filled])

    def skip(self, size: int) -> int:
        buffer = memoryview(bytearray(min(size, _SKIP)))
        left = size
        while left and (count := self.readinto(buffer[:left])):
            left -= count
        return size - left

    def tell(self) -> int:
        return self._at

    def check(self) -> None:
        """Raise what reading raised."""
        if self._failure is not None:
            raise self._failure

    def drain(self) -> None:
        """Read to the end of the stream: the padding of the tar, and what proves that a compressed one was whole."""
        while self.skip(_SKIP):
            pass

    def fail(self, failure: BaseException) -> None:
        """From here on `check` raises this."""
        self._failure = failure


class _MemberContent:
    """The content of one member of a stream."""

    def __init__(self, tar: _StreamInput, name: str, size: int) -> None:
        self._tar = tar
        self._name = name
        self._left = size
        self._head = b""

    def look(self, size: int) -> bytes:
        """The first bytes, which are read again."""
        self._head = self._tar.read(min(size, self._left))
        self._left -= len(self._head)
        return self._head

    def rest(self) -> bytes:
        """All of it."""
        head, self._head = self._head, b""
        return head + self._tar.read(self._left)

    def digest(self) -> str:
        """The digest of all of it."""
        found = hashlib.sha256()
        buffer = memoryview(bytearray(_SKIP))
        while count := self.readinto(buffer):
            found.update(buffer[:count])
        return f"sha256:{found.hexdigest()}"

    def readinto(self, buffer: memoryview, /) -> int:
        if self._head:
            count = min(len(self._head), len(buffer))
            buffer[:count] = self._head[:count]
            self._head = self._head[count:]
            return count
        if not self._left or not len(buffer):
            return 0
        count = self._tar.readinto(buffer[: self._left])
        if not count:
            failure = InvalidArchive(
                f"the archive ends within {self._name}", remedy="It was cut short: get it again.", path=self._name
            )
            self._tar.fail(failure)
            raise failure
        self._left -= count
        return count
