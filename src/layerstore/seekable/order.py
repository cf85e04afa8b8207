"""In which order a first run read the parts of an image's layers: recorded by one, so that others have them ahead.

A JSON document (docs/format.md, "Orders of first runs") that comes from elsewhere: all that it can do is to alter in
which order things are fetched that are fetched anyway.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from attrs import field

from layerstore import digest as digests
from layerstore.digest import DiffID
from layerstore.errors import InvalidArchive, InvalidDigest, LayerstoreError, NotFound, named
from layerstore.values import frozen

__all__ = ["ORDER_TYPE", "Order", "Read"]

ORDER_TYPE: Final = "application/vnd.layerstore.erofs-index.order.v1+json"

_VERSION: Final = 1
_LARGEST: Final = 1 << 20
"""Bytes of the document."""
_MOST: Final = 20_000
"""Reads in it."""
_LAYERS: Final = 1000
_FARTHEST: Final = 1 << 62


@frozen
class Read:
    """`size` bytes of a layer's tar from `offset` on."""

    layer: DiffID
    offset: int
    size: int


@frozen
class Order:
    """The reads of a first run, each byte once, in order."""

    reads: tuple[Read, ...] = field(repr=False)

    @classmethod
    def of(cls, reads: Iterable[Read]) -> Order:
        """What was recorded: reads that follow each other are one, and what is beyond all bounds is left out."""
        joined: list[Read] = []
        for read in reads:
            last = joined[-1] if joined else None
            if last is not None and (last.layer, last.offset + last.size) == (read.layer, read.offset):
                joined[-1] = Read(last.layer, last.offset, last.size + read.size)
            elif len(joined) < _MOST:
                joined.append(read)
        return cls(tuple(joined))

    def of_layer(self, layer: DiffID) -> tuple[tuple[int, int, int], ...]:
        """The reads of a layer: their places in the whole order, offsets and sizes."""
        return tuple((place, one.offset, one.size) for place, one in enumerate(self.reads) if one.layer == layer)

    def packed(self) -> bytes:
        """The document."""
        layers = list(dict.fromkeys(one.layer for one in self.reads))
        numbers = {layer: number for number, layer in enumerate(layers)}
        reads = [[numbers[one.layer], one.offset, one.size] for one in self.reads]
        return json.dumps({"version": _VERSION, "layers": layers, "reads": reads}, separators=(",", ":")).encode()

    @classmethod
    def unpacked(cls, data: bytes, what: str) -> Order:
        """The order that a document says, which errors call `what`. Raises `InvalidArchive`."""
        try:
            return cls(tuple(_reads(data)))
        except (ValueError, TypeError, KeyError, IndexError, RecursionError, InvalidDigest) as error:
            raise InvalidArchive(
                f"{what} is no order of a first run: {error}",
                remedy="`layerstore run --lazy --record-order FILE` writes one.",
            ) from None

    @classmethod
    def of_file(cls, path: Path) -> Order:
        """The same of a file. Raises `NotFound`, `InvalidArchive`, `KernelError`."""
        with named("read", path):
            try:
                with path.open("rb") as file:
                    data = file.read(_LARGEST + 1)
            except FileNotFoundError:
                raise NotFound(f"there is no file {path}", remedy="`run --record-order FILE` writes one.") from None
            except IsADirectoryError:
                raise LayerstoreError(f"{path} is a folder", remedy="Name the file of an order.") from None
        return cls.unpacked(data, str(path))


def _reads(data: bytes) -> list[Read]:
    if len(data) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST} bytes")
    said = json.loads(data)
    if said["version"] != _VERSION:
        raise ValueError(f"its version is {said['version']!r}")
    layers, reads = _list(said["layers"], _LAYERS, "layers"), _list(said["reads"], _MOST, "reads")
    known = [DiffID(digests.parse(one)) for one in layers]
    return [Read(known[_number(one[0])], _number(one[1]), _number(one[2])) for one in reads]


def _list(value: Any, most: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"its {what} are no list of {most} at most")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _FARTHEST:
        raise ValueError(f"{value!r} is no size or number")
    return value
