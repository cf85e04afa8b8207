"""What `Container.popen` finds by its entry point: a program is started in a container, and forgotten at its end.

Nothing of it is in the container's state: it may run beside the container's own program and beside others of its kind,
each with namespaces of its own, all on the same tree. Its folder bears the number of this process, so that whoever
comes later can tell whether it is in use.
"""

from __future__ import annotations

import itertools
import locale
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import IO, Any

from attrs import evolve

from layerstore import Args, CannotRun, ConfigError, Container, LayerstoreError, Store
from layerstore.runtime.boxes.box import Box, Program
from layerstore.runtime.boxes.piping import Pipes, Text
from layerstore.runtime.boxes.quick import start_quickly
from layerstore.runtime.life import Runtime
from layerstore.runtime.life.processes import here
from layerstore.runtime.life.starting import Direct
from layerstore.runtime.options import Isolation, RunOptions

__all__ = ["start"]

_numbers = itertools.count()

_PATIENCE = 10.0
"""Seconds in which an engine has a first process, or gives up."""


def start(
    store: Store,
    container: Container,
    args: Args,
    *,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    user: str | None,
    stdin: int | IO[Any] | None,
    stdout: int | IO[Any] | None,
    stderr: int | IO[Any] | None,
    text: bool,
    encoding: str | None,
    errors: str | None,
    isolation: str,
    options: Any,
) -> Box:
    """See `Container.popen`."""
    words = (args,) if isinstance(args, str | os.PathLike) else tuple(args)
    if not words:
        raise ConfigError("there is nothing to run", remedy="Name a program.")
    strings = tuple(os.fspath(word) for word in words)
    _check(strings, env or {})
    runtime = Runtime(store)
    base: RunOptions = runtime.options(container) if options is None else options
    wanted = evolve(
        base,
        args=strings,
        entrypoint=(),
        env=(*base.env, *(f"{name}={value}" for name, value in (env or {}).items())),
        working_dir=base.working_dir if cwd is None else os.fspath(cwd),
        user=base.user if user is None else user,
        isolation=_isolation(isolation),
        tty=False,
    )
    form = Text(encoding or locale.getencoding(), errors) if text or encoding or errors else Text()
    pipes = Pipes(stdin, stdout, stderr, form)
    try:
        if wanted.isolation is Isolation.FULL:
            box = _by_engine(runtime, container, args, wanted, pipes, form)
        else:
            box = start_quickly(runtime, container, args, wanted, pipes, form)
    except BaseException as error:
        pipes.close()
        if isinstance(error, CannotRun) and error.code == 127 and isinstance(args, str) and len(args.split()) > 1:
            error.remedy = f"A text is the name of a program, blanks and all. Give a list of words: {args.split()!r}"
        raise
    pipes.given()
    return box


def _check(words: Iterable[str], env: Mapping[str, str]) -> None:
    """Raise `ValueError`, as subprocess does, for what no program can be given: an engine would cut it off unasked."""
    if any(not name or "=" in name for name in env):
        raise ValueError("illegal environment variable name")
    if any("\0" in text for text in (*words, *env, *env.values())):
        raise ValueError("embedded null byte")


def _isolation(name: str) -> Isolation:
    try:
        return Isolation(name)
    except ValueError:
        known = ", ".join(kind.value for kind in Isolation)
        raise ConfigError(f"{name!r} is no isolation", remedy=f"Take one of {known}.") from None


def _by_engine(
    runtime: Runtime, container: Container, args: Args, options: RunOptions, pipes: Pipes, form: Text
) -> Box:
    mine = here()
    folder = runtime.places.folder(container.id, f"{mine.pid}.{mine.began}.{next(_numbers)}")
    prepared = runtime.prepare(container, options, folder)
    try:
        with runtime.places.lock(container.id):  # for the mount points that the tree lacks are those of all
            direct = Direct.start(prepared, stdin=pipes.stdin, stdout=pipes.stdout, stderr=pipes.stderr, tells=False)
    except BaseException:
        folder.remove()
        raise
    return Box(args, _ByEngine(direct), pipes, form, lambda: runtime.forget(container, folder))


class _ByEngine(Program):
    """A program that an OCI runtime runs."""

    def __init__(self, direct: Direct) -> None:
        self._direct = direct
        direct.watch()

    @property
    def pid(self) -> int:
        deadline = time.monotonic() + _PATIENCE
        while (first := self._direct.first) is None and self.is_alive and time.monotonic() < deadline:
            time.sleep(0.001)
        return self._direct.process.pid if first is None else first.pid

    @property
    def is_alive(self) -> bool:
        return self._direct.process.is_alive

    def wait(self, timeout: float | None = None) -> int:
        return self._direct.wait(timeout)

    def send(self, signal: int) -> None:
        """To the engine, which passes it on, where there is no first process yet."""
        self._direct.kill(signal)

    def end(self) -> None:
        """The first process of a pid namespace takes all others with it."""
        number = self.pid
        if number != self._direct.process.pid:
            with suppress(ProcessLookupError):
                os.kill(number, 9)
        with suppress(TimeoutError, LayerstoreError):
            self._direct.process.wait(_PATIENCE)
        if self.is_alive:
            self._direct.process.kill()
