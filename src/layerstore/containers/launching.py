"""Programs that are given a container's tree: started, and ended by force.

The order of a start: the tree is mounted, attached nowhere; a process is made in a mount namespace of its own, takes
the tree, and waits; its row is written; it goes on. So there is never a program without a row, and whatever dies
between leaves nothing: the tree goes with the last descriptor, the process with whoever starts it, and a row without a
process means nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from layerstore.containers import rows
from layerstore.containers.process import Process, bury
from layerstore.containers.residents import Residents, running
from layerstore.containers.rows import Resident, Row
from layerstore.errors import CannotRun, ConfigError, LayerstoreError
from layerstore.kernel.mounts import mounts_below
from layerstore.kernel.mounts.table import facts_of
from layerstore.kernel.processes.killing import kill
from layerstore.kernel.processes.spawning import DEVNULL, Child, Program, launch
from layerstore.layers.attaching import detached_tree

if TYPE_CHECKING:
    from layerstore.containers.container import Container
    from layerstore.containers.mounting import Mounts
    from layerstore.database import Database
    from layerstore.driver import Layer
    from layerstore.kernel.processes.housing import House
    from layerstore.layers import Storage

PATIENCE = 10.0
"""Seconds in which a process that was killed has to end."""


class HasDescriptor(Protocol):
    """An open file, socket or the like."""

    def fileno(self) -> int:
        """Its descriptor."""


Stream = int | HasDescriptor | None
"""A standard stream of a program: a descriptor, an open file, `subprocess.DEVNULL`, or None for the caller's."""


class Launch:
    """One start of one program, whose container's lock the caller holds."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        mounts: Mounts,
        row: Row,
        parents: Sequence[Layer],
        *,
        lasts: bool,
    ) -> None:
        self._database = database
        self._storage = storage
        self._mounts = mounts
        self._row = row
        self._parents = parents
        self._lasts = lasts

    def run(
        self,
        container: Container,
        make: Callable[[int], Child],
        root: bytes,
        *,
        before: Callable[[int], object] | None = None,
    ) -> Process:
        """Start what `make` makes of the container's tree, which it then has at `root`. See `Starts.launch`."""
        self._database.require_writable()
        if self._row.ids is not None:
            raise CannotRun(
                "no program is started in a container for other IDs: it would not be in their user namespace",
                remedy="Mount the container and start it there yourself, or create one without idmap.",
            )
        bury()
        tree = self._tree()
        try:
            if before is not None:
                before(tree)
            child = make(tree)
        finally:
            os.close(tree)
        try:
            identity = child.identity()
            with self._database.write(durable=False) as tx:
                rows.put_resident(tx, self._row.id, Resident(identity, root))
            child.go()
        except BaseException:
            self._undo(child)
            raise
        # What is removed when the program has ended is not looked at before.
        return Process(container, identity, child.pidfd, root, child.terminal, settles=self._lasts)

    def _undo(self, child: Child) -> None:
        """The child ends; then its row means nothing, and goes if it can."""
        with suppress(LayerstoreError):
            identity = child.identity()
            with self._database.write(durable=False) as tx:
                rows.end_resident(tx, self._row.id, identity)
        child.give_up()
        os.close(child.pidfd)

    def _tree(self) -> int:
        """The container's tree, attached nowhere: that which is in use, or one that is made."""
        mounts, row = self._mounts, self._row
        if not mounts.is_unused(row):
            tree = mounts.clone(row)
            if tree is None:
                tree = mounts.residents.tree(row)
            if tree is not None:
                return tree
            mounts.require_unmounted(row)
        mounts.require_not_lent(row)
        mounts.require_files(row, self._parents)
        if not self._lasts:
            self._storage.driver.leave_unsynced(row.layer)
        return detached_tree(self._storage, row.layer, self._parents, row.ids)


def program(
    storage: Storage,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    fds: Iterable[int],
    streams: Sequence[Stream],
    hide: Iterable[str | os.PathLike[str]],
    new_session: bool,
    trees: Mapping[str, int],
) -> Program:
    """What `Container.launch` is told, checked. Mounts of other containers are hidden from it, lest it keep them."""
    if not argv or isinstance(argv, str):
        raise ConfigError("argv has to be a list: the program, and its arguments")
    hidden = [os.fsencode(path) for path in hide]
    home = os.path.realpath(storage.driver.home)
    facts = facts_of(home)
    can_list = facts is not None and facts.unique  # else what is mounted meanwhile is seen
    if not can_list:
        hidden += [os.fsencode(place) for _, place in reversed(mounts_below(storage.driver.home))]
    return Program(
        tuple(os.fspath(word) for word in argv),
        dict(os.environ if env is None else env),
        None if cwd is None else os.fspath(cwd),
        (_descriptor(streams[0]), _descriptor(streams[1]), _descriptor(streams[2])),
        _kept(fds),
        new_session,
        tuple(hidden),
        os.fsencode(home) if can_list else None,
        tuple(trees.items()),
    )


def housed(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None,
    working_dir: str,
    fds: Iterable[int],
    streams: Sequence[Stream],
    house: House,
) -> Program:
    """What `Container.start` is told, checked."""
    from layerstore.kernel.processes.housing import MOST_GROUPS, PATH

    if not argv or isinstance(argv, str):
        raise ConfigError("argv has to be a list: the program, and its arguments")
    for mount in house.mounts:
        if not mount.target.startswith("/") or mount.target.strip("/") == "":
            raise ConfigError(f"{mount.target!r} is no place in a container", remedy="Name it from the root on: /data.")
    if len(house.groups) > MOST_GROUPS:
        raise ConfigError(f"a program can have {MOST_GROUPS} groups beside its own, not {len(house.groups)}")
    return Program(
        tuple(argv),
        {"PATH": PATH} if env is None else dict(env),
        working_dir,
        (_descriptor(streams[0]), _descriptor(streams[1]), _descriptor(streams[2])),
        _kept(fds),
        house=house,
    )


def launcher(made: Program, root: str | os.PathLike[str]) -> Callable[[int], Child]:
    """What starts `made` with a tree at `root`."""
    return lambda tree: launch(made, tree, os.fspath(root))


def kill_all(residents: Residents, row: Row) -> None:
    """End all processes of a container, whose lock the caller holds. Raises `InUse` if one does not end."""
    deadline = time.monotonic() + PATIENCE
    while left := residents.settled(row, is_mounted=True):
        for identity in left:
            if not identity.is_seen or time.monotonic() > deadline:
                raise running(row, left)
            kill(identity, deadline - time.monotonic())


def _kept(fds: Iterable[int]) -> tuple[int, ...]:
    kept = tuple(sorted(set(fds)))
    if kept and kept[0] < 3:
        raise ConfigError("descriptors 0, 1 and 2 are given to a program as stdin, stdout and stderr")
    return kept


def _descriptor(stream: Stream) -> int | None:
    if stream is None:
        return None
    number = stream if isinstance(stream, int) else stream.fileno()
    if number == DEVNULL:
        return DEVNULL
    if number < 0:
        raise ConfigError(f"{number} is not a descriptor", remedy="Give an open file, or make a pipe (os.pipe).")
    return number
