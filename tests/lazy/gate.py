"""A gate before the data of a registry's blobs: closed, none of them comes, and everything else does."""

from __future__ import annotations

import re
import threading

from registry.servers.listening import Answer, Seen
from registry.servers.quirks import Quirks

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Gate:
    """Ranges of blobs pass it or do not; what asks for a single byte wants to know whether there are ranges.

    `holds`: what comes to it while it is closed is not refused, but waits for it.
    """

    def __init__(self, quirks: Quirks, *, holds: bool = False) -> None:
        self._opened = threading.Event()
        self._holds = holds
        self.passed = 0
        self._wrong = False
        quirks.spoil("GET", "/blobs/", self._answer)

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()

    @is_open.setter
    def is_open(self, is_open: bool) -> None:
        (self._opened.set if is_open else self._opened.clear)()

    def spoil(self, *, wrong: bool = True) -> None:
        """Let all that passes be something else, and not fail; or be right again."""
        self._wrong = wrong

    def _answer(self, seen: Seen, answer: Answer) -> Answer:
        found = _RANGE.fullmatch(seen.headers.get("Range", ""))
        if found is None or int(found[2]) - int(found[1]) < 1 or answer.status != 206:
            return answer
        if not self._opened.wait(60 if self._holds else 0):
            return Answer(503, {})
        self.passed += 1
        return Answer(answer.status, answer.headers, bytes(len(answer.body))) if self._wrong else answer
