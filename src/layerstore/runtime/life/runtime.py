"""`Runtime`: containers that run. What it is asked it passes on to the parts that do it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from layerstore import Checkpoint, Container, IdMap, Image, LayerstoreError, NotFound, Store
from layerstore.runtime.engine import Verbs, cgroups
from layerstore.runtime.errors import NotRunning
from layerstore.runtime.life import apart, processes, rows
from layerstore.runtime.life.ending import Ender
from layerstore.runtime.life.places import Folder, Places
from layerstore.runtime.life.recovery import recover
from layerstore.runtime.life.rows import TABLES, Row
from layerstore.runtime.life.saved import from_json
from layerstore.runtime.life.signals import number_of
from layerstore.runtime.life.state import RunState, exit_of, has_ended, state_of
from layerstore.runtime.options import ExecOptions, RunOptions
from layerstore.runtime.said import section
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.runtime.life.sources import Tree
    from layerstore.runtime.life.starting import Prepared, Starter
    from layerstore.runtime.streams import Streams
    from layerstore.runtime.streams.logs import Entry
    from layerstore.runtime.streams.stats import Stats
    from layerstore.runtime.streams.top import Table

__all__ = ["Runtime"]

_KILL_PATIENCE = 10.0
"""Seconds for which docker waits before it kills, and after."""


_in_order: WeakSet[Store] = WeakSet()
"""The open stores of which this has been seen to."""


@in_words("containers that run")
class Runtime:
    """Runs the containers of a store. What processes and boots left before it was opened is put in order first."""

    store: Store

    def __init__(self, store: Store) -> None:
        self.store = store
        self.database = store.tables(TABLES)
        self.places = Places(store)
        self._ender = Ender(store, self.database, self.places)
        if store not in _in_order:
            recover(store, self.database, self.places, self._ender)
            _in_order.add(store)

    @cached_property
    def _starter(self) -> Starter:
        from layerstore.runtime.life.starting import Starter  # who only looks needs none

        return Starter(self.store, self.database, self.places, self._ender)

    # --- made, run, started

    def create(
        self,
        image: Image | str,
        options: RunOptions,
        *,
        name: str | None = None,
        size: int | str | None = None,
        idmap: IdMap | None = None,
    ) -> Container:
        """Make a container that can be run, with the volumes that it is to have. `size`: what may be written in it.

        With `idmap`, see `Store.create_container`, it can be mounted only.

        Raises `NotFound`, `NameInUse`, `ConfigError`, `EngineNotFound`; then there is none.
        """
        from layerstore.runtime.life import making

        return making.create(self.store, self.database, image, options, name=name, size=size, idmap=idmap)

    def adopt(self, container: Container, options: RunOptions) -> None:
        """Make a container that is there one that can be run. If that fails, it is removed. Raises `NotFound`."""
        from layerstore.runtime.life import making

        making.give(self.store, self.database, container, options)

    def run(self, container: Container, streams: Streams | None = None) -> int:
        """Run a container in the foreground; its exit code, or 0 if its streams were let go of and it runs on.

        With `remove` in its options it is gone then. Raises `CannotRun`, whose `code` is docker's exit code.
        """
        from layerstore.runtime.life.foreground import run
        from layerstore.runtime.streams import Streams

        return run(self, self._starter, self._ender, container, streams or Streams())

    def start(self, container: Container) -> None:
        """Start a container, which goes on by itself. One that runs already is left alone. Raises `CannotRun`."""
        self.begin(container, None)

    def begin(self, container: Container, before: Callable[[Folder], object] | None) -> None:
        """The same; `before` is called when its streams can be attached to, and its program is not let go yet.

        @private
        """
        self._starter.start(container, self.options(container), self.pid_of, before=before)

    def prepare(
        self,
        container: Container,
        options: RunOptions,
        folder: Folder,
        *,
        trees: Sequence[Tree] = (),
        memory: int | None = None,
    ) -> Prepared:
        """Make a bundle for a program that is run beside a container's own, in a folder of its own.

        `trees` are what it sees beside what its options name. `memory`, a folder as `open_memory` makes one, has the
        bundle, and its engine's state, if its variables must be on no disk.

        @private
        """
        return self._starter.prepare(container, options, folder, self.pid_of, trees=trees, memory=memory)

    def forget(self, container: Container, folder: Folder, *, is_clear: bool = False) -> None:
        """Give back what such a program had, which has ended. `is_clear`: its engine came to its own end. @private"""
        self._ender.clear(folder, is_clear=is_clear)
        with self.places.lock(container.id):
            self._ender.erase_traces(container.id)

    def settle(self, container: Container) -> None:
        """If its programs have ended, write that down, and take away what was made for them. Waits for who does so.

        @private
        """
        self.state(container)
        with self.places.lock(container.id):
            self._ender.erase_traces(container.id)

    def exec(self, container: Container, options: ExecOptions, streams: Streams | None = None) -> int:
        """Run one more program in a container that runs; its exit code. 0 if it was detached, and goes on.

        Raises `NotRunning`, and `CannotRun`, whose `code` is docker's exit code.
        """
        from layerstore.runtime.boxes.executing import execute
        from layerstore.runtime.streams import Streams

        return execute(self, container, options, streams or Streams())

    def attach(self, container: Container, streams: Streams | None = None) -> int:
        """Be the streams of a container that runs, until its end; its exit code. 0 if it was let go of, and goes on.

        Raises `NotRunning`, also for one that is run in the foreground, whose streams somebody else has.
        """
        from layerstore.runtime.boxes.attaching import attach
        from layerstore.runtime.streams import Streams

        return attach(self, container, streams or Streams())

    def logs(
        self,
        container: Container,
        *,
        since: int | None = None,
        until: int | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> Iterator[Entry]:
        """What it has written, the oldest first; `follow`: and writes, until its end.

        `since`, `until`: what was written between these, in nanoseconds since the epoch, both included. `tail`: of the
        last so many lines only. Raises `KernelError`.
        """
        from layerstore.runtime.streams import logs

        def is_written() -> bool:
            with suppress(NotFound):  # removed meanwhile: it has ended
                return self.state(container).is_running
            return False

        return logs.read(
            self.folder(container).log, since=since, until=until, tail=tail, follow=is_written if follow else None
        )

    def top(self, container: Container, arguments: Sequence[str] = ()) -> Table:
        """Its processes, in the columns of `ps -ef`; `arguments`: in those that ps shows with them.

        Raises `NotRunning`, `CannotRun`.
        """
        from layerstore.runtime.streams.top import top

        state = self.state(container)
        if not state.is_running:
            raise NotRunning(f"container {container.short_id} is not running")
        return top(state.pid, arguments)

    def stats(self, containers: Iterable[Container], *, interval: float = 1.0) -> dict[str, Stats]:
        """What containers take, by their IDs, looked at for `interval` seconds. Those that do not run are left out."""
        from layerstore.runtime.streams.stats import stats

        states = self.states()
        pids = {state.pid: box.id for box in containers if (state := states.get(box.id)) is not None and state.pid}
        return {pids[pid]: found for pid, found in stats(pids, interval=interval).items()}

    # --- what is done to one that runs

    def stop(self, container: Container, timeout: float | None = None, *, signal: str | int | None = None) -> None:
        """Ask it to end by `signal` or its stop signal, kill it after `timeout` seconds (10, or as its options say).

        Less than 0 is for ever. One that does not run is left alone.
        """
        row, options = self._row(container), self.options(container)
        if self._state(row).is_running:
            said = section(container.image_config).get("StopSignal")
            number = number_of(signal or options.stop_signal or said or "SIGTERM")
            seconds = timeout if timeout is not None else options.stop_timeout
            self._signal(container, number)
            if seconds is None:
                seconds = _KILL_PATIENCE
            if self._ends(container, None if seconds < 0 else seconds) is None:
                self._signal(container, number_of("SIGKILL"))
                self._require_end(container)

    def kill(self, container: Container, signal: str | int = "SIGKILL") -> None:
        """Send its first process a signal. Raises `NotRunning`."""
        number = number_of(signal)
        if not self._state(self._row(container)).is_running:
            raise NotRunning(f"cannot kill container {container.name}: container {container.short_id} is not running")
        self._signal(container, number)
        if number == number_of("SIGKILL"):
            self._require_end(container)

    def wait(self, container: Container) -> int:
        """Wait until it has ended; its exit code. Of one that does not run: how it ended last."""
        return self._ends(container, None) or 0

    def pause(self, container: Container) -> None:
        """Freeze all its processes. Raises `NotRunning`."""
        state = self.state(container)
        if state.status == "paused":
            raise NotRunning(f"container {container.short_id} is already paused")
        self.require_running(container).pause(container.id)
        cgroup = cgroups.of_process(state.pid, "freezer", within=container.id)
        if cgroup is not None:
            cgroups.freeze(cgroup)  # version 1 freezes it bit by bit, and engines do not wait for that

    def unpause(self, container: Container) -> None:
        """Let them go on. Raises `NotRunning`."""
        if self.state(container).status != "paused":
            raise NotRunning(f"container {container.short_id} is not paused")
        self.require_running(container).resume(container.id)

    @contextmanager
    def frozen(self, container: Container) -> Iterator[None]:
        """While inside, none of its processes runs, so that its files stand still. Does nothing for one that has none.

        Raises `NotRunning` if one has no cgroup, `CannotRun` if it cannot be frozen.
        """
        from layerstore.runtime.life.freezing import frozen

        with frozen(container):
            yield

    def written(self, container: Container) -> AbstractContextManager[Container]:
        """While inside: what to compare, export or commit in place of the container, be it running or not.

        It has what programs have written, and no mount points that were made for them.
        """
        return apart.without_traces(self, container)

    def sealed(self, point: Checkpoint) -> AbstractContextManager[Container | Checkpoint]:
        """While inside: what to compare in place of a checkpoint, which may have been made while programs ran."""
        return apart.checkpoint_without_traces(self, point)

    def checkpoint(self, container: Container, label: str | None = None) -> Checkpoint:
        """`Container.checkpoint`, while its programs stand still. What was made for them does not come back with it."""
        return apart.checkpoint(self, container, label)

    def rollback(self, container: Container, point: Checkpoint) -> None:
        """`Container.rollback` to a checkpoint of it, without the mount points that were made for programs then."""
        apart.rollback(self, container, point)

    def fork(
        self,
        container: Container,
        n: int | None = None,
        *,
        names: Sequence[str | None] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> list[Container]:
        """`Container.fork`, while its programs stand still, and without the mount points that were made for them.

        Each is run with what the container is run with: it has the same volumes, but anonymous ones of its own.
        `checkpoint`: they begin at this one of the container's. Raises `NameInUse`.
        """
        if checkpoint is None:
            made = apart.fork(self, container, n, names=names)
        else:
            made = apart.fork_checkpoint(self, container, checkpoint, n, names)
        with self.database.read() as tx:
            row = rows.find(tx, container.id)
        if row is not None:
            from layerstore.runtime.life import making

            options = from_json(row.options)
            try:
                for twin in made:
                    making.give(self.store, self.database, twin, options)
            except BaseException:
                for twin in made:
                    with suppress(NotFound):
                        twin.remove(volumes=True)
                raise
        return made

    def healthcheck(self, container: Container) -> Mapping[str, Any]:
        """Check its health now, and write down what came of it; docker's `Health`: `Status`, `FailingStreak`, `Log`.

        Raises `NotRunning`, `LayerstoreError` if it has no check.
        """
        from layerstore.runtime.health import run_once

        return run_once(self, container)

    def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it; `volumes`: with its anonymous volumes. `force`: even if it runs. Raises `NotRunning`, `InUse`."""
        row = self._settled(container)
        if row is not None and state_of(row, self.folder(container)).is_running:
            if not force:
                raise NotRunning(
                    f"cannot remove container {container.name}: container is running",
                    remedy=f"Stop the container before removing it (layerstore stop {container.name}), or use --force.",
                )
            with suppress(LayerstoreError):  # whatever its engine can still do
                self._signal(container, number_of("SIGKILL"))
                self._ends(container, _KILL_PATIENCE)
        with self.places.lock(container.id):
            try:
                if force:
                    self._ender.kill_all(container)
                row = self._ender.settle(container.id)
                self._ender.remove(container, row, volumes=volumes, force=force)
            except NotFound:
                return  # as its options said it should, at its end

    # --- what is true of them

    def state(self, container: Container) -> RunState:
        """What it does now. Raises `NotFound`."""
        return self._state(self._settled(container) or self._new_row(container))

    def states(self) -> Mapping[str, RunState]:
        """What each container that was made to be run does now, by its ID; one read of the database."""
        with self.database.read() as tx:
            found = rows.every(tx)
        settled = (self._ender.settled(row) for row in found)
        return {row.container: self._state(row) for row in settled if row is not None}

    def options(self, container: Container) -> RunOptions:
        """What it is run with; the defaults, if it was not made to be run."""
        with self.database.read() as tx:
            row = rows.find(tx, container.id)
        return RunOptions() if row is None else from_json(row.options)

    def run_config(self, container: Container) -> Callable[[Mapping[str, Any]], Mapping[str, Any]] | None:
        """What `Container.commit` makes of how its image is run: how it is. None if that is the same."""
        from layerstore.runtime.life.configuring import configured

        options = self.options(container)
        if options == RunOptions():
            return None
        return lambda said: configured(section({"config": said}), options)

    def inspect(self, container: Container, *, size: bool = False) -> dict[str, Any]:
        """What is known of it, in docker's words and form."""
        from layerstore.runtime.life.inspecting import inspect

        return inspect(self, container, size=size)

    def folder(self, container: Container) -> Folder:
        """Where its files lie: log, attach socket, what its engine wrote. @private"""
        return self.places.folder(container.id)

    def engine_of(self, container: Container) -> Verbs:
        """The commands of the engine that runs it. Raises `NotRunning` if none does. @private"""
        verbs = self.places.verbs(self.folder(container))
        if verbs is None:
            if self.state(container).is_running:
                isolation = self.options(container).isolation.value
                raise NotRunning(
                    f"container {container.name} is run without an engine (isolation {isolation}), which this takes",
                    remedy="Run it with isolation 'full'.",
                )
            raise NotRunning(f"container {container.short_id} is not running")
        return verbs

    def require_running(self, container: Container) -> Verbs:
        """The same, of one whose processes live. @private"""
        if not self.state(container).is_running:
            raise NotRunning(f"container {container.short_id} is not running")
        return self.engine_of(container)

    # --- how

    def _state(self, row: Row) -> RunState:
        return state_of(row, self.places.folder(row.container))

    def _settled(self, container: Container) -> Row | None:
        with self.database.read() as tx:
            row = rows.find(tx, container.id)
        return None if row is None else self._ender.settled(row)

    def _row(self, container: Container) -> Row:
        """Its row. Raises `NotFound` if it is gone."""
        return self._settled(container) or self._new_row(container)

    def _new_row(self, container: Container) -> Row:
        self.store.container(container.id)
        return Row(container.id, "{}")

    def pid_of(self, name: str) -> int:
        """The first process of the container with this name, whose namespaces another is to share. @private"""
        other = self.store.container(name)
        state = self.state(other)
        if not state.is_running:
            raise NotRunning(f"cannot join the namespaces of a container that is not running: container {other.name}")
        return state.pid

    def _signal(self, container: Container, number: int) -> None:
        verbs = self.places.verbs(self.folder(container))
        if verbs is None:  # less than a sandbox, or it has ended
            for process in container.processes()[:1]:
                process.kill(number)
            return
        try:
            verbs.kill(container.id, number)
        except LayerstoreError:
            with suppress(NotFound):  # it has ended meanwhile, and is removed at its end
                if self.state(container).is_running:
                    raise
            return
        with suppress(NotFound):
            if self.state(container).status == "paused":
                verbs.resume(container.id)

    def _require_end(self, container: Container) -> None:
        if self._ends(container, _KILL_PATIENCE) is None:
            raise NotRunning(
                f"container {container.name} was killed and does not end",
                remedy="A process of it waits for a device, or for a filesystem that does not answer: see dmesg.",
            )

    def _ends(self, container: Container, timeout: float | None) -> int | None:
        """Wait until it has ended and that is written down, at most `timeout` seconds; its exit code, None if not."""
        deadline = None if timeout is None else time.monotonic() + timeout
        code = 0
        while True:
            with self.database.read() as tx:
                row = rows.find(tx, container.id)
            if row is None:
                return code
            folder = self.places.folder(container.id)
            if has_ended(row, folder):  # one look: what ends after it is settled after the next
                code, _ = exit_of(row, folder)  # before it is removed, if its options say so
                row = self._ender.settled(row)
                if row is None:
                    return code
            if row.status == "dead":  # somebody is removing it, as its options say
                with self.places.lock(container.id):
                    return row.exit_code
            if row.status not in ("starting", "running"):
                return row.exit_code
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            living = [process for process in (row.keeper, row.init or folder.init()) if process and process.lives]
            if living:
                if processes.wait_for(living[0], left):
                    code, _ = exit_of(row, folder)
            else:
                time.sleep(0.002)  # whoever runs it is about to write down how it ended
