"""The `btrfs` driver: a layer is a subvolume, made as a snapshot of its parent; a stack is its topmost layer.

`home/subvolumes/<key>` is a layer: writable as long as it is a container's, read-only once it is committed.
`home/mnt/<key>` is where a container is mounted, `home/quotas/<id>` a quota group that is still to be removed. A layer
comes into the home, and goes from it, by one ioctl. Whether this works on a host is for `probing` to find out.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from layerstore.changes import Changes, compare_trees, snapshot_changes
from layerstore.driver import Backing, Capabilities, CopyOnWrite, Dialect, LayerKey, Mount, StorageDriver, Usage
from layerstore.errors import ConfigError, InUse, KernelError, named
from layerstore.kernel import btrfs, files
from layerstore.kernel.btrfs import QuotaState
from layerstore.kernel.mounts import detached
from layerstore_btrfs import probing
from layerstore_btrfs.probing import SUBVOLUMES
from layerstore_btrfs.settings import Settings

__all__ = ["Btrfs", "Settings"]

_MOUNTPOINTS = "mnt"
_GROUPS = "quotas"

_KEY = re.compile(r"[0-9a-f]{32}(?:s([0-9a-f]+)s*)?")
"""A layer's. What was a container's has a suffix: the transaction in which that was made of its parent."""

_AT_ONCE = 16
"""Quota groups that are tried to be removed by the way."""


class Btrfs(StorageDriver):
    """Layers as subvolumes, stacks as snapshots of snapshots."""

    name: ClassVar[str] = "btrfs"
    capabilities: ClassVar[Capabilities] = Capabilities(
        dialect=Dialect.MERGED,
        independent_layers=False,
        copy_on_write=CopyOnWrite.BLOCK,
        quota=True,
        max_depth=None,
    )
    options: ClassVar[type] = Settings
    settings: Settings

    def __init__(self, home: Path, staging: Path, options: Settings) -> None:
        super().__init__(home, staging, options)
        self._subvolumes, self._mountpoints = f"{home}/{SUBVOLUMES}", f"{home}/{_MOUNTPOINTS}"
        # Layers that this process has not sealed yet: they may already be the parents of others that are staged.
        self._staged: set[LayerKey] = set()
        self._turn = 0
        with named("mkdir", home):
            for name in (SUBVOLUMES, _MOUNTPOINTS, _GROUPS):
                (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    @classmethod
    def probe(cls, home: Path, options: Settings) -> Backing:
        return probing.probe(home, options)

    # ---- layers

    def create(
        self, layer: LayerKey, parents: Sequence[LayerKey], *, staged: bool = False, size: int | None = None
    ) -> None:
        path = f"{self.staging if staged else self._subvolumes}/{layer}"
        limit = None if staged else self._limit(size)
        if parents:
            btrfs.snapshot(self._path(parents[0]), path)
        else:
            btrfs.create(path)
        if staged:
            self._staged.add(layer)
        try:
            if not parents:
                with named("chmod", path):
                    files.make_plain(path)
            if limit is not None:
                if btrfs.quota_state(path) is QuotaState.OFF:
                    btrfs.enable_quota(path)
                btrfs.limit(path, limit)
                self._sweep(_AT_ONCE)
        except BaseException:
            self.remove(layer)
            raise

    def tree(self, layer: LayerKey) -> Path:
        return Path(self._path(layer))

    def seal(self, layer: LayerKey, parents: Sequence[LayerKey]) -> LayerKey:
        if layer in self._staged:
            # Synced by the core, and nobody has it open: the rename and the flag are one commit.
            with named("rename", f"{self.staging}/{layer}"):
                os.rename(f"{self.staging}/{layer}", f"{self._subvolumes}/{layer}")
            self._staged.discard(layer)
            btrfs.set_read_only(f"{self._subvolumes}/{layer}")
            return layer
        own = f"{self._subvolumes}/{layer}"
        facts = btrfs.info(own)
        if btrfs.nested(own, facts.id):
            raise InUse(
                "a subvolume was made in the container while it was being committed; a snapshot would not have it",
                holders=(own,),
                remedy="Commit it again.",
            )
        sealed = f"{layer}s{facts.created if facts.parent else 0:x}"
        while True:
            try:
                btrfs.snapshot(own, f"{self._subvolumes}/{sealed}", read_only=True)
            except KernelError as error:
                if error.errno != errno.EEXIST:
                    raise
                sealed += "s"  # of a commit that failed later: garbage, and not ours to remove
            else:
                return LayerKey(sealed)

    def remove(self, layer: LayerKey) -> None:
        mountpoint = f"{self._mountpoints}/{layer}"
        with named("rmdir", mountpoint):
            files.clear_mountpoint(mountpoint, self.staging / f"{layer}.{_MOUNTPOINTS}")
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
            with named("rename", path):
                files.move_away(path, self.staging / layer)
        self._staged.discard(layer)
        if is_counted:
            self._sweep(_AT_ONCE)

    def layers(self) -> Iterator[LayerKey]:
        found: set[str] = set()
        with named("open", self.home):
            for name in (SUBVOLUMES, _MOUNTPOINTS):
                found.update(filter(_KEY.fullmatch, os.listdir(self.home / name)))
        return map(LayerKey, found)

    # ---- stacks

    def mounts(self, layer: LayerKey, parents: Sequence[LayerKey], *, read_only: bool) -> Sequence[Mount]:
        if not read_only:
            # Not before: to make and remove this folder is most of what a layer's life costs beside its snapshots.
            with named("mkdir", self.mountpoint(layer)):
                self.mountpoint(layer).mkdir(mode=0o700, exist_ok=True)
        # Each access time that is written makes an inode look changed.
        return (Mount("bind", self._path(layer), (("noatime", None),), read_only=read_only),)

    def changes(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Changes:
        with ExitStack() as opened:
            new = opened.enter_context(detached(self.mounts(layer, parents, read_only=True)))
            if not parents:
                return self._compared(new, None)
            old = opened.enter_context(detached(self.mounts(parents[0], parents[1:], read_only=True)))
            own = btrfs.info(new)
            if own.parent == btrfs.info(old).uuid:
                return snapshot_changes(new, old, own.created)
            # Of a container that was sealed, or one whose parent was made anew since.
            return self._compared(new, old)

    def usage(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Usage:
        path = self._path(layer)
        if not btrfs.is_read_only(path):
            files.syncfs(Path(path))  # what is dirty has no blocks yet
        inodes, size = btrfs.written(path, self._made(layer))
        return Usage(size, inodes)

    def graph_data(self, layer: LayerKey, parents: Sequence[LayerKey]) -> Mapping[str, str]:
        return {"MergedDir": str(self.mountpoint(layer)), "SubvolumePath": self._path(layer)}

    def status(self) -> Sequence[tuple[str, str]]:
        return self.probe(self.home, self.settings).notes

    def mountpoint(self, layer: LayerKey) -> Path:
        return self.home / _MOUNTPOINTS / layer

    def close(self) -> None:
        self._sweep(None)

    # ---- private

    def _path(self, layer: LayerKey) -> str:
        return f"{self.staging if layer in self._staged else self._subvolumes}/{layer}"

    def _compared(self, new: int, old: int | None) -> Changes:
        found = compare_trees(new, old, content=True)
        return Changes(found.raw, sealable=not btrfs.nested(new))

    def _made(self, layer: LayerKey) -> int:
        """The transaction in which what is now this layer was made of its parent; 0 if it has none."""
        match = _KEY.fullmatch(layer)
        if match is not None and match[1] is not None:
            return int(match[1], 16)
        facts = btrfs.info(self._path(layer))
        return facts.created if facts.parent else 0

    # ---- quota

    def _limit(self, size: int | None) -> int | None:
        limit = size or self.settings.size
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
        with named("open", self.home / _GROUPS / str(group)):
            (self.home / _GROUPS / str(group)).touch()
        return True

    def _sweep(self, most: int | None) -> None:
        """Remove the groups of subvolumes that are gone, as far as the kernel lets go of them."""
        try:
            noted = sorted(filter(str.isdecimal, os.listdir(self.home / _GROUPS)))
        except FileNotFoundError:
            return
        if not noted:
            return
        there = set(btrfs.groups(self.home))
        # Those that have to stay must not keep others from their turn.
        begin = self._turn % len(noted)
        self._turn += _AT_ONCE
        for name in (noted[begin:] + noted[:begin])[:most]:
            if int(name) not in there or btrfs.remove_group(self.home, int(name)):
                (self.home / _GROUPS / name).unlink(missing_ok=True)
