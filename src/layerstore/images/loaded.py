"""An image as it came in: what the store knows of it, and what bringing it in did to names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from attrs import field, fields

from layerstore import reference
from layerstore.images.image import Image
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.digest import ImageID


@frozen(slots=False, eq=False)
class Loaded(Image):
    """An image that was loaded. It is equal to the `Image` that it is; `tags` are all that it has in the store."""

    names: tuple[str, ...] = field(kw_only=True)
    """The names that it was given now, in the short form, in the archive's order."""
    taken: Mapping[str, ImageID] = field(kw_only=True)
    """Those of `names` that meant another image until now, and which. That one is left without the name."""

    @classmethod
    def of(cls, image: Image, names: Sequence[str], taken: Mapping[str, ImageID]) -> Self:
        """An image that was given `names`, some of them `taken` from others; both with full names."""
        facts = {one.alias or one.name: getattr(image, one.name) for one in fields(Image)}
        return cls(
            **facts,
            names=tuple(dict.fromkeys(map(reference.familiar, names))),
            taken={reference.familiar(name): other for name, other in taken.items()},
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Image):
            return NotImplemented
        return all(getattr(self, one.name) == getattr(other, one.name) for one in fields(Image) if one.eq)

    __hash__ = Image.__hash__
