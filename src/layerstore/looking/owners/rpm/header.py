"""One package as rpm keeps it: an index of entries of 16 bytes (tag, type, offset, count), then values; big endian.

See rpm's manual, "Header format". What is wrong in a header is left out.
"""

from __future__ import annotations

import struct

__all__ = ["Header"]

_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH = 1000, 1001, 1002, 1003, 1022
_DIR_INDEXES, _BASE_NAMES, _DIR_NAMES = 1116, 1117, 1118
_ENTRY = struct.Struct(">IIiI")
_INT32, _STRING, _STRINGS, _TRANSLATED = 4, 6, 8, 9


class Header:
    """One package's header."""

    def __init__(self, blob: bytes) -> None:
        self._entries: dict[int, tuple[int, int, int]] = {}
        self._store = b""
        if len(blob) < 8:
            return
        count, size = struct.unpack_from(">II", blob)
        end = 8 + count * _ENTRY.size
        if end > len(blob):
            return
        self._store = blob[end : end + size]
        for tag, kind, offset, number in _ENTRY.iter_unpack(blob[8:end]):
            if 0 <= offset <= len(self._store):
                self._entries.setdefault(tag, (kind, offset, min(number, len(self._store))))

    def has(self, folder: bytes, base: bytes) -> bool:
        """Has it a file of this name in this folder, which is given with a slash at either end?"""
        folders = self._strings(_DIR_NAMES)
        return any(
            name == base and index < len(folders) and folders[index] == folder
            for name, index in zip(self._strings(_BASE_NAMES), self._numbers(_DIR_INDEXES), strict=False)
        )

    @property
    def name(self) -> str:
        """The package."""
        return self._text(_NAME)

    @property
    def version(self) -> str:
        """`[epoch:]version-release`."""
        version = "-".join(part for part in (self._text(_VERSION), self._text(_RELEASE)) if part)
        epoch = self._numbers(_EPOCH)
        return f"{epoch[0]}:{version}" if epoch else version

    @property
    def architecture(self) -> str:
        """What it was built for."""
        return self._text(_ARCH)

    def _text(self, tag: int) -> str:
        return (self._strings(tag) or [b""])[0].decode(errors="replace")

    def _strings(self, tag: int) -> list[bytes]:
        kind, offset, count = self._entries.get(tag, (0, 0, 0))
        if kind not in (_STRING, _STRINGS, _TRANSLATED):
            return []
        return self._store[offset:].split(b"\0", count)[:count]

    def _numbers(self, tag: int) -> tuple[int, ...]:
        kind, offset, count = self._entries.get(tag, (0, 0, 0))
        if kind != _INT32:
            return ()
        count = min(count, (len(self._store) - offset) // 4)
        return struct.unpack_from(f">{count}I", self._store, offset)
