"""How a container that can be run is made: a container of the store, its volumes, and a row with its options."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from layerstore import Attachment, Container, Database, IdMap, Image, NotFound, Store, Transaction
from layerstore.runtime.engine import find
from layerstore.runtime.life import rows, sources
from layerstore.runtime.life.rows import Row
from layerstore.runtime.life.saved import from_json, to_json
from layerstore.runtime.network import Kind, parse
from layerstore.runtime.options import Isolation, RunOptions
from layerstore.runtime.said import section

__all__ = ["create", "give"]


def create(
    store: Store,
    database: Database,
    image: Image | str,
    options: RunOptions,
    *,
    name: str | None = None,
    size: int | str | None = None,
    idmap: IdMap | None = None,
) -> Container:
    """Make one, of which nothing is left if that fails. See `Runtime.create`."""
    network = parse(options.network)
    if network.kind is Kind.CONTAINER:
        store.container(network.container)
    options = sources.with_others(store, options, lambda other: _options_of(database, other))
    if options.isolation is Isolation.FULL and options.runtime is not None:
        find(store.config, options.runtime)  # without a name, whoever starts it looks: it may be mounted alone
    container = store.create_container(image, name=name, size=size, lasts=not options.remove, idmap=idmap)
    give(store, database, container, options)
    return container


def give(store: Store, database: Database, container: Container, options: RunOptions) -> None:
    """Make a new container one that can be run, with the volumes that it is to have. If that fails, it is removed."""
    try:
        row = Row(container.id, to_json(options))
        images = sorted({mount.source for mount in options.mounts if mount.kind == "image" and mount.source})

        def note(tx: Transaction) -> None:
            rows.insert(tx, row)
            rows.use_images(tx, container.id, images)

        wanted = _attachments(container, options)
        if wanted:
            store.volumes.attach(container, wanted, also=note)
        else:
            # What is gone at its end means nothing after a power cut.
            with database.write(durable=not options.remove) as tx:
                note(tx)
    except BaseException:
        with suppress(NotFound):
            container.remove(volumes=True)
        raise


def _attachments(container: Container, options: RunOptions) -> Sequence[Attachment]:
    """The volumes that options and image ask for; where something else is mounted, the image's is not made."""
    found = [
        Attachment(mount.target, mount.source, read_only=mount.read_only, no_copy=mount.no_copy)
        for mount in options.mounts
        if mount.kind == "volume"
    ]
    taken = {mount.target.rstrip("/") for mount in options.mounts}
    said = section(container.image_config).get("Volumes")
    return found + [Attachment(target) for target in sorted(said or ()) if target.rstrip("/") not in taken]


def _options_of(database: Database, container: Container) -> RunOptions:
    """What another container is run with; nothing, if it was not made to be run."""
    with database.read() as tx:
        row = rows.find(tx, container.id)
    return RunOptions() if row is None else from_json(row.options)
