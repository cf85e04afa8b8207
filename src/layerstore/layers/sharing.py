"""Content that several tars have is kept once: a new tar shares the blocks of one that is there.

The kernel compares before it shares (FIDEDUPERANGE), so nothing here has to be right: neither the hashes nor the notes
of where content lies, which may be old, torn, or gone. No byte of a tar is altered, and blocks that are shared go when
the last tar goes that has them, which is the filesystem's work.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from layerstore import tar
from layerstore.driver import LayerKey
from layerstore.errors import Damaged, KernelError, LayerstoreError, named
from layerstore.kernel.files import share_range
from layerstore.kernel.files.descriptors import private

__all__ = ["Sharing"]

_NOTE: Final = struct.Struct("=QQQ16s")
"""XXH64 and size of a payload, where in the tar it begins, and the layer's key, which is 32 digits."""

_NOTES: Final = 1 << 18
"""As many are kept, each at the place that its content has; a newer one takes the place of an older one."""

_LEAST: Final = 4
"""Blocks: what has fewer costs more to look for than it gives back (docs/performance.md)."""

_OPEN: Final = 64
_MIX: Final = 0x9E3779B97F4A7C15  # 2**64 divided by the golden ratio (Knuth, 6.4)

_AHEAD: Final = 256
"""Payloads that are read ahead: the kernel, which compares, reads page by page what it finds on the disk only."""

_READ: Final = 128 << 10
"""Bytes: of more at once the kernel reads ahead no more than it does of any file (read_ahead_kb)."""

_Pair = tuple[int, int, int, int, int]
"""What `share_range` takes."""


class Sharing:
    """The tars of one driver, and where their content is noted. A context manager: it closes what it has opened.

    `tar_of` says where the tar of a layer lies, or would lie. What cannot be shared stays as it is, without an error.
    """

    def __init__(self, notes: Path, tar_of: Callable[[LayerKey], Path]) -> None:
        self._tar_of = tar_of
        self._files: dict[LayerKey, int] = {}
        with named("open", notes):
            self._notes = private(os.fspath(notes), os.O_RDWR | os.O_CREAT)
        self._block = os.fstatvfs(self._notes).f_bsize

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()
        os.close(self._notes)

    def share(self, key: LayerKey, listing: Path) -> int:
        """Let a new tar share what others have, and note what it has. How many bytes were the same."""
        try:
            packed = bytes.fromhex(key)
            payloads = tar.laid_in(listing, _LEAST * self._block)
        except (ValueError, Damaged):
            return 0
        done = 0
        for first in range(0, len(payloads), _AHEAD):
            pairs = [self._looked_up(key, packed, *payload) for payload in payloads[first : first + _AHEAD]]
            done += sum(_share(*pair) for pair in pairs if pair is not None)
            if len(self._files) > _OPEN:
                self._close()
        return done

    def _looked_up(self, key: LayerKey, packed: bytes, content: int, size: int, place: int) -> _Pair | None:
        """Where the whole blocks of a payload lie elsewhere, which are read from there meanwhile; from here on, here.

        Blocks can be shared where both begin at the same place within one: files lie at multiples of 512.
        """
        skipped = -place % self._block
        length = (size - skipped) // self._block * self._block
        at = ((content ^ place % self._block) * _MIX >> 32) % _NOTES * _NOTE.size
        with suppress(OSError, LayerstoreError):
            found = os.pread(self._notes, _NOTE.size, at)
            os.pwrite(self._notes, _NOTE.pack(content, size, place, packed), at)
            if len(found) < _NOTE.size:
                return None
            *facts, other_place, other = _NOTE.unpack(found)
            if facts != [content, size] or other_place % self._block != place % self._block:
                return None
            source, target = self._opened(LayerKey(other.hex())), self._opened(key)
            if other_place != place or not os.path.sameopenfile(source, target):
                begin = other_place + skipped
                for piece in range(begin, begin + length, _READ):
                    os.posix_fadvise(source, piece, min(_READ, begin + length - piece), os.POSIX_FADV_WILLNEED)
                return source, begin, target, place + skipped, length
        return None

    def _opened(self, key: LayerKey) -> int:
        if key not in self._files:
            self._files[key] = private(os.fspath(self._tar_of(key)), os.O_RDONLY | os.O_NOFOLLOW)
        return self._files[key]

    def _close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


def _share(source: int, begin: int, target: int, at: int, length: int) -> int:
    """See `share_range`; what cannot be shared stays as it is."""
    try:
        return share_range(source, begin, target, at, length)
    except KernelError:
        return 0
