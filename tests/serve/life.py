"""A life of what is pushed: blobs, a manifest, both away. The application is called in this process, without a server.

As a program: `life.py DATA_ROOT`, to have its system calls fail. It ends with 0 if all was answered as it should be,
with 3 if the store failed on the way and said so.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import layerstore
from layerstore.faces.serve import Registry
from serve.client import MANIFEST, digest
from support import images

if TYPE_CHECKING:
    from pathlib import Path

TARS = [images.layer(images.file("a", "x" * 3000)), images.layer(images.file("b", "y"))]
CONFIG = images.config(TARS)
PACKED = [gzip.compress(tar, mtime=0) for tar in TARS]
DOCUMENT = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(CONFIG),
            "size": len(CONFIG),
        },
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(data), "size": len(data)}
            for data in PACKED
        ],
    }
).encode()


def settings(data_root: Path | str) -> layerstore.Config:
    """What the store is opened with."""
    return layerstore.Config(data_root=data_root, exec_root=f"{data_root}.run", storage_driver="overlay2")


def ask(
    registry: Registry, method: str, path: str, body: bytes = b"", media_type: str = ""
) -> tuple[int, dict[str, str]]:
    """One request; the status, and the headers in lower case."""
    where, _, query = path.partition("?")
    answer: list[Any] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": where,
        "QUERY_STRING": query,
        "CONTENT_TYPE": media_type,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
    }

    def start_response(status: str, headers: list[tuple[str, str]]) -> Any:
        answer[:] = [int(status[:3]), {name.lower(): text for name, text in headers}]
        return lambda _: None

    list(registry(environ, start_response))
    return answer[0], answer[1]


def live(registry: Registry) -> bool:
    """Push and delete. False: the store failed on the way."""

    def expect(method: str, path: str, status: int, body: bytes = b"", media_type: str = "") -> dict[str, str]:
        found, headers = ask(registry, method, path, body, media_type)
        if found in (500, 507):
            raise SystemExit(3)
        assert found == status, (method, path, found)
        return headers

    for data in (CONFIG, *PACKED):
        place = expect("POST", "/v2/app/blobs/uploads/", 202)["location"]
        expect("PATCH", place, 202, data[:100])
        expect("PUT", f"{place}?digest={digest(data)}", 201, data[100:])
    expect("PUT", "/v2/app/manifests/1", 201, DOCUMENT, MANIFEST)
    expect("GET", "/v2/app/manifests/1", 200)
    expect("DELETE", f"/v2/app/manifests/{digest(DOCUMENT)}", 202)
    return True


if __name__ == "__main__":
    with layerstore.open(config=settings(sys.argv[1])) as mine:
        live(Registry(mine))
