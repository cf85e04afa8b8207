"""Deflate as Go's compress/flate writes it, to the byte (goflate.h): most layers that there are were written by it.

docker, BuildKit, containerd and ko use Go's own; what it writes did not change for years, and when Go 1.27 changed it,
BuildKit kept the former. podman, buildah and skopeo use another (pgzip), which is not made here.
"""

from __future__ import annotations

from typing import Any, Final

from layerstore.kernel._shim import ffi, lib

__all__ = ["LEVELS", "Deflate"]

LEVELS: Final = (1, 4, 5, 6, 7, 8, 9)
"""Those that are known here. 2 and 3 are hardly met."""


class Deflate:
    """One stream; for one thread at a time. Raises `MemoryError`."""

    def __init__(self, level: int) -> None:
        """`level`: one of `LEVELS`; Go's default is 6."""
        if level not in LEVELS:
            raise ValueError(f"no level {level}")
        stream = lib.ls_goflate_new(level)
        if stream == ffi.NULL:
            raise MemoryError
        self._stream: Any = ffi.gc(stream, lib.ls_goflate_free)
        self._length: Any = ffi.new("size_t *")

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take the next bytes in; what can be written by now."""
        buffer = ffi.from_buffer("uint8_t[]", data)
        return self._made(lib.ls_goflate_feed(self._stream, buffer, len(buffer)))

    def finish(self) -> bytes:
        """The rest, to the end of the stream."""
        return self._made(lib.ls_goflate_finish(self._stream))

    def close(self) -> None:
        """Nothing is held that does not go by itself."""

    def _made(self, answer: int) -> bytes:
        if answer:
            raise MemoryError
        data = lib.ls_goflate_take(self._stream, self._length)
        return bytes(ffi.buffer(data, self._length[0])) if self._length[0] else b""
