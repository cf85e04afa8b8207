"""Images out of a registry into the store: what a name means there, which image of it is wanted, and its layers.

What the store has is looked at first. A name that means what it meant costs one HEAD; documents are kept, layers are
known by their DiffIDs, and only the blobs of those that are missing are fetched. A pulled image comes in whole, in one
transaction with what is remembered of it: its digests, which blob holds which layer, and where it was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from attrs import evolve, field, fields

from layerstore import manifests, platforms, reference
from layerstore.blobs import Blobs, KnownBlob
from layerstore.digest import Digest, ImageID
from layerstore.errors import (
    CertificateError,
    ConfigError,
    InvalidArchive,
    NotFound,
    Unreachable,
)
from layerstore.images import Images, Loaded
from layerstore.images import config as config_of
from layerstore.layers import LayerSource, Progress
from layerstore.manifests import Descriptor, Manifest
from layerstore.manifests.tables import place_of
from layerstore.platforms import Platform
from layerstore.reference import DEFAULT_TAG, Reference
from layerstore.registry.client.manifests import image_in
from layerstore.registry.fetching import Blob, Fetching
from layerstore.registry.lazily import Ahead, Lazily
from layerstore.registry.transport.words import printable
from layerstore.values import frozen

if TYPE_CHECKING:
    from pathlib import Path

    from layerstore.blobs import Partial
    from layerstore.config import Config
    from layerstore.database import Transaction
    from layerstore.registry.client.repository import Reader, Repository
    from layerstore.registry.remotes import Remotes
    from layerstore.registry.through import Through

__all__ = ["PullWishes", "Pulled", "Puller", "load", "pull", "pull_all", "pulling"]


@frozen(slots=False, eq=False)
class Pulled(Loaded):
    """An image that was pulled. It is equal to the `Image` that it is."""

    digest: Digest = field(kw_only=True)
    """What the registry calls it: the digest of its manifest, or of the index that it was chosen from."""
    is_newer: bool = field(kw_only=True)
    """Did the name mean another image, or none, before?"""

    @classmethod
    def from_registry(cls, loaded: Loaded, digest: Digest, *, is_newer: bool) -> Self:
        """A loaded image, and what the registry says of it."""
        facts = {one.alias or one.name: getattr(loaded, one.name) for one in fields(Loaded)}
        return cls(**facts, digest=digest, is_newer=is_newer)


class _Told(TypedDict, total=False):
    platform: str | None
    progress: Progress | None
    begun: Callable[[Reference], object] | None
    told: Callable[[str], None] | None


class PullWishes(_Told, total=False):
    """What `Store.pull` can be told; see there."""

    lazy: bool
    prefetch_from: str | Path


class PullOptions(_Told, total=False):
    """The same, as a pull is told. `lazy`: how lazy layers are to come."""

    lazy: Ahead | None


@frozen
class _Chosen:
    """What a name led to: the documents from the one that the name means down to the image's own manifest."""

    documents: tuple[Manifest, ...]
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def digest(self) -> Digest:
        """What the name means."""
        return self.documents[0].digest


