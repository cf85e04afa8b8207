"""The other side of `peer`: what a store that is served answers to other stores. No HTTP here.

What is asked is hostile. What is given out is not verified, whoever reads it does that: a blob that is still being
received is passed on as it comes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from layerstore.blobs import Blobs, Growing
from layerstore.digest import Digest, parse
from layerstore.errors import InvalidDigest, LayerstoreError
from layerstore.registry.remotes.peer import MOST_DIGESTS
from layerstore.registry.remotes.remote import SILENCE
from layerstore.registry.remotes.turns import Turns

__all__ = ["Answering", "BadQuestion"]

BEGINS: Final = 2.0
"""Seconds for which a blob is waited for that a pull of this store is to begin with: it was told so a moment ago."""

_PIECE: Final = 256 << 10
_POLL: Final = 0.005
_ID: Final = re.compile(r"[0-9a-f]{32}")


class BadQuestion(LayerstoreError):
    """What another store asks makes no sense."""

    usual_remedy = "Both should have the same version of layerstore."


class Answering:
    """A store's answers. Any thread may ask. `silence`: seconds for which a blob that grows may not."""

    def __init__(self, store_id: str, blobs: Blobs, *, silence: float = SILENCE * 0.8) -> None:
        self._store_id = store_id
        self._blobs = blobs
        self._turns = Turns()
        self._silence = silence

    def has(self, question: object) -> dict[str, Any]:
        """`{"digests": […]}`: which of these blobs can be given out, to the byte, with their sizes."""
        digests = _fields(question).get("digests")
        if not isinstance(digests, list) or len(digests) > MOST_DIGESTS:
            raise BadQuestion(f"digests has to be a list of at most {MOST_DIGESTS}")
        sizes = ((digest, self._blobs.size(digest)) for digest in map(_digest, digests))
        return {"id": self._store_id, "there": {digest: size for digest, size in sizes if size}}

    def turn(self, question: object) -> dict[str, Any]:
        """`{"digest", "store", "lost", "gives"}`: from which store that one is to have a blob. See `Turns.take`."""
        asked = _fields(question)
        store, lost = asked.get("store"), asked.get("lost", [])
        if not isinstance(store, str) or not _ID.fullmatch(store):
            raise BadQuestion("store has to be the ID of one")
        if not isinstance(lost, list) or len(lost) > 16 or not all(isinstance(name, str) for name in lost):
            raise BadQuestion("lost has to be a list of IDs of stores")
        digest = _digest(asked.get("digest"))
        return {"from": self._turns.take(digest, store, lost=lost, gives=asked.get("gives") is True)}

    def blob(self, digest: str, size: int, start: int, end: int) -> Callable[[], Iterator[bytes]] | None:
        """What gives out a part of a blob of `size` bytes, also while it is being received; None: it is not here.

        It may end too early.
        """
        wanted = _digest(digest)
        if not 0 <= start < end <= size < 1 << 62:
            raise BadQuestion("the range lies outside of the blob")
        deadline = time.monotonic() + BEGINS
        while True:
            if self._blobs.size(wanted) == size:
                return lambda: self._whole(wanted, start, end)
            growing = self._blobs.growing(wanted)
            if growing is not None:
                return lambda: self._along(growing, start, end)
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL)

    def _whole(self, digest: Digest, start: int, end: int) -> Iterator[bytes]:
        from layerstore.layers.relay import relay

        # A reader that leaves early closes the iterator, and that ends the writing.
        with relay(lambda write: self._blobs.write(digest, write, start=start, end=end)) as stream:
            while piece := stream.read(_PIECE):
                yield piece

    def _along(self, growing: Growing, start: int, end: int) -> Iterator[bytes]:
        buffer = memoryview(bytearray(_PIECE))
        with growing:
            came = time.monotonic()
            while start < end:
                is_given_up = growing.is_given_up
                if count := growing.readinto(buffer[: end - start], start):
                    start += count
                    yield bytes(buffer[:count])
                    came = time.monotonic()
                elif is_given_up or time.monotonic() - came > self._silence:
                    return
                else:
                    time.sleep(_POLL)


def _fields(question: object) -> dict[str, Any]:
    if not isinstance(question, dict):
        raise BadQuestion("a question is a JSON object")
    return question


def _digest(text: object) -> Digest:
    try:
        return parse(text)
    except InvalidDigest:
        raise BadQuestion("what is asked for is no sha256 digest") from None
