"""A container's bundle, written into its folder: config.json, and the files that are mounted in its /etc."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layerstore import Container, KernelError, NotFound, Use
from layerstore.runtime import bundle
from layerstore.runtime.bundle import Bind, Network, Trace
from layerstore.runtime.engine import Engine, hierarchy
from layerstore.runtime.engine.filters import Learning, give_filter
from layerstore.runtime.life.places import Folder
from layerstore.runtime.options import MountOption, RunOptions

__all__ = ["write"]


def write(
    container: Container,
    options: RunOptions,
    folder: Folder,
    *,
    volumes: Sequence[Use],
    network: Network,
    namespaces: Mapping[str, str],
    engine: Engine,
    filters: Path,
) -> tuple[tuple[Trace, ...], Learning | None]:
    """Write the bundle of a container into its folder, which is there and empty.

    What is returned: the mount points that its tree lacks, and the seccomp filter that is not among `filters` yet.
    Raises `ConfigError`, `NotFound` for what docker refuses.
    """
    image = container.image
    config: Mapping[str, Any] = {} if image is None else image.config
    host = bundle.read_host(cgroup=hierarchy().version)
    binds = _binds(volumes, options)
    texts = bundle.texts(options, host, container.id, network)
    try:
        folder.files.mkdir(mode=0o755)
        fd = os.open(folder.files, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bundle.write(fd, texts)
        finally:
            os.close(fd)
        with container.open_tree() as tree:
            place = bundle.Place(
                id=folder.name,
                root=str(folder.root),
                tree=tree,
                files=str(folder.files),
                network=network,
                namespaces=namespaces,
            )
            made = bundle.make(config, options, host, place, binds)
            _mount_volumes(made, volumes)
            traces = bundle.plan_traces(tree, made)
        learning = give_filter(made, engine, filters, folder.path)
        folder.config.write_text(json.dumps(made))
    except OSError as error:
        raise KernelError("open", error.errno or 0, path=error.filename or folder.path) from error
    return traces, learning


def _binds(volumes: Sequence[Use], options: RunOptions) -> list[Bind]:
    """The volumes that a container has, and the paths of the host that are bound into it. Raises `NotFound`."""
    found = [_bind(mount) for mount in options.mounts if mount.kind == "bind"]
    subpaths = {_clean(mount.target): mount.subpath for mount in options.mounts if mount.kind == "volume"}
    for use in volumes:
        source = str(use.volume.mountpoint)
        if subpath := subpaths.get(_clean(use.target)):
            source = f"{source}/{subpath.lstrip('/')}"
        found.append(Bind(source, use.target, read_only=use.read_only))
    return found


def _mount_volumes(config: dict[str, Any], volumes: Sequence[Use]) -> None:
    """A volume that is a filesystem of its own is mounted as such, in place of its folder."""
    for use in volumes:
        mount = use.volume.mount
        if mount.type != "bind":
            for entry in config["mounts"]:
                if entry["destination"] == _clean(use.target):
                    access = ["ro"] if use.read_only else []
                    entry |= {"type": mount.type, "source": mount.source, "options": [*mount.options, *access]}


def _clean(target: str) -> str:
    return posixpath.normpath("/" + target.lstrip("/"))


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
