"""What other stores ask that share layers with this one: which blobs it has, whose turn it is, what still grows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from layerstore.faces.serve import ranges
from layerstore.faces.serve.messages import Refused, Reply, Request, Write, of_json
from layerstore.faces.serve.pulling import unknown_blob
from layerstore.registry.remotes.answering import Answering, BadQuestion

if TYPE_CHECKING:
    from layerstore.store import Store

__all__ = ["Peers"]

Answer = TypeVar("Answer")

_QUESTION_LIMIT: Final = 256 << 10


class Peers:
    """Answers the questions of other stores."""

    def __init__(self, store: Store) -> None:
        # At once: who asks waits a second, which is little where all begin at the same time.
        self._answers = Answering(store.id, store.blobs)

    def has(self, request: Request) -> Reply:
        """Which of these blobs are here."""
        return self._said(lambda: of_json(self._answers.has(_question(request))))

    def turn(self, request: Request) -> Reply:
        """From whom is a blob to be had."""
        return self._said(lambda: of_json(self._answers.turn(_question(request))))

    def blob(self, digest: str, request: Request) -> Reply:
        """A blob by its digest and its `size`, whatever it is called; it may still be on its way here."""
        text = request.parameter("size") or ""
        size = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
        part = ranges.wanted(request.header("Range"), size)
        start, end = (0, size) if part is None else part
        body = self._said(lambda: self._answers.blob(digest, size, start, end))
        if body is None:
            raise unknown_blob(digest)

        def stream(write: Write) -> None:
            left = end - start
            for piece in body():
                left -= len(piece)
                write(memoryview(piece))
            if left:
                raise ConnectionAbortedError(f"{digest} ended {left} bytes too early")  # and so does the connection

        headers = (("Content-Type", "application/octet-stream"), ("Content-Range", f"bytes {start}-{end - 1}/{size}"))
        return Reply(206, headers, stream=stream, size=end - start)

    def _said(self, answer: Callable[[], Answer]) -> Answer:
        try:
            return answer()
        except BadQuestion as error:
            raise Refused(400, "UNSUPPORTED", error.message) from None


def _question(request: Request) -> Any:
    data = b""
    while len(data) <= _QUESTION_LIMIT and (piece := request.body.read(_QUESTION_LIMIT)):
        data += piece
    try:
        return json.loads(data if len(data) <= _QUESTION_LIMIT else b"")
    except (ValueError, RecursionError):
        raise Refused(400, "UNSUPPORTED", "the question is no JSON, or too long") from None