class Puller:
    """Pulls images with one set of connections.

    `open_repository` gives the client of a repository. `begun` is called with each name as soon as the registry has
    said that there is such an image. `remotes` are asked for layers before the registry is, and
    for names where it cannot be reached; what was fetched is given on by `through`.
    """

    def __init__(
        self,
        open_repository: Callable[[Reference], Repository],
        images: Images,
        blobs: Blobs,
        *,
        at_once: int,
        keep: bool,
        platform: Platform | None = None,
        progress: Progress | None = None,
        begun: Callable[[Reference], object] | None = None,
        told: Callable[[str], None] | None = None,
        remotes: Remotes | None = None,
        through: Through | None = None,
        lazy: Ahead | None = None,
    ) -> None:
        self._lazy = lazy
        self._open_repository = open_repository
        self._told = told
        self._remotes = remotes
        self._through = through
        self._images = images
        self._blobs = blobs
        self._at_once = at_once
        self._keep = keep
        self._platform = platform
        self._progress = progress
        self._begun = begun

    def pull_all(self, name: Reference) -> Iterator[Pulled]:
        """The images of all tags that a repository has."""
        found = sorted(set(self._open_repository(name).tags()))
        if not found:
            raise NotFound(f"{name.familiar_name} has no tags", remedy="Look whether the name is right.")
        for tag in found:
            yield self.pull(evolve(name, tag=tag, digest=None))

    def pull(self, name: Reference, names: Sequence[str] | None = None) -> Pulled:
        """The image that a name means. `names`: those to give it in the store, in full, in the place of this one.

        Raises `NotFound`, `InvalidArchive` and what the registry's failures are; the store is as it was then.
        """
        if names is None:
            names = [name.full] if name.digest is None else []
        repository = self._open_repository(name)
        chosen = self._choose(name, repository)
        if self._begun is not None:
            self._begun(name)
        image = ImageID(chosen.config.digest)
        before = self._images.meant_by(*names, f"{name.name}@{chosen.digest}")
        loaded = None
        if self._images.is_sound(image):
            is_told = all(one == image for one in before)
            loaded = self._named(name, chosen, names, is_told=is_told)
            if loaded is not None and not is_told:
                self._give(name, chosen, loaded.config_bytes, repository)
        if loaded is None:
            loaded = self._fetch(name, repository, chosen, names)
        return Pulled.from_registry(loaded, chosen.digest, is_newer=before[0] != image)

    def _named(self, name: Reference, chosen: _Chosen, names: Sequence[str], *, is_told: bool) -> Loaded | None:
        """The image that is there already, with its names; None if it went since. `is_told`: nothing is new."""
        image = ImageID(chosen.config.digest)
        try:
            self._check_platform(self._images.get(image).config, name)
            if is_told:
                return Loaded.of(self._images.get(image), names, {})
            return self._images.name(image, names, partial(self._remember, name, chosen, ()))
        except NotFound:
            return None

    @contextmanager
    def looked_into(self, name: Reference) -> Iterator[tuple[bytes, list[LayerSource]]]:
        """The config of an image, and its layers, which are fetched as they are read. Nothing is remembered of it."""
        repository = self._open_repository(name)
        chosen = self._choose(name, repository)
        config = self._config(chosen.config, repository)
        blobs = _blobs(config, chosen, name.familiar_name)
        with self._fetching(repository, blobs, name.familiar_name) as fetching:
            yield config, [_source(fetching, blob) for blob in blobs]
            fetching.finish()

    @contextmanager
    def _fetching(self, repository: Repository, blobs: Sequence[Blob], title: str) -> Iterator[Fetching]:
        with ExitStack() as at_work:
            hunt = None if self._remotes is None else at_work.enter_context(self._remotes.hunt(blobs))
            yield at_work.enter_context(
                Fetching(
                    partial(self._rest, repository),
                    self._blobs,
                    title,
                    at_once=self._at_once,
                    keep=self._keep,
                    progress=self._progress,
                    hunt=hunt,
                )
            )

    # --- what the name means ---

    def _choose(self, name: Reference, repository: Repository) -> _Chosen:
        way = image_in(
            self._first(name, repository),
            self._platform,
            lambda entry: self._document(entry.digest, repository, entry),
            what=name.familiar,
        )
        manifests.check_layers(way.contents.layers)
        return _Chosen(way.documents, way.config, way.contents.layers)

    def _first(self, name: Reference, repository: Repository) -> Manifest:
        """The document that the name means: by the word of the registry, else of a remote that keeps names."""
        try:
            return self._meant(name, repository)
        except CertificateError:
            raise
        except Unreachable as error:
            found = None if self._remotes is None else self._remotes.meaning(name.pinned or name.full)
            if found is None:
                raise
            remote, known, data = found
            if self._told is not None:
                since = f", since {known.written}" if known.written else ""
                self._told(f"{error.message}: {name.familiar} is what {remote.name} has by that name{printable(since)}")
            return Manifest(known.digest, manifests.media_type_of(data, known.media_type, name.familiar), data)

    def _meant(self, name: Reference, repository: Repository) -> Manifest:
        known = self._images.meant_by(name.pinned or name.full)[0]
        if name.digest is not None:
            kept = None if known is None else self._blobs.manifest(name.digest)
            return kept or repository.manifest(name.digest, expected=name.digest)
        tag = name.tag or DEFAULT_TAG
        if known is None:
            return repository.manifest(tag)  # there is nothing to compare with: a HEAD would be in vain
        found = repository.resolve(tag)
        if found is None:
            return repository.manifest(tag)  # which says in words that there is none
        return self._document(found.digest, repository)

    def _document(self, digest: Digest, repository: Repository, entry: Descriptor | None = None) -> Manifest:
        """A manifest or index: kept here, in the index itself, or in the registry."""
        if (kept := self._blobs.manifest(digest)) is not None:
            return kept
        if entry is not None and entry.data is not None:
            return Manifest(digest, entry.media_type, entry.data)
        try:
            return repository.manifest(digest, expected=digest)
        except Unreachable:
            data = None if self._remotes is None else self._remotes.manifest(digest)
            if data is None:
                raise
            return Manifest(digest, manifests.media_type_of(data, None, f"the manifest {digest}"), data)

    def _config(self, config: Descriptor, repository: Repository) -> bytes:
        if (known := self._images.config_of(ImageID(config.digest))) is not None:
            return known
        try:
            return repository.small_blob(config)
        except Unreachable:
            self._blobs.limits.check_document("config", config.size, f"config {config.digest}")
            data = self._remotes.small_blob(config.digest, config.size) if self._remotes else None
            if data is None:
                raise
            return data

    # --- its layers ---

    def _fetch(self, name: Reference, repository: Repository, chosen: _Chosen, names: Sequence[str]) -> Loaded:
        title = name.familiar_name
        with ExitStack() as at_work:
            lazily = None
            if self._lazy is not None:
                image = chosen.documents[-1].digest
                tabled = {layer.digest for layer in chosen.layers if place_of(layer) is not None}
                lazily = at_work.enter_context(Lazily(repository, image, self._told, self._lazy, tabled))
            config = self._config(chosen.config, repository)
            self._check_platform(config_of.read(config), name)
            blobs = _blobs(config, chosen, title)
            fetching = at_work.enter_context(self._fetching(repository, blobs, title))
            sources = [_source(fetching, blob) for blob in blobs]
            if lazily is not None:
                sources = lazily.sources(blobs, sources)
            loaded = self._images.add(
                config,
                sources,
                names,
                record=partial(self._remember, name, chosen, fetching.verified),
            )
            self._give(name, chosen, config, repository)
            fetching.finish()
            self._tell_known(blobs, fetching)
        return loaded

    def _give(self, name: Reference, chosen: _Chosen, config: bytes, repository: Repository) -> None:
        """Give the image on, if that is wanted."""
        if self._through is not None:
            self._through.give(name.pinned or name.full, chosen.documents, config, repository)

    def _rest(self, repository: Repository, blob: Blob, at: int) -> Reader:
        """The bytes of a blob from there on. What comes before its turn lies beside the partial download."""
        from layerstore.registry.client.lanes import piece_name

        def spare(start: int) -> Partial | None:
            return self._blobs.partial(piece_name(blob.digest, start))

        return repository.blob(blob.digest, blob.size, start=at, urls=blob.urls, spare=spare)

    def _check_platform(self, config: Mapping[str, Any], name: Reference) -> None:
        """An image that stands alone is for whatever it is for, unless a platform was asked for."""
        if self._platform is None:
            return
        offered = platforms.of(config)
        if platforms.rank(self._platform, offered) is None:
            raise InvalidArchive(
                f"{name.familiar} has no image for {self._platform}", remedy=f"It has {offered}: ask for that."
            )

    def _tell_known(self, blobs: Sequence[Blob], fetching: Fetching) -> None:
        if self._progress is not None:
            for blob in blobs:
                if not fetching.is_expected(blob):
                    self._progress(blob.label, blob.size, blob.size)

    # --- what is remembered of it ---

    def _remember(
        self, name: Reference, chosen: _Chosen, verified: Sequence[KnownBlob], tx: Transaction, image: ImageID
    ) -> None:
        place = (name.domain, name.path)
        self._images.pin(tx, image, name.name, chosen.digest)
        for document in chosen.documents:
            self._blobs.put_manifest(document.media_type, document.data, images=[image], tx=tx)
        for known in verified:
            self._blobs.remember(tx, known)
        seen = [chosen.config.digest, *(layer.digest for layer in chosen.layers)]
        self._blobs.saw(tx, dict.fromkeys(seen), *place)


