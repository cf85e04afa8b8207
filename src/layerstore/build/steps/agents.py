"""`RUN --mount=type=ssh`: a socket for the program, behind which is the user's agent, or one that has the keys given.

The keys themselves are at no moment where a program of the build can read them: it can only ask for signatures. An
agent that is ours ends with the build, however that ends.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from layerstore import ConfigError, KernelError
from layerstore.build.options import Ssh
from layerstore.build.steps.tying import Tie

__all__ = ["agent_of", "passing_on", "require"]

_PIECE = 1 << 16

_LIMITS = "Raise the limit of processes (ulimit -u), or that of the cgroup (pids.max)."

_PATIENCE = 30.0
"""Seconds in which one who was written to has to read it."""

_MOST = 64
"""Who may be connected at a time; others wait. Each costs two descriptors of the build's."""

_UNTIL = 'read -r _; kill "$SSH_AGENT_PID"; rm -rf "$1"'
"""What ssh-agent runs beside itself (ssh-agent(1)): it waits for the end of its input, whoever brings that about.

Should this shell be killed, the agent sees so within ten seconds, and ends.
"""


def require(wanted: Ssh) -> None:
    """Raises `ConfigError` for an agent or a key that is not there, as far as that can be known before it is used."""
    if not wanted.paths:
        _usual(wanted)
    for path in wanted.paths:
        if not os.path.exists(path):
            raise ConfigError(
                f"ssh {wanted.id}: there is no {path}",
                remedy="Name the file of a key, or the socket of an agent.",
                path=path,
            )


@contextmanager
def agent_of(wanted: Ssh) -> Iterator[str]:
    """While inside: the path of an agent's socket. Raises `ConfigError` if there is none."""
    if not wanted.paths:
        yield _usual(wanted)
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


def _usual(wanted: Ssh) -> str:
    """The agent of this user."""
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise ConfigError(
            f"ssh {wanted.id}: there is no agent, for SSH_AUTH_SOCK is not set",
            remedy=f"Start one (eval $(ssh-agent)), or name a key: --ssh {wanted.id}=FILE.",
        )
    if not _is_socket(path):
        raise ConfigError(f"ssh {wanted.id}: {path} is no socket of an agent", remedy="Start one: eval $(ssh-agent).")
    return path


@contextmanager
def _own_agent(wanted: Ssh) -> Iterator[str]:
    """An agent of OpenSSH that has these keys, in a folder of its own; both are gone with the block."""
    import tempfile

    with (
        tempfile.TemporaryDirectory(prefix="layerstore-ssh-", ignore_cleanup_errors=True) as folder,
        ExitStack() as ends,
    ):
        path = os.path.join(folder, "agent")
        tie = Tie()
        ends.callback(tie.close)
        try:
            with tie.other() as end:
                agent = subprocess.Popen(
                    ["ssh-agent", "-a", path, "sh", "-c", _UNTIL, "sh", folder],
                    stdin=end,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
        except FileNotFoundError:
            raise ConfigError(
                f"ssh {wanted.id}: keys are given to ssh-agent, which is not installed",
                remedy="Install openssh-client, or name the socket of an agent.",
            ) from None
        ends.callback(agent.communicate)
        ends.callback(tie.close)  # which ends it
        while not _is_socket(path):
            if agent.poll() is not None:
                said = (agent.communicate()[1] or b"").decode(errors="replace").strip()
                raise ConfigError(
                    f"ssh {wanted.id}: ssh-agent has ended ({said or agent.returncode})", remedy="Try it by hand."
                )
            time.sleep(0.005)
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
        try:
            try:
                thread.start()
            except RuntimeError:
                raise KernelError("clone", errno.EAGAIN, remedy=_LIMITS) from None
            yield
        finally:
            os.close(its)  # what is waited for in the thread can be read then
            if thread.ident is not None:
                thread.join()
            os.close(ours)


def _accept(listening: socket.socket, agent: str, end: int) -> None:
    """Carry bytes between all who come and the agent, until the end."""
    other: dict[int, tuple[socket.socket, socket.socket]] = {}
    poll = select.poll()  # select(2) knows no descriptor beyond 1023
    poll.register(end, select.POLLIN)
    poll.register(listening, select.POLLIN)
    try:
        while True:
            poll.modify(listening, select.POLLIN if len(other) < 2 * _MOST else 0)
            ready = {fd for fd, _ in poll.poll()}
            if end in ready:
                return
            if listening.fileno() in ready:
                for one, peer in _begun(listening, agent):
                    other[one.fileno()] = (one, peer)
                    poll.register(one, select.POLLIN)
            for fd in ready & other.keys():
                if fd in other and not _carry(*other[fd]):  # its peer may have gone, and taken it along
                    for gone in other[fd]:
                        poll.unregister(gone)
                        del other[gone.fileno()]
                        gone.close()
    finally:
        for one, _ in other.values():
            one.close()


def _begun(listening: socket.socket, agent: str) -> list[tuple[socket.socket, socket.socket]]:
    """Who came, and the agent for him, each with the other; nothing if one of them has gone meanwhile."""
    with ExitStack() as opened:
        try:
            came = opened.enter_context(listening.accept()[0])
            behind = opened.enter_context(socket.socket(socket.AF_UNIX))
            for one in (came, behind):
                one.settimeout(_PATIENCE)
            behind.connect(agent)
        except OSError:  # who came is told so by the end of the connection
            time.sleep(0.005)  # it may be for want of descriptors
            return []
        opened.pop_all()
    return [(came, behind), (behind, came)]


def _carry(one: socket.socket, peer: socket.socket) -> bool:
    """Pass on what has come; False if that was the end."""
    try:
        data = one.recv(_PIECE)
        peer.sendall(data)
    except OSError:
        return False
    return bool(data)
