"""The storage-opts of `erofs`, and its limit."""

from __future__ import annotations

from attrs import field, frozen

from layerstore import options

MAX_DEPTH = 498
"""Lower directories of one overlay mount (OVL_MAX_STACK of the kernel), but for the index and a container's own."""


@frozen
class Settings:
    """`erofs.size=10G`: the most that a container may write (needs project quotas).

    `erofs.patience=60`: the seconds for which who reads a lazy layer waits, before that is an I/O error.

    `erofs.dedup=true`: files that two layers have are kept once; needs a filesystem that shares blocks (xfs).
    """

    size: int | None = field(default=None, converter=options.size)
    patience: float = field(default=60.0, converter=options.seconds)
    dedup: bool = field(default=False, converter=options.switch)
