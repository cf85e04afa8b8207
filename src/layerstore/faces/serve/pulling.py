"""What is pulled: manifests and blobs (distribution-spec, "Pull")."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from layerstore.faces.serve import names, ranges
from layerstore.faces.serve.messages import Refused, Reply, Request, Write
from layerstore.faces.serve.names import Name
from layerstore.repositories import Repositories

_FOR_EVER: Final = ("Cache-Control", "max-age=31536000")
"""What has a digest for its name never changes."""


def manifest(repositories: Repositories, name: Name, ref: str, request: Request, compression: str) -> Reply:
    """A manifest by tag or digest: by a tag, of a type that the client accepts."""
    found = None
    if is_digest := ":" in ref:
        found = repositories.manifest(name.full, names.digest(ref))
    elif names.is_tag(ref):
        found = repositories.manifest(name.full, ref, accepting(request.header("Accept")), compression=compression)
    if found is None:
        raise unknown_manifest(ref)
    headers = [("Docker-Content-Digest", found.digest), ("ETag", f'"{found.digest}"')]
    if is_digest:
        headers.append(_FOR_EVER)
    if f'"{found.digest}"' in [tag.strip().removeprefix("W/") for tag in request.header("If-None-Match").split(",")]:
        return Reply(304, tuple(headers))
    return Reply(200, (("Content-Type", found.media_type), *headers), found.data)


def blob(repositories: Repositories, name: Name, ref: str, request: Request) -> Reply:
    """A blob, or a part of it."""
    digest = names.digest(ref)
    size = repositories.size_of_blob(name.full, digest)
    if size is None:
        raise unknown_blob(digest)
    headers = (
        ("Content-Type", "application/octet-stream"),
        ("Docker-Content-Digest", digest),
        ("ETag", f'"{digest}"'),
        ("Accept-Ranges", "bytes"),
        _FOR_EVER,
    )
    part = None
    if request.method == "GET" and request.header("If-Range") in ("", f'"{digest}"'):
        part = ranges.wanted(request.header("Range"), size)
    start, end = (0, size) if part is None else part
    stream = partial(_write, repositories, name.full, digest, start, end)
    reply = Reply(200 if part is None else 206, headers, stream=stream, size=end - start)
    return reply if part is None else reply.with_headers(("Content-Range", f"bytes {start}-{end - 1}/{size}"))


def _write(repositories: Repositories, repository: str, digest: str, start: int, end: int, write: Write) -> None:
    """Write a blob, the last piece when it is known to be right: a client that gets too little knows that it failed."""
    last = b""

    def keep(data: memoryview) -> None:
        nonlocal last
        if last:
            write(last)
        last = bytes(data)

    repositories.write_blob(repository, digest, keep, start=start, end=end)
    if last:
        write(last)


def accepting(header: str) -> Callable[[str], bool]:
    """Which media types a client wants, by its header `Accept` (RFC 9110, section 12.5.1); without one, all."""
    if not header:
        return lambda _: True
    wanted: set[str] = set()
    unwanted: set[str] = set()
    for element in header.split(","):
        media_type, *parameters = (part.strip().lower() for part in element.split(";"))
        weights = [text.removeprefix("q=") for text in parameters if text.startswith("q=")]
        (unwanted if weights and not weights[0].strip("0.") else wanted).add(media_type)

    def is_wanted(media_type: str) -> bool:
        kinds = (media_type.lower(), f"{media_type.partition('/')[0]}/*", "*/*")
        return next((kind in wanted for kind in kinds if kind in wanted or kind in unwanted), False)

    return is_wanted


def unknown_manifest(ref: str) -> Refused:
    """There is no such manifest."""
    return Refused(404, "MANIFEST_UNKNOWN", "manifest unknown", detail={"Name": ref[:300]})


def unknown_blob(digest: str) -> Refused:
    """There is no such blob."""
    return Refused(404, "BLOB_UNKNOWN", "blob unknown to registry", detail=digest)
