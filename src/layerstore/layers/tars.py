"""Layers kept as tars: each is its tar, as it came, and a listing of what that says and where its data lie.

Both are in the folder that the driver has for a layer, beside the place of the tree that it would have as a folder.
What a stack looks like is an index that the driver has the listings made into. A listing can always be made again.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore import tar
from layerstore.digest import DiffID, Digest
from layerstore.driver import Layer, LayerKey, State
from layerstore.errors import Damaged, InvalidArchive, KernelError, LayerstoreError, NotFound, named
from layerstore.indexes import LAZY, LISTING, TAR, LaidTree, Part
from layerstore.kernel import watching
from layerstore.kernel.files import fsync_folder, move_away, syncfs
from layerstore.kernel.files.descriptors import private
from layerstore.layers import arrived
from layerstore.layers.beyond import KeepsContentOnce, ProvesIndexes, TakesStacks
from layerstore.layers.diffs import Diff, Staged
from layerstore.layers.files import LayerFiles, Told, counting, name_layer
from layerstore.layers.folders import Folders
from layerstore.layers.lazy import Lazy, fetched, forget, is_left, lay_out, link
from layerstore.layers.relay import Write
from layerstore.limits import UNLIMITED, Limits
from layerstore.seekable import Hollow, LayerIndex
from layerstore.tar import Damage

if TYPE_CHECKING:
    from layerstore.driver import StorageDriver
    from layerstore.layers.holder import Holder
    from layerstore.session import Session
    from layerstore.tar import LayerEntry, Level, Readable

__all__ = ["Tars"]

_PIECE = 1 << 20
_MEND = "Load an image that has this layer again: it is kept anew."


class Tars(LayerFiles):
    """The way of a driver that mounts tars."""

    def __init__(self, driver: StorageDriver, session: Session, beside: Path, on_garbage: Callable[[], None]) -> None:
        super().__init__(driver, session, beside, on_garbage)
        self._looking = threading.Lock()
        self._last: tuple[list[LayerKey], LaidTree] | None = None

    # --- in ---

    def take_in(
        self,
        stream: Readable,
        *,
        parents: Sequence[Layer] | None = None,
        expected: DiffID | None = None,
        progress: Told | None = None,
        limits: Limits = UNLIMITED,
    ) -> Staged:
        layer = Layer(self.session.new_key(), State.STAGED)
        try:
            self._create(layer)
            return self._listed(layer, stream, parents, expected, progress, limits, keep=self._tar(layer))
        except BaseException as error:
            self.drop([layer], quietly=True)
            name_layer(error, expected)
            raise

    def _listed(
        self,
        layer: Layer,
        stream: Readable,
        parents: Sequence[Layer] | None,
        expected: DiffID | None,
        progress: Told | None = None,
        limits: Limits = UNLIMITED,
        keep: Path | None = None,
        claimed: DiffID | None = None,
    ) -> Staged:
        with self._merged(parents) as below:
            found = tar.take_listing(
                stream,
                self._listing(layer),
                keep=keep,
                expected=expected,
                below=below,
                bottom=parents is not None and not parents,
                progress=counting(progress),
                limits=limits,
                claimed=claimed,
            )
        if found.needs_parents and parents is not None:
            raise InvalidArchive("it links to a file that no layer below has", layer=found.diff_id)
        taken = Diff(
            key=layer.key,
            diff_id=found.diff_id,
            size=found.size,
            entries=found.entries,
            root_opaque=found.root_opaque,
            implied=found.implied,
            dependent=parents is not None,
            lazy=claimed is not None,
        )
        return Staged(taken, layer, needs_parents=found.needs_parents and parents is None, notices=found.notices)

    def take_lazily(
        self, lazy: Lazy, *, expected: DiffID, progress: Told | None = None, limits: Limits = UNLIMITED
    ) -> Staged:
        layer = Layer(self.session.new_key(), State.STAGED)
        try:
            self._create(layer)
            lay_out(self._tar(layer).parent, lazy)
            index = LayerIndex.unpacked(lazy.packed, limits)
            return self._listed(layer, Hollow(index), None, expected, progress, limits, claimed=expected)
        except BaseException as error:
            self.drop([layer], quietly=True)
            name_layer(error, expected)
            raise

    def require_lazy(self) -> None:
        watching.require(self.driver.home)
        if self.holder is None:
            raise self.not_lazy()

    @contextmanager
    def recorded(self, stored: Sequence[Diff], file: int) -> Iterator[tuple[list[DiffID], Callable[[], bool]]]:
        folders = {one.diff_id: self._tar(Layer(one.key)).parent for one in stored if one.lazy}
        lazy = {diff_id: folder for diff_id, folder in folders.items() if os.path.lexists(folder / LAZY)}
        if not lazy:
            raise NotFound(
                "no layer of the image is lazy: all of it is there, and nobody sees what is read of it",
                remedy="Remove the image, and have it pulled by `run --lazy --record-order FILE`; it must have been"
                " pushed --with-index.",
            )
        with self._held_by().recorded(list(lazy.values()), file) as is_whole:
            yield list(lazy), is_whole

    def fetched(self, stored: Diff) -> int:
        try:
            return fetched(self._tar(Layer(stored.key)).parent)
        except (FileNotFoundError, KernelError):  # it has become whole, or went
            return stored.size

    def lacks(self, stored: Diff) -> bool:
        return stored.lazy and os.path.lexists(self._tar(Layer(stored.key)).with_name(LAZY))

    def make_whole(self, stored: Diff) -> None:
        folder = self._tar(Layer(stored.key)).parent
        if os.path.lexists(folder / LAZY):
            self._held_by().make_whole(folder)

    def complete(self, stored: Diff, parents: Sequence[Layer]) -> None:
        """The listing is made anew, of the tar itself: that of before knew nothing of what is in files."""
        layer = Layer(stored.key)
        made, record = self._listing(layer).with_suffix(".whole"), self.record_of(stored.key)
        made.unlink(missing_ok=True)
        try:
            with (
                self._opened(layer, stored.diff_id, is_there=True) as stream,
                self._merged(self._on(stored, parents)) as below,
            ):
                bottom = stored.dependent and not parents
                tar.take_listing(
                    stream,
                    made,
                    expected=stored.diff_id,
                    below=below,
                    bottom=bottom,
                    limits=UNLIMITED,
                    streamed=True,
                )
            arrived.require_told(made, self._tar(layer).parent, stored)
        except InvalidArchive as error:
            raise _damaged(f"what came of it is not what it should be: {error.message}", stored.diff_id) from error
        syncfs(self.driver.home)
        with named("rename", made):
            os.rename(made, self._listing(layer))
        fsync_folder(made.parent)
        kept = None
        with suppress(Damaged):  # the row decides, and `check` tells of the record
            kept = self.read_record(stored.key)
        if kept is not None:
            draft = self._staged_record(stored.key)
            self.write_record(draft, evolve(kept[0], lazy=False), kept[1])
            syncfs(self.session.folder)
            with named("rename", draft):
                os.rename(draft, record)

    def forget_lazy(self, key: LayerKey) -> None:
        gone = self.session.folder / f"{key}.lazy.gone"
        if forget(self._tar(Layer(key)).parent, gone):
            self.session.discard(gone)

    def lazy_folders(self) -> list[Path]:
        folders = [self._tar(layer).parent for layer in map(Layer, self.driver.keys())]
        return [folder for folder in folders if is_left(folder)]

    def _on(self, stored: Diff, parents: Sequence[Layer]) -> Sequence[Layer] | None:
        return parents if stored.dependent else None

    def _held_by(self) -> Holder:
        if self.holder is None:
            raise self.not_lazy()
        return self.holder

    def take_changes(
        self, container: Layer, parents: Sequence[Layer], *, in_use: bool, latest: int | None = None
    ) -> Staged | None:
        """Packed once: what is hashed on the way is the layer."""
        changes = self.driver.changes(container, parents)
        return self._copy(container, parents, changes, None, latest) if len(changes) else None

    def rebuild(self, origin: Diff, parents: Sequence[Layer], *, staged: bool) -> Staged:
        """Only the listing is another; the tar gets a second name."""
        source = Layer(origin.key, State.STAGED if staged else State.COMMITTED)
        layer = Layer(self.session.new_key(), State.STAGED)
        try:
            self._create(layer)
            with named("link", self._tar(layer)):
                os.link(self._tar(source), self._tar(layer))
            if os.path.lexists(self._tar(source).parent / LAZY):
                return self._rebuilt_lazily(source, layer, origin, parents)
            with self._opened(source, origin.diff_id) as stream:
                return self._listed(layer, stream, parents, origin.diff_id)
        except BaseException as error:
            self.drop([layer], quietly=True)
            name_layer(error, origin.diff_id)
            raise

    def _rebuilt_lazily(self, source: Layer, layer: Layer, origin: Diff, parents: Sequence[Layer]) -> Staged:
        link(self._tar(source).parent, self._tar(layer).parent)
        packed, _ = Lazy.of_folder(self._tar(layer).parent)
        index = LayerIndex.unpacked(packed, UNLIMITED)
        return self._listed(layer, Hollow(index), parents, origin.diff_id, claimed=origin.diff_id)

    def settle(self, staged: Staged, parents: Sequence[Layer]) -> Staged:
        """A listing is made for these parents where names or links of it lead through what they have."""
        if staged.diff.dependent or not (staged.needs_parents or self._leads_away(staged.diff, parents)):
            return staged
        again = self.rebuild(staged.diff, parents, staged=True)
        self.drop([staged.layer])
        return again

    def fits(self, stored: Diff, parents: Sequence[Layer]) -> bool:
        return not stored.dependent and not self._leads_away(stored, parents)

    def _leads_away(self, diff: Diff, parents: Sequence[Layer]) -> bool:
        """Is a symbolic link, in these parents, what the tar takes for a folder?"""
        paths = [name for path in diff.implied if (name := path.rstrip("/"))]  # the root directory is always one
        if not paths or not parents:
            return False
        with self._looking, self._stacked(parents) as stack:
            return any(map(stack.is_symlink, paths))

    @contextmanager
    def _stacked(self, parents: Sequence[Layer]) -> Iterator[LaidTree]:
        """What the parents are as one tree. It is kept until somebody asks for another that does not begin with it."""
        wanted = [parent.key for parent in reversed(parents)]
        keys, stack = self._last or ([], None)
        if stack is None or keys != wanted[: len(keys)]:
            self._forget()
            keys, stack = [], LaidTree()
        self._last = keys, stack
        try:
            for parent in [*reversed(parents)][len(keys) :]:
                stack.add(Part(self._listing(parent), self._tar(parent)))
                keys.append(parent.key)
        except BaseException:
            self._forget()
            raise
        yield stack

    def _forget(self) -> None:
        if self._last is not None:
            self._last[1].close()
        self._last = None

    def keep(self, placed: Sequence[tuple[Staged, Sequence[Layer]]]) -> list[Diff]:
        """In the order that a power cut asks for on every filesystem: sync, rename, fsync of the folder.

        Indexes of the stacks are made before: what cannot be mounted is refused, and a first mount is quick.
        """
        if not placed:
            return []
        below = {parent.key for _, parents in placed for parent in parents}
        for staged, parents in placed:
            if staged.layer.key not in below:
                self._index((staged.layer, *parents))
        recorded = []
        for staged, _ in placed:
            if staged.place is not None:
                self.write_record(self._staged_record(staged.layer.key), staged.diff, staged.place)
                recorded.append(staged.layer.key)
        syncfs(self.driver.home)
        self._share([staged for staged, _ in placed])
        for staged, parents in placed:
            self.driver.seal(staged.layer, parents)
        for key in recorded:
            with named("rename", self.record_of(key)):
                os.rename(self._staged_record(key), self.record_of(key))
        with named("fsync", self.beside):
            fsync_folder(self.beside)
        with self._looking:
            self._forget()
        return [staged.diff for staged, _ in placed]

    def _index(self, tars: Sequence[Layer]) -> None:
        """Have the index of a stack made: of what is in memory of it, if the driver takes that."""
        if not isinstance(self.driver, TakesStacks):
            self.driver.prepare(tars[0], tars[1:], read_only=True)
            return
        with self._looking:
            try:
                with self._stacked(tars) as stack:
                    self.driver.take_stack(tars, stack)
            finally:
                self._forget()  # it is written once

    def _share(self, placed: Sequence[Staged]) -> None:
        """Have content kept once, if the driver is asked to: what is new shares the blocks of what is there.

        It is on the disk by then, for the kernel waits for what is not; and it says the same before and after. No load
        fails because nothing can be shared.
        """
        noted = self.driver.notes_content() if isinstance(self.driver, KeepsContentOnce) else None
        if noted is None:
            return
        from layerstore.layers.sharing import Sharing

        new = {staged.layer.key: staged.layer for staged in placed}
        with (
            suppress(LayerstoreError, OSError),
            Sharing(noted, lambda key: self._tar(new.get(key) or Layer(key))) as sharing,
        ):
            for staged in placed:
                if not staged.diff.lazy:
                    sharing.share(staged.layer.key, self._listing(staged.layer))

    def segment(self, container: Layer, parents: Sequence[Layer], *, in_use: bool) -> LayerKey | None:
        """A folder in any case: nobody asks a segment for its tar, and an index is of tars alone."""
        return Folders(self.driver, self.session, self.beside, self._on_garbage).segment(
            container, parents, in_use=in_use
        )

    # --- out ---

    def give_out(self, stored: Diff, write: Write) -> None:
        digest = self._read(Layer(stored.key), stored.diff_id, write)
        if digest != stored.diff_id:
            raise _damaged("its tar is not what it was", stored.diff_id)

    def salvage(self, stored: Diff, others: Iterable[Diff], trees: Iterable[Layer], write: Write) -> None:
        from layerstore.layers.ranges import salvage

        own = self._part(Layer(stored.key))
        try:
            payloads = tar.lying_in(own.listing)
        except Damaged:  # then the tar may be right
            self.give_out(stored, write)
            return
        salvage(
            own.tar,
            payloads,
            write,
            others=(self._part(Layer(one.key)) for one in others),
            trees=[self.driver.tree(layer) for layer in trees],
        )

    def identify(self, key: LayerKey) -> DiffID:
        return self._read(Layer(key), None, lambda _: None)

    def damages(self, stored: Diff, level: Level, write: Write | None = None) -> Iterator[Damage]:
        return self._damages(stored, level, write or (lambda _: None))

    def damages_arrived(self, stored: Diff, write: Write) -> Iterator[Damage]:
        return self._damages(stored, tar.Level.CONTENT, write)

    def _damages(self, stored: Diff, level: Level, write: Write) -> Iterator[Damage]:
        layer = Layer(stored.key)
        try:
            size = os.lstat(self._tar(layer)).st_size
        except OSError as error:
            yield Damage("/", f"the tar cannot be found: {os.strerror(error.errno or 0)}")
            return
        if size != stored.size:
            yield Damage("/", f"the tar has {size} bytes, not {stored.size}")
        is_read = level is tar.Level.CONTENT and size == stored.size
        if self.lacks(stored):
            found = arrived.damages(self._tar(layer).parent, stored, write if is_read else None)
            yield from (Damage("/", what) for what in found)
        try:
            for _ in tar.entries(self._listing(layer)):
                pass
        except Damaged as error:
            yield Damage("/", error.message)
        if level is not tar.Level.SIZES and isinstance(self.driver, ProvesIndexes):
            for index in self.driver.wrong_indexes(layer, write):
                yield Damage("/", f"{index.name}, which is what is mounted of it, was altered")
        if is_read and not self.lacks(stored):
            try:
                self.give_out(stored, write)
            except Damaged as error:
                yield Damage("/", error.message)

    def entries(self, stored: Diff) -> Iterator[LayerEntry]:
        self.make_whole(stored)  # till then nobody knows what is in its files
        return tar.entries(self._listing(Layer(stored.key)))

    def place_of(self, layer: Layer) -> Path:
        return self._tar(layer) if self._is_tar(layer) else self.driver.tree(layer)

    def has(self, layer: Layer) -> bool:
        with named("stat", self.driver.tree(layer)):
            return self._is_tar(layer) or self.driver.tree(layer).is_dir()

    # --- away ---

    def remove_beside(self, key: LayerKey) -> None:
        gone = self.session.folder / f"{key}.record.gone"
        with named("rename", self.record_of(key)):
            if move_away(self.record_of(key), gone):
                self.session.discard(gone)
            self._staged_record(key).unlink(missing_ok=True)

    def keys_beside(self) -> Iterable[str]:
        with named("open", self.beside):
            return [name.partition(".")[0] for name in os.listdir(self.beside)]

    def hand_over(self, keys: Iterable[LayerKey], beside: Path) -> None:
        for key in keys:
            target = beside / self.record_of(key).name
            with named("link", target):
                if self.record_of(key).exists() and not target.exists():
                    os.link(self.record_of(key), target)
        fsync_folder(beside)

    # --- inside ---

    def _create(self, layer: Layer) -> None:
        """The folder of a layer that is a tar: it has no tree."""
        self.driver.create(layer, ())
        with named("rmdir", self.driver.tree(layer)):
            self.driver.tree(layer).rmdir()

    def _tar(self, layer: Layer) -> Path:
        return self.driver.tree(layer).with_name(TAR)

    def _part(self, layer: Layer) -> Part:
        return Part(self._listing(layer), self._tar(layer))

    def _listing(self, layer: Layer) -> Path:
        return self.driver.tree(layer).with_name(LISTING)

    def _is_tar(self, layer: Layer) -> bool:
        return os.path.lexists(self._tar(layer))

    def _staged_record(self, key: LayerKey) -> Path:
        return self.session.folder / f"{key}.record"

    @contextmanager
    def _opened(self, layer: Layer, diff_id: DiffID | None, *, is_there: bool = False) -> Iterator[Readable]:
        """`is_there`: all of it has come, though the layer is lazy still."""
        path = self._tar(layer)
        if not is_there and os.path.lexists(path.with_name(LAZY)):
            self._held_by().make_whole(path.parent)
        if not os.path.lexists(path):
            raise _damaged("its tar is missing", diff_id, path)
        with named("read", path), open(path, "rb", buffering=0, opener=private) as file:
            yield file

    def _read(self, layer: Layer, diff_id: DiffID | None, write: Write) -> DiffID:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_PIECE))
        with self._opened(layer, diff_id) as stream:
            while count := stream.readinto(buffer):
                digest.update(buffer[:count])
                write(buffer[:count])
        return DiffID(Digest(f"sha256:{digest.hexdigest()}"))


def _damaged(words: str, diff_id: DiffID | None, path: Path | None = None) -> Damaged:
    return Damaged(f"layer {diff_id}: {words}", remedy=_MEND, layer=diff_id, path=path)
