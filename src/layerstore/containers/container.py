"""One container, as its users hold it: what it can be asked, and what can be done to it.

A handle knows the row as it was and the store it belongs to; whatever it does, it does under the container's lock, and
to the row as it is by then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from layerstore import reference
from layerstore.containers.checkpoint import Checkpoint
from layerstore.containers.mounted import Mounted
from layerstore.containers.running import Runs
from layerstore.containers.snapshots import Snapshot
from layerstore.containers.starting import Starts
from layerstore.containers.wishes import CommitWish
from layerstore.digest import ChainID, ImageID, short
from layerstore.driver import Usage, look
from layerstore.errors import NotFound
from layerstore.images import Image, copies
from layerstore.images import config as config_of
from layerstore.images.trees import HasTree, browsed, changes_between, settled
from layerstore.kernel.files.descriptors import HANDLE, opened
from layerstore.values import frozen
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.changes import Changes
    from layerstore.containers.branching import Quiet
    from layerstore.containers.containers import Containers
    from layerstore.containers.rows import Row
    from layerstore.containers.snapshots import Record as SnapshotRecord
    from layerstore.copying import Copied
    from layerstore.driver import Mount
    from layerstore.layers import Record, StoredLayer
    from layerstore.layers.relay import Write
    from layerstore.trees import Tree


@frozen
class ContainerState:
    """What is true of a container at one moment, all from one read: what a list of containers shows."""

    status: str
    """`running` if a process has its tree, `mounted`, `unmounted`, or `created` if it never was either."""
    mountpoint: Path | None
    """Where it is mounted, in this mount namespace."""
    mounts: int
    """How many hold its mount."""
    image: Image | None
    """The image that it stands on."""


@in_words("container {0.name}")
class Container(Runs, Starts):
    """One container. Its facts are those of when it was looked up; what it does, it does to the store as it is now.

    `with` gives back the mounts that were made by it, and no more: the container stays until `remove`.
    """

    def __init__(self, containers: Containers, row: Row, tag: str | None, state: ContainerState | None = None) -> None:
        self._containers = containers
        self._row = row
        self._tag = tag
        self._state = state
        self._held: list[Mounted] = []
        self._image_config: tuple[ImageID | None, Mapping[str, Any]] | None = None

    @property
    def id(self) -> str:
        """64 hex digits."""
        return self._row.id

    @property
    def short_id(self) -> str:
        """12 of them."""
        return self.id[:12]

    @property
    def name(self) -> str:
        """Its name."""
        return self._row.name

    @property
    def image_id(self) -> ImageID | None:
        """The image that it stands on; None if it began from nothing and was never committed."""
        return self._row.image_id

    @property
    def chain_id(self) -> ChainID | None:
        """The layer that it stands on, be it an image's or not; None if it stands on nothing."""
        return self._row.chain_id

    @property
    def image(self) -> Image | None:
        """The same, looked up."""
        return None if self.image_id is None else self._containers.images.get(self.image_id)

    @property
    def image_config(self) -> Mapping[str, Any]:
        """The config of that image, read once for as long as it stands on it; empty without one."""
        image = self.image_id
        if self._image_config is None or self._image_config[0] != image:
            found = None if image is None else self._containers.images.config_of(image)
            self._image_config = (image, {} if found is None else config_of.read(found))
        return self._image_config[1]

    @property
    def image_name(self) -> str:
        """What it stands on, as people call it: the name it was made from, if that still means it, or a short ID."""
        if self._tag is not None:
            return reference.familiar(self._tag)
        return "" if self.image_id is None else short(self.image_id)

    @property
    def created(self) -> str:
        """When it was made, as RFC 3339 has it."""
        return config_of.timestamp(self._row.created)

    @property
    def created_at(self) -> datetime:
        """When it was made, to the microsecond."""
        return datetime.fromtimestamp(self._row.created // 1000 / 1e6, UTC)

    @property
    def size_limit(self) -> int | None:
        """How many bytes may be written in it."""
        return self._row.size

    @property
    def mountpoint(self) -> Path | None:
        """Where it is mounted now, in this mount namespace; None if it is not."""
        return self._containers.mounts.place_of(self.id)

    @property
    def mounts(self) -> int:
        """How many hold its mount."""
        return self._containers.mounts.count(self.id)

    @property
    def status(self) -> str:
        """`running` if a process has its tree, `mounted`, `unmounted`, or `created` if it never was either.

        Of one that was removed: what it was.
        """
        try:
            return self._containers.state_of(self.id)[2].status
        except NotFound:
            return "unmounted" if self._row.touched else "created"

    @property
    def state(self) -> ContainerState:
        """All of that as it was when the list that this container is from was read, whatever happened since.

        Of one that was looked up by its name, or has been used since: when it is asked for. Raises `NotFound` then.
        """
        if self._state is None:
            self._row, self._tag, self._state = self._containers.state_of(self.id)
        return self._state

    def mount(self, *, persistent: bool = False) -> Mounted:
        """Mount it, or share the mount that there is. `persistent`: it outlives this process, until `unmount`."""
        self._state = None
        with self._containers.lock(self.id):
            path, hold = self._containers.mounts.mount(self.id, persistent=persistent)
        mounted = Mounted(self, path, hold, persistent=persistent)
        if not persistent:
            self._held.append(mounted)
            self._containers.held.add(mounted)
        return mounted

    def unmount(self, *, all: bool = False) -> bool:
        """Let go of one persistent mount; `all`: unmount, whoever holds it. True if it is unmounted now."""
        self._state = None
        with self._containers.lock(self.id):
            row = self._refreshed()
            if not all:
                done = self._containers.mounts.release_persistent(row)
            else:
                self._containers.mounts.end(row)
                done = True
            self._refreshed()
        return done

    def _release(self, mounted: Mounted, hold: int) -> None:
        if self._containers.session.closed:
            return  # by `Store.close`, which has let go of it; or in the child of a fork, whose mount it is not
        self._state = None
        try:
            with self._containers.lock(self.id):
                self._containers.mounts.release(self.id, hold)
        except NotFound:
            pass  # removed by force meanwhile, and unmounted with that
        self._containers.held.discard(mounted)
        if mounted in self._held:
            self._held.remove(mounted)

    def open_tree(self) -> AbstractContextManager[int]:
        """While inside: a directory descriptor of its tree, to be read, whether it is mounted or not."""
        return self._open_tree()

    @contextmanager
    def _open_tree(self) -> Iterator[int]:
        with self._containers.lock(self.id, shared=True):
            row, below = self._containers.seen(self.id)
            with look(self._containers.storage.driver, row.layer, below.layers) as root:
                yield settled(root)

    def browse(self) -> AbstractContextManager[Tree]:
        """While inside: its tree, read without a mount, whether it is mounted or not. See `Store.browse`.

        Of one that is mounted by fuse-overlayfs (`aufs.mode=fuse`), what that has not written out yet is not seen.
        """
        return self._browse()

    @contextmanager
    def _browse(self) -> Iterator[Tree]:
        with self._containers.lock(self.id, shared=True):
            row, below = self._containers.seen(self.id)
            with browsed(self._containers.storage, (row.layer, *below.layers)) as tree:
                yield tree

    def changes(self, since: HasTree | str | None = None) -> Changes:
        """What differs from its image; or from `since`: the label of a checkpoint, a checkpoint, a container, an image.

        Against a checkpoint that it stands on it costs what was written since; of any other two, both trees are read.
        """
        if isinstance(since, str):
            since = self.checkpoint_named(since)
        if since is None or isinstance(since, Checkpoint):
            with self._containers.lock(self.id, shared=True):
                row, _ = self._containers.seen(self.id)
                found = self._containers.comparing.of_container(row, None if since is None else since._row)
            if found is not None:
                return found
        assert since is not None  # against its image there is always a way
        return changes_between(self, since)

    def write_changes(
        self, write: Write, *, since: HasTree | Snapshot | str | None = None, latest: int | None = None
    ) -> None:
        """Write its changes as a layer's tar, as a commit would keep them; or those since what `changes` takes, or a
        snapshot that it stands on.

            with open("changes.tar", "wb") as file:
                box.write_changes(file.write)

        `latest`, in ns since the epoch: no time in it is later. What `write` is given is valid until it returns. Raises
        `CannotRepresent`, `NotFound`.
        """
        on = since if isinstance(since, Snapshot) else None
        # Shared from the first look to the last byte, lest another rolls it back in between; `changes` shares it too.
        with self._containers.lock(self.id, shared=True):
            found = None if since is None or isinstance(since, Snapshot) else self.changes(since)
            self._containers.comparing.write_changes(self.id, write, on, found, latest=latest)

    def export(self, write: Write) -> None:
        """The whole tree as one tar."""
        with self._containers.lock(self.id, shared=True):
            row, below = self._containers.seen(self.id)
            self._containers.storage.files.write_tree(row.layer, below.layers, write)

    def copy_out(
        self, path: str, target: str | os.PathLike[str] | BinaryIO, *, archive: bool = False, follow: bool = False
    ) -> Copied:
        """Copy a file or folder of it to the host, or write it as a tar to an open file. See `Image.copy_out`."""
        return copies.copy_out(self, f"container {self.name}", path, target, archive=archive, follow=follow)

    def copy_in(
        self, source: str | os.PathLike[str] | BinaryIO, path: str, *, archive: bool = False, follow: bool = False
    ) -> Copied:
        """Copy a file or folder of the host into it, or unpack a tar, read from an open file, in a folder of it.

        The rules are docker's, as with `copy_out`. It may be mounted; else it is for the time of the copy. What is
        copied belongs to root; `archive`: to whom it belongs on the host, with setuid bits, extended attributes and
        devices, and folders that are there get the attributes of those copied onto them. A tar's entries keep what the
        tar says of them. `follow`: what a symbolic link `source` leads to is copied, not the link. Nothing outside of
        the container is written, whatever symbolic links it has.

        Raises `NotFound`, `CannotCopy`, `InvalidArchive`, `KernelError`; what was copied until then stays.
        """
        with self.mount() as root, opened(root, HANDLE) as fd:
            return copies.copy_in(fd, f"container {self.name}", source, path, archive=archive, follow=follow)

    def commit(
        self,
        reference: str | None = None,
        *,
        message: str = "",
        author: str | None = None,
        created_by: str | None = None,
        run_config: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
        instructions: Sequence[str] = (),
    ) -> Image:
        """Make an image of it. `instructions` are those of a Dockerfile (`CMD`, `ENV`, ...), for its configuration.

        `author`: None is the one of the image that it stands on. `run_config` makes of what that one says of how it is
        run (its `config`) what this one says, beneath the instructions; None: the same. `created_by` is for the
        history; None is the command there, or the instructions if there is none.

        If it is not mounted, its layer becomes the image's without a copy, and it goes on with a new one on top: it
        then stands on the new image. All that was written since the one before is one layer, whatever checkpoints there
        are; they stay. Without changes to the tree, the image has the same layers.
        """
        self._state = None
        with self._containers.lock(self.id):
            wish = CommitWish(reference, message, author, created_by, run_config, instructions)
            image = self._containers.commit(self._refreshed(), wish)
            self._refreshed()
        return image

    def seal(self, *, latest: int | None = None, record: Record | None = None) -> StoredLayer | None:
        """Make a layer of what it has written, and no image; None if that is nothing.

        If it is not mounted, its own layer becomes this one without a copy, and it goes on with a new one on top: it
        then stands on this layer. If it is, what it has written is copied, and it stays as it is. `latest`, in ns since
        the epoch: what was modified later has this time in the layer. `record` is given the transaction in which the
        layer gets its row, or is found to be there: see `Store.lease`. Raises `CannotRepresent`.
        """
        self._state = None
        with self._containers.lock(self.id):
            layer = self._containers.seal(self._refreshed(), latest=latest, record=record)
            self._refreshed()
        return layer

    # --- branching ---

    def checkpoint(self, label: str | None = None, *, quiet: Quiet | None = None) -> Checkpoint:
        """Keep what it is now under a label; without one, under the next number.

        It costs milliseconds and reads no file. What was written becomes a segment, and the container goes on on top of
        it (overlay2), or beside a snapshot (btrfs) or a copy (others). If it is mounted and nobody is at work in it, it
        is away for that moment, and mounted again where it was. If somebody is, what was written is copied; `quiet` is
        a context in which they are frozen. `Checkpoint.consistent` says whether it shows one moment. Raises
        `NameInUse`.
        """
        self._state = None
        with self._containers.lock(self.id):
            made = self._containers.checkpoint(self._refreshed(), label, quiet)
            self._refreshed()
        return made

    def rollback(self, to: str | Checkpoint) -> None:
        """Be again what it was at a checkpoint of it: what was written since, and is in no other checkpoint, is gone.

            box.checkpoint("clean")
            with box.mount() as root:
                (root / "etc/passwd").unlink()
            box.rollback("clean")
            assert len(box.changes(since="clean")) == 0

        Later checkpoints stay. If it is mounted it stays so, at the same place. Raises `NotFound`; `InUse` if somebody
        is at work in it.
        """
        label = to if isinstance(to, str) else to.label
        if isinstance(to, Checkpoint) and to.container_id != self.id:
            raise NotFound(
                f"checkpoint {to.label} is not one of container {self.name}",
                remedy="Fork it: `Checkpoint.fork` makes a container that begins there.",
            )
        self._state = None
        with self._containers.lock(self.id):
            self._containers.rollback(self._refreshed(), self._containers.checkpoint_of(self.id, label))
            self._refreshed()

    def fork(
        self, n: int | None = None, *, names: Sequence[str | None] | None = None, quiet: Quiet | None = None
    ) -> list[Container]:
        """Make `n` containers, or one, that begin where it is now, each with its own writes.

            left, right = box.fork(2)
            with left.mount() as root:
                (root / "etc/motd").write_text("left\\n")
            assert len(right.changes(since=box)) == 0

        They share what it has written so far, as containers share an image, and have no checkpoints of their own yet.
        `quiet` is as for `checkpoint`. Raises `NameInUse`.
        """
        self._state = None
        made = self._containers.fork(self.id, n, names, quiet=quiet)
        self._refreshed()
        return made

    def checkpoints(self, *, below: bool = False) -> list[Checkpoint]:
        """Its checkpoints, the oldest first.

        `below`: only those that it stands on. With overlay2 that is all but what was rolled back; with drivers of whole
        trees it goes on beside its checkpoints, and stands on those alone that it was rolled back to.
        """
        return self._containers.checkpoints(self.id, below=below)

    def checkpoint_named(self, label: str) -> Checkpoint:
        """One of them. Raises `NotFound`."""
        return Checkpoint(self._containers, self._containers.checkpoint_of(self.id, label))

    # --- for programs above ---

    def recipe(self) -> Sequence[Mount]:
        """What would have to be mounted, in this order, to have its tree: as data. Nothing is made, or mounted."""
        with self._containers.lock(self.id, shared=True):
            row, below = self._containers.seen(self.id)
            return self._containers.mounts.recipe(row, below.layers)

    def lend(self) -> Sequence[Mount]:
        """Its `recipe`, for somebody else to mount: it is made ready for that.

        From here on it is lent: nobody here mounts it or starts programs in it, for two mounts of one writable layer
        are undefined; and whatever reads it takes it for being written to. It is had back by `remove` and `end`. Raises
        `InUse` if it is mounted here or runs, `DriverNotSupported`, `KernelError`.
        """
        with self._containers.lock(self.id):
            row, below = self._containers.seen(self.id)
            found = self._containers.mounts.lend(row, below.layers)
            self._refreshed()
        return found

    def end(self, record: SnapshotRecord) -> Snapshot:
        """Make a snapshot of it, which it becomes: nothing is copied or hashed, and there is no container afterwards.

        Its checkpoints go with it. Nobody may have it mounted, also of those whom it was lent. `record` is given the
        transaction in which it becomes one, and the snapshot's ID: see `Store.snapshots`. Raises `InUse`,
        `CannotRepresent`.
        """
        with self._containers.lock(self.id):
            return self._containers.snapshots._end(self._refreshed(), record)

    # --- the whole ---

    def rename(self, name: str) -> None:
        """Give it another name. Raises `NameInUse`."""
        self._containers.rename(self.id, name)
        self._refreshed()

    def remove(
        self,
        *,
        force: bool = False,
        volumes: bool = False,
        lasts: bool = True,
        record: SnapshotRecord | None = None,
    ) -> None:
        """Remove it with all that was written in it. `force`: even if it is mounted; processes in it are killed.

        `volumes`: with its anonymous volumes, too, which no other container uses. Those with a name stay. `lasts`:
        False, for one that was made so, needs no sync: should the machine go down in the next seconds, it may be there
        again, without its files, to be removed once more. `record`: by which its owner forgets it, in the transaction
        in which it goes. Raises `InUse` if it is mounted or running.
        """
        self._containers.remove(self.id, force=force, volumes=volumes, lasts=lasts, record=record)

    def usage(self) -> Usage:
        """What it occupies by itself: what is written in it, and what checkpoints keep for it alone."""
        with self._containers.lock(self.id, shared=True):
            return self._containers.comparing.usage_of(self.id)

    def inspect(self, *, size: bool = False) -> dict[str, Any]:
        """What is known of it, in docker's words."""
        row, below = self._containers.seen(self.id)
        driver, image, place = self._containers.storage.driver, self.image, self.mountpoint
        facts: dict[str, Any] = {
            "Id": row.id,
            "Created": self.created,
            "State": {"Status": self.status, "Running": self.status == "running", "Paused": False, "Dead": False},
            "Image": row.image_id or "",
            "Name": f"/{row.name}",
            "Driver": driver.name,
            "Platform": "linux" if image is None else image.os,
            "GraphDriver": {"Data": dict(driver.graph_data(row.layer, below.layers)), "Name": driver.name},
            "Mounts": [use.inspect() for use in self._containers.volumes.of(row.id)],
            "Mountpoint": "" if place is None else str(place),
            "SizeLimit": row.size or 0,
            "Config": {**((image.config.get("config") if image else None) or {}), "Image": self.image_name},
        }
        if size:
            own = self.usage().size
            facts |= {"SizeRw": own, "SizeRootFs": own + (image.size if image else 0)}
        return facts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mounted in list(self._held):
            mounted.unmount()

    def __repr__(self) -> str:
        return f"<Container {self.name} {self.short_id}>"

    def _refreshed(self) -> Row:
        self._row, self._tag = self._containers.row(self.id)
        return self._row
