"""`RUN --mount=type=ssh`: a socket for the program, behind which is the user's agent, or one that has the keys given.

The keys themselves are at no moment where a program of the build can read them: it can only ask for signatures.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from layerstore import ConfigError
from layerstore.build.options import Ssh

__all__ = ["agent_of", "passing_on"]

_PIECE = 1 << 16


@contextmanager
def agent_of(wanted: Ssh) -> Iterator[str]:
    """While inside: the path of an agent's socket. Raises `ConfigError` if there is none."""
    if not wanted.paths:
        path = os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise ConfigError(
                f"ssh {wanted.id}: there is no agent, for SSH_AUTH_SOCK is not set",
                remedy=f"Start one (eval $(ssh-agent)), or name a key: --ssh {wanted.id}=FILE.",
            )
        yield _socket(wanted, path)
        return
    if len(wanted.paths) == 1 and _is_socket(wanted.paths[0]):
        yield wanted.paths[0]
        return
    with _own_agent(wanted) as path:
        yield path


def _is_socket(path: str) -> bool:
    import stat

    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _socket(wanted: Ssh, path: str) -> str:
    if not _is_socket(path):
        raise ConfigError(f"ssh {wanted.id}: {path} is no socket of an agent", remedy="Start one: eval $(ssh-agent).")
    return path


@contextmanager
def _own_agent(wanted: Ssh) -> Iterator[str]:
    """An agent of OpenSSH that has these keys, in a folder of its own; it ends with the block."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="layerstore-ssh-") as folder, ExitStack() as after:
        path = os.path.join(folder, "agent")
        try:
            agent = subprocess.Popen(
                ["ssh-agent", "-D", "-a", path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        except FileNotFoundError:
            raise ConfigError(
                f"ssh {wanted.id}: keys are given to ssh-agent, which is not installed",
                remedy="Install openssh-client, or name the socket of an agent.",
            ) from None
        after.callback(agent.wait)
        after.callback(agent.kill)
        while not _is_socket(path):
            if agent.poll() is not None:
                raise ConfigError(
                    f"ssh {wanted.id}: ssh-agent has ended ({agent.returncode})", remedy="Try it by hand."
                )
            select.select([], [], [], 0.005)
        _add(wanted, wanted.paths, path)
        yield path


def _add(wanted: Ssh, keys: Sequence[str], path: str) -> None:
    said = subprocess.run(
        ["ssh-add", *keys],
        env={**os.environ, "SSH_AUTH_SOCK": path, "SSH_ASKPASS_REQUIRE": "never"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if said.returncode:
        raise ConfigError(
            f"ssh {wanted.id}: {said.stderr.strip() or 'the keys cannot be added'}",
            remedy="Name the files of keys that have no passphrase, or the socket of an agent.",
        )


@contextmanager
def passing_on(path: str, agent: str, *, mode: int, uid: int, gid: int) -> Iterator[None]:
    """While inside: a socket at `path`, of this owner, behind which is the socket `agent`."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        listening.listen()
        ours, its = os.pipe2(os.O_CLOEXEC)
        thread = threading.Thread(target=_accept, args=(listening, agent, ours), daemon=True, name="layerstore-ssh")
        thread.start()
        try:
            yield
        finally:
            os.close(its)  # what is waited for in the thread can be read then
            thread.join()
            os.close(ours)


def _accept(listening: socket.socket, agent: str, end: int) -> None:
    """Carry bytes between all who come and the agent, until the end."""
    other: dict[socket.socket, socket.socket] = {}
    try:
        while True:
            ready, _, _ = select.select([end, listening.fileno(), *(one.fileno() for one in other)], [], [])
            if end in ready:
                return
            if listening.fileno() in ready:
                _begin(listening, agent, other)
            for one in [one for one in other if one.fileno() in ready]:
                if one in other:  # its peer may have gone, and taken it along
                    _carry(one, other)
    finally:
        for one in other:
            one.close()


def _begin(listening: socket.socket, agent: str, other: dict[socket.socket, socket.socket]) -> None:
    came, _ = listening.accept()
    behind = socket.socket(socket.AF_UNIX)
    try:
        behind.connect(agent)
    except OSError:  # it has gone meanwhile: who came is told so by the end of the connection
        behind.close()
        came.close()
        return
    other[came], other[behind] = behind, came


def _carry(one: socket.socket, other: dict[socket.socket, socket.socket]) -> None:
    data = b""
    with suppress(OSError):
        data = one.recv(_PIECE)
        if data:
            other[one].sendall(data)
    if not data:
        peer = other.pop(one)
        other.pop(peer, None)
        one.close()
        peer.close()
