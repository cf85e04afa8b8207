"""The storage-opts of `btrfs`: docker's two."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from layerstore import options


def _not_below_least(settings: Settings, _: Attribute[Any], size: int | None) -> None:
    least = settings.min_space
    if size is not None and least is not None and size < least:
        raise ValueError(f"a size that is not less than btrfs.min_space, which is {least} bytes")


@frozen
class Settings:
    """`btrfs.size=10G` and so on.

    `size`: the most that a container may write, where it asks for nothing else. `min_space`: the least that one may ask
    for. The first limit that is asked for switches the quotas of the whole filesystem on, for good.
    """

    min_space: int | None = field(default=None, converter=options.size)
    size: int | None = field(default=None, converter=options.size, validator=_not_below_least)
