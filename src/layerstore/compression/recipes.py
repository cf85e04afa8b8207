"""How a compressed layer is made again of its tar, byte for byte: which coder made it, with which settings.

A compressor is a function: the same library, level and input give the same bytes. So the beginning of a stream and the
beginning of its tar tell which of the known ones it was: each candidate is tried on a little, and what differs is out.
Whether the rest is the same, too, shows when it is made again, by its digest; until then a recipe is a guess.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from attrs import evolve

from layerstore.compression.coders import Coder, Go, Isal, Pigz, Settings, Write, Zlib, Zstd
from layerstore.compression.frames import FRAME_MAGIC
from layerstore.values import frozen

__all__ = ["TASTE", "Recipe", "Taster", "joined", "making", "own", "parted", "recognised"]

TASTE: Final = 1 << 20
"""The bytes of a tar, and of its blob, that are enough to tell."""

_LARGE: Final = 256 << 20
"""Bytes of a tar that is worth more attempts than the usual ones."""

_FEW: Final = 3
"""So many recipes are kept where the beginning fits several: zstd by one thread or more begins alike."""

_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_HEADER_CRC, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16
_LONGEST_HEADER: Final = 4096

_CODERS: Final[dict[str, Coder]] = {coder.name: coder for coder in (Go(), Isal(), Pigz(), Zlib(), Zstd())}


@frozen
class Recipe:
    """One way to make a blob: a coder, its settings, the header that stands before, and the version of the library.

    As text: `zlib level=6 memory=8 header=1f8b... library=1.2.13`.
    """

    coder: str
    settings: tuple[tuple[str, int], ...]
    header: bytes
    library: str

    @property
    def renewed(self) -> Recipe:
        """The same by the library that is here now: the same, unless that was updated since."""
        return evolve(self, library=_CODERS[self.coder].library)

    def __str__(self) -> str:
        words = [self.coder, *(f"{name}={value}" for name, value in self.settings)]
        if self.header:
            words.append(f"header={self.header.hex()}")
        return " ".join([*words, f"library={self.library}"])

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """The recipe of a text. Raises `ValueError` if it is none, or of a coder that is not known here."""
        coder, *words = text.split(" ")
        if coder not in _CODERS:
            raise ValueError(f"no coder {coder!r}")
        values = dict(word.split("=", 1) for word in words)
        header, library = bytes.fromhex(values.pop("header", "")), values.pop("library", "")
        return cls(coder, tuple((name, int(value)) for name, value in values.items()), header, library)


def joined(recipes: Sequence[Recipe]) -> str | None:
    """Several as one text; None for none."""
    return " | ".join(str(recipe) for recipe in recipes) or None


def parted(text: str) -> list[Recipe]:
    """The recipes of such a text, without those that are not known here."""
    found = []
    for one in text.split(" | "):
        with suppress(ValueError):
            found.append(Recipe.parse(one))
    return found


def own(compression: str) -> Recipe | None:
    """What `compressing` does: what it writes is made again by this. None for "none"."""
    coder = _CODERS.get({"gzip": "isal"}.get(compression, compression))
    return None if coder is None else _recipe(coder, coder.own, coder.own_header())


class Taster:
    """Takes the beginnings of a blob and of its tar as they pass by; then asks for the `recipe`.

    `blob` and `tar` may be called from different threads.
    """

    def __init__(self) -> None:
        self._blob = bytearray()
        self._tar = bytearray()
        self._blob_size = 0
        self._tar_size = 0

    def blob(self, data: bytes | bytearray | memoryview) -> None:
        """The next bytes of the blob."""
        self._blob_size += len(data)
        if (left := TASTE - len(self._blob)) > 0:
            self._blob += data[:left]

    def tar(self, data: bytes | bytearray | memoryview) -> None:
        """The next bytes of the tar."""
        self._tar_size += len(data)
        if (left := TASTE - len(self._tar)) > 0:
            self._tar += data[:left]

    @property
    def is_certain(self) -> bool:
        """Was all of both seen? Then a recipe that fits is proved."""
        return self._tar_size == len(self._tar) and self._blob_size == len(self._blob)

    def recipe(self) -> str | None:
        """The recipes that fit, as text, the likeliest first: after the end of both. None: none that is known does."""
        found = recognised(self._blob, self._tar, size=self._tar_size, is_all=self.is_certain)
        return joined(found)


def recognised(blob: bytes | bytearray, tar: bytes | bytearray, *, size: int, is_all: bool) -> list[Recipe]:
    """The recipes by which a blob that begins so may have been made of a tar that begins so, the likeliest first.

    `size`: of the whole tar. `is_all`: these are not beginnings, but all there is.
    """
    begin = bytes(blob[:_LONGEST_HEADER])
    header = header_of(begin)
    if header is None:
        if int.from_bytes(begin[:4], "little") != FRAME_MAGIC:
            return []
        header = b""
    body, content = memoryview(blob)[len(header) :], memoryview(tar)
    found: list[Recipe] = []
    for rare in (False, True) if size >= _LARGE else (False,):
        for coder in _CODERS.values():
            if (coder.name == "zstd") == bool(header):
                continue
            for settings in coder.candidates(header, begin, rare=rare):
                if _fits(coder.attempt(settings, content, size, is_all=is_all), body, is_all=is_all):
                    found.append(_recipe(coder, settings, header))
                    if len(found) == (1 if is_all or header else _FEW):
                        return found
        if found:
            break
    return found


def _fits(pieces: Iterator[bytes], body: memoryview, *, is_all: bool) -> bool:
    at = 0
    for piece in pieces:
        wanted = body[at : at + len(piece)]
        if piece[: len(wanted)] != wanted or (is_all and len(wanted) < len(piece)):
            return False
        at += len(piece)
        if at >= len(body) and not is_all:
            break
    return not is_all or at == len(body)


def _recipe(coder: Coder, settings: Settings, header: bytes) -> Recipe:
    return Recipe(coder.name, tuple(settings.items()), header, coder.library)


def header_of(data: bytes) -> bytes | None:
    """The header of gzip that data begin with (RFC 1952, section 2.3); None if there is none, or a very long one."""
    if not data.startswith(_GZIP_MAGIC) or len(data) < 10:
        return None
    flags, end = data[3], 10
    if flags & _EXTRA:
        if len(data) < 12:
            return None
        end = 12 + int(struct.unpack_from("<H", data, 10)[0])
    for flag in (_NAME, _COMMENT):
        if flags & flag:
            zero = data.find(b"\0", end)
            if zero < 0:
                return None
            end = zero + 1
    if flags & _HEADER_CRC:
        end += 2
    return data[:end] if end <= len(data) else None


@contextmanager
def making(recipe: Recipe, size: int, write: Write) -> Iterator[Write]:
    """A function that is given the tar, of so many bytes, and writes the blob. At the end of the block all is written.

    Whether it is the right one its digest tells: the library may be another than it was.
    """
    if recipe.header:
        write(memoryview(recipe.header))
    with _CODERS[recipe.coder].making(dict(recipe.settings), size, write) as feed:
        yield feed
