"""A registry that misbehaves as a test wants it to: `Quirks` is `memory.Registry`, with rules that alter its answers.

    quirks.spoil("GET", "/blobs/", cut(1000), times=2)

Each function here is a way to misbehave that was met in the world: most rows of the table "what bites".
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable

from attrs import define, evolve

from .listening import Answer, Seen
from .memory import Registry, failure

Quirk = Callable[[Seen, Answer], Answer]
Early = Callable[[Seen], Answer | None]


@define
class _Rule:
    method: str | None
    path: re.Pattern[str]
    act: Quirk | None
    early: Early | None
    after: int
    times: int | None
    """How often it may still act; None: always."""
    met: int = 0

    def fits(self, seen: Seen) -> bool:
        if self.method not in (None, seen.method) or not self.path.search(seen.path):
            return False
        self.met += 1
        if self.met <= self.after or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Quirks(Registry):
    """A registry with rules. It behaves until it is told not to."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self._rules: list[_Rule] = []

    def spoil(
        self,
        method: str | None,
        path: str,
        act: Quirk,
        *,
        times: int | None = None,
        after: int = 0,
    ) -> None:
        """Alter the answers to such requests: `path` is a regular expression, looked for in the path.

        `after`: the first so many are left alone; `times`: so many are altered, None is all.
        """
        self._rules.append(_Rule(method, re.compile(path), act, None, after, times))

    def refuse(self, method: str | None, path: str, early: Early, *, times: int | None = None, after: int = 0) -> None:
        """Answer such requests before their body is read: `early` gives the answer, or None."""
        self._rules.append(_Rule(method, re.compile(path), None, early, after, times))

    def behave(self) -> None:
        """Drop all rules."""
        self._rules.clear()

    def early(self, seen: Seen) -> Answer | None:
        for rule in list(self._rules):
            if rule.early is not None and rule.fits(seen) and (answer := rule.early(seen)) is not None:
                return answer
        return None

    def answer(self, seen: Seen) -> Answer:
        answer = super().answer(seen)
        for rule in list(self._rules):
            if rule.act is not None and rule.fits(seen):
                answer = rule.act(seen, answer)
        return answer


# --- what comes over the line ---


def cut(at: int, *, reset: bool = False) -> Quirk:
    """The connection ends after so many bytes of the body, as if it were whole; by a reset if wanted."""
    return lambda seen, answer: evolve(answer, cut=at, reset=reset)


def reset() -> Quirk:
    """The connection is reset instead of an answer."""
    return lambda seen, answer: evolve(answer, reset=True)


def stall(at: int) -> Quirk:
    """After so many bytes of the body nothing comes any more, and the connection stays open."""
    return lambda seen, answer: evolve(answer, stall=at)


def silence() -> Quirk:
    """No answer, and the connection stays open."""
    return lambda seen, answer: evolve(answer, stall=-1)


def slow(rate: int) -> Quirk:
    """So many bytes a second."""
    return lambda seen, answer: evolve(answer, rate=rate)


def late(seconds: float) -> Quirk:
    """The answer comes, later."""
    return lambda seen, answer: evolve(answer, delay=seconds)


def endless(*, length: str | None = None) -> Quirk:
    """The body never ends. `length`: what Content-Length says nevertheless."""
    return lambda seen, answer: evolve(answer, endless=True, length=length, close=True)


def without_length() -> Quirk:
    """No Content-Length: the body ends with the connection."""
    return lambda seen, answer: evolve(answer, length=None)


def length(text: str) -> Quirk:
    """Content-Length says this."""
    return lambda seen, answer: evolve(answer, length=text)


def raw(data: bytes) -> Quirk:
    """These bytes instead of HTTP."""
    return lambda seen, answer: evolve(answer, raw=data)


# --- other answers ---


def body(data: bytes) -> Quirk:
    """Other bytes than those asked for."""
    return lambda seen, answer: evolve(answer, body=data)


def flipped(at: int) -> Quirk:
    """One bit of the body is another."""

    def flip(seen: Seen, answer: Answer) -> Answer:
        data = bytearray(answer.body)
        if at < len(data):
            data[at] ^= 1
        return evolve(answer, body=bytes(data))

    return flip


def more(data: bytes) -> Quirk:
    """The body goes on after its end."""
    return lambda seen, answer: evolve(answer, body=answer.body + data)


def headers(**values: str | None) -> Quirk:
    """Other headers: `Content_Type="x"`; None takes one away."""

    def alter(seen: Seen, answer: Answer) -> Answer:
        names = {name.replace("_", "-"): value for name, value in values.items()}
        kept = {name: value for name, value in answer.headers.items() if name not in names}
        return evolve(answer, headers=kept | {name: value for name, value in names.items() if value is not None})

    return alter


def status(code: int, error: str | None = None, message: str = "", **values: str) -> Quirk:
    """That status, with the spec's error body if a code is named, else with none. `values` are headers."""
    named = {name.replace("_", "-"): value for name, value in values.items()}
    if error is None:
        return lambda seen, answer: Answer(code, named)
    return lambda seen, answer: failure(code, error, message, headers=named)


def html(code: int = 200) -> Quirk:
    """A page for people: a proxy's, or a company's login."""
    page = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>\x1b[31mSign in first</body></html>\n"
    return lambda seen, answer: Answer(code, {"Content-Type": "text/html; charset=utf-8"}, page)


def moved(to: str, code: int = 307) -> Quirk:
    """A redirect: `to` is another server's URL, and the target is kept; or a path of this one."""
    return lambda seen, answer: Answer(code, {"Location": to + seen.target if to.startswith("http") else to})


# --- ranges ---


def whole(data: bytes) -> Quirk:
    """All of it, with 200, whatever range was asked for (Cloudflare before Docker Hub, cold caches)."""
    return lambda seen, answer: Answer(200, {"Content-Type": "application/octet-stream"}, data)


def unsatisfiable(size: int) -> Quirk:
    """docker-registry's 416: it says the blob's length, and sends 33 bytes."""
    page = b'{"errors":[{"code":"UNKNOWN"}]}\r\n'
    return lambda seen, answer: Answer(416, {"Content-Type": "application/json"}, page, length=str(size))


def only_closed() -> Quirk:
    """416 to `bytes=N-`, as go-containerregistry's registry answers."""

    def alter(seen: Seen, answer: Answer) -> Answer:
        return Answer(416, {}, b"") if (seen.headers["Range"] or "").endswith("-") else answer

    return alter


def content_range(text: str | None) -> Quirk:
    """A Content-Range that says something else than what is sent, or none."""
    return headers(Content_Range=text)


# --- uploads ---


def too_large(limit: int, *, read: int = 0) -> Early:
    """413 to bodies beyond `limit`, before they are read (Cloudflare: 100 MB). `read`: so much of it is taken."""

    def refuse(seen: Seen) -> Answer | None:
        if int(seen.headers["Content-Length"] or 0) <= limit:
            return None
        return Answer(413, {"Content-Type": "text/html"}, b"<h1>413 Request Entity Too Large</h1>", unread=read)

    return refuse


def hang_up(limit: int, *, read: int = 0) -> Early:
    """The connection is reset when a body is larger than `limit`."""

    def refuse(seen: Seen) -> Answer | None:
        if int(seen.headers["Content-Length"] or 0) <= limit:
            return None
        return Answer(unread=read, reset=True)

    return refuse
