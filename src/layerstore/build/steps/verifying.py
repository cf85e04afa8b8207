"""`--verify`: each step is done once more on what it was done on, and what differs is told by file and attribute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layerstore import LayerEntry, Store, StoredLayer
from layerstore.build.errors import BuildError, Place
from layerstore.values import frozen

__all__ = ["Unequal", "compared", "refusal"]

_FACTS = {
    "kind": "kind",
    "mode": "mode",
    "uid": "owner",
    "gid": "group",
    "mtime_ns": "mtime",
    "size": "size",
    "content": "content",
    "attributes": "xattrs",
    "target": "target of the hard link",
    "device": "device",
    "opaque": "opaque",
}
_SHOWN = 10


@frozen
class Unequal:
    """A step that did not do the same twice, and what differs: a path, and which of its facts do."""

    title: str
    place: Place | None
    differences: tuple[tuple[str, str], ...]


def compared(store: Store, first: StoredLayer | None, second: StoredLayer | None) -> tuple[tuple[str, str], ...]:
    """What differs between two results of a step; None: it wrote nothing."""
    if first is not None and second is not None and first.diff_id == second.diff_id:
        return ()
    return tuple(_differences(_entries(store, first), _entries(store, second)))


def _entries(store: Store, layer: StoredLayer | None) -> dict[bytes, LayerEntry]:
    return {} if layer is None else {entry.path: entry for entry in store.layer_entries(layer.chain_id)}


def _differences(first: dict[bytes, LayerEntry], second: dict[bytes, LayerEntry]) -> Iterator[tuple[str, str]]:
    for path in sorted(first.keys() | second.keys()):
        one, other = first.get(path), second.get(path)
        shown = "/" + path.decode(errors="replace")
        if one is None or other is None:
            yield shown, "only the second time" if one is None else "only the first time"
            continue
        facts = [word for name, word in _FACTS.items() if getattr(one, name) != getattr(other, name)]
        if facts:
            yield shown, ", ".join(facts)


def refusal(unequal: Sequence[Unequal]) -> BuildError:
    """The error for steps that did not do the same twice."""
    lines = []
    for step in unequal:
        lines.append(step.title)
        lines += [f"  {path}: {what}" for path, what in step.differences[:_SHOWN]]
        if len(step.differences) > _SHOWN:
            lines.append(f"  and {len(step.differences) - _SHOWN} more")
    count = f"{len(unequal)} steps do" if len(unequal) > 1 else "a step does"
    return BuildError(
        f"{count} not do the same twice:\n" + "\n".join(lines),
        place=unequal[0].place,
        remedy="Look for times, random names, the order of directories and addresses in what these commands write.",
    )
