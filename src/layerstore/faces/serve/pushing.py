"""What is pushed, and taken away: blobs in all ways, manifests (distribution-spec, "Push", "Content Management")."""

from __future__ import annotations

import re
from typing import Final

from layerstore.blobs import Blobs
from layerstore.errors import DigestMismatch, InUse, InvalidArchive
from layerstore.faces.serve import names
from layerstore.faces.serve.messages import Refused, Reply, Request, warning
from layerstore.faces.serve.names import Name
from layerstore.faces.serve.pulling import unknown_blob, unknown_manifest
from layerstore.faces.serve.uploads import Upload, Uploads
from layerstore.repositories import MissingParts, Repositories

_RANGE: Final = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/.*)?")
_ALGORITHMS: Final = ("sha256", "sha512")
_TAGS: Final = 32
"""The most tags of one request."""


class Pushing:
    """What alters a store by way of this protocol."""

    def __init__(self, repositories: Repositories, blobs: Blobs, uploads: Uploads) -> None:
        self._repositories = repositories
        self._blobs = blobs
        self._uploads = uploads

    # --- blobs ---

    def begin(self, name: Name, request: Request) -> Reply:
        """POST: a new upload, all of it at once if there is a digest; or a blob from another repository."""
        self._repositories.require_writable()
        mounted = request.parameter("mount")
        if mounted is not None and self._repositories.link_blob(name.full, names.digest(mounted)):
            return _created(name, mounted)
        algorithm = request.parameter("digest-algorithm")
        if algorithm not in (None, *_ALGORITHMS):
            raise Refused(400, "DIGEST_INVALID", f"digests may be of {' and '.join(_ALGORITHMS)}")
        whole = request.parameter("digest")
        expected = None if whole is None else names.digest(whole)
        upload = self._uploads.begin(name)
        if expected is None:
            return _accepted(name, upload)
        try:
            return self._finish(name, upload, expected, request)
        except BaseException:
            self._uploads.forget(upload)
            upload.discard()
            raise

    def append(self, name: Name, number: str, request: Request) -> Reply:
        """PATCH: a chunk at its place, or a stream."""
        with self._uploads.held(name, number) as upload:
            size = _require_place(name, upload, request)
            upload.append(request.body, size)
            return _accepted(name, upload)

    def finish(self, name: Name, number: str, request: Request) -> Reply:
        """PUT: perhaps the last chunk, and the digest of the whole."""
        expected = names.digest(request.parameter("digest"))
        with self._uploads.held(name, number) as upload:
            return self._finish(name, upload, expected, request)

    def status(self, name: Name, number: str) -> Reply:
        """GET: how far it came."""
        with self._uploads.held(name, number) as upload:
            return Reply(204, _progress(name, upload))

    def cancel(self, name: Name, number: str) -> Reply:
        """DELETE: throw it away."""
        with self._uploads.held(name, number) as upload:
            self._uploads.forget(upload)
            upload.discard()
        return Reply(204)

    def delete_blob(self, name: Name, ref: str) -> Reply:
        """DELETE of a blob, which no manifest of the repository may need."""
        digest = names.digest(ref)
        try:
            if not self._repositories.delete_blob(name.full, digest):
                raise unknown_blob(digest)
        except InUse as error:
            raise Refused(405, "UNSUPPORTED", error.message, detail={"holders": list(error.holders)}) from None
        return Reply(202)

    def _finish(self, name: Name, upload: Upload, expected: str, request: Request) -> Reply:
        size = _require_place(name, upload, request)
        digest = upload.finish(self._blobs, expected, request.body, size)
        self._repositories.link_blob(name.full, digest, alias=None if digest == expected else expected)
        self._uploads.forget(upload)
        return _created(name, expected)

    # --- manifests ---

    def put_manifest(self, name: Name, ref: str, request: Request) -> Reply:
        """PUT of a manifest, under a tag, or by its digest and perhaps some tags."""
        expected = names.digest(ref) if ":" in ref else None
        tags = list(request.query.get("tag", ())) if expected is not None else [ref]
        if len(tags) > _TAGS:
            raise Refused(414, "UNSUPPORTED", f"at most {_TAGS} tags may be given at once")
        if not all(map(names.is_tag, tags)):
            raise Refused(
                400,
                "MANIFEST_INVALID",
                "a tag has up to 128 letters, digits, . _ and -, and begins with none of . and -",
            )
        data = self._document(request)
        media_type = request.header("Content-Type").partition(";")[0].strip()
        try:
            done = self._repositories.put_manifest(
                name.full, data, "" if media_type in _NONE else media_type, tags=tags, expected=expected
            )
        except MissingParts as error:
            raise Refused(
                404, "MANIFEST_BLOB_UNKNOWN", error.message, detail={"digests": list(error.digests[:100])}
            ) from None
        except DigestMismatch as error:
            raise Refused(400, "DIGEST_INVALID", error.message) from None
        except InvalidArchive as error:
            raise Refused(400, "MANIFEST_INVALID", error.message) from None
        headers = [("Location", name.location(f"manifests/{done.digest}")), ("Docker-Content-Digest", done.digest)]
        if done.subject is not None:
            headers.append(("OCI-Subject", done.subject))
        if expected is not None:
            headers += [("OCI-Tag", tag) for tag in tags]
        if done.note is not None:
            headers.append(warning(f"It is kept, but is no image of the store: {done.note}"))
        return Reply(201, tuple(headers))

    def delete_manifest(self, name: Name, ref: str) -> Reply:
        """DELETE of a tag, or of a manifest with all tags that mean it."""
        if ":" in ref:
            is_done = self._repositories.delete_manifest(name.full, names.digest(ref))
        else:
            is_done = names.is_tag(ref) and self._repositories.delete_tag(name.full, ref)
        if not is_done:
            raise unknown_manifest(ref)
        return Reply(202)

    def _document(self, request: Request) -> bytes:
        """The body, if it is not too large."""
        limit = self._blobs.limits.manifest_size or _NO_LIMIT
        data = bytearray()
        if _announced(request) is None or (_announced(request) or 0) <= limit:
            while len(data) <= limit and (piece := request.body.read(limit + 1 - len(data))):
                data += piece
            if len(data) <= limit:
                return bytes(data)
        raise Refused(413, "MANIFEST_INVALID", f"a manifest may have {limit:,} bytes (max-manifest-size)")


