"""What keeps an image from being removed, in words that say how to free it; and its removal, row by row.

The rule is the seed's: an image with containers, running or stopped, and an image that others are built on, stay. All
of this happens inside one transaction of the caller, so what is decided is still true when it is done.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from layerstore import reference, session
from layerstore.digest import ImageID, short
from layerstore.errors import InUse
from layerstore.images import rows
from layerstore.layers import rows as layer_rows
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.database import Transaction
    from layerstore.driver import LayerKey

_SHOWN = 5


@frozen
class Removal:
    """One thing that a removal did; `str` is docker's line for it."""

    kind: Literal["Untagged", "Deleted"]
    what: str
    is_layer: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


@frozen
class _Holders:
    """Who needs an image, and the commands that free it, in order."""

    names: tuple[str, ...]
    commands: tuple[str, ...]


def untag(tx: Transaction, name: str) -> Removal:
    """Take a tag, or a name with a digest, away; the image stays."""
    (rows.unset_digest if "@" in name else rows.unset_tag)(tx, name)
    return Removal("Untagged", reference.familiar(name))


def going_with(tx: Transaction, image: ImageID, name: str) -> tuple[list[str], list[str]]:
    """The names of an image that go when this one is taken away, itself first, and those that stay.

    As in docker, the digests that a repository gave to an image go with the last tag that the image has in it.
    """
    tags, digests = rows.tags_of(tx, image), rows.digests_of(tx, image)
    going = [name]
    repository = _repository(name)
    if "@" not in name and not any(tag != name and _repository(tag) == repository for tag in tags):
        going += [digest for digest in digests if _repository(digest) == repository]
    return going, [other for other in (*tags, *digests) if other not in going]


def has_several_names(tx: Transaction, image: ImageID) -> bool:
    """Does the image have several tags, or names in several repositories? Then its ID alone does not remove it."""
    tags = rows.tags_of(tx, image)
    return len(tags) > 1 or len({_repository(name) for name in (*tags, *rows.digests_of(tx, image))}) > 1


def _repository(name: str) -> str:
    return reference.split(name)[0]


def require_free(tx: Transaction, image: ImageID, staging: Path) -> None:
    """Raise `InUse` if anything needs the image."""
    holders = _holders(tx, image)
    # A lease whose process is dead holds nothing; the next `open` takes it away.
    for owner, purpose in layer_rows.leases_of(tx, "image", image):
        if session.is_alive(staging, owner):
            holders = _Holders((*holders.names, f"a process ({purpose})"), holders.commands)
    if not holders.names:
        return
    names = ", ".join(holders.names[:_SHOWN])
    if len(holders.names) > _SHOWN:
        names += f" and {len(holders.names) - _SHOWN} more"
    remedy = f"To free it: {'; '.join(holders.commands)}" if holders.commands else "Wait until that is done."
    raise InUse(f"image {rows.shown(tx, image)} is in use by {names}", holders=holders.names, remedy=remedy)


def delete(
    tx: Transaction, image: ImageID, *, among: Collection[ImageID] | None = None
) -> tuple[list[Removal], list[LayerKey]]:
    """Delete a free image, its names, its layers, and nameless images it was built on, as far as nothing needs them.

    `among`: of the latter no others than these.
    Returns what was done, and the keys whose files may go after the commit.
    """
    done: list[Removal] = []
    keys: list[LayerKey] = []
    current: ImageID | None = image
    while current is not None:
        row = rows.find(tx, current)
        assert row is not None  # the caller's transaction has seen it
        done += [untag(tx, name) for name in (*rows.tags_of(tx, current), *rows.digests_of(tx, current))]
        rows.delete(tx, current)
        done.append(Removal("Deleted", current))
        gone, freed = layer_rows.release(tx, row.chain_id)
        done += [Removal("Deleted", layer, is_layer=True) for layer in gone]
        keys += freed
        current = row.parent
        if current is not None and not (
            is_unneeded(tx, current) and not rows.digests_of(tx, current) and (among is None or current in among)
        ):
            current = None
    return done, keys


def is_unneeded(tx: Transaction, image: ImageID, *, even_tagged: bool = False) -> bool:
    """May the image go? `even_tagged`: a tag does not keep it."""
    return rows.is_unneeded(tx, image, even_tagged=even_tagged)


def unneeded(tx: Transaction, *, even_tagged: bool, among: Collection[ImageID] | None = None) -> Sequence[ImageID]:
    """The images that `prune` may remove now. Removing one can make another unneeded."""
    return [
        row.id
        for row in rows.every(tx)
        if (among is None or row.id in among) and is_unneeded(tx, row.id, even_tagged=even_tagged)
    ]


def _holders(tx: Transaction, image: ImageID) -> _Holders:
    names: list[str] = []
    commands: list[str] = []
    on_it = rows.containers_on(tx, image)
    standing = {container.name for container in on_it}
    containers, floors = rows.upper_floors_on(tx, image)
    on_it += rows.containers_named(tx, [name for name in containers if name not in standing])
    for container in on_it:
        does = " (running)" if container.runs else " (mounted)" if container.is_mounted else ""
        names.append(f"container {container.name}{does}")
    if running := [container.name for container in on_it if container.runs]:
        commands.append(f"layerstore stop {' '.join(running)}")
    if mounted := [container.name for container in on_it if container.is_mounted]:
        commands.append(f"layerstore umount {' '.join(mounted)}")
    if on_it:
        commands.append(f"layerstore rm {' '.join(container.name for container in on_it)}")
    for name, label in rows.checkpoints_on(tx, image):
        names.append(f"checkpoint {label} of container {name}")
        commands.append(f"layerstore checkpoints --rm {name} {label}")
    names += floors
    for child in rows.built_on(tx, image):
        names.append(f"image {rows.shown(tx, child)}, which is built on it")
        commands += [*_holders(tx, child).commands, f"layerstore rmi {' '.join(_names(tx, child))}"]
    return _Holders(tuple(names), tuple(dict.fromkeys(commands)))


def _names(tx: Transaction, image: ImageID) -> list[str]:
    """What to give to `rmi` so that the image goes."""
    names = rows.tags_of(tx, image) or rows.digests_of(tx, image)
    return [reference.familiar(name) for name in names] or [short(image)]
