"""An image and a layer of an attached store, and what is asked of whatever reads one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from attrs import field

from layerstore.digest import ChainID, DiffID, ImageID
from layerstore.errors import Damaged
from layerstore.images.config import Configured, created_of
from layerstore.values import frozen
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.attached.root import Root

__all__ = ["MOST_CONFIG", "AttachedImage", "AttachedLayer", "AttachedStore"]

Write = Callable[[memoryview], object]

MOST_CONFIG = 8 << 20
"""Bytes of an image's config or manifest. Registries allow 4 MiB."""


@in_words("image {0.short_id} of {0.store}")
@frozen(slots=False)
class AttachedImage(Configured):
    """An image of an attached store, as that has it. `Store.image` borrows it; `Store.adopt` makes it the store's."""

    id: ImageID
    tags: tuple[str, ...]
    """The names it has there, in the short form, sorted."""
    digests: tuple[str, ...]
    """`name@digest`, in the short form, sorted."""
    size: int
    """Bytes of its layers, as that store counts them."""
    parent: ImageID | None
    """The image that it was built on, as that store has noted it."""
    store: str
    """The attached store: `docker:/var/lib/docker`."""
    config_bytes: bytes = field(repr=False)
    """The config, to the byte: what `id` is the digest of."""

    @property
    def created(self) -> str:
        """When it was made, as its config says it; "" if it does not."""
        return created_of(self.config)


@frozen
class AttachedLayer:
    """A layer of an attached store. `folder` has its files, with overlay's marks; or, if it is `whole`, all that the
    layers below show, too, and no marks. None if it is not unpacked there in a form that can be read.

    `unfit` says why the folder cannot be read as it lies, or why there is none. `write` gives the tar, bit for bit, and
    `measure` its bytes and entries; None where nothing there says what the tar was.
    """

    diff_id: DiffID
    folder: Path | None
    whole: bool = False
    unfit: str | None = None
    write: Callable[[Write], None] | None = None
    measure: Callable[[], tuple[int, int]] | None = None


class AttachedStore(Protocol):
    """What reads the store of another program. What it has not any more is None; what it raises says what is wrong."""

    root: Root

    def require(self) -> None:
        """Raise `ConfigError` if this is no such store."""

    def names(self) -> Mapping[str, ImageID]:
        """The images by their names, in full: tags, and names with digests."""

    def ids(self) -> Sequence[ImageID]:
        """All images."""

    def config(self, image: ImageID) -> bytes | None:
        """The config of an image, to the byte."""

    def parent(self, image: ImageID) -> ImageID | None:
        """The image that an image was built on, where that is noted."""

    def size(self, image: ImageID, layers: Sequence[DiffID]) -> int:
        """The bytes of an image, as this store counts them."""

    def layer(self, chain: ChainID, diff_id: DiffID) -> AttachedLayer | None:
        """A layer on those below it. Raises `Damaged`."""


def verified(root: Root, name: str, found: DiffID, expected: DiffID) -> DiffID:
    """The DiffID of a layer that is written down there. Raises `Damaged` if it is another."""
    if found != expected:
        raise root.wrong(name, f"it is the layer {found}, and not {expected}")
    return found


def wrong_layer(root: Root, name: str, diff_id: DiffID) -> Callable[[str], Damaged]:
    """Makes the errors about a layer's files."""

    def wrong(what: str) -> Damaged:
        error = root.wrong(name, f"layer {diff_id}: {what}")
        error.layer = diff_id
        return error

    return wrong
