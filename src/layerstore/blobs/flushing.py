"""What comes into partial files is put on the disk by a thread of its own, so that nobody who downloads waits for it.

It matters only to the next attempt, should the power fail. So it is not done for each piece, failures are nobody's
business, and the thread ends when there is nothing to do.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Final, Protocol

from layerstore.patience import GLANCE

__all__ = ["Flushable", "forget", "note"]

_SECONDS_AT_RISK: Final = 0.05
_BYTES_AT_RISK: Final = 128 << 10
_PART_AT_RISK: Final = 1000
"""What came is put on the disk when it is so much, and this part of what there is; and no more often than that."""


class Flushable(Protocol):
    """A file that grows. Others may close it at any time: then there is nothing to flush."""

    @property
    def size(self) -> int: ...

    def flush(self) -> None: ...


_changed = threading.Condition()
_dirty: weakref.WeakKeyDictionary[Flushable, int] = weakref.WeakKeyDictionary()
"""The bytes of each that came since it was put on the disk."""
_thread: threading.Thread | None = None


def note(partial: Flushable, count: int) -> None:
    """So many bytes were written to it."""
    global _thread
    with _changed:
        _dirty[partial] = total = _dirty.get(partial, 0) + count
        if total < max(_BYTES_AT_RISK, partial.size // _PART_AT_RISK):
            return
        if _thread is None:
            _thread = threading.Thread(target=_flush, name="layerstore-flush", daemon=True)
            _thread.start()
        _changed.notify()


def forget(partial: Flushable) -> int:
    """It is closed or gone. The bytes of it that may not be on the disk."""
    with _changed:
        return _dirty.pop(partial, 0)


def _flush() -> None:
    global _thread
    while True:
        with _changed:
            if not _due() and not _changed.wait_for(_due, GLANCE):
                _thread = None
                return
            files = _due()
            for partial in files:
                _dirty.pop(partial)
        for partial in files:
            partial.flush()
        time.sleep(_SECONDS_AT_RISK)


def _due() -> list[Flushable]:
    return [one for one, count in _dirty.items() if count >= max(_BYTES_AT_RISK, one.size // _PART_AT_RISK)]


def _begin_anew() -> None:
    """In the child of a fork there is no such thread, and no partial of its own."""
    global _changed, _thread
    _changed, _thread = threading.Condition(), None
    _dirty.clear()


os.register_at_fork(after_in_child=_begin_anew)
