"""The fetcher: gets what readers of lazy layers wait for out of a registry, and the rest while nobody waits.

`python -m layerstore.holding.fetcher` is started by the holder, and again when it dies. Whatever is told or found wrong
here ends in an answer: a read goes on when its chunks are proved and in the file, and the layer is one like any other
when all of it was proved. If the holder dies, this becomes one, with all that both have.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from layerstore.driver import LayerKey
from layerstore.errors import (
    Damaged,
    InvalidArchive,
    InvalidReference,
    KernelError,
    LayerstoreError,
    LimitExceeded,
    NotFound,
)
from layerstore.holding.layer import LazyLayer
from layerstore.holding.passing import Given, Watched, hand_over, log, protect, receive, send, taken_over
from layerstore.layers.lazy import note_wrong
from layerstore.registry.client.repository import Repository
from layerstore.registry.transport.http import Http
from layerstore.registry.transport.settings import Settings

if TYPE_CHECKING:
    from layerstore.reference import Reference

__all__ = ["Fetcher", "main"]

_AT_ONCE: Final = 6
"""Reads that are served at the same time."""
_QUIET: Final = 1.5
"""Seconds for which nobody waits, before more is fetched than is asked for."""
_PAUSE, _LONGEST = 0.2, 60.0
"""Seconds before what failed is tried again: doubled each time."""
_SYNC: Final = 32 << 20
"""Bytes of which a power cut may cost that they are fetched once more."""
_PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)
"""Of a call that is tried again."""
_GLANCE: Final = 0.05
_FILLERS: Final = 3
"""How many connections fetch what nobody waits for."""
_AHEAD, _ALL = 16, 48
"""Chunks that are asked for together, while nobody waits, and where somebody waits for all of a layer."""


class Fetcher:
    """See the module's text. `line` leads to the holder."""

    def __init__(self, given: Given, line: socket.socket) -> None:
        self._given = given
        self._line = line
        self._saying = threading.Lock()
        self._known: list[Watched] = []
        self._layers: dict[int, LazyLayer] = {}
        self._early: dict[int, list[tuple[float, dict[str, Any]]]] = {}
        """What was said of layers that could not be opened yet, and until when somebody waits for it."""
        self._changed = threading.Condition()
        self._waiting = 0
        self._quiet_since = time.monotonic()
        self._connecting = threading.Lock()
        self._http: Http | None = None
        self._pool = ThreadPoolExecutor(_AT_ONCE, "layerstore-fetch")
        self._lanes = ThreadPoolExecutor(_AT_ONCE, "layerstore-lane")

    def run(self) -> bool:
        """Do what the holder says until it says that it ends, or is gone: then False."""
        for _ in range(min(_FILLERS, self._given.config.max_concurrent_downloads or _FILLERS)):
            threading.Thread(target=self._fill, name="layerstore-fill", daemon=True).start()
        while True:
            try:
                words, fds = receive(self._line)
            except OSError:
                return False
            if words is None:
                return False
            if "end" in words:
                return True
            self._hear(words, fds)

    def watched(self) -> list[Watched]:
        """All that it was told of, for whoever follows."""
        with self._changed:
            return list(self._known)

    def _hear(self, words: dict[str, Any], fds: list[int]) -> None:
        with self._changed:
            if (number := words.get("layer")) is not None:
                self._learn(Watched(number, words["path"], *fds), is_held=words["held"])
            elif (number := words.get("forget")) is not None:
                self._forget(number)
            elif (path := words.get("refused")) is not None:
                threading.Thread(target=self._ask_row, args=(path,), daemon=True).start()
            else:
                self._heed(words)
            self._changed.notify_all()

    def _heed(self, words: dict[str, Any]) -> None:
        number = next(words[kind] for kind in ("of", "hurry", "held") if kind in words)
        if (layer := self._layers.get(number)) is None:
            until = time.monotonic() + self._given.patience if "of" in words else float("inf")
            self._early[number] = [*self._still_early(number), (until, words)]
        elif "of" in words:
            self._waiting += 1
            self._pool.submit(self._serve, layer, words["need"], words["first"], words["last"])
        elif "hurry" in words:
            layer.is_wanted = True
        else:
            layer.is_held = words["on"]

    def _still_early(self, number: int, *besides: str) -> list[tuple[float, dict[str, Any]]]:
        """What was said of a layer before it was open, but what nobody waits for any more, and words `besides`."""
        now = time.monotonic()
        early = self._early.get(number, [])
        return [one for one in early if one[0] > now and not any(kind in one[1] for kind in besides)]

    def _forget(self, number: int) -> None:
        gone = self._layers.pop(number, None)
        self._early.pop(number, None)
        unknown = [one for one in self._known if one.number == number and gone is None]
        self._known = [one for one in self._known if one.number != number]
        if gone is not None:
            gone.let_go()
        for watched in unknown:  # it could not be opened
            os.close(watched.tar)
            os.close(watched.folder)

    def _learn(self, watched: Watched, *, is_held: bool) -> None:
        self._known.append(watched)
        self._heed({"held": watched.number, "on": is_held})
        try:
            self._open(watched)
        except LayerstoreError as error:
            if isinstance(error, KernelError) and error.errno in _PASSING:
                raise  # another fetcher may have better luck
            threading.Thread(target=self._open_later, args=(watched, error), daemon=True).start()

    def _open(self, watched: Watched) -> None:
        limits = self._given.config.limits
        layer = LazyLayer(watched, self._repository, limits, self._lanes, lambda: self._waiting > 0)
        self._layers[watched.number] = layer
        early = self._still_early(watched.number)
        self._early.pop(watched.number, None)
        for _, words in early:
            self._heed(words)

    def _open_later(self, watched: Watched, error: Exception) -> None:
        """Find out what a layer is that cannot be opened; till somebody can say, try again: who reads it waits."""
        pause = _PAUSE
        while True:
            log(f"{watched.path}: {_words_of(error)}")
            try:
                if self._is_known(watched, error):
                    return
            except Exception as other:  # nobody else would try again
                log(f"{watched.path}: {_words_of(other)}")
            with self._changed:
                if watched in self._known:
                    self._early[watched.number] = self._still_early(watched.number, "hurry")
            self._say(layer=watched.number, late=_words_of(error))
            time.sleep(pause)
            pause = min(pause * 2, max(_PAUSE, self._given.patience / 2))  # while who reads it waits still
            with self._changed:
                if watched not in self._known:
                    return
                try:
                    self._open(watched)
                except Exception as again:
                    error = again
                if watched.number in self._layers:
                    self._changed.notify_all()
                    return

    def _ask_row(self, path: str) -> None:
        """Of a layer that the holder cannot hold: if its row says that all of it is there, it is one like any other."""
        try:
            with self._store() as store:
                store._parts.layers.still_lazy([Path(path)])
        except Exception as error:  # whoever opens the store next asks again
            log(f"{path}: {_words_of(error)}")

    def _is_known(self, watched: Watched, error: Exception) -> bool:
        """Is a layer whole that cannot be opened, or proved to be wrong? Then it is said.

        The row is asked first: whoever completed it may have died before it could say so.
        """
        key = LayerKey(Path(watched.path).name)
        with self._store() as store:
            layers = store._parts.layers
            if layers.is_whole(key):
                layers.complete(key)
                self._say(layer=watched.number, whole=True)
                return True
            is_missing = isinstance(error, KernelError) and error.errno == errno.ENOENT
            is_its_own = is_missing or _is_wrong(error) or isinstance(error, InvalidReference)
            if not isinstance(error, LayerstoreError) or not is_its_own:
                return False
            with self._changed, suppress(KernelError):
                if watched in self._known:
                    note_wrong(watched.folder, error.message)
            self._say(layer=watched.number, wrong=error.message)  # or who reads it would wait in vain
            layers.mark_damaged(key)
        return True

    def _say(self, **words: Any) -> None:
        with self._saying:
            try:
                send(self._line, words)
            except OSError:
                pass  # the holder is gone, which `run` hears

    def _repository(self, name: Reference) -> Repository:
        """Raises `ConfigError`, which says nothing of the layer: what is configured may be mended meanwhile."""
        with self._connecting:
            if self._http is None:
                self._http = Http(Settings.of(self._given.config))
        return Repository.of_blobs(self._http, self._http.settings, name)

    # --- what somebody waits for

    def _serve(self, layer: LazyLayer, number: int, first: int, last: int) -> None:
        try:
            with layer.in_use():
                self._persist(layer, partial(layer.bring, first, last))
            self._say(done=number)
        except BaseException as error:
            self._note(layer, error)
            self._say(failed=number)
        finally:
            with self._changed:
                self._waiting -= 1
                self._quiet_since = time.monotonic()
                self._changed.notify_all()

    def _persist(self, layer: LazyLayer, deed: Callable[[], object]) -> None:
        """Try until it is done, or has taken as long as somebody waits."""
        until, pause = time.monotonic() + self._given.patience, _PAUSE
        while True:
            try:
                deed()
                return
            except (LayerstoreError, OSError) as error:
                if _is_proof(error, layer):
                    self._condemn(layer, error)
                    raise
                _log(layer, error)
                if time.monotonic() + pause > until or layer.is_gone.wait(pause):
                    raise
                pause = min(pause * 2, _LONGEST)

    def _condemn(self, layer: LazyLayer, error: LayerstoreError) -> None:
        """What comes of it is not what it should be: it is known from here on, and whoever reads it is told."""
        try:
            layer.condemn(error.message)
        except KernelError as other:  # then whoever fetches next finds it out once more
            _log(layer, other)
        self._say(layer=layer.watched.number, wrong=error.message)
        self._mark_damaged(layer.watched.path)

    def _mark_damaged(self, path: str) -> None:
        try:
            with self._store() as store:
                store._parts.layers.mark_damaged(LayerKey(Path(path).name))
        except Exception as error:  # it is marked by the next `check`
            log(f"{path}: {_words_of(error)}")

    def _note(self, layer: LazyLayer, error: BaseException) -> None:
        if not layer.is_gone.is_set():
            _log(layer, error)

    # --- while nobody does

    def _fill(self) -> None:
        pause = _PAUSE
        while True:
            layer, deed = self._next_to_fill()
            try:
                with layer.in_use():
                    if deed():
                        layer.sync_after(_SYNC)
                    elif layer.is_all_there():
                        layer.sync_after(0)
                        self._finish(layer)
                    else:  # others are at the last of it
                        time.sleep(_GLANCE)
                pause = _PAUSE
            except BaseException as error:
                if layer.is_gone.is_set():
                    continue
                _log(layer, error)
                if _is_proof(error, layer):
                    self._condemn(layer, error)
                    continue
                if layer.is_wanted:
                    layer.is_wanted = False
                    self._say(layer=layer.watched.number, late=_words_of(error))
                layer.rest_until = time.monotonic() + pause
                pause = min(pause * 2, _LONGEST)

    def _next_to_fill(self) -> tuple[LazyLayer, Callable[[], bool]]:
        """A layer that lacks something, and how it comes: at once what is in the order of a first run, or of one that
        somebody wants whole; the rest when nobody has waited for a while.
        """
        with self._changed:
            while True:
                now = time.monotonic()
                lacking = [one for one in self._layers.values() if one.rest_until <= now and not one.is_condemned]
                lacking = [one for one in lacking if one.is_wanted or not one.is_held]
                wanted = [one for one in lacking if one.is_wanted]
                ordered = [(turn, number) for number, one in enumerate(lacking) if (turn := one.turn()) is not None]
                quiet = now - self._quiet_since
                if ordered:
                    layer = lacking[min(ordered)[1]]
                    return layer, layer.bring_ordered
                if wanted:
                    return wanted[0], partial(wanted[0].bring_next, _ALL)
                if lacking and not self._waiting and quiet >= _QUIET:
                    return lacking[0], partial(lacking[0].bring_next, _AHEAD)
                self._changed.wait(_QUIET - quiet if lacking and _QUIET - quiet > 0 and not self._waiting else 1.0)

    def _finish(self, layer: LazyLayer) -> None:
        done = False
        try:
            with self._store() as store:
                store._parts.layers.complete(layer.key)
            done = True
        except NotFound:  # it has no row yet, or no more
            layer.rest_until = time.monotonic() + _PAUSE
        finally:
            if not done:
                layer.failed()
        if done:
            self._say(layer=layer.watched.number, whole=True)
            layer.rest_until = float("inf")

    def _store(self) -> Any:
        from layerstore.store import Store

        return Store(self._given.config)