def pull(
    name: str,
    config: Config,
    images: Images,
    blobs: Blobs,
    *,
    names: Sequence[str] | None = None,
    **options: Unpack[PullOptions],
) -> Pulled:
    """See `Store.pull`. `names`: see `Puller.pull`."""
    wanted = reference.parse(name)
    with pulling(config, images, blobs, **options) as puller:
        return puller.pull(wanted, names)


def pull_all(
    name: str,
    config: Config,
    images: Images,
    blobs: Blobs,
    **options: Unpack[PullOptions],
) -> Iterator[Pulled]:
    """See `Store.pull_all`."""
    wanted = reference.parse(name)
    if wanted.tag is not None or wanted.digest is not None:
        raise ConfigError(f"{name} is one image, not all of a repository", remedy="Leave tag and digest out.")
    with pulling(config, images, blobs, **options) as puller:
        yield from puller.pull_all(wanted)


def load(
    source: str,
    config: Config,
    images: Images,
    blobs: Blobs,
    *,
    only: Sequence[str],
    names: Sequence[str],
    platform: str | None,
    progress: Progress | None,
) -> Pulled:
    """The image of `docker://NAME`, which takes the place of an archive: see `Store.load`."""
    if only:
        raise ConfigError(f"{source} is one image: there is nothing to choose from it", remedy="Name the image alone.")
    given = [reference.normalise(name) for name in names] or None
    name = source.removeprefix("docker://")
    return pull(name, config, images, blobs, names=given, platform=platform, progress=progress)


