"""The tar of a damaged layer, made of what is left of it and of equal files that lie elsewhere in the store.

Its skeleton says of each payload how large it is and what its XXH64 was. Where the layer's own file no longer fits,
another layer may have the same bytes under any name, and a tree that was made of this one (a container's, a layer that
holds what its parents hold) under the same name. Whoever reads the tar verifies its DiffID.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from layerstore import tar
from layerstore.digest import DiffID
from layerstore.errors import Damaged, KernelError, named
from layerstore.layers.relay import Write
from layerstore.tar import Payload, Place

__all__ = ["salvage"]

Others = Callable[[], Iterator[tuple[Path, Path]]]
"""The skeletons of other layers, and the folders of their files."""

_Content = tuple[int, bytes]
"""Size and XXH64 of a payload: where both are the same, so are the bytes, most likely."""

_Candidate = tuple[Payload, Place]
"""A payload that may have the bytes of another, and where it lies."""


def salvage(
    skeleton: Path, tree: Path, write: Write, *, expected: DiffID, scratch: Path, others: Others, trees: Iterable[Path]
) -> None:
    """Write the tar of the layer with this skeleton, whose files are in `tree`. Raises `Damaged`, `KernelError`.

    What was found elsewhere is gathered in the folder `scratch`, which does not exist and is the caller's to remove.
    """
    index = tar.index_of(skeleton)
    own = tar.payload_place(skeleton, tree)
    wrong = {number: payload for number, payload in enumerate(index.payloads) if not _is_whole(payload, own)}
    with named("mkdir", scratch):
        scratch.mkdir(mode=0o700)
    with named("link", scratch):
        free = tar.link_shadowed(own[1], scratch)
    found: dict[int, Payload] = {}
    equal: Mapping[_Content, Sequence[_Candidate]] | None = None
    for number, payload in wrong.items():
        beside = tar.payload_beside(payload, free + number)
        target = scratch / str(beside.shadow)
        if not _copied(payload, target, _namesakes(payload, own, trees)):
            equal = _equal(wrong.values(), others) if equal is None else equal
            if not _copied(payload, target, equal.get(_content(payload), ())):
                break  # without it the tar is void, whatever else there is
        found[number] = beside
    tar.export(skeleton, tree, write, expected=expected, index=index.with_others(found), shadow=scratch)


def _is_whole(payload: Payload, place: Place) -> bool:
    with suppress(Damaged, KernelError):
        tar.write_payload(payload, place, lambda _: None)
        return True
    return False


def _content(payload: Payload) -> _Content:
    return payload.size, payload.content


def _namesakes(payload: Payload, own: Place, trees: Iterable[Path]) -> Iterator[_Candidate]:
    """The files that have the payload's name in other trees."""
    if payload.path is not None:
        for tree in trees:
            if os.path.lexists(os.path.join(os.fsencode(tree), payload.path)):  # most have nothing there
                yield payload, (tree, own[1])


def _equal(payloads: Iterable[Payload], others: Others) -> Mapping[_Content, Sequence[_Candidate]]:
    """What had the bytes of one of these payloads when it was stored. Each skeleton is read once for all of them."""
    found: dict[_Content, list[_Candidate]] = {_content(payload): [] for payload in payloads}
    for skeleton, tree in others():
        with suppress(Damaged, KernelError):
            for other in tar.index_of(skeleton).payloads:
                if _content(other) in found:
                    found[_content(other)].append((other, tar.payload_place(skeleton, tree)))
    return found


def _copied(payload: Payload, target: Path, candidates: Iterable[_Candidate]) -> bool:
    """Copy the payload from the first candidate that has it."""
    for candidate, place in candidates:
        with suppress(Damaged, KernelError), named("write", target), target.open("wb") as file:
            tar.write_payload(candidate, place, file.write)
            return True
    with named("unlink", target):
        target.unlink(missing_ok=True)
    return False
