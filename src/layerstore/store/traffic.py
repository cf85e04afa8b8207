"""Images in and out of a store: archives, registries, the tar of a root filesystem, layers that one has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Unpack

from layerstore.errors import ConfigError
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.attached import AttachedImage
    from layerstore.attached.adopting import Adopted
    from layerstore.blobs import Blobs
    from layerstore.digest import ChainID, DiffID, Digest
    from layerstore.images import Image, Images, Loaded
    from layerstore.layers import Layers, LayerSource, Progress
    from layerstore.parts import Parts
    from layerstore.reference import Reference
    from layerstore.registry.lazily import Ahead
    from layerstore.registry.pull import Pulled, PullOptions, PullWishes
    from layerstore.registry.pushed import Pushed, PushOptions
    from layerstore.tar import LayerEntry
    from layerstore.transfer.incoming import Blob


@in_words("the store in {0.data_root}")
class Traffic:
    """What a `Store` does with images that come and go."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def _images(self) -> Images:
        return self._parts.images

    @property
    def _blobs(self) -> Blobs:
        return self._parts.blobs

    @property
    def _layers(self) -> Layers:
        return self._parts.layers

    def load(
        self,
        source: str | Path | BinaryIO,
        *,
        only: Sequence[str] = (),
        names: Sequence[str] = (),
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> list[Loaded]:
        """Load the images of an archive: docker-archive or OCI layout; a tar, a folder, a stream, or "-".

        "-" is standard input. Each image that is returned says which names the archive gave it (`names`), and which of
        them were taken from another image (`taken`); an archive that names none leaves the tags as they are.

        `only`: load these images of the archive, given by a name, an ID, or the beginning of one; one that is given by
        a name comes under that name alone. `names`: call the image so, and not as the archive does; there must be one
        image then, or `only` must choose one. `platform` (`linux/arm64`) chooses where an image is there for several.

        `docker://NAME` is an image of a registry: it is pulled (`pull`), under its name or under `names`.

        Layers that a file or folder lacks come from daemon.json's remotes, if it names any.

        Raises `InvalidArchive`, `NotFound` and `Ambiguous`, and leaves the store as it was.
        """
        if isinstance(source, str) and source.startswith("docker://"):
            from layerstore.registry.pull import load

            parts = (self._parts.config, self._images, self._blobs)
            return [load(source, *parts, only=only, names=names, platform=platform, progress=progress)]
        from layerstore import transfer

        return transfer.load(
            source,
            images=self._images,
            layers=self._layers,
            only=only,
            names=names,
            platform=platform,
            progress=progress,
            elsewhere=self._elsewhere if self._parts.config.remotes else None,
        )

    def attached_images(self) -> list[AttachedImage]:
        """The images of attached stores (`attach`), as those have them, one store after the other.

        Each is there to be used by its name or ID (`image`, `create_container`, `save`, `FROM` in a Dockerfile), where
        no image of this store has that: it is borrowed then, and its files stay where they are. What is written there
        by its owner goes on meanwhile; what that removes is gone here, too. Raises `ConfigError`, `Damaged`.
        """
        return list(self._parts.attached.images()) if self._parts.config.attach else []

    def adopt(self, ref: str, *, progress: Progress | None = None) -> Adopted:
        """Make an image of an attached store this store's own; or one that stands on borrowed layers.

        Each layer is taken in and proved by its DiffID. Where the other store keeps nothing that says what the tar was,
        that is made anew, so the image has another ID, and `notices` tell it. Where both lie on one filesystem that can
        share blocks (btrfs, xfs), they do. Raises `NotFound`, `Damaged`.
        """
        from layerstore.attached.adopting import adopt

        parts = self._parts
        return adopt(parts.attached, parts.database, parts.session, parts.storage, ref, progress=progress)

    @contextmanager
    def look_into(
        self, source: str | Path, *, platform: str | None = None, progress: Progress | None = None
    ) -> Iterator[tuple[bytes, list[LayerSource]]]:
        """While inside: an image that lies elsewhere, without taking it in. Its config, and a source for each layer.

        A source that is read is fetched; the others cost nothing. `docker://NAME` is an image of a registry, else
        `source` is an archive in a folder or an uncompressed file. The layers need not be a stack (`save_layers`): they
        are what the config's DiffIDs say, in that order. Raises `NotFound`, `InvalidArchive`, `RegistryError`.
        """
        if isinstance(source, str) and source.startswith("docker://"):
            from layerstore import reference
            from layerstore.registry.pull import pulling

            parts = (self._parts.config, self._images, self._blobs)
            name = reference.parse(source.removeprefix("docker://"))
            with pulling(*parts, platform=platform, progress=progress) as puller, puller.looked_into(name) as found:
                yield found
            return
        from layerstore.transfer.loading import looked_into

        with looked_into(source, self._parts.config.limits, platform=platform) as offered:
            yield offered

    def save_layers(
        self,
        config: bytes,
        layers: Sequence[ChainID],
        target: str | Path,
        *,
        compression: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Write layers in the form of an image that the store need not have, and that need not be a stack of them.

        `config` names them by their DiffIDs, in this order, and may say whatever else. `target` is a folder, which
        becomes an OCI layout, whatever was there; or `docker://NAME`: a registry gets them under that name. There, what
        the registry has is not sent again. Raises `NotFound`, `InvalidArchive`, `RegistryError`.
        """
        with self._images.loose(config, layers, "it is being given away") as image:
            if isinstance(target, str) and target.startswith("docker://"):
                from layerstore.registry import push

                parts = (self._images, self._layers, self._blobs)
                push.save(image, target, self._parts.config, *parts, compression=compression, progress=progress)
                return
            from layerstore.transfer.saving import save_images

            save_images(
                [image],
                [()],
                target,
                layers=self._layers,
                format="oci",
                folder=True,
                compression=compression,
                progress=progress,
            )

    def _elsewhere(self, layer: Blob) -> LayerSource:
        from layerstore.registry.ways import source_of

        return source_of(layer, self._parts.config, self._blobs)

    def save(
        self,
        images: Image | str | Sequence[Image | str],
        target: str | Path | BinaryIO,
        *,
        format: str = "docker-archive",
        folder: bool | None = None,
        compression: str | None = None,
        progress: Progress | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> tuple[Digest, ...]:
        """Save images to an archive, each layer bit for bit as it came in.

        An image that is given by a name is saved under that name, else under all it has. `docker://NAME` is a target,
        too: the image is pushed, under that name.

        `annotations` are those of the manifests that are written, of whose digests one for each image is returned; a
        docker-archive has neither.
        """
        if isinstance(target, str) and target.startswith("docker://"):
            from layerstore.registry import push

            parts = (self._images, self._layers, self._blobs)
            return push.save(
                images,
                target,
                self._parts.config,
                *parts,
                compression=compression,
                progress=progress,
                annotations=annotations,
            )
        from layerstore import transfer
        from layerstore.images import Image

        chosen, names = self._images.given([images] if isinstance(images, Image | str) else images)
        with self._images.lease(chosen):
            return transfer.save(
                chosen,
                names,
                target,
                layers=self._layers,
                format=format,
                folder=folder,
                compression=compression,
                progress=progress,
                annotations=annotations,
            )

    def push(
        self,
        name: str,
        *,
        compression: str | None = None,
        progress: Progress | None = None,
        done: Callable[[str, str], object] | None = None,
        told: Callable[[str], None] | None = None,
        annotations: Mapping[str, str] | None = None,
        with_index: bool = False,
        order: str | Path | None = None,
    ) -> Pushed:
        """Give an image to the registry that its name says, under that tag (`latest` where it says none).

        What the registry has is not sent. What was pulled goes back to the byte, with the manifest that it had, as far
        as its blobs can be had: see the guide. Else, or where `compression` ("gzip", "zstd" or "none") asks for another
        one, layers are compressed anew, the same each time. Broken off at any moment, the next push sends what is left.
        With `annotations` the manifest has these and no others.

        `with_index`: what others need to pull it lazily (`pull`) is attached to it, as a referrer of its manifest. A
        layer that is one frame of zstd has no index; with `compression="zstd"` what is compressed here is many.
        `order`, a file of `record_order`, is attached, too: what it names comes first to who pulls lazily.

        `done` is told what became of each layer, in docker's words; `told` is given lines for a person: waits, and
        warnings of the registry. Both come from any thread. Raises `NotFound`, `RegistryError`.
        """
        from layerstore.seekable import Order

        options: PushOptions = {
            "compression": compression,
            "progress": progress,
            "done": done,
            "told": told,
            "annotations": annotations,
            "with_index": with_index or order is not None,
            "order": None if order is None else Order.of_file(Path(order)),
        }
        [pushed] = self.push_all(name, only_one=True, **options)
        return pushed

    def push_all(self, name: str, *, only_one: bool = False, **options: Unpack[PushOptions]) -> Iterator[Pushed]:
        """`push` for every tag that this store has of a name, one after the other, as the result is iterated."""
        from layerstore.registry.push import push

        parts = (self._parts.config, self._images, self._layers, self._blobs)
        return push(name, *parts, only_one=only_one, **options)

    def pull(
        self,
        name: str,
        *,
        platform: str | None = None,
        progress: Progress | None = None,
        begun: Callable[[Reference], object] | None = None,
        told: Callable[[str], None] | None = None,
        lazy: bool = False,
        prefetch_from: str | Path = "recorded",
    ) -> Pulled:
        """Get an image from a registry: `debian:12`, `host:5000/team/app`, `debian@sha256:…`.

        What the name means in the registry, it means here from then on. What the store has is not fetched again; what
        came of a pull that broke off is there for the next one. It is durable when this returns. Needs the extra
        `registry`.

        `platform` (`linux/arm64`) chooses where an image is there for several; the default is this machine's.
        `progress` is told the bytes of blobs, `told` lines for a person: waits, and warnings of the registry. `begun`
        is called when the registry has said that there is such an image.

        `lazy`: layers that have an index (`push`) come when they are read, and the rest in the background. In a store
        by erofs alone, else `DriverNotSupported` says why not. What a first run read comes first, in its order, as
        `prefetch_from` knows it: a file of `record_order`, "recorded", which is what `push` has attached to the image,
        or "nothing". What was pulled so once is waited for, where it is pulled again and not lazily. It is fetched with
        the credentials that are kept, so a store that is opened with an `Access` of its own refuses it: `ConfigError`.

        Raises `NotFound`, `RegistryError` with all that derive from it, `InvalidArchive`, `DigestMismatch`, and leaves
        the store as it was.
        """
        from layerstore.registry.pull import pull

        options: PullOptions = {
            "platform": platform,
            "progress": progress,
            "begun": begun,
            "told": told,
            "lazy": self._ahead(prefetch_from) if lazy else None,
        }
        pulled = pull(name, self._parts.config, self._images, self._blobs, **options)
        if not lazy:
            self._layers.make_whole(pulled.chain_ids, told)
        return pulled

    def pull_all(self, name: str, **wishes: Unpack[PullWishes]) -> Iterator[Pulled]:
        """Pull all tags of a repository, one after the other: see `pull`."""
        from layerstore.registry.pull import pull_all

        ahead = self._ahead(wishes.get("prefetch_from", "recorded")) if wishes.get("lazy") else None
        options: PullOptions = {
            "platform": wishes.get("platform"),
            "progress": wishes.get("progress"),
            "begun": wishes.get("begun"),
            "told": wishes.get("told"),
            "lazy": ahead,
        }
        for pulled in pull_all(name, self._parts.config, self._images, self._blobs, **options):
            if ahead is None:
                self._layers.make_whole(pulled.chain_ids, wishes.get("told"))
            yield pulled

    def _ahead(self, prefetch_from: str | Path) -> Ahead:
        """How lazy layers are to come. Raises `DriverNotSupported` where there can be none, `ConfigError`."""
        from layerstore.access import Access
        from layerstore.registry.lazily import Ahead
        from layerstore.seekable import Order

        if self._parts.config.access != Access():
            raise ConfigError(
                "lazy layers come when this call has ended, and by what is kept: not by what this call alone is told",
                remedy="Log in first, or pull the image whole.",
            )
        self._layers.files.require_lazy()
        begin = self._layers.files.begin_lazy
        if prefetch_from in ("recorded", "nothing"):
            return Ahead(begin, recorded=prefetch_from == "recorded")
        return Ahead(begin, Order.of_file(Path(prefetch_from)))

    @contextmanager
    def record_order(self, image: Image | str, path: str | Path) -> Iterator[None]:
        """While inside, record in which order the lazy layers of an image are read; then that is the file `path`.

        Nothing of them comes meanwhile but what is read, so that all that is can be seen: do this with the first run of
        an image that was pulled lazily a moment ago. Raises `NotFound` if none of its layers is lazy.
        """
        found = self._images.find(image)[0] if isinstance(image, str) else image
        with self._layers.recording_order(found.chain_ids, Path(path)):
            yield

    def import_tar(
        self,
        source: str | Path | BinaryIO,
        reference: str | None = None,
        *,
        message: str = "",
        instructions: Sequence[str] = (),
        platform: str | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Make an image of one layer from the tar of a root filesystem; "-" is standard input.

        `instructions` are those of a Dockerfile (`CMD`, `ENV`, ...), for its configuration.
        """
        from layerstore.transfer.importing import import_tar

        return import_tar(
            source,
            reference,
            images=self._images,
            layers=self._layers,
            message=message,
            instructions=instructions,
            platform=platform,
            progress=progress,
        )

    def add(
        self,
        config: bytes,
        sources: Sequence[LayerSource],
        names: Sequence[str] = (),
        *,
        progress: Progress | None = None,
    ) -> Loaded:
        """Add an image of layers that one has, however they came: all of it, or nothing.

        `config` is the image's (OCI image spec, config.md), to the byte; there is one source for each of its DiffIDs,
        in order, and those of layers that the store has already are not opened. Raises `InvalidArchive`,
        `DigestMismatch`, `DepthExceeded`.
        """
        return self._images.add(config, sources, names, progress=progress)

    def write_layer(self, layer: ChainID | DiffID | str, write: Callable[[memoryview], object]) -> None:
        """Write the tar of a layer, given by its ChainID or DiffID, byte for byte as it came in.

        What `write` is given is valid until it returns. The DiffID is verified: `Damaged` at the end means that what
        was written is worthless. Raises `NotFound`.
        """
        self._layers.give_out(self._layers.named(layer), write)

    def layer_entries(self, layer: ChainID | DiffID | str) -> Iterator[LayerEntry]:
        """What a layer, given by its ChainID or DiffID, says of each name: parents before what is in them.

        It is read from what the store keeps of the tar, not from the files: nothing is mounted. The layer may go once
        this has returned. Raises `NotFound`, `Damaged`, `KernelError`.
        """
        return self._layers.entries(self._layers.named(layer))
