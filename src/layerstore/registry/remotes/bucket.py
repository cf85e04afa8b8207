"""A bucket as a remote: an OCI layout in an object store (S3 and what speaks it, GCS, Azure) or in a folder.

`oci-layout`, `index.json`, `blobs/sha256/<hex>`, as the OCI image spec has it (image-layout.md), so what copies the
bucket to a disk has an archive that any tool reads. Blobs are written under the digest of what was written, and appear
whole or not at all; the index is replaced only by who has read the one that it replaces (a conditional PUT).
Credentials, regions and endpoints are those of the environment (AWS_…, GOOGLE_…, AZURE_…), as other tools have them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from layerstore.digest import Digest, hex_of, of_bytes, parse
from layerstore.errors import ConfigError, InvalidDigest
from layerstore.manifests import DOCUMENT_LIMIT
from layerstore.registry.remotes.remote import ASK, SILENCE, Address, Keeper, Name, RemoteFailed

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from layerstore.registry.transport.http import Body

__all__ = ["Bucket"]

_AT_ONCE: Final = 16
"""Questions that are asked of a bucket at once: it has no way to ask several in one."""

_PART: Final = 5 << 20
"""Blobs of more are sent in parts of this size: S3 takes no smaller ones."""

_LONG: Final = 12 * 3600.0
"""Seconds that a blob may take."""

_PUTTING_AWAY: Final = 60.0
"""Seconds that a bucket has to answer when all of something has been sent: it may have to put it on disks elsewhere."""

_PIECE: Final = 1 << 20
_INDEX: Final = "index.json"
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
_NAME: Final = "org.opencontainers.image.ref.name"
_WRITTEN: Final = "org.opencontainers.image.created"
_TRIES: Final = 20
_OPTIONS: Final = ("endpoint", "region", "anonymous")


class Bucket(Keeper):
    """See the module. `address.options`: `endpoint` and `region` of an S3, `anonymous=true` to sign nothing."""

    def __init__(self, address: Address) -> None:
        super().__init__(address.url)
        unknown = sorted(set(address.options) - set(_OPTIONS))
        if unknown:
            raise ConfigError(
                f"remotes: {address.url} has no option {unknown[0]!r}", remedy=f"It has {', '.join(_OPTIONS)}."
            )
        self._folder = Path(f"/{address.path}") if address.scheme == "file" else None
        # A question has to be answered at once; a blob may take as long as it likes, if something comes; and what was
        # written may be put away for a while before the answer.
        self._asked = _opened(address, ASK, ASK)
        self._moved = _opened(address, _LONG, SILENCE)
        self._written = _opened(address, _LONG, _PUTTING_AWAY)

    # --- blobs ---

    def has(self, digests: Collection[Digest]) -> dict[Digest, int]:
        from concurrent.futures import ThreadPoolExecutor

        if len(digests) < 2:
            found = [(digest, self._size(digest)) for digest in digests]
        else:
            with ThreadPoolExecutor(min(_AT_ONCE, len(digests)), thread_name_prefix="layerstore-bucket") as pool:
                try:
                    found = list(zip(digests, pool.map(self._size, digests), strict=True))
                except RemoteFailed:
                    pool.shutdown(cancel_futures=True)
                    raise
        return {digest: size for digest, size in found if size is not None}

    def read(self, digest: Digest, start: int, end: int) -> _Object:
        import obstore

        with self._errors():
            got = obstore.get(self._moved, _place(digest), options={"range": (start, end)})
            return _Object(self, iter(got.stream(min_chunk_size=1 << 20)))

    def write(self, digest: Digest, body: Body) -> None:
        import obstore

        # What is raised while it is read ends the upload, and nothing of it is ever seen.
        checked = _checked(body, digest, self.name)
        size = body.size or 0
        with self._errors():
            if size <= _PART:
                obstore.put(self._written, _place(digest), b"".join(checked))
            else:
                obstore.put(self._written, _place(digest), checked, chunk_size=_part_size(size), max_concurrency=4)

    def _size(self, digest: Digest) -> int | None:
        import obstore

        with self._errors():
            try:
                return int(obstore.head(self._asked, _place(digest))["size"])
            except FileNotFoundError:
                return None

    # --- manifests and names ---

    def put_manifest(self, manifest: bytes, media_type: str) -> None:
        from layerstore.registry.transport.http import Body

        self.write(of_bytes(manifest), Body.of(manifest))

    def manifest(self, digest: Digest) -> bytes | None:
        import obstore

        with self._errors():
            try:
                got = obstore.get(self._moved, _place(digest))
                if got.meta["size"] > DOCUMENT_LIMIT:
                    raise RemoteFailed(self.name, f"the manifest {digest} is too large")
                return bytes(got.bytes())
            except FileNotFoundError:
                return None

    def resolve(self, name: str) -> Name | None:
        return dict(self.names()).get(name)

    def names(self) -> Iterator[tuple[str, Name]]:
        """The names that it keeps, in full, with what they mean."""
        index, _ = self._index(self._asked)
        for entry in index["manifests"]:
            found = _named(entry)
            if found is not None:
                yield found

    def publish(self, name: str, manifest: bytes, media_type: str) -> None:
        digest = of_bytes(manifest)
        self.put_manifest(manifest, media_type)
        entry = {
            "mediaType": media_type,
            "digest": digest,
            "size": len(manifest),
            "annotations": {_NAME: name, _WRITTEN: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
        }
        for attempt in range(_TRIES):
            with nullcontext() if self._folder is None else _alone(self._folder):
                index, version = self._index(self._written)
                others = [known for known in index["manifests"] if _name_of(known) != name]
                if any(_name_of(known) == name and known.get("digest") == digest for known in index["manifests"]):
                    return
                if self._replaced({**index, "manifests": [*others, entry]}, version):
                    return
            time.sleep(random.uniform(0, 0.02 * 2 ** min(attempt, 6)))
        raise RemoteFailed(self.name, f"{_INDEX} is being written by others all the time")

    def _index(self, bucket: ObjectStore) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The index, and the version of it that was read; None: there is none yet."""
        import obstore

        with self._errors():
            try:
                got = obstore.get(bucket, _INDEX)
                meta = got.meta
                if meta["size"] > DOCUMENT_LIMIT:
                    raise RemoteFailed(self.name, f"{_INDEX} has {meta['size']} bytes: {DOCUMENT_LIMIT} are allowed")
                data = bytes(got.bytes())
            except FileNotFoundError:
                return {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": []}, None
        try:
            index = json.loads(data)
        except (ValueError, RecursionError):
            index = None
        if not isinstance(index, dict) or not isinstance(index.get("manifests"), list):
            raise RemoteFailed(self.name, f"{_INDEX} is no index of an OCI layout")
        version = {key: meta[key] for key in ("e_tag", "version") if meta.get(key) is not None}
        return index, version

    def _replaced(self, index: dict[str, Any], version: dict[str, Any] | None) -> bool:
        """Write the index, if nobody has done so since; False: somebody has."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        data = json.dumps(index, separators=(",", ":")).encode()
        with self._errors():
            mode: Any = "overwrite" if self._folder is not None else "create" if version is None else version
            try:
                obstore.put(self._written, _INDEX, data, mode=mode)
                if version is None:
                    obstore.put(self._written, "oci-layout", _LAYOUT)
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    # --- errors ---

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except BaseError as error:
            raise RemoteFailed(self.name, _words(error)) from None
        except FileNotFoundError:
            raise RemoteFailed(self.name, "it has no such object any more", is_absent=True) from None
        except (OSError, ValueError) as error:
            raise RemoteFailed(self.name, _words(error)) from None

    def errors(self) -> Any:
        """While inside, what the object store raises becomes `RemoteFailed`."""
        return self._errors()


class _Object:
    """An object on its way here, from a stream of pieces."""

    def __init__(self, bucket: Bucket, pieces: Iterator[Any]) -> None:
        self._bucket = bucket
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        while not self._rest:
            with self._bucket.errors():
                piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece).cast("B")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        self._pieces = iter(())


def _opened(address: Address, limit: float, silence: float) -> ObjectStore:
    """The bucket, for requests that take no longer than `limit` in all, with no such silence. Both in seconds."""
    try:
        import obstore.store
    except ModuleNotFoundError:
        raise ConfigError(
            f"the remote {address.url} is a bucket, and the package for those is not installed",
            remedy="pip install 'layerstore[remotes]'",
        ) from None
    from obstore.exceptions import BaseError

    timeout = timedelta(seconds=limit)
    retries: Any = {"max_retries": 1, "retry_timeout": timeout}
    client: Any = {
        "connect_timeout": timedelta(seconds=ASK),
        "read_timeout": timedelta(seconds=silence),
        "timeout": timeout,
    }
    config: Any = {}
    endpoint = address.options.get("endpoint")
    if endpoint is not None:
        config["endpoint"] = endpoint
        client["allow_http"] = endpoint.startswith("http://")
    if "region" in address.options:
        config["region"] = address.options["region"]
    if address.options.get("anonymous") == "true":
        config["skip_signature"] = True
    try:
        if address.scheme == "file":
            return obstore.store.LocalStore(f"/{address.path}", mkdir=True)
        return obstore.store.from_url(address.url, config=config or None, client_options=client, retry_config=retries)
    except (BaseError, ValueError, TypeError, OSError) as error:
        raise ConfigError(
            f"the remote {address.url} cannot be used: {_words(error)}",
            remedy="Look at its name, and at the variables of the environment (AWS_…, GOOGLE_…, AZURE_…).",
        ) from None


def _place(digest: Digest) -> str:
    return f"blobs/sha256/{hex_of(digest)}"


def _part_size(size: int) -> int:
    """S3 takes at most 10,000 parts."""
    return max(_PART, -(-size // 9000))


def _checked(body: Body, digest: Digest, remote: str) -> Iterator[bytes]:
    total, found = 0, hashlib.sha256()
    with closing(body.open()) as stream:
        while piece := stream.read(_PIECE):
            total += len(piece)
            found.update(piece)
            if total > (body.size or 0):
                break
            yield piece
    if total != body.size or found.hexdigest() != hex_of(digest):
        raise RemoteFailed(remote, f"what was to be written as {digest} is not that, and is not written")


def _named(entry: object) -> tuple[str, Name] | None:
    """What an entry of the index says, if it says what we write there."""
    name = _name_of(entry)
    if name is None or not isinstance(entry, dict):
        return None
    try:
        digest = parse(entry.get("digest"))
    except InvalidDigest:
        return None
    media_type, size = entry.get("mediaType"), entry.get("size")
    if not isinstance(media_type, str) or not isinstance(size, int) or not 0 <= size <= DOCUMENT_LIMIT:
        return None
    return name, Name(digest, media_type, size, str(entry["annotations"].get(_WRITTEN, "")))


def _name_of(entry: object) -> str | None:
    notes = entry.get("annotations") if isinstance(entry, dict) else None
    name = notes.get(_NAME) if isinstance(notes, dict) else None
    return name if isinstance(name, str) else None


def _words(error: Exception) -> str:
    """What an object store says, without the server's pages and the library's own notes."""
    first = str(error).partition("\n")[0].partition("<?xml")[0].partition(": <")[0]
    return first.strip(" :") or type(error).__name__


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A folder has no conditional PUT: whoever writes its index holds a lock, which ends with its holder."""
    fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
