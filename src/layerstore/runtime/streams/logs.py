"""What a program wrote, as conmon kept it (`k8s-file`) or docker does (`json-file`): read, its end first, followed.

A line of k8s-file is `TIME stdout|stderr P|F TEXT`; P: the program's line goes on in the next entry of that stream. A
line of neither form, as a power cut leaves it, is passed over.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from layerstore import KernelError, open_own
from layerstore.patience import look_up
from layerstore.runtime.streams.pump import write_all
from layerstore.runtime.streams.streams import Streams
from layerstore.values import frozen

__all__ = ["Entry", "nanoseconds", "read", "stamp", "write"]

_PIECE = 1 << 16
_ENTRY = re.compile(rb"(\S+) (stdout|stderr) ([PF])(?::\S*)? (.*)", re.DOTALL)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")
_STREAMS = {"stdout": 1, "stderr": 2}


@frozen
class Entry:
    """A piece of what a program wrote: a line with its end, or a part of one."""

    time: int
    """When it was written: nanoseconds since the epoch."""
    stream: int
    """1: standard output, 2: standard error."""
    data: bytes


def read(
    path: Path,
    *,
    since: int | None = None,
    until: int | None = None,
    tail: int | None = None,
    follow: Callable[[], bool] | None = None,
) -> Iterator[Entry]:
    """The entries of a log, the oldest first. `since`, `until`: nanoseconds since the epoch, both included.

    `tail`: of the last so many lines only. `follow`: whatever is written later too, for as long as it says that
    somebody writes. Raises `KernelError`.
    """
    try:
        file = FileIO(path, opener=open_own)
    except FileNotFoundError:
        return  # nothing was written, or nothing is kept
    except OSError as error:
        raise KernelError("open", error.errno or 0, path=path) from error
    with file:
        if tail is not None:
            file.seek(_start_of(file, tail))
        for entry in _lines(file, path, until, follow):
            if until is not None and entry.time > until:
                return
            if since is None or entry.time >= since:
                yield entry


def write(entries: Iterator[Entry], streams: Streams, *, timestamps: bool = False) -> None:
    """Write them to our streams, each to its own. `timestamps`: before each line, when it was written."""
    targets = {1: streams.stdout, 2: streams.stderr}
    begins = {1: True, 2: True}
    for entry in entries:
        target = targets[entry.stream]
        if target is None:
            continue
        data = entry.data
        if timestamps and begins[entry.stream]:
            data = stamp(entry.time).encode() + b" " + data
        begins[entry.stream] = data.endswith(b"\n")
        write_all(target, data)


def stamp(moment: int) -> str:
    """Nanoseconds since the epoch as docker shows them in logs: RFC 3339, in UTC, with nine digits."""
    seconds, rest = divmod(moment, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def nanoseconds(text: str) -> int | None:
    """The nanoseconds since the epoch of a time in RFC 3339; None if it is none."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    whole, fraction, zone = found.groups()
    try:
        return _seconds(whole, zone) * 10**9 + int((fraction or "0").ljust(9, "0"))
    except ValueError:
        return None


@lru_cache(maxsize=64)
def _seconds(whole: str, zone: str) -> int:
    return int(datetime.fromisoformat(whole + zone.replace("Z", "+00:00")).timestamp())


def _lines(file: BinaryIO, path: Path, until: int | None, follow: Callable[[], bool] | None) -> Iterator[Entry]:
    """Entries from where the file stands to its end; followed, into the file that takes its place."""
    rest, pause = b"", 0.01
    current = file
    try:
        while True:
            is_written = follow is not None and follow()
            is_late = until is not None and time.time_ns() > until
            is_replaced = _is_replaced(current, path)
            while piece := _read(current, path):
                pause = 0.01
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    entry = _entry(line)
                    if entry is not None:
                        yield entry
            if is_replaced:  # and all that the former one had is read by now
                successor = FileIO(path, opener=open_own)
                if current is not file:
                    current.close()
                current, rest = successor, b""
                continue
            if not is_written or is_late:
                return
            time.sleep(min(pause, look_up()))
            pause = min(pause * 1.5, 0.2)
    finally:
        if current is not file:
            current.close()


def _read(file: BinaryIO, path: Path) -> bytes:
    try:
        return file.read(_PIECE)
    except OSError as error:
        raise KernelError("read", error.errno or 0, path=path) from error


def _is_replaced(file: BinaryIO, path: Path) -> bool:
    """Has conmon put another file in its place, as it does when a log is as long as it may be?"""
    ours = os.fstat(file.fileno())
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
        return True
    if there.st_size < file.tell():
        file.seek(0)  # cut short by hand
    return False


def _entry(line: bytes) -> Entry | None:
    if line.startswith(b"{"):
        return _docker_entry(line)
    found = _ENTRY.fullmatch(line)
    if found is None:
        return None
    moment, stream, end, text = found.groups()
    when = nanoseconds(moment.decode("ascii", "replace"))
    return None if when is None else Entry(when, _STREAMS[stream.decode()], text + (b"\n" if end == b"F" else b""))


def _docker_entry(line: bytes) -> Entry | None:
    try:
        facts = json.loads(line)
        when = nanoseconds(facts["time"])
        return None if when is None else Entry(when, _STREAMS[facts["stream"]], str(facts["log"]).encode())
    except (ValueError, KeyError, TypeError):
        return None


def _start_of(file: BinaryIO, lines: int) -> int:
    """Where the last so many lines begin: read from the end, so that a long log costs no more than a short one."""
    end = file.seek(0, os.SEEK_END)
    found = 0
    for start, line in _backwards(file, end) if lines > 0 else ():
        if _ends_line(line):
            if found == lines:
                return start + len(line) + 1
            found += 1
        elif not found and _entry(line) is not None:
            found = 1  # the last line is not finished
    return 0 if lines > 0 else end


def _backwards(file: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
    """Where each line begins, and the line: the last first."""
    held, at = b"", end
    while at > 0:
        size = min(_PIECE, at)
        at -= size
        file.seek(at)
        held = file.read(size) + held
        beyond = len(held)
        while (cut := held.rfind(b"\n", 0, beyond)) >= 0:
            yield at + cut + 1, held[cut + 1 : beyond]
            beyond = cut
        held = held[:beyond]
    yield 0, held


def _ends_line(line: bytes) -> bool:
    entry = _entry(line)
    return entry is not None and entry.data.endswith(b"\n")
