"""Which OCI runtimes there are: those of daemon.json (`runtimes`, `default-runtime`), and crun, runc, youki of PATH."""

from __future__ import annotations

import os

from layerstore import Config
from layerstore.runtime.errors import EngineNotFound
from layerstore.values import frozen

__all__ = ["Engine", "all_of", "executable", "find", "version_of"]

_USUAL = ("crun", "runc", "youki")
"""The fastest first."""

_SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
"""Where Debian has runc an ordinary user's PATH does not lead."""


@frozen
class Engine:
    """A program that runs containers. `path` is absolute; `args` stand before whatever it is told."""

    name: str
    path: str
    args: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Is it one that puts nothing into a container but what its bundle says? Others may, such as nvidia's."""
        return os.path.basename(self.path) in _USUAL and not self.args


def find(config: Config, name: str | None = None) -> Engine:
    """The engine of this name: one of daemon.json's, a command of PATH, or a path. None: the default one.

    Raises `EngineNotFound`.
    """
    wanted = name or config.default_engine
    if wanted is not None:
        return _named(config, wanted)
    for usual in _USUAL:
        if (path := executable(usual, _SEARCH)) is not None:
            return Engine(usual, path)
    raise EngineNotFound(f"no OCI runtime is installed: none of {', '.join(_USUAL)} is in {_SEARCH}")


def _named(config: Config, wanted: str) -> Engine:
    for told in config.engines:
        if told.name == wanted:
            if not told.path:
                raise EngineNotFound(
                    f"the runtime {wanted} is a shim of containerd, which only containerd can run",
                    remedy="Name an OCI runtime, as crun or runc.",
                )
            path = executable(told.path, _SEARCH)
            if path is None:
                raise EngineNotFound(f"{told.path}, the runtime {wanted} of daemon.json, is no executable file")
            return Engine(wanted, path, told.args)
    path = executable(wanted, _SEARCH)
    if path is None:
        raise EngineNotFound(f"unknown or invalid runtime name: {wanted}")
    return Engine(os.path.basename(wanted), os.path.abspath(path))


def executable(program: str, search: str) -> str | None:
    """The file that a shell with this PATH would execute, if any. (`shutil` imports all kinds of compression.)"""
    for folder in ("",) if "/" in program else search.split(os.pathsep):
        path = os.path.join(folder, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def all_of(config: Config) -> tuple[Engine, ...]:
    """All that can be named here: daemon.json's that are there, then the usual ones of PATH."""
    found: dict[str, Engine] = {}
    for name in (*(told.name for told in config.engines), *_USUAL):
        try:
            found.setdefault(name, _named(config, name))
        except EngineNotFound:
            continue
    return tuple(found.values())


def version_of(engine: Engine) -> str:
    """What it says of itself: `crun version 1.8.1`; "" if it says nothing."""
    import subprocess

    try:
        done = subprocess.run(
            [engine.path, *engine.args, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").partition("\n")[0].strip()
