"""One image, as its users hold it: the facts of its config, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from attrs import field

from layerstore.digest import ChainID, ImageID
from layerstore.images import copies, trees
from layerstore.images.bases import Base
from layerstore.images.config import Configured
from layerstore.values import frozen
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.changes import Changes
    from layerstore.copying import Copied
    from layerstore.images.config import History
    from layerstore.images.growing import Ground
    from layerstore.images.images import Images
    from layerstore.images.removal import Removal
    from layerstore.images.trees import HasTree
    from layerstore.trees import Tree


@in_words("image {0.short_id}")
@frozen(slots=False)
class Image(Base, Configured):
    """An image as it was when it was looked up. The methods act on the store as it is now."""

    id: ImageID
    tags: tuple[str, ...]
    """The names it has, in the short form, sorted."""
    created: str
    """When it was made, as its config says it; "" if it does not."""
    size: int
    """Bytes of its layers' tars."""
    parent: ImageID | None
    """The image that it was committed on, if that happened in this store."""
    digests: tuple[str, ...]
    """`name@digest` of the manifests that it is known by in registries, in the short form, sorted."""
    config_bytes: bytes = field(repr=False)
    """The config, to the byte: what `id` is the digest of."""
    _images: Images = field(repr=False, eq=False)

    @property
    def _ground(self) -> Ground:
        return self._images.ground(self)

    @property
    def chain_id(self) -> ChainID | None:
        """The layer on top; None if there is none."""
        return self.chain_ids[-1] if self.chain_ids else None

    @property
    def architecture(self) -> str:
        """The architecture, in Go's words."""
        return str(self.config.get("architecture") or "")

    @property
    def variant(self) -> str:
        """The variant of the architecture."""
        return str(self.config.get("variant") or "")

    @property
    def os(self) -> str:
        """The operating system, in Go's words."""
        return str(self.config.get("os") or "")

    @property
    def author(self) -> str:
        """Who made it."""
        return str(self.config.get("author") or "")

    @property
    def comment(self) -> str:
        """What its maker said of the last step."""
        lines = self.config.get("history") or [{}]
        return str(lines[-1].get("comment") or self.config.get("comment") or "")

    @property
    def history(self) -> tuple[History, ...]:
        """The steps that made it, oldest first, each with its layer."""
        return self._images.history(self)

    @property
    def folders(self) -> Mapping[ChainID, Path]:
        """Where the driver keeps each layer, in the driver's own form. Not to be written to."""
        return self._images.folders_of(self)

    @property
    def beneath(self) -> list[Image]:
        """The other images of the store whose layers are the lowest of its own, or all: it may be built on them."""
        return self._images.beneath(self)

    @property
    def containers(self) -> tuple[str, ...]:
        """The names of the containers on it."""
        return self._images.containers_of(self.id)

    def mount(self) -> AbstractContextManager[Path]:
        """While inside, its tree is there to be read. Needs no container."""
        return self._images.mounted(self)

    def open_tree(self) -> AbstractContextManager[int]:
        """While inside: a directory descriptor of its tree, to be read; mounted where nobody else sees it."""
        return self._images.trees.opened(self, self.chain_id)

    def browse(self) -> AbstractContextManager[Tree]:
        """While inside: its tree, read without a mount. See `Store.browse`."""
        return self._images.trees.browsed(self)

    def changes(self, since: HasTree | None = None) -> Changes:
        """What differs from `since`, an image or a container, to the last attribute and byte.

        Without it: from the image that it was built on in this store; if there is none, what its topmost layer
        changes. Both trees are read.
        """
        if since is not None:
            return trees.changes_between(self, since)
        base = None if self.parent is None else self._images.get(self.parent)
        return self._images.trees.changes_of(self, base)

    def copy_out(
        self, path: str, target: str | PathLike[str] | BinaryIO, *, archive: bool = False, follow: bool = False
    ) -> Copied:
        """Copy a file or folder of it to the host, or write it as a tar to an open file.

        The rules are docker's: a file lands at `target`, or in it if that is a folder; a folder lands in a folder that
        is there under its own name, and else becomes `target`; `path/.` means what is in a folder. The folder that
        `target` is in has to be there.

        What is copied belongs to this process's user. `archive`: owners stay as they are, and so do setuid bits,
        extended attributes and devices, which are left out otherwise; a tar has them all. `follow`: what a symbolic
        link at `path` leads to is copied, not the link. Links lead to what the tree has, never to the host's files.

        Raises `NotFound`, `CannotCopy`, `KernelError`; what was copied until then stays.
        """
        title = f"image {self.tags[0] if self.tags else self.short_id}"
        return copies.copy_out(self, title, path, target, archive=archive, follow=follow)

    def tag(self, name: str) -> None:
        """Give it one more name; another image loses the name."""
        self._images.tag(self.id, name)

    def remove(self, *, force: bool = False) -> list[Removal]:
        """Remove it. Raises `InUse`."""
        return self._images.remove(self.id, force=force)

    def inspect(self) -> dict[str, Any]:
        """What is known of it, in docker's words."""
        return self._images.inspect(self)


@frozen(slots=False)
class Loose(Image):
    """Layers of the store in the form of an image that the store has not: to be given away, and for nothing else.

    Its layers need not be a stack.
    """

    places: tuple[ChainID, ...] = field(kw_only=True)
    """One of the places where the store has each layer."""

    @cached_property
    def chain_ids(self) -> tuple[ChainID, ...]:
        """The same."""
        return self.places
