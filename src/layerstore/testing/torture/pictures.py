"""What a store shows, as a value that two moments can be compared by; and all that is on the disk and mounted for it.

A picture is what users see: images, containers, checkpoints, volumes, leases, by name, to the bit. Random names and the
times of what has just been written are no part of it, so that an operation always comes to the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve

from layerstore import Store
from layerstore.errors import KernelError
from layerstore.kernel import btrfs
from layerstore.kernel.btrfs import QuotaState
from layerstore.kernel.files import filesystem_type
from layerstore.testing import trees
from layerstore.testing.filesystems import mountpoints
from layerstore.testing.tars import EPOCH, SECOND
from layerstore.testing.torture import rows

__all__ = ["Picture", "inventory", "picture_of", "quota_groups"]

Picture = Mapping[str, str]
"""By kind and name, as `container web`: what it is, in a digest; equal if and only if it is the same."""

OWNER = "torture"
"""Of the leases that are part of a picture."""

MOUNTED = "mounted "
"""What is called so ends with the power."""

_LATEST = (EPOCH + 10**6) * SECOND
"""What was modified later than this was written just now."""

_RANDOM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8,}")

_OWN = re.compile(
    r"layerstore\.db(-wal|-shm)?|locks|reserve(/.*)?|staging/\.spare|(blobs|volumes)(/sha256)?|partial(/.*)?"
    r"|.*/work/work(/.*)?|records(/.*)?"
)
"""What comes and goes with a store itself, folders that are made when first needed, what a pull goes on with, what the
kernel's overlay makes for itself in a layer's folder, and goes with that; and records, which `check` looks at."""


def picture_of(store: Store, out: Path) -> Picture:
    """All that a user sees of a store, and of the files that it has written in `out`."""
    return dict(_parts(store, out))


def _parts(store: Store, out: Path) -> Iterator[tuple[str, str]]:
    yield "driver", store.driver_name
    for image in store.images():
        name = " ".join(sorted(image.tags)) or " ".join(layer[7:15] for layer in image.layers)
        with image.open_tree() as tree:
            yield f"image {name}", _digest(image.layers, _lasting(image.config), _listing(f"/proc/self/fd/{tree}"))
    for box in store.containers():
        box = store.container(box.id)
        stands_on = box.chain_id if box.image_id is None else box.image_name
        with box.open_tree() as tree:
            listing = _listing(f"/proc/self/fd/{tree}")
        volumes = [(use.target, use.volume, use.read_only) for use in store.volumes.of(box.id)]
        yield f"container {box.name}", _digest(stands_on, volumes, listing)
        if box.mountpoint is not None:
            yield f"{MOUNTED}{box.name}", "mounted"
        if box.processes():
            yield f"running {box.name}", "running"
        for point in box.checkpoints():
            with point.open_tree() as tree:
                yield f"checkpoint {box.name}/{point.label}", _digest(_listing(f"/proc/self/fd/{tree}"))
    for number, snapshot in enumerate(store.snapshots.all()):
        with snapshot.open_tree() as tree:
            yield f"snapshot {number}", _digest(snapshot.chain_id, _listing(f"/proc/self/fd/{tree}"))
    for volume in store.volumes.all():
        yield f"volume {volume.name}", _digest(volume.options, _listing(volume.mountpoint, root_time=False))
    for name, chain in store.leases(OWNER).items():
        yield f"lease {name}", chain
    for path in sorted(out.glob("[!.]*")):  # what begins with a dot has not got its name yet
        yield f"file {path.name}", _digest(_listing(path) if path.is_dir() else path.read_bytes())


def _lasting(config: Mapping[str, Any]) -> str:
    """A config without what is another each time: when, and in which container, it was made."""

    def kept(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: kept(v) for k, v in value.items() if k not in ("created", "container", "Hostname", "Image")}
        return [kept(item) for item in value] if isinstance(value, list | tuple) else value

    return json.dumps(kept(config), sort_keys=True)


def _listing(root: str | Path, *, root_time: bool = True) -> list[Any]:
    """`root_time`: a volume's own folder has the time of when it was filled, or of the last step of that."""
    found = trees.listing(root)
    if not root_time:
        found[""] = evolve(found[""], mtime_ns=0)
    return [(path, _timeless(entry)) for path, entry in sorted(found.items())]


def _timeless(entry: trees.Entry) -> trees.Entry:
    return evolve(entry, mtime_ns=0) if entry.mtime_ns > _LATEST else entry


def _digest(*facts: Any) -> str:
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogateescape")).hexdigest()


def inventory(data_root: Path, out: Path) -> Counter[str]:
    """All that there is for a store, without random names: paths, mounts, quota groups, and rows by table."""
    found = Counter[str]()
    for folder in (data_root, out):
        for path, names, files in os.walk(folder):
            for name in (*names, *files):
                place = os.path.relpath(os.path.join(path, name), folder.parent)
                within = place.partition("/")[2]
                if not (_OWN.fullmatch(within) or within.endswith("-journal")):
                    found["path " + _RANDOM.sub("*", place)] += 1
    found.update(
        "mount " + _RANDOM.sub("*", os.path.relpath(name, data_root))
        for name in mountpoints()
        if Path(name).is_relative_to(data_root)
    )
    found.update({f"row of {table}": count for table, count in rows.counts(data_root / "layerstore.db").items()})
    found["quota group"] = quota_groups(data_root)
    return +found


def quota_groups(data_root: Path) -> int:
    """How many the homes in a store have, where these are on btrfs."""
    return sum(_groups(home) for home in data_root.iterdir()) if data_root.exists() else 0


def _groups(home: Path) -> int:
    try:
        if not home.is_dir() or filesystem_type(home) != "btrfs" or btrfs.quota_state(home) is QuotaState.OFF:
            return 0
        return len(list(btrfs.groups(home)))
    except KernelError:
        return 0
