"""A program that was started in a container, in the shape of `subprocess.Popen`."""

from __future__ import annotations

import signal as signals
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, Protocol, Self

from layerstore import Args
from layerstore.runtime.boxes.piping import Pipes, Text, Traffic

__all__ = ["Box", "Program"]


class Program(Protocol):
    """What runs: by an engine, or by namespaces alone."""

    @property
    def pid(self) -> int:
        """Of the program, as the host sees it."""
        ...

    @property
    def is_alive(self) -> bool:
        """Has it not ended?"""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended; 128 + N by signal N. Raises `TimeoutError`, `CannotRun`."""
        ...

    def send(self, signal: int) -> None:
        """Send the program a signal."""
        ...

    def end(self) -> None:
        """Kill all of its processes."""
        ...


class Box:
    """See `layerstore.Running`."""

    def __init__(self, args: Args, program: Program, pipes: Pipes, text: Text, ended: Callable[[], object]) -> None:
        """`ended` gives back what the program had, and is called once, when it has ended."""
        self.args = args
        self.stdin: IO[Any] | None = pipes.ours.get(0)
        self.stdout: IO[Any] | None = pipes.ours.get(1)
        self.stderr: IO[Any] | None = pipes.ours.get(2)
        self.returncode: int | None = None
        self._program = program
        self._traffic = Traffic(pipes.ours, text)
        self._ended = ended
        self._error: BaseException | None = None
        self._is_over = False
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """Of the program, as the host sees it."""
        return self._program.pid

    def poll(self) -> int | None:
        """The return code, if it has ended; None else. Raises `CannotRun` if it could not be started."""
        if not self._is_over and self._program.is_alive:
            return None
        return self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the return code. Raises `subprocess.TimeoutExpired`, `CannotRun` if it was never started.

        Whoever has made pipes must read them meanwhile: see `communicate`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._lock.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            raise subprocess.TimeoutExpired(self._command, timeout or 0.0)
        try:
            if not self._is_over:
                try:
                    left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                    self.returncode = self._program.wait(left)
                except TimeoutError:
                    raise subprocess.TimeoutExpired(self._command, timeout or 0.0) from None
                except Exception as error:
                    self._error = error
                self._is_over = True
                self._ended()
        finally:
            self._lock.release()
        if self._error is not None:
            raise self._error
        assert self.returncode is not None
        return self.returncode

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Send it `input`, and gather what it writes, until it has ended. Of what is no pipe, None comes back.

        Raises `subprocess.TimeoutExpired`; then it may be called again, without `input`, and nothing is lost.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self._traffic.send(input)
        if not self._traffic.run(deadline):
            raise self._late(timeout)
        try:
            self.wait(None if deadline is None else max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            raise self._late(timeout) from None
        return self._traffic.came(1), self._traffic.came(2)

    def _late(self, timeout: float | None) -> subprocess.TimeoutExpired:
        out, err = self._traffic.came(1), self._traffic.came(2)
        return subprocess.TimeoutExpired(self._command, timeout or 0.0, output=out, stderr=err)

    @property
    def _command(self) -> Any:
        return self.args

    def send_signal(self, signal: int) -> None:
        """Send the program a signal. It is the first of its pid namespace: what it does not catch, it does not get."""
        if signal == signals.SIGKILL:
            self.kill()
        elif not self._is_over:
            self._program.send(signal)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        """Kill it, and all processes that it has started."""
        if not self._is_over:
            self._program.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pipes, and wait for its end."""
        for file in (self.stdout, self.stderr):
            if file is not None:
                file.close()
        try:
            if self.stdin is not None:
                self.stdin.close()
        except BrokenPipeError:
            pass
        finally:
            if kind is None:
                self.wait()
            else:
                self._wait_quietly()

    def _wait_quietly(self) -> None:
        """There is an error on its way already."""
        try:
            self.wait()
        except Exception:
            pass

    def __repr__(self) -> str:
        return f"<Box {self.args!r} {'running' if self.returncode is None else self.returncode}>"
