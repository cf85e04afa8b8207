"""A holder is started: it is ready when this program has ended, and goes on as another process.

Without a word, by what it reads from its input; with one, it is a fetcher that takes the place of a holder that
died, or a warden that takes that of both.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import sys
from pathlib import Path

from layerstore.holding.holder import Holder
from layerstore.holding.passing import Given, leave_streams, taken_over
from layerstore.kernel.watching import Watch
from layerstore.layers.orphans import FOLDER, LOCK


def _start() -> Holder:
    """Take the lock, have a watch, listen; then leave the terminal, and whoever has asked for this, behind."""
    home, config, patience = pickle.load(sys.stdin.buffer)
    place = Path(home) / FOLDER
    lock = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # nobody has it for longer than it takes to look
    os.ftruncate(lock, 0)
    os.write(lock, b"1")
    holder = Holder(Given(home, config, patience, Watch().group, lock))
    holder.listen()
    if os.fork():
        os._exit(0)
    os.setsid()
    leave_streams(place)
    return holder


def _follow(word: str) -> Holder:
    given, layers = taken_over(word)
    holder = Holder(given, layers)
    holder.take_over()
    holder.look_around()  # the dead may not have passed on all that was watched
    holder.listen()
    return holder


if __name__ == "__main__":
    (_follow(sys.argv[1]) if len(sys.argv) > 1 else _start()).run()
