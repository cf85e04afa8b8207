"""A process of a crowd: so many threads use one store at random, for a time, and each at least once. See test_crowd.py.

Its arguments: data-root, driver, seed, threads, seconds. At the end it writes how many steps were done and, for each
kind of transaction that writes, the longest time for which one had the database's lock, in ms; of these, the longest
commit and the longest time before one; and how long somebody waited for the lock of the records and had it.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any
from unittest.mock import patch

import layerstore
from core import worker
from layerstore.database.database import Database
from layerstore.records import Mirror

COMMIT, BEFORE = "the commit, with its sync", "all before the commit"
RECORDS = "the lock of the records, and waiting for it"


class Held:
    """The longest time between a write transaction's lock and its end, by the functions that have it."""

    def __init__(self) -> None:
        self.longest: dict[str, float] = {}
        self._begin, self._end = Database._begin, Database._end
        self._take, self._write = Mirror.take, Mirror.write
        self._since: dict[int, float] = {}
        self._commits: dict[int, tuple[float, float | None]] = {}

    def begin(self, database: Database, *, durable: bool | None) -> Any:
        """In the place of the database's own."""
        got = self._begin(database, durable=durable)
        if durable is not None and not got[1]:
            self._since[id(database)] = time.monotonic()  # one at a time is open
        return got

    def end(self, database: Database, *arguments: Any, **options: Any) -> None:
        """Likewise. The lock is given back before the records are written."""
        since = self._since.pop(id(database), None)
        self._end(database, *arguments, **options)
        if since is None:
            return
        now = time.monotonic()
        begun, until = self._commits.pop(threading.get_ident(), (now, now))  # nothing after an error
        until = until or now
        whose = " < ".join(frame.name for frame in reversed(traceback.extract_stack(limit=6)[:4]))
        for what, taken in ((whose, until - since), (COMMIT, until - begun), (BEFORE, begun - since)):
            self.longest[what] = max(taken, self.longest.get(what, 0.0))

    def take(self, mirror: Mirror, connection: Any, *, durable: bool) -> Any:
        """In the place of the mirror's: what follows is the commit."""
        touched = self._take(mirror, connection, durable=durable)
        self._commits[threading.get_ident()] = time.monotonic(), None
        return touched

    def write(self, mirror: Mirror, touched: Any) -> None:
        """Likewise: what came before was the commit."""
        me, now = threading.get_ident(), time.monotonic()
        if me in self._commits:
            self._commits[me] = self._commits[me][0], now
        self._write(mirror, touched)
        self.longest[RECORDS] = max(time.monotonic() - now, self.longest.get(RECORDS, 0.0))


def crowd(data_root: Path, driver: str, seed: int, threads: int, seconds: float) -> int:
    """Do it; how many steps were done. Raises what one of the threads has met."""
    sources = sorted(data_root.parent.glob("image*.tar"))
    until = time.monotonic() + seconds
    steps = [0] * threads
    failures: list[BaseException] = []

    def live(number: int) -> None:
        dice = random.Random(seed * 1000 + number)
        try:
            while not failures and (steps[number] == 0 or time.monotonic() < until):
                worker.tried(store, dice, sources)
                steps[number] += 1
        except BaseException as error:
            failures.append(error)

    with layerstore.open(config=worker.settings(data_root, driver)) as store:
        running = [threading.Thread(target=live, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    if failures:
        raise failures[0]
    return sum(steps)


if __name__ == "__main__":
    held = Held()
    root, name, seed, threads, seconds = sys.argv[1:]
    with (
        patch.object(Database, "_begin", lambda database, *, durable: held.begin(database, durable=durable)),
        patch.object(Database, "_end", lambda *arguments, **options: held.end(*arguments, **options)),
        patch.object(Mirror, "take", lambda *arguments, **options: held.take(*arguments, **options)),
        patch.object(Mirror, "write", lambda *arguments: held.write(*arguments)),
    ):
        done = crowd(Path(root), name, int(seed), int(threads), float(seconds))
    longest = {whose: round(taken * 1000, 1) for whose, taken in held.longest.items()}
    print(json.dumps({"steps": done, "longest": longest}))