@contextmanager
def pulling(
    config: Config,
    images: Images,
    blobs: Blobs,
    *,
    platform: str | None = None,
    progress: Progress | None = None,
    begun: Callable[[Reference], object] | None = None,
    told: Callable[[str], None] | None = None,
    lazy: Ahead | None = None,
) -> Iterator[Puller]:
    """Pulls by what a daemon.json says. `told` is given lines for a person: waits, and warnings of registries."""
    from layerstore.registry.client.repository import Repository
    from layerstore.registry.transport.http import Http
    from layerstore.registry.transport.settings import Settings

    wanted = None if platform is None else platforms.parse(platform)
    settings = Settings.of(config)
    with ExitStack() as opened:
        http = opened.enter_context(Http(settings, told=told))
        remotes = through = None
        if config.remotes:
            from layerstore.registry.remotes import Remotes

            remotes = opened.enter_context(Remotes(config.remotes, settings=settings, store_id=blobs.store_id))
            if config.push_through and remotes.keeper is not None:
                from layerstore.registry.through import Through

                through = opened.enter_context(Through(remotes.keeper, blobs, told))
        yield Puller(
            partial(Repository.of_images, http, settings),
            images,
            blobs,
            at_once=settings.downloads,
            keep=config.keep_blobs,
            platform=wanted,
            progress=progress,
            begun=begun,
            told=told,
            remotes=remotes,
            through=through,
            lazy=lazy,
        )


def _blobs(config: bytes, chosen: _Chosen, title: str) -> list[Blob]:
    """The blobs of the layers, each with the DiffID that the config says it has."""
    diff_ids = config_of.layers(config_of.read(config))
    if len(diff_ids) != len(chosen.layers):
        raise InvalidArchive(
            f"the manifest of {title} lists {len(chosen.layers)} layers, but its config has {len(diff_ids)}"
        )
    return [
        Blob(layer.digest, layer.size, diff_id, layer.media_type, layer.urls, layer.data)
        for layer, diff_id in zip(chosen.layers, diff_ids, strict=True)
    ]


def _source(fetching: Fetching, blob: Blob) -> LayerSource:
    return LayerSource(
        open=partial(fetching.opened, blob),
        diff_id=blob.diff_id,
        size=blob.size,
        label=blob.label,
        instead=partial(fetching.again, blob),
        expect=partial(fetching.expect, blob),
        abandon=fetching.abandon,
    )
