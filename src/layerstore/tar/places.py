"""What a listing says of a layer that is kept as its tar (index.h): where its payloads lie, and all that it has of each
name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from layerstore.errors import Damaged
from layerstore.kernel.files.numbers import number_in
from layerstore.tar.entries import LayerEntry, entries_and_rest
from layerstore.tar.payloads import Payload, index_of
from layerstore.values import frozen

__all__ = ["ListedEntry", "Lying", "listed_in", "lying_in"]

_PLACES = b"LSPLACE1"
_HARD_LINK, _DEVICES = 2, (4, 5)  # of model.h
_HASHES = 16
_MOST = (1 << 63) - 1
"""Of a file, in bytes."""


@frozen
class Lying:
    """A payload, and at which byte of the tar it begins."""

    payload: Payload
    place: int

    @property
    def end(self) -> int:
        """Where what follows it begins."""
        return self.place + self.payload.size

    def in_file(self, name: bytes) -> Payload:
        """As a piece of a file, the tar of the layer: to be read and proved."""
        size = self.payload.size
        return Payload(size, self.payload.content, name, extents=((self.place, size),) if size else ())


@frozen
class ListedEntry:
    """What a listing has of one name.

    `payload` is the number of what `lying_in` gives, None where the file has no data there. Names with the same
    `group`, if it is not 0, are of one file. `words` is where a symlink leads, or of a file that is a hard link to one
    of the layers below the path of that.
    """

    entry: LayerEntry
    payload: int | None
    group: int
    xattrs: Mapping[bytes, bytes]
    words: bytes


def lying_in(listing: Path) -> tuple[Lying, ...]:
    """The payloads of a listing, in the order of the tar. Raises `Damaged`, `KernelError`."""
    index = index_of(listing)
    try:
        data = index.rest
        count, at = number_in(data, 0)
        for _ in range(count):
            at = _after_node(data, at)
        return _lying(index.payloads, data, at)[0]
    except IndexError:
        raise _damaged(listing) from None


def listed_in(listing: Path) -> tuple[list[ListedEntry], tuple[Lying, ...]]:
    """The names of a listing, parents before what is in them, and its payloads. Raises `Damaged`, `KernelError`."""
    found, rest = entries_and_rest(listing)
    try:
        payloads, at = _lying(index_of(listing).payloads, rest, 0)
        return list(_listed(found, rest, at, len(payloads))), payloads
    except IndexError:
        raise _damaged(listing) from None


def _listed(found: list[LayerEntry], data: bytes, at: int, payloads: int) -> Iterator[ListedEntry]:
    for entry in found:
        source, at = number_in(data, at)
        group, at = number_in(data, at)
        xattrs, at = _text(data, at)
        words, at = _text(data, at)
        if source > payloads:
            raise IndexError
        yield ListedEntry(entry, source - 1 if source else None, group, _xattrs(xattrs), words)


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = number_in(data, at)
    if at + length > len(data):
        raise IndexError
    return data[at : at + length], at + length


def _xattrs(data: bytes) -> dict[bytes, bytes]:
    """As xattrs.h packs them."""
    found, at = {}, 0
    while at < len(data):
        name_length, at = number_in(data, at)
        length, at = number_in(data, at)
        value = at + name_length
        if value + length > len(data):
            raise IndexError
        found[data[at:value]] = data[value : value + length]
        at = value + length
    return found


def _lying(payloads: tuple[Payload, ...], data: bytes, at: int) -> tuple[tuple[Lying, ...], int]:
    """The payloads with their places, which begin there, and where what follows them does."""
    if data[at : at + len(_PLACES)] != _PLACES:
        raise IndexError
    at += len(_PLACES)
    found, end = [], 0
    for payload in payloads:
        place, at = number_in(data, at)
        found.append(Lying(payload, place))
        if place < end or found[-1].end > _MOST:
            raise IndexError
        end = found[-1].end
    return tuple(found), at


def _after_node(data: bytes, at: int) -> int:
    """Where the next node begins. Numbers with a sign are as long as those without."""
    length, at = number_in(data, at)
    kind, at = number_in(data, at + length)
    for _ in range(6 + (2 if kind in _DEVICES else 1)):  # flags, mode, uid, gid, seconds, ns; size, or two of a device
        _, at = number_in(data, at)
    at += _HASHES
    if kind == _HARD_LINK:
        length, at = number_in(data, at)
        at += length
    return at


def _damaged(listing: Path) -> Damaged:
    return Damaged(f"the listing {listing} is damaged", path=listing)
