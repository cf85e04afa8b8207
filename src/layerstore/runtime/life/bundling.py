"""A container's bundle, written into its folder: config.json, and the files that are mounted in its /etc."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from layerstore import Container, KernelError, Use
from layerstore.runtime import bundle
from layerstore.runtime.bundle import Bind, Network, Trace
from layerstore.runtime.engine import Engine, hierarchy
from layerstore.runtime.engine.filters import Learning, give_filter
from layerstore.runtime.engine.words import failure
from layerstore.runtime.life import sources
from layerstore.runtime.life.places import Folder
from layerstore.runtime.options import RunOptions

__all__ = ["write"]


def write(
    container: Container,
    options: RunOptions,
    folder: Folder,
    tree: int,
    *,
    volumes: Sequence[Use],
    images: Iterable[Path],
    more: Sequence[Bind],
    network: Network,
    namespaces: Mapping[str, str],
    engine: Engine,
    filters: Path,
    memory: int | None = None,
) -> tuple[tuple[Trace, ...], Learning | None]:
    """Write the bundle of a container into its folder, which is there and empty. `tree` is a descriptor of its tree.

    `memory` is a folder that nobody else can reach: the bundle is in there, and that on the disk has no variables.
    `images` are where the engine will see those that are mounted, `more` is what else it binds. What is returned: the
    mount points that its tree lacks, and the seccomp filter that is not among `filters` yet.
    Raises `ConfigError`, `NotFound` for what docker refuses, `CannotRun` for a program that is not there.
    """
    host = bundle.read_host(cgroup=hierarchy().version, init=options.init)
    binds = [*sources.binds(volumes, options, images), *more]
    texts = bundle.texts(options, host, container.id, network)
    try:
        folder.files.mkdir(mode=0o755)
        fd = os.open(folder.files, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            bundle.write(fd, texts)
        finally:
            os.close(fd)
        place = bundle.Place(
            id=folder.name,
            root=str(folder.root),
            tree=tree,
            files=str(folder.files),
            network=network,
            namespaces=namespaces,
        )
        made = bundle.make(container.image_config, options, host, place, binds)
        sources.mount_volumes(made, volumes)
        sources.give(binds, options, made["process"]["user"])
        if engine.is_plain and (why := bundle.unfit_program(tree, made)) is not None:
            raise failure(f"container {container.name} cannot be started", [why])
        traces = bundle.plan_traces(tree, made)
        learning = give_filter(made, engine, filters, folder.path)
        if memory is not None:
            name = folder.config.name
            with open(name, "w", opener=partial(os.open, mode=0o600, dir_fd=memory)) as whole:
                whole.write(json.dumps(made))
            made["process"]["env"] = []
        folder.config.write_text(json.dumps(made))
    except OSError as error:
        raise KernelError("open", error.errno or 0, path=error.filename or folder.path) from error
    return traces, learning