_NO_LIMIT: Final = 1 << 40
_NONE: Final = ("", "application/octet-stream", "application/json", "application/x-www-form-urlencoded")
"""Media types that clients send who do not know one."""


def _announced(request: Request) -> int | None:
    """The size of the body as its header says it."""
    text = request.header("Content-Length")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _require_place(name: Name, upload: Upload, request: Request) -> int | None:
    """The size of the chunk that is sent, if it is told; its place must be behind what has come. Raises `Refused`."""
    text = request.header("Content-Range")
    if not text:
        return None
    match = _RANGE.fullmatch(text)
    if match is None or int(match[2]) < int(match[1]):
        raise Refused(400, "BLOB_UPLOAD_INVALID", "Content-Range is FIRST-LAST", detail=text[:100])
    if int(match[1]) != upload.size:
        raise Refused(
            416,
            "BLOB_UPLOAD_INVALID",
            f"the chunk begins at {match[1]}, and {upload.size} bytes have come",
            headers=_progress(name, upload),
        )
    return int(match[2]) + 1 - int(match[1])


def _progress(name: Name, upload: Upload) -> tuple[tuple[str, str], ...]:
    return (
        ("Location", name.location(f"blobs/uploads/{upload.number}")),
        ("Range", f"0-{max(upload.size - 1, 0)}"),
        ("Docker-Upload-UUID", upload.number),
    )


def _accepted(name: Name, upload: Upload) -> Reply:
    return Reply(202, _progress(name, upload))


def _created(name: Name, digest: str) -> Reply:
    return Reply(201, (("Location", name.location(f"blobs/{digest}")), ("Docker-Content-Digest", digest)))
