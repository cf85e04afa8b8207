"""Terminals: raw while a program has the keyboard, their size, and the socket by which a runtime hands one over."""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from layerstore import CannotRun, KernelError

__all__ = ["Console", "is_terminal", "raw", "set_size", "size"]

Size = tuple[int, int]
"""Rows and columns."""


def is_terminal(fd: int | None) -> bool:
    """Is it one? A descriptor that is closed is none."""
    try:
        return fd is not None and os.isatty(fd)
    except OSError:
        return False


def size(fd: int | None) -> Size | None:
    """Rows and columns of the terminal; None if it is none, or does not know them."""
    if fd is None:
        return None
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
    except OSError:
        return None
    return (rows, columns) if rows and columns else None


def set_size(fd: int, wanted: Size) -> None:
    """Give a terminal its size; programs in it get SIGWINCH from the kernel. One that has ended does not mind."""
    try:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *wanted, 0, 0))
    except OSError:
        pass


@contextmanager
def raw(fd: int | None) -> Iterator[None]:
    """While inside: each key goes on as it is typed, ctrl-c too, without an echo. No terminal: nothing happens."""
    if fd is None or not is_terminal(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSANOW)
    try:
        yield
    finally:
        # Once what the program wrote last is out, with what was typed ahead left to whoever reads next.
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


class Console:
    """The socket by which an OCI runtime hands over the terminal that it made (`--console-socket`).

    runc's docs/terminals.md has it: one message, with the master's descriptor as SCM_RIGHTS.
    """

    def __init__(self, folder: Path) -> None:
        """`folder`: a private one, in which `console` is made. Raises `KernelError`."""
        self.path = folder / "console"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with beside(folder) as short:
                self._socket.bind(f"{short}/console")
            self._socket.listen(1)
        except OSError as error:
            self._socket.close()
            raise KernelError("bind", error.errno or 0, path=self.path) from error

    def receive(self, ended: Callable[[], bool], timeout: float = 60.0) -> int | None:
        """The master of the terminal. None if the runtime ended without one (`ended`): it says why itself.

        Raises `CannotRun` after `timeout` seconds.
        """
        waited = 0.0
        while not select.select([self._socket], [], [], 0.02)[0]:
            if ended() and not select.select([self._socket], [], [], 0)[0]:
                return None
            waited += 0.02
            if waited > timeout:
                raise CannotRun(f"the runtime has made no terminal in {timeout:.0f} seconds")
        connection, _ = self._socket.accept()
        with connection:
            return _descriptor(connection)

    def close(self) -> None:
        """The socket and its file go."""
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _descriptor(connection: socket.socket) -> int:
    fds = array.array("i")
    _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_LEN(fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if not fds:
        raise CannotRun("the runtime has handed over no terminal")
    return fds[0]


@contextmanager
def beside(folder: Path) -> Iterator[str]:
    """While inside: a short name of the folder, for a socket's path may have 107 bytes (unix(7))."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
