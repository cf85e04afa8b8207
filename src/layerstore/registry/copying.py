"""Copying: an image from a registry or archive to another, without a store. Digests stay.

All that an index lists, or the image for one platform; on request what is about them, too: signatures, SBOMs. A blob
goes straight from where it is to where it shall be, several at once where that is a registry; it is verified on the
way, not sent where it is already, and mounted where both are in one registry.

A docker-archive is the exception: it has plain layers and no manifest. What comes out of it is compressed, and what
goes into it is inflated.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from layerstore import digest, platforms, reference
from layerstore.blobs import Place as Repo
from layerstore.compression import Stream, compressing, open_stream
from layerstore.digest import DiffID, Digest
from layerstore.errors import Ambiguous, ConfigError, DigestMismatch, InvalidArchive, NotFound, named
from layerstore.manifests import Descriptor, Manifest, as_descriptor, as_list, as_object, best, parse_object, read
from layerstore.manifests.media_types import CONFIG_TYPE, INDEXES, MANIFEST_TYPE, MANIFESTS
from layerstore.platforms import Platform
from layerstore.registry.client.bodies import Lost, Source, Verified
from layerstore.registry.client.manifests import image_in
from layerstore.registry.client.repository import Repository
from layerstore.registry.destinations import Destination, LayoutDestination, RegistryDestination, write_docker_archive
from layerstore.registry.origins import (
    LayoutOrigin,
    Origin,
    PlainImage,
    PlainLayer,
    RegistryOrigin,
    cosign_tags,
    opened,
    plain_image,
)
from layerstore.registry.queries import settings_of
from layerstore.registry.spool import Spool
from layerstore.registry.tasks import Tasks
from layerstore.registry.transport.http import Http
from layerstore.registry.transport.settings import Settings
from layerstore.transfer import oci, outgoing, places
from layerstore.transfer import target as targets
from layerstore.transfer.incoming import check_count, diff_ids_of, platform_of
from layerstore.transfer.places import AtPath, InArchive, InRegistry, Place
from layerstore.transfer.standard import STANDARD
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.config import Config
    from layerstore.layers import Progress

Done: TypeAlias = Callable[[str, str], object]
"""Is told what became of a blob: its short digest, and some words."""

_PIECE: Final = 1 << 20
_DEPTH: Final = 4
"""How far indexes are followed into each other, and referrers of referrers."""


@frozen
class Copied:
    """An image as it is at its target: the digest, media type and size of its manifest or index."""

    digest: Digest
    media_type: str
    size: int


def copy(
    source: str,
    target: str,
    *,
    config: Config | str | Path | None = None,
    platform: str | None = None,
    all_platforms: bool = False,
    referrers: bool = False,
    progress: Progress | None = None,
    done: Done | None = None,
    told: Callable[[str], None] | None = None,
) -> Copied:
    """Copy an image from one place to another, with its digest and without a store.

    Places are `docker://NAME`, `oci:FOLDER[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`, or paths;
    a path that is written is an OCI layout, a folder if it ends with / or is one. Of a list of images the one for
    `platform` (`linux/arm64`; None: this machine's) is copied, or all that it lists (`all_platforms`). `referrers`:
    what is about the image, too: signatures, SBOMs, and what cosign keeps under tags of its own.

    What is there is not sent, and is mounted where both places are in one registry. `config` is a daemon.json. `done`
    is told what became of each blob, `told` is given lines for a person. Raises `RegistryError`, `NotFound`,
    `Ambiguous`, `InvalidArchive`, `ConfigError`.
    """
    if all_platforms and platform is not None:
        raise ConfigError("all platforms are wanted, and one of them", remedy="Leave one of the two away.")
    return transfer(
        source,
        target,
        platform=None if platform is None else platforms.parse(platform),
        all_platforms=all_platforms,
        referrers=referrers,
        config=config,
        progress=progress,
        done=done,
        told=told,
    )


def transfer(
    source: str | None,
    target: str,
    *,
    become: Callable[[Origin | PlainImage | None], Origin | PlainImage] | None = None,
    platform: Platform | None = None,
    all_platforms: bool = False,
    referrers: bool = False,
    config: Config | str | Path | None = None,
    progress: Progress | None = None,
    done: Done | None = None,
    told: Callable[[str], None] | None = None,
) -> Copied:
    """`copy`, of what `become` makes of the image that is there; without a `source`, of what it makes of nothing."""
    settings = settings_of(config)
    from_place, to_place = None if source is None else _place(source), _place(target)
    if isinstance(from_place, AtPath):
        _require(from_place.path, from_place.path)
    if isinstance(to_place, AtPath):
        _require(to_place.path, os.path.dirname(to_place.path.rstrip("/")))
    with Http(settings, told=told) as http, Tasks(settings.uploads, abort=http.close) as tasks, ExitStack() as undo:
        copying = _Copying(
            http,
            settings,
            tasks,
            platform=platform,
            all_platforms=all_platforms,
            with_referrers=referrers,
            progress=progress,
            done=done,
        )
        there = None if from_place is None else undo.enter_context(copying.origin(from_place))
        found = there if become is None else become(there)
        assert found is not None  # nothing is copied of nothing
        if isinstance(to_place, InArchive) and to_place.form == "docker-archive":
            return copying.to_docker_archive(found, to_place)
        called = found.names or ((found.word,) if isinstance(found, Origin) and found.word else ())
        with copying.destination(to_place, called) as destination:
            if isinstance(found, PlainImage):
                return copying.compressed(found, destination)
            return copying.all_of(found, destination)


def _place(text: str) -> Place:
    return places.require_known(places.parse(text))


def _require(given: str, path: str) -> None:
    """Raise `NotFound` if `path` is not there, of which what was given needs it: a name may lack its docker://."""
    if path and path != "-" and not os.path.lexists(path):
        raise NotFound(
            f"there is no file or folder {path}",
            remedy=f"Look whether the path is right. An image of a registry is docker://{given}; one of the store is "
            "taken out by `layerstore save` or `layerstore push`.",
        )


class _Copying:
    """One copy, with what it needs."""

    def __init__(
        self,
        http: Http,
        settings: Settings,
        tasks: Tasks,
        *,
        platform: Platform | None,
        all_platforms: bool,
        with_referrers: bool,
        progress: Progress | None,
        done: Done | None,
    ) -> None:
        self._http = http
        self._settings = settings
        self._tasks = tasks
        self._platform = platform
        self._all_platforms = all_platforms
        self._with_referrers = with_referrers
        self._progress = progress
        self._done = done
        self._seen: set[Digest] = set()
        """The blobs that are there, as far as this copy has seen to it."""

    # --- from where, to where ---

    @contextmanager
    def origin(self, place: Place) -> Iterator[Origin | PlainImage]:
        """What is copied."""
        if isinstance(place, InRegistry):
            yield RegistryOrigin(Repository.of_images(self._http, self._settings, place.reference), place.reference)
            return
        path = "/dev/stdin" if place.path == STANDARD else place.path
        form = place.form if isinstance(place, InArchive) else None
        with opened(path, self._settings.limits) as archive:
            with _called(path):
                if form == "docker-archive" or (form is None and archive.size(oci.INDEX) is None):
                    found: Origin | PlainImage = plain_image(archive, place if isinstance(place, InArchive) else None)
                else:
                    found = LayoutOrigin(archive, place.name if isinstance(place, InArchive) else None)
            yield found

    @contextmanager
    def destination(self, place: Place, names: Sequence[str]) -> Iterator[Destination]:
        """Where it is copied to. `names`: what the image is called where it comes from."""
        if isinstance(place, InRegistry):
            repository = Repository(self._http, self._settings, place.reference, actions=("pull", "push"))
            yield RegistryDestination(repository, place.reference, self._tasks)
            return
        form = place.form if isinstance(place, InArchive) else None
        word = place.name if isinstance(place, InArchive) else None
        if form == "oci" and Path(place.path, oci.LAYOUT).is_file():
            others = _entries(Path(place.path, oci.INDEX))
            with targets.added_to(Path(place.path)) as target:
                destination = LayoutDestination(target, names, word, others)
                yield destination
                destination.finish()
            return
        folder = None if form is None else form == "oci"
        with targets.opened(place.path, folder=folder, spool=_spool) as target:
            destination = LayoutDestination(target, names, word)
            yield destination
            destination.finish()

    # --- manifest by manifest ---

    def all_of(self, origin: Origin, destination: Destination) -> Copied:
        """What was asked for, all platforms or one, and what is about it."""
        root = self._root(origin)
        done = self._manifest(origin, destination, root, is_root=True)
        if self._with_referrers:
            for manifest in done:
                self._about(origin, destination, manifest.digest)
        return Copied(root.digest, root.media_type, root.size)

    def _root(self, origin: Origin) -> Manifest:
        root = origin.root()
        if self._all_platforms or (not root.is_index and self._platform is None):
            return root
        way = image_in(root, self._platform, origin.manifest, what=_title(origin))
        if self._platform is not None and not root.is_index:
            there = platform_of(origin.document(way.config, "config"), "config")
            best([there], lambda platform: platform, self._platform, _title(origin))
        return way.documents[-1]

    def _manifest(
        self, origin: Origin, destination: Destination, manifest: Manifest, *, is_root: bool = False, depth: int = 0
    ) -> list[Manifest]:
        """Copy a manifest after all that it names. It, and those that it names."""
        if depth > _DEPTH:
            raise InvalidArchive(f"the indexes of {_title(origin)} are nested more than {_DEPTH} deep")
        contents, done = read(manifest), [manifest]
        for entry in contents.manifests:
            if entry.media_type not in (*INDEXES, *MANIFESTS):
                self._blobs(origin, destination, [entry])  # an index may list anything
            elif not origin.has(entry):
                raise InvalidArchive(
                    f"{_title(origin)} lists {entry.digest}, but does not have it",
                    remedy="Copy the image for one platform: it has not all of them.",
                )
            else:
                done += self._manifest(origin, destination, origin.manifest(entry), depth=depth + 1)
        if not destination.has(manifest):
            self._blobs(origin, destination, contents.blobs)
        destination.put_manifest(manifest, is_root=is_root)
        return done

    def _about(self, origin: Origin, destination: Destination, subject: Digest, depth: int = 0) -> None:
        """Copy the manifests that are about this one, and what is about them."""
        for entry in origin.referrers(subject):
            if entry.media_type in MANIFESTS and entry.digest not in self._seen:
                self._seen.add(entry.digest)
                manifest = origin.manifest(entry)
                self._blobs(origin, destination, read(manifest).blobs)
                destination.put_referrer(manifest)
                if depth < _DEPTH:
                    self._about(origin, destination, manifest.digest, depth + 1)
        for tag in cosign_tags(subject):
            if (tagged := origin.tagged(tag)) is not None:
                self._blobs(origin, destination, read(tagged).blobs)
                destination.put_manifest(tagged, tag)

    def _blobs(self, origin: Origin, destination: Destination, blobs: Sequence[Descriptor]) -> None:
        new = {blob.digest: blob for blob in blobs if blob.digest not in self._seen}
        tasks = [partial(self._blob, origin, destination, blob) for blob in new.values()]
        if destination.is_parallel:
            self._tasks.run(tasks)
        else:
            for task in tasks:
                task()
        self._seen.update(new)

    def _blob(self, origin: Origin, destination: Destination, blob: Descriptor) -> None:
        source = partial(Verified, blob, partial(origin.open, blob))
        self._put(destination, blob, source, digest.short(blob.digest), origin.place)

    def _put(
        self,
        destination: Destination,
        blob: Descriptor,
        open: Callable[[], Source],
        label: str,
        origin: Repo | None = None,
    ) -> None:
        try:
            words = destination.put(blob, open, lambda done: self._report(label, done, blob.size), origin)
        except Lost as lost:
            raise lost.reason from lost
        self._report(label, blob.size, blob.size)
        if self._done is not None:
            self._done(label, words)

    def _report(self, label: str, done: int, total: int | None) -> None:
        if self._progress is not None:
            self._progress(label, done, total)

    # --- layer by layer ---

    def compressed(self, image: PlainImage, destination: Destination) -> Copied:
        """An image without a manifest, its layers compressed by gzip."""
        made: dict[DiffID, Mapping[str, Any]] = {}
        for layer in image.layers:
            if layer.diff_id not in made:
                made[layer.diff_id] = self._compressed(layer, destination)
        config = Descriptor(CONFIG_TYPE, digest.of_bytes(image.config), len(image.config))
        self._put(destination, config, lambda: BytesIO(image.config), digest.short(config.digest))
        manifest = Manifest.of(
            MANIFEST_TYPE, outgoing.manifest(image.config, [made[layer.diff_id] for layer in image.layers])
        )
        destination.put_manifest(manifest, is_root=True)
        return Copied(manifest.digest, manifest.media_type, manifest.size)

    def _compressed(self, layer: PlainLayer, destination: Destination) -> Mapping[str, Any]:
        with Spool(Path(gettempdir())) as spool:
            hashed, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
            with layer.open() as stream, compressing(spool.write, "gzip") as compress:
                while count := stream.readinto(buffer):
                    hashed.update(buffer[:count])
                    compress(buffer[:count])
            if (actual := f"sha256:{hashed.hexdigest()}") != layer.diff_id:
                raise DigestMismatch(f"layer {layer.diff_id}", expected=layer.diff_id, actual=actual)
            made = outgoing.layer("gzip", spool.digest, spool.size)
            self._put(destination, as_descriptor(made, "layer"), spool.open, digest.short(layer.diff_id))
        return made

    def to_docker_archive(self, found: Origin | PlainImage, place: InArchive) -> Copied:
        """One image, its layers inflated."""
        image = found if isinstance(found, PlainImage) else self._plain(found)
        if self._all_platforms or self._with_referrers:
            raise ConfigError(
                "a docker-archive has an image for one platform, and nothing about it", remedy="Copy to oci-archive:."
            )
        names = image.names if place.name is None else (place.name,)
        with targets.opened(place.path, folder=False, spool=_spool) as target:
            manifest = write_docker_archive(target, image, names, self._inflated_so_far)
        return Copied(manifest.digest, manifest.media_type, manifest.size)

    def _inflated_so_far(self, diff_id: DiffID, done: int, total: int | None) -> None:
        label = digest.short(diff_id)
        self._report(label, done, total)
        if total is not None and self._done is not None:
            self._done(label, "Copied")

    def _plain(self, origin: Origin) -> PlainImage:
        way = image_in(origin.root(), self._platform, origin.manifest, what=_title(origin))
        blobs = way.contents.layers
        config = origin.document(way.config, "config")
        diff_ids = diff_ids_of(config, "config")
        check_count(diff_ids, blobs, f"manifest {way.documents[-1].digest}")
        layers = [
            PlainLayer(diff_id, partial(_inflated, origin, blob)) for diff_id, blob in zip(diff_ids, blobs, strict=True)
        ]
        return PlainImage(config, origin.names, tuple(layers))


@contextmanager
def _inflated(origin: Origin, blob: Descriptor) -> Iterator[Stream]:
    with closing(origin.open(blob)) as raw, open_stream(raw, expect=blob.digest, limits=origin.limits) as stream:
        yield stream


@contextmanager
def _called(path: str) -> Iterator[None]:
    """While inside, what is wrong with an archive is told with its path."""
    try:
        yield
    except (InvalidArchive, NotFound, Ambiguous) as error:
        error.message = f"{path}: {error.message}"
        raise


def _entries(index: Path) -> list[dict[str, Any]]:
    with named("read", index):
        data = index.read_bytes()
    listed = as_list(parse_object(data, str(index)).get("manifests"), str(index))
    return [as_object(entry, str(index)) for entry in listed]


def _title(origin: Origin) -> str:
    return next(map(reference.familiar, origin.names), "the image")


def _spool() -> Path:
    return Path(gettempdir(), f"layerstore-{secrets.token_hex(8)}")
