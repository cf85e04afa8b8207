"""A program in the foreground, without conmon: its streams are ours, or a terminal that its runtime makes.

What is started has the descriptors of `Foreground`, and `--console-socket` with its path where there is one:

    with Foreground(streams, folder, tty=True, takes_input=True) as front:
        process = container.launch([..., *front.arguments, ...], stdin=front.stdin, ...)
        front.attend(process.pidfd, send)
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from layerstore.runtime.streams import terminal
from layerstore.runtime.streams.pump import End, TerminalPeer, relay
from layerstore.runtime.streams.signals import passed_on
from layerstore.runtime.streams.streams import Streams

__all__ = ["Foreground"]


class Foreground:
    """The streams of one program that is run in the foreground.

    `stdin`, `stdout`, `stderr` are descriptors for the runtime to be started with; `arguments` for its command line.
    """

    def __init__(self, streams: Streams, folder: Path, *, tty: bool, takes_input: bool) -> None:
        """`folder`: a private one, for the socket of a terminal. `takes_input`: our standard input goes to it."""
        self._streams = streams
        self._takes_input = takes_input
        self._stack = ExitStack()
        try:
            self._nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._stack.callback(os.close, self._nothing)
            self._console = self._stack.enter_context(terminal.Console(folder)) if tty else None
        except BaseException:
            self._stack.close()
            raise
        self.arguments: tuple[str, ...] = ()
        if self._console is not None:
            self.arguments = ("--console-socket", os.fspath(self._console.path))
            self.stdin = self.stdout = self._nothing
            self.stderr = self._or_nothing(streams.stderr)  # for what the runtime itself has to say
        else:
            self.stdin = self._or_nothing(streams.stdin if takes_input else None)
            self.stdout = self._or_nothing(streams.stdout)
            self.stderr = self._or_nothing(streams.stderr)

    def _or_nothing(self, fd: int | None) -> int:
        return self._nothing if fd is None else fd

    def attend(self, process: int, send: Callable[[int], object]) -> End:
        """Until the process (a pidfd) has ended, or the keys are typed: carry bytes, pass on signals and sizes.

        `send` gives the program a signal. Who detached has to see that the terminal stays open: `keep_terminal`.
        """
        signals = send if self._streams.signals else None
        if self._console is None:
            with passed_on(signals):
                select.select([process], [], [])
            return End.CLOSED
        master = self._console.receive(lambda: bool(select.select([process], [], [], 0)[0]))
        if master is None:
            return End.CLOSED
        self._master = master
        self._stack.callback(os.close, master)
        with passed_on(signals, resized=self._resize):
            self._resize()
            with terminal.raw(self._streams.stdin if self._takes_input else None):
                return relay(
                    TerminalPeer(master),
                    self._streams,
                    takes_input=self._takes_input,
                    keys=self._streams.detach_keys,
                    process=process,
                )

    def _resize(self) -> None:
        wanted = terminal.size(self._streams.stdout) or terminal.size(self._streams.stdin)
        if wanted is not None:
            terminal.set_size(self._master, wanted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
