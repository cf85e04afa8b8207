"""The `btrfs` driver: a layer is a subvolume, made as a snapshot of its parent; a stack is its topmost layer.

`home/subvolumes/<key>` is a layer: writable as long as it is a container's, read-only once it is committed.
`home/mnt/<key>` is where a container is mounted, `home/quotas/<id>` a quota group that is still to be removed. A layer
comes into the home, and goes from it, by one ioctl. Whether this works on a host is for `probing` to find out.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import ClassVar

from layerstore.changes import Changes, compare_trees, snapshot_changes
from layerstore.driver import Backing, Capabilities, Dialect, Layer, LayerKey, Mount, StorageDriver, Usage, look
from layerstore.errors import FULL, ConfigError, DriverNotSupported, InUse, KernelError, named
from layerstore.kernel import btrfs, files
from layerstore.kernel.btrfs import QuotaState
from layerstore_btrfs import probing
from layerstore_btrfs.probing import SUBVOLUMES
from layerstore_btrfs.settings import Settings

__all__ = ["Btrfs", "Settings"]

_MOUNTPOINTS = "mnt"
_GROUPS = "quotas"

_KEY = re.compile(r"[0-9a-f]{32}(?:s([0-9a-f]+)s*)?")
"""A layer's. What was a container's has a suffix: the transaction in which that was made of its parent."""

_NO_QUOTA = frozenset({errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOTCONN})
"""What a filesystem answers that can have no quotas, or whose quotas somebody switches off meanwhile."""

_AT_ONCE = 16
"""Quota groups that are tried to be removed by the way."""


class Btrfs(StorageDriver):
    """Layers as subvolumes, stacks as snapshots of snapshots."""

    name: ClassVar[str] = "btrfs"
    capabilities: ClassVar[Capabilities] = Capabilities(Dialect.MERGED, snapshots=True)
    options: ClassVar[type] = Settings
    settings: Settings

    def __init__(self, home: Path, staging: Path, options: Settings) -> None:
        super().__init__(home, staging, options)
        self._subvolumes = f"{home}/{SUBVOLUMES}"
        self._turn = 0
        with named("mkdir", home):
            for name in (SUBVOLUMES, _MOUNTPOINTS, _GROUPS):
                (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    @classmethod
    def probe(cls, home: Path, options: Settings) -> Backing:
        return probing.probe(home, options)

    # ---- layers

    def create(self, layer: Layer, parents: Sequence[Layer], *, size: int | None = None) -> None:
        path = self._path(layer)
        limit = 0 if layer.is_staged else self._limit(size)
        if parents:
            btrfs.snapshot(self._path(parents[0]), path)
        else:
            btrfs.create(path)
        try:
            if not parents:
                with named("chmod", path):
                    files.make_plain(path)
            if limit:
                _keep_within(path, limit)
                self._sweep(_AT_ONCE)
        except BaseException:
            with suppress(KernelError):  # the failure that led here is the one to report
                self.remove(layer)
            raise

    def tree(self, layer: Layer) -> Path:
        return Path(self._path(layer))

    def seal(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        if layer.is_staged:
            self._keep(layer)
            return layer.key
        return self._snapshot(layer, layer.key)

    def segment(self, layer: Layer, parents: Sequence[Layer], key: LayerKey, *, in_use: bool) -> LayerKey | None:
        return self._snapshot(layer, key)

    def _snapshot(self, layer: Layer, key: LayerKey) -> LayerKey:
        """A read-only snapshot of a container's layer: with all its data, and durable, since the kernel commits."""
        own = self._path(layer)
        facts = btrfs.info(own)
        if btrfs.nested(own, facts.id):
            raise InUse(
                "a subvolume was made in the container while it was being committed; a snapshot would not have it",
                holders=(own,),
                remedy="Commit it again.",
            )
        sealed = f"{key}s{facts.created if facts.parent else 0:x}"
        while True:
            try:
                btrfs.snapshot(own, f"{self._subvolumes}/{sealed}", read_only=True)
            except KernelError as error:
                if error.errno != errno.EEXIST:
                    raise
                sealed += "s"  # of a commit that failed later: garbage, and not ours to remove
            else:
                return LayerKey(sealed)

    def remove(self, layer: Layer) -> None:
        if not layer.is_staged:
            mountpoint = self.mountpoint(layer)
            with named("rmdir", mountpoint):
                files.clear_mountpoint(mountpoint, self.staging / f"{layer.key}.{_MOUNTPOINTS}")
        path = self._path(layer)
        is_counted = self._note_group(path)
        try:
            btrfs.destroy(path)
        except KernelError as error:
            # `chattr +i`, on its root or that of a subvolume in it; or those in it are nested too deep for the kernel
            # to name the innermost: they go one by one, from inside, as folders do.
            if error.errno in (errno.EPERM, errno.ENAMETOOLONG):
                btrfs.set_read_only(path, to=False)
            elif error.errno != errno.EINVAL:  # a plain folder: somebody has copied the home by its files
                raise
            if not layer.is_staged:
                with named("rename", path):
                    files.move_away(path, self.staging / layer.key)
        if is_counted:
            self._sweep(_AT_ONCE)

    def keys(self) -> Iterable[LayerKey]:
        found: set[str] = set()
        with named("open", self.home):
            for name in (SUBVOLUMES, _MOUNTPOINTS):
                found.update(filter(_KEY.fullmatch, os.listdir(self.home / name)))
        return map(LayerKey, found)

    # ---- stacks

    def mounts(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> Sequence[Mount]:
        # Each access time that is written makes an inode look changed.
        return (Mount("bind", self._path(layer), (("noatime", None),), read_only=read_only),)

    def prepare(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> None:
        if not read_only:
            # Not before: to make and remove this folder is most of what a layer's life costs beside its snapshots.
            with named("mkdir", self.mountpoint(layer)):
                self.mountpoint(layer).mkdir(mode=0o700, exist_ok=True)

    def changes(self, layer: Layer, parents: Sequence[Layer]) -> Changes:
        if not parents:
            with look(self, layer, parents) as new:
                return self._compared(new, None)
        return self._changed(layer, parents, parents, layer)

    def changes_since(
        self, layer: Layer, parents: Sequence[Layer], between: Sequence[Layer], base: Sequence[Layer]
    ) -> Changes:
        if not base:
            return super().changes_since(layer, parents, between, base)
        # A snapshot of a snapshot has the generations of both.
        return self._changed(layer, parents, base, (layer, *between)[-1])

    def _changed(self, layer: Layer, parents: Sequence[Layer], base: Sequence[Layer], first: Layer) -> Changes:
        """What a layer changes against `base`, of which `first` was made."""
        with ExitStack() as opened:
            new = opened.enter_context(look(self, layer, parents))
            old = opened.enter_context(look(self, base[0], base[1:]))
            own, below = btrfs.info(new), btrfs.info(old)
            since = self._made(first)
            # A segment is no snapshot of its parent, but one of what was made of that; unless the parent was made anew.
            if own.parent == below.uuid or (_is_dated(first) and below.created <= since):
                return snapshot_changes(new, old, since)
            return self._compared(new, old)

    def usage(self, layer: Layer, parents: Sequence[Layer]) -> Usage:
        path = self._path(layer)
        if not btrfs.is_read_only(path):
            files.syncfs(Path(path))  # what is dirty has no blocks yet
        inodes, size = btrfs.written(path, self._made(layer))
        return Usage(size, inodes)

    def graph_data(self, layer: Layer, parents: Sequence[Layer]) -> Mapping[str, str]:
        return {"MergedDir": str(self.mountpoint(layer)), "SubvolumePath": self._path(layer)}

    def mountpoint(self, layer: Layer) -> Path:
        return self.home / _MOUNTPOINTS / layer.key

    def close(self) -> None:
        self._sweep(None)

    # ---- private

    def _path(self, layer: Layer) -> str:
        return f"{self.staging if layer.is_staged else self._subvolumes}/{layer.key}"

    def _keep(self, layer: Layer) -> None:
        """Put a staged layer into the home. The core has synced it, and nobody has it open."""
        staged, kept = self._path(layer), f"{self._subvolumes}/{layer.key}"
        with named("rename", staged):
            os.rename(staged, kept)  # first, for a subvolume that is read-only cannot be moved
        try:
            btrfs.set_read_only(kept)  # which commits, the rename with it
        except BaseException:
            with named("rename", kept):
                os.rename(kept, staged)
            raise

    def _compared(self, new: int, old: int | None) -> Changes:
        found = compare_trees(new, old, content=True)
        return Changes(found.raw, sealable=not btrfs.nested(new))

    def _made(self, layer: Layer) -> int:
        """The transaction in which what is now this layer was made of its parent; 0 if it has none."""
        match = _KEY.fullmatch(layer.key)
        if match is not None and match[1] is not None:
            return int(match[1], 16)
        facts = btrfs.info(self._path(layer))
        return facts.created if facts.parent else 0

    # ---- quota

    def _limit(self, size: int | None) -> int | None:
        limit = self.settings.size if size is None else size
        least = self.settings.min_space
        if limit is not None and least is not None and limit < least:
            raise ConfigError(
                f"btrfs: storage size cannot be less than {least} bytes (btrfs.min_space)",
                remedy=f"Ask for {least} bytes or more, or lower btrfs.min_space.",
            )
        return limit

    def _note_group(self, path: str) -> bool:
        """Note the quota group of a subvolume that is about to go. It outlives it, by the data counted for it."""
        try:
            # A plain folder belongs to the group of the subvolume that the home is in, which is not ours.
            if btrfs.quota_state(self.home) is QuotaState.OFF or not btrfs.is_subvolume(path):
                return False
            group = btrfs.info(path).id
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        try:
            with named("open", self.home / _GROUPS / str(group)):
                (self.home / _GROUPS / str(group)).touch()
        except KernelError as error:
            if error.errno not in FULL:  # a group that stays costs little: room has to be freed without any
                raise
            return False
        return True

    def _sweep(self, most: int | None) -> None:
        """Remove the groups of subvolumes that are gone, as far as the kernel lets go of them."""
        folder = self.home / _GROUPS
        if not folder.exists():
            return
        with named("unlink", folder):
            noted = sorted(filter(str.isdecimal, os.listdir(folder)))
            if not noted:
                return
            there = set(btrfs.groups(self.home))
            # Those that have to stay must not keep others from their turn.
            begin = self._turn % len(noted)
            self._turn += _AT_ONCE
            for name in (noted[begin:] + noted[:begin])[:most]:
                if int(name) not in there or btrfs.remove_group(self.home, int(name)):
                    (folder / name).unlink(missing_ok=True)


def _is_dated(layer: Layer) -> bool:
    """Does its key say when what is sealed in it was made of its parent?"""
    match = _KEY.fullmatch(layer.key)
    return match is not None and match[1] is not None


def _keep_within(path: str, limit: int) -> None:
    """Limit what a new subvolume may write."""
    try:
        if btrfs.quota_state(path) is QuotaState.OFF:
            btrfs.enable_quota(path)
        btrfs.limit(path, limit)
    except KernelError as error:
        if error.errno not in _NO_QUOTA:
            raise
        raise DriverNotSupported(
            f"the size of a container cannot be limited: {error.message}",
            remedy="Leave the size out, or switch quotas on yourself: `btrfs quota enable --simple DIR`.",
            errno=error.errno,
        ) from error
