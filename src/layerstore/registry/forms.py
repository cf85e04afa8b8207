"""In which form a layer can be given to a registry, and where the bytes of that blob are to be had.

Nothing is read here. A registry that cannot be asked for a blob has not got it; who asks for more than one place, asks
the likeliest first.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from threading import Lock
from typing import TYPE_CHECKING, Final

from attrs import evolve

from layerstore.blobs import Place
from layerstore.errors import LayerstoreError
from layerstore.manifests import Descriptor
from layerstore.manifests.media_types import is_foreign
from layerstore.reference import Reference
from layerstore.registry.client.repository import Repository
from layerstore.registry.transport.http import Http
from layerstore.registry.transport.settings import Settings
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.blobs import Blobs

_MOST_PLACES: Final = 3
"""In how many repositories a blob is looked for that is neither kept nor there."""


class Way(enum.Enum):
    """How a blob gets into a repository."""

    THERE = enum.auto()
    """It is there already."""
    FOREIGN = enum.auto()
    """It never does: its descriptor says from where else it is fetched."""
    KEPT = enum.auto()
    """The store has its bytes, or makes them again."""
    GUESSED = enum.auto()
    """The store may be able to make them again, which shows when it is done."""
    ELSEWHERE = enum.auto()
    """Its bytes are in another repository, of this registry or another one."""


@frozen
class Form:
    """A blob that holds a layer, or a config."""

    descriptor: Descriptor
    way: Way
    place: Place | None = None
    """Where it is, if that is elsewhere."""


class Forms:
    """What can be given to one repository. Thread-safe; each blob is looked for once."""

    def __init__(self, http: Http, settings: Settings, target: Repository, place: Place, blobs: Blobs) -> None:
        """`place` is the repository `target`."""
        self._http = http
        self._settings = settings
        self._target = target
        self._place = place
        self._blobs = blobs
        self._found: dict[str, Form | None] = {}
        self._absent: set[str] = set()
        self._lost: set[tuple[str, Way, Place | None]] = set()
        self._lock = Lock()

    def find(self, descriptor: Descriptor) -> Form | None:
        """How this very blob gets there; None if it cannot."""
        with self._lock:
            if descriptor.digest in self._found:
                known = self._found[descriptor.digest]
                return known and evolve(known, descriptor=descriptor)
        form = self._look(descriptor)
        with self._lock:
            self._found[descriptor.digest] = form
        return form

    def is_there(self, descriptor: Descriptor) -> bool:
        """Has the repository got it?"""
        with self._lock:
            known = self._found.get(descriptor.digest)
            if known is not None or descriptor.digest in self._absent:
                return known is not None and known.way is Way.THERE
        if self._target.has_blob(descriptor.digest) is None:
            with self._lock:
                self._absent.add(descriptor.digest)
            return False
        self.arrived(descriptor)
        return True

    def arrived(self, descriptor: Descriptor) -> None:
        """It is there now."""
        with self._lock:
            self._found[descriptor.digest] = Form(descriptor, Way.THERE)

    def lost(self, descriptor: Descriptor) -> bool:
        """Its bytes could not be had in the way that was found. There may be another; False: it was lost before."""
        with self._lock:
            form = self._found.pop(descriptor.digest, None)
            known = len(self._lost)
            if form is not None:
                self._lost.add((descriptor.digest, form.way, form.place))
            return len(self._lost) > known

    def mounts(self, descriptor: Descriptor) -> list[str]:
        """The repositories of this registry from which it may be mounted, the likeliest first."""
        return [
            path
            for path in self._blobs.places(descriptor.digest, self._place.registry)
            if path != self._place.repository
        ]

    def repository(self, place: Place) -> Repository:
        """Where blobs can be read."""
        return Repository.of_blobs(self._http, self._settings, Reference(place.registry, place.repository, None, None))

    def _look(self, descriptor: Descriptor) -> Form | None:
        if is_foreign(descriptor.media_type):
            return Form(descriptor, Way.FOREIGN)
        if self.is_there(descriptor):
            return Form(descriptor, Way.THERE)
        return next((form for form in self._ways(descriptor) if not self._is_lost(form)), None)

    def _is_lost(self, form: Form) -> bool:
        return (form.descriptor.digest, form.way, form.place) in self._lost

    def _ways(self, descriptor: Descriptor) -> Iterator[Form]:
        """All that may be, the cheapest first."""
        if self._blobs.size(descriptor.digest) == descriptor.size:
            yield Form(descriptor, Way.KEPT)
        elif self._has_recipe(descriptor):
            yield Form(descriptor, Way.GUESSED)
        places = [place for place in self._blobs.all_places(descriptor.digest) if place != self._place]
        # What is in this registry can be mounted, and costs nothing where it can.
        places.sort(key=lambda place: place.registry != self._place.registry)
        for place in places[:_MOST_PLACES]:
            form = Form(descriptor, Way.ELSEWHERE, place)
            if not self._is_lost(form) and self._has(place, descriptor):
                yield form

    def _has_recipe(self, descriptor: Descriptor) -> bool:
        diff_id = self._blobs.known([descriptor.digest]).get(descriptor.digest)
        known = [] if diff_id is None else self._blobs.forms_of(diff_id)
        return any(form.digest == descriptor.digest and form.recipe is not None for form in known)

    def _has(self, place: Place, descriptor: Descriptor) -> bool:
        try:
            return self.repository(place).has_blob(descriptor.digest) == descriptor.size
        except LayerstoreError:
            return False  # not reached, not allowed, not known: then the layer goes in another form


def compression_of(media_type: str) -> str:
    """How a layer of this media type is compressed: "gzip", "zstd" or "none"."""
    for compression in ("gzip", "zstd"):
        if media_type.endswith((f"+{compression}", f".{compression}")):
            return compression
    return "none"
