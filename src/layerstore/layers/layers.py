"""Layers as the database has them: chains, the diffs they share, who needs them, and what nobody needs any more.

A layer is a DiffID on a parent; its files are a diff, which several layers may share. Two invariants: a layer has a row
only while its files are whole and on disk (rows last on the way in, first on the way out), and nothing that an image, a
container or a lease reaches is ever removed. How layers come in is in `assembly`, their files are in `files`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore.digest import short
from layerstore.driver import Layer, LayerKey, State
from layerstore.errors import Damaged, DepthExceeded, KernelError, LayerstoreError, NotFound, ReadOnlyStore, named
from layerstore.kernel.files import Writeback, syncfs
from layerstore.layers import rows
from layerstore.layers.diffs import committed
from layerstore.layers.lasting import rows as lasting
from layerstore.layers.stored import StoredLayer

if TYPE_CHECKING:
    from layerstore.database import Database, Transaction
    from layerstore.digest import ChainID, DiffID
    from layerstore.layers.diffs import Diff, Since, Staged
    from layerstore.layers.files import LayerFiles
    from layerstore.layers.relay import Write
    from layerstore.layers.sources import Progress
    from layerstore.layers.storage import Storage
    from layerstore.limits import Limits
    from layerstore.locks import Locks
    from layerstore.session import Session
    from layerstore.tar import LayerEntry, Readable


class Layers:
    """The layers of a store."""

    def __init__(
        self,
        database: Database,
        locks: Locks,
        session: Session,
        storage: Storage,
        limits: Limits,
    ) -> None:
        self.database = database
        self.locks = locks
        self.session = session
        self.limits = limits
        """How much is taken in."""
        self._storage = storage
        self._unused: dict[LayerKey, Staged] = {}

    @property
    def files(self) -> LayerFiles:
        """The files of the layers."""
        return self._storage.files

    # --- in ---

    def stage(
        self,
        stream: Readable,
        *,
        expected: DiffID | None = None,
        parents: Sequence[Layer] | None = None,
        label: str = "",
        progress: Progress | None = None,
    ) -> Staged:
        """Take a layer's tar in before it is known where it belongs, or (`parents`) which layer it is.

        It is unpacked, unless the driver needs its parents for that, and they are not given. The result goes to
        `Images.add_staged` or to `discard`. Raises `DigestMismatch` and `InvalidArchive`, and leaves nothing then.
        """
        self.database.require_writable()
        name = label or expected or ""
        told = None if progress is None else lambda done: progress(name, done, None)
        on = None if self.files.independent else parents
        staged = self.files.take_in(stream, parents=on, expected=expected, progress=told, limits=self.limits)
        self._unused[staged.diff.key] = staged
        if progress is not None:
            progress(name, staged.size, staged.size)
        return staged

    def stage_changes(
        self,
        container: Layer,
        parents: Sequence[Layer],
        *,
        in_use: bool,
        since: Since | None = None,
        latest: int | None = None,
    ) -> Staged | None:
        """The same with what a container has changed; None if that is nothing. See `LayerFiles.take_changes`.

        `since`: against a stack further down than its parents. `latest`, in ns since the epoch: what was written later
        gets this time; in the container, too, if nobody is in it.
        """
        if since is None:
            if latest is not None and not in_use:
                self.files.clamp(container, parents, latest)
            staged = self.files.take_changes(container, parents, in_use=in_use, latest=latest)
        else:
            staged = self.files.take_changes_since(container, parents, since, latest)
        if staged is not None:
            self._unused[staged.diff.key] = staged
        return staged

    def discard(self, staged: Staged) -> None:
        """Give up a staged layer. What became a layer of an image is left alone, and so is a container's own."""
        if self._unused.pop(staged.diff.key, None) is None:
            return
        if staged.is_container:
            self.files.drop_beside(staged.diff.key)
        else:
            self.files.drop([staged.layer], quietly=True)

    def consume(self, staged: Staged) -> bool:
        """From here on `staged` belongs to an assembly. False if it was used or discarded already."""
        return self._unused.pop(staged.diff.key, None) is not None

    def hold(self, diff_id: DiffID, purpose: str) -> list[int] | None:
        """See whether this content is the store's own, and whole, so that it need not be taken in once more.

        None if it is not; else the numbers of leases, which keep it until `end_leases`.
        """
        with self.database.write(durable=False) as tx:
            found = [diff for diff in rows.find_diffs(tx, diff_id) if not Layer(diff.key).is_borrowed]
            leases = rows.add_leases(tx, self.session.name, [("diff", diff.key) for diff in found], purpose)
        from layerstore.tar import Level

        if any(next(iter(self.files.damages(diff, Level.SIZES)), None) is None for diff in found):
            return leases
        self.end_leases(leases)
        return None

    def writeback(self) -> AbstractContextManager[object]:
        """While inside, what is unpacked is written to disk early."""
        return Writeback(self._storage.driver.home)

    def spool(self, suffix: str = "") -> Path:
        """A name for a file in this process's staging folder, on the filesystem of the store."""
        return self.session.folder / f"{self.session.new_key()}{suffix}"

    # --- what there is ---

    def named(self, name: str) -> ChainID:
        """A layer that has this ChainID, or this DiffID. Raises `NotFound`."""
        with self.database.read() as tx:
            return rows.named(tx, name)

    def size(self, chain_id: ChainID) -> int:
        """The bytes of a layer's tar."""
        return self._one(chain_id).size

    def get(self, chain_id: ChainID) -> StoredLayer:
        """A layer. Raises `NotFound`."""
        with self.database.read() as tx:
            return rows.stored(tx, chain_id)

    def all(self) -> list[StoredLayer]:
        """All of them, in the order of their ChainIDs."""
        with self.database.read() as tx:
            found = rows.all_kept(tx)
        return [StoredLayer(chain, one.parent, one.diff_id, one.size, one.damaged) for chain, one in found.items()]

    def stack(self, chain_id: ChainID | None) -> rows.Stack:
        """A layer and everything below it."""
        with self.database.read() as tx:
            return rows.stack(tx, chain_id)

    def give_out(self, chain_id: ChainID, write: Write) -> None:
        """The tar of a layer, byte for byte as it came in; its DiffID is verified.

        Raises `Damaged`, and remembers it: the next load of the layer unpacks it anew.
        """
        with self.lease([("layer", chain_id)], "being read"):
            stored = self._one(chain_id)
            try:
                self.files.give_out(stored, write)
            except Damaged:
                self.mark_damaged(stored.key)
                raise

    def entries(self, chain_id: ChainID) -> Iterator[LayerEntry]:
        """What a layer says of each name in its tree, parents before what is in them. Raises `NotFound`, `Damaged`."""
        with self.lease([("layer", chain_id)], "being read"):
            return self.files.entries(self._one(chain_id))

    def mark_damaged(self, key: LayerKey, *, damaged: bool = True) -> None:
        """Note in the row that the files of a diff are not what they were, or are again."""
        with suppress(ReadOnlyStore), self.database.write() as tx:
            rows.set_damaged(tx, key, damaged=damaged)

    def check_depth(self, depth: int) -> None:
        """Raise `DepthExceeded` if a stack of so many layers cannot be mounted."""
        driver = self._storage.driver
        limit = driver.capabilities.max_depth
        if limit is not None and depth > limit:
            raise DepthExceeded(
                f"a stack of {depth} layers: {driver.name} mounts at most {limit}",
                remedy="Put several layers into one: export a container of the image and import the result.",
            )

    def _one(self, chain_id: ChainID) -> Diff:
        with self.database.read() as tx:
            found = rows.find(tx, [chain_id])
        if chain_id not in found:
            raise NotFound(f"no layer {chain_id}")
        return found[chain_id]

    # --- leases ---

    @contextmanager
    def lease(self, wanted: Iterable[tuple[str, str]], purpose: str) -> Iterator[None]:
        """While inside, none of `wanted` (kind and name: "image", "layer" or "diff") is removed by anybody."""
        with self.database.write(durable=False) as tx:
            numbers = rows.add_leases(tx, self.session.name, wanted, purpose)
        try:
            yield
        finally:
            self.end_leases(numbers)

    @contextmanager
    def held(self, chain_id: ChainID | None, purpose: str) -> Iterator[rows.Stack]:
        """While inside, a layer and everything below it is there. Raises `NotFound`."""
        with self.database.write(durable=False) as tx:
            stack = rows.stack(tx, chain_id)
            wanted = [("diff", str(diff.key)) for diff in stack.diffs]
            wanted += [] if chain_id is None else [("layer", str(chain_id))]
            numbers = rows.add_leases(tx, self.session.name, wanted, purpose)
        try:
            yield stack
        finally:
            self.end_leases(numbers)

    def end_leases(self, numbers: Sequence[int]) -> None:
        """Give back leases by their numbers, those that are not given back yet."""
        with self.database.read() as tx:
            left = rows.are_leases(tx, numbers)
        if left:
            with self.database.write(durable=False) as tx:
                rows.end_leases(tx, numbers)

    def lease_lastingly(self, tx: Transaction | None, chain_id: ChainID, *, owner: str, name: str) -> None:
        """`Store.lease`."""
        if tx is not None:
            lasting.put_lasting_lease(tx, owner, name, chain_id)
            return
        with self.database.write() as own:
            before = lasting.put_lasting_lease(own, owner, name, chain_id)
            keys = rows.release(own, before)[1]
        self.drop(keys)

    def end_lasting_leases(self, owner: str, names: Iterable[str]) -> list[ChainID]:
        """`Store.end_leases`."""
        self.session.begin()  # so that whoever finds it dead looks for what it left
        with self.database.write() as tx:
            gone, keys = lasting.end_lasting_leases(tx, owner, names)
        self.drop(keys)
        return gone

    def lasting_leases(self, owner: str) -> dict[str, ChainID]:
        """`Store.leases`."""
        with self.database.read() as tx:
            return lasting.lasting_leases(tx, owner)

    # --- away ---

    def drop(self, keys: Sequence[LayerKey], *, staged: bool = False, quietly: bool = False) -> None:
        """Remove the files of those of `keys` that have no row; `quietly`: or leave it to the next `open`.

        `staged`: they may still lie in the staging folder. The database is asked each time, for an interrupt may come
        between a commit and the line after it.
        """
        if not keys:
            return
        try:
            self._drop(keys, staged=staged, quietly=quietly)
        except BaseException as error:
            self._storage.on_garbage()
            if not (quietly and isinstance(error, LayerstoreError)):
                raise

    def _drop(self, keys: Sequence[LayerKey], *, staged: bool, quietly: bool) -> None:
        with self.database.read() as tx:
            rowless = [key for key in dict.fromkeys(keys) if not rows.has_diff(tx, key)]
            writable = {key for key in rowless if rows.has_row(tx, key)}
        doomed = [key for key in rowless if key not in writable]
        if staged:
            self.files.drop([Layer(key, State.STAGED) for key in doomed], quietly=quietly)
        self.files.drop([Layer(key) for key in doomed], quietly=quietly)
        for key in writable:  # a container's, whose commit came to nothing
            self.files.drop_beside(key, quietly=quietly)

    def drop_beside(self, key: LayerKey) -> None:
        """Remove what is kept beside the home of a key that no diff has."""
        with self.database.read() as tx:
            is_kept = rows.has_diff(tx, key)
        if not is_kept:
            self.files.drop_beside(key)

    def recover(self) -> None:
        """End the leases of dead processes, and remove the layers that nothing needs any more."""
        with self.database.write(durable=False) as tx:
            rows.end_dead_leases(tx, self.session.staging)
        self.prune()

    def complete_records(self) -> None:
        """Write down each diff that has no record: those that an earlier version took in. Raises `KernelError`."""
        with self.database.read() as tx:
            lacking = [
                diff
                for diff in rows.all_diffs(tx)
                if not Layer(diff.key).is_borrowed and not self.files.record_of(diff.key).exists()
            ]
            places = rows.places(tx) if lacking else {}
        drafts = {diff.key: self.session.folder / f"{diff.key}.record" for diff in lacking if diff.key in places}
        for diff in lacking:
            if diff.key in drafts:
                self.files.write_record(drafts[diff.key], diff, places[diff.key])
        if drafts:
            syncfs(self.session.folder)  # one that has its name is never written again
        for key, draft in drafts.items():
            with named("rename", draft):
                draft.rename(self.files.record_of(key))

    def is_whole(self, key: LayerKey) -> bool:
        """Does the row of a diff say that all of its tar is there? No, if it has none."""
        with self.database.read() as tx:
            return rows.has_diff(tx, key) and not rows.find_diff(tx, key).lazy

    def complete(self, key: LayerKey) -> None:
        """All of a lazy layer has come: prove it, and note that it is one like any other.

        Raises `NotFound` if no layer has this key, or none yet; `Damaged`, which is remembered.
        """
        with self.database.read() as tx:
            stored = rows.find_diff(tx, key)
            parents = committed(rows.visible(rows.parents_of_diff(tx, key))) if stored.dependent else ()
        if stored.lazy:
            try:
                self.files.complete(stored, parents)
            except Damaged as error:
                if error.layer == stored.diff_id:  # not what it stands on
                    self.mark_damaged(key)
                raise
            with self.database.write() as tx:
                rows.set_whole(tx, key)
        self.files.forget_lazy(key)

    def still_lazy(self, folders: Iterable[Path]) -> list[Path]:
        """Those of these folders whose layers may be lazy. Where a row says that one is not, what says so else goes.

        Whoever completed it may have died over that, or had no room for it: so it may keep it for a while.
        """
        left = []
        for folder in folders:
            key = LayerKey(folder.name)
            if self.is_whole(key):
                with suppress(KernelError):
                    self.files.forget_lazy(key)
                    continue
            left.append(folder)
        return left

    def forget_lazy(self) -> None:
        """The same of all layers."""
        self.still_lazy(self.files.lazy_folders())

    @contextmanager
    def recording_order(self, chain_ids: Sequence[ChainID], path: Path) -> Iterator[None]:
        """See `Store.record_order`, for the layers of these chains."""
        from layerstore.layers.recording import recording

        with self.database.read() as tx:
            stored = list(rows.find(tx, chain_ids).values())
        with recording(self.files, stored, path):
            yield

    def make_whole(self, chain_ids: Iterable[ChainID], told: Callable[[str], None] | None = None) -> None:
        """Wait until all of these layers is there. `told` is given a line for each that is lazy.

        Raises `LayerstoreError`, which says why one does not come.
        """
        with self.database.read() as tx:
            lazy = [one for one in rows.find(tx, chain_ids).values() if one.lazy]
        for stored in lazy:
            if told is not None:
                told(f"{short(stored.diff_id)}: was lazy, and is waited for until all of it is there")
            self.files.make_whole(stored)

    def lazy(self) -> list[Diff]:
        """The layers of which not all is there."""
        with self.database.read() as tx:
            return rows.lazy(tx)

    def total_size(self) -> int:
        """The bytes of the tars of all diffs that are kept."""
        with self.database.read() as tx:
            return rows.total_size(tx)

    def prune(self) -> list[ChainID]:
        """Remove every layer that nothing needs."""
        with self.database.write() as tx:
            gone, keys = rows.release_unreachable(tx)
        self.drop(keys)
        return gone
