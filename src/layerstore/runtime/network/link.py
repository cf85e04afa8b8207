"""A program beside a container that connects it: started when the container has a network namespace, and ended with it.

Its life does not hang on this process. `slirp4netns` ends with whoever has the descriptors that are kept
(`Link.keeps`): that is conmon, as long as the container lives. `pasta` has nothing of the kind and is ended by whoever
settles the container (`Connected.pid`), for which somebody has to stay with it.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from layerstore import CannotRun, KernelError
from layerstore.runtime.bundle import Network
from layerstore.runtime.network import pasta, slirp4netns, usable
from layerstore.runtime.network.kind import Kind
from layerstore.runtime.network.mode import Mode
from layerstore.runtime.network.ports import Published
from layerstore.values import frozen

__all__ = ["Connected", "Link"]

_PATIENCE = 10.0
"""Seconds that pasta may take until it is ready; slirp4netns takes 6 ms, and says when."""


@frozen
class Connected:
    """How a container is connected. `pid` is the program's, 0 if there is none."""

    kind: str
    pid: int = 0
    address: str = ""
    gateway: str = ""
    ports: tuple[Published, ...] = ()


class Link:
    """What connects one container, from before it is made until it is started. A context manager."""

    def __init__(self, mode: Mode, ports: Sequence[Published], folder: Path) -> None:
        """`folder` is the container's own, for what the program needs there: `pasta.pid`. Raises `CannotRun`."""
        refused = usable.refusal(mode.kind)
        if refused is not None:
            raise CannotRun(f"--network {mode.kind.value}: {refused[0]}", code=125, remedy=refused[1])
        self.mode = mode
        self.ports = tuple(ports)
        self._folder = folder
        self._ends: tuple[int, int] | None = None
        if mode.kind is Kind.SLIRP:
            self._ends = os.pipe2(os.O_CLOEXEC)

    @property
    def network(self) -> Network:
        """What the bundle has to know of it; of a container that has the host's or another's network: nothing."""
        match self.mode.kind:
            case Kind.SLIRP:
                gateway = slirp4netns.GATEWAY if slirp4netns.reaches_host(self.mode.words) else ""
                return Network(
                    namespace="",
                    address=slirp4netns.ADDRESS,
                    gateway=gateway,
                    nameservers=(slirp4netns.NAMESERVER,),
                )
            case Kind.PASTA:
                return Network(namespace="", nameservers=(pasta.NAMESERVER,) if _names_are_local() else ())
            case _:
                return Network(namespace="")

    @property
    def keeps(self) -> tuple[int, ...]:
        """Descriptors that whoever keeps the container has to have, and nobody else."""
        return () if self._ends is None else (self._ends[1],)

    def connect(self, pid: int) -> Connected:
        """Connect the container whose first process this is. Raises `CannotRun` with the program's own words."""
        match self.mode.kind:
            case Kind.SLIRP:
                return self._slirp(pid)
            case Kind.PASTA:
                return self._pasta(pid)
            case kind:
                return Connected(kind.value)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what this process has; what the keeper has stays."""
        ends, self._ends = self._ends, None
        for end in ends or ():
            os.close(end)

    def _slirp(self, pid: int) -> Connected:
        assert self._ends is not None, "a link is used once"
        ready, tells = os.pipe2(os.O_CLOEXEC)
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        api = Path(f"/proc/self/fd/{folder}/slirp4netns.sock")  # a socket's path has at most 107 bytes
        with ExitStack() as after, tempfile.TemporaryFile() as words:
            after.callback(os.close, ready)
            after.callback(os.close, folder)
            try:
                line = slirp4netns.argv(
                    usable.program(Kind.SLIRP) or Kind.SLIRP.value,
                    self.mode.words,
                    pid,
                    ready=tells,
                    exit=self._ends[0],
                    api=api,
                )
                child = _spawned(line, words, (tells, self._ends[0], folder))
            finally:
                os.close(tells)
            try:
                if os.read(ready, 1) != b"1":
                    raise _failed(Kind.SLIRP, child.wait(), words)
                _reap(child)
                for port in self.ports:
                    problem = slirp4netns.forward(api, port)
                    if problem:
                        raise _taken(port, problem)
            except BaseException:
                child.kill()
                raise
        return Connected(Kind.SLIRP.value, child.pid, slirp4netns.ADDRESS, slirp4netns.GATEWAY, self.ports)

    def _pasta(self, pid: int) -> Connected:
        pid_file = self._folder / "pasta.pid"
        try:
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError("open", error.errno or 0, path=f"/proc/{pid}/ns/net") from error
        with tempfile.TemporaryFile() as words:
            try:
                line = pasta.argv(
                    usable.program(Kind.PASTA) or Kind.PASTA.value,
                    self.mode.words,
                    namespace,
                    self.ports,
                    pid_file=pid_file,
                    as_root=os.geteuid() == 0,
                    answers_names=bool(self.network.nameservers),
                )
                child = _spawned(line, words, (namespace,))
            finally:
                os.close(namespace)
            try:
                code = child.wait(_PATIENCE)  # it goes on in the background when all is ready
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise CannotRun(f"pasta was not ready after {_PATIENCE:.0f} s", code=125) from None
            if code:
                raise _failed(Kind.PASTA, code, words, self.ports)
        found = int(pid_file.read_text())
        return Connected(Kind.PASTA.value, found, ports=self.ports)


def _spawned(line: Sequence[str], words: IO[bytes], fds: Sequence[int]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
            pass_fds=fds,
            start_new_session=True,
            cwd="/",
        )
    except OSError as error:
        raise KernelError("execve", error.errno or 0, path=line[0]) from error


def _reap(child: subprocess.Popen[bytes]) -> None:
    """See that it is no zombie when it has ended before this process does."""

    def wait() -> None:
        with suppress(OSError):
            child.wait()

    threading.Thread(target=wait, daemon=True, name="layerstore-network").start()


def _failed(kind: Kind, code: int, words: IO[bytes], ports: Sequence[Published] = ()) -> CannotRun:
    """Its own words: the last line that it wrote, which is not about the system's log."""
    words.seek(0)
    lines = [line.strip() for line in words.read().decode(errors="replace").splitlines()]
    said = [line for line in lines if line and not line.startswith(("Failed to send ", "Don't run as root"))]
    last = said[-1] if said else f"it ended with code {code}"
    for port in ports:
        if "to bind " in last and f"{port.host}:{port.container}" in last:
            return _taken(port, last)
    return CannotRun(
        f"{kind.value} cannot connect the container: {last}",
        code=125,
        remedy="Choose another --network: host, none, " + ("slirp4netns." if kind is Kind.PASTA else "pasta."),
    )


def _taken(port: Published, words: str) -> CannotRun:
    address = port.address or "0.0.0.0"
    return CannotRun(
        f"port {address}:{port.host} cannot be published: {words}",
        code=125,
        remedy="Something on this host has it (ss -ltnup): publish at another, or leave the host's port out.",
    )


def _names_are_local() -> bool:
    """Are all of the host's servers of names on its loopback, which the container does not reach?"""
    with suppress(OSError):
        text = Path("/etc/resolv.conf").read_text(errors="replace")
        servers = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver ") and line.split()[1:]]
        return bool(servers) and all(server.startswith("127.") or server == "::1" for server in servers)
    return False
