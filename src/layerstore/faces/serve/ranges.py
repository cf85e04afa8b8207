"""Which part of a blob is wanted: the header `Range` (RFC 9110, section 14), of which one range is heeded."""

from __future__ import annotations

import re
from typing import Final

from layerstore.faces.serve.messages import Refused

_RANGE: Final = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*")


def wanted(header: str, size: int) -> tuple[int, int] | None:
    """From where up to before where; None: all of it, for no range is asked for, or several. Raises `Refused` (416)."""
    match = _RANGE.fullmatch(header)
    if match is None or match[1] == match[2] == "":
        return None
    if not match[1]:
        start, end = max(size - int(match[2]), 0), size
    else:
        start = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
    if start >= end:
        raise Refused(
            416,
            "SIZE_INVALID",
            f"the blob has {size} bytes, of which these are none",
            headers=[("Content-Range", f"bytes */{size}")],
        )
    return start, end
