"""How a container is started: by conmon, if it has to outlive this process, else by the engine itself.

The order: the row says `starting`, the bundle is written, the engine (or conmon) is launched with the container's tree,
the row says `running`. Whoever does that has the container's lock, so a row that says `starting` without it was broken
off: see `recovery`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore import CannotRun, ConfigError, Container, Database, HasTree, LayerstoreError, Process, Store
from layerstore.runtime.bundle import Trace
from layerstore.runtime.engine import Verbs, conmon, find, hierarchy
from layerstore.runtime.engine.filters import Learning
from layerstore.runtime.engine.words import failure, words_in
from layerstore.runtime.errors import NotRunning
from layerstore.runtime.life import bundling, monitor, rows, sources, traces
from layerstore.runtime.life.ending import Ender
from layerstore.runtime.life.namespaces import namespaces_of, network_of
from layerstore.runtime.life.places import Folder, Places
from layerstore.runtime.life.processes import ProcessId, boot, here, process_of
from layerstore.runtime.life.rows import Row
from layerstore.runtime.life.saved import from_json
from layerstore.runtime.life.state import state_of
from layerstore.runtime.network import parse
from layerstore.runtime.options import Isolation, RunOptions
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.runtime.network.link import Link

__all__ = ["DEVNULL", "Direct", "Draft", "Prepared", "Starter", "require_kept"]


def require_kept(options: RunOptions) -> None:
    """Raise `ConfigError` for a container that cannot go on by itself."""
    if options.isolation is not Isolation.FULL:
        raise ConfigError(
            f"isolation {options.isolation.value!r} is for programs that are waited for: nobody keeps this one",
            remedy="Run it in the foreground, or take isolation 'full'.",
        )


class Starter:
    """Starts the containers of a store."""

    def __init__(self, store: Store, database: Database, places: Places, ender: Ender) -> None:
        self._store = store
        self._database = database
        self._places = places
        self._ender = ender

    def prepare(
        self,
        container: Container,
        options: RunOptions,
        folder: Folder,
        shared: Callable[[str], int],
        *,
        link: Link | None = None,
        trees: Sequence[sources.Tree] = (),
        memory: int | None = None,
    ) -> Prepared:
        """Make the folder of a container, with its bundle. Of a failure nothing is left.

        `shared` gives the first process of a container by its name, whose namespaces this one is to share. `link` is
        what will connect it, `trees` what it sees beside its own. `memory` is a folder in memory, should its variables
        be on no disk: whoever runs it has what its engine needs in there, and nobody else.
        """
        draft = self.draft(container, options, folder, shared, link=link, trees=trees, memory=memory)
        try:
            with container.open_tree() as tree:
                return draft.finished(tree)
        except BaseException:
            folder.remove()
            raise

    def draft(
        self,
        container: Container,
        options: RunOptions,
        folder: Folder,
        shared: Callable[[str], int],
        *,
        link: Link | None = None,
        trees: Sequence[sources.Tree] = (),
        memory: int | None = None,
    ) -> Draft:
        """The first half of `prepare`: the folder, without its bundle."""
        engine = find(self._store.config, options.runtime)
        folder.make()
        try:
            images: dict[Path, HasTree] = {**sources.images(self._store, options, folder.path / "images")}
            others, binds = sources.shown(trees, folder.path / "trees")
            if memory is not None:
                folder.memory.mkdir(mode=0o700)
                others[folder.memory] = sources.Tree(lambda: nullcontext(memory), ())
            write = partial(
                bundling.write,
                container,
                options,
                folder,
                volumes=self._store.volumes.of(container.id),
                images=images,
                more=binds,
                network=network_of(options, shared) if link is None else link.network,
                namespaces=namespaces_of(options, shared),
                engine=engine,
                filters=self._places.filters,
                memory=memory,
            )
        except BaseException:
            folder.remove()
            raise
        root = self._places.engine_root(engine.name) if memory is None else folder.memory / "engine"
        verbs = Verbs(engine, root)
        return Draft(container, folder, verbs, images | others, write)

    def begin(self, container: Container) -> Row:
        """Write down that a container is being started, for a caller that has its lock. Raises `NotRunning`."""
        row = self._ender.settle(container.id)
        if row is None:
            self._store.container(container.id)  # was it removed at its end?
            row = Row(container.id, "{}")
            with self._database.write() as tx:
                rows.insert(tx, row)
        if row.status == "running":
            raise NotRunning(f"container {container.name} is already running")
        if row.status == "dead":
            raise NotRunning(f"container {container.name} is marked for removal and cannot be started")
        if row.status == "starting":  # by somebody who died over it
            self._ender.kill_all(container)
            self._ender.clear(self._places.folder(container.id))
        row = evolve(row, status="starting", boot=boot(), owner=here(), keeper=None, init=None)
        self.put(row)
        return row

    def put(self, row: Row) -> None:
        """Write a row."""
        with self._database.write(durable=False) as tx:
            rows.put(tx, row)

    def start(
        self,
        container: Container,
        options: RunOptions,
        shared: Callable[[str], int],
        *,
        before: Callable[[Folder], object] | None = None,
    ) -> None:
        """`Runtime.start`."""
        require_kept(options)
        folder = self._places.folder(container.id)
        with self._places.lock(container.id):
            row = self._ender.settle(container.id)
            if row is not None and row.status == "running":
                if state_of(row, folder).status == "paused":
                    raise NotRunning("cannot start a paused container, try unpause instead")
                return
            row = self.begin(container)
            try:
                with _linked(container, options, folder) as link:
                    prepared = self.prepare(container, options, folder, shared, link=link)
                    keeps = () if link is None else link.keeps
                    row = self._hold(prepared, options, row, keeps=keeps, is_attached=before is not None)
                    self.put(row)
                    if link is not None and row.init is not None:
                        from layerstore.runtime.life.connecting import connect

                        connect(link, row.init.pid, folder)
                if before is not None:
                    before(folder)
                prepared.verbs.start(folder.name)
                row = evolve(row, finished=0, exit_code=0, oom=False, error="", health="")
                if monitor.has_check(container, options):
                    row = evolve(row, health=STARTING)
                self.put(evolve(row, status="running", started=time.time_ns()))
            except BaseException as error:
                self.give_up(container, row, error)
                raise
        if before is None:  # else whoever has its streams stays with it
            self.watch(container, options)

    def watch(self, container: Container, options: RunOptions) -> None:
        """Have a process of its own stay with a container that goes on by itself, where somebody has to."""
        if monitor.is_needed(container, options):
            monitor.spawn(self._store, container)

    def give_up(self, container: Container, row: Row, error: BaseException) -> None:
        """Undo a start that failed, and write down why; for a caller that has the container's lock."""
        with suppress(LayerstoreError):
            self._ender.kill_all(container)
        self._ender.clear(self._places.folder(container.id))
        self._ender.erase_traces(container.id)
        code = error.code if isinstance(error, CannotRun) else 128
        message = error.message if isinstance(error, LayerstoreError) else str(error)
        status = "exited" if row.finished else "created"
        self.put(
            evolve(row, status=status, owner=None, keeper=None, init=None, held=False, exit_code=code, error=message)
        )
        if from_json(row.options).remove:
            with suppress(LayerstoreError):
                self._ender.remove(container, None, volumes=True)

    def _hold(
        self, prepared: Prepared, options: RunOptions, row: Row, *, keeps: Sequence[int], is_attached: bool
    ) -> Row:
        """Have conmon make a container, whose program waits to be started. `is_attached`: somebody will be, at once.

        `keeps` are descriptors that conmon is to have.
        """
        container, folder = prepared.container, prepared.folder
        folder.make_kept()
        argv = conmon.argv(
            conmon.find(),
            prepared.verbs,
            folder.name,
            folder.place,
            logs=options.log_driver != "none",
            tty=options.tty,
            stdin=options.interactive,
            leave_open=options.tty or not is_attached,
        )
        ours, its = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                with (
                    traces.made(container, folder, prepared.traces),
                    sources.trees(prepared.images) as trees,
                ):
                    keeper = container.launch(
                        argv,
                        root=folder.root,
                        cwd=folder.place.bundle,  # into which it writes, too, that memory has run out
                        env=conmon.environment(its, os.environ),
                        fds=[its, *keeps],
                        stdin=DEVNULL,
                        stdout=DEVNULL,
                        stderr=DEVNULL,
                        hide=hierarchy().hidden,
                        new_session=True,
                        trees=trees,
                    )
            finally:
                os.close(its)
            _reap(keeper)
            pid = conmon.first_process(ours, folder.place, f"container {container.name} cannot be started")
        finally:
            os.close(ours)
        keeper.keep(pid)
        if prepared.learning is not None and prepared.learning.take(prepared.verbs, folder.name):
            prepared.learning.keep()
        return evolve(
            row,
            engine=prepared.verbs.engine.name,
            held=True,
            owner=None,
            keeper=process_of(keeper.pid),
            init=process_of(pid),
        )


