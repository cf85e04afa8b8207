"""A registry in memory that behaves, for `quirks` to spoil. Its switches are where real ones differ."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import ssl
import threading
from collections.abc import Sequence
from itertools import count
from typing import Any
from urllib.parse import quote, urlencode

from support import images

from .listening import Answer, Seen, Server
from .tokens import TokenService

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

_ROUTE = re.compile(r"/v2/(?P<name>.+)/(?P<what>manifests|blobs/uploads|blobs|tags|referrers)/(?P<rest>[^/]*)")


def digest(data: bytes) -> str:
    """`sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry(Server):
    """Manifests and blobs in dictionaries, by repository. Change the switches before or between requests."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        super().__init__(tls=tls, port=port)
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        """(repository, digest) → media type and bytes."""
        self.tags: dict[tuple[str, str], str] = {}
        self.uploads: dict[str, bytearray] = {}

        self.ranges = True
        self.mounts = True
        self.referrers = True
        """Has it the referrers API, and OCI-Subject?"""
        self.page: int | None = None
        """The most tags of a page, whatever is asked for."""
        self.relative = False
        """Are Locations of uploads relative?"""
        self.users: dict[str, str] = {}
        """Basic: names and passwords."""
        self.tokens: TokenService | None = None
        """Bearer: who gives the tokens."""
        self.scope_in_challenge = True
        self.chunk_min: int | None = None
        self._state = count(1)
        self._write = threading.RLock()

    # --- content ---

    def put_blob(self, repository: str, data: bytes) -> str:
        """Have a blob."""
        self.blobs[repository, digest(data)] = data
        return digest(data)

    def put_manifest(self, repository: str, ref: str | None, content: Any, media_type: str = MANIFEST) -> str:
        """Have a manifest or index, by a tag or only by digest; `content` is bytes, or a value for JSON."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        name = digest(data)
        self.manifests[repository, name] = (media_type, data)
        if ref is not None and not ref.startswith("sha256:"):
            self.tags[repository, ref] = name
        return name

    def put_image(
        self,
        repository: str,
        tag: str | None,
        layers: Sequence[bytes],
        *,
        config: bytes | None = None,
        compress: bool = True,
        blobs: Sequence[bytes] | None = None,
    ) -> str:
        """Have an image of these layers' tars, gzipped, or as `blobs`; gives the manifest's digest."""
        settings = images.config(layers) if config is None else config
        forms = blobs or [gzip.compress(tar, 1, mtime=0) if compress else tar for tar in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.describe(repository, settings, CONFIG),
            "layers": [self.describe(repository, form, LAYER + ("+gzip" if compress else "")) for form in forms],
        }
        return self.put_manifest(repository, tag, manifest)

    def describe(self, repository: str, data: bytes, media_type: str) -> dict[str, Any]:
        """Have a blob; gives its descriptor."""
        return {"mediaType": media_type, "digest": self.put_blob(repository, data), "size": len(data)}

    # --- requests ---

    def answer(self, seen: Seen) -> Answer:
        if (refused := self._refused(seen)) is not None:
            return refused
        if seen.path in ("/v2", "/v2/"):
            return Answer(body=b"{}", headers={"Content-Type": "application/json"})
        if seen.path == "/v2/_catalog":
            return self._catalog(seen)
        match = _ROUTE.fullmatch(seen.path)
        if match is None:
            return Answer(404, {"Content-Type": "text/plain"}, b"404 page not found\n")
        handler = getattr(self, "_" + match["what"].replace("/", "_"))
        with self._write:
            answered: Answer = handler(seen, match["name"], match["rest"])
        return answered

    def _refused(self, seen: Seen) -> Answer | None:
        scheme, _, value = (seen.authorization or "").partition(" ")
        if self.users:
            if scheme == "Basic":
                name, _, password = base64.b64decode(value).decode().partition(":")
                if self.users.get(name) == password:
                    return None
            return failure(401, "UNAUTHORIZED", headers={"WWW-Authenticate": 'Basic realm="the, tests"'})
        if self.tokens is None:
            return None
        name = match["name"] if (match := _ROUTE.fullmatch(seen.path)) else None
        action = "pull" if seen.method in ("GET", "HEAD") else "delete" if seen.method == "DELETE" else "push"
        if scheme == "Bearer" and self.tokens.allows(value, name, action):
            return None
        challenge = f'Bearer realm="{self.tokens.url}/token",service="{self.tokens.service}"'
        if name is not None and self.scope_in_challenge:
            actions = "pull" if action == "pull" else f"pull,{action}"
            challenge += f',scope="repository:{name}:{actions}"'
        return failure(401, "UNAUTHORIZED", headers={"WWW-Authenticate": challenge})

    def _manifests(self, seen: Seen, name: str, ref: str) -> Answer:
        if seen.method == "PUT":
            return self._take_manifest(seen, name, ref)
        found = self.tags.get((name, ref), ref)
        if (name, found) not in self.manifests:
            return failure(404, "MANIFEST_UNKNOWN")
        media_type, data = self.manifests[name, found]
        if seen.method == "DELETE":
            if ref in (tag for repository, tag in self.tags if repository == name):
                del self.tags[name, ref]
            else:
                del self.manifests[name, found]
                self.tags = {key: value for key, value in self.tags.items() if (key[0], value) != (name, found)}
            return Answer(202)
        if media_type not in (seen.headers["Accept"] or ""):
            return failure(404, "MANIFEST_UNKNOWN", f"manifest found, but accept header does not support {media_type}")
        return Answer(200, {"Content-Type": media_type, "Docker-Content-Digest": found}, data)

    def _take_manifest(self, seen: Seen, name: str, ref: str) -> Answer:
        if len(seen.body) > 4 << 20:
            return failure(400, "MANIFEST_INVALID")
        if ref.startswith("sha256:") and ref != digest(seen.body):
            return failure(400, "DIGEST_INVALID")
        content = json.loads(seen.body)
        wanted = [content["config"], *content["layers"]] if "layers" in content else []
        for blob in wanted:
            if (name, blob["digest"]) not in self.blobs and not blob.get("urls"):
                return failure(400, "MANIFEST_BLOB_UNKNOWN", detail=blob["digest"])
        made = self.put_manifest(name, ref, seen.body, seen.headers["Content-Type"])
        headers = {"Location": f"/v2/{name}/manifests/{made}", "Docker-Content-Digest": made}
        if "subject" in content and self.referrers:
            headers["OCI-Subject"] = content["subject"]["digest"]
        return Answer(201, headers)

    def _blobs(self, seen: Seen, name: str, ref: str) -> Answer:
        data = self.blobs.get((name, ref))
        if data is None:
            return failure(404, "BLOB_UNKNOWN")
        if seen.method == "DELETE":
            del self.blobs[name, ref]
            return Answer(202)
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": ref}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.headers["Range"] or "")
        if not self.ranges or asked is None:
            return Answer(200, headers, data)
        start, end = int(asked[1]), min(int(asked[2] or 1 << 62) + 1, len(data))
        if start >= len(data) or end <= start:
            return Answer(416, headers | {"Content-Range": f"bytes */{len(data)}"}, b"no such range\n")
        return Answer(206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}, data[start:end])

    def _blobs_uploads(self, seen: Seen, name: str, session: str) -> Answer:
        if seen.method == "POST":
            mounted, source = seen.first("mount"), seen.first("from")
            if self.mounts and mounted and source and (source, mounted) in self.blobs and self._reads(seen, source):
                self.blobs[name, mounted] = self.blobs[source, mounted]
                return Answer(201, {"Location": f"/v2/{name}/blobs/{mounted}", "Docker-Content-Digest": mounted})
            session = f"session{next(self._state)}"
            self.uploads[session] = bytearray()
            return self._upload(202, name, session)
        if session not in self.uploads:
            return failure(404, "BLOB_UPLOAD_UNKNOWN")
        content = self.uploads[session]
        if seen.method == "GET":
            return self._upload(204, name, session)
        if seen.method == "DELETE":
            del self.uploads[session]
            return Answer(204)
        asked = seen.headers["Content-Range"]
        if asked and int(asked.removeprefix("bytes ").partition("-")[0]) != len(content):
            return self._upload(416, name, session)
        content += seen.body
        if seen.method == "PATCH":
            return self._upload(202, name, session)
        expected = seen.first("digest")
        if digest(bytes(content)) != expected:
            return failure(400, "DIGEST_INVALID")
        del self.uploads[session]
        self.put_blob(name, bytes(content))
        return Answer(201, {"Location": f"/v2/{name}/blobs/{expected}", "Docker-Content-Digest": expected})

    def _reads(self, seen: Seen, name: str) -> bool:
        """May whoever asks read that repository, too?"""
        token = (seen.authorization or "").removeprefix("Bearer ")
        return self.tokens is None or self.tokens.allows(token, name, "pull")

    def _upload(self, status: int, name: str, session: str) -> Answer:
        """The state of an upload; each has a Location of its own, with a query that has to be kept."""
        location = f"/v2/{quote(name)}/blobs/uploads/{session}?" + urlencode({"_state": f"a+b/{next(self._state)}="})
        size = len(self.uploads[session])
        headers = {
            "Location": location if self.relative else self.url + location,
            "Range": f"0-{max(0, size - 1)}",
            "Docker-Upload-UUID": session,
        }
        if self.chunk_min is not None:
            headers["OCI-Chunk-Min-Length"] = str(self.chunk_min)
        return Answer(status, headers)

    def _tags(self, seen: Seen, name: str, rest: str) -> Answer:
        if name not in {key[0] for key in self.manifests}:
            return failure(404, "NAME_UNKNOWN")
        listed = sorted(tag for repository, tag in self.tags if repository == name)
        return self._page(seen, listed, lambda tags: {"name": name, "tags": tags})

    def _catalog(self, seen: Seen) -> Answer:
        return self._page(seen, sorted({key[0] for key in self.manifests}), lambda names: {"repositories": names})

    def _page(self, seen: Seen, names: list[str], content: Any) -> Answer:
        last = seen.first("last")
        left = [name for name in names if last is None or name > last]
        sizes = [size for size in (self.page, int(seen.first("n") or 0)) if size]
        shown = left[: min(sizes)] if sizes else left
        headers = {"Content-Type": "application/json"}
        if len(shown) < len(left):
            query = urlencode({"last": shown[-1], "n": len(shown)})
            headers["Link"] = f'<{seen.path}?{query}>; rel="next"'
        return Answer(200, headers, json.dumps(content(shown)).encode())

    def _referrers(self, seen: Seen, name: str, subject: str) -> Answer:
        if not self.referrers:
            return Answer(404, {"Content-Type": "text/plain"}, b"404 page not found\n")
        listed = []
        for (repository, ref), (media_type, data) in self.manifests.items():
            content = json.loads(data)
            if repository != name or content.get("subject", {}).get("digest") != subject:
                continue
            kind = content.get("artifactType") or content.get("config", {}).get("mediaType")
            listed.append({"mediaType": media_type, "digest": ref, "size": len(data), "artifactType": kind})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        return Answer(200, {"Content-Type": INDEX}, json.dumps(index).encode())


def failure(
    status: int, code: str, message: str = "", *, detail: Any = None, headers: dict[str, str] | None = None
) -> Answer:
    """An error as the spec has it ("Error Codes")."""
    errors = {"errors": [{"code": code, "message": message or code.lower().replace("_", " "), "detail": detail}]}
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(errors).encode())
