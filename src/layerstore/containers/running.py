"""Programs run in containers, as `subprocess` runs them: the seam between the store and what runs containers.

The core has no runtime. What runs programs is found by the entry-point group `layerstore.runners`, as drivers are by
theirs, and a store remembers where it was found, for reading entry points is slow.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from layerstore import facts
from layerstore.errors import CannotRun, LayerstoreError, StoreClosed
from layerstore.wording import in_words

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from layerstore.containers.container import Container
    from layerstore.containers.containers import Containers
    from layerstore.database import Database

__all__ = ["GROUP", "Args", "Runner", "Running", "Runs", "find_runner"]

GROUP = "layerstore.runners"

_FACT = "runner"

Args = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A program and its arguments, or a program alone. There is no shell, unless it is named."""


class Running(Protocol):
    """A program that runs in a container, in the shape of `subprocess.Popen`.

    `pid` is that of the program as the host sees it. The return code is the program's own; 128 + N where signal N
    ended it, as a shell has it.
    """

    args: Args
    stdin: IO[Any] | None
    stdout: IO[Any] | None
    stderr: IO[Any] | None
    returncode: int | None

    @property
    def pid(self) -> int:
        """Of the program, as the host sees it."""
        ...

    def poll(self) -> int | None:
        """The return code, if it has ended; None else. Raises `CannotRun` if it could not be started."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, at most `timeout` seconds; the return code.

        Raises `subprocess.TimeoutExpired`, and `CannotRun` if it could not be started.
        """
        ...

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Send it `input`, and gather what it writes, until it has ended, at most `timeout` seconds: output and errors.

        Of what is no pipe, None comes back. Raises `subprocess.TimeoutExpired`; then it may be called again, without
        `input`, and nothing is lost.
        """
        ...

    def send_signal(self, signal: int) -> None:
        """Send the program a signal. It is the first of its pid namespace: what it does not catch, it does not get."""

    def terminate(self) -> None:
        """SIGTERM."""

    def kill(self) -> None:
        """Kill it, and all processes that it has started."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class Runner(Protocol):
    """What an entry point of the group gives: called with a store and a container of it, it starts a program there."""

    def __call__(
        self,
        store: Any,
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
    ) -> Running: ...


@in_words("container {0.name}")
class Runs:
    """What a container can do besides being mounted: run programs."""

    _containers: Containers

    def popen(
        self,
        args: Args,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        user: str | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        text: bool = False,
        encoding: str | None = None,
        errors: str | None = None,
        isolation: str = "full",
        options: Any = None,
    ) -> Running:
        """Start a program in it, as `subprocess.Popen` does on the host.

        `env` is added to the environment that the image gives, `cwd` and `user` (`name[:group]`, names or numbers)
        stand instead of the image's. What subprocess knows as PIPE, DEVNULL and STDOUT is known here.

        `isolation`: `full` is by an OCI runtime, `process` by namespaces alone (quick, for programs that are trusted),
        `none` has a root of its own and nothing else. `options`: whatever else a `layerstore.runtime.RunOptions` says.

        Raises `CannotRun` if the program cannot be started, `InUse`, `NotFound`, `KernelError`.
        """
        container: Any = self  # of which this is a part
        store, start = self._containers.runner()
        return start(
            store,
            container,
            args,
            env=env,
            cwd=cwd,
            user=user,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            encoding=encoding,
            errors=errors,
            isolation=isolation,
            options=options,
        )

    def run(
        self,
        args: Args,
        *,
        input: Any = None,
        capture_output: bool = False,
        timeout: float | None = None,
        check: bool = False,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        started: Callable[[Running], object] | None = None,
        **how: Any,
    ) -> CompletedProcess[Any]:
        """Run a program in it and wait for its end, as `subprocess.run` does on the host. `how`: as `popen` has it.

            done = box.run(["cat", "/etc/passwd"], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0 and "root" in done.stdout

        `started` is told of the program as soon as it runs.

        When `timeout` (seconds) is over, all processes of the program are killed. Raises `subprocess.TimeoutExpired`,
        with `check` also `subprocess.CalledProcessError`; and what `popen` raises.
        """
        import subprocess

        if input is not None:
            if stdin is not None:
                raise ValueError("stdin and input arguments may not both be used.")
            stdin = subprocess.PIPE
        if capture_output:
            if stdout is not None or stderr is not None:
                raise ValueError("stdout and stderr arguments may not be used with capture_output.")
            stdout = stderr = subprocess.PIPE
        with self.popen(args, stdin=stdin, stdout=stdout, stderr=stderr, **how) as running:
            try:
                if started is not None:
                    started(running)
                out, err = running.communicate(input, timeout=timeout)
            except subprocess.TimeoutExpired as late:
                running.kill()
                late.output, late.stderr = running.communicate()  # what came until then, and the end of all
                raise
            except BaseException:
                running.kill()
                raise
            code = running.wait()
        if check and code:
            raise subprocess.CalledProcessError(code, running.args, out, err)
        return subprocess.CompletedProcess(running.args, code, out, err)

    async def arun(self, args: Args, **how: Any) -> CompletedProcess[Any]:
        """`run`, awaited: other tasks go on meanwhile. Cancelled, it kills all processes of the program."""
        from layerstore.containers.awaiting import arun

        return await arun(self, args, how)


def find_runner(database: Database) -> Runner:
    """What runs programs in the containers of this store: as it was found before, else by its entry point.

    Raises `CannotRun` if none is installed, or it cannot be imported.
    """
    known = facts.read(database).get(_FACT)
    if known is not None:
        try:
            return _load(known)
        except CannotRun:
            pass  # what ran them then has been removed, or moved
    from importlib.metadata import entry_points

    found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name != "default")
    if not found:
        raise CannotRun(
            f"nothing that runs containers is installed (the entry-point group {GROUP} is empty)",
            remedy="Install it: pip install 'layerstore[run]'.",
        )
    runner = _load(found[0].value)
    try:
        with database.write(durable=False) as tx:
            facts.put(tx, {_FACT: found[0].value})
    except LayerstoreError:
        pass  # a store that is only read, or a full disk: it is looked for again
    return runner


def _load(entry: str) -> Runner:
    module, _, attribute = entry.partition(":")
    try:
        runner: Runner = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise CannotRun(
            f"what runs containers, {entry}, cannot be imported: {error}",
            remedy="Install it: pip install 'layerstore[run]'.",
        ) from error
    return runner


def runner_of(store: Any, database: Database) -> Callable[[], tuple[Any, Runner]]:
    """A function that gives the store and what runs programs in its containers. It does not keep the store alive."""
    kept = weakref.ref(store)
    found: list[Runner] = []

    def runner() -> tuple[Any, Runner]:
        store = kept()
        if store is None:
            raise StoreClosed(
                "the store of this container was let go of", remedy="Keep what `layerstore.open` gave for as long."
            )
        if not found:
            found.append(find_runner(database))
        return store, found[0]

    return runner