@frozen
class Draft:
    """A container whose folder lacks its bundle, which is written by who has the container's tree: `write`.

    `images`: those that it mounts, and other trees, by where its engine sees them.
    """

    container: Container
    folder: Folder
    verbs: Verbs
    images: Mapping[Path, HasTree]
    write: Callable[[int], tuple[tuple[Trace, ...], Learning | None]]

    def finished(self, tree: int) -> Prepared:
        """Write the bundle; `tree` is a descriptor."""
        traces, learning = self.write(tree)
        engine = self.verbs.engine
        self.folder.engine.write_text(json.dumps([engine.name, engine.path, engine.args]))
        return Prepared(self.container, self.folder, self.verbs, traces, learning, self.images)


@frozen
class Prepared:
    """A container whose folder has its bundle. `traces`: the mount points that its tree lacks. `learning`: the seccomp
    filter that its engine makes, if it is worth keeping. `images`: those that it mounts, and other trees, by where its
    engine sees them."""

    container: Container
    folder: Folder
    verbs: Verbs
    traces: tuple[Trace, ...]
    learning: Learning | None = None
    images: Mapping[Path, HasTree] = {}


@contextmanager
def _linked(container: Container, options: RunOptions, folder: Folder) -> Iterator[Link | None]:
    """While inside: what connects a container that is being made; None if that takes no program."""
    if not parse(options.network).kind.is_own:
        yield None
        return
    from layerstore.runtime.life.connecting import link_of  # few have a network of their own

    link = link_of(container, options, folder)
    if link is None:
        yield None
        return
    with link:
        yield link


