"""The holder: a loop over what the kernel asks, what the fetcher says, and who wants layers watched or whole.

It waits for nobody but in `select`: whoever reads what is there goes on at once, whoever reads what is not waits until
the fetcher has it, and no longer than `patience`. It ends when no layer is lazy any more. One that it cannot hold may
be lazy: it stays for that, and the log says so.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from attrs import evolve

from layerstore.errors import KernelError, LayerstoreError
from layerstore.holding.held import Asked, Held, has_holes, inode_of, is_same
from layerstore.holding.passing import Given, Watched, hand_over, log, protect, receive, send
from layerstore.holding.recording import Record
from layerstore.holding.warden import Warden
from layerstore.indexes import LAZY, TAR
from layerstore.kernel.files import names_in
from layerstore.kernel.watching import Watch
from layerstore.layers.holder import SOCKET, at_socket
from layerstore.layers.lazy import Present, facts_of, wrong
from layerstore.layers.orphans import FOLDER

__all__ = ["Holder"]

_GLANCE: Final = 1.0
"""Seconds after which it is looked for layers that are gone."""
_NUMBERS: Final = 1 << 16
"""Descriptors that it may have, and so numbers that the kernel may have given to a dead one."""
_LAST_TO_GO: Final = -1000
"""Its share of what the kernel ends when memory runs out (proc_pid_oom_score_adj(5)): nothing."""
_QUICK, _PAUSE = 1.0, 0.5
"""A fetcher that lives for less is started again after a pause, in seconds; so is whatever wants a descriptor."""
_NONE_LEFT: Final = (errno.EMFILE, errno.ENFILE)


class Holder:
    """See the module's text. `layers` and what else there is comes from one that has died, whose place this takes."""

    def __init__(self, given: Given, layers: Sequence[Watched] = ()) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _NUMBERS if most == resource.RLIM_INFINITY else min(_NUMBERS, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        self._given = given
        self._home = Path(given.home)
        self._watch = Watch(given.watch)
        self._warden = Warden(given)
        self._held: dict[int, Held] = {}
        self._asked: dict[int, Asked] = {}
        self._serials = itertools.count(1)
        """What reads are called: a descriptor is given to another as soon as it is closed, and what is said of a read
        may come later."""
        self._wanting: list[tuple[socket.socket, int]] = []
        self._unanswered: list[socket.socket] = []
        self._loop = selectors.DefaultSelector()
        self._fetcher: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._outbox: deque[tuple[dict[str, Any], tuple[int, ...]]] = deque()
        self._started = self._not_before = self._deaf_until = 0.0
        self._last = 0
        self._is_unsure = False
        """Layers may be lazy that are not held: who reads them gets EIO, but zeros if this ended. So it does not."""
        self._refused: dict[str, str] = {}
        """The folders of such layers, and why they cannot be held."""
        self._look_at = 0.0
        for watched in layers:
            try:
                self._hold(watched)
            except LayerstoreError:
                self._is_unsure = True  # as whoever follows finds out by itself
                os.close(watched.tar)
                os.close(watched.folder)

    def take_over(self) -> None:
        """Answer for one that has died: let fail what it was given, of which nothing is known but that it waits."""
        for number in range(_NUMBERS):
            self._watch.answer_number(number, errno.EIO)

    def look_around(self) -> None:
        """Watch what was watched before others had died: all layers that are lazy.

        What fails is tried again; the fetcher asks its row, for it may only look like a lazy layer.
        """
        self._look_at = time.monotonic() + _GLANCE
        before, self._refused = self._refused, {}
        try:
            folders = [folder for name in names_in(self._home) if ((folder := self._home / name) / LAZY).is_dir()]
        except (LayerstoreError, OSError) as error:
            folders, self._refused[str(self._home)] = [], str(error)
        for folder in folders:
            try:
                self._begin(str(folder))
            except (LayerstoreError, OSError) as error:
                self._refused[str(folder)] = str(error)
        for path, why in self._refused.items():
            if before.get(path) != why:
                log(f"{path}: cannot be watched: {why}")
                self._say({"refused": path})
        self._is_unsure = bool(self._refused)

    def listen(self) -> None:
        """Have a socket by which it is found."""
        place = self._home / FOLDER / SOCKET
        place.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        at_socket(self._home, self._socket.bind)
        place.chmod(0o600)
        self._socket.listen(128)

    def run(self) -> None:
        """Until no layer is lazy."""
        protect(_LAST_TO_GO)
        self._loop.register(self._watch, selectors.EVENT_READ, self._answer_reads)
        self._loop.register(self._socket, selectors.EVENT_READ, self._accept)
        begun = False
        while not begun or self._held or self._is_unsure:
            self._keep_warden()
            self._keep_fetcher()
            self._pass_on()
            self._listen_again()
            for key, _ in self._loop.select(self._until()):
                key.data()
            self._give_up_late()
            self._drop_gone()
            if self._is_unsure and time.monotonic() >= self._look_at:
                self.look_around()
            begun = begun or bool(self._held) or time.monotonic() - self._started > 10 * _GLANCE
        self._end()

    def _end(self) -> None:
        with suppress(OSError):
            if self._line is not None:
                send(self._line, {"end": True})
        if self._fetcher is not None:
            try:
                self._fetcher.wait(_GLANCE)
            except subprocess.TimeoutExpired:
                self._fetcher.kill()
        self._warden.dismiss()
        os.ftruncate(self._given.lock, 0)
        (self._home / FOLDER / SOCKET).unlink(missing_ok=True)
        self._watch.close()

    def _until(self) -> float:
        now = time.monotonic()
        ends = [asked.deadline for asked in self._asked.values()]
        if self._line is None:
            ends.append(self._not_before)
        if self._deaf_until:
            ends.append(self._deaf_until)
        return max(0.0, min([_GLANCE, *(end - now for end in ends)]))

    # --- layers

    def _hold(self, watched: Watched) -> Held:
        chunk, size = facts_of(watched.folder)
        facts = os.fstat(watched.tar)
        is_wrong = wrong(Path(f"/proc/self/fd/{watched.folder}")) is not None
        present = Present(watched.folder, -(-size // chunk))
        held = Held(watched, (facts.st_dev, facts.st_ino), chunk, size, present, is_wrong)
        self._held[watched.number] = held
        self._last = max(self._last, watched.number)
        return held

    def _begin(self, path: str) -> Held | None:
        """Watch a layer's tar. None: all of it is there."""
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise LayerstoreError(f"{path}: {os.strerror(error.errno or 0)}") from None
        tar = -1
        try:
            os.stat(LAZY, dir_fd=folder, follow_symlinks=False)
            known = next((held for held in self._held.values() if is_same(held.watched.folder, folder)), None)
            if known is not None:
                os.close(folder)
                return known
            # From before it is marked, so that whoever fetches does not wait for itself.
            inode = inode_of(os.stat(TAR, dir_fd=folder, follow_symlinks=False))
            twin = next((held for held in self._held.values() if held.inode == inode), None)
            tar = os.dup(twin.watched.tar) if twin else os.open(TAR, os.O_RDWR | os.O_CLOEXEC, dir_fd=folder)
            self._watch.mark(tar)
            self._last += 1
            return self._hold(Watched(self._last, path, tar, folder))
        except FileNotFoundError:
            os.close(folder)
            return None
        except BaseException:
            for fd in (folder, tar):
                if fd >= 0:
                    os.close(fd)
            raise

    def _drop(self, held: Held) -> None:
        """It is whole, or gone."""
        del self._held[held.watched.number]
        if not any(other.inode == held.inode for other in self._held.values()):
            self._watch.unmark(held.watched.tar)
        for number, asked in list(self._asked.items()):
            if asked.held is held:
                self._answer(number, 0 if held.present.has_all(asked.first, asked.last) else errno.EIO)
        self._say({"forget": held.watched.number})
        if held.record is not None:
            held.record.close()
        held.present.close()
        os.close(held.watched.tar)
        os.close(held.watched.folder)

    def _drop_gone(self) -> None:
        for held in list(self._held.values()):
            if not os.fstat(held.watched.tar).st_nlink:
                self._drop(held)
                self._tell_wanting(held.watched.number, "the layer was removed")

    # --- who reads

    def _answer_reads(self) -> None:
        try:
            waiting_now = self._watch.waiting()
        except KernelError as error:
            if error.errno not in _NONE_LEFT:
                raise
            return  # the kernel has refused that read
        for waiting in waiting_now:
            inode = inode_of(os.fstat(waiting.file))
            held = next((one for one in self._held.values() if one.inode == inode), None)
            if self._is_fetcher(waiting.pid):  # which reads what it has written
                self._watch.answer(waiting)
                continue
            if held is None:  # dropped this moment, or marked by a dead one that nobody was told of
                self._watch.answer(waiting, errno.EIO if has_holes(waiting.file) else 0)
                continue
            first = min(waiting.offset, max(held.size - 1, 0)) // held.chunk
            end = waiting.offset + waiting.length if waiting.length else held.size
            last = max(first, (min(end, held.size) - 1) // held.chunk)
            if held.record is not None:
                held.record.add(first, last, held.chunk, held.size)
            if held.wrong:
                self._watch.answer(waiting, errno.EIO)
            elif held.present.has_all(first, last):
                self._watch.answer(waiting)
            else:
                deadline = time.monotonic() + self._given.patience
                self._asked[next(self._serials)] = Asked(waiting, held, first, last, deadline)

    def _is_fetcher(self, pid: int) -> bool:
        return self._line is not None and self._fetcher is not None and self._fetcher.pid == pid

    def _answer(self, number: int, error: int) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            self._watch.answer(asked.waiting, error)

    def _give_up_late(self) -> None:
        now = time.monotonic()
        for number, asked in list(self._asked.items()):
            if asked.deadline <= now:
                self._answer(number, errno.EIO)

    # --- the warden, and the fetcher

    def _keep_warden(self) -> None:
        """A new one has a new line, which only a new fetcher can have: the one that there is makes room for it."""
        with suppress(OSError):
            if self._warden.keep() and self._fetcher is not None:
                self._fetcher.kill()

    def _keep_fetcher(self) -> None:
        if self._line is not None or time.monotonic() < self._not_before:
            return
        try:
            ours = self._start_fetcher()
        except OSError:  # no descriptor, no process, no memory is to be had
            self._not_before = time.monotonic() + _PAUSE
            return
        self._line, self._started = ours, time.monotonic()
        self._loop.register(ours, selectors.EVENT_READ, self._hear_fetcher)
        self._outbox.clear()
        for held in self._held.values():
            held.told = False
        for asked in self._asked.values():
            asked.told = False
        self._pass_on()
        for _, number in self._wanting:
            self._say({"hurry": number})
        for path in self._refused:
            self._say({"refused": path})

    def _start_fetcher(self) -> socket.socket:
        """Start one; the line to it."""
        with ExitStack() as undo, ExitStack() as afterwards:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(ours.close)
            afterwards.callback(theirs.close)
            word, fds = hand_over(evolve(self._given, warden=self._warden.line), [], [theirs.fileno()])
            afterwards.callback(os.close, int(word))
            words = [sys.executable, "-P", "-m", "layerstore.holding.fetcher", word, str(theirs.fileno())]
            self._fetcher = subprocess.Popen(words, pass_fds=fds, stdin=subprocess.DEVNULL)
            ours.setblocking(False)
            undo.pop_all()
        return ours

    def _hear_fetcher(self) -> None:
        assert self._line is not None
        try:
            words, _ = receive(self._line)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            words = None
        if words is None:
            self._lost_fetcher()
            return
        if (number := words.get("done")) is not None and (asked := self._asked.get(number)) is not None:
            there = asked.held.present.has_all(asked.first, asked.last)
            self._answer(number, 0 if there else errno.EIO)
        if (number := words.get("failed")) is not None:
            self._answer(number, errno.EIO)
        held = self._held.get(words.get("layer", -1))
        if held is None:
            return
        if "wrong" in words:
            held.wrong = True
            for number in [number for number, asked in self._asked.items() if asked.held is held]:
                self._answer(number, errno.EIO)
        if "whole" in words:
            self._drop(held)
        self._tell_wanting(held.watched.number, words.get("wrong") or words.get("late"))

    def _lost_fetcher(self) -> None:
        assert self._line is not None
        self._loop.unregister(self._line)
        self._line.close()
        self._line = None
        if self._fetcher is not None:
            self._fetcher.kill()
            self._fetcher.wait()
        now = time.monotonic()
        self._not_before = now if now - self._started > _QUICK else now + _PAUSE

    def _say(self, words: dict[str, Any], *fds: int) -> None:
        self._outbox.append((words, fds))

    def _pass_on(self) -> None:
        """Tell the fetcher what it does not know yet, as far as it listens."""
        for held in self._held.values():
            if not held.told:
                held.told = True
                one = held.watched
                words = {"layer": one.number, "path": one.path, "held": held.record is not None}
                self._say(words, one.tar, one.folder)
        for number, asked in self._asked.items():
            if not asked.told:
                asked.told = True
                layer = asked.held.watched.number
                self._say({"need": number, "of": layer, "first": asked.first, "last": asked.last})
        while self._line is not None and self._outbox:
            words, fds = self._outbox[0]
            try:
                send(self._line, words, fds)
            except BlockingIOError:
                return
            except OSError:
                return  # its end is noticed when it is heard
            self._outbox.popleft()
        if self._line is not None:  # what the fetcher was told is known to whoever follows
            clients, self._unanswered = self._unanswered, []
            for client in clients:
                self._reply(client, {})

    # --- who wants something

    def _accept(self) -> None:
        try:
            client, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            if error.errno not in _NONE_LEFT:
                raise
            self._loop.unregister(self._socket)  # who wants something waits in the kernel's queue
            self._deaf_until = time.monotonic() + _PAUSE
            return
        client.settimeout(5)
        self._loop.register(client, selectors.EVENT_READ, lambda: self._hear(client))

    def _listen_again(self) -> None:
        if self._deaf_until and time.monotonic() >= self._deaf_until:
            self._deaf_until = 0.0
            self._loop.register(self._socket, selectors.EVENT_READ, self._accept)

    def _hear(self, client: socket.socket) -> None:
        try:
            found, fds = receive(client, 1)
            wish = found or {}
            if not wish:
                self._leave(client)
                return
            self._record(client, wish, fds)
            for path in _paths(wish, "watch"):
                self._begin(path)
            held = self._begin(str(wish["whole"])) if "whole" in wish else None
        except (LayerstoreError, OSError, ValueError) as error:
            remedy = error.remedy if isinstance(error, LayerstoreError) else None
            message = error.message if isinstance(error, LayerstoreError) else str(error)
            self._reply(client, {"error": message, "remedy": remedy})
            return
        if held is None:
            self._unanswered.append(client)
        elif held.wrong:
            self._reply(client, {"error": _wrong_words(held)})
        else:
            self._wanting.append((client, held.watched.number))
            self._say({"hurry": held.watched.number})

    def _tell_wanting(self, number: int, error: str | None) -> None:
        waiting = [client for client, wanted in self._wanting if wanted == number]
        self._wanting = [one for one in self._wanting if one[1] != number]
        for client in waiting:
            self._reply(client, {} if error is None else {"error": error})

    def _reply(self, client: socket.socket, words: dict[str, Any]) -> None:
        with suppress(OSError):
            client.send(json.dumps(words).encode() if words else b"{}")

    def _record(self, client: socket.socket, wish: dict[str, Any], fds: Sequence[int]) -> None:
        """Write into that file what is read of these layers, until the client has gone. Nothing else of them comes."""
        try:
            paths = _paths(wish, "record")
            if paths and not fds:
                raise LayerstoreError("no file came along into which what is read could be written")
            for number, path in enumerate(paths):
                held = self._begin(path)
                if held is None:
                    continue
                if held.record is not None and held.record.is_over:
                    self._end_records(held.record.client)  # of which nothing has been heard yet
                if held.record is not None:
                    raise LayerstoreError(
                        "what is read of the same layers is being recorded for another",
                        remedy="Record this run when that one has ended.",
                    )
                held.record = Record(client, os.dup(fds[0]), number)
                self._say({"held": held.watched.number, "on": True})
        finally:
            for fd in fds:
                os.close(fd)

    def _end_records(self, client: socket.socket) -> None:
        for held in self._held.values():
            if held.record is not None and held.record.client is client:
                held.record.close()
                held.record = None
                self._say({"held": held.watched.number, "on": False})

    def _leave(self, client: socket.socket) -> None:
        self._end_records(client)
        self._wanting = [one for one in self._wanting if one[0] is not client]
        self._unanswered = [one for one in self._unanswered if one is not client]
        self._loop.unregister(client)
        client.close()


def _wrong_words(held: Held) -> str:
    words = None
    with suppress(KernelError):  # what could not be written may be unreadable, too
        words = wrong(Path(f"/proc/self/fd/{held.watched.folder}"))
    return words or "what came of it is not what it should be"


def _paths(wish: dict[str, Any], what: str) -> list[str]:
    """Raises `ValueError` if it is no list."""
    paths = wish.get(what, [])
    if not isinstance(paths, list):
        raise ValueError(f"{what!r} is no list of folders")
    return list(map(str, paths))
