"""RUN: a program in a container on the layers so far, whose writes become the next layer without being copied.

Consecutive RUNs of a stage share a container, which goes on with a fresh writable layer after each.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from attrs import evolve

from layerstore import CannotRun, ChainID, ConfigError, Container, LayerstoreError, StoredLayer
from layerstore.build.cache import step_key
from layerstore.build.errors import BuildError
from layerstore.build.events import Doing
from layerstore.build.language import SCRIPTS, Run, RunMount, Scope, program_of
from layerstore.build.steps.lines import Stream, Tail
from layerstore.build.steps.memory import Memory
from layerstore.build.steps.mounting import given, misplaced, told
from layerstore.build.steps.origins import Origin
from layerstore.build.steps.programs import run_program
from layerstore.build.steps.state import StageState
from layerstore.build.steps.steady import Steady
from layerstore.build.steps.work import Record, Work
from layerstore.runtime import RunOptions
from layerstore.runtime.options import Ulimit

__all__ = ["Box", "keys_of", "run"]

HOSTNAME = "buildkitsandbox"
"""What programs of a build find as the name of their machine: the same everywhere, for some write it down."""


class Box:
    """The container of a stage's consecutive RUNs. Used by one thread."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._container: Container | None = None
        self._top: ChainID | None = None

    def on(self, top: ChainID | None) -> Container:
        """A container on these layers, in which nothing is written yet."""
        if self._container is None or self._top != top:
            self.close()
            self._container = self._work.session.create(top)
            self._top = top
        return self._container

    def seal(self, record: Record) -> StoredLayer | None:
        """What was written in it becomes a layer, and it goes on on top of that."""
        assert self._container is not None
        layer = self._container.seal(latest=self._work.latest, record=record)
        if layer is not None:
            self._top = layer.chain_id
        return layer

    def let_go(self) -> Container:
        """The container, which is the caller's from now on."""
        assert self._container is not None
        container, self._container = self._container, None
        return container

    def close(self) -> None:
        """Remove it."""
        if self._container is not None:
            self._work.session.remove(self.let_go())


def keys_of(
    work: Work, step: Run, state: StageState, scope: Scope, origins: Callable[[RunMount], Origin]
) -> list[Callable[[], str]]:
    """The keys of a RUN: by the layers that it mounts, and by what is in them."""
    program = program_of(step, state.run)
    said = {
        "run": program.argv,
        "script": None if program.script is None else program.script.content,
        "mounts": told(step.mounts),
        "network": step.network or work.options.network,
        "security": step.security or "sandbox",
        "user": state.user,
        "working_dir": state.working_dir,
        "hosts": work.options.add_hosts,
    }
    instruction = json.dumps(said)
    for mount in step.mounts:
        if mount.from_:  # whatever it is is waited for here, before there is anything that others wait for
            origins(mount)
    binds = _bound(step, origins)
    place = step.place

    def key(inputs: Callable[[], list[str]]) -> str:
        return step_key(state.top, instruction, scope.key_env, inputs(), epoch=work.epoch)

    def content() -> list[str]:
        chosen = [origin.choose([path], parents=False, exclude=(), place=place) for origin, path in binds]
        return [origin.digest_of(one) for (origin, _), one in zip(binds, chosen, strict=True)]

    exact = partial(key, content)
    quick = [origin.quick_key() for origin, _ in binds]
    if not binds or any(one is None for one in quick):
        return [exact]
    return [partial(key, lambda: [f"{one} {path}" for one, (_, path) in zip(quick, binds, strict=True)]), exact]


