"""A process of a crowd: so many threads use one store at random, for a time, and each at least once. See test_crowd.py.

Its arguments: data-root, driver, seed, threads, seconds. At the end it writes how many steps were done and, for each
kind of transaction that writes, the longest time for which one was open, in ms.
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


class Held:
    """The longest time between a write transaction's lock and its end, by the functions that have it."""

    def __init__(self) -> None:
        self.longest: dict[str, float] = {}
        self._begin, self._end = Database._begin, Database._end
        self._since: dict[int, float] = {}

    def begin(self, database: Database, *, durable: bool | None) -> Any:
        """In the place of the database's own."""
        got = self._begin(database, durable=durable)
        if durable is not None and not got[1]:
            self._since[id(database)] = time.monotonic()  # one at a time is open
        return got

    def end(self, database: Database, *arguments: Any, **options: Any) -> None:
        """Likewise."""
        since = self._since.pop(id(database), None)
        self._end(database, *arguments, **options)
        if since is not None:
            taken = time.monotonic() - since
            whose = " < ".join(frame.name for frame in reversed(traceback.extract_stack(limit=6)[:4]))
            self.longest[whose] = max(taken, self.longest.get(whose, 0.0))


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
    ):
        done = crowd(Path(root), name, int(seed), int(threads), float(seconds))
    longest = {whose: round(taken * 1000, 1) for whose, taken in held.longest.items()}
    print(json.dumps({"steps": done, "longest": longest}))
