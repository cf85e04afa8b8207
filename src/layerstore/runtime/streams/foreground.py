"""A program in the foreground, without conmon: its streams are ours, or a terminal that stands between.

What is started has the descriptors of `Foreground` for its standard streams:

    with Foreground(streams, tty=True, takes_input=True) as front:
        process = container.launch(argv, root=root, stdin=front.stdin, stdout=front.stdout, stderr=front.stderr)
        end = front.attend(process.pidfd, send=process.kill, resized=lambda: process.kill(SIGWINCH))

runc takes no `--console-socket` in the foreground: each runtime there copies between the terminal that it is given and
the one that it makes inside. The one that it is given is not ours but one of a pair, so that keys can let go of it.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from layerstore.patience import look_up
from layerstore.runtime.streams import terminal
from layerstore.runtime.streams.pump import End, TerminalPeer, relay
from layerstore.runtime.streams.signals import passed_on
from layerstore.runtime.streams.streams import Streams

__all__ = ["Foreground"]

_MOMENT = 0.02
"""Seconds after which a program is one that goes on."""


class Foreground:
    """The streams of one program that is run in the foreground: `stdin`, `stdout`, `stderr` are for it to be given."""

    def __init__(self, streams: Streams, *, tty: bool, takes_input: bool) -> None:
        """`takes_input`: our standard input goes to it. Raises `KernelError`."""
        self._streams = streams
        self._takes_input = takes_input
        self._stack = ExitStack()
        self._pair: terminal.Pair | None = None
        if tty:
            self._pair = terminal.Pair()
            self._stack.callback(self._pair.close)
            self._set_size(self._pair)
            self.stdin = self.stdout = self.stderr = self._pair.slave
            return
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._stack.callback(os.close, nothing)
        self.stdin = nothing if streams.stdin is None or not takes_input else streams.stdin
        self.stdout = nothing if streams.stdout is None else streams.stdout
        self.stderr = nothing if streams.stderr is None else streams.stderr

    def attend(
        self,
        process: int,
        *,
        send: Callable[[int], object],
        resized: Callable[[], object] | None = None,
        goes_on: Callable[[], object] = lambda: None,
    ) -> End:
        """Until the process (a pidfd) has ended, the keys are typed, or our terminal goes: carry bytes, signals, sizes.

        `send` gives the program a signal. `resized` is called when its terminal has another size, of which the one
        inside that the runtime makes has to be told. `goes_on` is called if it has not ended within a moment, or has a
        terminal. A program that was let go of goes on: what it writes is read and thrown away.
        """
        signals = send if self._streams.signals else None
        pair = self._pair
        if pair is None:
            with passed_on(signals):
                if not select.select([process], [], [], _MOMENT)[0]:
                    goes_on()
                    while not select.select([process], [], [], look_up())[0]:
                        pass
            return End.CLOSED
        pair.given()
        goes_on()

        def pass_size_on() -> None:
            self._set_size(pair)
            if resized is not None:
                resized()

        with (
            passed_on(signals, resized=pass_size_on),
            terminal.raw(self._streams.stdin if self._takes_input else None),
        ):
            end = relay(
                TerminalPeer(pair.master),
                self._streams,
                takes_input=self._takes_input,
                tty=True,
                keys=self._streams.detach_keys,
                process=process,
            )
        if end is End.DETACHED:
            pair.keep()
        return end

    def let_go(self) -> End:
        """Attend it not at all: it goes on, and what it writes to its terminal is read and thrown away."""
        assert self._pair is not None
        self._pair.given()
        self._pair.keep()
        return End.DETACHED

    def _set_size(self, pair: terminal.Pair) -> None:
        wanted = terminal.size(self._streams.stdout) or terminal.size(self._streams.stdin)
        if wanted is not None:
            terminal.set_size(pair.master, wanted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
