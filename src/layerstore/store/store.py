"""The door itself: what there is in a store, its containers, and what is done to the whole of it.

How a store is opened, founded and put in order is in `opening`. What few commands need is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from layerstore import facts, opening
from layerstore.config import Config
from layerstore.errors import FULL, KernelError, NotFound
from layerstore.locks import of_program
from layerstore.store.stacks import Stacks
from layerstore.store.traffic import Traffic
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.blobs import Blobs
    from layerstore.check import Problem
    from layerstore.containers import Checkpoint, Container, Containers, Mounted, Snapshot, Snapshots
    from layerstore.containers.snapshots import Record
    from layerstore.database import Database
    from layerstore.database.schema import Tables
    from layerstore.digest import ChainID, DiffID
    from layerstore.errors import LayerstoreError
    from layerstore.images import Image, Removal, Scratch
    from layerstore.info import Info
    from layerstore.kernel.namespaces import IdMap
    from layerstore.layers import Progress
    from layerstore.mending import Doomed, Mended, Repair, dropping, repairing
    from layerstore.pruning import Pruned
    from layerstore.repositories import Repositories
    from layerstore.trees import Tree
    from layerstore.usage import DiskUsage
    from layerstore.volumes import Volume, Volumes


@in_words("the store in {0.data_root}")
class Store(Traffic, Stacks):
    """An open store. A context manager; any number of threads may use it, and any number of processes open it."""

    def __init__(self, config: Config) -> None:
        super().__init__(opening.open_parts(config, self))

    @property
    def _containers(self) -> Containers:
        return self._parts.containers

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
    def version(self) -> str:
        """Another text after anything was written to the database, by whomever: what was read before may be old then.

        It means something to this open store alone, and says nothing of processes that end, nor of files.
        """
        return self._parts.database.version()

    @property
    def blobs(self) -> Blobs:
        """Blobs by their digest, as a registry has them: which holds which layer, what can be given out as it came."""
        return self._parts.blobs

    @property
    def repositories(self) -> Repositories:
        """What a registry would have, under the names of images: manifests, tags and blobs, as they were pushed."""
        from layerstore.repositories import Repositories

        return Repositories(self._parts.database, self._images, self._layers, self.blobs)

    def tables(self, tables: Tables) -> Database:
        """The database, with the tables of a program that stands on this library in it: see `Tables`.

        What it remembers lies in transactions (`read`, `write`) with the rows that it speaks of. Raises
        `LayerstoreError` if a later version of that program has made the tables.
        """
        self._parts.database.provide(tables)
        return self._parts.database

    def lock(self, name: str, *, shared: bool = False, wait: bool = True) -> AbstractContextManager[bool]:
        """A lock of a program that stands on this library, among all threads and processes that have this store.

        It is held while inside, and dies with its holder, however that ends; it is not re-entrant. The name should
        begin with the program's. `wait`: False asks for it at once, and tells whether it was to be had; with
        `shared`, several hold it. Who needs two takes them in one order everywhere.
        """
        slot = of_program(name)
        return self._parts.locks.one(slot, shared=shared) if wait else self._parts.locks.at_once(slot, shared=shared)

    def is_locked(self, name: str) -> bool:
        """Has anybody the lock of this name now? It is not taken."""
        return self._parts.locks.is_held(of_program(name))

    # --- images and containers ---

    def scratch(self, platform: str | None = None) -> Scratch:
        """Nothing, to build an image on: `store.scratch().append("app/")`. `platform` is what for (`linux/arm64`)."""
        from layerstore.images import Scratch

        return Scratch(platform, self._images)

    def squash(self, ref: Image | str, *, since: Image | str | None = None, tags: Sequence[str] = ()) -> Image:
        """Make an image whose layers are one: all of them, or those above `since`, an image it was built on or a layer.

        It shows the same tree, with the same config and history; steps whose layers went into the new one have none.
        What one layer brings and another removes is not in it. A layer is given by its ChainID or DiffID. Done again,
        it is the same image. One that has no two such layers is returned itself. Raises `NotFound`, `ConfigError`.
        """
        return self._images.squash(ref, since, tags)

    def image(self, ref: str) -> Image:
        """The image of a name, an ID or the beginning of one. Raises `NotFound`, `Ambiguous`."""
        return self._images.get(ref)

    def images(self) -> list[Image]:
        """All images, the newest first."""
        return self._images.all()

    def tag(self, ref: str, name: str) -> None:
        """Give an image one more name; an image that has it loses it."""
        self._images.tag(ref, name)

    def untag(self, name: str) -> Removal:
        """Take a name away. The image stays, even if it was its last one, until it is removed or pruned.

        Raises `NotFound`.
        """
        return self._images.untag(name)

    def lacking(self) -> Mapping[DiffID, int]:
        """The layers that are lazy (`pull`), and how many bytes of their tars have not come yet."""
        from layerstore.layers.lacking import lacking

        return lacking(self._parts.database, self._parts.storage)

    def remove_image(self, ref: str, *, force: bool = False) -> list[Removal]:
        """Remove an image, or one of its several names. Raises `InUse`, which says by whom and how to free it."""
        try:
            return self._images.remove(ref, force=force)
        except NotFound:
            self._parts.attached.refuse_removal(ref)
            raise

    def container(self, ref: str) -> Container:
        """The container of a name, an ID or the beginning of one. Raises `NotFound`, `Ambiguous`."""
        return self._containers.get(ref)

    def containers(self) -> list[Container]:
        """All containers, the newest first."""
        return self._containers.all()

    def create_container(
        self,
        image: Image | str | None = None,
        *,
        name: str | None = None,
        size: int | str | None = None,
        lasts: bool = True,
        on: ChainID | Snapshot | None = None,
        idmap: IdMap | None = None,
        record: Record | None = None,
    ) -> Container:
        """Make a container on an image, or on nothing. `size` limits what can be written in it.

        `lasts`: False for one that is removed soon, and that a power cut may take: nothing is synced for it. `on`: a
        layer that it stands on, with all below that, or a snapshot, instead of an image. `record` is given the
        transaction in which it appears, and its ID: see `snapshots`.

        `idmap`: it is mounted for a user namespace with these IDs: an owner of its layers, and what is written by that
        owner, is seen as the ID outside, and nothing is copied for it. What is committed has the IDs within. Raises
        `ConfigError` for a map without root, and where this process is itself in a user namespace; a mount raises
        `DriverNotSupported` where the driver or its filesystem cannot (mount_setattr(2)).
        """
        return self._containers.create(image, name=name, size=size, lasts=lasts, on=on, idmap=idmap, record=record)

    @property
    def snapshots(self) -> Snapshots:
        """What containers were when they ended (`Container.end`), for programs that stand on this library.

        Who makes one remembers what it is for in tables of its own (`tables`), in the transaction in which it comes: so
        does who makes a container for somebody else. A row that refers to a container keeps it from all but its owner.
        """
        return self._containers.snapshots

    def claims(self) -> Mapping[str, str]:
        """The containers that tables of upper floors refer to, by their IDs, and whose each is: `build`, `containerd`.

        To people they are no containers of theirs: `ps` shows them when it is asked to.
        """
        from layerstore.containers import rows

        with self._parts.database.read() as tx:
            return rows.claims(tx)

    def browse(self, of: Image | Container | Checkpoint | str) -> AbstractContextManager[Tree]:
        """While inside: the tree of an image, container or checkpoint, read without a mount, and so without root.

            with store.browse("debian:12") as tree:
                print(tree.read("/etc/os-release").decode())

        A name is as for `subject`. Meanwhile nothing of it is removed. Of a container it shows what there is at each
        moment. Raises `NotFound`, `Ambiguous`, `Damaged`.
        """
        return (self.subject(of) if isinstance(of, str) else of).browse()

    def subject(self, name: str) -> Image | Container | Checkpoint:
        """The container of a name, its checkpoint `CONTAINER@LABEL`, or else the image. Raises `NotFound`, `Ambiguous`,
        `InvalidReference`."""
        container, at, label = name.rpartition("@")
        is_checkpoint = bool(at) and ":" not in label
        try:
            held = self.container(container if is_checkpoint else name)
        except NotFound:
            return self.image(name)
        return held.checkpoint_named(label) if is_checkpoint else held

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints of all containers, each container's together, the oldest of them first."""
        return self._containers.checkpoints()

    def mounted(self) -> list[tuple[Container, Path]]:
        """The containers that are mounted, and where."""
        return self._containers.mounted()

    @property
    def volumes(self) -> Volumes:
        """Volumes, and what containers have of them."""
        return self._containers.volumes

    # --- the whole ---

    def check(
        self, *, content: bool = False, progress: Progress | None = None, rate: int | None = None
    ) -> list[Problem]:
        """What is missing, damaged or too much. `content`: read every byte of every layer too.

        `rate`: no more bytes a second than this are read for that. `progress` is told the bytes of each layer's tar.
        """
        return list(self.check_iter(content=content, progress=progress, rate=rate))

    def check_iter(
        self,
        *,
        content: bool = False,
        progress: Progress | None = None,
        rate: int | None = None,
    ) -> Iterator[Problem]:
        """`check`, one by one as they are found. `rate`: at most so many bytes a second are read for `content`."""
        from layerstore.check import Rate, problems

        parts = self._parts
        return problems(
            self.data_root,
            parts.database,
            parts.session.staging,
            parts.layers,
            parts.storage.files,
            parts.blobs,
            lambda: [(row.name, row.layer) for row in self._containers.every()],
            self._volumes_if_room(),
            None if parts.reserve is None else parts.mirror,
            content=content,
            progress=progress,
            rate=Rate(rate),
        )

    def _volumes_if_room(self) -> Volumes | None:
        try:
            return self.volumes
        except KernelError as error:
            if error.errno not in FULL:
                raise  # else there is no room for their tables, so there are none
            return None

    def repair(
        self, problems: Iterable[Problem], *, sources: Sequence[str] = (), progress: Progress | None = None
    ) -> Iterator[Repair]:
        """Do what can be done about problems that `check` found; one by one, each with how, or with its error.

        A damaged layer is made anew: of its own files and equal ones of the store, of `sources` (paths of archives, of
        folders with an OCI layout or of a layer's tar; remotes), of daemon.json's remotes, and of the registries where
        it was seen. It is verified by its DiffID. A container that is mounted goes on with the old files until it is
        mounted anew. Garbage is removed; what this store has not made is not. Raises `ConfigError`, `InvalidArchive`
        and `NotFound` for what is no source, before anything is done, and `ReadOnlyStore`.
        """
        from layerstore.mending import repairing

        return repairing.repair(list(problems), self._mended, sources, progress=progress)

    @property
    def _mended(self) -> repairing.RepairedStore:
        from layerstore.mending import repairing

        return repairing.RepairedStore(
            self.config, self._layers, self.blobs, self._volumes_if_room(), self._parts.mirror
        )

    def doomed(self, problems: Iterable[Problem]) -> list[Doomed]:
        """What stands on that which problems are about, and goes with it (`drop`). Nothing is done."""
        from layerstore.mending import dropping

        return dropping.doomed(problems, self._held)

    def drop(self, things: Sequence[Doomed]) -> Iterator[tuple[Doomed, LayerstoreError | None]]:
        """Remove what cannot be repaired: what `doomed` has told. One by one, each with why it could not be.

        Images go with all their names, containers with what was written in them, even mounted or running ones.
        """
        from layerstore.mending import dropping

        return dropping.drop(things, self._held)

    @property
    def _held(self) -> dropping.Holdings:
        from layerstore.mending import dropping

        return dropping.Holdings(self._layers, self._images, self._containers, self._volumes_if_room(), self.blobs)

    def mend(
        self, layers: Iterable[str], *, remotes: Sequence[str] = (), progress: Progress | None = None
    ) -> Iterator[Mended]:
        """Have damaged layers (DiffIDs, as `check` tells them) taken in anew; one by one, each with its own error.

        `remotes` are sources as those of `repair`, which does more.
        """
        from layerstore.mending import mend, repairing

        with ExitStack() as stack:
            asked, found = repairing.sources(self._mended, remotes, stack)
            yield from mend(layers, self._layers, asked, found, progress=progress)

    def prune(
        self,
        *,
        all_images: bool = False,
        containers: bool = False,
        images: bool = True,
        volumes: bool = False,
        fits: Callable[[Image | Container | Volume], bool] | None = None,
    ) -> Pruned:
        """Remove images without a name, and layers that nothing needs.

        `containers`: every container that is not mounted, too. `all_images`: every image that no container needs.
        `images`: False spares all images. `volumes`: every anonymous volume that no container uses, too. `fits`: only
        those images, containers and volumes of which this is true.
        """
        from layerstore import pruning

        return pruning.prune(
            self._parts.session,
            self._layers,
            self.blobs,
            self._images,
            self._containers,
            self.repositories,
            self.volumes if volumes else None,
            all_images=all_images,
            prune_containers=containers,
            prune_images=images,
            fits=fits,
        )

    def disk_usage(self, *, on_disk: bool = False) -> DiskUsage:
        """What takes the room: images with what they share, containers, volumes, layers, kept and partial blobs.

        `on_disk`: what the files of each layer occupy, too; with most drivers each of them is looked at for that.
        """
        from layerstore import usage

        return usage.disk_usage(
            self._parts.database,
            self._layers,
            self.blobs,
            self._images,
            self._containers,
            self.volumes,
            on_disk=on_disk,
        )

    def info(self) -> Info:
        """What there is, how it is kept, and on what kind of host."""
        from layerstore.info import gather

        return gather(self._parts)

    def wait(self) -> None:
        """Wait until the files of what was removed are deleted, which happens in the background."""
        if self._parts.made("containers"):
            self._containers.merging.wait()
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
            if parts.made("storage"):
                last.callback(parts.storage.close)
            if parts.made("containers"):
                last.callback(parts.containers.merging.close)
                for mounted in list(parts.containers.held):
                    last.callback(self._let_go, mounted)

    def _let_go(self, mounted: Mounted) -> None:
        try:
            mounted.unmount()
        except KernelError:
            # Somebody is in it: the next `open` looks again.
            facts.ask_for_recovery(self._parts.database, self._parts.session.stay)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session = self._parts.session
        if kind is not None and not issubclass(kind, Exception) and session.begun and not session.closed:
            # An interrupt may have come between a row that went and its files, whose session ends in order.
            facts.ask_for_recovery(self._parts.database, session.stay)
        self.close()
