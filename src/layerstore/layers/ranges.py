"""The tar of a damaged layer that is kept as a tar: what is right of it, and for the rest equal files of other layers.

Its listing says of each payload where it lies, how large it is and what its XXH64 was. What lies between payloads is
taken as it is; whoever reads the tar verifies its DiffID.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from layerstore import tar
from layerstore.errors import Damaged, KernelError, named
from layerstore.indexes import TAR, Part
from layerstore.kernel.files.descriptors import opened
from layerstore.layers.relay import Write
from layerstore.tar import Lying

__all__ = ["salvage"]

_NAME = os.fsencode(TAR)
_NOWHERE = Path("/dev/null/none")
"""No folder of shadowed files: there is none where the tar is kept."""
_PIECE = 1 << 20

_Content = tuple[int, bytes]
"""Size and XXH64 of a payload: where both are the same, so are the bytes, most likely."""


def salvage(
    own: Path, payloads: Sequence[Lying], write: Write, *, others: Iterable[Part], trees: Iterable[Path]
) -> None:
    """Write the tar. `others` are layers' tars, `trees` folders in which files may have the names that they have here.

    Raises `Damaged` where a file is wrong and nobody has it, and `KernelError`; then what was written is void.
    """
    wrong = [one for one in payloads if not _is_given(one, own, lambda _: None)]
    equal = _equal(wrong, others) if wrong else {}
    folders = list(trees) if wrong else []
    lacking = set(map(id, wrong))
    at = 0
    with opened(own, os.O_RDONLY | os.O_NOFOLLOW) as file:
        for one in payloads:
            _copy(file, own, at, one.place, write)
            if id(one) not in lacking:
                _copy(file, own, one.place, one.end, write)
            else:
                _give(one, equal.get(_content(one), ()), folders, write)
            at = one.end
        _copy(file, own, at, None, write)


def _content(one: Lying) -> _Content:
    return one.payload.size, one.payload.content


def _is_given(one: Lying, path: Path, write: Write) -> bool:
    """Write a payload as it lies in a tar, if it is what it was; what was written is void else."""
    if not one.payload.size:
        return True
    with suppress(Damaged, KernelError):
        tar.write_payload(one.in_file(_NAME), (path.parent, _NOWHERE), write)
        return True
    return False


def _give(one: Lying, equal: Sequence[tuple[Lying, Path]], trees: Sequence[Path], write: Write) -> None:
    """Write a payload as another tar has it, or a tree under its name. Each is proved before it is written."""
    for other, path in equal:
        if _is_given(other, path, lambda _: None):
            tar.write_payload(other.in_file(_NAME), (path.parent, _NOWHERE), write)
            return
    name = one.payload.path
    for tree in trees if name is not None and not one.payload.extents else ():
        if not os.path.lexists(os.path.join(os.fsencode(tree), name or b"")):  # most have nothing there
            continue
        with suppress(Damaged, KernelError):
            tar.write_payload(one.payload, (tree, _NOWHERE), lambda _: None)
            tar.write_payload(one.payload, (tree, _NOWHERE), write)
            return
    shown = os.fsdecode(b"/" + (name or b""))
    raise Damaged(f"{shown}: no other layer has what is damaged of it", path=shown)


def _equal(wrong: Iterable[Lying], others: Iterable[Part]) -> Mapping[_Content, Sequence[tuple[Lying, Path]]]:
    """What had the bytes of one of these payloads when it was stored. Each listing is read once for all of them."""
    found: dict[_Content, list[tuple[Lying, Path]]] = {_content(one): [] for one in wrong}
    for part in others:
        with suppress(Damaged, KernelError):
            for other in tar.lying_in(part.listing):
                if _content(other) in found:
                    found[_content(other)].append((other, part.tar))
    return found


def _copy(file: int, path: Path, begin: int, end: int | None, write: Write) -> None:
    """Write a range of the tar, or all from `begin` on. One that is shorter is damaged, which its DiffID tells."""
    for piece in _pieces(file, path, begin, end):
        write(memoryview(piece))


def _pieces(file: int, path: Path, begin: int, end: int | None) -> Iterator[bytes]:
    with named("read", path):
        while end is None or begin < end:
            piece = os.pread(file, _PIECE if end is None else min(_PIECE, end - begin), begin)
            if not piece:
                return
            yield piece
            begin += len(piece)
