"""A process that a container's tree was given to, as its users hold it."""

from __future__ import annotations

import errno
import os
import select
import signal as signals
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from layerstore.errors import KernelError, NotFound
from layerstore.kernel.processes.identity import Identity, identity_of
from layerstore.patience import at_once
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.containers.container import Container


@in_words("process {0.pid}")
class Process:
    """A process that has a container's tree in a mount namespace of its own. While it lives, the container is running.

    It need not be a child of this process (`Container.processes` finds those that others started); how it ended, only
    its parent is told. It goes on when this object, or this process, ends. Thread-safe.
    """

    def __init__(
        self,
        container: Container,
        identity: Identity,
        pidfd: int | None,
        root: bytes,
        terminal: int = -1,
        *,
        settles: bool = True,
    ) -> None:
        """`pidfd`: of a child of this process; it and `terminal` are this object's from here on.

        `settles`: who sees that it has ended writes that down; else whoever looks at the container next does.
        """
        self._container = container
        self._identity = identity
        self._root = root
        self._fd = -1 if pidfd is None else pidfd
        self._terminal = terminal
        self._settles = settles
        self._is_child = pidfd is not None
        self._parent = os.getpid()
        self._code: int | None = None
        self._ended = False
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """Its number, as this process has it."""
        return self._identity.pid

    @property
    def container(self) -> Container:
        """The container whose tree it has."""
        return self._container

    @property
    def pidfd(self) -> int:
        """A descriptor of it (pidfd_open(2)), readable when it has ended; it belongs to this object.

        Raises `NotFound` if it has ended and is no child of this process.
        """
        with self._lock:
            if self._fd < 0:
                self._fd = self._opened()
            return self._fd

    @property
    def terminal(self) -> int | None:
        """The descriptor of the terminal that was made for it, if one was; it belongs to this object."""
        return None if self._terminal < 0 else self._terminal

    def fileno(self) -> int:
        """`pidfd`, for `select` and event loops."""
        return self.pidfd

    @property
    def is_alive(self) -> bool:
        """Has it not ended? Asked of the kernel."""
        return not self._ended and self._identity.is_alive

    @property
    def returncode(self) -> int | None:
        """How it ended, as `subprocess` has it (a signal is negative); None while it lives, and of no child of ours."""
        return self._code

    def poll(self) -> int | None:
        """Has it ended? `returncode`, of now. Waits for nothing."""
        if not self._ended and not self._identity.is_alive:
            self._end()
        return self._code

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until it has ended, at most `timeout` seconds; `returncode`. Raises `TimeoutError`.

        If it was the last one of the container, that counts as unmounted from then on.
        """
        if not self._ended:
            try:
                fd = self.pidfd
            except NotFound:
                pass
            else:
                _wait(fd, timeout, self.pid)
            self._end()
        return self._code

    def kill(self, signal: int = signals.SIGKILL) -> None:
        """Send it a signal. One that has ended is no error."""
        if not self.is_alive:
            return
        try:
            signals.pidfd_send_signal(self.pidfd, signal)
        except (ProcessLookupError, NotFound):
            pass
        except OSError as error:
            raise KernelError("pidfd_send_signal", error.errno or errno.EIO) from None

    def keep(self, pid: int) -> Process | None:
        """Count the process `pid` as one of the container's, too: it has, or was given, the tree by this one.

        For what a runtime starts and leaves behind: the container is running until that has ended as well. To be told
        while this one lives, else the container may have been taken for ended before. None if `pid` has ended already.
        """
        identity = identity_of(pid)
        if identity is None:
            return None
        root = self._root if identity.mount_namespace == self._identity.mount_namespace else b"/"
        return self._container._keep(identity, root)

    def close(self) -> None:
        """Give back the descriptors. The process goes on; how a child of this one ends is not known then."""
        with self._lock:
            self._let_go()

    def _opened(self) -> int:
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            raise _ended(self.pid) from None
        except OSError as error:
            raise KernelError("pidfd_open", error.errno or errno.EIO) from None
        if not self._identity.is_alive:  # else the number was its own when it was opened
            os.close(fd)
            raise _ended(self.pid)
        return fd

    def _end(self) -> None:
        """It has ended: learn how, and write down what that means for the container."""
        with self._lock:
            if self._ended:
                return
            if self._is_child and os.getpid() == self._parent:
                try:
                    found = os.waitid(os.P_PIDFD, self._fd, os.WEXITED)
                except ChildProcessError:  # somebody else has waited for all children
                    found = None
                if found is not None:
                    self._code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            self._ended = True
        if self._settles:
            self._container._settle()

    def _let_go(self) -> None:
        fd, terminal = self._fd, self._terminal
        self._fd = self._terminal = -1
        if self._is_child and not self._ended and os.getpid() == self._parent:
            _left.append(fd)
            fd = -1
        self._is_child = False
        for number in (fd, terminal):
            if number >= 0:
                os.close(number)

    def __del__(self) -> None:
        self._let_go()

    def __repr__(self) -> str:
        return f"<Process {self.pid} of {self._container!r}>"


_left: list[int] = []
"""Children that nobody waits for any more: who starts the next one buries those that have ended."""


def bury() -> None:
    """Wait for the children of this process that have ended, and that nobody else will wait for."""
    for _ in range(len(_left)):
        with suppress(IndexError):  # another thread does the same
            fd = _left.pop(0)
            try:
                ended = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG) is not None
            except ChildProcessError:
                ended = True
            if ended:
                os.close(fd)
            else:
                _left.append(fd)


os.register_at_fork(after_in_child=_left.clear)


def _wait(fd: int, timeout: float | None, pid: int) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while not poll.poll(at_once(left := None if deadline is None else deadline - time.monotonic()) * 1000):
        if left is not None and left <= 0:
            raise TimeoutError(f"process {pid} has not ended after {timeout} seconds")


def _ended(pid: int) -> NotFound:
    return NotFound(f"process {pid} has ended", remedy="`Container.processes()` tells which live.")
