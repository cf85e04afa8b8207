"""Layers kept as folders: a layer's tar is unpacked, made part of a stack, and put together again bit for bit.

The files are in the driver's home, in its dialect; all else of the tar is a skeleton, in the folder `skeletons` of the
data-root, under the same key. Both are in place before `keep` returns.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore import tar
from layerstore.changes import compare_trees
from layerstore.digest import DiffID, Digest
from layerstore.driver import Dialect, Layer, LayerKey, State, look
from layerstore.errors import DigestMismatch, InvalidArchive, LayerstoreError, named
from layerstore.kernel.files import fsync_folder, move_away, syncfs
from layerstore.kernel.files.descriptors import FOLDER, opened, private
from layerstore.layers.diffs import Diff, Staged
from layerstore.layers.files import LayerFiles, Told, counting, name_layer
from layerstore.layers.relay import Write, relay
from layerstore.layers.salvaging import salvage
from layerstore.limits import UNLIMITED, Limits
from layerstore.tar import Damage, EntryKind

if TYPE_CHECKING:
    from layerstore.changes import Changes
    from layerstore.tar import LayerEntry, Level, Readable

_PIECE = 1 << 20


class Folders(LayerFiles):
    """The way of every driver that does not say otherwise."""

    @property
    def dialect(self) -> Dialect:
        """How the driver marks what a layer removes."""
        return self.driver.capabilities.dialect

    @property
    def independent(self) -> bool:
        return self.dialect is not Dialect.MERGED

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
        if parents is None and not self.independent:
            return self._spool(stream, expected, progress, limits)
        layer = Layer(self.session.new_key(), State.STAGED)
        try:
            self.driver.create(layer, () if self.independent else parents or ())
            with self._below(layer, parents) as below:
                found = tar.unpack(
                    stream,
                    self.driver.tree(layer),
                    dialect=self.dialect,
                    skeleton=self._staged_skeleton(layer.key),
                    expected=expected,
                    below=below,
                    bottom=parents is not None and not parents,
                    progress=counting(progress),
                    limits=limits,
                )
            if found.needs_parents and parents is not None and self.independent:
                raise InvalidArchive("it links to a file that no layer below has", layer=found.diff_id)
        except BaseException as error:
            self.drop([layer], quietly=True)
            name_layer(error, expected)
            raise
        taken = Diff(
            key=layer.key,
            diff_id=found.diff_id,
            size=found.size,
            entries=found.entries,
            root_opaque=found.root_opaque,
            implied=found.implied,
            dependent=parents is not None,
        )
        return Staged(
            taken,
            layer,
            needs_parents=found.needs_parents and parents is None,
            notices=found.notices,
            on=None if self.independent or parents is None else tuple(parents),
        )

    def take_changes(
        self, container: Layer, parents: Sequence[Layer], *, in_use: bool, latest: int | None = None
    ) -> Staged | None:
        changes = self.driver.changes(container, parents)
        if not len(changes):
            return None
        if in_use or not changes.sealable:
            # What programs may alter meanwhile, or what the layer has only attributes or directions of, is copied.
            return self._copy(container, parents, changes, None, latest)
        return self._take_own(container, changes, parents)

    def _take_own(self, container: Layer, changes: Changes, parents: Sequence[Layer]) -> Staged:
        """The writable layer itself: it is read once, to hash it, and stays where it is."""
        skeleton = self._staged_skeleton(container.key)
        try:
            with look(self.driver, container, parents) as root:
                packed = tar.pack(changes, root, skeleton=skeleton)
            own = Diff(container.key, packed.diff_id, packed.size, packed.entries, dependent=not self.independent)
            if changes[0].path != "/" and self.independent:
                # Its tar does not list the root directory, which looks as that of the parents.
                with self._merged(parents) as below:
                    own = evolve(own, implied=("",), implied_digest=tar.implied_digest(("",), below).digest)
        except BaseException:
            skeleton.unlink(missing_ok=True)
            raise
        return Staged(own, container, notices=packed.notices)

    def _spool(self, stream: Readable, expected: DiffID | None, progress: Told | None, limits: Limits) -> Staged:
        """Keep a tar as it is until its parents are known."""
        layer = Layer(self.session.new_key(), State.STAGED)
        path = self.session.folder / f"{layer.key}.tar"
        digest, size = hashlib.sha256(), 0
        buffer = memoryview(bytearray(_PIECE))
        try:
            with named("write", path), open(path, "xb", buffering=0, opener=private) as file:
                while count := stream.readinto(buffer):
                    digest.update(buffer[:count])
                    rest = buffer[:count]
                    while rest:
                        rest = rest[file.write(rest) or 0 :]
                    size += count
                    limits.check("max-layer-size", size, "the layer's tar")
                    if progress is not None:
                        progress(size)
            diff_id = DiffID(Digest(f"sha256:{digest.hexdigest()}"))
            if expected is not None and diff_id != expected:
                raise DigestMismatch("layer", expected=expected, actual=diff_id, layer=expected)
        except BaseException:
            self.session.discard(path)
            raise
        return Staged(Diff(key=layer.key, diff_id=diff_id, size=size, entries=0), layer, spool=path)

    def rebuild(self, origin: Diff, parents: Sequence[Layer], *, staged: bool) -> Staged:
        needed = origin.dependent or not self.independent
        return self._rebuild(origin, parents if needed else None, staged=staged)

    def _rebuild(self, origin: Diff, parents: Sequence[Layer] | None, *, staged: bool) -> Staged:
        with relay(lambda write: self._export(origin, write, staged=staged)) as stream:
            return self.take_in(stream, parents=parents, expected=origin.diff_id)

    def settle(self, staged: Staged, parents: Sequence[Layer]) -> Staged:
        """The directories that a tar implies without listing them get the looks of the parents'.

        It is unpacked again for a hard link to a file of a lower layer, and where an implied directory is a symbolic
        link below.
        """
        if not self.independent or staged.is_container:
            return staged
        if staged.needs_parents:
            again = self._rebuild(staged.diff, parents, staged=True)
            self.drop([staged.layer])
            return self.settle(again, parents)
        if not staged.diff.implied:
            return staged
        with self._merged(parents) as below:
            facts = tar.adopt_implied(self.driver.tree(staged.layer), staged.diff.implied, below, self.dialect)
        if facts.symlinked and not staged.diff.dependent:
            return self.settle(evolve(staged, needs_parents=True), parents)
        return evolve(staged, diff=evolve(staged.diff, implied_digest=facts.digest))

    def fits(self, stored: Diff, parents: Sequence[Layer]) -> bool:
        if stored.dependent or not self.independent:
            return False
        if not stored.implied:
            return True
        with self._merged(parents) as below:
            facts = tar.implied_digest(stored.implied, below)
        return not facts.symlinked and facts.digest == stored.implied_digest

    def keep(self, placed: Sequence[tuple[Staged, Sequence[Layer]]]) -> list[Diff]:
        """In the order that a power cut asks for on every filesystem: sync, rename, fsync of the folder."""
        if not placed:
            return []
        for staged, _ in placed:
            if staged.place is not None:
                self.write_record(self._staged_record(staged.layer.key), staged.diff, staged.place)
        syncfs(self.driver.home)
        sealed: dict[LayerKey, Layer] = {}
        kept = []
        try:
            for staged, parents in placed:
                key = self.driver.seal(staged.layer, [sealed.get(parent.key, parent) for parent in parents])
                sealed[staged.layer.key] = Layer(key)
                self._keep_skeleton(staged.layer.key, key)
                kept.append(evolve(staged.diff, key=key))
            with named("fsync", self.beside):
                fsync_folder(self.beside)
        except BaseException:
            own = {staged.layer.key for staged, _ in placed if staged.is_container}  # which goes on being a container's
            self.drop([layer for layer in sealed.values() if layer.key not in own], quietly=True)
            raise
        return kept

    # --- out ---

    def give_out(self, stored: Diff, write: Write) -> None:
        self._export(stored, write, staged=False)

    def identify(self, key: LayerKey) -> DiffID:
        return tar.export(self._skeleton(key), self.driver.tree(Layer(key)), lambda _: None, expected=None)

    def damages(self, stored: Diff, level: Level, write: Write | None = None) -> Iterator[Damage]:
        tree = self.driver.tree(Layer(stored.key))
        return tar.verify(self._skeleton(stored.key), tree, dialect=self.dialect, level=level)

    def inherited_damages(self, stored: Diff, parents: Sequence[Layer], *, content: bool) -> Iterator[Damage]:
        if self.independent:
            return
        with ExitStack() as undo:
            own = undo.enter_context(opened(self.driver.tree(Layer(stored.key)), FOLDER))
            below = undo.enter_context(opened(self.driver.tree(parents[0]), FOLDER)) if parents else None
            changes = compare_trees(own, below, content=content)
        told = _told(self.entries(stored))
        for change in changes:
            if not told(os.fsencode(change.path.strip("/"))):
                yield Damage(change.path, f"it is not as in the layers below ({change.kind.value})")

    def salvage(self, stored: Diff, others: Iterable[Diff], trees: Iterable[Layer], write: Write) -> None:
        scratch = self.session.folder / f"{self.session.new_key()}.salvage"
        try:
            salvage(
                self._skeleton(stored.key),
                self.driver.tree(Layer(stored.key)),
                write,
                expected=stored.diff_id,
                scratch=scratch,
                others=lambda: ((self._skeleton(one.key), self.driver.tree(Layer(one.key))) for one in others),
                trees=[self.driver.tree(layer) for layer in trees],
            )
        finally:
            if scratch.is_dir():
                self.session.discard(scratch)

    def entries(self, stored: Diff) -> Iterator[LayerEntry]:
        return tar.entries(self._skeleton(stored.key))

    def place_of(self, layer: Layer) -> Path:
        return self.driver.tree(layer)

    def has(self, layer: Layer) -> bool:
        with named("stat", self.driver.tree(layer)):
            return self.driver.tree(layer).is_dir()

    # --- away ---

    def remove_beside(self, key: LayerKey) -> None:
        for path in self._move_skeleton(key):
            self.session.discard(path)
        for staged in (self._staged_skeleton(key), self._staged_record(key)):
            with named("unlink", staged):
                staged.unlink(missing_ok=True)

    def keys_beside(self) -> Iterable[str]:
        with named("open", self.beside):
            return [name.partition(".")[0] for name in os.listdir(self.beside)]

    def hand_over(self, keys: Iterable[LayerKey], beside: Path) -> None:
        for key in keys:
            source, target = self._skeleton(key), beside / key
            shadow, new_shadow = tar.shadow_of(source), tar.shadow_of(target)
            with named("link", target):
                _link(source, target)
                if (record := self.record_of(key)).exists():
                    _link(record, beside / record.name)
                if shadow.is_dir():
                    new_shadow.mkdir(mode=0o700, exist_ok=True)
                    for name in os.listdir(shadow):
                        _link(shadow / name, new_shadow / name)
                    fsync_folder(new_shadow)
        fsync_folder(beside)

    # --- inside ---

    def _skeleton(self, key: LayerKey) -> Path:
        """Where the skeleton of a committed layer lies."""
        return self.beside / key

    def _staged_skeleton(self, key: LayerKey) -> Path:
        """Where the skeleton of a layer lies that is not committed yet."""
        return self.session.folder / f"{key}.skeleton"

    def _staged_record(self, key: LayerKey) -> Path:
        """Where the record of such a layer lies."""
        return self.session.folder / f"{key}.record"

    def _move_skeleton(self, key: LayerKey) -> list[Path]:
        moved = []
        for skeleton in (self._skeleton(key), tar.shadow_of(self._skeleton(key)), self.record_of(key)):
            target = self.session.folder / f"{key}.{skeleton.suffix[1:] or 'skeleton'}.gone"
            with named("rename", skeleton):
                if move_away(skeleton, target):
                    moved.append(target)
        return moved

    def _keep_skeleton(self, staged: LayerKey, key: LayerKey) -> None:
        source, target = self._staged_skeleton(staged), self._skeleton(key)
        with named("rename", source):
            for part, kept in (
                (tar.shadow_of(source), tar.shadow_of(target)),  # only a tar that overwrites its own entries has one
                (self._staged_record(staged), self.record_of(key)),  # of a layer, not of a segment
            ):
                try:
                    os.rename(part, kept)
                except FileNotFoundError:
                    pass
            os.rename(source, target)

    @contextmanager
    def _below(self, layer: Layer, parents: Sequence[Layer] | None) -> Iterator[int | None]:
        """What a tar unpacked into `layer` finds below it: the parents' tree, or its own where that holds them."""
        if self.independent or not parents:
            with self._merged(parents) as below:
                yield below
            return
        with opened(self.driver.tree(layer), FOLDER) as own:
            yield own

    def _export(self, stored: Diff, write: Write, *, staged: bool) -> None:
        skeleton = self._staged_skeleton(stored.key) if staged else self._skeleton(stored.key)
        layer = Layer(stored.key, State.STAGED if staged else State.COMMITTED)
        try:
            tar.export(skeleton, self.driver.tree(layer), write, expected=stored.diff_id)
        except LayerstoreError as error:
            name_layer(error, stored.diff_id)
            raise


def _told(entries: Iterable[LayerEntry]) -> Callable[[bytes], bool]:
    """Does a layer say something of a name, itself or by what it has for a folder above, or of what is in it?"""
    listed, hidden = {b""}, set()
    for entry in entries:
        path = entry.path
        while path not in listed:
            listed.add(path)
            path = path.rpartition(b"/")[0]
        if entry.opaque or entry.covers or entry.kind is not EntryKind.FOLDER:
            hidden.add(entry.path)

    def told(path: bytes) -> bool:
        if path in listed:
            return True
        while path:
            path = path.rpartition(b"/")[0]
            if path in hidden:
                return True
        return False

    return told


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:  # by an earlier try, and the same file: keys are not used twice
        pass
