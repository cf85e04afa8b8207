"""Numbers, times and names as docker shows them to people: `1.22kB`, `2 minutes ago`, `6e2c90209a58`. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_SIZES: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_SHORT: Final = 12
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h|d|w)")
# Go's, and days and weeks. Its micro is written as either of two characters that look alike.
_DURATION_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 0.001,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
}


def size(number: int, *, digits: int = 3) -> str:
    """Bytes in decimal units with `digits` digits, as docker's lists have it: 1.22kB."""
    value, unit = float(number), 0
    # A value that would round to 1e+03 of its unit is 1 of the next.
    while float(f"{value:.{digits}g}") >= 1000 and unit < len(_SIZES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.{digits}g}{_SIZES[unit]}"


def memory(number: int) -> str:
    """Bytes in binary units, as docker shows a machine's memory: 23.54GiB."""
    value, unit = float(number), 0
    while value >= 1024 and unit < 5:
        value, unit = value / 1024, unit + 1
    return f"{value:.4g}{('B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB')[unit]}"


def duration(span: timedelta) -> str:
    """A span of time in words, as exact as people want it."""
    seconds = int(span.total_seconds())
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def ago(then: datetime | None, *, now: datetime | None = None) -> str:
    """`2 minutes ago`; `N/A` for what has no time."""
    if then is None:
        return "N/A"
    return f"{duration((now or datetime.now(UTC)) - then)} ago"


def until(text: str, *, now: datetime | None = None) -> datetime | None:
    """The moment that a filter `until=…` means: RFC 3339, a date, seconds since 1970, or a span before now (`1h`).

    A time without a zone is one of the machine's. What lies beyond the years 1 and 9999 is their beginning or end.
    """
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return _shifted(_EPOCH, float(text))
    if re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in _DURATION.findall(text))
        return _shifted(now or datetime.now(UTC), -seconds)
    return _written(text)


def _written(text: str) -> datetime | None:
    """A time as people write it: RFC 3339, or less of it; however many digits its seconds have."""
    try:
        # fromisoformat wants at most six digits of a second, and a capital Z.
        then = datetime.fromisoformat(re.sub(r"([.,]\d{6})\d+", r"\1", text.strip().upper()))
    except ValueError:
        return None
    try:
        return then.astimezone() if then.tzinfo is None else then.astimezone(UTC)
    except (OverflowError, ValueError):
        return then.replace(tzinfo=UTC)


def _shifted(then: datetime, seconds: float) -> datetime:
    try:
        return then + timedelta(seconds=seconds)
    except OverflowError:
        return (datetime.min if seconds < 0 else datetime.max).replace(tzinfo=UTC)


def local(then: datetime | None) -> str:
    """`2026-11-24 11:10:37 +0000 UTC`, in the machine's time zone, as docker's CreatedAt of lists."""
    if then is None:
        return "N/A"
    here = _here(then)
    return f"{_date(here)} {here:%H:%M:%S} {_offset(here, '')} {here.tzname()}"


def rfc3339(then: datetime | None) -> str:
    """`2026-11-24T11:10:37Z`, in the machine's time zone, as docker's CreatedAt of `history`."""
    if then is None:
        return "N/A"
    here = _here(then)
    return f"{_date(here)}T{here:%H:%M:%S}{_offset(here, ':') if here.utcoffset() else 'Z'}"


def _here(then: datetime) -> datetime:
    """`then` in the machine's time zone; in UTC where that would leave the years 1 to 9999."""
    try:
        return then.astimezone()
    except (OverflowError, ValueError):
        return then.astimezone(UTC)


def _date(then: datetime) -> str:
    # strftime writes the years before 1000 with less than four digits.
    return f"{then.year:04}-{then:%m-%d}"


def _offset(then: datetime, colon: str) -> str:
    """The distance from UTC to the minute, as Go has it: local mean times have seconds, too."""
    span = then.utcoffset() or timedelta()
    minutes = int(abs(span).total_seconds()) // 60
    return f"{'-' if span < timedelta() else '+'}{minutes // 60:02}{colon}{minutes % 60:02}"


def short(identifier: str) -> str:
    """The twelve digits by which an image or container is known."""
    return identifier.rpartition(":")[2][:_SHORT]


def ellipsis(text: str, length: int) -> str:
    """`text`, or as much of it as fits before a `…` within `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def one_line(text: str) -> str:
    """`text` without the line breaks and tabs that would break a table."""
    return re.sub(r"[\t\n\v\f\r]+", " ", text)


def fetched(size: int, lacking: int) -> str:
    """How much of so many bytes is there, when so many lack: 34%; never 100%."""
    return f"{max(size - lacking, 0) * 100 // max(size, 1)}%"
