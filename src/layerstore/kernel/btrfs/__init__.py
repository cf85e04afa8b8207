"""btrfs: subvolumes, snapshots, quota groups (`subvolumes`, by ioctl), and what its trees tell (tree.c)."""

from layerstore.kernel.btrfs.subvolumes import (
    QuotaState,
    Subvolume,
    create,
    destroy,
    enable_quota,
    groups,
    info,
    is_read_only,
    is_subvolume,
    limit,
    nested,
    quota_state,
    remove_group,
    set_read_only,
    snapshot,
    written,
)

__all__ = [
    "QuotaState",
    "Subvolume",
    "create",
    "destroy",
    "enable_quota",
    "groups",
    "info",
    "is_read_only",
    "is_subvolume",
    "limit",
    "nested",
    "quota_state",
    "remove_group",
    "set_read_only",
    "snapshot",
    "written",
]
