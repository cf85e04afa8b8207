"""The payloads of a layer's tar, one by one: what the skeleton says of each, and whether it can be read as it was.

Each is proved by its XXH64, which C works out as it reads. It tells which file is damaged, and which other file has the
same bytes most likely; that the tar is right in the end is proved by its DiffID.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from attrs import evolve

from layerstore.errors import Damaged
from layerstore.kernel._shim import ffi, lib
from layerstore.kernel.files.numbers import number_in, written
from layerstore.tar.engine import failure_of, memory_told, no_memory, opened_if_there
from layerstore.tar.skeleton import SkeletonReader, shadow_of
from layerstore.values import frozen

_MAGIC = b"LSINDEX1"
_PIECE = 1 << 20

Place = tuple[Path, Path]
"""Where payloads lie: the folder of a layer's files, and that of what its tar itself replaces, if there is one."""


@frozen
class Payload:
    """One piece of content, as the index has it (docs/format.md, "Skeletons").

    `path` lies within the layer's tree; None for one in the folder of shadowed files, which is called `shadow`.
    """

    size: int
    content: bytes
    path: bytes | None
    shadow: int = 0
    extents: tuple[tuple[int, int], ...] = ()

    def encoded(self) -> bytes:
        """As it stands in an index."""
        where = b"\1" + written(self.shadow) if self.path is None else b"\0" + written(len(self.path)) + self.path
        extents = b"".join(written(offset) + written(length) for offset, length in self.extents)
        return written(self.size) + self.content + where + written(len(self.extents)) + extents


@frozen
class Index:
    """The payloads of an index in the order of the tar, and all that follows them."""

    payloads: tuple[Payload, ...]
    rest: bytes

    def with_others(self, others: Mapping[int, Payload]) -> bytes:
        """The index, with other payloads in the places with these numbers."""
        payloads = [others.get(number, payload) for number, payload in enumerate(self.payloads)]
        return b"".join((_MAGIC, written(len(payloads)), *(payload.encoded() for payload in payloads), self.rest))


def index_of(skeleton: Path) -> Index:
    """The index of a skeleton. Raises `Damaged`, `KernelError`."""
    with memory_told(), SkeletonReader(skeleton) as reader:
        data = reader.index()
    try:
        if not data.startswith(_MAGIC):
            raise IndexError
        at, payloads = len(_MAGIC), []
        count, at = number_in(data, at)
        for _ in range(count):
            payload, at = _payload(data, at)
            payloads.append(payload)
    except IndexError:
        raise Damaged(f"the skeleton {skeleton.name} is damaged", path=skeleton) from None
    return Index(tuple(payloads), data[at:])


def write_payload(payload: Payload, place: Place, write: Callable[[memoryview], object]) -> None:
    """Write the bytes of a payload. Raises `Damaged` if they are not there, or not those that it had."""
    index = Index((payload,), written(0)).with_others({})
    token = written(payload.size << 1 | 1)
    with memory_told(), ExitStack() as undo:
        tree, shadow = (undo.enter_context(opened_if_there(folder)) for folder in place)
        exporter = lib.ls_export_new(tree, shadow, ffi.from_buffer(index), len(index))
        if exporter == ffi.NULL:
            raise no_memory()
        undo.callback(lib.ls_export_free, exporter)
        buffer = ffi.new("uint8_t[]", _PIECE)
        view = memoryview(ffi.buffer(buffer))
        if lib.ls_export_feed(exporter, ffi.from_buffer(token), len(token)):
            raise failure_of(lib.ls_export_failure, exporter)
        while got := lib.ls_export_read(exporter, buffer, _PIECE):
            if got < 0:
                raise failure_of(lib.ls_export_failure, exporter)
            write(view[:got])
        if lib.ls_export_finish(exporter):
            raise failure_of(lib.ls_export_failure, exporter)


def payload_place(skeleton: Path, tree: Path) -> Place:
    """Where the payloads of a layer lie."""
    return tree, shadow_of(skeleton)


def payload_beside(payload: Payload, number: int) -> Payload:
    """The same payload, as a file of its own in a folder of shadowed files."""
    return evolve(payload, path=None, shadow=number, extents=())


def _payload(data: bytes, at: int) -> tuple[Payload, int]:
    size, at = number_in(data, at)
    content, at = data[at : at + 8], at + 8
    is_shadowed, at = number_in(data, at)
    path, shadow = None, 0
    if is_shadowed:
        shadow, at = number_in(data, at)
    else:
        length, at = number_in(data, at)
        path, at = data[at : at + length], at + length
    count, at = number_in(data, at)
    extents = []
    for _ in range(count):
        offset, at = number_in(data, at)
        length, at = number_in(data, at)
        extents.append((offset, length))
    if at > len(data):
        raise IndexError
    return Payload(size, content, path, shadow, tuple(extents)), at


def link_shadowed(source: Path, target: Path) -> int:
    """Give what lies in a folder of shadowed files a second name in `target`; the first number that is free there."""
    free = 0
    try:
        names = os.listdir(source)
    except FileNotFoundError:
        return free
    for name in names:
        os.link(source / name, target / name, follow_symlinks=False)
        free = max(free, int(name) + 1) if name.isdecimal() else free
    return free
