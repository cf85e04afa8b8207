"""Where what a container mounts comes from: volumes, images, paths of this machine, mounts of another container.

What other containers have is looked up when a container is made, and kept with its options: as in docker, it stays what
it was then.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import evolve

from layerstore import ConfigError, Container, HasTree, Image, KernelError, NotFound, Store, Use, Volume, open_beneath
from layerstore.runtime.bundle import Bind
from layerstore.runtime.options import MountOption, RunOptions
from layerstore.values import frozen

__all__ = ["Shown", "Tree", "binds", "give", "images", "mount_volumes", "shown", "trees", "with_others"]


@frozen
class Shown:
    """What of a tree a program sees, and where. No symbolic link is in `path`, which begins at the tree's root.

    A tree may be one file alone, which is a file at the path `/`.
    """

    target: str
    path: str = "/"
    read_only: bool = True
    is_file: bool = False


@frozen
class Tree:
    """A tree that is mounted for one program, beside what its options name."""

    open: Callable[[], AbstractContextManager[int]]
    shown: tuple[Shown, ...]

    def open_tree(self) -> AbstractContextManager[int]:
        """See `HasTree`."""
        return self.open()


def with_others(store: Store, options: RunOptions, options_of: Callable[[Container], RunOptions]) -> RunOptions:
    """The options, with what `--volumes-from` means among the mounts. What is mounted there otherwise comes first.

    Raises `NotFound`, `ConfigError`.
    """
    options = evolve(options, mounts=tuple(_found(store, mount) for mount in options.mounts))
    taken = {_clean(mount.target) for mount in options.mounts}
    found: dict[str, MountOption] = {}
    for entry in options.volumes_from:
        name, _, mode = entry.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise ConfigError(f"invalid mode: {mode}", remedy="Give --volumes-from CONTAINER, or that with :ro or :rw.")
        other = store.container(name)
        for mount in _mounts_of(store, other, options_of(other)):
            target = _clean(mount.target)
            if target not in taken:
                found[target] = evolve(mount, read_only=mount.read_only or mode == "ro")
    return evolve(options, mounts=(*options.mounts, *found.values())) if found else options


def _found(store: Store, mount: MountOption) -> MountOption:
    """The mount; of an image, by its ID, for names move on."""
    if mount.kind != "image":
        return mount
    if mount.subpath:
        raise ConfigError(
            f"cannot mount {mount.subpath} of image {mount.source}: an image is mounted as a whole",
            remedy="Leave image-subpath out.",
        )
    return evolve(mount, source=store.image(mount.source or "").id, read_only=True)


def _mounts_of(store: Store, container: Container, options: RunOptions) -> list[MountOption]:
    """What another container would share: its volumes, those of its image among them, and paths of this machine."""
    asked = {_clean(mount.target): mount for mount in options.mounts}
    found = [evolve(mount, make_source=False) for mount in options.mounts if mount.kind in ("bind", "image")]
    for use in store.volumes.of(container.id):
        mount = asked.get(_clean(use.target)) or MountOption("volume", use.target)
        found.append(evolve(mount, source=use.volume.name, read_only=use.read_only, no_copy=True, chown=False))
    return found


def images(store: Store, options: RunOptions, folder: Path) -> dict[Path, Image]:
    """The images that are mounted, by where the engine will see them: folders that are made in `folder`."""
    found = {}
    for number, mount in enumerate(mount for mount in options.mounts if mount.kind == "image"):
        place = folder / str(number)
        place.mkdir(mode=0o700, parents=True)
        found[place] = store.image(mount.source or "")
    return found


def shown(given: Sequence[Tree], folder: Path) -> tuple[dict[Path, Tree], list[Bind]]:
    """Trees by where the engine will see them, folders that are made in `folder`; and what it binds of each."""
    found, binds = {}, []
    for number, tree in enumerate(given):
        place = folder / str(number)
        if any(part.is_file and part.path == "/" for part in tree.shown):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.touch(mode=0o600)
        else:
            place.mkdir(mode=0o700, parents=True)
        found[place] = tree
        for part in tree.shown:
            source = place / part.path.lstrip("/")
            if part.is_file:  # what is there until the tree is says of what kind the mount point has to be
                source.parent.mkdir(parents=True, exist_ok=True)
                source.touch()
            binds.append(Bind(str(source), part.target, read_only=part.read_only))
    return found, binds


@contextmanager
def trees(found: Mapping[Path, HasTree]) -> Iterator[dict[str, int]]:
    """While inside: the trees of images and others, to be given to an engine."""
    with ExitStack() as after:
        yield {str(place): after.enter_context(image.open_tree()) for place, image in found.items()}


def binds(volumes: Sequence[Use], options: RunOptions, images: Iterable[Path]) -> list[Bind]:
    """The volumes that a container has, the images, and the paths of this machine that are bound into it.

    Raises `NotFound` for one that is not there, `ConfigError` for a subpath that leads out of its volume.
    """
    found = [_bind(mount) for mount in options.mounts if mount.kind == "bind"]
    subpaths = {_clean(mount.target): mount.subpath for mount in options.mounts if mount.kind == "volume"}
    for use in volumes:
        source = _folder(use.volume)
        if subpath := subpaths.get(_clean(use.target)):
            source = _within(source, subpath)
        read_only = use.read_only or "ro" in use.volume.mount.options
        found.append(Bind(source, use.target, read_only=read_only))
    asked = [mount.target for mount in options.mounts if mount.kind == "image"]
    return found + [Bind(str(place), target, read_only=True) for place, target in zip(images, asked, strict=True)]


def _bind(mount: MountOption) -> Bind:
    source = mount.source or ""
    if not os.path.lexists(source):
        if not mount.make_source:
            raise NotFound(
                f'invalid mount config for type "bind": bind source path does not exist: {source}',
                remedy="Make it, or name a path of this machine that is there.",
            )
        try:
            Path(source).mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise KernelError("mkdir", error.errno or 0, path=source) from error
    return Bind(
        os.path.realpath(source),
        mount.target,
        read_only=mount.read_only,
        recursive=mount.recursive,
        propagation=mount.propagation,
    )


def _folder(volume: Volume) -> str:
    """Where a volume is on this machine: its own folder, or the one that was named for it. Raises `NotFound`."""
    mount = volume.mount
    source = mount.source if mount.type == "bind" else str(volume.mountpoint)
    if not os.path.lexists(source):
        raise NotFound(
            f"volume {volume.name} cannot be mounted: there is no {source}",
            remedy="Put it back; or remove the volume, and make it anew.",
        )
    return source


def _within(volume: str, subpath: str) -> str:
    """A path of a volume, whose own symbolic links, which programs make, lead nowhere else. Raises `NotFound`."""
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise ConfigError(
            f"invalid subpath {subpath!r}: it has to lie in the volume", remedy="Give a path without .. and a / before."
        )
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_beneath(root, subpath, os.O_PATH)
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    except KernelError as error:
        raise NotFound(
            f"cannot access path {volume}/{subpath}: {os.strerror(error.errno or 0)}",
            remedy="Make it in the volume first.",
            path=f"{volume}/{subpath}",
        ) from None
    finally:
        os.close(root)


def mount_volumes(config: dict[str, Any], volumes: Sequence[Use]) -> None:
    """A volume that is a filesystem of its own is mounted as such, in place of its folder."""
    for use in volumes:
        mount = use.volume.mount
        if mount.type != "bind":
            for entry in config["mounts"]:
                if entry["destination"] == _clean(use.target):
                    access = ["ro"] if use.read_only else []
                    entry |= {"type": mount.type, "source": mount.source, "options": [*mount.options, *access]}


def give(found: Sequence[Bind], options: RunOptions, user: dict[str, Any]) -> None:
    """Let the user of a container own what is mounted with `U`: all of it, if it is not the user's already.

    As in podman. Symbolic links are given, and not followed. Raises `KernelError`.
    """
    wanted = {_clean(mount.target) for mount in options.mounts if mount.chown}
    for bind in found:
        if _clean(bind.target) in wanted:
            _give(bind.source, user["uid"], user["gid"])


def _give(path: str, uid: int, gid: int) -> None:
    try:
        facts = os.lstat(path)
        if (facts.st_uid, facts.st_gid) == (uid, gid):
            return
        for _, folders, files, fd in os.fwalk(path, topdown=False, onerror=_raised):
            for name in (*folders, *files):
                os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
        # The top at last: until then it says that there is something to do.
        os.chown(path, uid, gid, follow_symlinks=False)
    except OSError as error:
        raise KernelError("chown", error.errno or 0, path=error.filename or path) from error


def _raised(error: OSError) -> None:
    raise error


def _clean(target: str) -> str:
    return posixpath.normpath("/" + target.lstrip("/"))
