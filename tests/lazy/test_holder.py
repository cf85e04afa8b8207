"""The holder, asked what it should not be asked, and without descriptors: it answers, and goes on."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from layerstore.layers.holder import at_socket
from lazy.conftest import Lazies, bytes_of, gone, until
from lazy.gate import Gate
from registry.servers.quirks import Quirks

pytestmark = pytest.mark.root


@pytest.fixture
def gate(quirks: Quirks, pushed: str) -> Gate:
    """Closed."""
    return Gate(quirks)


@pytest.fixture
def tree(lazies: Lazies, pushed: str, gate: Gate) -> Iterator[Path]:
    """The tree of a container, of whose layers nothing has come yet."""
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        with store.create_container(image, name="box").mount() as tree:
            yield tree


@contextmanager
def asking(lazies: Lazies, message: bytes, *files: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(60)
        at_socket(lazies.root / "erofs", client.connect)
        socket.send_fds(client, [message], list(files))
        yield client


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\x00 no JSON",
        b"[1]",
        b"5",
        b"[" * 60_000,
        b'{"watch": 5}',
        b'{"watch": [[]]}',
        b'{"record": true}',
        b'{"record": ["/"]}',
        b'{"whole": {}}',
        b'{"whole": "/a\\u0000b"}',
        b'{"whole": "\\ud800"}',
        b'{"watch": ["' + b"a" * 70_000 + b'"]}',
    ],
    ids=lambda message: message[:20].decode(errors="replace"),
)
def test_what_is_no_wish_is_answered_in_words(lazies: Lazies, tree: Path, gate: Gate, message: bytes) -> None:
    before = lazies.all()
    files = len(os.listdir(f"/proc/{before['holder']}/fd"))

    with asking(lazies, message) as client:
        assert json.loads(client.recv(1 << 16))["error"]
    with asking(lazies, message, 0) as client:
        assert json.loads(client.recv(1 << 16))["error"] if b"record" not in message else client.recv(1 << 16)
    gate.is_open = True
    assert (tree / "data/4").read_bytes() == bytes_of(300_000, 4)
    assert lazies.all() == before
    until(lambda: len(os.listdir(f"/proc/{before['holder']}/fd")) <= files)


def test_without_descriptors_it_lets_clients_wait(lazies: Lazies, tree: Path, gate: Gate) -> None:
    before = lazies.all()
    holder = before["holder"]
    with ExitStack() as stack:
        with crowded(holder):
            client = stack.enter_context(asking(lazies, b'{"watch": []}'))
            until(lambda: is_deaf(holder))
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)
        client.settimeout(60)
        assert client.recv(1 << 16) == b"{}"
    gate.is_open = True
    assert (tree / "data/5").read_bytes() == bytes_of(300_000, 5)
    assert lazies.all() == before


def test_without_descriptors_it_starts_a_fetcher_later(lazies: Lazies, tree: Path, gate: Gate) -> None:
    before = lazies.all()
    holder = before["holder"]
    with crowded(holder):
        os.kill(before["fetcher"], signal.SIGKILL)
        until(lambda: gone(before["fetcher"]))
        with asking(lazies, b'{"watch": []}'):
            until(lambda: is_deaf(holder))
    gate.is_open = True
    assert (tree / "data/6").read_bytes() == bytes_of(300_000, 6)
    assert lazies.all()["holder"] == holder


@contextmanager
def crowded(pid: int) -> Iterator[None]:
    """While inside, the process can have no more descriptors than it has."""
    most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, most[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, most)


def is_deaf(pid: int) -> bool:
    """Does the process not wait for who connects to a socket of its?"""
    words = ""
    for one in Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(one) == "anon_inode:[eventpoll]":
            words = Path(f"/proc/{pid}/fdinfo/{one.name}").read_text()
    watched = [line.split()[1] for line in words.splitlines() if line.startswith("tfd:")]
    rows = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
    listening = {f"socket:[{row[6]}]" for row in rows if row[3] == "00010000"}
    return not any(os.readlink(f"/proc/{pid}/fd/{fd}") in listening for fd in watched)
