"""What the page is told, each answer bounded: however much there is, and however long what images say of themselves."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final, TypeVar

from layerstore import Image, LayerstoreError, NotFound, Store
from layerstore.build.cache.summary import apart, kinds
from layerstore.faces.serve.messages import Refused
from layerstore.faces.ui.lists import Row, Shelf
from layerstore.runtime import Runtime

__all__ = ["Documents"]

_MOST_ROWS: Final = 2000
"""Rows in one answer; `next` says where the following begin."""
_MOST_PROBLEMS: Final = 500
_MOST_PARTS: Final = 500
_MOST_LETTERS: Final = 4000
_DEEPEST: Final = 12
_PATIENCE: Final = 30.0
"""Seconds to wait for others who have something counted: each who waits keeps a thread of the server."""

T = TypeVar("T")

_ID: Final = re.compile(r"[0-9a-f]{64}")


class Documents:
    """What is answered about a store, as what becomes JSON. Raises `Refused` for what makes no sense."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shelf = Shelf(store)
        self._counting = threading.Lock()
        self._checking = threading.Lock()

    def warm(self) -> None:
        """Make the lists before anybody asks for them. What fails is told to who does."""
        with suppress(LayerstoreError):
            self.version()

    def version(self) -> Row:
        """What changes when there is something else to be seen."""
        lasting, boxes = self._shelf.lasting(), self._shelf.containers()
        return {"version": lasting.version, "containers": boxes.version}

    def rows(self, name: str, first: int) -> Row:
        """Rows of a list, from one of them on."""
        lists = self._shelf.containers() if name == "containers" else self._shelf.lasting()
        return {"version": lists.version, **_part(lists.rows[name], first)}

    def info(self) -> Row:
        """What `layerstore info` tells."""
        found = self._store.info()
        return {
            "id": found.id,
            "version": found.version,
            "driver": found.driver,
            "status": found.driver_status,
            "refusals": found.refusals,
            "broken": found.broken,
            "migration": found.migration,
            "former": found.former,
            "attached": found.attached,
            "data_root": str(found.data_root),
            "exec_root": str(found.exec_root),
            "kernel": found.kernel,
            "system": found.operating_system,
            "architecture": found.architecture,
            "cpus": found.cpus,
            "memory": found.memory,
            "name": found.name,
            "images": found.images,
            "containers": found.containers,
            "mounted": found.mounted,
            "layers": found.layers,
        }

    def space(self) -> Row:
        """What `layerstore system df -v` counts, without a look at the files of layers. One at a time counts."""
        if not self._counting.acquire(timeout=_PATIENCE):
            raise Refused(503, "TOOMANYREQUESTS", "the room is being counted for others: try again")
        try:
            whole = self._store.disk_usage()
            cached, usage = apart(self._store, whole)
            lacking = self._store.lacking()
        finally:
            self._counting.release()
        return {
            "kinds": [
                {"name": one.name, "total": one.total, "active": one.active, "size": one.size, "free": one.reclaimable}
                for one in kinds(usage, cached)
            ],
            "lacking": {_hex(diff_id): size for diff_id, size in islice(lacking.items(), 100_000)},
            # Without names, in few letters: as many as there are images, containers and layers.
            "images": {
                _hex(one.image.id): (one.shared, one.unique, one.containers) for one in islice(usage.images, 100_000)
            },
            "containers": {one.container.id: (one.size, one.in_use) for one in islice(usage.containers, 100_000)},
            "volumes": {
                one.volume.name: (one.size, one.containers, one.volume.is_anonymous)
                for one in islice(usage.volumes, 100_000)
            },
            "layers": [
                (_hex(one.diff_id), one.size, one.images, one.containers, one.leases)
                for one in islice(whole.layers, 100_000)
            ],
        }

    def image(self, ident: str) -> Row:
        """All that is known of an image: what `inspect` and `history` tell."""
        if all(row["id"] != ident for row in self._shelf.lasting().rows["images"]):
            # To ask the store could have it borrow one of an attached store, which is more than a look.
            raise NotFound("there is no such image")
        image = self._store.image(_required(ident))
        return _bounded(
            {
                "inspect": image.inspect(),
                "digests": image.digests,
                "containers": image.containers,
                "steps": _steps(image),
                "beneath": [{"id": _hex(one.id), "tags": one.tags} for one in image.beneath],
            }
        )

    def container(self, ident: str) -> Row:
        """All that is known of a container: what `inspect` tells."""
        return _bounded({"inspect": Runtime(self._store).inspect(self._store.container(_required(ident)))})

    def volume(self, name: str) -> Row:
        """All that is known of a volume."""
        volume = self._store.volumes.get(name)
        return _bounded({"inspect": volume.inspect(), "containers": volume.containers})

    def check(self) -> Row:
        """What `layerstore check` finds. Raises `Refused` while somebody else has it looked at."""
        if not self._checking.acquire(blocking=False):
            raise Refused(409, "DENIED", "the store is being checked already: wait until that is done")
        try:
            found: list[Row] = []
            count = 0
            for problem in self._store.check_iter():
                count += 1
                if len(found) < _MOST_PROBLEMS:
                    found.append(
                        {"kind": problem.kind, "text": problem.text, "affects": [str(one) for one in problem.affects]}
                    )
            return _bounded({"problems": found, "count": count})
        finally:
            self._checking.release()


def _steps(image: Image) -> list[Row]:
    """The lines of the history, the newest first; the last so many."""
    return [
        {
            "text": step.created_by,
            "comment": step.comment,
            "created": step.created,
            "size": step.size,
            "layer": None if step.diff_id is None else _hex(step.diff_id),
        }
        for step in islice(reversed(image.history), _MOST_PARTS)
    ]


def _part(rows: Sequence[Row], first: int) -> Row:
    end = first + _MOST_ROWS
    return {"total": len(rows), "rows": rows[first:end], "next": end if end < len(rows) else None}


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _required(ident: str) -> str:
    if not _ID.fullmatch(ident):
        raise NotFound("an ID has 64 hex digits")
    return ident


def _bounded(value: Row) -> Row:
    """Values of JSON, of which what is too much is left out, with a word about it."""
    return {name: _Cutter().cut(one, _DEEPEST) for name, one in value.items()}


class _Cutter:
    """Leaves out what is too long, too many or too deep; `left` values in all may stay."""

    def __init__(self) -> None:
        self.left = 10 * _MOST_PARTS

    def cut(self, value: Any, depth: int) -> Any:
        """The value, or as much of it as there is room for."""
        self.left -= 1
        if isinstance(value, str):
            more = len(value) - _MOST_LETTERS
            return value if more <= 0 else f"{value[:_MOST_LETTERS]}… ({more} more characters)"
        if value is None or isinstance(value, bool | int | float):
            return value
        if not depth or self.left <= 0:
            return "…"
        if isinstance(value, Mapping):
            few = {self.cut(str(key), 1): self.cut(one, depth - 1) for key, one in self._few(value.items())}
            return few if len(few) == len(value) else few | {"…": f"{len(value) - len(few)} more"}
        if isinstance(value, Iterable):
            whole = list(value)
            parts = [self.cut(one, depth - 1) for one in self._few(whole)]
            return parts if len(parts) == len(whole) else [*parts, f"… {len(whole) - len(parts)} more"]
        return str(value)

    def _few(self, values: Iterable[T]) -> Iterator[T]:
        for value in islice(values, _MOST_PARTS):
            if self.left <= 0:
                return
            yield value
