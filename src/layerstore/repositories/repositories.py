"""The front of repositories: what is in them, and what is put into them and taken out.

Everything here is whole or not there at all. A manifest is in a repository once all that it needs is, and its tag means
it in the same transaction in which its image appears. A tag that was pushed counts for as long as the store's own tag
means the image that it made: whoever tags, loads or removes an image has the last word.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from attrs import evolve, field

from layerstore import reference
from layerstore.blobs import Blobs
from layerstore.database import Database, Transaction, schema
from layerstore.digest import Digest, ImageID
from layerstore.errors import DigestMismatch, InUse, InvalidArchive, NotFound
from layerstore.images import Image, Images, removal
from layerstore.images import rows as image_rows
from layerstore.layers import Layers
from layerstore.repositories import intake, manifests, rows
from layerstore.repositories.manifests import Document
from layerstore.repositories.rows import Kept, Tag
from layerstore.repositories.served import Offers
from layerstore.values import frozen
from layerstore.wording import in_words

DAY = 24 * 60 * 60.0
"""Seconds for which what nothing refers to stays all the same: somebody may be pushing."""

_DEPTH = 8
"""The most indexes that may lie within each other."""


class MissingParts(InvalidArchive):
    """A manifest needs blobs or manifests that are not there: `digests`."""

    def __init__(self, digests: Sequence[str]) -> None:
        more = f" and {len(digests) - 1} more" if len(digests) > 1 else ""
        super().__init__(
            f"the manifest needs {digests[0]}{more}, which is not here",
            remedy="Push what a manifest needs before the manifest.",
        )
        self.digests = tuple(digests)


@frozen
class Served:
    """A manifest, to be given out. `digest`: of its bytes, by the algorithm by which it was asked for."""

    digest: str
    media_type: str
    data: bytes = field(repr=False)


@frozen
class Pushed:
    """A manifest that was put. `image`: what was made of it, for its tags; `note`: why nothing was."""

    digest: str
    subject: str | None
    image: Image | None = None
    note: str | None = None


@in_words("repositories")
class Repositories:
    """The repositories of a store, each by its full name: `docker.io/library/debian`."""

    def __init__(self, database: Database, images: Images, layers: Layers, blobs: Blobs) -> None:
        self._database = database
        self._images = images
        self._blobs = blobs
        self._offers = Offers(images, layers, blobs)

    # --- what there is ---

    def names(self) -> list[str]:
        """All in which something is."""
        with self._database.read() as tx:
            return sorted(rows.names(tx))

    def is_there(self, repository: str) -> bool:
        """Is something in it?"""
        with self._database.read() as tx:
            return rows.is_there(tx, repository)

    def tags(self, repository: str, *, after: str = "", count: int | None = None) -> list[str]:
        """Its tags, in the order of their bytes: those behind `after`, at most so many."""
        with self._database.read() as tx:
            return rows.shown(tx, repository, after, -1 if count is None else count)

    def manifest(
        self,
        repository: str,
        ref: str,
        accepts: Callable[[str], bool] = lambda _: True,
        *,
        compression: str = "none",
    ) -> Served | None:
        """The manifest of a tag or digest. `accepts` tells which media types are wanted, where there is a choice.

        `compression`: of the layers of an image that has no manifest yet that can be given out ("gzip", "zstd"). Of an
        index that is not wanted, the manifest for this machine is given instead, as registries do.
        """
        if ":" in ref:
            return self._by_digest(repository, manifests.parse_digest(ref))
        with self._database.read() as tx:
            image, pushed = rows.image_of(tx, repository, ref), rows.tag_of(tx, repository, ref)
        if pushed is not None and pushed.image == image and (kept := self._kept(repository, pushed.digest)):
            return self._accepted(repository, evolve(kept, digest=pushed.called), accepts)
        return None if image is None else self._of_image(image, accepts, compression)

    def referrers(self, repository: str, subject: str, after: str = "") -> list[Kept]:
        """The manifests of a repository that are about another, by their digests, from the one behind `after` on."""
        with self._database.read() as tx:
            return rows.referrers(tx, repository, subject, after)

    def _by_digest(self, repository: str, digest: str) -> Served | None:
        with self._database.read() as tx:
            name = rows.known_as(tx, digest)
            images = rows.image_ids_in(tx, repository)
        if name is None:
            return None
        if kept := self._kept(repository, name):
            return Served(digest, kept.media_type, kept.data)
        if (document := self._offers.named(images, Digest(name))) is not None:
            return Served(digest, document.media_type, document.data)
        # An index that an image came as is no manifest of the image, but known by it.
        with self._database.read() as tx:
            known_by = rows.known_by(tx, repository, name)
        known = None if known_by is None else self._blobs.manifest(Digest(name))
        return None if known is None else Served(digest, known.media_type, known.data)

    def _kept(self, repository: str, digest: str) -> Served | None:
        """A manifest that was pushed, if all that it needs can still be given out."""
        with self._database.read() as tx:
            row = rows.manifest(tx, repository, digest)
            kept = None if row is None else self._blobs.manifest(Digest(digest))
            if row is None or kept is None:
                return None
            document = manifests.read(kept.data, row.media_type)
            for part in () if document.is_index else document.parts:
                name = rows.known_as(tx, part.digest)
                if not part.is_foreign and (name is None or self._blobs.size(Digest(name)) is None):
                    return None
        return Served(digest, row.media_type, kept.data)

    def _accepted(self, repository: str, found: Served, accepts: Callable[[str], bool]) -> Served | None:
        for _ in range(_DEPTH):
            if accepts(found.media_type):
                return found
            document = manifests.read(found.data, found.media_type)
            child = intake.choose(list(document.parts)) if document.is_index else None
            with self._database.read() as tx:
                name = None if child is None else rows.known_as(tx, child.digest)
            below = None if name is None else self._kept(repository, name)
            if below is None:
                return None
            found = below
        return None

    def _of_image(self, image: ImageID, accepts: Callable[[str], bool], compression: str) -> Served | None:
        try:
            for document in self._offers.of(self._images.get(image), compression):
                if accepts(document.media_type):
                    return Served(manifests.digest_of(document.data), document.media_type, document.data)
        except NotFound:
            pass  # it was removed this moment
        return None

    # --- blobs ---

    def require_writable(self) -> None:
        """Raise `ReadOnlyStore` if nothing can be put into them: before work that would be in vain."""
        self._database.require_writable()

    def size_of_blob(self, repository: str, digest: str) -> int | None:
        """The bytes of a blob of a repository; None if it is not there."""
        name = self._in_repository(repository, manifests.parse_digest(digest))
        return None if name is None else self._blobs.size(name)

    def write_blob(
        self,
        repository: str,
        digest: str,
        write: Callable[[memoryview], object],
        *,
        start: int = 0,
        end: int | None = None,
    ) -> None:
        """Write the bytes of a blob of a repository. Raises `NotFound`, `Damaged` (as `Blobs.write` does)."""
        name = self._in_repository(repository, manifests.parse_digest(digest))
        if name is None:
            raise NotFound(f"no blob {digest} in {reference.parse(repository).familiar_name}")
        self._blobs.write(name, write, start=start, end=end)

    def link_blob(self, repository: str, digest: str, *, alias: str | None = None) -> bool:
        """Put a blob that the store has into a repository; False if it does not have it.

        `alias`: a digest by sha512 by which it is known, too. A power cut may undo it, but not what needs the blob.
        """
        with self._database.read() as tx:
            name = rows.known_as(tx, manifests.parse_digest(digest))
        if name is None or self._blobs.size(Digest(name)) is None:
            return False
        with self._writing(None, durable=False) as tx:
            rows.link(tx, repository, [name])
            if alias is not None:
                rows.set_alias(tx, alias, name)
        return True

    def delete_blob(self, repository: str, digest: str) -> bool:
        """Take a blob out of a repository; False if it is not there. Raises `InUse` if a manifest there needs it."""
        name = self._in_repository(repository, manifests.parse_digest(digest))
        if name is None:
            return False
        with self._writing(None) as tx:
            holder = rows.needing(tx, repository, name)
            if holder is None and not rows.is_linked(tx, repository, name):
                holder = "an image"
            if holder is not None:
                raise InUse(
                    f"blob {digest} is needed by {holder} of {reference.parse(repository).familiar_name}",
                    holders=(holder,),
                    remedy="Delete that first.",
                )
            rows.unlink(tx, repository, name)
        return True

    def _in_repository(self, repository: str, digest: str) -> Digest | None:
        """The sha256 digest of a blob, if it is in a repository: pushed, or a part of an image there."""
        with self._database.read() as tx:
            name = rows.known_as(tx, digest)
            if name is None:
                return None
            if rows.is_linked(tx, repository, name):
                return Digest(name)
            images = rows.image_ids_in(tx, repository)
        return Digest(name) if self._offers.has_part(images, Digest(name)) else None

    # --- manifests in and out ---

    def put_manifest(
        self, repository: str, data: bytes, media_type: str, *, tags: Sequence[str] = (), expected: str | None = None
    ) -> Pushed:
        """Put a manifest or index into a repository, and let tags mean it: durably, all of it or nothing.

        With a tag, an image is made of it, if it describes one; of an index, of the manifest for this machine, or of
        the only one. `expected`: the digest that its bytes should have. Raises `InvalidArchive`, `MissingParts`,
        `DigestMismatch`.
        """
        document = manifests.read(data, media_type)
        digest = manifests.digest_of(data, "sha256:" if expected is None else expected)
        if expected is not None and digest != expected:
            raise DigestMismatch("the manifest", expected=expected, actual=digest)
        name = Digest(manifests.digest_of(data))
        parts = self._require_parts(repository, document)
        for part in parts.values() if document.is_index else ():
            if self._blobs.manifest(part) is None and (child := self._by_digest(repository, part)) is not None:
                self.put_manifest(repository, child.data, child.media_type)  # it was made for an image, and never kept

        def keep(mine: Transaction | None, images: Sequence[ImageID] = ()) -> None:
            with self._writing(mine) as tx:
                self._keep(tx, repository, document, parts, images)
                if digest != name:
                    rows.set_alias(tx, digest, name)
                if not images:
                    for tag in tags:
                        rows.set_tag(tx, repository, tag, Tag(name, digest, None))

        if not tags:
            keep(None)
            return Pushed(digest, document.subject)
        try:
            image = self._make_image(repository, document, parts, tags, digest, keep)
        except intake.NO_IMAGE as error:
            keep(None)
            return Pushed(digest, document.subject, note=error.message)
        return Pushed(digest, document.subject, image=image)

    def _keep(
        self,
        tx: Transaction,
        repository: str,
        document: Document,
        parts: Mapping[str, Digest],
        images: Sequence[ImageID],
    ) -> None:
        """Write all that makes a manifest stay in a repository, with what it needs."""
        if gone := [name for name in parts.values() if self._blobs.size(name) is None]:
            raise MissingParts(gone)  # somebody has removed it since it was looked for
        kept = self._blobs.put_manifest(document.media_type, document.data, images=images, tx=tx)
        self._blobs.hold(_holder(repository, kept.digest), kept.digest, tx=tx)
        needed = set(parts.values())
        for alias, name in parts.items():
            if alias != name:  # what a manifest names by sha512 does not stay by itself
                self._blobs.hold(_holder(repository, kept.digest, name), name, tx=tx)
        row = Kept(kept.digest, document.media_type, len(document.data), document.artifact_type, document.annotations)
        linked = () if document.is_index else needed
        rows.keep_manifest(tx, repository, row, subject=document.subject, parts=needed, blobs=linked)

    def _make_image(
        self,
        repository: str,
        document: Document,
        parts: dict[str, Digest],
        tags: Sequence[str],
        digest: str,
        keep: Callable[[Transaction, Sequence[ImageID]], None],
    ) -> Image:
        top, name = document, Digest(manifests.digest_of(document.data))
        for _ in range(_DEPTH):
            if not document.is_index:
                break
            child = intake.choose(list(document.parts))
            below = None if child is None else self._blobs.manifest(parts[child.digest])
            if below is None:
                raise InvalidArchive("the index has no image for this machine")
            document = manifests.read(below.data, below.media_type)
            parts = self._require_parts(repository, document)

        def record(tx: Transaction, image: ImageID) -> None:
            keep(tx, [image])
            image_rows.set_digest(tx, image, repository, name)
            if document is not top:
                self._blobs.put_manifest(document.media_type, document.data, images=[image], tx=tx)
            for tag in tags:
                rows.set_tag(tx, repository, tag, Tag(name, digest, image))

        names = [f"{repository}:{tag}" for tag in tags]
        return intake.make(self._images, self._blobs, document, parts.get, names, record)

    def _require_parts(self, repository: str, document: Document) -> dict[str, Digest]:
        """The sha256 digests of all that a manifest needs. Raises `MissingParts`, `InvalidArchive`."""
        found: dict[str, Digest] = {}
        missing = []
        with self._database.read() as tx:
            known = {part.digest: rows.known_as(tx, part.digest) for part in document.parts}
        for part in document.parts:
            name = known[part.digest]
            size = None if name is None else self._size_of(repository, Digest(name), is_manifest=document.is_index)
            if name is None or size is None:
                if not part.is_foreign:
                    missing.append(part.digest)
                continue
            if size != part.size:
                raise InvalidArchive(f"the manifest says that {part.digest} has {part.size} bytes; it has {size}")
            found[part.digest] = Digest(name)
        if missing:
            raise MissingParts(missing)
        return found

    def _size_of(self, repository: str, name: Digest, *, is_manifest: bool) -> int | None:
        if not is_manifest:
            return self._blobs.size(name)
        found = self._by_digest(repository, name)
        return None if found is None else len(found.data)

    def delete_tag(self, repository: str, tag: str) -> bool:
        """Take a tag away; False if there is none. What was pushed stays, by its digest; any other image goes."""
        with self._database.read() as tx:
            image, pushed = rows.image_of(tx, repository, tag), rows.tag_of(tx, repository, tag)
        if image is None and (pushed is None or pushed.image is not None):
            return False
        if pushed is not None:
            with self._writing(None) as tx:
                rows.unset_tags(tx, repository, [tag])
        if image is not None:
            self._take_name(f"{repository}:{tag}", keep=pushed is not None and pushed.image == image)
        return True

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Take a manifest out of a repository, and all tags that mean it; False if it is not there.

        An image that has no other name goes with it, unless something needs it.
        """
        found = self._by_digest(repository, manifests.parse_digest(digest))
        if found is None:
            return False
        name = Digest(manifests.digest_of(found.data))
        with self._database.read() as tx:
            is_known = rows.known_by(tx, repository, name) is not None
        self._delete_tags_of(repository, name)
        if is_known:
            self._take_name(f"{repository}@{name}")
        with self._writing(None) as tx:
            self._forget(tx, repository, name)
        return True

    def _delete_tags_of(self, repository: str, name: Digest) -> None:
        """Take all tags away that mean a manifest: there may be very many, so each image is looked at once."""
        with self._database.read() as tx:
            images, pushed = rows.images_in(tx, repository), rows.tags(tx, repository)
        means: dict[tuple[str | None, ImageID | None], bool] = {}
        doomed: dict[ImageID | None, list[str]] = {}
        for tag in {*images, *pushed}:
            image, kept = images.get(tag), pushed.get(tag)
            key = (None if kept is None or kept.image != image else kept.digest, image)
            if key not in means:
                meant = self.manifest(repository, tag)
                means[key] = meant is not None and manifests.digest_of(meant.data) == name
            if means[key]:
                doomed.setdefault(image, []).append(tag)
        for image, tags in doomed.items():
            with self._writing(None) as tx:
                # Those that something else has got by now stay; and with the last one the image may go.
                own = [tag for tag in tags[1:] if rows.image_of(tx, repository, tag) == image]
                rows.unset_tags(tx, repository, own)
                for tag in own if image is not None else ():
                    removal.untag(tx, f"{repository}:{tag}")
            self.delete_tag(repository, tags[0])

    def prune(self, *, age: float = DAY) -> None:
        """Forget what was pushed, more than `age` seconds ago, and no tag means: nor is it a part of such, or about it.

        `Blobs.collect` finds what is to be freed then.
        """
        before = time.time_ns() - int(age * 1e9)
        with self._database.read() as tx:
            if not rows.are_there(tx):
                return
        with self._writing(None) as tx:
            for repository, name in rows.unneeded(tx, before):
                self._forget(tx, repository, Digest(name))
            rows.forget_leftovers(tx, before)

    def _forget(self, tx: Transaction, repository: str, name: Digest) -> None:
        rows.forget_manifest(tx, repository, name)
        for holder in self._blobs.holds(_holder(repository, name)):
            self._blobs.let_go(holder, tx=tx)

    def _take_name(self, name: str, *, keep: bool = False) -> None:
        """Take a name away, and the image with its last one unless something needs it, or it is to be kept."""
        try:
            if keep:
                self._images.untag(name)
            else:
                self._images.remove(name)
        except InUse:
            with self._database.write() as tx:
                removal.untag(tx, name)
        except NotFound:
            pass  # somebody else was faster

    @contextmanager
    def _writing(self, tx: Transaction | None, *, durable: bool = True) -> Iterator[Transaction]:
        """The caller's transaction, or one of its own; with the tables."""
        if tx is not None:
            schema.provide(tx, rows.TABLES, self._database.path)
            yield tx
        else:
            with self._database.write(durable=durable) as mine:
                schema.provide(mine, rows.TABLES, self._database.path)
                yield mine


def _holder(repository: str, manifest: str, part: str = "") -> str:
    """By what name a manifest of a repository holds itself, and a part, among the holders of blobs."""
    return f"repository {repository}@{manifest} {part}"
