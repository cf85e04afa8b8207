"""A block device that remembers: each write and flush of a filesystem on it, with its data, in their order.

It is a loop device over a file that is a filesystem of its own: a process behind /dev/fuse serves that one file, and
notes what it is asked. (The idea is that of dm-log-writes, which needs device-mapper.) The kernel sends each write
of the loop device at once, and an fsync for each flush. From what was noted, the device is made again as any power cut
could have left it: what came before the last flush is there, and of what came after it any part.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import field

from layerstore.testing.filesystems import enter_private_namespace, unmount
from layerstore.values import define, frozen

__all__ = ["BLOCK", "Cut", "Entry", "Flush", "Recorder", "Write", "cuts", "entries"]

BLOCK = 4096
"""Bytes that a disk writes wholly or not at all. A larger write may be torn between two of these."""

# linux/fuse.h: requests that are answered; to all others the answer is that there is no such call.
_GETATTR, _SETATTR, _OPEN, _READ, _WRITE, _STATFS, _RELEASE, _FSYNC = 3, 4, 14, 15, 16, 17, 18, 20
_FLUSH, _INIT, _ACCESS, _DESTROY = 25, 26, 34, 38
_FORGET, _INTERRUPT, _BATCH_FORGET = 2, 36, 42
_UNANSWERED = frozenset({_FORGET, _INTERRUPT, _BATCH_FORGET})
_ROOT = 1
_MAJOR, _MINOR = 7, 31
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22
_KEEP_CACHE = 1 << 1
_PAGES = 256

_REQUEST, _REPLY = struct.Struct("=IIQQIIIHH"), struct.Struct("=IiQ")
_READ_IN = struct.Struct("=QQIIQII")
_WRITE_IN = struct.Struct("=QQIIQII")
_ATTRIBUTES = struct.Struct("=QIIQQQQQQIIIIIIIIII")
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")
_OPEN_OUT = struct.Struct("=QII")
_STATFS_OUT = struct.Struct("=QQQQQIII28x")

_HEAD = struct.Struct("=QI")
_NO_DATA = 0xFFFFFFFF
"""As a length in the log: it was a flush."""


@frozen
class Write:
    """Data that came for one place of the device."""

    offset: int
    data: bytes = field(repr=False)


@frozen
class Flush:
    """All that came before is on the disk when this is answered."""


Entry = Write | Flush


@frozen
class Cut:
    """One power cut: the first `whole` entries of the log are on the disk, and these pieces of those that follow.

    `after` it nothing more had come than so many entries. `pieces` are places and data, in the order of their coming.
    """

    whole: int
    after: int
    pieces: tuple[tuple[int, bytes], ...] = field(default=(), repr=False)


@define
class Recorder:
    """Serves `image` at `device`, a file that it makes, for as long as the context lasts; a log lies in `log`."""

    image: Path
    device: Path
    log: Path
    _process: int = 0

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Have it there. What is mounted from it has to be unmounted before the end."""
        self.device.touch()
        self.log.write_bytes(b"")
        fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        try:
            mode = f"{stat.S_IFREG | 0o600:o}"
            options = f"fd={fuse},rootmode={mode},user_id=0,group_id=0"
            command = ["mount", "-i", "-t", "fuse", "-o", options, "recorder", str(self.device)]
            subprocess.run(command, check=True, pass_fds=[fuse])
            self._process = os.fork()
            if self._process == 0:
                _serve_apart(fuse, self)
        finally:
            os.close(fuse)
        try:
            yield
        finally:
            unmount(self.device)
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            self.device.unlink()

    def noted(self) -> int:
        """How many bytes the log has by now: a mark, for `entries`."""
        return self.log.stat().st_size


def entries(log: Path, until: int | None = None) -> list[Entry]:
    """What is in a log, up to a mark."""
    found: list[Entry] = []
    data = memoryview(log.read_bytes())[:until]
    at = 0
    while at < len(data):
        offset, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if length == _NO_DATA:
            found.append(Flush())
        else:
            found.append(Write(offset, bytes(data[at : at + length])))
            at += length
    return found


