"""What holder and fetcher pass on to each other and to their successors: descriptors, and words about layers."""

from __future__ import annotations

import json
import os
import pickle
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from layerstore.kernel.files.descriptors import file_of
from layerstore.layers.holder import LOG
from layerstore.values import define, frozen

if TYPE_CHECKING:
    from layerstore.config import Config

__all__ = ["Given", "Watched", "hand_over", "leave_streams", "log", "protect", "receive", "send", "taken_over"]

_LARGEST: Final = 64 << 10
_LOGGED: Final = 1 << 20
"""Bytes of the log with which a new one is begun."""


@frozen
class Given:
    """What both are given. `watch` and `lock` are descriptors, which both have for as long as they live.

    `warden`: another, whose end is what the warden waits for; -1: there is none yet.
    """

    home: str
    config: Config
    patience: float
    watch: int
    lock: int
    warden: int = -1

    @property
    def fds(self) -> list[int]:
        """The descriptors."""
        return [self.watch, self.lock, *([self.warden] if self.warden >= 0 else [])]


@define
class Watched:
    """A lazy layer: `tar` and `folder` are descriptors, the first from before its file was marked."""

    number: int
    path: str
    tar: int
    folder: int


def hand_over(given: Given, layers: Sequence[Watched], more: Sequence[int] = ()) -> tuple[str, tuple[int, ...]]:
    """A word by which another program of this process, or of a child, finds all of this, and what it has to inherit."""
    memory = os.memfd_create("layerstore")
    try:
        os.write(memory, pickle.dumps((given, list(layers))))
    except BaseException:
        os.close(memory)
        raise
    fds = [memory, *given.fds, *more]
    for layer in layers:
        fds += [layer.tar, layer.folder]
    return str(memory), tuple(fds)


def taken_over(word: str) -> tuple[Given, list[Watched]]:
    """What `hand_over` gave. None of it is inherited by whatever else is started."""
    memory = int(word)
    os.lseek(memory, 0, os.SEEK_SET)
    with file_of(memory) as file:
        given, layers = pickle.loads(file.readall())
    for fd in (*given.fds, *(one for layer in layers for one in (layer.tar, layer.folder))):
        os.set_inheritable(fd, False)
    return given, layers


def send(to: socket.socket, words: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send words, and descriptors. Raises `OSError`."""
    socket.send_fds(to, [json.dumps(words).encode()], list(fds))


def receive(of: socket.socket, fds: int = 2) -> tuple[dict[str, Any] | None, list[int]]:
    """The next words, and descriptors; None if the other end is gone. Raises `OSError`, `ValueError`."""
    data, found, _, _ = socket.recv_fds(of, _LARGEST, fds)
    try:
        for fd in found:
            os.set_inheritable(fd, False)
        words = json.loads(data) if data else None
        if not isinstance(words, dict | None):
            raise ValueError("what came is no object of JSON")
    except BaseException as error:
        for fd in found:
            os.close(fd)
        if isinstance(error, RecursionError):
            raise ValueError("what came is too deep") from None
        raise
    return words, list(found)


def protect(share: int) -> None:
    """Let the kernel end this process later than others when memory runs out (-1000: never), if this may ask so."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(share))


def log(text: str) -> None:
    """Write a line into the log, if it takes one: a disk that is full ends nobody."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def leave_streams(place: Path) -> None:
    """Have no terminal any more: what is written goes to the log, which is begun anew when it is long."""
    log = os.open(place / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fstat(log).st_size > _LOGGED:
        os.ftruncate(log, 0)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.close(null)
