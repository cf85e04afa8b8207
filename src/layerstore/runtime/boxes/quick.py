"""Programs that are run by namespaces alone (`process`), or by a root of their own and nothing else (`none`).

For programs that are trusted: what an OCI runtime would see to is refused in words where it was asked for, and not done
where it was not.
"""

from __future__ import annotations

import errno
import os
import resource
import signal as signals
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from attrs import fields

from layerstore import Args, Bind, CannotRun, CannotStart, ConfigError, Container, KernelError, Process, Store, Tmpfs
from layerstore.runtime import bundle
from layerstore.runtime.boxes.box import Box, Program
from layerstore.runtime.boxes.piping import Pipes, Text
from layerstore.runtime.bundle.process import environment
from layerstore.runtime.life import Runtime, traces
from layerstore.runtime.options import Isolation, RunOptions
from layerstore.runtime.said import section

__all__ = ["launch_quickly", "start_quickly"]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_KNOWN = frozenset(
    {"args", "entrypoint", "env", "working_dir", "user", "group_add", "hostname", "mounts", "ulimits", "isolation"}
    | {"tty", "interactive", "remove", "network", "init", "labels", "annotations", "health", "runtime", "log_driver"}
    | {"stop_signal", "stop_timeout", "ports", "publish_all", "console_size"}
)
"""What is done here, or means nothing to a program that is waited for. The network is always the host's."""


def start_quickly(
    runtime: Runtime, container: Container, args: Args, options: RunOptions, pipes: Pipes, form: Text
) -> Box:
    """Start it by `Container.start`. Raises `ConfigError` for an option that takes a runtime, `CannotRun`."""
    process = launch_quickly(
        runtime,
        container,
        options,
        stdin=pipes.stdin,
        stdout=pipes.stdout,
        stderr=pipes.stderr,
        locked=runtime.places.lock(container.id),
    )
    program = _Quick(process, isolated=options.isolation is Isolation.PROCESS)
    return Box(args, program, pipes, form, partial(_settle, runtime, container))


def _settle(runtime: Runtime, container: Container) -> None:
    """Take away the folder in which a program began, if it was made for it."""
    if traces.are_left(runtime.folder(container)):
        runtime.settle(container)


def launch_quickly(
    runtime: Runtime,
    container: Container,
    options: RunOptions,
    *,
    stdin: int | None,
    stdout: int | None,
    stderr: int | None,
    terminal: bool = False,
    locked: AbstractContextManager[object],
) -> Process:
    """The process of `options.args`, with these descriptors, or with a terminal of its own in their place.

    While inside `locked`, the caller has the container's lock.
    """
    _require_known(options)
    image = container.image
    said = section({} if image is None else image.config)
    user = _user(container, options, str(said.get("User") or ""))
    isolated = options.isolation is Isolation.PROCESS
    name = options.hostname or container.short_id
    variables = environment(
        (f"PATH={_PATH}", f"HOME={user.home}", *([f"HOSTNAME={name}"] if isolated else [])),
        ("TERM=xterm",) if terminal else (),
        said.get("Env") or (),
        options.env,
    )
    limits = {_limit(limit.name): (limit.soft, limit.hard) for limit in options.ulimits}
    stack = limits.get(resource.RLIMIT_STACK)
    bundle.require_short(options.args, variables, None if stack is None else stack[0])
    folder = bundle.directory(options.working_dir or None, str(said.get("WorkingDir") or "/"))
    mounts = tuple(_mounts(runtime.store, container, options))
    start = partial(
        container.start,
        options.args,
        env=dict(entry.split("=", 1) for entry in variables),
        working_dir=folder,
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        hostname=options.hostname,
        mounts=mounts,
        limits=limits,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        terminal=terminal,
        isolated=isolated,
    )
    try:
        try:
            return start()
        except KernelError as error:
            if error.call != "chdir" or error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
        # It is looked for when it is not found: whether each program has its folder is not asked beforehand.
        with locked:
            with container.open_tree() as tree:
                lacks = bundle.plan_folder(tree, folder, [mount.target for mount in mounts])
            with traces.made(container, runtime.folder(container), lacks):
                return start(make_working_dir=True)
    except CannotStart as error:
        raise CannotRun(error.message, code=error.code, remedy=error.remedy) from error


class _Quick(Program):
    """A process of `Container.start`."""

    def __init__(self, process: Process, *, isolated: bool) -> None:
        self._process = process
        self._space = None if isolated else _space(process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive

    def wait(self, timeout: float | None = None) -> int:
        code = self._process.wait(timeout)
        if code is None:
            raise CannotRun("nobody knows how the program ended: another has waited for it")
        return code if code >= 0 else 128 - code

    def send(self, signal: int) -> None:
        self._process.kill(signal)

    def end(self) -> None:
        """With a pid namespace its first process takes all others along; else they are found by the mount namespace."""
        self._process.kill()
        if self._space is None:
            return
        for _ in range(100):  # those that are being born meanwhile are found in the next round
            others = [pid for pid in _processes() if _space(pid) == self._space]
            if not others:
                return
            for pid in others:
                try:
                    os.kill(pid, signals.SIGKILL)
                except ProcessLookupError:
                    pass


def _require_known(options: RunOptions) -> None:
    usual = RunOptions()
    for field in fields(RunOptions):
        if field.name not in _KNOWN and getattr(options, field.name) != getattr(usual, field.name):
            flag = field.name.replace("_", "-")
            raise ConfigError(
                f"isolation {options.isolation.value!r} knows no {flag}: that takes an OCI runtime",
                remedy="Leave it out, or take isolation 'full'.",
            )
    if options.network != "host" or options.ports or options.publish_all:
        raise ConfigError(
            f"isolation {options.isolation.value!r} has the network of the host",
            remedy="Leave the network out, or take isolation 'full'.",
        )


def _user(container: Container, options: RunOptions, usual: str) -> bundle.User:
    """Who it runs as. For root, which is the usual case, nothing is looked up."""
    asked = usual if options.user is None else options.user
    if asked in ("", "0", "root") and not options.group_add:
        return bundle.User(home="/root", name="root", groups=(0,))
    with container.open_tree() as tree:
        return bundle.find_user(tree, asked, options.group_add)


def _mounts(store: Store, container: Container, options: RunOptions) -> Iterator[Bind | Tmpfs]:
    for use in store.volumes.of(container.id):
        yield Bind(os.fspath(use.volume.mountpoint), use.target, read_only=use.read_only)
    for mount in options.mounts:
        if mount.kind == "tmpfs":
            yield Tmpfs(mount.target, mount.options)
        elif mount.kind == "bind":
            source = os.path.realpath(mount.source or "")
            if mount.make_source:
                Path(source).mkdir(mode=0o755, parents=True, exist_ok=True)
            yield Bind(source, mount.target, read_only=mount.read_only)
        elif mount.kind == "image":
            raise ConfigError(
                f"isolation {options.isolation.value!r} mounts no images", remedy="Take isolation 'full', or a bind."
            )


def _limit(name: str) -> int:
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if not isinstance(number, int):
        raise ConfigError(f"invalid ulimit type: {name}", remedy="Name one of setrlimit(2), as nofile.")
    return number


def _space(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
