"""One program of a RUN: started in a container by an OCI runtime, listened to until its end, and forgotten.

What was made for it in the container's tree, mount points, is taken away again before anything is sealed.
"""

from __future__ import annotations

import itertools
import os
import select
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress

from layerstore import Container, LayerstoreError, open_memory
from layerstore.build.steps.lines import Lines, Stream
from layerstore.build.steps.stopping import Stop, Stopped
from layerstore.patience import look_up
from layerstore.runtime import RunOptions, Runtime
from layerstore.runtime.life.processes import here
from layerstore.runtime.life.sources import Tree
from layerstore.runtime.life.starting import Direct, Prepared

__all__ = ["run_program"]

_PIECE = 1 << 16

_numbers = itertools.count()

_PATIENCE = 10.0
"""Seconds that a program has to end when it was killed."""


def run_program(
    runtime: Runtime,
    container: Container,
    options: RunOptions,
    trees: Sequence[Tree],
    told: Callable[[Stream, bytes], object],
    stop: Stop,
    *,
    is_secret: bool = False,
) -> int:
    """Run what the options say; its exit code, 128 + N by signal N. `told` is given whole lines.

    `is_secret`: what the options say is on no disk, at no moment.
    Raises `CannotRun`, `ConfigError`, `Stopped`; then it has ended, too.
    """
    mine = here()
    folder = runtime.places.folder(container.id, f"{mine.pid}.{mine.began}.build{next(_numbers)}")
    with open_memory() if is_secret else nullcontext() as memory:
        prepared = runtime.prepare(container, options, folder, trees=trees, memory=memory)
        return _run(runtime, prepared, told, stop)


def _run(runtime: Runtime, prepared: Prepared, told: Callable[[Stream, bytes], object], stop: Stop) -> int:
    container = prepared.container
    pipes: dict[int, Lines] = {}
    poll = select.poll()
    clear = False
    try:
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        ends = [nothing]
        try:
            out, err = (_pipe(name, told, pipes, ends) for name in ("stdout", "stderr"))
            with runtime.places.lock(container.id):  # for the mount points that the tree lacks are those of all
                direct = Direct.start(prepared, stdin=nothing, stdout=out, stderr=err, tells=False, lasts=False)
        finally:
            for fd in ends:
                os.close(fd)
        try:
            for fd in pipes:
                poll.register(fd, select.POLLIN)
            poll.register(stop.fileno(), select.POLLIN)
            _listen(poll, pipes)
            _await(direct.process.pidfd, stop)
            code = direct.wait()
        except BaseException:
            _kill(direct)
            raise
        clear = not direct.was_killed
    finally:
        for fd, lines in pipes.items():
            lines.end()
            os.close(fd)
        runtime.forget(container, prepared.folder, is_clear=clear)
    return code


def _pipe(name: Stream, told: Callable[[Stream, bytes], object], pipes: dict[int, Lines], ends: list[int]) -> int:
    """The end of a new pipe that is for the program."""
    ours, its = os.pipe2(os.O_CLOEXEC)
    ends.append(its)
    pipes[ours] = Lines(lambda data: told(name, data))
    return its


def _listen(poll: select.poll, pipes: dict[int, Lines]) -> None:
    """Take what comes until all have let go of the pipes."""
    left = set(pipes)
    while left:
        for fd, _ in poll.poll(look_up() * 1000):
            if fd not in left:
                raise Stopped
            data = os.read(fd, _PIECE)
            if data:
                pipes[fd].take(data)
            else:
                poll.unregister(fd)
                left.discard(fd)


def _await(process: int, stop: Stop) -> None:
    """Wait for the end of a process (a pidfd), which may have closed its streams before."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(stop.fileno(), select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll(look_up() * 1000)}
        if process in ready:
            return
        if ready:
            raise Stopped


def _kill(direct: Direct) -> None:
    """End what runs still. Its first process takes all others along."""
    with suppress(LayerstoreError, TimeoutError, OSError):
        if direct.process.is_alive:
            direct.kill(9)
            direct.process.wait(_PATIENCE)
