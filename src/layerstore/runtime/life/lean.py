"""A container that is run by namespaces alone, or by a root of its own and nothing else: `--isolation process|none`.

No engine and no conmon: the program is a child of this process, has no log, and ends with whoever waits for it at the
latest when it is told to.
"""

from __future__ import annotations

import time
from contextlib import nullcontext, suppress
from signal import SIGKILL
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore import CannotRun, Container, LayerstoreError, Process
from layerstore.runtime import bundle
from layerstore.runtime.life.ending import Ender
from layerstore.runtime.life.processes import process_of
from layerstore.runtime.life.starting import Starter
from layerstore.runtime.options import RunOptions
from layerstore.runtime.streams import Foreground, Streams, terminal
from layerstore.runtime.streams.pump import TerminalPeer, relay
from layerstore.runtime.streams.signals import passed_on

if TYPE_CHECKING:
    from layerstore.runtime.life.runtime import Runtime

__all__ = ["run_lean"]


def run_lean(
    runtime: Runtime, starter: Starter, ender: Ender, container: Container, options: RunOptions, streams: Streams
) -> int:
    """`Runtime.run` for such a container. Raises `CannotRun`, `ConfigError` for an option that takes an engine."""
    from layerstore.runtime.boxes.quick import launch_quickly

    with Foreground(streams, tty=False, takes_input=options.interactive) as front:
        with runtime.places.lock(container.id):
            row = starter.begin(container)
            try:
                command = bundle.command(container.image_config, options)
                process = launch_quickly(
                    runtime,
                    container,
                    evolve(options, args=command, entrypoint=()),
                    stdin=front.stdin,
                    stdout=front.stdout,
                    stderr=front.stderr,
                    terminal=options.tty,
                    locked=nullcontext(),
                )
                mine = process_of(process.pid)
                row = evolve(row, status="running", held=False, keeper=mine, init=mine, started=time.time_ns())
                starter.put(row)
            except BaseException as error:
                starter.give_up(container, row, error)
                raise
        try:
            if process.terminal is None:
                front.attend(process.pidfd, send=process.kill)
            else:
                _converse(process, process.terminal, options, streams)
            code = process.wait()
            if code is None:
                raise CannotRun(f"nobody knows how container {container.name} ended: another has waited for it")
        except BaseException as error:
            with suppress(LayerstoreError, TimeoutError):
                process.kill(SIGKILL)
                process.wait(5)
            with runtime.places.lock(container.id):
                ender.end(row, 137, error=str(error))
            raise
    code = code if code >= 0 else 128 - code
    with runtime.places.lock(container.id):
        ender.end(row, code)
    return code


def _converse(process: Process, master: int, options: RunOptions, streams: Streams) -> None:
    """Carry bytes between our terminal and the program's until it has ended."""

    def resize() -> None:
        wanted = terminal.size(streams.stdout) or terminal.size(streams.stdin)
        if wanted is not None:
            terminal.set_size(master, wanted)

    resize()
    raw = streams.stdin if options.interactive else None
    with passed_on(process.kill if streams.signals else None, resized=resize), terminal.raw(raw):
        relay(TerminalPeer(master), streams, takes_input=options.interactive, process=process.pidfd)
