"""The command `system df`: what takes the room, and how much of it can be freed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from layerstore import reference
from layerstore.cli import output, statuses, units
from layerstore.cli.front import Arguments, Command
from layerstore.cli.listing import Column, Form, format_option, rows, show_rows
from layerstore.cli.record import Row
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.build.cache.summary import Cached, Kind
    from layerstore.cli.ps import Listed
    from layerstore.store import Store
    from layerstore.usage import ContainerUsage, DiskUsage, ImageUsage, LayerUsage, VolumeUsage

_NONE: Final = "<none>"


@frozen
class Held:
    """One container: what it occupies, and what `ps` says of it."""

    usage: ContainerUsage
    listed: Listed


_KIND_COLUMNS: Final[Mapping[str, Column[Kind]]] = {
    "Type": Column("TYPE", lambda kind: kind.name),
    "TotalCount": Column("TOTAL", lambda kind: str(kind.total)),
    "Active": Column("ACTIVE", lambda kind: str(kind.active)),
    "Size": Column("SIZE", lambda kind: units.size(kind.size, digits=4)),
    "Reclaimable": Column("RECLAIMABLE", lambda kind: _share(kind)),
}
_IMAGE_COLUMNS: Final[Mapping[str, Column[ImageUsage]]] = {
    "Repository": Column("REPOSITORY", lambda line: _name(line)[0]),
    "Tag": Column("TAG", lambda line: _name(line)[1]),
    "ID": Column("IMAGE ID", lambda line: line.image.short_id),
    "CreatedSince": Column("CREATED", lambda line: units.ago(line.image.created_at)),
    "CreatedAt": Column("CREATED AT", lambda line: units.local(line.image.created_at)),
    "Size": Column("SIZE", lambda line: units.size(line.image.size)),
    "SharedSize": Column("SHARED SIZE", lambda line: units.size(line.shared)),
    "UniqueSize": Column("UNIQUE SIZE", lambda line: units.size(line.unique)),
    "Containers": Column("CONTAINERS", lambda line: str(line.containers)),
}
_CONTAINER_COLUMNS: Final[Mapping[str, Column[Held]]] = {
    "ID": Column("CONTAINER ID", lambda line: line.usage.container.short_id),
    "Image": Column("IMAGE", lambda line: line.listed.image),
    "Command": Column("COMMAND", lambda line: line.listed.command),
    "LocalVolumes": Column("LOCAL VOLUMES", lambda line: line.listed.volume_count),
    "Size": Column("SIZE", lambda line: units.size(line.usage.size)),
    "RunningFor": Column("CREATED", lambda line: units.ago(line.usage.container.created_at)),
    "CreatedAt": Column("CREATED AT", lambda line: units.local(line.usage.container.created_at)),
    "Status": Column("STATUS", lambda line: statuses.words(line.listed.run, line.usage.container.state)),
    "Names": Column("NAMES", lambda line: line.usage.container.name),
}
_VOLUME_COLUMNS: Final[Mapping[str, Column[VolumeUsage]]] = {
    "Name": Column("VOLUME NAME", lambda line: line.volume.name),
    "Links": Column("LINKS", lambda line: str(line.containers)),
    "Size": Column("SIZE", lambda line: units.size(line.size)),
    "Driver": Column("DRIVER", lambda line: line.volume.driver),
    "Mountpoint": Column("MOUNTPOINT", lambda line: str(line.volume.mountpoint)),
}
_LAYER_COLUMNS: Final[Mapping[str, Column[LayerUsage]]] = {
    "ID": Column("LAYER ID", lambda line: units.short(line.diff_id)),
    "Size": Column("SIZE", lambda line: units.size(line.size)),
    "DiskSize": Column("ON DISK", lambda line: "N/A" if line.on_disk is None else units.size(line.on_disk)),
    "Images": Column("IMAGES", lambda line: str(line.images)),
    "Containers": Column("CONTAINERS", lambda line: str(line.containers)),
    "Leases": Column("LEASES", lambda line: str(line.leases)),
    "Fetched": Column("FETCHED", lambda line: units.fetched(line.size, line.lacking) if line.lacking else "all"),
}


def _share(kind: Kind) -> str:
    """The reclaimable bytes, and which part of all they are."""
    part = f" ({kind.reclaimable * 100 // kind.size}%)" if kind.size > 0 else ""
    return f"{units.size(kind.reclaimable, digits=4)}{part}"


def _name(line: ImageUsage) -> tuple[str, str]:
    return reference.split(line.image.tags[0]) if line.image.tags else (_NONE, _NONE)


def _usual(columns: Mapping[str, object], *left_out: str) -> str:
    return "\t".join(f"{{{{.{name}}}}}" for name in columns if name not in left_out)


@click.command("df", cls=Command)
@format_option(rows=True)
@click.option(
    "-v", "--verbose", is_flag=True, help="Show each image, container, volume and layer, and look at the layers' files"
)
@click.pass_obj
def df_command(arguments: Arguments, *, form: Form, verbose: bool) -> None:
    """Show what takes the room in the store, and how much of it `prune` can free.

    Sizes of images and layers are those of their tars, each layer counted once; of containers and volumes, and ON DISK,
    what the files occupy.
    """
    from layerstore.build.cache.summary import apart, kinds

    with arguments.open() as store:
        whole = store.disk_usage(on_disk=verbose)
        cached, usage = apart(store, whole)
        if not verbose:
            show_rows(kinds(usage, cached), _KIND_COLUMNS, form, _usual(_KIND_COLUMNS))
        elif form.template is None or form.is_table:
            output.lines(_verbose(store, usage, cached, whole.layers))
        else:
            output.lines([form.template.render(_object(store, usage, cached, whole.layers))])


def _held(store: Store, usage: DiskUsage) -> list[Held]:
    """Each container with what `ps` says of it."""
    from layerstore.cli.ps import Listed
    from layerstore.runtime import Runtime

    runtime = Runtime(store)
    runs = runtime.states()
    return [
        Held(one, Listed(runtime, one.container, runs.get(one.container.id), trunc=True)) for one in usage.containers
    ]


def _verbose(store: Store, usage: DiskUsage, cached: Cached, layers: Sequence[LayerUsage]) -> Iterator[str]:
    from layerstore.build.cache.summary import blob_kinds
    from layerstore.cli import builder

    table = Form(is_table=True)
    yield from ("Images space usage:", "")
    yield from rows(usage.images, _IMAGE_COLUMNS, table, _usual(_IMAGE_COLUMNS, "CreatedAt"))
    yield from ("", "Containers space usage:", "")
    yield from rows(_held(store, usage), _CONTAINER_COLUMNS, table, _usual(_CONTAINER_COLUMNS, "CreatedAt"))
    yield from ("", "Local Volumes space usage:", "")
    yield from rows(usage.volumes, _VOLUME_COLUMNS, table, _usual(_VOLUME_COLUMNS, "Driver", "Mountpoint"))
    yield from ("", f"Build cache usage: {units.size(cached.size, digits=4)}", "")
    yield from rows(cached.records, builder.COLUMNS, table, builder.SUMMARY)
    yield from ("", "Layers space usage:", "")
    left_out = () if any(one.lacking for one in layers) else ("Fetched",)
    yield from rows(layers, _LAYER_COLUMNS, table, _usual(_LAYER_COLUMNS, *left_out))
    if blobs := list(blob_kinds(usage)):
        yield from ("", "Blobs space usage:", "")
        yield from rows(blobs, _KIND_COLUMNS, table, _usual(_KIND_COLUMNS))


def _object(store: Store, usage: DiskUsage, cached: Cached, layers: Sequence[LayerUsage]) -> dict[str, object]:
    """What a template of `-v` sees."""
    from layerstore.build.cache.summary import blob_kinds
    from layerstore.cli import builder

    return {
        "Images": [Row(_IMAGE_COLUMNS, line) for line in usage.images],
        "Containers": [Row(_CONTAINER_COLUMNS, line) for line in _held(store, usage)],
        "Volumes": [Row(_VOLUME_COLUMNS, line) for line in usage.volumes],
        "BuildCache": [Row(builder.COLUMNS, line) for line in cached.records],
        "Layers": [Row(_LAYER_COLUMNS, line) for line in layers],
        "Blobs": [Row(_KIND_COLUMNS, line) for line in blob_kinds(usage)],
    }
