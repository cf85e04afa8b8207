"""A client that does what it is told and nothing else, by Python's own http.client; and what it was answered."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Self
from urllib.parse import quote, urlencode, urljoin

from attrs import frozen

OCTETS = "application/octet-stream"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes, algorithm: str = "sha256") -> str:
    """The digest of `data`."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@frozen
class Answer:
    """What came back. `header`: by its name in lower case, the values of several with commas between."""

    status: int
    header: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The first error code of the body, if it is an error."""
        if self.status < 400 or not self.body:
            return None
        return str(self.json["errors"][0]["code"])


class Client:
    """One connection to a registry, kept alive."""

    def __init__(self, host: str, *, tls: ssl.SSLContext | None = None, headers: Mapping[str, str] = {}) -> None:
        self.host = host
        self._headers = dict(headers)
        if tls is None:
            self.connection = http.client.HTTPConnection(host, timeout=20)
        else:
            self.connection = http.client.HTTPSConnection(host, timeout=20, context=tls)

    def __call__(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        *,
        query: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        **headers: str,
    ) -> Answer:
        """Ask. `path` may have a query; `headers` are written with `_` for `-`."""
        if query:
            path += ("&" if "?" in path else "?") + urlencode(
                list(dict(query).items() if isinstance(query, Mapping) else query)
            )
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        is_chunked = body is not None and not isinstance(body, bytes)
        if is_chunked:
            named["Transfer-Encoding"] = "chunked"
        self.connection.request(method, path, body, {**self._headers, **named}, encode_chunked=is_chunked)
        reply = self.connection.getresponse()
        header = {name.lower(): ", ".join(reply.headers.get_all(name, ())) for name in reply.headers}
        return Answer(reply.status, header, reply.read())

    # --- what most tests do first ---

    def put_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> str:
        """Push a blob by POST and PUT; its digest."""
        begun = self("POST", f"/v2/{repository}/blobs/uploads/")
        assert begun.status == 202, begun
        name = digest(data, algorithm)
        done = self("PUT", begun.header["location"], data, query={"digest": name}, Content_Type=OCTETS)
        assert done.status == 201, done
        return name

    def put_manifest(self, repository: str, ref: str, document: Any, media_type: str = MANIFEST) -> Answer:
        """Push a manifest, given as bytes or as what becomes JSON."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self("PUT", f"/v2/{repository}/manifests/{quote(ref)}", data, Content_Type=media_type)

    def at(self, location: str) -> Answer:
        """What a `Location` leads to."""
        return self("GET", urljoin("/v2/", location))

    def close(self) -> None:
        """Hang up."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
