"""The same requests to Debian's docker-registry and to us: the same answers, wherever its are right.

Where they are not, `test_conformance` has the spec's word: out-of-order chunks, sha512, referrers, mounts without a
source, a digest with the POST, tags deleted by name, the order of tags, ranges that begin beyond the end, the status
of a manifest whose blobs are missing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from registry.servers.debian import DockerRegistry
from serve import datasets
from serve.client import INDEX, MANIFEST, OCTETS, Answer, Client, digest

if TYPE_CHECKING:
    from layerstore.faces.serve.server import Server

pytestmark = [pytest.mark.root, pytest.mark.tools("docker-registry")]

Session = Callable[[Client], Iterator[Answer]]


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host of a docker-registry."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry, which is not installed")
    with DockerRegistry(tmp_path_factory.mktemp("witness")) as registry:
        yield registry.host


def uploads(client: Client) -> Iterator[Answer]:
    """Blobs on their way in."""
    data = os.urandom(1000)
    path = "/v2/team/app/blobs/uploads/"
    begun = client("POST", path)
    yield begun
    yield client("GET", begun.header["location"])
    first = client("PATCH", begun.header["location"], data[:500], Content_Type=OCTETS, Content_Range="0-499")
    yield first
    yield client("GET", first.header["location"])
    yield client("PUT", first.header["location"], data[500:], query={"digest": digest(b"other")}, Content_Type=OCTETS)
    again = client("POST", path)
    yield client("PUT", again.header["location"], data, query={"digest": digest(data)}, Content_Type=OCTETS)
    yield client("PUT", client("POST", path).header["location"], b"", query={"digest": "nonsense"})
    yield client("PUT", client("POST", path).header["location"], b"")
    gone = client("POST", path).header["location"]
    yield client("DELETE", gone)
    yield client("GET", gone)
    yield client("PATCH", gone, b"x")
    yield client("POST", path, query={"mount": digest(data), "from": "team/app"})
    yield client("POST", "/v2/other/app/blobs/uploads/", query={"mount": digest(data), "from": "team/app"})
    yield client("POST", path, query={"mount": digest(b"unknown"), "from": "team/app"})


def blobs(client: Client) -> Iterator[Answer]:
    """Blobs on their way out."""
    data = os.urandom(1000)
    name = client.put_blob("team/app", data)
    path = f"/v2/team/app/blobs/{name}"
    for method in ("GET", "HEAD"):
        yield client(method, path)
        yield client(method, f"/v2/team/app/blobs/{digest(b'unknown')}")
        yield client(method, f"/v2/nobody/app/blobs/{name}")
    for part in ("bytes=0-0", "bytes=10-", "bytes=-10", "bytes=990-2000", "bytes=0-999"):
        yield client("GET", path, Range=part)
    yield client("DELETE", path)
    yield client("GET", path)
    yield client("DELETE", path)


def manifests(client: Client) -> Iterator[Answer]:
    """Manifests in and out."""
    data = datasets.make("index")
    path = "/v2/team/app/manifests/"
    [*_, (top, (_, index))] = data.manifests.items()
    for content in data.blobs.values():
        client.put_blob("team/app", content)
    for name, (media_type, document) in data.manifests.items():
        yield client("PUT", path + name, document, Content_Type=media_type)
    yield client("PUT", path + "1", index, Content_Type=INDEX)
    yield client("PUT", path + digest(b"other"), index, Content_Type=INDEX)
    yield client("PUT", path + "1", b"no JSON", Content_Type=INDEX)
    yield client("PUT", path + "1", b"[]", Content_Type=MANIFEST)
    for method in ("GET", "HEAD"):
        yield client(method, path + "1", Accept=f"{INDEX}, {MANIFEST}")
        yield client(method, path + top, Accept=f"{INDEX}, {MANIFEST}")
        yield client(method, path + "2", Accept=INDEX)
        yield client(method, path + digest(b"unknown"), Accept=INDEX)
        yield client(method, "/v2/nobody/app/manifests/1", Accept=INDEX)
    etag = client("GET", path + "1", Accept=INDEX).header["etag"]
    yield client("GET", path + "1", Accept=INDEX, If_None_Match=etag)
    yield client("GET", "/v2/team/app/tags/list")
    yield client("GET", "/v2/nobody/app/tags/list")
    yield client("DELETE", path + top)
    yield client("GET", path + "1", Accept=INDEX)
    yield client("DELETE", path + top)


def lists(client: Client) -> Iterator[Answer]:
    """Tags and repositories, in pages."""
    data = datasets.make("image")
    for content in data.blobs.values():
        client.put_blob("lists/app", content)
    [(_, document)] = data.manifests.values()
    for tag in ("b", "a", "10", "9"):
        client.put_manifest("lists/app", tag, document)
    yield client("GET", "/v2/lists/app/tags/list")
    yield client("GET", "/v2/")
    yield client("GET", "/v2/_catalog", query={"n": "1", "last": "lists/ap"})
    yield client("GET", "/v2/_catalog", query={"n": "1", "last": "zzz"})


HEADERS = (
    "content-type", "content-range", "docker-content-digest", "docker-distribution-api-version", "etag", "range"
)  # fmt: skip


def seen(answer: Answer) -> tuple[object, ...]:
    """What of an answer should be the same."""
    headers = {name: answer.header.get(name) for name in HEADERS}
    if answer.status == 304:
        headers = {}  # theirs leaves out what RFC 9110 wants here
    if answer.status >= 400 or not answer.body:
        headers.pop("content-type", None)  # with a charset here, and without there
    if (headers.get("content-type") or "").startswith("application/json"):
        headers["content-type"] = "application/json"
    body = json.loads(answer.body) if headers.get("content-type") == "application/json" else answer.body
    if isinstance(body, dict) and "tags" in body:
        body["tags"].sort()
    return answer.status, headers, answer.code if answer.status >= 400 else body


@pytest.mark.parametrize("session", [uploads, blobs, manifests, lists])
def test_the_answers_are_those_of_docker_registry(
    witness: str, server: Server, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter(range(10**6))
    monkeypatch.setattr(os, "urandom", lambda size: (b"%d " % next(numbers)).ljust(size, b"x")[:size])
    with Client(witness) as theirs:
        expected = [seen(answer) for answer in session(theirs)]
    numbers = iter(range(10**6))
    with Client(f"127.0.0.1:{server.port}") as ours:
        found = [seen(answer) for answer in session(ours)]
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one == other, f"answer {number}"
