"""Conmon's attach socket: the streams of a program that outlives the command which started it.

The socket is of packets (SOCK_SEQPACKET). Those that conmon sends begin with a byte that says which stream the rest is
of (2: standard output, 3: standard error); what it is sent is standard input, and a half-closed socket is its end. The
size of a terminal goes by the fifo `ctl`, a line each: `1 ROWS COLUMNS`. See conmon's src/conn_sock.c and ctrl.c.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from layerstore import KernelError
from layerstore.runtime.streams import terminal
from layerstore.runtime.streams.pump import End, relay
from layerstore.runtime.streams.signals import passed_on
from layerstore.runtime.streams.streams import Streams

__all__ = ["Attachment", "resize"]

_STREAMS = {2: 1, 3: 2}
_PACKET = 8192
"""Bytes of one packet to conmon, whose buffer is larger than that."""


class Attachment:
    """A connection to the streams of a program: to be made before the program is started, if none of it may be missed.

    `folder` is where conmon has its `attach` and `ctl`.
    """

    def __init__(self, folder: Path, *, patience: float = 5.0) -> None:
        """Connect. `patience`: seconds for which conmon may take to listen. Raises `KernelError`."""
        self._folder = folder
        self._socket = _connected(folder, patience)

    def relay(
        self, streams: Streams, *, tty: bool, takes_input: bool, signal: Callable[[int], object] | None = None
    ) -> End:
        """Carry bytes until the program's streams are closed, or, with `tty`, the keys are typed or our terminal goes.

        `signal` sends the program a signal: each that this process gets, if `streams` says so. With `tty` the
        program's terminal has the size of ours, and ours is raw meanwhile.
        """
        send = signal if streams.signals else None
        peer = _ConmonPeer(self._socket)
        if not tty:
            with passed_on(send):
                return relay(peer, streams, takes_input=takes_input)
        with passed_on(send, resized=lambda: self._resize(streams)):
            self._resize(streams)
            with terminal.raw(streams.stdin if takes_input else None):
                return relay(peer, streams, takes_input=takes_input, tty=True, keys=streams.detach_keys)

    def _resize(self, streams: Streams) -> None:
        wanted = terminal.size(streams.stdout) or terminal.size(streams.stdin)
        if wanted is not None:
            resize(self._folder, wanted)

    def close(self) -> None:
        """Let go of the streams. The program runs on."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def resize(folder: Path, wanted: tuple[int, int]) -> None:
    """Give the program's terminal this size (rows, columns). Where no conmon listens any more, nothing happens."""
    try:
        fd = os.open(folder / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return
        raise KernelError("open", error.errno or 0, path=folder / "ctl") from error
    try:
        os.write(fd, b"1 %d %d\n" % wanted)
    except (BlockingIOError, BrokenPipeError):
        pass
    finally:
        os.close(fd)


def _connected(folder: Path, patience: float) -> socket.socket:
    deadline = time.monotonic() + patience
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with terminal.beside(folder) as short:
                connection.connect(f"{short}/attach")
            connection.setblocking(False)
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise KernelError("connect", error.errno or 0, path=folder / "attach") from error
            time.sleep(0.01)
        else:
            return connection


class _ConmonPeer:
    """The socket, as `relay` wants it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Sequence[tuple[int, bytes]] | None:
        try:
            packet = self._socket.recv(1 << 16)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            return None
        if not packet:
            return None
        stream = _STREAMS.get(packet[0])
        return [] if stream is None else [(stream, packet[1:])]

    def write(self, data: memoryview) -> int:
        try:
            return self._socket.send(data[:_PACKET])
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            return len(data)  # it has ended, which is read soon

    def end_input(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