def run(
    work: Work,
    box: Box,
    step: Run,
    state: StageState,
    scope: Scope,
    doing: Doing,
    origins: Callable[[RunMount], Origin],
    record: Record,
) -> StoredLayer | None:
    """Do it; the layer, or None if nothing was written. Raises `BuildError` if the program fails."""
    program = program_of(step, state.run)
    bound = [(origin, path) for origin, path in _bound(step, origins) if origin.quick_key() is None]
    inputs = [(origin, origin.choose([path], parents=False, exclude=(), place=step.place)) for origin, path in bound]
    tail = Tail()

    def hear(stream: Stream, data: bytes) -> None:
        tail.take(data)
        doing.output(stream, data)

    with given(work, step, state.working_dir, origins) as more, Memory() as memory:
        if program.script is not None:
            memory.add_file(f"{SCRIPTS}/{program.script.name}", program.script.content.encode(), mode=0o755)
        options = _options(work, step, program.argv, state, scope)
        whole = evolve(options, mounts=more.mounts, env=(*options.env, *more.env))
        container = box.on(state.top)
        work.session.guard.need()
        try:
            trees = (*more.trees, *memory.trees)
            code = run_program(work.runtime, container, whole, trees, hear, work.stop, is_secret=more.is_secret)
        except CannotRun as error:
            reason = misplaced(container, more, step.place)
            if reason is not None:
                raise reason from error
            raise _failed(work, box, step, options, tail, error.code, error) from error
    if code:
        raise _failed(work, box, step, options, tail, code, None)
    steady = Steady(work.teller, doing, step.place, "used")
    for origin, chosen in inputs:
        steady.look(origin, chosen)
    return box.seal(record)


def _bound(step: Run, origins: Callable[[RunMount], Origin]) -> list[tuple[Origin, str]]:
    """What it binds: of what, and the path there."""
    return [(origins(mount), mount.source or "/") for mount in step.mounts if mount.type == "bind"]


def _options(work: Work, step: Run, argv: tuple[str, ...], state: StageState, scope: Scope) -> RunOptions:
    """What a program is run with, but for what its mounts give it, secrets among that."""
    wanted = work.options
    network = step.network or wanted.network
    return RunOptions(
        args=argv,
        entrypoint=(),
        env=tuple(f"{name}={value}" for name, value in scope.run_env.items()),
        working_dir=state.working_dir or "/",
        user=state.user,
        hostname=scope.build_args.get("BUILDKIT_SANDBOX_HOSTNAME", HOSTNAME),
        network="none" if network == "none" else "host",
        add_hosts=wanted.add_hosts,
        shm_size=wanted.shm_size,
        ulimits=tuple(_ulimit(text) for text in wanted.ulimits),
        cgroup_parent=wanted.cgroup_parent,
        privileged=step.security == "insecure",
        runtime=wanted.runtime,
    )


def _ulimit(text: str) -> Ulimit:
    name, _, value = text.partition("=")
    soft, _, hard = value.partition(":")
    try:
        return Ulimit(name, int(soft), int(hard or soft))
    except ValueError:
        raise ConfigError(
            f"invalid ulimit: {text!r}", remedy="Write NAME=SOFT or NAME=SOFT:HARD: nofile=1024."
        ) from None


def _failed(
    work: Work, box: Box, step: Run, options: RunOptions, tail: Tail, code: int, error: CannotRun | None
) -> BuildError:
    """The error for a program that failed. If the container is to stay, it gets a name of its own."""
    words = shlex.join(options.args) if isinstance(step.command, tuple) else " ".join(options.args)
    message = f'process "{words}" did not complete successfully: '
    message += f"exit code: {code}" if error is None else error.message
    remedy = None if error is None else error.remedy
    name = None
    if work.options.on_failure != "remove":
        with suppress(LayerstoreError):
            name = _kept(work, box.let_go(), options)
            remedy = f"The container is left as it was then: layerstore start -ai {name}, or layerstore rm {name}."
    return BuildError(message, place=step.place, remedy=remedy, exit_code=code, output=tail.text, container=name)


def _kept(work: Work, container: Container, options: RunOptions) -> str:
    """Let somebody look at what was written until then; its name."""
    name = f"failed-{container.short_id}"
    container.rename(name)
    if work.options.on_failure == "checkpoint":
        container.checkpoint("failed")
    else:
        options = evolve(options, args=("/bin/sh",), tty=True, interactive=True)
    work.runtime.adopt(container, options)
    return name
