"""Pushing: the layers that a registry has not got, then the config, then the manifest, so that it never names a hole.

What was pulled goes back as it came, with the manifest that it had, if all of its blobs can be had: the registry has
them, another of its repositories has, they are kept here or can be made again, or they stream from where they were
pulled. Else layers are compressed anew, and an image of the same layers has another manifest; the same one each time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, Unpack

from layerstore import digest, reference
from layerstore.blobs import KnownBlob, Place
from layerstore.compression import COMPRESSIONS, compressing
from layerstore.compression.recipes import own
from layerstore.digest import ChainID, DiffID, Digest
from layerstore.errors import (
    ConfigError,
    Damaged,
    InvalidArchive,
    InvalidReference,
    LayerstoreError,
    NotFound,
    ReadOnlyStore,
)
from layerstore.images import Image, Loose
from layerstore.images import rows as image_rows
from layerstore.manifests import Contents, Descriptor, Manifest, as_descriptor, read
from layerstore.manifests.media_types import CONFIG_TYPE, LAYER_TYPE, MANIFEST_TYPE, MANIFESTS, is_foreign
from layerstore.reference import Reference
from layerstore.registry.client.bodies import Counted, Lost, Source, Verified, Written, body_of
from layerstore.registry.client.repository import Repository
from layerstore.registry.client.uploads import Sent
from layerstore.registry.forms import Form, Forms, Way, compression_of
from layerstore.registry.indexing import Indexing
from layerstore.registry.pushed import Done, Pushed, PushOptions
from layerstore.registry.spool import Spool
from layerstore.registry.tasks import Tasks
from layerstore.registry.through import Through, giving
from layerstore.registry.transport.http import Http
from layerstore.registry.transport.settings import Settings
from layerstore.seekable.zstd import framing
from layerstore.transfer import outgoing
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.blobs import Blobs
    from layerstore.config import Config
    from layerstore.database import Transaction
    from layerstore.digest import ImageID
    from layerstore.images import Images
    from layerstore.layers import Layers, Progress
    from layerstore.seekable import Order

_RECIPES: Final = 4
"""How often it is tried to make a blob again whose recipe is a guess."""

_AT_ONCE: Final = 2
"""How many layers are compressed at once: each has threads of its own."""


def push(
    name: str,
    config: Config,
    images: Images,
    layers: Layers,
    blobs: Blobs,
    *,
    only_one: bool,
    **options: Unpack[PushOptions],
) -> Iterator[Pushed]:
    """See `Store.push_all`. `only_one`: the image of one tag, as in `Store.push`."""
    parsed = _without_digest(name)
    if only_one:
        try:
            image, full = images.find(parsed.familiar)
        except NotFound:
            full = None
        if full is None:
            raise NotFound(
                f"no image has the tag {parsed.familiar}",
                remedy=f"`layerstore tag IMAGE {parsed.familiar}` gives it to one of `layerstore images`.",
            )
        wanted = [(image, parsed.tag or reference.DEFAULT_TAG)]
    else:
        wanted = _all_tags(images, parsed)
    return _push(wanted, parsed, config, images, layers, blobs, **options)


def _all_tags(images: Images, name: Reference) -> list[tuple[Image, str]]:
    """The images that have a tag of a name, and that tag."""
    if name.tag is not None:
        raise InvalidReference(f"{name.familiar} has a tag, but all are to be pushed", remedy="Leave the tag away.")
    found = [
        (image, reference.split(tag)[1])
        for image in images.all()
        for tag in image.tags
        if reference.parse(tag).name == name.name
    ]
    if not found:
        raise NotFound(f"no image has a tag of {name.familiar_name}", remedy="`layerstore images` shows all tags.")
    return sorted(found, key=lambda pair: pair[1])


def save(
    images_given: Image | str | Sequence[Image | str],
    target: str,
    config: Config,
    images: Images,
    layers: Layers,
    blobs: Blobs,
    *,
    compression: str | None,
    progress: Progress | None,
    annotations: Mapping[str, str] | None = None,
) -> tuple[Digest, ...]:
    """See `Store.save`. `target` is `docker://NAME`; the image does not get that name here."""
    given = [images_given] if isinstance(images_given, Image | str) else list(images_given)
    if len(given) != 1:
        raise ConfigError(f"there is one name for {len(given)} images", remedy="Save one at a time.")
    [one] = given
    image = one if isinstance(one, Loose) else images.find(one if isinstance(one, str) else one.id)[0]
    name = _without_digest(target.removeprefix("docker://"))
    wanted = [(image, name.tag or reference.DEFAULT_TAG)]
    pushed = _push(
        wanted,
        name,
        config,
        images,
        layers,
        blobs,
        named=False,
        compression=compression,
        progress=progress,
        annotations=annotations,
    )
    return tuple(each.digest for each in pushed)


def _push(
    wanted: Sequence[tuple[Image, str]],
    target: Reference,
    config: Config,
    images: Images,
    layers: Layers,
    blobs: Blobs,
    *,
    named: bool = True,
    compression: str | None = None,
    progress: Progress | None = None,
    done: Done | None = None,
    told: Callable[[str], None] | None = None,
    annotations: Mapping[str, str] | None = None,
    with_index: bool = False,
    order: Order | None = None,
) -> Iterator[Pushed]:
    """Images, each with the tag that it is to have. `named`: it is known here by the digest that it has there."""
    if compression is not None and compression not in COMPRESSIONS:
        raise ConfigError(f"there is no compression {compression!r}", remedy=f"It is one of {', '.join(COMPRESSIONS)}.")
    settings = Settings.of(config)
    with (
        images.lease([image for image, _ in wanted if not isinstance(image, Loose)], "it is being pushed"),
        Http(settings, told=told) as http,
        Tasks(settings.uploads, abort=http.close) as tasks,
        giving(config, settings, blobs, told) as through,
    ):
        pushing = _Push(
            target,
            http,
            settings,
            tasks,
            images,
            layers,
            blobs,
            compression=compression,
            keep=config.keep_blobs,
            named=named,
            progress=progress,
            done=done,
            through=through,
            annotations=annotations,
            indexing=partial(Indexing, order=order) if with_index else None,
        )
        for image, tag in wanted:
            yield pushing.image(image, tag)


def _without_digest(name: str) -> Reference:
    parsed = reference.parse(name)
    if parsed.digest is not None:
        raise InvalidReference(
            f"{name!r} has a digest: what is pushed gets a tag", remedy="Name a tag, or none for latest."
        )
    return parsed


@frozen
class _Layer:
    """A layer of an image: what it is, and one of the places where the store has it."""

    diff_id: DiffID
    chain_id: ChainID

    @property
    def label(self) -> str:
        return digest.short(self.diff_id)


class _Push:
    """A push of one or several images into one repository."""

    def __init__(
        self,
        target: Reference,
        http: Http,
        settings: Settings,
        tasks: Tasks,
        images: Images,
        layers: Layers,
        blobs: Blobs,
        *,
        compression: str | None,
        keep: bool,
        named: bool,
        progress: Progress | None,
        done: Done | None,
        through: Through | None,
        annotations: Mapping[str, str] | None,
        indexing: Callable[[Repository, Layers, Blobs, Done | None], Indexing] | None,
    ) -> None:
        self._annotations = annotations
        self._through = through
        self._target = target
        self._place = Place(target.domain, target.path)
        self._tasks = tasks
        self._images = images
        self._layers = layers
        self._blobs = blobs
        self._compression = compression
        self._keep = keep
        self._is_named = named
        self._progress = progress
        self._done = done
        self._repository = Repository(http, settings, target, actions=("pull", "push"))
        self._indexing = None if indexing is None else indexing(self._repository, layers, blobs, done)
        self._forms = Forms(http, settings, self._repository, self._place, blobs)
        self._compressing = threading.BoundedSemaphore(_AT_ONCE)
        self._named: set[str] = set()
        """The layers of which it was said what became of them."""

    def image(self, image: Image, tag: str) -> Pushed:
        """Have an image in the repository, under this tag."""
        self._named = set()
        manifest = None
        while manifest is None:
            try:
                manifest = self._send_image(image)
            except Lost as lost:
                # Each way to it is lost but once, and a layer that is compressed anew cannot be.
                if not self._forms.lost(lost.descriptor):
                    raise lost.reason from lost
        self._repository.put_manifest(tag, manifest)
        if self._indexing is not None:
            self._tasks.run([partial(self._indexing.image, image, manifest)])
        if isinstance(image, Loose):
            return Pushed(reference.familiar(f"{self._target.name}:{tag}"), manifest.digest, manifest.size)
        with suppress(ReadOnlyStore):  # a store that can only be read can give, and remembers nothing
            self._images.name(image.id, (), record=partial(self._record, manifest))
        full = f"{self._target.name}:{tag}"
        if self._through is not None:
            self._through.give(full, [manifest], image.config_bytes, self._repository)
        name = reference.familiar(full)
        return Pushed(name, manifest.digest, manifest.size)

    def _send_image(self, image: Image) -> Manifest:
        """All blobs that its manifest names; that manifest."""
        stack = [_Layer(*pair) for pair in zip(image.layers, image.chain_ids, strict=True)]
        if (exact := self._exact(image)) is not None:
            manifest, (config, *forms) = exact
            labelled = zip(forms, (layer.label for layer in stack), strict=True)
            sends = {form.descriptor.digest: partial(self._send, form, label) for form, label in labelled}
            self._tasks.run([*sends.values(), partial(self._send, config, None)], last=Lost)
            return manifest
        # The topmost first, as docker: what is new is there.
        unique = {layer.diff_id: layer for layer in reversed(stack)}
        tasks = [partial(self._config, image), *(partial(self._layer, layer) for layer in unique.values())]
        made = self._tasks.run(tasks, last=Lost)[1:]
        sent = dict(zip(unique, made, strict=True))
        data = outgoing.manifest(image.config_bytes, [sent[layer.diff_id] for layer in stack], self._annotations)
        return Manifest.of(MANIFEST_TYPE, data)

    def _record(self, manifest: Manifest, tx: Transaction, image: ImageID) -> None:
        self._blobs.put_manifest(manifest.media_type, manifest.data, images=[image], tx=tx)
        parts = [part.digest for part in read(manifest).blobs if not is_foreign(part.media_type)]
        self._blobs.saw(tx, [*parts, manifest.digest], self._place.registry, self._place.repository)
        if self._is_named:
            image_rows.set_digest(tx, image, self._target.name, manifest.digest)

    # --- which manifest ---

    def _exact(self, image: Image) -> tuple[Manifest, list[Form]] | None:
        """A manifest that the image came or was sent as, all of whose blobs can be had; those, its config first."""
        for manifest in self._candidates(image):
            contents = _contents(manifest, image)
            if contents is None or not all(map(self._fits, contents.layers)):
                continue
            if self._annotations and contents.annotations != self._annotations:
                continue
            forms = self._tasks.run([partial(self._forms.find, part) for part in contents.blobs])
            there = [form for form in forms if form is not None]
            if len(there) == len(forms):  # else the next, or compressed anew
                return manifest, there
        return None

    def _candidates(self, image: Image) -> list[Manifest]:
        """Those by which this repository knows it come first: two pushes of an image are the same."""
        here = {
            pinned.partition("@")[2] for pinned in image.digests if reference.parse(pinned).name == self._target.name
        }
        known = [
            Manifest(found.digest, found.media_type, found.data)
            for found in self._blobs.manifests_of(image.id)
            if found.media_type in MANIFESTS
        ]
        return sorted(known, key=lambda manifest: manifest.digest not in here)

    def _fits(self, blob: Descriptor) -> bool:
        return self._compression in (None, compression_of(blob.media_type)) or is_foreign(blob.media_type)

    # --- blobs ---

    def _config(self, image: Image) -> Mapping[str, Any]:
        config = Descriptor(CONFIG_TYPE, Digest(image.id), len(image.config_bytes))
        if not self._forms.is_there(config):
            self._upload(config, lambda: BytesIO(image.config_bytes), None, lambda _: None)
        return outgoing.descriptor(config.media_type, config.digest, config.size)

    def _layer(self, layer: _Layer) -> Mapping[str, Any]:
        """Have a layer there, in whatever form; its descriptor."""
        form = self._known(layer)
        if form is None:
            return self._anew(layer)
        self._send(form, layer.label)
        blob = form.descriptor
        return outgoing.layer(compression_of(blob.media_type), blob.digest, blob.size)

    def _known(self, layer: _Layer) -> Form | None:
        """The best form in which a layer is known: one that is there goes before one that can be had."""
        known = [
            Descriptor(blob.media_type, blob.digest, blob.size)
            for blob in self._blobs.forms_of(layer.diff_id)
            if not is_foreign(blob.media_type)
        ]
        known = [blob for blob in known if self._fits(blob)]
        if self._compression == "none":
            known.append(Descriptor(LAYER_TYPE, Digest(layer.diff_id), self._layers.size(layer.chain_id)))
        for blob in known:
            if self._forms.is_there(blob):
                return Form(blob, Way.THERE)
        packed = [blob for blob in known if self._compression == "none" or compression_of(blob.media_type) != "none"]
        return next((form for blob in packed if (form := self._forms.find(blob)) is not None), None)

    def _send(self, form: Form, label: str | None) -> None:
        """Have a blob there. `label`: of the layer that it holds."""
        blob = form.descriptor
        match form.way:
            case Way.THERE:
                self._say(label, "Layer already exists", blob.size)
                return
            case Way.FOREIGN:
                self._say(label, "Skipped foreign layer", blob.size)
                return
            case Way.KEPT:
                opened: Callable[[], Source] = partial(Written, partial(self._blobs.write, blob.digest))
            case Way.GUESSED:
                self._made(blob, label)
                return
            case Way.ELSEWHERE:
                assert form.place is not None
                opened = partial(
                    Verified, blob, partial(self._forms.repository(form.place).blob, blob.digest, blob.size)
                )
        self._upload(blob, opened, label, partial(self._report, label, blob.size))

    def _made(self, blob: Descriptor, label: str | None) -> None:
        """Make a blob by a recipe that is only a guess, and have it there if it is the right one."""
        for _ in range(_RECIPES):
            with Spool(self._layers.session.folder) as spool:
                try:
                    with self._compressing:
                        self._blobs.write(blob.digest, spool.write)
                except Damaged as error:
                    wrong: LayerstoreError = error
                    continue  # what it was made by is forgotten, and there may be another recipe
                except NotFound as error:
                    raise Lost(blob, error) from error
                self._upload(blob, spool.open, label, partial(self._report, label, blob.size))
                return
        raise Lost(blob, wrong) from wrong

    def _anew(self, layer: _Layer) -> Mapping[str, Any]:
        """Compress a layer, and have the result there; its descriptor."""
        compression = self._compression or "gzip"
        size = self._layers.size(layer.chain_id)
        with Spool(self._layers.session.folder) as spool:
            with self._compressing:
                done = 0

                def take(data: memoryview) -> None:
                    nonlocal done
                    self._tasks.check()
                    compress(data)
                    done += len(data)
                    self._report(layer.label, size, done // 2)

                is_framed = self._indexing is not None and compression == "zstd"
                with framing(spool.write) if is_framed else compressing(spool.write, compression) as compress:
                    self._layers.give_out(layer.chain_id, take)
            made = outgoing.layer(compression, spool.digest, spool.size)
            blob = as_descriptor(made, "layer")
            if self._forms.is_there(blob):
                self._say(layer.label, "Layer already exists", size)
            else:
                # To people it is one way: half of it is compressing, half is sending.
                scale = size / max(1, spool.size) / 2
                self._upload(
                    blob,
                    spool.open,
                    layer.label,
                    lambda sent: self._report(layer.label, size, size // 2 + int(sent * scale)),
                )
            if self._keep:
                with suppress(ReadOnlyStore):
                    self._blobs.put(spool.open(), expected=blob.digest)
        recipe = None if is_framed else own(compression)
        text = None if recipe is None else str(recipe)
        known = KnownBlob(blob.digest, layer.diff_id, blob.size, blob.media_type, text, is_proved=text is not None)
        with suppress(ReadOnlyStore):
            self._blobs.remember(None, known, [self._place])
        return made

    def _upload(self, blob: Descriptor, open: Callable[[], Source], label: str | None, counted: Counted) -> None:
        mounts, tried = self._forms.mounts(blob), list[str]()
        body = body_of(blob, open, tasks=self._tasks, counted=counted)
        upload = self._repository.upload
        how = upload(blob.digest, body, mount_from=mounts, is_asked=True, tried=tried.append)
        self._forms.arrived(blob)
        words = {Sent.PRESENT: "Layer already exists", Sent.MOUNTED: f"Mounted from {tried[-1] if tried else ''}"}
        self._say(label, words.get(how, "Pushed"), blob.size)

    # --- what people are told ---

    def _say(self, label: str | None, words: str, size: int) -> None:
        if label is not None and label not in self._named:
            self._named.add(label)
            self._report(label, size, size)
            if self._done is not None:
                self._done(label, words)

    def _report(self, label: str | None, size: int, done: int) -> None:
        if self._progress is not None and label is not None:
            self._progress(label, done, size)


def _contents(manifest: Manifest, image: Image) -> Contents | None:
    """What a manifest says, if it is one of this image."""
    try:
        contents = read(manifest)
    except InvalidArchive:
        return None
    is_its = contents.config is not None and contents.config.digest == Digest(image.id)
    return contents if is_its and len(contents.layers) == len(image.layers) else None
