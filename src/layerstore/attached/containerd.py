"""containerd's store of images, as it lies in its root, with the snapshotter overlayfs.

`meta.db` names the images of each namespace and the snapshots, by ChainID; the snapshotter's `metadata.db` says in
which folder each lies; manifests, configs and layers are blobs by digest (containerd, `core/metadata/buckets.go`,
`core/snapshots/storage/bolt.go`). Its layers' tars are those blobs, inflated. Of an image for several platforms, that
for this machine is meant.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from layerstore import platforms
from layerstore.attached import bolt
from layerstore.attached.docker import full_name
from layerstore.attached.root import Root
from layerstore.attached.values import MOST_CONFIG, AttachedLayer, Write, wrong_layer
from layerstore.compression import open_stream
from layerstore.digest import ChainID, DiffID, Digest, ImageID, of_bytes
from layerstore.digest import parse as parse_digest
from layerstore.errors import Damaged, InvalidArchive, InvalidDigest
from layerstore.manifests import Contents, Descriptor, Manifest, best, media_type_of
from layerstore.manifests import read as read_manifest
from layerstore.values import frozen

__all__ = ["Containerd"]

_META: Final = "io.containerd.metadata.v1.bolt/meta.db"
_HOME: Final = "io.containerd.snapshotter.v1.overlayfs"
_BLOBS: Final = "io.containerd.content.v1.content/blobs/sha256"
_MOST: Final = 512 << 20
_HEAD: Final = (64 << 10) + 4096
_TRIES: Final = 20
_SNAPSHOTTER: Final = "overlayfs"
_UNCOMPRESSED: Final = "containerd.io/uncompressed"
_DEEPEST: Final = 3
_COMMITTED: Final = b"\x03"
_NUMBER = re.compile(r"[0-9]{1,19}")
_PIECE: Final = 1 << 20


@frozen
class _Known:
    """What the databases said at one transaction of `meta.db`: images, and which blob has which layer."""

    transaction: int
    names: Mapping[str, ImageID]
    """As containerd has them."""
    contents: Mapping[ImageID, Contents]
    blobs: Mapping[DiffID, Digest]
    snapshots: Mapping[ChainID, str]
    """By ChainID: the name that the snapshotter has for it."""
    others: Mapping[ChainID, str]
    """By ChainID: another snapshotter that has it, whose folders are in a form of its own."""


class Containerd:
    """See `AttachedStore`."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._last: _Known | None = None
        self._open: dict[str, tuple[int, bolt.Bucket]] = {}

    def require(self) -> None:
        """See `AttachedStore`."""
        self.root.require(_META)

    def names(self) -> Mapping[str, ImageID]:
        """See `AttachedStore`."""
        found: dict[str, ImageID] = {}
        for name, image in self._known().names.items():
            if (full := full_name(name)) is not None:
                found.setdefault(full, image)
        return found

    def ids(self) -> Sequence[ImageID]:
        """See `AttachedStore`."""
        return list(self._known().contents)

    def config(self, image: ImageID) -> bytes | None:
        """See `AttachedStore`."""
        return self._blob(Digest(image)) if image in self._known().contents else None

    def parent(self, image: ImageID) -> ImageID | None:
        """See `AttachedStore`. It is not noted there."""
        return None

    def size(self, image: ImageID, layers: Sequence[DiffID]) -> int:
        """See `AttachedStore`: the bytes of the compressed layers."""
        contents = self._known().contents.get(image)
        return 0 if contents is None else sum(layer.size for layer in contents.layers)

    def layer(self, chain: ChainID, diff_id: DiffID) -> AttachedLayer | None:
        """See `AttachedStore`."""
        known = self._known()
        name = known.snapshots.get(chain)
        folder = None if name is None else self._folder(name)
        blob = known.blobs.get(diff_id, Digest(diff_id))
        write = partial(self._write, blob, diff_id) if self.root.has(f"{_BLOBS}/{blob[7:]}") else None
        unfit = None
        if folder is None and chain in known.others:
            unfit = f"the snapshotter {known.others[chain]} has unpacked it, and not {_SNAPSHOTTER}"
        elif folder is None and write is not None:
            unfit = f"{_SNAPSHOTTER} has not unpacked it"
        elif folder is None:
            return None
        measure = None if write is None else partial(_measured, write)
        return AttachedLayer(diff_id, folder, unfit=unfit, write=write, measure=measure)

    # --- inside ---

    def _write(self, blob: Digest, diff_id: DiffID, write: Write) -> None:
        name = f"{_BLOBS}/{blob[7:]}"
        wrong = wrong_layer(self.root, name, diff_id)
        file = self.root.open(name)
        if file is None:
            raise wrong("its blob was removed meanwhile")
        digest, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
        with file:
            try:
                with open_stream(file) as stream:
                    while count := stream.readinto(buffer):
                        digest.update(buffer[:count])
                        write(buffer[:count])
            except InvalidArchive as error:
                raise wrong(error.message) from None
        if f"sha256:{digest.hexdigest()}" != diff_id:
            raise wrong(f"its blob holds the layer sha256:{digest.hexdigest()}")

    def _folder(self, name: str) -> Path | None:
        """Where a snapshot lies that the snapshotter knows by this name, if it is one of a layer."""
        snapshot = self._database(f"{_HOME}/metadata.db")[1].bucket("v1", "snapshots", name)
        if snapshot is None or snapshot.value("kind") != _COMMITTED:
            return None
        number = _uvarint(snapshot.value("id") or b"")
        return None if number is None else self.root.folder(f"{_HOME}/snapshots/{number}/fs")

    def _known(self) -> _Known:
        transaction = self._newest(_META)
        if self._last is None or self._last.transaction != transaction:
            self._last = self._asked()
        return self._last

    def _asked(self) -> _Known:
        transaction, top = self._database(_META)
        images: dict[str, Digest] = {}
        blobs: dict[DiffID, Digest] = {}
        snapshots: dict[ChainID, str] = {}
        others: dict[ChainID, str] = {}
        version = top.bucket("v1")
        for _, space in () if version is None else version.buckets():
            for name, image in _buckets(space.bucket("images")):
                said = image.bucket("target")
                if said is not None and (digest := _digest(said.value("digest"))) is not None:
                    images.setdefault(name.decode(errors="replace"), digest)
            for name, blob in _buckets(space.bucket("content", "blob")):
                labels = blob.bucket("labels")
                inflated = None if labels is None else _digest(labels.value(_UNCOMPRESSED))
                if inflated is not None and (digest := _digest(name)) is not None:
                    blobs.setdefault(DiffID(inflated), digest)
            for name, snapshot in _buckets(space.bucket("snapshots", _SNAPSHOTTER)):
                key, chain = snapshot.value("name"), _digest(name)
                if key is not None and chain is not None:
                    snapshots.setdefault(ChainID(chain), key.decode(errors="replace"))
            for name, snapshotter in _buckets(space.bucket("snapshots")):
                if name.decode(errors="replace") != _SNAPSHOTTER:
                    chains = (_digest(key) for key, _ in snapshotter.buckets())
                    others |= {ChainID(chain): name.decode(errors="replace") for chain in chains if chain is not None}
        contents: dict[ImageID, Contents] = {}
        meant: dict[Digest, ImageID] = {}  # several manifests can have one config
        for target in dict.fromkeys(images.values()):
            found = self._manifest(target)
            if found is not None and found.config is not None:
                meant[target] = ImageID(found.config.digest)
                contents.setdefault(meant[target], found)
        names = {name: meant[target] for name, target in images.items() if target in meant}
        return _Known(transaction, names, contents, blobs, snapshots, others)

    def _manifest(self, target: Digest) -> Contents | None:
        """What the manifest of an image says, for this machine; None if it has none, or is not all there."""
        for _ in range(_DEEPEST):
            data = self._blob(target)
            if data is None:
                return None
            what = f"{self.root.spec}: manifest {target}"
            try:
                contents = read_manifest(Manifest.of(media_type_of(data, None, what), data), what)
                if not contents.manifest.is_index:
                    if contents.artifact is not None or contents.config is None:
                        return None
                    return contents if self._blob(contents.config.digest) is not None else None
                offers = [one for one in contents.manifests if one.platform is not None and not one.is_attestation]
                offers = offers or [one for one in contents.manifests if one.platform is None]
                chosen = best(offers, _platform_of, platforms.host(), what)
            except InvalidArchive:
                return None
            target = chosen.digest
        return None

    def _blob(self, digest: Digest) -> bytes | None:
        """A document by its digest."""
        name = f"{_BLOBS}/{digest[7:]}"
        data = self.root.read(name, MOST_CONFIG)
        if data is not None and of_bytes(data) != digest:
            raise self.root.wrong(name, "its bytes are not what its digest says")
        return data

    def _newest(self, name: str) -> int:
        """The number of the last transaction of a database."""
        file = self.root.open(name)
        if file is None:
            raise self.root.wrong(name, "it is not there")
        with file:
            meta = bolt.newest(file.read(_HEAD) or b"")
        if meta is None:
            raise self.root.wrong(name, "it is no file of bbolt, or both of its first pages are damaged")
        return meta.transaction

    def _database(self, name: str) -> tuple[int, bolt.Bucket]:
        """A database at one moment, whoever writes to it: it was not written to while it was read."""
        wrong: Callable[[str], Damaged] = partial(self.root.wrong, name)
        for _ in range(_TRIES):
            before = self._newest(name)
            known = self._open.get(name)
            if known is not None and known[0] == before:
                return known
            data = self.root.read(name, _MOST)
            if data is not None and before == self._newest(name):
                self._open[name] = before, bolt.root(data, wrong)
                return self._open[name]
        raise wrong("it was written to each time that it was read: try again")


def _platform_of(descriptor: Descriptor) -> platforms.Platform:
    return platforms.of(descriptor.platform) if descriptor.platform is not None else platforms.host()


def _measured(write: Callable[[Write], None]) -> tuple[int, int]:
    """The bytes of a tar, which is read for it, and so proved."""
    size = 0

    def count(data: memoryview) -> None:
        nonlocal size
        size += len(data)

    write(count)
    return size, 0


def _buckets(of: bolt.Bucket | None) -> Iterator[tuple[bytes, bolt.Bucket]]:
    return iter(()) if of is None else of.buckets()


def _digest(data: bytes | None) -> Digest | None:
    try:
        return None if data is None else parse_digest(data.decode(errors="replace"))
    except InvalidDigest:
        return None


def _uvarint(data: bytes) -> int | None:
    """A number as Go writes it (encoding/binary, `PutUvarint`); None if it is none."""
    value = 0
    for place, byte in enumerate(data[:10]):
        value |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return value if _NUMBER.fullmatch(str(value)) else None
    return None
