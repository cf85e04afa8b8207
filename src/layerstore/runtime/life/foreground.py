"""A container that is run in the foreground: directly by its engine if it goes with its end, else held by conmon.

Directly is quicker: no conmon, no log, and no second command of the engine. What is to be attached to again, or to be
looked at when it has ended, has to be held; so has one that a program connects, and one whose health is checked. And
one that has a terminal: crun, which copies its bytes in the foreground, may see that the program has ended before it
sees what that wrote last, and then tells it in its log of errors (libcrun, flush_fd_to_err).
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore import CannotRun, Container, LayerstoreError, NotFound
from layerstore.runtime.life import monitor
from layerstore.runtime.life.ending import Ender
from layerstore.runtime.life.places import Folder
from layerstore.runtime.life.processes import process_of
from layerstore.runtime.life.starting import Direct, Starter
from layerstore.runtime.network import parse
from layerstore.runtime.options import Isolation, RunOptions
from layerstore.runtime.streams import End, Foreground, Streams

if TYPE_CHECKING:
    from layerstore.runtime.life.runtime import Runtime

__all__ = ["run"]


def run(runtime: Runtime, starter: Starter, ender: Ender, container: Container, streams: Streams) -> int:
    """`Runtime.run`."""
    options = runtime.options(container)
    if options.isolation is not Isolation.FULL:
        from layerstore.runtime.life.lean import run_lean

        return run_lean(runtime, starter, ender, container, options, streams)
    is_plain = not parse(options.network).kind.is_own and not monitor.has_check(container, options)
    if options.remove and not options.tty and is_plain:
        return _directly(runtime, starter, ender, container, options, streams)
    return _held(runtime, starter, container, options, streams)


def _directly(
    runtime: Runtime, starter: Starter, ender: Ender, container: Container, options: RunOptions, streams: Streams
) -> int:
    folder = runtime.folder(container)
    with runtime.places.lock(container.id):
        row = starter.begin(container)
        try:
            draft = starter.draft(container, options, folder, runtime.pid_of)
            front = Foreground(streams, tty=False, takes_input=options.interactive)
            try:
                direct = Direct.start_what_goes(draft, stdin=front.stdin, stdout=front.stdout, stderr=front.stderr)
            except BaseException:
                front.__exit__()
                raise
            row = evolve(
                row,
                status="running",
                engine=draft.verbs.engine.name,
                keeper=process_of(direct.process.pid),
                started=time.time_ns(),
            )
            starter.put(row)
        except BaseException as error:
            starter.give_up(container, row, error)
            raise
    with front:
        try:
            front.attend(direct.process.pidfd, send=direct.kill, goes_on=direct.watch)
            code = direct.wait()
        except BaseException as error:
            _stop(direct)
            with runtime.places.lock(container.id):
                ender.end(row, error.code if isinstance(error, CannotRun) else 137, error=str(error))
            raise
    with runtime.places.lock(container.id):
        ender.end(row, code, container=container, is_clear=not direct.was_killed)
    return code


def _stop(direct: Direct) -> None:
    """End what runs still: whoever waited for it was interrupted."""
    with suppress(LayerstoreError, TimeoutError):
        if direct.process.is_alive:
            direct.kill(9)
            direct.process.wait(5)


def _held(runtime: Runtime, starter: Starter, container: Container, options: RunOptions, streams: Streams) -> int:
    from layerstore.runtime.streams import Attachment  # and with it sockets

    attached: list[Attachment] = []

    def attach(folder: Folder) -> None:
        attached.append(Attachment(folder.path))

    end = End.DETACHED
    try:
        runtime.begin(container, attach)
        [attachment] = attached
        end = attachment.relay(
            streams,
            tty=options.tty,
            takes_input=options.interactive,
            signal=lambda number: _send(runtime, container, number),
        )
    finally:
        for attachment in attached:
            attachment.close()
        if attached and end is End.DETACHED:  # or interrupted
            starter.watch(container, options)
    if end is End.DETACHED:
        return 0
    return runtime.wait(container)


def _send(runtime: Runtime, container: Container, number: int) -> None:
    with suppress(LayerstoreError, NotFound):
        runtime.kill(container, number)