def _is_wrong(error: BaseException) -> TypeGuard[LayerstoreError]:
    """Is what was read not as it should be? A limit that it exceeds may be set higher."""
    return isinstance(error, InvalidArchive | Damaged) and not isinstance(error, LimitExceeded)


def _is_proof(error: BaseException, layer: LazyLayer) -> TypeGuard[LayerstoreError]:
    """That a layer is wrong, and nothing else is: no database, no record, none of the layers below it."""
    return _is_wrong(error) and (not isinstance(error, Damaged) or error.layer == layer.index.diff_id)


def _words_of(error: BaseException) -> str:
    """What an error says, and that of no error is nothing."""
    return str(error) if isinstance(error, LayerstoreError) else f"{type(error).__name__}: {error}"


def _log(layer: LazyLayer, error: BaseException) -> None:
    log(f"{Path(layer.watched.path).name}: {_words_of(error)}")


def main() -> None:
    """Fetch for the holder that started this; take its place if it dies."""
    word, line = sys.argv[1:]
    given, layers = taken_over(word)
    protect(0)
    os.set_inheritable(int(line), False)
    fetcher = Fetcher(given, socket.socket(fileno=int(line)))
    try:
        if fetcher.run():
            os._exit(0)
    except BaseException as error:  # not to be waited for by threads that may wait for long: another is started
        log(_words_of(error))
        os._exit(1)
    word, fds = hand_over(given, [*layers, *fetcher.watched()])
    for fd in fds:
        os.set_inheritable(fd, True)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "layerstore.holding", word])


if __name__ == "__main__":
    main()
