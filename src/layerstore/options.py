"""What the options of storage drivers are made of: converters from the text of a `storage-opts` entry to a value.

A converter takes what it is given if that is a value already, and raises `ValueError` with what would be allowed.
"""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgtp])i?)?b?", re.IGNORECASE | re.ASCII)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SWITCHES = {"1": True, "t": True, "true": True, "on": True, "0": False, "f": False, "false": False, "off": False}


def size(value: str | int | None) -> int | None:
    """Bytes, as docker reads them: `10G`, `512m`, `1.5 TiB`; units are binary."""
    if value is None or isinstance(value, int):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("a size such as 10G: a number and b, k, m, g, t or p")
    number = float(match[1]) if "." in match[1] else int(match[1])
    return int(number * 1024 ** (_POWERS[match[2].lower()] if match[2] else 0))


def seconds(value: str | float) -> float:
    """A time in seconds, more than none: `60`, `0.5`."""
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < 1 << 31:
        raise ValueError("a number of seconds, such as 60")
    return number


def switch(value: object) -> bool:
    """On or off, as docker reads it: true, 1, on; false, 0, off."""
    if isinstance(value, bool):
        return value
    chosen = _SWITCHES.get(str(value).strip().lower())
    if chosen is None:
        raise ValueError("true or false")
    return chosen