def cuts(log: Sequence[Entry], more: int, dice: random.Random) -> list[Cut]:
    """Where the power may fail: at each flush, at the end of the log, and at so many `more` moments in between.

    At these, each piece of what came after the last flush is on the disk or not, by chance: a disk writes in any order.
    In the order of `whole`, so that an image can be brought from one to the next.
    """
    flushes = [number + 1 for number, entry in enumerate(log) if isinstance(entry, Flush)]
    found = [Cut(flush, flush) for flush in flushes]
    found.append(Cut(max(flushes, default=0), len(log)))
    for _ in range(more):
        after = dice.randrange(len(log) + 1)
        whole = max((flush for flush in flushes if flush <= after), default=0)
        share = dice.choice((0.1, 0.5, 0.9, 1.0))
        late = [entry for entry in log[whole:after] if isinstance(entry, Write)]
        pieces = [piece for entry in late for piece in _pieces(entry) if dice.random() < share]
        found.append(Cut(whole, after, tuple(pieces)))
    return sorted(found, key=lambda cut: cut.whole)


def _pieces(entry: Write) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(entry.data):
        end = at + BLOCK - (entry.offset + at) % BLOCK
        yield entry.offset + at, entry.data[at:end]
        at = end


# --- the process that serves -----------------------------------------------------------------------------------------


def _serve_apart(fuse: int, recorder: Recorder) -> None:
    """In a mount namespace of its own, without the device.

    For whoever dies last in a namespace unmounts what is mounted there, before the kernel closes what he had open: if
    that were who serves, he would wait for himself, and with him whoever syncs or mounts anything on this machine.
    """
    try:
        enter_private_namespace()
        unmount(recorder.device)
        _Server(fuse, os.open(recorder.image, os.O_RDWR), os.open(recorder.log, os.O_WRONLY | os.O_APPEND)).serve()
    finally:
        os._exit(0)


@frozen
class _Server:
    """One file, by the protocol of /dev/fuse."""

    fuse: int
    image: int
    log: int

    def serve(self) -> None:
        """Answer until the filesystem is unmounted."""
        while True:
            try:
                request = os.read(self.fuse, _PAGES * 4096 + 8192)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue
                raise
            _, call, ticket, *_ = _REQUEST.unpack_from(request)
            if call in _UNANSWERED:
                continue
            answer = self._answer(call, memoryview(request)[_REQUEST.size :])
            body = b"" if isinstance(answer, int) else answer
            number = -answer if isinstance(answer, int) else 0
            os.write(self.fuse, _REPLY.pack(_REPLY.size + len(body), number, ticket) + body)
            if call == _DESTROY:
                return

    def _answer(self, call: int, body: memoryview) -> bytes | int:
        """What is sent back; a number is an errno."""
        if call == _INIT:
            flags = _BIG_WRITES | _MAX_PAGES
            return _INIT_OUT.pack(_MAJOR, _MINOR, 1 << 17, flags, 12, 9, _PAGES * 4096, 1, _PAGES, 0, 0)
        if call in (_GETATTR, _SETATTR):
            return self._attributes()
        if call == _OPEN:
            return _OPEN_OUT.pack(0, _KEEP_CACHE, 0)
        if call == _READ:
            _, offset, size, *_ = _READ_IN.unpack_from(body)
            return os.pread(self.image, size, offset)
        if call == _WRITE:
            _, offset, size, *_ = _WRITE_IN.unpack_from(body)
            self._write(offset, body[_WRITE_IN.size : _WRITE_IN.size + size])
            return struct.pack("=II", size, 0)
        if call == _FSYNC:
            os.write(self.log, _HEAD.pack(0, _NO_DATA))
            return b""
        if call == _STATFS:
            return _STATFS_OUT.pack(1 << 20, 1 << 20, 1 << 20, 1, 0, BLOCK, 255, BLOCK)
        return b"" if call in (_FLUSH, _RELEASE, _ACCESS, _DESTROY) else errno.ENOSYS

    def _write(self, offset: int, data: memoryview) -> None:
        os.writev(self.log, [_HEAD.pack(offset, len(data)), data])
        os.pwrite(self.image, data, offset)

    def _attributes(self) -> bytes:
        size = os.fstat(self.image).st_size
        numbers = (stat.S_IFREG | 0o600, 1, 0, 0, 0, BLOCK, 0)
        return _ATTRIBUTES.pack(3600, 0, 0, _ROOT, size, size >> 9, 0, 0, 0, 0, 0, 0, *numbers)
