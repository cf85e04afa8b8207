"""One checkpoint of a container, as its users hold it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from layerstore.images import config as config_of
from layerstore.images.trees import HasTree, changes_between
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.changes import Changes
    from layerstore.containers.container import Container
    from layerstore.containers.containers import Containers
    from layerstore.digest import ImageID
    from layerstore.segments import CheckpointRow
    from layerstore.trees import Tree


@in_words("checkpoint {0.label}")
class Checkpoint:
    """What a container was at one moment. It stays until it is removed, or its container is."""

    def __init__(self, containers: Containers, row: CheckpointRow) -> None:
        self._containers = containers
        self._row = row

    @property
    def label(self) -> str:
        """Its name among those of its container."""
        return self._row.label

    @property
    def container_id(self) -> str:
        """The container that it was made of."""
        return self._row.container

    @property
    def image_id(self) -> ImageID | None:
        """The image that the container stood on."""
        return self._row.image_id

    @property
    def created(self) -> str:
        """When it was made, as RFC 3339 has it."""
        return config_of.timestamp(self._row.created)

    @property
    def created_at(self) -> datetime:
        """When it was made, to the microsecond."""
        return datetime.fromtimestamp(self._row.created // 1000 / 1e6, UTC)

    @property
    def consistent(self) -> bool:
        """Does it show one moment: was nothing written in the container while it was made?"""
        return self._row.consistent

    def open_tree(self) -> AbstractContextManager[int]:
        """While inside: a directory descriptor of its tree, to be read."""
        return self._containers.comparing.tree_of(self._row)

    def browse(self) -> AbstractContextManager[Tree]:
        """While inside: its tree, read without a mount. See `Store.browse`."""
        return self._containers.comparing.browsed(self._row)

    def changes(self, since: HasTree | None = None) -> Changes:
        """What differs from its image; or from `since`, another checkpoint, a container or an image."""
        if since is None or isinstance(since, Checkpoint):
            found = self._containers.comparing.of_checkpoint(self._row, None if since is None else since._row)
            if found is not None:
                return found
        assert since is not None  # against its image there is always a way
        return changes_between(self, since)

    def fork(self, n: int | None = None, *, names: Sequence[str | None] | None = None) -> list[Container]:
        """Make `n` containers, or one, that begin here, each with its own writes. See `Container.fork`."""
        return self._containers.fork(self._row.container, n, names, checkpoint=self._row)

    def remove(self) -> None:
        """Remove it. Containers that were forked from it stay. Raises `NotFound` if it is gone."""
        self._containers.remove_checkpoint(self._row)

    def __eq__(self, other: object) -> bool:
        return self._row == other._row if isinstance(other, Checkpoint) else NotImplemented

    def __hash__(self) -> int:
        return hash((self._row.container, self._row.label))

    def __repr__(self) -> str:
        return f"<Checkpoint {self.label} of {self.container_id[:12]}>"
