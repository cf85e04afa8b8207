"""A container that runs, as it would be if its programs ended now: without the mount points that were made for them.
A checkpoint has them, as what it seals; so they are remembered with it, and taken away from whatever begins there.

A fork stands for it, made while its programs stand still, which is what docker's pause at a commit is for: it costs
milliseconds, and they go on meanwhile. It goes again; that of a process that died over it goes with the next one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from layerstore import Checkpoint, Container, LayerstoreError, NotFound, Store
from layerstore.runtime.life import traces
from layerstore.runtime.life.processes import ProcessId, here

if TYPE_CHECKING:
    from layerstore.runtime.life.runtime import Runtime

__all__ = ["checkpoint", "checkpoint_without_traces", "fork", "fork_checkpoint", "rollback", "without_traces"]

_NAME = "layerstore.apart"


@contextmanager
def without_traces(runtime: Runtime, container: Container) -> Iterator[Container]:
    """While inside: the container, or what stands for it while programs run in it."""
    _settle(runtime, container)
    if not container.processes() or not traces.are_left(runtime.folder(container)):
        yield container
        return
    with _standing_in(runtime, lambda name: fork(runtime, container, names=[name])) as twin:
        yield twin


@contextmanager
def checkpoint_without_traces(runtime: Runtime, point: Checkpoint) -> Iterator[Container | Checkpoint]:
    """While inside: the checkpoint, or what stands for it if it was made while programs ran."""
    container = runtime.store.container(point.container_id)
    if not traces.in_checkpoint(runtime.folder(container), point):
        yield point
        return
    with _standing_in(runtime, lambda name: fork_checkpoint(runtime, container, point, None, [name])) as twin:
        yield twin


@contextmanager
def _standing_in(runtime: Runtime, make: Callable[[str], list[Container]]) -> Iterator[Container]:
    """While inside: what `make` gives for the name that is told to it."""
    _remove_left(runtime.store)
    own = here()
    [twin] = make(f"{_NAME}.{own.pid}.{own.began}.{os.urandom(4).hex()}")
    try:
        yield twin
    finally:
        with suppress(NotFound):
            twin.remove()


def fork(
    runtime: Runtime, container: Container, n: int | None = None, *, names: Sequence[str | None] | None = None
) -> list[Container]:
    """`Container.fork`, while its programs stand still; no mount point that was made for them is in what it gives."""
    _settle(runtime, container)
    # Read first: the programs may end meanwhile, and somebody else take the mount points away.
    made_for_them = traces.known(runtime.folder(container))
    made = container.fork(n, names=names, quiet=runtime.frozen(container) if container.processes() else None)
    for twin in made:
        traces.erase_copied(twin, made_for_them)
    return made


def checkpoint(runtime: Runtime, container: Container, label: str | None) -> Checkpoint:
    """`Container.checkpoint`, while its programs stand still."""
    _settle(runtime, container)
    folder = runtime.folder(container)
    made_for_them = traces.known(folder)
    point = container.checkpoint(label, quiet=runtime.frozen(container) if container.processes() else None)
    traces.remember(folder, point, made_for_them)
    return point


def rollback(runtime: Runtime, container: Container, point: Checkpoint) -> None:
    """`Container.rollback`; no mount point that was made for programs is in what it leads to."""
    _settle(runtime, container)
    container.rollback(point)
    traces.erase_copied(container, traces.in_checkpoint(runtime.folder(container), point))


def fork_checkpoint(
    runtime: Runtime, container: Container, point: Checkpoint, n: int | None, names: Sequence[str | None] | None
) -> list[Container]:
    """`Checkpoint.fork`, likewise."""
    made = point.fork(n, names=names)
    for twin in made:
        traces.erase_copied(twin, traces.in_checkpoint(runtime.folder(container), point))
    return made


def _settle(runtime: Runtime, container: Container) -> None:
    """Take the mount points away of programs that have ended, if nobody has looked at the container since."""
    if traces.are_left(runtime.folder(container)) and not container.processes():
        runtime.settle(container)


def _remove_left(store: Store) -> None:
    """Remove what stood for containers by processes that are dead."""
    for container in store.containers():
        if not container.name.startswith(f"{_NAME}."):
            continue
        pid, began = container.name.removeprefix(f"{_NAME}.").split(".")[:2]
        if not ProcessId(int(pid), int(began)).lives:
            with suppress(LayerstoreError):
                container.remove()
