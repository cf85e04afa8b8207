"""Terminals: raw while a program has the keyboard, their size, and those that are made for a program."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore import KernelError

__all__ = ["Pair", "beside", "is_terminal", "raw", "set_size", "size"]

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
    """While inside: each key goes on as it is typed, ctrl-c too, without an echo. No terminal: nothing happens.

    One that has gone meanwhile is left as it is.
    """
    if fd is None or not is_terminal(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSANOW)
    try:
        yield
    finally:
        # Once what the program wrote last is out, with what was typed ahead left to whoever reads next.
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


class Pair:
    """A terminal that is made for a program: `master` is ours, `slave` is what it is given. It is raw."""

    def __init__(self) -> None:
        """Raises `KernelError`."""
        try:
            self.master, self.slave = os.openpty()
            tty.setraw(self.slave, termios.TCSANOW)
        except OSError as error:
            raise KernelError("openpty", error.errno or 0) from error

    def given(self) -> None:
        """The program has it: that it has ended shows from now on."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1

    def keep(self) -> None:
        """Have what the program writes from now on read by somebody, or it would wait for that for ever."""
        from subprocess import DEVNULL, Popen

        os.set_blocking(self.master, True)
        Popen(
            ["cat"],
            stdin=self.master,
            stdout=DEVNULL,
            stderr=DEVNULL,
            cwd="/",
            start_new_session=True,
        ).returncode = 0  # nobody waits for it

    def close(self) -> None:
        """Both ends."""
        self.given()
        os.close(self.master)


@contextmanager
def beside(folder: Path) -> Iterator[str]:
    """While inside: a short name of the folder, for a socket's path may have 107 bytes (unix(7))."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
