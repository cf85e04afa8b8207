"""Containers: a writable layer on an image, or on nothing, with a name.

Making one is a driver's `create` and a row; removing one is a row and a rename, and its files go later. Whatever
happens to one container happens under its lock, so that two processes never mount, commit and remove it at once. Its
mounts are in `mounting`, how it becomes an image in `commit`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from layerstore import reference
from layerstore.containers import rows, wishes
from layerstore.containers.checkpoint import Checkpoint
from layerstore.containers.comparing import Comparing, between
from layerstore.containers.container import Container, ContainerState
from layerstore.containers.mounted import Mounted
from layerstore.containers.mounting import Mounts
from layerstore.containers.names import require_label, valid
from layerstore.containers.rows import Resident, Row
from layerstore.containers.running import Runner, runner_of
from layerstore.containers.snapshots import Record, Snapshot, Snapshots, require, standing_of
from layerstore.driver import Layer, LayerKey, State
from layerstore.errors import ConfigError, DriverFailed, InUse, KernelError, LayerstoreError, NotFound, StoreClosed
from layerstore.images import Image, Images
from layerstore.images import rows as image_rows
from layerstore.kernel.mounts import boot_id, mounts_below
from layerstore.kernel.namespaces import IdMap
from layerstore.layers import Layers, Storage, StoredLayer
from layerstore.layers import Record as LayerRecord
from layerstore.layers import rows as layer_rows
from layerstore.layers.diffs import committed
from layerstore.locks import Locks, of_container
from layerstore.segments import Below, CheckpointRow
from layerstore.segments import rows as segment_rows
from layerstore.segments.merging import Merging

if TYPE_CHECKING:
    from layerstore.containers.branching import Branching, Quiet
    from layerstore.containers.process import Process
    from layerstore.database import Database, Transaction
    from layerstore.digest import ChainID, ImageID
    from layerstore.kernel.processes.spawning import Child
    from layerstore.session import Session
    from layerstore.volumes import Volumes


class Containers:
    """The containers of a store."""

    def __init__(
        self,
        database: Database,
        locks: Locks,
        session: Session,
        storage: Storage,
        layers: Layers,
        images: Images,
        volumes: Path,
    ) -> None:
        """`volumes` is the folder that holds them."""
        self.session = session
        self.storage = storage
        self.images = images
        self.mounts = Mounts(database, session, storage, partial(layers.drop, quietly=True))
        self.merging = Merging(database, session, storage, layers)
        self.held: set[Mounted] = set()
        """What this process has mounted and not yet let go of."""
        self._database = database
        self._locks = locks
        self._layers = layers
        self._volumes = volumes
        self._runner: Callable[[], tuple[Any, Runner]] | None = None

    def belong_to(self, store: Any) -> None:
        """Be told which store's they are: what runs programs in them is given it."""
        self._runner = runner_of(store, self._database)

    def runner(self) -> tuple[Any, Runner]:
        """The store, and what runs programs in its containers. Raises `CannotRun`, `StoreClosed`."""
        if self._runner is None:
            raise StoreClosed("these containers are of no open store")
        return self._runner()

    @cached_property
    def volumes(self) -> Volumes:
        """The volumes that they can have."""
        from layerstore.volumes import Volumes  # few commands need them

        return Volumes(self._volumes, self._database, self._locks, self.session)

    def lock(self, container: str, *, shared: bool = False) -> AbstractContextManager[object]:
        """While inside, nobody else changes this container; `shared`: others may look at it."""
        return self._locks.one(of_container(container), shared=shared)

    def create(
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
        """See `Store.create_container`."""
        if image is not None and on is not None:
            raise ConfigError("a container stands on an image or on something else", remedy="Give one of them.")
        if name is not None:
            name = valid(name)
        limit, ids = wishes.limit_of(size), wishes.ids_of(idmap)
        self._database.require_writable()
        wanted = image.id if isinstance(image, Image) else image
        lent = self.images.lent(wanted)
        with self._database.read() as tx:
            rows.require_new(tx, name)
            found, tag = lent or ((None, None) if wanted is None else image_rows.resolve(tx, wanted))
            segment, top = (None, image_rows.top_of(tx, found)) if found is not None else standing_of(tx, on)
            below = segment_rows.below(tx, segment, top).layers
        if isinstance(image, Image) and image.tags:
            tag = reference.normalise(image.tags[0])
        key = self.session.new_key()
        try:
            try:
                self.storage.driver.create(Layer(key, State.WRITABLE), below, size=limit)
            except (KernelError, DriverFailed):
                with self._database.read() as tx:
                    if found is not None:
                        image_rows.resolve(tx, found)  # removed meanwhile?
                    else:
                        require(tx, on)
                self.storage.files.require(below)
                raise
            row = Row(
                id=os.urandom(32).hex(),
                name=name or "",
                image_id=found,
                image_name=tag or "",
                chain_id=top,
                key=key,
                size=limit,
                created=time.time_ns(),
                boot=boot_id(),
                touched=False,
                segment=segment,
                ids=ids,
            )
            with self._database.write(durable=lasts) as tx:
                require(tx, on)
                row = rows.insert(tx, row)
                if record is not None:
                    record(tx, row.id)
        except BaseException:
            self._layers.drop([key], quietly=True)
            raise
        return Container(self, row, tag)

    def get(self, ref: str) -> Container:
        """The container of this name, ID, or beginning of an ID. Raises `NotFound`, `Ambiguous`."""
        with self._database.read() as tx:
            return self._container(rows.resolve(tx, ref))

    def all(self) -> list[Container]:
        """All containers, the newest first, each with its `state` of now."""
        return self._listed(rows.all_seen)

    def mounted(self) -> list[tuple[Container, Path]]:
        """The containers that are mounted, and where."""
        found = self._listed(rows.mounted)
        return [(container, place) for container in found if (place := container.state.mountpoint) is not None]

    def count_mounted(self, tx: Transaction) -> int:
        """How many are mounted."""
        return sum(self.mounts.mountpoint_of(place) is not None for place in rows.places(tx).values())

    def _listed(self, list_them: Callable[[Transaction], list[rows.Seen]]) -> list[Container]:
        """Containers with all that a list shows of them, from one read: any of them may go meanwhile."""
        with self._database.read() as tx:
            found = list_them(tx)
            places, owners, residents = rows.places(tx), rows.owners(tx), rows.all_residents(tx)
            needed = {seen.row.image_id for seen in found if seen.row.image_id is not None}
            images = self.images.those(tx, needed)
        containers = []
        for seen in found:
            row = seen.row
            state = self._state(row, places.get(row.id), owners.get(row.id, ()), images, residents.get(row.id, ()))
            containers.append(Container(self, row, seen.tag, state))
        return containers

    def state_of(self, container: str) -> tuple[Row, str | None, ContainerState]:
        """A container's row, the tag that it was made from, and its state. Raises `NotFound`."""
        with self._database.read() as tx:
            seen = rows.seen(tx, container)
            row, place = seen.row, rows.place_of(tx, container)
            owners, residents = list(rows.holds_of(tx, container).values()), rows.residents(tx, container)
            images = self.images.those(tx, () if row.image_id is None else (row.image_id,))
        return row, seen.tag, self._state(row, place, owners, images, residents)

    def _state(
        self,
        row: Row,
        place: rows.Place | None,
        owners: Sequence[str | None],
        images: Mapping[ImageID, Image],
        residents: Sequence[Resident],
    ) -> ContainerState:
        mountpoint = self.mounts.mountpoint_of(place)
        runs = any(resident.identity.is_alive for resident in residents)
        idle = "unmounted" if row.touched or residents else "created"
        return ContainerState(
            status="running" if runs else idle if mountpoint is None else "mounted",
            mountpoint=mountpoint,
            mounts=self.mounts.alive(owners),
            image=None if row.image_id is None else images[row.image_id],
        )

    def rename(self, container: str, name: str) -> None:
        """`Container.rename`."""
        name = valid(name)
        with self._database.write() as tx:
            rows.rename(tx, container, name)

    def commit(self, row: Row, wish: wishes.CommitWish) -> Image:
        """`Container.commit`, for a caller that has the container's lock."""
        from layerstore.containers.commit import Commit
        from layerstore.containers.sealing import Sealing

        parts = (self._database, self.session, self.storage, self._layers, self.mounts)
        return Commit(Sealing(*parts, row), self.images, wish).run()

    def seal(self, row: Row, *, latest: int | None, record: LayerRecord | None) -> StoredLayer | None:
        """`Container.seal`, for a caller that has the container's lock."""
        from layerstore.containers.sealing import Sealing, seal

        parts = (self._database, self.session, self.storage, self._layers, self.mounts)
        return seal(Sealing(*parts, row), latest=latest, record=record)

    def remove(
        self,
        container: str,
        *,
        force: bool = False,
        volumes: bool = False,
        lasts: bool = True,
        record: Record | None = None,
    ) -> None:
        """`Container.remove`."""
        with self.lock(container):
            with self._database.read() as tx:
                row = rows.find(tx, container)
                if force and record is None:
                    rows.require_unclaimed(tx, container)  # before anything is killed
            if force:
                from layerstore.containers.launching import kill_all

                kill_all(self.mounts.residents, row)
                if self.mounts.is_mounted(row):
                    self.mounts.end(row)
            self.mounts.require_unmounted(row, goes=True)
            try:
                gone = self._delete(row, record, volumes=volumes, durable=lasts)
            except _MoreGoes:
                gone = self._delete(row, record, volumes=volumes, durable=True)
            self.storage.files.drop_container(row.layer)
            self.storage.files.drop(committed(gone.layers))
            if gone.segments:  # there may be thousands
                self.merging.later(partial(self._layers.drop, gone.segments, quietly=True))
            if volumes:
                self.volumes.clear(gone.volumes)

    def _delete(self, row: Row, record: Record | None, *, volumes: bool, durable: bool) -> _Gone:
        """Delete the rows of a container, and what goes with it; not durably if nothing does, else `_MoreGoes`.

        Its own files may be gone while its row is back: it was to be removed, and is once more. Those of others must
        not.
        """
        shared = self.volumes if volumes else None
        with self._database.write(durable=durable) as tx:
            if record is not None:
                record(tx, row.id)
            left = [] if shared is None else shared.leave(tx, row.id)
            segments = segment_rows.delete_checkpoints(tx, segment_rows.checkpoints(tx, row.id))
            rows.delete(tx, row.id)
            segments += segment_rows.release(tx, row.segment)
            keys = layer_rows.release(tx, row.chain_id)[1]
            if not durable and (left or segments or keys):
                raise _MoreGoes
        return _Gone(left, segments, keys)

    def prune(self, fits: Callable[[Container], bool] | None = None) -> tuple[list[str], int]:
        """Remove every container that is neither mounted nor running, or those of which `fits` is true.

        Their IDs, and the bytes that they occupied, as far as that could be told: each costs a look at its tree.
        """
        gone, size = [], 0
        for container in self.all():
            state = container.state
            is_idle = state.status != "running" and state.mountpoint is None and not state.mounts
            if is_idle and (fits is None or fits(container)):
                occupied = 0
                with suppress(LayerstoreError):  # what is damaged goes, too
                    occupied = container.usage().size
                try:
                    container.remove()
                except (InUse, NotFound):
                    continue  # mounted, started or removed meanwhile
                gone.append(container.id)
                size += occupied
        return gone, size

    def recover(self) -> None:
        """See to the containers that dead processes had mounted, and make again what a power cut took."""
        with self._database.write(durable=False) as tx:
            rows.end_void(tx, layer_rows.dead_owners(tx, self.session.staging, "holds"))
            abandoned, unsure, populated = rows.unheld(tx), rows.unsure(tx), rows.all_residents(tx)
            unneeded = segment_rows.sweep(tx)
        self._layers.drop(unneeded, quietly=True)
        for container in {*abandoned, *self._unrecorded()}:
            self._attend(container, self.mounts.end_abandoned)
        for container in unsure:
            self._attend(container, self.mounts.require_files)
        for container in populated:
            self.settle(container)

    def _unrecorded(self) -> list[str]:
        """The containers whose mount has no row: whoever made it died before it could write one."""
        driver = self.storage.driver
        places = {os.fspath(place) for _, place in mounts_below(driver.home)}
        if not places:
            return []
        with self._database.read() as tx:
            found = rows.without_mount(tx)
        return [row.id for row in found if os.path.realpath(driver.mountpoint(row.layer)) in places]

    def _attend(self, container: str, deed: Callable[[Row, Sequence[Layer]], object]) -> None:
        """Do something to a container, unless somebody else is at it."""
        with self._locks.at_once(of_container(container)) as free:
            if free:
                with suppress(LayerstoreError):  # it says so to whoever wants to use it
                    row, below = self.seen(container)
                    deed(row, below.layers)

    def settle(self, container: str) -> None:
        """Write down that no process has its tree any more, if none has, unless somebody else is at it."""
        mounts = self.mounts
        self._attend(container, lambda row, _: mounts.residents.settled(row, is_mounted=mounts.is_mounted(row)))

    def launch(
        self,
        container: Container,
        make: Callable[[int], Child],
        root: bytes,
        *,
        lasts: bool = True,
        before: Callable[[int], object] | None = None,
    ) -> Process:
        """Start what `make` makes of a container's tree, which it has at `root` then."""
        from layerstore.containers.launching import Launch

        with self.lock(container.id):
            row, below = self.seen(container.id)
            launch = Launch(self._database, self.storage, self.mounts, row, below.layers, lasts=lasts)
            return launch.run(container, make, root, before=before)

    def keep(self, container: str, resident: Resident) -> None:
        """Count a process as one of a container's. Raises `NotFound`."""
        with self._database.write(durable=False) as tx:
            rows.put_resident(tx, container, resident)

    def residents(self, container: str) -> list[Resident]:
        """The processes of a container that live, the first first. If none does any more, that is written down."""
        found, alive = self.mounts.residents.told(container)
        if found and not alive:
            self.settle(container)
        return alive

    def every(self) -> list[Row]:
        """The row of each container, the oldest first."""
        with self._database.read() as tx:
            return rows.every(tx)

    def row(self, container: str) -> tuple[Row, str | None]:
        """A container's row, and the tag that it was made from, if that still means its image."""
        with self._database.read() as tx:
            seen = rows.seen(tx, container)
        return seen.row, seen.tag

    def seen(self, container: str) -> tuple[Row, Below]:
        """A container's row and what it stands on."""
        with self._database.read() as tx:
            row = rows.find(tx, container)
            return row, rows.below(tx, row)

    # --- for programs above ---

    @cached_property
    def snapshots(self) -> Snapshots:
        """What containers were when they ended."""
        return Snapshots(self._database, self.session, self.storage, self._layers, self.mounts, self.merging)

    # --- branching ---

    @property
    def _branching(self) -> Branching:
        from layerstore.containers.branching import Branching

        return Branching(self._database, self.session, self.storage, self._layers, self.mounts, self.merging)

    def checkpoint(self, row: Row, label: str | None, quiet: Quiet | None) -> Checkpoint:
        """`Container.checkpoint`, for a caller that has the container's lock."""
        if label is not None:
            require_label(label)
        return Checkpoint(self, self._branching.checkpoint(row, label, quiet))

    def rollback(self, row: Row, checkpoint: CheckpointRow) -> None:
        """`Container.rollback`, for a caller that has the container's lock."""
        self._branching.rollback(row, checkpoint)

    def fork(
        self,
        container: str,
        n: int | None,
        names: Sequence[str | None] | None,
        *,
        quiet: Quiet | None = None,
        checkpoint: CheckpointRow | None = None,
    ) -> list[Container]:
        """`Container.fork` and `Checkpoint.fork`."""
        if n is not None and n < 1:
            raise ConfigError(f"{n} forks cannot be made", remedy="Say how many: 1 or more.")
        wanted = [None] * (1 if n is None else n) if names is None else [name and valid(name) for name in names]
        if not wanted or (n is not None and len(wanted) != n):
            raise ConfigError(f"{len(wanted)} names for {n} containers", remedy="Give a name for each, or none.")
        with self.lock(container):
            row, tag = self.row(container)
            if checkpoint is None:
                made = self._branching.fork(row, wanted, quiet)
            else:
                with self._database.read() as tx:
                    checkpoint = segment_rows.checkpoint(tx, container, checkpoint.label)
                made = self._branching.fork_checkpoint(row, checkpoint, wanted)
        return [Container(self, one, tag if one.image_id == row.image_id else None) for one in made]

    def checkpoints(self, container: str | None = None, *, below: bool = False) -> list[Checkpoint]:
        """`Container.checkpoints`; without a container, `Store.checkpoints`."""
        with self._database.read() as tx:
            found = segment_rows.every_checkpoint(tx) if container is None else segment_rows.checkpoints(tx, container)
            if below and container is not None:
                own = rows.find(tx, container)
                found = [row for row in found if between(tx, own, row) is not None]
        return [Checkpoint(self, row) for row in found]

    def checkpoint_of(self, container: str, label: str) -> CheckpointRow:
        """One of a container's checkpoints. Raises `NotFound`."""
        with self._database.read() as tx:
            return segment_rows.checkpoint(tx, container, label)

    def remove_checkpoint(self, row: CheckpointRow) -> None:
        """`Checkpoint.remove`."""
        with self.lock(row.container):
            with self._database.write() as tx:
                now = segment_rows.checkpoint(tx, row.container, row.label)
                keys = segment_rows.delete_checkpoints(tx, [now])
            self._layers.drop(keys, quietly=True)

    @property
    def comparing(self) -> Comparing:
        """What containers and checkpoints have otherwise than those that they stand on."""
        return Comparing(self._database, self.session, self.storage, self._layers)

    def _container(self, seen: rows.Seen) -> Container:
        return Container(self, seen.row, seen.tag)


class _MoreGoes(Exception):
    """With a container goes what others would miss after a power cut."""


class _Gone(NamedTuple):
    """What has no row any more: names of volumes, keys of segments and layers."""

    volumes: Sequence[str]
    segments: Sequence[LayerKey]
    layers: Sequence[LayerKey]
