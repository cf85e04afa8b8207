"""Bytes between our own streams and a program elsewhere: what is typed goes there, what it writes comes out here.

The program is a `Peer`: the master of a terminal, or conmon's socket. What it writes is written before anything else is
read, so a slow reader slows the program down and nothing piles up.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from layerstore.patience import look_up
from layerstore.runtime.streams import terminal
from layerstore.runtime.streams.keys import Detach
from layerstore.runtime.streams.streams import Streams

__all__ = ["End", "Peer", "TerminalPeer", "relay", "write_all"]

_PIECE = 1 << 16
_AHEAD = 1 << 18
"""Bytes typed or piped in that a program has not taken yet: more are not read."""


class End(Enum):
    """Why no more bytes go to and fro."""

    CLOSED = "closed"
    """The program, or what holds its streams, has ended."""
    DETACHED = "detached"
    """The keys were typed, or our terminal has gone, and it runs on."""


class Peer(Protocol):
    """Whatever has a program's streams."""

    def fileno(self) -> int: ...

    def read(self) -> Sequence[tuple[int, bytes]] | None:
        """What it has written, each with 1 or 2 for the stream; None at the end. Nothing to read is an empty list."""
        ...

    def write(self, data: memoryview) -> int:
        """Give it as much as it takes without waiting; how many bytes that was."""
        ...

    def end_input(self) -> None:
        """There is no more to come."""
        ...


class TerminalPeer:
    """The master of a program's terminal. Closed by whoever gave it."""

    def __init__(self, master: int) -> None:
        self._master = master
        os.set_blocking(master, False)

    def fileno(self) -> int:
        return self._master

    def read(self) -> Sequence[tuple[int, bytes]] | None:
        try:
            data = os.read(self._master, _PIECE)
        except BlockingIOError:
            return []
        except OSError as error:
            if error.errno == errno.EIO:  # nobody has the terminal open any more (pty(7))
                return None
            raise
        return [(1, data)] if data else None

    def write(self, data: memoryview) -> int:
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.EIO:
                return len(data)  # nobody is left to read it
            raise

    def end_input(self) -> None:
        """Where the input of a terminal ends is the program's to say: nothing is closed."""


def relay(
    peer: Peer,
    streams: Streams,
    *,
    takes_input: bool,
    tty: bool = False,
    keys: bytes = b"",
    process: int | None = None,
) -> End:
    """Carry bytes until the program has closed its streams, the keys are typed, or `process` (a pidfd) has ended.

    `takes_input`: what our stdin has goes to the program. `tty`: it is a terminal's, raw, in which nobody can type an
    end: one that ends, or takes no more, has gone, and lets go of the program. Raises `OSError` if what we write to is
    closed (EPIPE).
    """
    try:
        return _relay(peer, streams, takes_input=takes_input, tty=tty, keys=keys, process=process)
    except OSError as error:
        if tty and error.errno == errno.EIO:  # what a terminal that hung up says
            return End.DETACHED
        raise


def _relay(peer: Peer, streams: Streams, *, takes_input: bool, tty: bool, keys: bytes, process: int | None) -> End:
    from selectors import EVENT_READ, EVENT_WRITE, PollSelector

    pending = bytearray()
    detach = Detach(keys)
    source = streams.stdin if takes_input else None
    is_raw = tty and terminal.is_terminal(source)
    is_ended = not takes_input
    if takes_input and source is None:
        peer.end_input()
        is_ended = True
    outputs = {1: streams.stdout, 2: streams.stderr}
    with PollSelector() as selector:
        peer_key = selector.register(peer.fileno(), EVENT_READ)
        if process is not None:
            selector.register(process, EVENT_READ)
        listens = False
        while True:
            wants = source is not None and not is_ended and len(pending) < _AHEAD
            if wants != listens and source is not None:
                if wants:
                    selector.register(source, EVENT_READ)
                else:
                    selector.unregister(source)
                listens = wants
            events = EVENT_READ | (EVENT_WRITE if pending else 0)
            if peer_key.events != events:
                peer_key = selector.modify(peer.fileno(), events)
            ready = {key.fd: happened for key, happened in selector.select(look_up())}
            if peer.fileno() in ready and not _carry(peer, outputs):
                return End.CLOSED
            if source is not None and source in ready:
                typed = os.read(source, _PIECE)
                data, is_detached = detach.feed(typed)
                pending += data
                if is_detached or (is_raw and not typed):
                    return End.DETACHED
                is_ended = not typed
            if pending:
                with memoryview(pending) as view:
                    taken = peer.write(view)
                del pending[:taken]
            if is_ended and not pending and takes_input:
                peer.end_input()
                takes_input = False
            if process is not None and process in ready:
                while _carry(peer, outputs, until_empty=True):
                    pass
                return End.CLOSED


def _carry(peer: Peer, outputs: dict[int, int | None], *, until_empty: bool = False) -> bool:
    """Write what the peer has. False at its end; `until_empty`: also when there is nothing at the moment."""
    pieces = peer.read()
    if pieces is None or (until_empty and not pieces):
        return False
    for stream, data in pieces:
        target = outputs.get(stream)
        if target is not None:
            write_all(target, data)
    return True


def write_all(fd: int, data: bytes) -> None:
    """Write all of it. One that is set not to wait is waited for."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            from selectors import EVENT_WRITE, PollSelector

            with PollSelector() as selector:
                selector.register(fd, EVENT_WRITE)
                selector.select()
