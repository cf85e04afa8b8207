"""What holder and fetcher say to each other, each by itself: what comes late, or fails while it is dealt with."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from layerstore.config import Config
from layerstore.errors import DigestMismatch, KernelError, LayerstoreError
from layerstore.holding import fetcher as fetching
from layerstore.holding.fetcher import Fetcher
from layerstore.holding.held import Held
from layerstore.holding.holder import Holder
from layerstore.holding.passing import Given, Watched, receive, send
from layerstore.kernel.watching import Watch
from layerstore.layers.lazy import Lazy, lay_out
from lazy.conftest import until

pytestmark = pytest.mark.root

CHUNK = 4096


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.setblocking(False)
        yield ours, theirs


def words_on(line: socket.socket) -> Iterator[dict[str, Any]]:
    """All that was said."""
    while True:
        try:
            words, fds = receive(line)
        except BlockingIOError:
            return
        for fd in fds:
            os.close(fd)
        if words is not None:
            yield words


# --- the holder


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that read. It goes after what they wait for."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def holder(root: Path, pool: ThreadPoolExecutor, line: tuple[socket.socket, socket.socket]) -> Iterator[Holder]:
    """One that waits for no reader, with the end of a line for a fetcher."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    root.mkdir()
    with Watch() as watch:
        made = Holder(Given(str(root), Config(), 0.0, watch.group, -1))
        made._line = line[0]
        yield made
        for held in list(made._held.values()):
            made._drop(held)
        made._loop.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def held_by(holder: Holder, root: Path, name: str) -> Held:
    """A lazy layer."""
    (root / name).mkdir()
    lay_out(root / name, Lazy(packed=b"", name="registry.example/app:1", chunk=CHUNK, size=2 * CHUNK))
    held = holder._begin(str(root / name))
    assert held is not None
    return held


def test_what_is_said_late_of_a_read_is_no_answer_to_another(
    holder: Holder, root: Path, pool: ThreadPoolExecutor, line: tuple[socket.socket, socket.socket]
) -> None:
    """Though the kernel calls it as the one of before."""
    [one, other] = [held_by(holder, root, name) for name in ("one", "other")]
    tars = [os.open(root / name / "layer.tar", os.O_RDONLY) for name in ("one", "other")]

    def need() -> int:
        until(lambda: holder._answer_reads() or holder._asked)
        holder._pass_on()
        [number] = [words["need"] for words in words_on(line[1]) if "need" in words]
        return int(number)

    def say(**words: int) -> None:
        send(line[1], words)
        holder._hear_fetcher()

    given_up = pool.submit(os.pread, tars[0], 1, 0)
    late = need()
    holder._give_up_late()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        given_up.result(60)

    read = pool.submit(os.pread, tars[1], 1, 0)
    wanted = need()
    one.present.add(0)
    say(done=late)
    say(failed=late)
    os.pwrite(other.watched.tar, b"x", 0)
    other.present.add(0)
    say(done=wanted)
    assert read.result(60) == b"x"
    for tar in tars:
        os.close(tar)


# --- the fetcher


class Layer:
    """A layer that can be opened when nothing is in the way any more."""

    index = SimpleNamespace(diff_id="sha256:" + "0" * 64)
    watched = Watched(7, "/nowhere/7", -1, -1)
    is_held = is_wanted = False

    def in_use(self) -> nullcontext[None]:
        return nullcontext()

    def bring(self, first: int, last: int) -> None:
        """It is there."""

    def condemn(self, text: str) -> None:
        raise KernelError("write", errno.EIO, path="lazy/wrong")


Opened = Callable[..., Fetcher]


@pytest.fixture
def fetcher(tmp_path: Path, line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Makes one that waits so long, whose layer can be opened after these errors."""

    def made(patience: float, *errors: Exception) -> Fetcher:
        left = list(errors)

        def opened(*_: object) -> Layer:
            if left:
                raise left.pop(0)
            return Layer()

        monkeypatch.setattr(fetching, "LazyLayer", opened)
        return Fetcher(Given(str(tmp_path), Config(), patience, -1, -1), line[0])

    return made


def test_what_nobody_waits_for_any_more_is_not_fetched_when_a_layer_can_be_opened(
    fetcher: Opened, line: tuple[socket.socket, socket.socket]
) -> None:
    made = fetcher(0.0)
    for number in (1, 2):
        made._hear({"need": number, "of": 7, "first": 0, "last": 0}, [])
    made._open(Layer.watched)
    made._hear({"need": 3, "of": 7, "first": 0, "last": 0}, [])
    made._pool.shutdown()
    assert list(words_on(line[1])) == [{"done": 3}]


def test_a_layer_that_cannot_be_opened_is_tried_again_whatever_is_in_the_way(
    fetcher: Opened, line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While who reads it waits still. Who wants it whole is told, and waits no more."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    made = fetcher(2.0, full, MemoryError(), RuntimeError("can't start new thread"), LayerstoreError("not yet"), full)
    pauses: list[float] = []

    def is_known(*_: object) -> bool:
        raise full

    monkeypatch.setattr(made, "_is_known", is_known)
    monkeypatch.setattr(fetching.time, "sleep", pauses.append)
    made._known.append(Layer.watched)
    made._hear({"held": 7, "on": True}, [])
    made._hear({"hurry": 7}, [])

    made._open_later(Layer.watched, LayerstoreError("not yet"))

    said = list(words_on(line[1]))
    assert [words["layer"] for words in said] == [7] * 6
    assert all(words["late"] for words in said)  # none of which is nothing: that would be that it is there
    assert max(pauses) == 1.0
    assert (made._layers[7].is_held, made._layers[7].is_wanted) == (True, False)


def test_a_layer_that_came_wrong_is_told_of_where_it_cannot_be_noted(
    fetcher: Opened, line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, layer = fetcher(1.0), Layer()

    def store() -> None:
        raise MemoryError

    monkeypatch.setattr(made, "_store", store)
    made._condemn(layer, DigestMismatch("the layer", expected="one", actual="another"))
    [words] = words_on(line[1])
    assert (words["layer"], "has digest another" in words["wrong"]) == (7, True)
