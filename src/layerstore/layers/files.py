"""How the layers of a store are kept: what every way of keeping them does, and the values that pass between them.

The core knows a layer's files by these methods alone: a tar is taken in or a container's changes are, laid on its
parents, kept, given out again, looked at for damage, dropped. `folders` is the way of all drivers that unpack; a driver
whose layers are no folders (the tar as it came, with an index) brings another, and names it in `layer_files`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict

from layerstore.changes import Changes, clamp_times
from layerstore.driver import Dialect, Layer, LayerKey, StorageDriver, Usage, look
from layerstore.errors import Damaged, DriverNotSupported, LayerstoreError, NotFound, named
from layerstore.kernel.files import copy_root_attributes, syncfs
from layerstore.kernel.files.descriptors import read_own, write_private
from layerstore.kernel.mounts import detached
from layerstore.layers.diffs import Diff, Place
from layerstore.layers.relay import Write, relay
from layerstore.limits import UNLIMITED, Limits
from layerstore.records.files import packed, unpacked

if TYPE_CHECKING:
    from layerstore.digest import DiffID
    from layerstore.layers.diffs import Since, Staged
    from layerstore.layers.elsewhere import Elsewhere
    from layerstore.layers.holder import Holder
    from layerstore.layers.lazy import Lazy
    from layerstore.session import Session
    from layerstore.tar import Damage, LayerEntry, Level, Packed, Readable

__all__ = ["LayerFiles", "Told", "counting", "name_layer"]

_PIECE = 1 << 20

Told = Callable[[int], None]
"""Called with the bytes of the tar done so far."""


class LayerFiles(ABC):
    """The files of all diffs of a store. A diff is whole and on the disk before `keep` returns; only then has it a row.

    `beside` is a folder for what is kept of layers outside of the driver's home; `on_garbage` is called when something
    that ought to go could not be removed.
    """

    def __init__(self, driver: StorageDriver, session: Session, beside: Path, on_garbage: Callable[[], None]) -> None:
        self.driver = driver
        self.session = session
        self.beside = beside
        self._on_garbage = on_garbage
        self.holder: Holder | None = None
        """Who watches lazy layers, where there may be some."""
        self.elsewhere: Callable[[], Elsewhere] | None = None
        """Makes who knows where borrowed layers lie, where there may be some."""

    @property
    def independent(self) -> bool:
        """Can a layer be taken in without its parents, and lie on others than those that it came with?"""
        return True

    # --- in ---

    @abstractmethod
    def take_in(
        self,
        stream: Readable,
        *,
        parents: Sequence[Layer] | None = None,
        expected: DiffID | None = None,
        progress: Told | None = None,
        limits: Limits = UNLIMITED,
    ) -> Staged:
        """Take in a tar. Nothing is synced yet; on an error nothing is left.

        `parents` are given for a layer that cannot be taken in without them; it is then of use on these only. A way
        that is not `independent` may spool a tar whose parents are None. `limits` are given for what comes from
        elsewhere. Raises `DigestMismatch`, `InvalidArchive`, `LimitExceeded`.
        """

    def take_lazily(
        self, lazy: Lazy, *, expected: DiffID, progress: Told | None = None, limits: Limits = UNLIMITED
    ) -> Staged:
        """Take in a layer whose tar is not there: what of it is no file data is enough. Later the rest comes.

        As `take_in` else. Raises `DriverNotSupported` where layers are not kept so that they could be lazy.
        """
        raise self.not_lazy()

    def not_lazy(self) -> DriverNotSupported:
        """The error for who wants a lazy layer where there can be none."""
        return DriverNotSupported(
            f"a store by {self.driver.name} has no lazy layers",
            remedy="Pull without --lazy, or into a store by erofs: there a layer is its tar, which may have holes.",
        )

    def require_lazy(self) -> None:
        """Raise `DriverNotSupported` where there are no lazy layers, with the reason."""
        raise self.not_lazy()

    def fetched(self, stored: Diff) -> int:
        """How many bytes of a lazy layer's tar are there."""
        return stored.size

    def lacks(self, stored: Diff) -> bool:
        """Is a layer lazy still? Then not all of it can be read at once."""
        return False

    def begin_lazy(self) -> None:
        """Have what watches lazy layers ready, for some that are about to come. Raises `LayerstoreError`."""
        if self.holder is not None:
            self.holder.begin()

    def recorded(
        self, stored: Sequence[Diff], file: int
    ) -> AbstractContextManager[tuple[list[DiffID], Callable[[], bool]]]:
        """While inside, what is read of the lazy ones of these layers is written into a file: `layers.holder`.

        Yields the layers that the numbers in it mean, and what tells whether all was written. Raises `NotFound` if none
        of them is lazy.
        """
        raise self.not_lazy()

    def complete(self, stored: Diff, parents: Sequence[Layer]) -> None:
        """All of a lazy layer's tar is there: prove it, and let the layer be one like any other. Raises `Damaged`."""

    def forget_lazy(self, key: LayerKey) -> None:
        """Remove what says that a layer is lazy, whose row says that it is not. Raises `KernelError`."""

    def lazy_folders(self) -> Sequence[Path]:
        """The folders of layers that are lazy, as far as what lies there says so."""
        return ()

    def make_whole(self, stored: Diff) -> None:
        """Wait until all of a lazy layer is there. Raises `LayerstoreError`, which says why it does not come."""

    @abstractmethod
    def take_changes(
        self, container: Layer, parents: Sequence[Layer], *, in_use: bool, latest: int | None = None
    ) -> Staged | None:
        """Take in what a container has changed; None if that is nothing.

        `in_use`: programs may be writing to it, so what is hashed has to be copied. `latest`, in ns since the epoch:
        what is copied gets this time where its own is later. Raises `CannotRepresent`.
        """

    @abstractmethod
    def rebuild(self, origin: Diff, parents: Sequence[Layer], *, staged: bool) -> Staged:
        """Take in the tar of `origin` once more, for these parents. `staged`: `origin` is still staged itself."""

    @abstractmethod
    def settle(self, staged: Staged, parents: Sequence[Layer]) -> Staged:
        """Lay a staged layer on `parents`. Another one is returned where it had to be taken in again for that."""

    @abstractmethod
    def fits(self, stored: Diff, parents: Sequence[Layer]) -> bool:
        """May `stored` lie on these parents as it is?"""

    @abstractmethod
    def keep(self, placed: Sequence[tuple[Staged, Sequence[Layer]]]) -> list[Diff]:
        """Make staged layers, bottom to top and each with its parents, committed ones; durable when this returns.

        Parents may be among those before. The keys may be others afterwards; on an error nothing is left under others.
        """

    # --- out ---

    @abstractmethod
    def give_out(self, stored: Diff, write: Write) -> None:
        """Write the tar, byte for byte as it came. Raises `Damaged`: then what was written is void."""

    def identify(self, key: LayerKey) -> DiffID:
        """The digest of the tar that lies under a key. Raises `Damaged`, `NotFound` where that cannot be told."""
        raise NotFound(f"nothing says which layer {key} is")

    @abstractmethod
    def damages(self, stored: Diff, level: Level, write: Write | None = None) -> Iterator[Damage]:
        """What is no longer as it was stored. `write` is given what is read of large files on the way."""

    def damages_arrived(self, stored: Diff, write: Write) -> Iterator[Damage]:
        """The same of a lazy layer, and of its content as far as that has come: `write` is given it."""
        return iter(())

    def inherited_damages(self, stored: Diff, parents: Sequence[Layer], *, content: bool) -> Iterator[Damage]:
        """What a layer that holds what its parents hold has otherwise than these, and its tar says nothing of.

        `content`: every byte is compared. For layers that hold only what is theirs, nothing.
        """
        return iter(())

    def salvage(self, stored: Diff, others: Iterable[Diff], trees: Iterable[Layer], write: Write) -> None:
        """Write the tar of a damaged layer, with what `others` or `trees` have for what is wrong in it.

        `others` are diffs that may have equal files, `trees` layers that may have them under the same names. Raises
        `Damaged`, `KernelError`: then what was written is void. Where that cannot be had, the layer's own tar.
        """
        self.give_out(stored, write)

    @abstractmethod
    def entries(self, stored: Diff) -> Iterator[LayerEntry]:
        """What the layer says of each name, parents before what is in them; no file is read for it. Raises `Damaged`.

        Once this has returned, the layer may go.
        """

    @abstractmethod
    def place_of(self, layer: Layer) -> Path:
        """Where a layer lies, for people to look at."""

    @abstractmethod
    def has(self, layer: Layer) -> bool:
        """Are the layer's own files there?"""

    # --- away ---

    def drop(self, layers: Iterable[Layer], *, quietly: bool = False) -> None:
        """Remove layers with all that is kept of them. That no row names them is the caller's business.

        What cannot be moved away stays, and is found by the next `open`; `quietly`: and there is something worse to
        tell.
        """
        failures: list[Exception] = []
        for layer in layers:
            deeds: list[Callable[[], object]] = [
                partial(self.driver.remove, layer),
                partial(self.remove_beside, layer.key),
                partial(self._discard, layer.key),
            ]
            for deed in deeds:
                try:
                    deed()
                except Exception as error:
                    failures.append(error)
        if failures:
            self._on_garbage()
            if not quietly:
                raise failures[0]

    def drop_beside(self, key: LayerKey, *, quietly: bool = False) -> None:
        """Remove what is kept beside the home of a key that no diff has: of a commit that came to nothing.

        `quietly` as for `drop`.
        """
        try:
            self.remove_beside(key)
        except Exception:
            self._on_garbage()
            if not quietly:
                raise

    @abstractmethod
    def remove_beside(self, key: LayerKey) -> None:
        """Remove what is kept beside the home of a key, staged or not. Raises what it fails with."""

    @abstractmethod
    def keys_beside(self) -> Iterable[str]:
        """The keys of all that lies in `beside`."""

    @abstractmethod
    def hand_over(self, keys: Iterable[LayerKey], beside: Path) -> None:
        """Give what is kept beside the home a second name in another folder, durably. Done again, it goes on."""

    # --- records ---

    def record_of(self, key: LayerKey) -> Path:
        """Where it is written down, beside what is kept outside of the home, what the row of a diff says."""
        return self.beside / f"{key}.record"

    def write_record(self, path: Path, stored: Diff, place: Place) -> None:
        """Write down a diff that was made for this layer. It is not synced. Raises `KernelError`."""
        with named("write", path):
            write_private(path, packed({**asdict(stored), **asdict(place)}))

    def read_record(self, key: LayerKey) -> tuple[Diff, Place] | None:
        """What was written down of a diff; None if nothing was. Raises `Damaged`, `KernelError`."""
        path = self.record_of(key)
        with named("read", path):
            try:
                data = read_own(path)
            except FileNotFoundError:
                return None
        found: dict[str, Any] = unpacked(data, path)
        place = Place(found.pop("chain"), found.pop("parent"))
        return Diff(**{**found, "key": key, "implied": tuple(found["implied"]), "damaged": False}), place

    # --- the same for all ways ---

    def write_changes(
        self,
        container: Layer,
        parents: Sequence[Layer],
        write: Write | None = None,
        *,
        since: Since | None = None,
        latest: int | None = None,
    ) -> Packed:
        """What a container has changed, as a layer's tar, to `write`; without it, only what the tar would be.

        `since`: against a stack further down than its parents. `latest`, in ns since the epoch: no time is later.
        """
        changes = self._changes(container, parents, since)
        return self.write_found(changes, container, parents, write, latest=latest)

    def write_found(
        self,
        changes: Changes,
        container: Layer,
        parents: Sequence[Layer],
        write: Write | None = None,
        *,
        latest: int | None = None,
    ) -> Packed:
        """The same, of changes that have been found, whatever they are against."""
        from layerstore.tar import pack

        with look(self.driver, container, parents) as root:
            return pack(changes, root, write=write, latest=latest)

    def clamp(self, container: Layer, parents: Sequence[Layer], latest: int) -> None:
        """Let nothing that a container has changed be later than this, in ns since the epoch. Nobody else is in it.

        By a mount, as a program would: so every driver finds what it has done, and what no longer differs is no change.
        """
        changes = self.driver.changes(container, parents)
        if not len(changes):
            return
        self.driver.prepare(container, parents, read_only=False)
        with detached(self.driver.mounts(container, parents, read_only=False)) as tree:
            clamp_times(changes, tree, latest)

    def take_changes_since(
        self, container: Layer, parents: Sequence[Layer], since: Since, latest: int | None = None
    ) -> Staged | None:
        """Take in what a container and the segments it stands on have changed, by a copy; None if that is nothing."""
        changes = self._changes(container, parents, since)
        return self._copy(container, parents, changes, None, latest) if len(changes) else None

    def _changes(self, container: Layer, parents: Sequence[Layer], since: Since | None) -> Changes:
        if since is None or not since[0]:
            return self.driver.changes(container, parents)
        return self.driver.changes_since(container, parents, *since)

    def _copy(
        self,
        container: Layer,
        parents: Sequence[Layer],
        changes: Changes,
        on: Sequence[Layer] | None,
        latest: int | None = None,
    ) -> Staged:
        """Pack changes and take them in again, for the parents `on`."""
        from layerstore.tar import pack

        with (
            look(self.driver, container, parents) as root,
            relay(lambda write: pack(changes, root, write=write, latest=latest)) as stream,
        ):
            return self.take_in(stream, parents=on)

    def segment(self, container: Layer, parents: Sequence[Layer], *, in_use: bool) -> LayerKey | None:
        """Make a segment of what a container has written. None: that is nothing. See `StorageDriver.segment`."""
        made = self.driver.segment(container, parents, self.session.new_key(), in_use=in_use)
        if made is not None:
            return made
        changes = self.driver.changes(container, parents)
        if not len(changes):
            return None
        staged = self._copy(container, parents, changes, parents)
        kept = None
        try:
            staged = self.settle(staged, parents)
            [kept] = self.keep([(staged, parents)])
            self.drop_beside(kept.key)  # the skeleton: nobody asks a segment for its tar
        except BaseException:
            self.drop([staged.layer, *([] if kept is None else [Layer(kept.key)])], quietly=True)
            raise
        if kept.key != staged.diff.key:
            self.drop([staged.layer], quietly=True)
        return kept.key

    def write_tree(self, layer: Layer, parents: Sequence[Layer], write: Write) -> Packed:
        """The whole tree as one tar, as `docker export` has it.

        By a mount of its own: what a program serves (fuse-overlayfs) is told right to who looks for the first time.
        """
        from layerstore.tar import pack_tree

        with look(self.driver, layer, parents) as root:
            return pack_tree(root, write)

    def repeat(
        self,
        container: Layer,
        parents: Sequence[Layer],
        *,
        of: Callable[[Write], Packed],
        root: int,
        progress: Told | None = None,
    ) -> Packed:
        """Make in a new container, through its mount, what a tar says that `of` writes. It is synced on return.

        `root` is a directory fd of the tree that the tar came of. So changes reach a container of another driver.
        """
        from layerstore.tar import unpack

        made: list[Packed] = []
        skeleton = self.session.folder / f"{container.key}.repeated"  # of no use, for a container has none
        self.driver.prepare(container, parents, read_only=False)
        with (
            relay(lambda write: made.append(of(write))) as stream,
            detached(self.driver.mounts(container, parents, read_only=False)) as tree,
        ):
            unpack(
                stream,
                tree,
                dialect=Dialect.MERGED,
                skeleton=skeleton,
                below=tree,
                progress=counting(progress),
            )
            if not parents:  # then the root directory itself may be as it was made, which is no change
                copy_root_attributes(f"/proc/self/fd/{root}", f"/proc/self/fd/{tree}")
            syncfs(tree)
        self.session.discard(skeleton)
        return made[0]

    def usage(self, layer: Layer, parents: Sequence[Layer]) -> Usage:
        """What a layer occupies by itself."""
        return self.driver.usage(layer, parents)

    def require(self, layers: Iterable[Layer]) -> None:
        """Raise `Damaged` if the files of one of these are gone. Asked when something else has failed."""
        for layer in layers:
            if not self.has(layer):
                place = self.place_of(layer)
                raise Damaged(
                    f"the files of layer {layer.key} are missing: {place}",
                    remedy="`layerstore check` names the layer. Load an image that has it again: that mends it.",
                    path=place,
                )

    def drop_container(self, container: Layer) -> None:
        """Remove the writable layer of a container."""
        try:
            self.driver.remove(container)
            self._discard(container.key)
        except BaseException:
            self._on_garbage()
            raise

    @contextmanager
    def _merged(self, parents: Sequence[Layer] | None) -> Iterator[int | None]:
        """A directory descriptor of the tree that `parents` make; None if there are none."""
        if not parents:
            yield None
            return
        with look(self.driver, parents[0], parents[1:]) as root:
            yield root

    def _discard(self, key: LayerKey) -> None:
        """Delete what staging has of a key: the beginning of a name there is the key, whatever a driver adds to it."""
        self.session.discard_all(key)


def counting(told: Told | None) -> Told | None:
    """What `unpack` may be given: it tells the bytes that came, often; `told` wants their sum, and not too often."""
    if told is None:
        return None
    done = last = 0

    def count(more: int) -> None:
        nonlocal done, last
        done += more
        if done - last >= _PIECE:
            last = done
            told(done)

    return count


def name_layer(error: BaseException, diff_id: DiffID | None) -> None:
    """Say in an error which layer it is about."""
    if isinstance(error, LayerstoreError) and diff_id is not None and error.layer != diff_id:
        error.layer = diff_id
        error.message = f"layer {diff_id}: {error.message}"
