"""Images: a config, the layers it names, and tags.

An image appears in one transaction with its last layer's row, so it is never there without its layers; and it holds
them until it is removed, which `removal` decides. Which image was built on which is recorded when it is committed, and
never guessed from their layers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from layerstore import facts, reference
from layerstore.database import Database, Transaction
from layerstore.digest import ChainID, DiffID, Digest, ImageID, of_bytes, short
from layerstore.driver import Layer
from layerstore.errors import InUse, InvalidArchive, KernelError, NotFound, named
from layerstore.images import config as config_of
from layerstore.images import removal, rows
from layerstore.images.image import Image, Loose
from layerstore.images.loaded import Loaded
from layerstore.images.trees import EMPTY, Trees
from layerstore.kernel.mounts import attach, mount_id, unmount
from layerstore.layers import Layers, LayerSource, Progress, Staged, Storage
from layerstore.layers import rows as layer_rows
from layerstore.layers.attaching import attach_tree
from layerstore.layers.lacking import lacking
from layerstore.layers.sources import label_of

if TYPE_CHECKING:
    from layerstore.images.config import History
    from layerstore.images.growing import Ground
    from layerstore.images.removal import Removal
    from layerstore.layers.assembly import Assembly
    from layerstore.session import Session

Record = Callable[[Transaction, ImageID], object]
"""Writes what a caller has to remember of an image, in the transaction in which that appears, or gets its names."""

Meant = tuple[ImageID, str | None]
"""An image, and the full name by which it was meant, if it was by one."""


class Images:
    """The images of a store."""

    def __init__(self, database: Database, session: Session, storage: Storage, layers: Layers, exec_root: Path) -> None:
        self._database = database
        self._session = session
        self._storage = storage
        self._layers = layers
        self._exec_root = exec_root
        self.trees = Trees(database, session, storage, layers)
        self.after_removal: Callable[[], object] = lambda: None
        """Called when an image is gone: something of an upper floor may have gone with its row."""
        self.lent: Callable[[str | None], Meant | None] = lambda ref: None
        """Asked what a name means that may be that of an image in an attached store: it is there when this returns."""

    # --- in ---

    def add(
        self,
        config: bytes,
        sources: Sequence[LayerSource],
        names: Sequence[str] = (),
        *,
        progress: Progress | None = None,
        record: Record | None = None,
    ) -> Loaded:
        """Store an image whose layers can be read when they are wanted: all of it, or nothing.

        There is one source for each of the config's DiffIDs, in order; those of layers that are there are not opened.
        `record` writes what else has to be remembered of the image, in the transaction in which it appears.
        What is borrowed of an attached store is the store's own afterwards.

        Raises `InvalidArchive`, `DigestMismatch`, `DepthExceeded`.
        """
        from layerstore.layers.assembly import assembling

        diff_ids = self._diff_ids(config)
        if len(diff_ids) != len(sources):
            raise InvalidArchive(f"the image's config names {len(diff_ids)} layers, its manifest {len(sources)}")
        named: dict[DiffID, LayerSource] = {}
        for diff_id, source in zip(diff_ids, sources, strict=True):
            named.setdefault(diff_id, evolve(source, diff_id=diff_id))
        tags = [reference.normalise(name) for name in names]
        with assembling(self._layers, diff_ids, "being loaded", own=diff_ids) as assembly:
            assembly.unpack(named, progress)
            if progress is not None:
                self._tell_known(assembly, named, progress)
            return self._store(config, assembly, tags, record)

    def add_staged(
        self,
        config: bytes,
        staged: Mapping[DiffID, Staged],
        names: Sequence[str] = (),
        *,
        trust: bool = False,
    ) -> Loaded:
        """Store an image whose layers were staged before, or are in the store. Those it does not use stay staged.

        `trust`: what is in the store is not looked at, but for what is staged too. See `assembling`.
        """
        from layerstore.layers.assembly import assembling

        diff_ids = self._diff_ids(config)
        tags = [reference.normalise(name) for name in names]
        with assembling(self._layers, diff_ids, "being loaded", offered=staged, trust=trust, own=staged) as assembly:
            return self._store(config, assembly, tags)

    def _diff_ids(self, config: bytes) -> tuple[DiffID, ...]:
        self._layers.limits.check("max-config-size", len(config), "the image's config")
        return config_of.layers(config_of.read(config))

    def _store(self, config: bytes, assembly: Assembly, tags: Sequence[str], record: Record | None = None) -> Loaded:
        assembly.place()
        with self._database.write() as tx:
            assembly.record(tx)
            taken = rows.taken_by(tx, ImageID(of_bytes(config)), tags)
            name = rows.insert(tx, config, assembly.top, None, tags)
            if record is not None:
                record(tx, name)
            image = self._get(tx, name)
        return Loaded.of(image, tags, taken)

    def _tell_known(self, assembly: Assembly, sources: Mapping[DiffID, LayerSource], progress: Progress) -> None:
        for diff_id in assembly.known:
            source = sources[diff_id]
            progress(label_of(source), source.size or 0, source.size or 0)

    def add_known(
        self,
        config: bytes,
        top: ChainID | None,
        names: Sequence[str] = (),
        *,
        parent: ImageID | None = None,
        record: Record | None = None,
    ) -> Image:
        """`Store.add_image`."""
        diff_ids = self._diff_ids(config)
        tags = [reference.normalise(name) for name in names]
        with self._database.write() as tx:
            there = [diff.diff_id for diff in reversed(layer_rows.stack(tx, top).diffs)]
            if list(diff_ids) != there:
                raise InvalidArchive(
                    f"the image's config names {len(diff_ids)} layers, which are not the {len(there)} of {top}",
                    remedy="Its rootfs.diff_ids must be those of the layer on top and all below it, bottom to top.",
                )
            if parent is not None:
                rows.resolve(tx, parent)
            image = rows.insert(tx, config, top, parent, tags)
            if record is not None:
                record(tx, image)
            return self._get(tx, image)

    def ground(self, image: Image | None, platform: str | None = None) -> Ground:
        """What is built on: an image, or nothing."""
        from layerstore.images.growing import Ground

        return Ground(self, self._layers, image, platform)

    def squash(self, ref: Image | str, since: Image | str | None, tags: Sequence[str]) -> Image:
        """`Store.squash`."""
        from layerstore.images.squashing import squash

        return squash(self, self._layers, self.get(ref if isinstance(ref, str) else ref.id), since, tags)

    def name(self, image: ImageID, names: Sequence[str], record: Record | None = None) -> Loaded:
        """Give an image that is there names, each in full, as if it had come in with them. Raises `NotFound`."""
        with self._database.write() as tx:
            rows.resolve(tx, image)
            taken = rows.taken_by(tx, image, names)
            rows.set_tags(tx, image, names)
            if record is not None:
                record(tx, image)
            found = self._get(tx, image)
        return Loaded.of(found, names, taken)

    def pin(self, tx: Transaction, image: ImageID, name: str, digest: Digest) -> None:
        """Let a name with a digest mean an image: a registry knows it so, in the repository of this full name.

        Within a transaction of the caller, who has seen it there.
        """
        rows.set_digest(tx, image, name, digest)

    # --- what there is ---

    def meant_by(self, *names: str) -> list[ImageID | None]:
        """The images that have exactly these names, in full: tags, or names with digests."""
        with self._database.read() as tx:
            return [rows.meant_by(tx, name) for name in names]

    def config_of(self, image: ImageID) -> bytes | None:
        """The config of an image, to the byte, if there is the image."""
        with self._database.read() as tx:
            row = rows.find(tx, image)
        return None if row is None else row.config

    def is_sound(self, image: ImageID) -> bool:
        """Is there the image, and none of its layers found damaged, or borrowed of an attached store?"""
        with self._database.read() as tx:
            row = rows.find(tx, image)
            return row is not None and not any(
                diff.damaged or Layer(diff.key).is_borrowed for diff in layer_rows.stack(tx, row.chain_id).diffs
            )

    def get(self, ref: str) -> Image:
        """The image of this name, ID, or beginning of an ID. Raises `NotFound`, `Ambiguous`."""
        return self.find(ref)[0]

    def find(self, ref: str) -> tuple[Image, str | None]:
        """The same, and the tag in full if it was meant by one."""
        lent = self.lent(ref)
        with self._database.read() as tx:
            image, name = rows.resolve(tx, ref if lent is None else lent[0])
            tag = name if lent is None else lent[1]
            tag = None if tag is None or "@" in tag else tag
            found = self._get(tx, image)
            return found if lent is None or tag is None else evolve(found, tags=(reference.familiar(tag),)), tag

    def given(self, refs: Iterable[Image | str]) -> tuple[list[Image], list[list[str]]]:
        """Images as somebody names them, each once; and their full names: those it was named by, else all it has."""
        names: dict[Image, dict[str, None]] = {}
        for ref in refs:
            image, tag = self.find(ref if isinstance(ref, str) else ref.id)
            given = [tag] if tag is not None else [reference.normalise(name) for name in image.tags]
            names.setdefault(image, {}).update(dict.fromkeys(given))
        return list(names), [list(own) for own in names.values()]

    def those(self, tx: Transaction, images: Collection[ImageID]) -> dict[ImageID, Image]:
        """The images with these IDs, all of which there are."""
        if len(images) > 8 and 2 * len(images) > rows.count(tx):  # then the rows of all cost less than those of each
            return {image.id: image for image in self._every(tx) if image.id in images}
        return {image: self._get(tx, image) for image in images}

    def _get(self, tx: Transaction, image: ImageID) -> Image:
        row = rows.find(tx, image)
        assert row is not None  # it was resolved in this transaction
        size = 0 if row.chain_id is None else layer_rows.size_of_stack(tx, row.chain_id)
        return self._image(row, rows.tags_of(tx, image), rows.digests_of(tx, image), size)

    def all(self) -> list[Image]:
        """All images, the newest first."""
        with self._database.read() as tx:
            return self._every(tx)

    def _every(self, tx: Transaction) -> list[Image]:
        sizes, tags, digests = layer_rows.sizes_of_stacks(tx), rows.all_tags(tx), rows.all_digests(tx)
        return [
            self._image(row, tags.get(row.id, []), digests.get(row.id, []), sizes[row.chain_id])
            for row in sorted(rows.every(tx), key=_age, reverse=True)
        ]

    def history(self, image: Image) -> tuple[History, ...]:
        """The steps of an image, with sizes, and with the images of this store that end where a step does."""
        steps = list(config_of.history(image.config))
        with self._database.read() as tx:
            stack = layer_rows.stack(tx, image.chain_id)
            sizes = {chain: diff.size for chain, diff in zip(stack.chain, stack.diffs, strict=True)}
            known: dict[int, ImageID] = {len(steps): image.id}
            parent = image.parent
            while parent is not None:
                row = rows.find(tx, parent)
                if row is None:
                    break
                known.setdefault(len(config_of.history(config_of.read(row.config))), parent)
                parent = row.parent
            for number, name in known.items():
                if 0 < number <= len(steps):
                    tags = tuple(reference.familiar(tag) for tag in rows.tags_of(tx, name))
                    steps[number - 1] = evolve(steps[number - 1], image=name, tags=tags)
        return tuple(evolve(step, size=sizes.get(step.chain_id, 0) if step.chain_id else 0) for step in steps)

    def folders_of(self, image: Image) -> dict[ChainID, Path]:
        """Where each layer of an image is kept."""
        with self._database.read() as tx:
            stack = layer_rows.stack(tx, image.chain_id)
        files = self._storage.files
        return {chain: files.place_of(Layer(diff.key)) for chain, diff in zip(stack.chain, stack.diffs, strict=True)}

    def beneath(self, image: Image) -> list[Image]:
        """`Image.beneath`."""
        with self._database.read() as tx:
            found = [name for chain in image.chain_ids for name in rows.ending_with(tx, chain) if name != image.id]
            return [self._get(tx, name) for name in found]

    def containers_of(self, image: ImageID) -> tuple[str, ...]:
        """The names of the containers on an image."""
        with self._database.read() as tx:
            return tuple(container.name for container in rows.containers_on(tx, image))

    def inspect(self, image: Image) -> dict[str, Any]:
        """docker's object for an image."""
        with self._database.read() as tx:
            stack = layer_rows.parents_on(tx, image.chain_id)
            tagged = rows.last_tagged(tx, image.id)
        driver = self._storage.driver
        object: dict[str, Any] = {
            "Id": image.id,
            "RepoTags": list(image.tags),
            "RepoDigests": list(image.digests),
            "Parent": image.parent or "",
            "Comment": image.comment,
            "Created": image.created,
            "DockerVersion": str(image.config.get("docker_version") or ""),
            "Author": image.author,
            "Config": image.config.get("config"),
            "Architecture": image.architecture,
            "Os": image.os,
            "Size": image.size,
            "GraphDriver": {
                "Data": dict(driver.graph_data(stack[0], stack[1:])) if stack else None,
                "Name": driver.name,
            },
            "RootFS": {"Type": "layers", "Layers": list(image.layers)},
            "Metadata": {"LastTagTime": config_of.timestamp(tagged or 0) if tagged else "0001-01-01T00:00:00Z"},
        }
        if image.variant:
            object["Variant"] = image.variant
        lacks = lacking(self._database, self._storage)
        if lazy := [layer for layer in dict.fromkeys(image.layers) if layer in lacks]:
            object["Lazy"] = {"Layers": lazy, "Lacking": sum(lacks[layer] for layer in lazy)}
        return object

    # --- use ---

    @contextmanager
    def mounted(self, image: Image) -> Iterator[Path]:
        """While inside, the image's tree is mounted read-only, and the image cannot be removed."""
        session = self._session
        place = self._exec_root / "images" / f"{session.name}-{os.urandom(4).hex()}"
        with self._database.write(durable=False) as tx:
            rows.resolve(tx, image.id)
            stack = layer_rows.parents_on(tx, image.chain_id)
            wanted: list[tuple[str, str | bytes]] = [("image", str(image.id)), ("mount", os.fsencode(place))]
            wanted += [("diff", str(layer.key)) for layer in stack]
            purpose = f"it is mounted at {os.fsencode(place).decode(errors='backslashreplace')}"
            leases = layer_rows.add_leases(tx, session.name, wanted, purpose)
        try:
            with named("mkdir", place):
                place.mkdir(mode=0o700, parents=True)
            try:
                if stack:
                    attach_tree(self._storage, stack[0], stack[1:], place, read_only=True)
                else:
                    attach([EMPTY], place)
                yield place
            finally:
                self._detach(place)
        finally:
            # Somebody who is still in it keeps the lease, too; the next `open` sees to both.
            if mount_id(place) is None:
                self._layers.end_leases(leases)

    def _detach(self, place: Path) -> None:
        try:
            if mount_id(place) is not None:
                unmount(place)
            with named("rmdir", place):
                place.rmdir()
        except KernelError:
            facts.ask_for_recovery(self._database, self._session.stay)
            raise

    @contextmanager
    def loose(self, config: bytes, layers: Sequence[ChainID], purpose: str) -> Iterator[Loose]:
        """While inside, these layers are there: in the form of an image whose config names them by their DiffIDs.

        Raises `NotFound`, and `InvalidArchive` if the config names others.
        """
        with ExitStack() as held:
            found = [held.enter_context(self._layers.held(chain, purpose)).diffs[0] for chain in layers]
            image = Loose(
                id=ImageID(of_bytes(config)),
                tags=(),
                created="",
                size=sum(diff.size for diff in found),
                parent=None,
                digests=(),
                config_bytes=config,
                images=self,
                places=tuple(layers),
            )
            if list(image.layers) != [diff.diff_id for diff in found]:
                raise InvalidArchive("the config names other layers than those that are given with it")
            yield image

    @contextmanager
    def lease(self, images: Sequence[Image], purpose: str = "it is being saved") -> Iterator[None]:
        """While inside, none of the images is removed."""
        with self._database.write(durable=False) as tx:
            for image in images:
                rows.resolve(tx, image.id)
            leases = layer_rows.add_leases(tx, self._session.name, [("image", image.id) for image in images], purpose)
        try:
            yield
        finally:
            self._layers.end_leases(leases)

    def tag(self, ref: str, name: str) -> None:
        """Give an image one more name. If another image has it, that one loses it."""
        full = reference.normalise(name)
        lent = self.lent(ref)
        with self._database.write() as tx:
            image, _ = lent or rows.resolve(tx, ref)
            rows.set_tags(tx, image, [full])

    # --- away ---

    def untag(self, name: str) -> Removal:
        """Take a name away; the image stays, even if it was the last."""
        full = reference.normalise(name)
        with self._database.write() as tx:
            if not rows.has_tag(tx, full):
                raise NotFound(f"no image {reference.familiar(full)}")
            return removal.untag(tx, full)

    def remove(self, ref: str, *, force: bool = False) -> list[Removal]:
        """Remove an image, or one of its several names. Raises `InUse`, which says by whom and how to free it.

        Given a name, the image goes with its last one; the digests that it has in a repository go with its last tag in
        that. Given an ID, all names go with it, if they are of one tag or by `force`. Layers that nothing else needs go
        too, and so do nameless images that it was built on.
        """
        self._database.require_writable()
        self._session.begin()  # so that whoever finds it dead looks for what it left
        with self._database.write() as tx:
            image, name = rows.resolve(tx, ref)
            if name is not None:
                going, staying = removal.going_with(tx, image, name)
                if staying:
                    return [removal.untag(tx, one) for one in going]
            elif removal.has_several_names(tx, image) and not force:
                names = tuple(map(reference.familiar, rows.tags_of(tx, image) or rows.digests_of(tx, image)))
                raise InUse(
                    f"image {short(image)} has several names: {', '.join(names)}",
                    holders=names,
                    remedy=f"Remove it by its names (layerstore rmi {' '.join(names)}), or with --force.",
                )
            removal.require_free(tx, image, self._session.staging)
            done, keys = removal.delete(tx, image)
        self._layers.drop(keys)
        self.after_removal()
        return done

    def prune(self, *, even_tagged: bool = False, among: Collection[ImageID] | None = None) -> list[Removal]:
        """Remove the images that no name, container or other image needs; `even_tagged`: a name does not count.

        `among`: no others than these.
        """
        done: list[Removal] = []
        doomed = []
        with self._database.write() as tx:
            while found := removal.unneeded(tx, even_tagged=even_tagged, among=among):
                for image in found:
                    if removal.is_unneeded(tx, image, even_tagged=even_tagged):
                        removals, keys = removal.delete(tx, image, among=among)
                        done += removals
                        doomed += keys
        self._layers.drop(doomed)
        return done

    def recover(self) -> None:
        """Unmount what dead processes were looking at."""
        with self._database.read() as tx:
            found = layer_rows.dead_leases(tx, self._session.staging, "mount")
        for place in (Path(os.fsdecode(name)) for name in found):
            # Lazily: a child of the dead may still be reading, and keeps what it has open.
            if mount_id(place) is not None:
                unmount(place, lazy=True)
            try:
                place.rmdir()
            except OSError:
                pass  # gone with the boot, or seen to by another process

    def _image(self, row: rows.Row, tags: Sequence[str], digests: Sequence[str], size: int) -> Image:
        return Image(
            id=row.id,
            tags=tuple(sorted(reference.familiar(tag) for tag in tags)),
            created=row.created,
            size=size,
            parent=row.parent,
            digests=tuple(sorted(reference.familiar(digest) for digest in digests)),
            config_bytes=row.config,
            images=self,
        )


def _age(row: rows.Row) -> tuple[bool, datetime | None, int]:
    """By what images are sorted: the time that their config tells, if it does, then that of their coming."""
    then = config_of.moment(row.created)
    return then is not None, then, row.stored
