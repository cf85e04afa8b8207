"""A registry as a remote: one repository of it has the blobs of all images, whatever these are called elsewhere.

So nothing has to be mounted, and one permission is enough. What an image is called is told by a tag that is made of its
whole name; the tagged manifests also keep the blobs from the registry's garbage collection.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from attrs import evolve

from layerstore.digest import Digest
from layerstore.errors import ConfigError, LayerstoreError, NotFound
from layerstore.manifests import Manifest
from layerstore.reference import Reference
from layerstore.registry.client.repository import Repository
from layerstore.registry.remotes.remote import ASK, SILENCE, SLOWEST, Address, Keeper, Name, RemoteFailed
from layerstore.registry.transport.http import Http

if TYPE_CHECKING:
    from layerstore.registry.client.repository import Reader
    from layerstore.registry.transport.http import Body
    from layerstore.registry.transport.settings import Settings

__all__ = ["RegistryMirror", "tag_of"]

_AT_ONCE: Final = 8
"""HEADs that are asked at once: the distribution protocol asks for one blob at a time."""

_PATH: Final = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_NO_TAG: Final = re.compile(r"[^A-Za-z0-9_.-]")


class RegistryMirror(Keeper):
    """See the module."""

    def __init__(self, address: Address, settings: Settings) -> None:
        super().__init__(address.url)
        if not _PATH.fullmatch(address.path):
            raise ConfigError(
                f"remotes: {address.url}: {address.path!r} is no name of a repository",
                remedy="A registry is named as registry://registry.example/team/layers.",
            )
        where = Reference(address.place, address.path, None, None)
        quick = evolve(settings, mirrors=(), attempts=1, connect_timeout=ASK, unrelated_timeout=ASK)
        asked = evolve(quick, read_timeout=ASK)
        read = evolve(quick, read_timeout=SILENCE, slowest=SLOWEST)
        written = evolve(settings, mirrors=(), attempts=2, connect_timeout=ASK)
        self._open = [Http(asked), Http(read), Http(written)]
        self._asked = Repository.of_blobs(self._open[0], asked, where)
        self._read = Repository.of_blobs(self._open[1], read, where)
        self._written = Repository(self._open[2], written, where, actions=("pull", "push"))

    def has(self, digests: Collection[Digest]) -> dict[Digest, int]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(min(_AT_ONCE, len(digests) or 1), thread_name_prefix="layerstore-mirror") as pool:
            try:
                found = list(zip(digests, pool.map(self._asked.has_blob, digests), strict=True))
            except LayerstoreError as error:
                pool.shutdown(cancel_futures=True)
                raise RemoteFailed(self.name, error.message) from None
        return {digest: size for digest, size in found if size is not None}

    def read(self, digest: Digest, start: int, end: int) -> _Blob:
        return _Blob(self.name, self._read.blob(digest, end, start=start))

    def write(self, digest: Digest, body: Body) -> None:
        try:
            self._written.upload(digest, body)
        except LayerstoreError as error:
            raise RemoteFailed(self.name, error.message) from None

    def put_manifest(self, manifest: bytes, media_type: str) -> None:
        self._put(None, Manifest.of(media_type, manifest))

    def manifest(self, digest: Digest) -> bytes | None:
        try:
            return self._read.manifest(digest).data
        except NotFound:
            return None
        except LayerstoreError as error:
            raise RemoteFailed(self.name, error.message) from None

    def resolve(self, name: str) -> Name | None:
        try:
            found = self._asked.resolve(tag_of(name))
        except LayerstoreError as error:
            raise RemoteFailed(self.name, error.message) from None
        return None if found is None else Name(found.digest, found.media_type, found.size)

    def publish(self, name: str, manifest: bytes, media_type: str) -> None:
        self._put(tag_of(name), Manifest.of(media_type, manifest))

    def _put(self, tag: str | None, manifest: Manifest) -> None:
        try:
            self._written.put_manifest(manifest.digest if tag is None else tag, manifest)
        except LayerstoreError as error:
            raise RemoteFailed(self.name, error.message) from None

    def close(self) -> None:
        for http in self._open:
            http.close()


class _Blob:
    """A blob on its way here, whose failures are the remote's."""

    def __init__(self, name: str, reader: Reader) -> None:
        self._name = name
        self._reader = reader

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return self._reader.readinto(buffer)
        except LayerstoreError as error:
            raise RemoteFailed(self._name, error.message, is_absent=isinstance(error, NotFound)) from None

    def close(self) -> None:
        self._reader.close()


def tag_of(name: str) -> str:
    """The tag of a full name: what of it a tag may hold, and a digest, for two names may be alike in that."""
    return f"{_NO_TAG.sub('_', name)[:100].lstrip('.-') or '_'}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