STARTING = '{"Status": "starting", "FailingStreak": 0, "Log": []}'
"""The health of a container that was just started, if somebody checks it."""

DEVNULL = -3
"""`subprocess.DEVNULL`, without the import."""


def _reap(keeper: Process) -> None:
    """See that conmon, a child of this process, is no zombie when it has ended before this process does."""
    threading.Thread(target=_quietly, args=(keeper.wait,), daemon=True, name="layerstore-conmon").start()


def _quietly(deed: Callable[[], object]) -> None:
    with suppress(LayerstoreError, OSError):
        deed()


def _line(made: Draft | Prepared) -> list[str]:
    """The command by which the engine runs a bundle in the foreground."""
    folder = made.folder
    bundle = folder.memory if folder.memory in made.images else folder.path
    return made.verbs.run_argv(folder.name, bundle, log=folder.place.engine_log, pid_file=folder.place.pid)


class Direct:
    """A program that an engine runs in a container as a child of this process, and that ends with its exit code."""

    def __init__(self, prepared: Prepared, process: Process, *, tells: bool) -> None:
        self.process = process
        self.folder = prepared.folder
        self.verbs = prepared.verbs
        self._container = prepared.container
        self._learning = prepared.learning
        self._tells = tells
        self._noted = threading.Event()
        self._first: ProcessId | None = None
        self._watch: threading.Thread | None = None
        if self._learning is not None or prepared.folder.memory in prepared.images:
            self.watch()

    @classmethod
    def start(
        cls,
        prepared: Prepared,
        *,
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
        tells: bool = True,
        lasts: bool = True,
    ) -> Direct:
        """Launch the engine on a bundle that is there.

        `tells`: what the engine writes to `stderr` is seen by whoever is told of a failure. `lasts`: False if whoever
        keeps what is written sees to it that it is on the disk.
        """
        folder = prepared.folder
        with (
            traces.made(prepared.container, folder, prepared.traces),
            sources.trees(prepared.images) as trees,
        ):
            process = prepared.container.launch(
                _line(prepared),
                root=folder.root,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                hide=hierarchy().hidden,
                new_session=True,
                trees=trees,
                lasts=lasts,
            )
        return cls(prepared, process, tells=tells)

    @classmethod
    def start_what_goes(cls, draft: Draft, *, stdin: int | None, stdout: int | None, stderr: int | None) -> Direct:
        """Launch the engine in a container that is removed afterwards; its bundle is written when its tree is there.

        What is written in it needs not last, and mount points that the engine makes may stay in it.
        """
        finished: list[Prepared] = []
        with sources.trees(draft.images) as trees:
            process = draft.container.launch(
                _line(draft),
                root=draft.folder.root,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                hide=hierarchy().hidden,
                new_session=True,
                trees=trees,
                lasts=False,
                before=lambda tree: finished.append(draft.finished(tree)),
            )
        return cls(finished[0], process, tells=True)

    def watch(self) -> None:
        """Look out for the container's first process, unless somebody does: see `_note`.

        Of one that ends within a moment it would be in vain, so whoever waits for that asks for it after the moment.
        """
        if self._watch is None:
            watch = threading.Thread(target=self._note, daemon=True, name="layerstore-first-process")
            with suppress(RuntimeError):  # no thread is to be had, and the program runs without
                watch.start()
                self._watch = watch

    @property
    def was_killed(self) -> bool:
        """Did the engine not come to its own end, and may have left something?"""
        code = self.process.returncode
        return code is None or code < 0

    @property
    def first(self) -> ProcessId | None:
        """The container's first process, as soon as it is known and for as long as it lives."""
        found = self._first or self.folder.init()
        return found if found is not None and found.lives else None

    def wait(self, timeout: float | None = None) -> int:
        """The program's exit code, when it has ended: 128 + N if signal N ended it. Raises `TimeoutError`.

        Raises `CannotRun` if the engine could not run it.
        """
        code = self.process.wait(timeout)
        self._noted.set()
        if self._watch is not None:
            self._watch.join()
        if code is None:
            raise CannotRun(
                f"nobody knows how container {self._container.name} ended: another has waited for its engine"
            )
        if code:
            words = words_in(self.folder.place.engine_log)
            if words or not (self.folder.place.pid.exists() or code < 0):  # it has begun nothing, and says nothing
                told = self._tells and bool(words)
                raise failure(f"container {self._container.name} cannot be run", words, is_told=told)
        if self._learning is not None and code >= 0:
            self._learning.keep()
        return code if code >= 0 else 128 - code

    def kill(self, signal: int) -> None:
        """Send its first process a signal; the engine, if there is none yet."""
        first = self.first
        if first is None:
            self.process.kill(signal)
            return
        with suppress(ProcessLookupError):
            os.kill(first.pid, signal)

    def _note(self) -> None:
        """Count the container's first process as one of the container's, should the engine be killed alone."""
        taken = self._learning is None
        while not self._noted.wait(0.002):
            if not self.process.is_alive:
                return
            taken = taken or (self._learning is not None and self._learning.take(self.verbs, self.folder.name))
            first = self.folder.init()
            if first is not None:
                with suppress(LayerstoreError):
                    self.process.keep(first.pid)
                    self._first = first
                return
