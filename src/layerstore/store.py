"""The front door: what can be done with a store, passed on to the parts that do it.

How a store is opened, founded and put in order is in `opening`. What few commands need is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, Unpack

from attrs import evolve

from layerstore import config as configuration
from layerstore import facts, opening
from layerstore.blobs import Blobs
from layerstore.config import Config
from layerstore.containers import Container, Mounted
from layerstore.digest import ChainID, DiffID
from layerstore.errors import KernelError, NotFound
from layerstore.images import Image, Loaded, Removal
from layerstore.layers import LayerSource

if TYPE_CHECKING:
    from layerstore.check import Problem, Told
    from layerstore.info import Info
    from layerstore.layers import Progress
    from layerstore.migration import Migrated
    from layerstore.pruning import Pruned
    from layerstore.reference import Reference
    from layerstore.registry.mending import Mended
    from layerstore.registry.pull import Pulled
    from layerstore.registry.push import Pushed, PushOptions
    from layerstore.repositories import Repositories
    from layerstore.transfer.incoming import Blob
    from layerstore.usage import DiskUsage

__all__ = ["Store", "migrate_store", "open_store"]


def open_store(
    data_root: str | Path | None = None,
    *,
    config: Config | str | Path | None = None,
    storage_driver: str | None = None,
    storage_opts: Sequence[str] = (),
) -> Store:
    """Open the store in `data_root`, and make it if there is none.

    What is not given comes from `config`, a daemon.json or one that was read already; by default
    /etc/layerstore/daemon.json, where there is one. Raises `ConfigError`, `DriverMismatch`, `DriverNotSupported`.
    """
    if not isinstance(config, Config):
        config = configuration.load(None if config is None else Path(config))
    return Store(
        configuration.with_overrides(
            config,
            data_root=configuration.root_of(data_root),
            storage_driver=storage_driver,
            storage_opts=storage_opts,
        )
    )


def migrate_store(
    to: str,
    data_root: str | Path | None = None,
    *,
    config: Config | str | Path | None = None,
    storage_opts: Sequence[str] = (),
    progress: Progress | None = None,
) -> Migrated:
    """Convert the store in `data_root` to the driver `to`, in place: images, containers and what was written in them.

    Nobody else may have it open, and nothing of it may be mounted: `InUse`. What is not given comes from `config`, as
    with `open`; its storage-driver does not matter, and its storage-opts count for the driver that they are of.

    It can be killed, and goes on when it is called again; until its end the store is the old one, whole. Called with
    the driver that the store has, it gives up a migration that was not finished. Raises `DriverNotFound`,
    `DriverNotSupported`, `Damaged` (a layer that is not what it was), `DepthExceeded`, `ConfigError`.
    """
    from layerstore.migration import migrate

    if not isinstance(config, Config):
        config = configuration.load(None if config is None else Path(config))
    config = configuration.with_overrides(config, data_root=configuration.root_of(data_root), storage_opts=storage_opts)
    mine = tuple(opt for opt in config.storage_opts if configuration.owner_of(opt) == to)
    others = tuple(opt for opt in config.storage_opts if configuration.owner_of(opt) != to)
    if not (config.data_root / "layerstore.db").exists():
        raise NotFound(f"there is no store in {config.data_root}", remedy="Name its data-root.")
    old = evolve(config, storage_driver=None, storage_opts=others)
    new = evolve(config, storage_driver=to, storage_opts=mine)
    with Store(old) as store:
        done = migrate(store._parts, new, to, progress)
    if done.given_up is not None:
        return done
    with Store(new) as store:  # which removes the former home, as any open would now
        if facts.former_of(facts.read(store._parts.database)) is not None:
            notice = f"the home of {done.origin} could not be removed yet: the next command tries again"
            done = evolve(done, notices=(*done.notices, notice))
    return done


class Store:
    """An open store. A context manager; any number of threads may use it, and any number of processes open it."""

    def __init__(self, config: Config) -> None:
        self._parts = opening.open_parts(config)
        self._images = self._parts.images
        self._containers = self._parts.containers
        self._layers = self._parts.layers

    @property
    def config(self) -> Config:
        """The configuration that it was opened with."""
        return self._parts.config

    @property
    def data_root(self) -> Path:
        """The folder that holds it."""
        return self.config.data_root

    @property
    def id(self) -> str:
        """Its own name: 32 hex digits, the same for as long as it exists."""
        return self._parts.known["id"]

    @property
    def driver_name(self) -> str:
        """The driver that keeps its layers."""
        return self._parts.known["driver"]

    @property
    def blobs(self) -> Blobs:
        """Blobs by their digest, as a registry has them: which holds which layer, what can be given out as it came."""
        return self._parts.blobs

    @property
    def repositories(self) -> Repositories:
        """What a registry would have, under the names of images: manifests, tags and blobs, as they were pushed."""
        from layerstore.repositories import Repositories

        return Repositories(self._parts.database, self._images, self._layers, self.blobs)

    # --- images in and out ---

    def load(
        self,
        source: str | Path | BinaryIO,
        *,
        only: Sequence[str] = (),
        names: Sequence[str] = (),
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> list[Loaded]:
        """Load the images of an archive: docker-archive or OCI layout; a tar, a folder, a stream, or "-".

        "-" is standard input. Each image that is returned says which names the archive gave it (`names`), and which of
        them were taken from another image (`taken`); an archive that names none leaves the tags as they are.

        `only`: load these images of the archive, given by a name, an ID, or the beginning of one; one that is given by
        a name comes under that name alone. `names`: call the image so, and not as the archive does; there must be one
        image then, or `only` must choose one. `platform` (`linux/arm64`) chooses where an image is there for several.

        `docker://NAME` is an image of a registry: it is pulled (`pull`), under its name or under `names`.

        Layers that a file or folder lacks come from daemon.json's remotes, if it names any.

        Raises `InvalidArchive`, `NotFound` and `Ambiguous`, and leaves the store as it was.
        """
        if isinstance(source, str) and source.startswith("docker://"):
            from layerstore.registry.pull import load

            parts = (self._images, self.blobs)
            return [load(source, self.config, *parts, only=only, names=names, platform=platform, progress=progress)]
        from layerstore import transfer

        return transfer.load(
            source,
            images=self._images,
            layers=self._layers,
            only=only,
            names=names,
            platform=platform,
            progress=progress,
            elsewhere=self._elsewhere if self.config.remotes else None,
        )

    def _elsewhere(self, layer: Blob) -> LayerSource:
        from layerstore.registry.ways import source_of

        return source_of(layer, self.config, self.blobs)

    def save(
        self,
        images: Image | str | Sequence[Image | str],
        target: str | Path | BinaryIO,
        *,
        format: str = "docker-archive",
        folder: bool | None = None,
        compression: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Save images to an archive, each layer bit for bit as it came in.

        An image that is given by a name is saved under that name, else under all it has. `docker://NAME` is a target,
        too: the image is pushed, under that name.
        """
        if isinstance(target, str) and target.startswith("docker://"):
            from layerstore.registry import push

            parts = (self._images, self._layers, self.blobs)
            push.save(images, target, self.config, *parts, compression=compression, progress=progress)
            return
        from layerstore import transfer

        chosen, names = self._images.given([images] if isinstance(images, Image | str) else images)
        with self._images.lease(chosen):
            transfer.save(
                chosen,
                names,
                target,
                layers=self._layers,
                format=format,
                folder=folder,
                compression=compression,
                progress=progress,
            )

    def push(
        self,
        name: str,
        *,
        compression: str | None = None,
        progress: Progress | None = None,
        done: Callable[[str, str], object] | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Pushed:
        """Give an image to the registry that its name says, under that tag (`latest` where it says none).

        What the registry has is not sent. What was pulled goes back to the byte, with the manifest that it had, as far
        as its blobs can be had: see the guide. Else, or where `compression` ("gzip", "zstd" or "none") asks for another
        one, layers are compressed anew, the same each time. Broken off at any moment, the next push sends what is left.

        `done` is told what became of each layer, in docker's words; `told` is given lines for a person: waits, and
        warnings of the registry. Both come from any thread. Raises `NotFound`, `RegistryError`.
        """
        options: PushOptions = {"compression": compression, "progress": progress, "done": done, "told": told}
        [pushed] = self.push_all(name, only_one=True, **options)
        return pushed

    def push_all(self, name: str, *, only_one: bool = False, **options: Unpack[PushOptions]) -> Iterator[Pushed]:
        """`push` for every tag that this store has of a name, one after the other, as the result is iterated."""
        from layerstore.registry.push import push

        return push(name, self.config, self._images, self._layers, self.blobs, only_one=only_one, **options)

    def pull(
        self,
        name: str,
        *,
        platform: str | None = None,
        progress: Progress | None = None,
        begun: Callable[[Reference], object] | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Pulled:
        """Get an image from a registry: `debian:12`, `host:5000/team/app`, `debian@sha256:…`.

        What the name means in the registry, it means here from then on. What the store has is not fetched again; what
        came of a pull that broke off is there for the next one. It is durable when this returns. Needs the extra
        `registry`.

        `platform` (`linux/arm64`) chooses where an image is there for several; the default is this machine's.
        `progress` is told the bytes of blobs, `told` lines for a person: waits, and warnings of the registry. `begun`
        is called when the registry has said that there is such an image.

        Raises `NotFound`, `RegistryError` with all that derive from it, `InvalidArchive`, `DigestMismatch`, and leaves
        the store as it was.
        """
        from layerstore.registry.pull import pull

        parts = (self._images, self.blobs)
        return pull(name, self.config, *parts, platform=platform, progress=progress, begun=begun, told=told)

    def pull_all(
        self,
        name: str,
        *,
        platform: str | None = None,
        progress: Progress | None = None,
        begun: Callable[[Reference], object] | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Iterator[Pulled]:
        """Pull all tags of a repository, one after the other: see `pull`."""
        from layerstore.registry.pull import pull_all

        parts = (self._images, self.blobs)
        return pull_all(name, self.config, *parts, platform=platform, progress=progress, begun=begun, told=told)

    def import_tar(
        self,
        source: str | Path | BinaryIO,
        reference: str | None = None,
        *,
        message: str = "",
        instructions: Sequence[str] = (),
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Make an image of one layer from the tar of a root filesystem; "-" is standard input.

        `instructions` are those of a Dockerfile (`CMD`, `ENV`, ...), for its configuration.
        """
        from layerstore.transfer.importing import import_tar

        return import_tar(
            source,
            reference,
            images=self._images,
            layers=self._layers,
            message=message,
            instructions=instructions,
            platform=platform,
            progress=progress,
        )

    def add(
        self,
        config: bytes,
        sources: Sequence[LayerSource],
        names: Sequence[str] = (),
        *,
        progress: Progress | None = None,
    ) -> Loaded:
        """Add an image of layers that one has, however they came: all of it, or nothing.

        `config` is the image's (OCI image spec, config.md), to the byte; there is one source for each of its DiffIDs,
        in order, and those of layers that the store has already are not opened. Raises `InvalidArchive`,
        `DigestMismatch`, `DepthExceeded`.
        """
        return self._images.add(config, sources, names, progress=progress)

    def write_layer(self, layer: ChainID | DiffID | str, write: Callable[[memoryview], object]) -> None:
        """Write the tar of a layer, given by its ChainID or DiffID, byte for byte as it came in.

        What `write` is given is valid until it returns. The DiffID is verified: `Damaged` at the end means that what
        was written is worthless. Raises `NotFound`.
        """
        self._layers.give_out(self._layers.named(layer), write)

    # --- images and containers ---

    def image(self, ref: str) -> Image:
        """The image of a name, an ID or the beginning of one. Raises `NotFound`, `Ambiguous`."""
        return self._images.get(ref)

    def images(self) -> list[Image]:
        """All images, the newest first."""
        return self._images.all()

    def tag(self, ref: str, name: str) -> None:
        """Give an image one more name; an image that has it loses it."""
        self._images.tag(ref, name)

    def remove_image(self, ref: str, *, force: bool = False) -> list[Removal]:
        """Remove an image, or one of its several names. Raises `InUse`, which says by whom and how to free it."""
        return self._images.remove(ref, force=force)

    def container(self, ref: str) -> Container:
        """The container of a name, an ID or the beginning of one. Raises `NotFound`, `Ambiguous`."""
        return self._containers.get(ref)

    def containers(self) -> list[Container]:
        """All containers, the newest first."""
        return self._containers.all()

    def create_container(
        self, image: Image | str | None = None, *, name: str | None = None, size: int | str | None = None
    ) -> Container:
        """Make a container on an image, or on nothing. `size` limits what can be written in it."""
        return self._containers.create(image, name=name, size=size)

    def mounted(self) -> list[tuple[Container, Path]]:
        """The containers that are mounted, and where."""
        return self._containers.mounted()

    # --- the whole ---

    def check(self, *, content: bool = False, progress: Told | None = None) -> list[Problem]:
        """What is missing, damaged or too much. `content`: read every byte of every layer too."""
        return list(self.check_iter(content=content, progress=progress))

    def check_iter(self, *, content: bool = False, progress: Told | None = None) -> Iterator[Problem]:
        """`check`, one by one as they are found."""
        from layerstore.check import problems

        parts = self._parts
        return problems(
            parts.database,
            parts.session.staging,
            parts.layers,
            parts.storage.files,
            parts.blobs,
            lambda: [(row.name, row.layer) for row in self._containers.every()],
            content=content,
            progress=progress,
        )

    def mend(
        self, layers: Iterable[str], *, remotes: Sequence[str] = (), progress: Progress | None = None
    ) -> Iterator[Mended]:
        """Fetch damaged layers (DiffIDs, as `check` tells them) anew, and put them in their places; one by one.

        From blobs that are kept, from `remotes` and daemon.json's, and from registries. Each tells its own error.
        """
        from layerstore.registry.mending import mend

        return mend(layers, self._images, self._layers, self.blobs, self.config, remotes, progress=progress)

    def prune(
        self,
        *,
        all_images: bool = False,
        containers: bool = False,
        images: bool = True,
        fits: Callable[[Image | Container], bool] | None = None,
    ) -> Pruned:
        """Remove images without a name, and layers that nothing needs.

        `containers`: every container that is not mounted, too. `all_images`: every image that no container needs.
        `images`: False spares all images. `fits`: only those images and containers of which this is true.
        """
        from layerstore import pruning

        return pruning.prune(
            self._parts.session,
            self._layers,
            self.blobs,
            self._images,
            self._containers,
            self.repositories,
            all_images=all_images,
            prune_containers=containers,
            prune_images=images,
            fits=fits,
        )

    def disk_usage(self, *, on_disk: bool = False) -> DiskUsage:
        """What takes the room: images with what they share, containers, layers, kept and partial blobs.

        `on_disk`: what the files of each layer occupy, too; with most drivers each of them is looked at for that.
        """
        from layerstore import usage

        return usage.disk_usage(
            self._parts.database, self._layers, self.blobs, self._images, self._containers, on_disk=on_disk
        )

    def info(self) -> Info:
        """What there is, how it is kept, and on what kind of host."""
        from layerstore.info import gather

        return gather(self._parts)

    def wait(self) -> None:
        """Wait until the files of what was removed are deleted, which happens in the background."""
        self._parts.session.wait()

    def close(self) -> None:
        """Let go of the mounts of this process, wait for what is being deleted, and close the database."""
        parts = self._parts
        if parts.session.closed:
            return
        with ExitStack() as last:
            last.callback(parts.use.release)
            if parts.reserve is not None:
                last.callback(parts.reserve.make)
            last.callback(parts.database.close)
            last.callback(parts.session.close)
            last.callback(parts.storage.close)
            for mounted in list(self._containers.held):
                last.callback(self._let_go, mounted)

    def _let_go(self, mounted: Mounted) -> None:
        try:
            mounted.unmount()
        except KernelError:
            facts.ask_for_recovery(self._parts.database)  # somebody is in it: the next `open` looks again
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
