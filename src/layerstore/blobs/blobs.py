"""Blobs by their digest: what a registry has, seen from a store.

A store keeps layers by their DiffID, unpacked; a registry has blobs, most of them compressed. Here it is remembered
which blob holds which layer and where it was seen, and which blobs can be given out to the byte: those that are kept as
files, plain tars, configs of images, manifests, and compressed layers whose recipe is known.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore import facts
from layerstore.blobs import kept, links, rows
from layerstore.blobs.kept import KeptFiles, Readable
from layerstore.blobs.outgoing import Outgoing
from layerstore.blobs.partials import Growing, Partial, Partials
from layerstore.blobs.values import KnownBlob, Place
from layerstore.database import Database, Transaction, schema
from layerstore.digest import DiffID, Digest, ImageID, hex_of
from layerstore.errors import Damaged, DigestMismatch, KernelError, NotFound, named
from layerstore.kernel.files.descriptors import file_of
from layerstore.layers import Layers
from layerstore.layers.relay import Write
from layerstore.limits import Limits
from layerstore.locks import Locks
from layerstore.values import frozen
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.compression import Stream
    from layerstore.manifests import Manifest

__all__ = ["Blobs", "Remains"]


@frozen
class Remains:
    """What lies on the disk: kept blobs, and partial downloads and uploads; each as a number and bytes.

    `unneeded` are those of the kept ones to which nothing refers: `prune` removes them. With `all_images=True` it
    removes the partial ones that nobody has open, too.
    """

    kept: int = 0
    kept_size: int = 0
    unneeded: int = 0
    unneeded_size: int = 0
    partial: int = 0
    partial_size: int = 0


@in_words("blobs")
class Blobs:
    """The blobs of a store. Thread-safe."""

    def __init__(self, data_root: Path, database: Database, locks: Locks, layers: Layers, *, is_writable: bool) -> None:
        self._database = database
        self._layers = layers
        self._files = KeptFiles(data_root, database, locks)
        self._partials = Partials(data_root / "partial")
        self._outgoing = Outgoing(database, layers, self._files, is_writable=is_writable)
        self._is_writable = is_writable

    @property
    def store_id(self) -> str:
        """The ID of the store whose blobs they are."""
        return facts.read(self._database)["id"]

    # --- which blob holds which layer ---

    def known(self, digests: Iterable[Digest]) -> Mapping[Digest, DiffID]:
        """The layers (by DiffID) that those of the blobs hold of which that is known: each was found out here once."""
        found = {}
        with self._database.read() as tx:
            if rows.are_there(tx):
                for digest in digests:
                    if (blob := rows.find_known(tx, digest)) is not None:
                        found[digest] = blob.diff_id
        return found

    def remember(self, tx: Transaction | None, blob: KnownBlob, places: Iterable[Place | tuple[str, str]] = ()) -> None:
        """Remember that a blob holds a layer, which the caller has seen with its own eyes; and where the blob was seen.

        `tx`: in this transaction, in which the image is written; None: in one of its own. `places`: registry and
        repository. What is known of a layer goes when the layer does.

        @private
        """
        with self._writing(tx) as mine:
            rows.insert_known(mine, blob)
            for place in places:
                rows.insert_places(mine, [blob.digest], _place(place))

    def forms_of(self, diff_id: DiffID) -> list[KnownBlob]:
        """The blobs that are known to hold a layer, those that came first before the others."""
        with self._database.read() as tx:
            return rows.forms_of(tx, diff_id) if rows.are_there(tx) else []

    # --- where blobs were seen ---

    def saw(self, tx: Transaction | None, digests: Iterable[Digest], registry: str, repository: str) -> None:
        """Remember that blobs (of layers, configs, whatever) are in a repository. `tx`: see `remember`."""
        with self._writing(tx) as mine:
            rows.insert_places(mine, digests, Place(registry, repository))

    def places(self, digest: Digest, registry: str) -> list[str]:
        """The repositories of a registry in which a blob was seen, the last first: it may be mounted from there."""
        return [place.repository for place in self.all_places(digest) if place.registry == registry]

    def all_places(self, digest: Digest) -> list[Place]:
        """All repositories in which a blob was seen, the last first: its bytes may be had there."""
        with self._database.read() as tx:
            return rows.places(tx, digest) if rows.are_there(tx) else []

    # --- manifests ---

    @property
    def limits(self) -> Limits:
        """How much is taken in."""
        return self._layers.limits

    def put_manifest(
        self,
        media_type: str,
        data: bytes,
        *,
        images: Iterable[ImageID] = (),
        expected: Digest | None = None,
        tx: Transaction | None = None,
    ) -> Manifest:
        """Keep a manifest, or an index of such, to the byte.

        It stays as long as one of `images` does (those that it is the manifest of), as what it is a part or a referrer
        of, as somebody holds it, and in any case for a day. What it names stays with it, as far as that is kept.
        `tx`: see `remember`. Raises `DigestMismatch`, `InvalidArchive` if it is no JSON object, `LimitExceeded`.
        """
        from layerstore.manifests import Manifest

        self.limits.check("max-manifest-size", len(data), "the manifest")
        manifest = Manifest.of(media_type, data)
        if expected is not None and manifest.digest != expected:
            raise DigestMismatch("the manifest", expected=expected, actual=manifest.digest)
        parts, subject = links.of(data)
        with self._writing(tx) as mine:
            rows.insert_manifest(mine, manifest, parts, subject, images)
        return manifest

    def manifest(self, digest: Digest) -> Manifest | None:
        """The manifest with this digest, if it is kept."""
        with self._database.read() as tx:
            return rows.find_manifest(tx, digest) if rows.are_there(tx) else None

    def manifests_of(self, image: ImageID) -> list[Manifest]:
        """The manifests, and indexes of such, that an image came or was sent as, in the order of their coming."""
        with self._database.read() as tx:
            return rows.manifests_of(tx, image) if rows.are_there(tx) else []

    def referrers(self, subject: Digest) -> list[Manifest]:
        """The kept manifests that are about this one: signatures, bills of material (distribution-spec, referrers)."""
        with self._database.read() as tx:
            return rows.about(tx, subject) if rows.are_there(tx) else []

    # --- what needs them ---

    def hold(self, holder: str, digest: Digest, *, tx: Transaction | None = None) -> None:
        """Let a blob or manifest, with all that it names, stay until `let_go`: for a server's tag, say.

        A holder is any text, and holds one digest at a time.
        """
        with self._writing(tx) as mine:
            rows.hold(mine, holder, digest)

    def holds(self, beginning: str = "") -> Mapping[str, Digest]:
        """The holders whose names begin so, in order, and what each holds."""
        with self._database.read() as tx:
            return rows.holds(tx, beginning) if rows.are_there(tx) else {}

    def let_go(self, holder: str, *, tx: Transaction | None = None) -> bool:
        """Let a holder hold nothing. False if it did not."""
        with self._writing(tx) as mine:
            return rows.let_go(mine, holder)

    # --- bytes in ---

    def put(self, stream: Readable, *, expected: Digest | None = None) -> tuple[Digest, int]:
        """Keep all of a stream as a blob; its digest and size. It is on the disk when this returns.

        It stays for a day; longer if it is known to hold a layer that there is, or something refers to it by then.
        Raises `DigestMismatch`, and keeps nothing then.
        """
        self._database.require_writable()
        path = self._layers.spool(".blob")
        try:
            digest, size = kept.received(stream, path)
            if expected is not None and digest != expected:
                raise DigestMismatch("the blob", expected=expected, actual=digest)
            self._files.keep(path, digest, size, self._provide)
        finally:
            with named("unlink", path):
                path.unlink(missing_ok=True)
        return digest, size

    def put_partial(self, partial: Partial, expected: Digest, *, is_verified: bool = False) -> int:
        """Make what was downloaded or uploaded a kept blob, without a copy; its size. See `put`.

        `is_verified`: whoever wrote it has hashed all that is in it. Raises `DigestMismatch`: then it is as it was.

        @private
        """
        self._database.require_writable()
        if not is_verified and (actual := kept.digest_of(partial.pieces())) != expected:
            raise DigestMismatch("the blob", expected=expected, actual=actual)
        partial.sync()
        self._layers.session.begin()  # so that whoever finds it dead looks for what it left
        self._files.keep(partial.path, expected, partial.size, self._provide)
        size = partial.size
        partial.moved()
        return size

    def partial(self, name: str, *, bounded: bool = True) -> Partial | None:
        """What there is of a broken download, or of an upload, to go on with: see `Partials.open`.

        `name`: the digest of the blob, or hex digits. None if somebody else is at it, or nothing can be written.

        @private
        """
        return self._partials.open(name.removeprefix("sha256:"), bounded=bounded) if self._is_writable else None

    def growing(self, digest: Digest) -> Growing | None:
        """A blob that somebody is downloading into this store, to be read along; None if nobody is, or has begun.

        @private
        """
        return self._partials.watch(hex_of(digest))

    # --- bytes out ---

    def size(self, digest: Digest, *, prove: bool = False) -> int | None:
        """The bytes of a blob, if these very bytes can be given out; else None.

        A recipe that is only a guess does not count. `prove`: it is found out whether it is right, which takes as long
        as the compression.
        """
        return self._outgoing.size(digest, prove=prove)

    def size_of_kept(self, digest: Digest) -> int | None:
        """The bytes that a kept file of a blob has, or had before it was damaged; None if none is kept. @private"""
        with self._database.read() as tx:
            return rows.files(tx).get(digest) if rows.are_there(tx) else None

    def prove(self, digest: Digest) -> bool:
        """Give a blob out to nobody, and tell whether its bytes are right. What comes out is remembered."""
        return self._outgoing.prove(digest)

    def guesses(self) -> list[Digest]:
        """The blobs of which there is only a guess how they are made again, the smallest first: `prove` finds out.

        @private
        """
        with self._database.read() as tx:
            return rows.guesses(tx) if rows.are_there(tx) else []

    def write(self, digest: Digest, write: Write, *, start: int = 0, end: int | None = None) -> None:
        """Write the bytes of a blob, from `start` up to before `end`. What `write` is given is valid until it returns.

        Written to its end, a blob that is made again is verified, and so is a kept one if all of it is written;
        `Damaged` at the end means that what was written is worthless. What ends before the end is not verified, and
        whatever has to be made again is made from its beginning. Raises `NotFound`.

        Made by a recipe that is only a guess, it may well be worthless: that recipe is forgotten then, and the same
        call again takes another way, or there is none.
        """
        self._outgoing.write(digest, write, start=start, end=end)

    @contextmanager
    def opened(self, digest: Digest) -> Iterator[Stream]:
        """What a kept blob holds, inflated if it is compressed; its digest is checked at its end.

        Raises `NotFound` if there is no file of it: `write` can do more.
        """
        from layerstore.compression import open_stream

        fd = self._files.open(digest)
        if fd is None:
            raise NotFound(f"no kept blob {digest}", remedy="It may be in the registry that it came from.")
        with file_of(fd) as raw, open_stream(raw, expect=digest, limits=self.limits) as stream:
            yield stream

    # --- away, and what there is ---

    def delete(self, digest: Digest) -> bool:
        """Remove a manifest or a kept file, whoever needs it. False if there is neither. Layers and images stay."""
        self._database.require_writable()
        self._layers.session.begin()  # so that whoever finds it dead looks for what it left
        with self._writing(None) as tx:
            was_manifest = rows.delete_manifest(tx, digest)
            was_file = rows.delete_file(tx, digest)
        if was_file:
            self._files.remove([digest])
        return was_manifest or was_file

    def prune(self, *, everything: bool = False) -> int:
        """Remove what nothing needs, and partials that are too old or too many; `everything`: all that nobody has open.

        Returns the bytes that are free now.
        """
        freed = self._collect(even_knowledge=True)
        self._files.sweep()
        return freed + self._partials.sweep(everything=everything)

    def collect(self) -> int:
        """Remove the kept blobs and manifests that nothing needs, if a blob is kept at all. Returns the bytes.

        @private
        """
        return self._collect(even_knowledge=False)

    def _collect(self, *, even_knowledge: bool) -> int:
        """`even_knowledge`: what is known of blobs whose layers are gone goes, too, if there is nothing else."""
        if not self._is_writable:
            return 0
        with self._database.read() as tx:
            if not rows.are_there(tx) or not (even_knowledge or rows.has_files(tx)):
                return 0
            manifests, files = rows.unneeded(tx)
        if not (manifests or files or even_knowledge):
            return 0
        if files:
            self._layers.session.begin()  # so that whoever finds it dead looks for what it left
        with self._database.write() as tx:
            sizes = rows.files(tx)
            gone = rows.release_unneeded(tx)
        self._files.remove(gone)
        return sum(sizes[digest] for digest in gone)

    def recover(self) -> None:
        """Remove what dead processes left. What cannot be removed is found by the next one. @private"""
        self.collect()
        self._files.sweep()

    def sweep_partials(self) -> None:
        """Remove partials that are too old or too many. Costs the look into one small folder. @private"""
        if self._is_writable:
            self._partials.sweep()

    def remains(self) -> Remains:
        """What lies on the disk."""
        with self._database.read() as tx:
            has_rows = rows.are_there(tx)
            sizes = rows.files(tx) if has_rows else {}
            unneeded = rows.unneeded(tx)[1] if sizes else []
        return Remains(
            len(sizes),
            sum(sizes.values()),
            len(unneeded),
            sum(sizes[digest] for digest in unneeded),
            len(self._partials.names()),
            self._partials.total(),
        )

    def problems(
        self, *, content: bool = False, read: Callable[[int], object] = lambda _: None
    ) -> Iterator[tuple[str, str, Path]]:
        """What is wrong with kept blobs: its kind, a line, and where. `content`: every byte is read; `read` is told.

        @private
        """
        with self._database.read() as tx:
            sizes = rows.files(tx) if rows.are_there(tx) else {}
        for digest, size in sizes.items():
            yield from self._problem(digest, size, read if content else None)
        for digest in self._files.garbage():
            path = self._files.path(digest)
            yield "garbage", f"{path} belongs to nothing", path

    def _problem(
        self, digest: Digest, size: int, read: Callable[[int], object] | None
    ) -> Iterator[tuple[str, str, Path]]:
        path = self._files.path(digest)
        try:
            fd = self._files.open(digest)
        except (Damaged, KernelError) as error:
            if self._has_file(digest):
                self._outgoing.mark_damaged(digest)
                yield "damaged blob", f"the kept blob {digest} cannot be read: {error.message}", path
            return
        if fd is None:
            if self._has_file(digest):
                self._outgoing.mark_damaged(digest)
                yield "missing blob", f"the kept blob {digest} is gone: {path}", path
            return
        try:
            what = self._difference(fd, digest, size, read)
        finally:
            os.close(fd)
        if what is not None and self._has_file(digest):
            self._outgoing.mark_damaged(digest)
            yield "damaged blob", f"the kept blob {digest}: {what}", path

    def _difference(self, fd: int, digest: Digest, size: int, read: Callable[[int], object] | None) -> str | None:
        """What a file has otherwise than its row says. One that the disk does not give out keeps no other unread."""
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return "it is no file"
        if found.st_size != size:
            return f"it has {found.st_size} bytes, not {size}"
        if read is not None:
            try:
                self._files.write(fd, digest, lambda piece: read(len(piece)), 0, size)
            except (Damaged, KernelError) as error:
                return error.message.partition(": ")[2]
        return None

    def _has_file(self, digest: Digest) -> bool:
        with self._database.read() as tx:
            return rows.has_file(tx, digest)

    # --- transactions ---

    @contextmanager
    def _writing(self, tx: Transaction | None) -> Iterator[Transaction]:
        """The caller's transaction, or one of its own; with the tables."""
        if tx is not None:
            self._provide(tx)
            yield tx
        else:
            with self._database.write() as mine:
                self._provide(mine)
                yield mine

    def _provide(self, tx: Transaction) -> None:
        schema.provide(tx, rows.TABLES, self._database.path)


def _place(place: Place | tuple[str, str]) -> Place:
    return place if isinstance(place, Place) else Place(*place)
