"""What is listed: repositories, tags, referrers (distribution-spec, "Content Discovery"). Pages by `n` and `last`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from layerstore.faces.serve import names
from layerstore.faces.serve.messages import Refused, Reply, Request, of_json
from layerstore.faces.serve.names import Name
from layerstore.repositories import Kept, Repositories

_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_CATALOG: Final = 1000
"""Repositories of a page, where no number is asked for."""

_PAGE: Final = 2 << 20
"""Bytes of a page of referrers, but for its last descriptor: a client may not take more than 4 MiB."""


def tags(repositories: Repositories, name: Name, request: Request) -> Reply:
    """The tags of a repository."""
    if not repositories.is_there(name.full):
        raise Refused(404, "NAME_UNKNOWN", "repository name not known to registry", detail={"name": name.text})
    count, last = _wanted(request, None)
    found = repositories.tags(name.full, after=last, count=None if count is None else count + 1)
    shown, link = _page(found, count, request, f"/v2/{name.text}/tags/list")
    return of_json({"name": name.text, "tags": shown}).with_headers(*link)


def catalog(repositories: Repositories, request: Request) -> Reply:
    """All repositories that can be named in a URL."""
    known = sorted(name for full in repositories.names() if (name := names.shown(full)) is not None)
    count, last = _wanted(request, _CATALOG)
    shown, link = _page([name for name in known if name > last], count, request, "/v2/_catalog")
    return of_json({"repositories": shown}).with_headers(*link)


def referrers(repositories: Repositories, name: Name, ref: str, request: Request) -> Reply:
    """The manifests that are about another; none if that is not there, or not yet."""
    subject, kind = names.digest(ref), request.parameter("artifactType")
    last = request.parameter("last") or ""
    found = [
        kept
        for kept in repositories.referrers(name.full, subject, names.digest(last) if last else "")
        if kind in (None, "", kept.artifact_type)
    ]
    descriptors: list[Mapping[str, object]] = []
    size = 0
    headers = [("OCI-Filters-Applied", "artifactType")] if kind else []
    for number, kept in enumerate(found):
        descriptor = _descriptor(kept)
        size += len(json.dumps(descriptor))
        if descriptors and size > _PAGE:
            query = {"last": found[number - 1].digest} | ({"artifactType": kind} if kind else {})
            headers.append(_next(f"/v2/{name.text}/referrers/{subject}", query, request))
            break
        descriptors.append(descriptor)
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": descriptors}
    return of_json(index, media_type=_INDEX).with_headers(*headers)


def _descriptor(kept: Kept) -> Mapping[str, object]:
    descriptor: dict[str, object] = {"mediaType": kept.media_type, "digest": kept.digest, "size": kept.size}
    if kept.artifact_type:
        descriptor["artifactType"] = kept.artifact_type
    if kept.annotations:
        descriptor["annotations"] = kept.annotations
    return descriptor


def _wanted(request: Request, usual: int | None) -> tuple[int | None, str]:
    """How many entries are asked for, and the one behind which they begin."""
    text = request.parameter("n")
    if text is not None and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused(400, "UNSUPPORTED", "n is a number of entries, from 0 on", detail={"n": text[:100]})
    return usual if text is None else int(text), request.parameter("last") or ""


def _page(rest: list[str], count: int | None, request: Request, path: str) -> tuple[list[str], list[tuple[str, str]]]:
    """At most `count` of what there is, and the header that leads to the next page."""
    if count is None or len(rest) <= count:
        return rest, []
    shown = rest[:count]
    return shown, [_next(path, {"n": str(count), "last": shown[-1]}, request)] if shown else []


def _next(path: str, query: Mapping[str, str], request: Request) -> tuple[str, str]:
    ns = request.parameter("ns")
    return "Link", f'<{path}?{urlencode({**query, **({"ns": ns} if ns else {})})}>; rel="next"'
