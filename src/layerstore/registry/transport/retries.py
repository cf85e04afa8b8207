"""When a request is made again, and after how long: what a reply says of it, in seconds. Pure."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from layerstore.registry.transport.words import printable
from layerstore.values import frozen

__all__ = ["LIMITING", "PASSING", "Limit", "clock", "limit_of", "pause", "retry_after", "spread", "warnings"]

LIMITING: Final = (429, 503)
"""Statuses that mean "later", and may say when."""
PASSING: Final = (408, 500, 502, 503, 504)
"""Statuses that may be different the next time."""

_LONGEST: Final = 30 * 86_400.0
_WARNING = re.compile(r'\s*299\s+\S+\s+"((?:[^"\\]|\\.)*)"')
_LIMIT = re.compile(r"\s*([0-9]{1,9})\s*(?:;.*?\bw=([0-9]{1,9}))?")


@frozen
class Limit:
    """What is left of a rate limit: Docker Hub's `RateLimit-Limit: 100;w=21600` and `RateLimit-Remaining`."""

    total: int | None
    remaining: int
    window: int | None
    """Seconds over which requests are counted."""


def pause(attempt: int, first: float) -> float:
    """Before the repetition after `attempt` (from 1): twice the one before, at most 10 s, and jittered."""
    return min(first * (1 << (attempt - 1)), 10.0) * random.uniform(0.5, 1.0)


def spread(seconds: float) -> float:
    """A wait that a server asked for, and a little more, so that not all come back at the same moment."""
    return seconds + random.uniform(0.0, min(seconds / 10, 1.0))


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """The seconds that `Retry-After` asks to wait: a number or a date (RFC 9110, 10.2.3). None: it does not say."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    seconds: float | None = None
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text):
        seconds = float(text)
    else:
        try:
            seconds = parsedate_to_datetime(text[:100]).timestamp() - (time.time() if now is None else now)
        except (ValueError, OverflowError, OSError):
            return None
    return min(max(seconds, 0.0), _LONGEST)


def limit_of(headers: Mapping[str, str]) -> Limit | None:
    """The rate limit that a reply tells of, if it does."""
    left = _LIMIT.match(headers.get("RateLimit-Remaining", "") or headers.get("X-RateLimit-Remaining", ""))
    if left is None:
        return None
    total = _LIMIT.match(headers.get("RateLimit-Limit", "") or headers.get("X-RateLimit-Limit", ""))
    window = left.group(2) or (total.group(2) if total else None)
    return Limit(int(total.group(1)) if total else None, int(left.group(1)), int(window) if window else None)


def warnings(headers: Mapping[str, str]) -> list[str]:
    """What `Warning: 299 - "…"` says to a person (distribution-spec, "Warnings"), printable."""
    texts = _WARNING.findall(headers.get("Warning", "")[:4096])
    return [printable(re.sub(r"\\(.)", r"\1", text)) for text in texts if text.strip()]


def clock(until: float, now: float | None = None) -> str:
    """When that is, for a person: `14:05`, with the day where it is not today's."""
    then = time.localtime(until)
    today = time.localtime(now)
    return time.strftime("%H:%M" if then[:3] == today[:3] else "%Y-%m-%d %H:%M", then)
