"""Blobs on their way in: what was begun, how far it came, and its digest as far as that.

The bytes lie in `partial/` of the data-root, so an upload that has begun outlives the server: whoever asks for it by
its number, which nobody can guess, goes on with what is there. It is held by one request at a time.
"""

from __future__ import annotations

import errno
import hashlib
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from layerstore.blobs import Blobs, Partial
from layerstore.digest import Digest
from layerstore.errors import KernelError, LimitExceeded
from layerstore.faces.serve.messages import Refused
from layerstore.faces.serve.names import Name
from layerstore.limits import Limits as TakenIn
from layerstore.values import frozen

_NUMBER: Final = re.compile(r"[0-9a-f]{32}")
_PIECE: Final = 1 << 20
_PATIENCE: Final = 5.0
"""Seconds to wait for another request for the same upload: a broken one may not know yet that it is."""


@frozen
class Limits:
    """What is allowed. Sizes in bytes, times in seconds."""

    uploads: int = 256
    """Uploads at one time; each has a file open."""
    idle: float = 3600.0
    """For how long nobody need go on with an upload."""


class Upload:
    """One blob on its way in."""

    def __init__(self, number: str, repository: str, partial: Partial, taken: TakenIn) -> None:
        self._taken = taken
        self.number = number
        self.repository = repository
        self.used = time.monotonic()
        self.lock = threading.Lock()
        self._partial = partial
        self._hash = hashlib.sha256()
        for piece in partial.pieces():
            self._hash.update(piece)

    @property
    def size(self) -> int:
        """The bytes that have come."""
        return self._partial.size

    def append(self, body: BinaryIO, expected: int | None) -> None:
        """Take in all of a request's body. What came before a broken connection stays: a client may go on from there.

        `expected`: its size, if it was told. Raises `Refused` if it is another one; then it is as if nothing had come.
        """
        before, known = self.size, self._hash.copy()
        while data := body.read(_PIECE):
            try:
                self._taken.check("max-layer-size", self.size + len(data), "the blob")
            except LimitExceeded as error:
                self._take_back(before, known)
                raise Refused(413, "SIZE_INVALID", error.message) from None
            if not self._partial.append(data):
                raise KernelError("write", errno.ENOSPC, path=self._partial.path)
            self._hash.update(data)
            if expected is not None and self.size - before > expected:
                break
        if expected is not None and self.size - before != expected:
            came = self.size - before
            self._take_back(before, known)
            raise Refused(400, "SIZE_INVALID", f"{expected} bytes were announced, and {came} or more have come")

    def finish(self, blobs: Blobs, expected: str, body: BinaryIO, announced: int | None) -> Digest:
        """Take in what is left, and keep the blob durably. Its sha256 digest. Raises `Refused` if it is not `expected`.

        Then it is as it was before this request.
        """
        before, known = self.size, self._hash.copy()
        self.append(body, announced)
        digest = Digest(f"sha256:{self._hash.hexdigest()}")
        actual = digest if expected.startswith("sha256:") else self._digest(expected.partition(":")[0])
        if actual != expected:
            self._take_back(before, known)
            raise Refused(
                400, "DIGEST_INVALID", "provided digest did not match uploaded content", detail={"digest": actual}
            )
        blobs.put_partial(self._partial, digest, is_verified=True)
        return digest

    def discard(self) -> None:
        """Throw it away. Whoever is told so has its room: after a disk was full, for the next upload."""
        self._partial.destroy()

    def close(self) -> None:
        """Let it go; what has come stays."""
        self._partial.close()

    def _digest(self, algorithm: str) -> str:
        found = hashlib.new(algorithm)
        for piece in self._partial.pieces():
            found.update(piece)
        return f"{algorithm}:{found.hexdigest()}"

    def _take_back(self, size: int, known: hashlib._Hash) -> None:
        self._partial.truncate(size)
        self._hash = known


class Uploads:
    """The uploads of a server."""

    def __init__(self, blobs: Blobs, limits: Limits) -> None:
        self._blobs = blobs
        self._limits = limits
        self._lock = threading.Lock()
        self._found: dict[str, Upload] = {}

    def begin(self, name: Name) -> Upload:
        """A new one. Raises `Refused` if there are too many."""
        self._sweep()
        number = secrets.token_hex(16)
        partial = self._blobs.partial(number, bounded=False)
        if partial is None:
            raise KernelError("open", errno.ENOSPC, path=number)
        upload = Upload(number, name.full, partial, self._blobs.limits)
        with self._lock:
            if len(self._found) >= self._limits.uploads:
                upload.discard()
                raise Refused(429, "TOOMANYREQUESTS", "too many uploads are under way", headers=[("Retry-After", "60")])
            self._found[number] = upload
        return upload

    @contextmanager
    def held(self, name: Name, number: str) -> Iterator[Upload]:
        """While inside, nobody else has this upload. Raises `Refused` if there is none, or it stays in use."""
        upload = self._find(name, number)
        if not upload.lock.acquire(timeout=_PATIENCE):
            raise Refused(429, "TOOMANYREQUESTS", "another request is at this upload", headers=[("Retry-After", "5")])
        try:
            if self._found.get(number) is not upload:
                raise _unknown(number)  # it was finished meanwhile
            yield upload
        finally:
            upload.used = time.monotonic()
            upload.lock.release()

    def forget(self, upload: Upload) -> None:
        """It is finished, or was thrown away."""
        with self._lock:
            self._found.pop(upload.number, None)

    def close(self) -> None:
        """Let all of them go; what has come of them stays."""
        with self._lock:
            found, self._found = list(self._found.values()), {}
        for upload in found:
            upload.close()

    def _find(self, name: Name, number: str) -> Upload:
        with self._lock:
            upload = self._found.get(number)
            if upload is None and _NUMBER.fullmatch(number):
                upload = self._revived(name, number)
        if upload is None or upload.repository != name.full:
            raise _unknown(number)
        return upload

    def _revived(self, name: Name, number: str) -> Upload | None:
        """One that an earlier server left behind."""
        partial = self._blobs.partial(number, bounded=False)
        if partial is None:
            return None
        if not partial.size:
            partial.discard()
            return None
        upload = self._found[number] = Upload(number, name.full, partial, self._blobs.limits)
        return upload

    def _sweep(self) -> None:
        """Throw away those with which nobody goes on."""
        before = time.monotonic() - self._limits.idle
        with self._lock:
            old = [upload for upload in self._found.values() if upload.used < before and upload.lock.acquire(False)]
            for upload in old:
                del self._found[upload.number]
        for upload in old:
            upload.discard()
            upload.lock.release()


def _unknown(number: str) -> Refused:
    return Refused(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", detail=number[:100])
