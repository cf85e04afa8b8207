"""What takes the room: images with what they share, containers, volumes, layers, blobs. It is counted only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from layerstore.blobs import Blobs, Remains
from layerstore.containers import Container, Containers
from layerstore.database import Database
from layerstore.digest import ChainID, DiffID
from layerstore.driver import Layer, LayerKey
from layerstore.errors import NotFound
from layerstore.images import Image, Images
from layerstore.layers import Layers
from layerstore.layers import rows as layer_rows
from layerstore.layers.diffs import committed
from layerstore.layers.lacking import lacking
from layerstore.layers.lasting import rows as lasting
from layerstore.layers.rows import Kept
from layerstore.values import frozen
from layerstore.volumes import Volume, Volumes

__all__ = ["ContainerUsage", "DiskUsage", "ImageUsage", "LayerUsage", "VolumeUsage", "disk_usage"]


@frozen
class ImageUsage:
    """An image: bytes of its layers that other images have too (`shared`), and of those that it has alone (`unique`).

    Sizes of layers are those of their tars. `containers`: how many stand on it.
    """

    image: Image
    shared: int
    unique: int
    containers: int


@frozen
class ContainerUsage:
    """A container, and the bytes that what was written in it occupies on the disk."""

    container: Container
    size: int
    in_use: bool
    """It is mounted, or programs run in it."""


@frozen
class VolumeUsage:
    """A volume, the bytes that its files occupy on the disk, and how many containers use it."""

    volume: Volume
    size: int
    containers: int


@frozen
class LayerUsage:
    """A layer that is kept: the bytes of its tar, and of its files on the disk; None where that was not asked for.

    `images` and `containers` are how many have it, `leases` how many lasting ones keep it. It may lie in several
    stacks, and is kept once. The largest come first.
    """

    diff_id: DiffID
    size: int
    on_disk: int | None
    images: int
    containers: int
    leases: int
    lacking: int = 0
    """Bytes of its tar that have not come yet: it is lazy."""


@frozen
class DiskUsage:
    """All of it. `reclaimable` bytes are those that `prune` can free."""

    images: tuple[ImageUsage, ...]
    containers: tuple[ContainerUsage, ...]
    volumes: tuple[VolumeUsage, ...]
    layers: tuple[LayerUsage, ...]
    blobs: Remains

    @property
    def images_size(self) -> int:
        """Bytes of the tars of all layers, each counted once."""
        return sum(layer.size for layer in self.layers)

    @property
    def images_reclaimable(self) -> int:
        """Those of the layers that no container and no lease keeps: `prune(all_images=True)` removes them."""
        return sum(layer.size for layer in self.layers if not layer.containers and not layer.leases)

    @property
    def images_active(self) -> int:
        """How many images have containers."""
        return sum(image.containers > 0 for image in self.images)

    @property
    def volumes_size(self) -> int:
        """Bytes on the disk that volumes have."""
        return sum(volume.size for volume in self.volumes)

    @property
    def volumes_reclaimable(self) -> int:
        """Those of the volumes that no container uses: `volumes.prune(all=True)` removes them."""
        return sum(volume.size for volume in self.volumes if not volume.containers)

    @property
    def volumes_active(self) -> int:
        """How many volumes are used."""
        return sum(volume.containers > 0 for volume in self.volumes)

    @property
    def containers_size(self) -> int:
        """Bytes on the disk that containers have for themselves."""
        return sum(container.size for container in self.containers)

    @property
    def containers_reclaimable(self) -> int:
        """Those of the containers that neither run nor are mounted: `prune(containers=True)` removes them."""
        return sum(container.size for container in self.containers if not container.in_use)

    @property
    def containers_active(self) -> int:
        """How many containers run or are mounted."""
        return sum(container.in_use for container in self.containers)


def disk_usage(
    database: Database,
    layers: Layers,
    blobs: Blobs,
    images: Images,
    containers: Containers,
    volumes: Volumes,
    *,
    on_disk: bool,
) -> DiskUsage:
    """See `Store.disk_usage`."""
    with database.read() as tx:
        levels, leased = layer_rows.all_kept(tx), lasting.all_leased(tx)
    lacks = lacking(database, layers)
    found = [image for image in images.all() if all(chain in levels for chain in image.chain_ids)]
    boxes = _containers(containers)
    standing = Counter(box.container.image_id for box in boxes)
    stacks = {image.id: {levels[chain].key for chain in image.chain_ids} for image in found}
    users = Counter(key for keys in stacks.values() for key in keys)
    holders = Counter(key for box in boxes for key in _stack(levels, box.container.chain_id))
    leases = Counter(key for chain in leased for key in _stack(levels, chain))
    sizes = {kept.key: kept.size for kept in levels.values()}
    once = {kept.key: (chain, kept) for chain, kept in levels.items()}
    return DiskUsage(
        images=tuple(
            ImageUsage(
                image,
                shared=sum(sizes[key] for key in stacks[image.id] if users[key] > 1),
                unique=sum(sizes[key] for key in stacks[image.id] if users[key] == 1),
                containers=standing[image.id],
            )
            for image in found
        ),
        containers=tuple(boxes),
        volumes=tuple(_volumes(volumes)),
        layers=tuple(
            LayerUsage(
                kept.diff_id,
                kept.size,
                _measured(layers, levels, chain) if on_disk else None,
                images=users[kept.key],
                containers=holders[kept.key],
                leases=leases[kept.key],
                lacking=lacks.get(kept.diff_id, 0),
            )
            for chain, kept in sorted(once.values(), key=lambda pair: (-pair[1].size, pair[1].diff_id))
        ),
        blobs=blobs.remains(),
    )


def _stack(levels: Mapping[ChainID, Kept], chain: ChainID | None) -> set[LayerKey]:
    """What is kept of a layer and of those below it, as far as they are there still."""
    keys = set()
    while chain is not None and (kept := levels.get(chain)) is not None:
        keys.add(kept.key)
        chain = kept.parent
    return keys


def _containers(containers: Containers) -> list[ContainerUsage]:
    found = []
    for container in containers.all():
        try:
            found.append(
                ContainerUsage(container, container.usage().size, container.state.status in ("mounted", "running"))
            )
        except NotFound:
            continue  # removed meanwhile
    return found


def _volumes(volumes: Volumes) -> list[VolumeUsage]:
    """The largest first."""
    used = volumes.counts()
    found = [VolumeUsage(volume, volume.usage().size, used.get(volume.name, 0)) for volume in volumes.all()]
    return sorted(found, key=lambda one: (-one.size, one.volume.name))


def _measured(layers: Layers, levels: Mapping[ChainID, Kept], chain: ChainID) -> int | None:
    """What the files of a layer occupy; None if it goes away meanwhile."""
    try:
        with layers.lease([("layer", chain)], "it is being measured"):
            below = layers.stack(chain).diffs[1:]
            parents = committed(layer_rows.visible(below))
            return layers.files.usage(Layer(levels[chain].key), parents).size
    except NotFound:
        return None
