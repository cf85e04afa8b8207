"""Layers kept as folders: a layer's tar goes in, is made part of a stack, and comes out again.

This is the seam at which a driver may keep its layers in another way (as the tar itself, say): `Layers` and `Assembly`
know a diff by its row alone, and everything that touches its files is here. A diff is whole in the driver's home and in
`skeletons/` before `keep` returns, and only then is there a row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import evolve, frozen

from layerstore import tar
from layerstore.digest import DiffID, Digest
from layerstore.driver import Dialect, LayerKey, StorageDriver
from layerstore.errors import Damaged, DigestMismatch, InvalidArchive, KernelError, LayerstoreError, named
from layerstore.kernel.files import fsync_folder, syncfs
from layerstore.kernel.mounts import detached
from layerstore.layers.relay import Write, relay
from layerstore.session import Session
from layerstore.tar import Damage, Level, Readable

_PIECE = 1 << 20

Told = Callable[[int], None]
"""Called with the bytes of the tar done so far."""


@frozen
class Diff:
    """A diff as it is kept: what its row says.

    `implied` are the directories that the tar implies without listing them; they look as in the parents, and
    `implied_digest` says how. `dependent`: unpacked for one stack of parents, of no use on another.
    """

    key: LayerKey
    diff_id: DiffID
    size: int
    entries: int
    root_opaque: bool = False
    implied: tuple[str, ...] = ()
    implied_digest: str = ""
    dependent: bool = False
    damaged: bool = False


@frozen
class Staged:
    """A layer that was taken in and that nobody sees yet."""

    diff: Diff
    needs_parents: bool = False
    notices: tuple[str, ...] = ()
    spool: Path | None = None
    """The tar itself, for a driver that can unpack it on its parents only."""

    @property
    def diff_id(self) -> DiffID:
        """The digest of the tar."""
        return self.diff.diff_id

    @property
    def size(self) -> int:
        """The bytes of the tar."""
        return self.diff.size

    @property
    def entries(self) -> int:
        """How many entries the tar has; 0 while it is only spooled."""
        return self.diff.entries


class Folders:
    """The files of all diffs of a store."""

    def __init__(
        self, driver: StorageDriver, session: Session, skeletons: Path, on_garbage: Callable[[], None]
    ) -> None:
        """`on_garbage` is called when something that ought to go could not be removed."""
        self._on_garbage = on_garbage
        self.driver = driver
        self.session = session
        self.skeletons = skeletons
        self.dialect = driver.capabilities.dialect
        self.independent = driver.capabilities.independent_layers

    # --- in ---

    def take_in(
        self,
        stream: Readable,
        *,
        parents: Sequence[LayerKey] | None = None,
        expected: DiffID | None = None,
        progress: Told | None = None,
    ) -> Staged:
        """Unpack a tar into a new staged layer. Nothing is synced yet; on an error nothing is left.

        `parents` are given for a layer that cannot be unpacked without them; it is then of use on these only.
        """
        key = self.session.new_key()
        try:
            self.driver.create(key, () if self.independent else parents or (), staged=True)
            with self._below(key, parents) as below:
                found = tar.unpack(
                    stream,
                    self.driver.tree(key),
                    dialect=self.dialect,
                    skeleton=self.staged_skeleton(key),
                    expected=expected,
                    below=below,
                    bottom=parents is not None and not parents,
                    progress=counting(progress),
                )
            if found.needs_parents and parents is not None and self.independent:
                raise InvalidArchive("it links to a file that no layer below has", layer=found.diff_id)
        except BaseException as error:
            self.drop([key], quietly=True)
            _name_layer(error, expected)
            raise
        taken = Diff(
            key=key,
            diff_id=found.diff_id,
            size=found.size,
            entries=found.entries,
            root_opaque=found.root_opaque,
            implied=found.implied,
            dependent=parents is not None,
        )
        return Staged(taken, needs_parents=found.needs_parents and parents is None, notices=found.notices)

    def spool(self, stream: Readable, *, expected: DiffID | None = None, progress: Told | None = None) -> Staged:
        """Keep a tar as it is until its parents are known."""
        key = self.session.new_key()
        path = self.session.folder / f"{key}.tar"
        digest, size = hashlib.sha256(), 0
        buffer = memoryview(bytearray(_PIECE))
        try:
            with named("write", path), open(path, "xb", buffering=0) as file:
                while count := stream.readinto(buffer):
                    digest.update(buffer[:count])
                    rest = buffer[:count]
                    while rest:
                        rest = rest[file.write(rest) or 0 :]
                    size += count
                    if progress is not None:
                        progress(size)
            diff_id = DiffID(Digest(f"sha256:{digest.hexdigest()}"))
            if expected is not None and diff_id != expected:
                raise DigestMismatch("layer", expected=expected, actual=diff_id, layer=expected)
        except BaseException:
            self.session.discard(path)
            raise
        return Staged(Diff(key=key, diff_id=diff_id, size=size, entries=0), spool=path)

    def rebuild(self, origin: Diff, parents: Sequence[LayerKey], *, dependent: bool, staged: bool) -> Staged:
        """The same tar unpacked once more, for these parents if it is `dependent`. `staged`: the origin is, too."""
        with relay(lambda write: self._export(origin, write, staged=staged)) as stream:
            return self.take_in(stream, parents=parents if dependent else None, expected=origin.diff_id)

    def settle(self, staged: Staged, parents: Sequence[LayerKey]) -> Staged:
        """Make a staged layer one that lies on `parents`: the directories that its tar only implies look as theirs.

        Returns another one when it had to be unpacked again, which happens for a hard link to a file of a lower layer
        and for an implied directory that is a symbolic link below.
        """
        if self.dialect is Dialect.MERGED:
            return staged
        if staged.needs_parents:
            again = self.rebuild(staged.diff, parents, dependent=True, staged=True)
            self.drop([staged.diff.key])
            return self.settle(again, parents)
        if not staged.diff.implied:
            return staged
        with self._merged(parents) as below:
            facts = tar.adopt_implied(self.driver.tree(staged.diff.key), staged.diff.implied, below, self.dialect)
        if facts.symlinked and not staged.diff.dependent:
            return self.settle(evolve(staged, needs_parents=True), parents)
        return evolve(staged, diff=evolve(staged.diff, implied_digest=facts.digest))

    def fits(self, stored: Diff, parents: Sequence[LayerKey]) -> bool:
        """May `stored` lie on these parents as it is?"""
        if stored.dependent or not self.independent:
            return False
        if not stored.implied:
            return True
        with self._merged(parents) as below:
            facts = tar.implied_digest(stored.implied, below)
        return not facts.symlinked and facts.digest == stored.implied_digest

    def imply_root(self, stored: Diff, parents: Sequence[LayerKey]) -> Diff:
        """The same diff, noted as one whose tar does not list the root directory, which looks as that of `parents`."""
        with self._merged(parents) as below:
            return evolve(stored, implied=("",), implied_digest=tar.implied_digest(("",), below).digest)

    def keep(self, placed: Sequence[tuple[Diff, Sequence[LayerKey]]]) -> list[Diff]:
        """Make staged layers, bottom to top and each with its parents, committed ones; durable when this returns.

        The order is what a power cut on every filesystem asks for: sync, rename, fsync of the parent; the row comes
        after. The keys may be others afterwards, if the driver seals into a new object.
        """
        if not placed:
            return []
        syncfs(self.driver.home)
        sealed: dict[LayerKey, LayerKey] = {}
        kept = []
        for stored, parents in placed:
            key = self.driver.seal(stored.key, [sealed.get(parent, parent) for parent in parents])
            sealed[stored.key] = key
            self._keep_skeleton(stored.key, key)
            kept.append(evolve(stored, key=key))
        with named("fsync", self.skeletons):
            fsync_folder(self.skeletons)
        return kept

    # --- out ---

    def give_out(self, stored: Diff, write: Write) -> None:
        """The tar, byte for byte. Raises `Damaged` or `DigestMismatch`."""
        self._export(stored, write, staged=False)

    def damages(self, stored: Diff, level: Level) -> Iterator[Damage]:
        """What is no longer as it was stored."""
        return tar.verify(self.skeleton(stored.key), self.driver.tree(stored.key), dialect=self.dialect, level=level)

    def skeleton(self, key: LayerKey) -> Path:
        """Where the skeleton of a committed layer lies."""
        return self.skeletons / key

    def staged_skeleton(self, key: LayerKey) -> Path:
        """Where the skeleton of a layer lies that is not committed yet."""
        return self.session.folder / f"{key}.skeleton"

    def require(self, keys: Sequence[LayerKey]) -> None:
        """Raise `Damaged` if the files of one of these layers are gone. Asked when something else has failed."""
        for key in keys:
            if not self.tree_exists(key):
                raise Damaged(
                    f"the files of layer {key} are missing: {self.driver.tree(key)}",
                    remedy="`layerstore check` names the layer. Load an image that has it again: that mends it.",
                    path=self.driver.tree(key),
                )

    def tree_exists(self, key: LayerKey) -> bool:
        """Has the driver the files of `key`?"""
        return self.driver.tree(key).is_dir()

    # --- away ---

    def drop(self, keys: Sequence[LayerKey], *, quietly: bool = False) -> None:
        """Remove layers, staged or committed, with their skeletons. That no row names them is the caller's business.

        What cannot be moved away stays, and is found by the next `open`; `quietly`: and there is something worse to
        tell.
        """
        failures: list[KernelError] = []
        for key in keys:
            for move in (self.driver.remove, self._move_skeleton, self._discard):
                try:
                    move(key)
                except KernelError as error:
                    failures.append(error)
        if failures:
            self._on_garbage()
            if not quietly:
                raise failures[0]

    def drop_writable(self, key: LayerKey) -> None:
        """Remove the layer of a container, which has no skeleton."""
        try:
            self.driver.remove(key)
            self._discard(key)
        except KernelError:
            self._on_garbage()
            raise

    def drop_skeleton(self, key: LayerKey) -> None:
        """Remove a skeleton alone."""
        for path in self._move_skeleton(key):
            self.session.discard(path)

    # --- inside ---

    def _discard(self, key: LayerKey) -> None:
        """Delete what staging has of a key: the beginning of a name there is the key, whatever a driver adds to it."""
        folder = self.session.folder
        with named("open", folder):
            names = os.listdir(folder)
        for name in names:
            if name.startswith(key):
                self.session.discard(folder / name)

    def _move_skeleton(self, key: LayerKey) -> list[Path]:
        moved = []
        for skeleton in (self.skeleton(key), tar.shadow_of(self.skeleton(key))):
            target = self.session.folder / f"{key}.{skeleton.suffix[1:] or 'skeleton'}.gone"
            with named("rename", skeleton):
                try:
                    os.rename(skeleton, target)
                    moved.append(target)
                except FileNotFoundError:
                    pass
        return moved

    @contextmanager
    def _merged(self, parents: Sequence[LayerKey] | None) -> Iterator[int | None]:
        """A directory descriptor of the tree that `parents` make; None if there are none."""
        if not parents:
            yield None
            return
        with detached(self.driver.mounts(parents[0], parents[1:], read_only=True)) as root:
            yield root

    @contextmanager
    def _below(self, key: LayerKey, parents: Sequence[LayerKey] | None) -> Iterator[int | None]:
        """What a tar unpacked into `key` finds below it: the parents' tree, or its own where that holds them."""
        if self.dialect is not Dialect.MERGED or not parents:
            with self._merged(parents) as below:
                yield below
            return
        own = os.open(self.driver.tree(key), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield own
        finally:
            os.close(own)

    def _export(self, stored: Diff, write: Write, *, staged: bool) -> None:
        skeleton = self.staged_skeleton(stored.key) if staged else self.skeleton(stored.key)
        try:
            tar.export(skeleton, self.driver.tree(stored.key), write, expected=stored.diff_id)
        except LayerstoreError as error:
            _name_layer(error, stored.diff_id)
            raise

    def _keep_skeleton(self, staged: LayerKey, key: LayerKey) -> None:
        source, target = self.staged_skeleton(staged), self.skeleton(key)
        with named("rename", source):
            try:
                os.rename(tar.shadow_of(source), tar.shadow_of(target))
            except FileNotFoundError:
                pass  # only a tar that overwrites its own entries has one
            os.rename(source, target)


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


def _name_layer(error: BaseException, diff_id: DiffID | None) -> None:
    """Say in an error which layer it is about."""
    if isinstance(error, LayerstoreError) and error.layer is None and diff_id is not None:
        error.layer = diff_id
        error.message = f"layer {diff_id}: {error.message}"
