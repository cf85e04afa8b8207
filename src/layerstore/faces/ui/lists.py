"""What is listed: images, layers, containers, checkpoints, volumes, each a row of few words; and when it is old.

They are made once for all who ask, and again when the database has changed; containers also after a while, as their
programs end without a word. The version is of what the rows say, so it stays while nothing is to be seen.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layerstore import ChainID, Checkpoint, Container, DiffID, Image, Store, StoredLayer, Volume
from layerstore.runtime import RunState, Runtime
from layerstore.runtime.statuses import health_of, state
from layerstore.values import frozen

__all__ = ["Lists", "Row", "Shelf"]

Row = Mapping[str, Any]

_FRESH = 5.0
"""Seconds for which what containers do is taken for what they do now."""
_LONGEST = 100
"""Letters of what an image says of itself, which may be megabytes."""
_BUSY = ("running", "paused", "mounted")


@frozen
class Lists:
    """Rows by the list they are of, and their version."""

    rows: Mapping[str, Sequence[Row]]
    version: str


class Shelf:
    """The lists of a store. Any number of threads may ask; one makes them, and the others wait for it."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        # Both make their tables when there are none, which would be a change.
        self._runtime, self._volumes = Runtime(store), store.volumes
        self._clock = clock
        self._lock = threading.Lock()
        self._seen = ""
        self._looked: tuple[str, float] | None = None
        self._places: dict[ChainID, int] = {}
        self._lasting: Lists | None = None
        self._containers: Lists | None = None

    def lasting(self) -> Lists:
        """Images, layers, checkpoints and volumes, as they are now."""
        with self._lock:
            return self._made_lasting()

    def containers(self) -> Lists:
        """The containers as they are now; `top` is a place among those layers."""
        with self._lock:
            self._made_lasting()
            seen, now = self._store.version, self._clock()
            if self._containers is None or self._looked is None or self._looked[0] != seen or now >= self._looked[1]:
                runs, claims = self._runtime.states(), self._store.claims()
                rows = [
                    _container(box, runs.get(box.id), claims.get(box.id), self._places)
                    for box in self._store.containers()
                ]
                self._containers = _versioned({"containers": rows})
                # Where none does anything, none ends without a word.
                is_busy = any(row["state"] in _BUSY or "mounted" in row for row in rows)
                self._looked = seen, now + _FRESH if is_busy else math.inf
            return self._containers

    def _made_lasting(self) -> Lists:
        seen = self._store.version
        if self._lasting is None or self._seen != seen:
            layers = _parents_first(self._store.layers())
            self._places = {layer.chain_id: place for place, layer in enumerate(layers)}
            above = {(layer.parent, layer.diff_id): layer.chain_id for layer in layers}
            self._lasting = _versioned(
                {
                    "images": [_image(image, above, self._places) for image in self._store.images()],
                    "layers": [_layer(layer, self._places) for layer in layers],
                    "checkpoints": [_checkpoint(point) for point in self._store.checkpoints()],
                    "volumes": [_volume(volume) for volume in self._volumes.all()],
                }
            )
            self._seen = seen  # of before: what was written meanwhile is read the next time
        return self._lasting


def _versioned(rows: Mapping[str, Sequence[Row]]) -> Lists:
    return Lists(rows, hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16])


def _parents_first(layers: Sequence[StoredLayer]) -> list[StoredLayer]:
    """Each layer behind the one that it stands on."""
    above: dict[ChainID | None, list[StoredLayer]] = {}
    for layer in layers:
        above.setdefault(layer.parent, []).append(layer)
    found = list(above.get(None, ()))
    for layer in found:
        found += above.get(layer.chain_id, ())
    return found


def _image(image: Image, above: Mapping[tuple[ChainID | None, DiffID], ChainID], places: Mapping[ChainID, int]) -> Row:
    top: ChainID | None = None
    for diff_id in image.layers:  # of which the store knows the ChainIDs: they need not be reckoned again
        top = above.get((top, diff_id), top)
    return {
        "id": image.id.removeprefix("sha256:"),
        "tags": image.tags,
        "created": image.created[:_LONGEST],
        "size": image.size,
        "platform": "/".join(part[:_LONGEST] for part in (image.os, image.architecture, image.variant) if part),
        "top": None if top is None else places[top],
    }


def _checkpoint(point: Checkpoint) -> Row:
    return {
        "container": point.container_id,
        "label": point.label,
        "created": point.created,
        "consistent": point.consistent,
    }


def _volume(volume: Volume) -> Row:
    return {"name": volume.name, "driver": volume.driver, "created": volume.created}


def _layer(layer: StoredLayer, places: Mapping[ChainID, int]) -> Row:
    """In few letters: there are many of them."""
    row: dict[str, Any] = {"id": layer.diff_id.removeprefix("sha256:"), "size": layer.size}
    if layer.parent is not None:
        row["on"] = places[layer.parent]
    if layer.damaged:
        row["damaged"] = True
    return row


def _container(box: Container, run: RunState | None, owner: str | None, places: Mapping[ChainID, int]) -> Row:
    core, top = box.state, box.chain_id
    row: dict[str, Any] = {
        "id": box.id,
        "name": box.name,
        "image": box.image_name,
        "created": box.created,
        "state": state(run, core),
        "top": None if top is None else places.get(top),
    }
    if core.mountpoint is not None:
        row["mounted"] = True
    if run is not None:
        row |= {"exit": run.exit_code, "health": health_of(run.health)}
        row |= {
            name: moment.isoformat()
            for name, moment in (("started", run.started), ("finished", run.finished))
            if moment is not None
        }
    if owner is not None:
        row["owner"] = owner
    return row
