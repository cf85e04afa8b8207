"""The conformance suite of distribution-spec 1.1, case by case: each test has the name that the case has there.

The suite itself is a program in Go; these are its cases, written anew from its sources and the spec's text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from serve import datasets
from serve.client import INDEX, MANIFEST, OCTETS, Answer, Client, digest
from serve.datasets import Dataset

if TYPE_CHECKING:
    from layerstore import Store

pytestmark = pytest.mark.root

REPOSITORY, OTHER = "conformance/repo1", "conformance/repo2"
UPLOADS = f"/v2/{REPOSITORY}/blobs/uploads/"
CHUNK = 1024


def blob(name: str, repository: str = REPOSITORY) -> str:
    """The path of a blob."""
    return f"/v2/{repository}/blobs/{name}"


def manifest(ref: str) -> str:
    """The path of a manifest."""
    return f"/v2/{REPOSITORY}/manifests/{quote(ref)}"


# --- ping, empty ---


def test_ping(client: Client) -> None:
    found = client("GET", "/v2/")
    assert (found.status, found.header["docker-distribution-api-version"]) == (200, "registry/2.0")
    assert client("GET", "/v2").status == 200


def test_empty_tag_list(client: Client) -> None:
    found = client("GET", f"/v2/{REPOSITORY}/tags/list")
    assert (found.status, found.code) == (404, "NAME_UNKNOWN")


def test_empty_referrers(client: Client) -> None:
    found = client("GET", f"/v2/{REPOSITORY}/referrers/{digest(b'nothing')}")
    assert (found.status, found.header["content-type"], found.json["manifests"]) == (200, INDEX, [])
    assert found.json["schemaVersion"] == 2
    refused = client("GET", f"/v2/{REPOSITORY}/referrers/sha256:baddigeststring")
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")


# --- blobs ---


@pytest.fixture(params=["sha256", "sha512"])
def algorithm(request: pytest.FixtureRequest) -> str:
    """Of the digests by which blobs are pushed."""
    return str(request.param)


def begun(client: Client, **query: str) -> str:
    """The place of a new upload."""
    found = client("POST", UPLOADS, query=query, Content_Length="0")
    assert found.status == 202
    assert len(found.header["docker-upload-uuid"]) == 32
    return found.header["location"]


def post_only(client: Client, data: bytes, name: str) -> Answer:
    """All of it at once."""
    return client("POST", UPLOADS, data, query={"digest": name}, Content_Type=OCTETS)


def post_put(client: Client, data: bytes, name: str) -> Answer:
    """First where to, then all of it."""
    return client("PUT", begun(client), data, query={"digest": name}, Content_Type=OCTETS)


def chunked(client: Client, data: bytes, name: str, *, put_last: bool = False, unordered: bool = False) -> Answer:
    """In three chunks. `put_last`: the last comes with the digest. `unordered`: a wrong one is sent before each."""
    place, end = begun(client, **{"digest-algorithm": name.partition(":")[0]}), 0
    size = len(data) // 3 + 1

    def send(method: str, place: str, first: int, last: int) -> Answer:
        is_last = method == "PUT"
        return client(
            method,
            place,
            data[first:last],
            query={"digest": name} if is_last else {},
            Content_Type=OCTETS,
            Content_Range=f"{first}-{last - 1}",
        )

    while end < len(data):
        if unordered:
            wrong = end + size if end + size < len(data) else 0
            last = min(wrong + size, len(data))
            refused = send("PUT" if put_last and last == len(data) else "PATCH", place, wrong, last)
            assert refused.status == 416
            assert refused.header["range"] == f"0-{max(end - 1, 0)}"
            found = client("GET", place)
            assert (found.status, found.header["range"]) == (204, f"0-{max(end - 1, 0)}")
            place = found.header["location"]
        first, end = end, min(end + size, len(data))
        if put_last and end == len(data):
            return send("PUT", place, first, end)
        found = send("PATCH", place, first, end)
        assert (found.status, found.header["range"]) == (202, f"0-{end - 1}")
        place = found.header["location"]
    return client("PUT", place, query={"digest": name}, Content_Length="0", Content_Type=OCTETS)


def stream(client: Client, data: bytes, name: str) -> Answer:
    """As a stream of unknown length."""
    found = client("PATCH", begun(client), iter([data[:700], data[700:]]), Content_Type=OCTETS)
    assert (found.status, found.header["range"]) == (202, f"0-{max(len(data) - 1, 0)}")
    return client("PUT", found.header["location"], query={"digest": name}, Content_Length="0")


WAYS: dict[str, Callable[[Client, bytes, str], Answer]] = {
    "post only": post_only,
    "post+put": post_put,
    "chunked": chunked,
    "chunked and put chunk": lambda *given: chunked(*given, put_last=True),
    "chunked out-of-order": lambda *given: chunked(*given, unordered=True),
    "chunked out-of-order and put chunk": lambda *given: chunked(*given, unordered=True, put_last=True),
    "stream": stream,
}


def assert_pullable(client: Client, name: str, data: bytes) -> None:
    """A blob can be had, and its head says what it is."""
    head, found = client("HEAD", blob(name)), client("GET", blob(name))
    assert (head.status, found.status, head.body, found.body) == (200, 200, b"", data)
    for answer in (head, found):
        assert answer.header["docker-content-digest"] == name
        assert answer.header["content-length"] == str(len(data))


def assert_deletable(client: Client, name: str, repository: str = REPOSITORY) -> None:
    """A blob can be deleted, at once."""
    assert client("DELETE", blob(name, repository)).status == 202
    for method in ("HEAD", "GET", "DELETE"):
        assert client(method, blob(name, repository)).status == 404


@pytest.mark.parametrize("way", WAYS)
def test_blob_push(client: Client, algorithm: str, way: str) -> None:
    data = os.urandom(3 * CHUNK - 5)
    name = digest(data, algorithm)
    done = WAYS[way](client, data, name)
    assert (done.status, done.header["docker-content-digest"]) == (201, name)
    assert client.at(done.header["location"]).body == data
    assert_pullable(client, name, data)
    assert_deletable(client, name)


@pytest.mark.parametrize("way", WAYS)
def test_bad_digest(client: Client, algorithm: str, way: str) -> None:
    data = os.urandom(3 * CHUNK - 5)
    name = digest(data, algorithm)
    refused = WAYS[way](client, data + b"oh no", name)
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert client("GET", blob(name)).status == 404


@pytest.mark.parametrize("data", [b"", b"{}"], ids=["empty", "emptyJSON"])
def test_well_known_blobs(client: Client, algorithm: str, data: bytes) -> None:
    name = digest(data, algorithm)
    assert post_put(client, data, name).status == 201
    assert_pullable(client, name, data)
    assert_deletable(client, name)


def test_get_missing(client: Client, algorithm: str) -> None:
    found = client("GET", blob(digest(b"never pushed", algorithm)))
    assert (found.status, found.code) == (404, "BLOB_UNKNOWN")


def test_mount(client: Client, algorithm: str) -> None:
    data = os.urandom(512)
    name = client.put_blob(OTHER, data, algorithm)
    assert client("GET", blob(name)).status == 404
    done = client("POST", UPLOADS, query={"mount": name, "from": OTHER})
    assert (done.status, done.header["docker-content-digest"]) == (201, name)
    assert_pullable(client, name, data)
    assert_deletable(client, name)
    assert client("GET", blob(name, OTHER)).body == data
    assert_deletable(client, name, OTHER)


def test_mount_anonymous(client: Client, algorithm: str) -> None:
    data = os.urandom(512)
    name = client.put_blob(OTHER, data, algorithm)
    assert client("POST", UPLOADS, query={"mount": name}).status == 201
    assert_pullable(client, name, data)


def test_mount_missing(client: Client, algorithm: str) -> None:
    data = os.urandom(512)
    name = digest(data, algorithm)
    found = client("POST", UPLOADS, query={"mount": name, "from": OTHER})
    assert found.status == 202
    assert client("PUT", found.header["location"], data, query={"digest": name}).status == 201
    assert_pullable(client, name, data)


def test_post_cancel(client: Client) -> None:
    place = begun(client)
    assert client("PATCH", place, b"some").status == 202
    assert client("DELETE", place).status == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        gone = client(method, place, b"" if method != "GET" else None, query={"digest": digest(b"")})
        assert (gone.status, gone.code) == (404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("500-1499", 500, 1499), ("500-", 500, 2047), ("-500", 1548, 2047), ("2000-5000", 2000, 2047)],
)
def test_range_requests(client: Client, algorithm: str, header: str, first: int, last: int) -> None:
    data = os.urandom(2048)
    name = client.put_blob(REPOSITORY, data, algorithm)
    found = client("GET", blob(name), Range=f"bytes={header}")
    assert (found.status, found.body) == (206, data[first : last + 1])
    assert found.header["content-range"] == f"bytes {first}-{last}/2048"
    assert found.header["content-length"] == str(last + 1 - first)


@pytest.mark.parametrize("header", ["500-0", "5000-10000"])
def test_range_requests_beyond(client: Client, header: str) -> None:
    name = client.put_blob(REPOSITORY, bytes(2048))
    found = client("GET", blob(name), Range=f"bytes={header}")
    assert (found.status, found.header["content-range"]) == (416, "bytes */2048")
    assert len(client("GET", blob(name)).body) == 2048  # the connection lives


# --- data ---

CASES = {
    **{name: (name, "sha256", False, False) for name in datasets.DATASETS},
    "data-field": ("image", "sha256", True, False),
    "sha512": ("index", "sha512", False, False),
    "tag-param-sha256": ("index", "sha256", False, True),
    "tag-param-sha512": ("index", "sha512", False, True),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """The name of a case."""
    return str(request.param)


@pytest.fixture
def data(case: str) -> Dataset:
    """What is pushed in it."""
    name, algorithm, embed, _ = CASES[case]
    return datasets.make(name, algorithm=algorithm, embed=embed)


@pytest.fixture
def pushed(client: Client, case: str, data: Dataset) -> Dataset:
    """The data, pushed: blobs, manifests by digest, tags; and by what is answered."""
    for name, content in data.blobs.items():
        assert client.put_blob(REPOSITORY, content, data.algorithm) == name
    tag_parameters = CASES[case][3]
    for name, (media_type, document) in data.manifests.items():
        tags = [("tag", tag) for tag, meant in data.tags.items() if meant == name] if tag_parameters else []
        done = client("PUT", manifest(name), document, query=tags, Content_Type=media_type)
        assert_put(done, name, document)
        assert done.header.get("oci-tag", "") == ", ".join(tag for _, tag in tags)
    if not tag_parameters and data.algorithm == "sha256":  # a tag alone is pushed by sha256
        for tag, name in data.tags.items():
            media_type, document = data.manifests[name]
            assert_put(client("PUT", manifest(tag), document, Content_Type=media_type), name, document)
    return data


def assert_put(done: Answer, name: str, document: bytes) -> None:
    """A manifest was taken."""
    assert (done.status, done.header["docker-content-digest"]) == (201, name), done
    assert done.header["location"] == manifest(name).replace("%3A", ":")
    subject = json.loads(document).get("subject")
    assert done.header.get("oci-subject") == (None if subject is None else subject["digest"])


def tags_of(data: Dataset, case: str) -> dict[str, str]:
    """The tags that were pushed."""
    return data.tags if CASES[case][3] or data.algorithm == "sha256" else {}


def test_data(client: Client, store: Store, case: str, pushed: Dataset) -> None:
    """What the suite calls push, tag-list, head, pull, referrers and delete, one after the other."""
    tags = tags_of(pushed, case)
    assert_listed(client, sorted(tags))
    assert_images(store, pushed.images if tags else 0)
    for ref, name in [*zip(pushed.manifests, pushed.manifests, strict=True), *tags.items()]:
        assert_manifest(client, ref, name, *pushed.manifests[name])
    for name, content in pushed.blobs.items():
        assert_pullable(client, name, content)
    for subject, expected in pushed.referrers.items():
        assert_referrers(client, subject, expected)
    assert_all_deletable(client, pushed, tags)
    assert store.images() == []
    assert store.check(content=True) == []


def assert_listed(client: Client, tags: list[str]) -> None:
    """The tags are listed, from each of them on."""
    assert client("GET", f"/v2/{REPOSITORY}/tags/list").json == {"name": REPOSITORY, "tags": tags}
    for last in tags:
        rest = client("GET", f"/v2/{REPOSITORY}/tags/list", query={"last": last}).json["tags"]
        assert rest == [tag for tag in tags if tag > last]


def assert_images(store: Store, count: int) -> None:
    """So many images were made, and have the files that were pushed."""
    made = [image for image in store.images() if image.tags]
    assert len(made) == count
    for image in made:
        with image.mount() as root:
            assert sorted(path.name for path in root.iterdir()) == [f"file{n}" for n in range(len(image.layers))]


def assert_manifest(client: Client, ref: str, name: str, media_type: str, document: bytes) -> None:
    """A manifest can be had, and its head says what it is."""
    head, found = (client(method, manifest(ref), Accept=f"{INDEX}, {MANIFEST}") for method in ("HEAD", "GET"))
    assert (head.status, found.status, head.body, found.body) == (200, 200, b"", document)
    for answer in (head, found):
        assert answer.header["content-type"] == media_type
        assert answer.header["content-length"] == str(len(document))
        assert answer.header["docker-content-digest"] == name


def assert_referrers(client: Client, subject: str, expected: list[dict[str, Any]]) -> None:
    """What is about a manifest is listed, all of it and by its kind."""
    found = client("GET", f"/v2/{REPOSITORY}/referrers/{subject}")
    assert (found.status, found.header["content-type"]) == (200, INDEX)
    assert "oci-filters-applied" not in found.header
    assert sorted(found.json["manifests"], key=str) == sorted(expected, key=str)
    for kind in {descriptor.get("artifactType") for descriptor in expected} - {None}:
        some = client("GET", f"/v2/{REPOSITORY}/referrers/{subject}", query={"artifactType": str(kind)})
        assert some.header["oci-filters-applied"] == "artifactType"
        wanted = [descriptor for descriptor in expected if descriptor.get("artifactType") == kind]
        assert sorted(some.json["manifests"], key=str) == sorted(wanted, key=str)


def assert_all_deletable(client: Client, pushed: Dataset, tags: dict[str, str]) -> None:
    """Tags can be deleted, then manifests, then blobs: each at once, and no other with it."""
    for tag in tags:
        assert client("DELETE", manifest(tag)).status == 202
        assert client("HEAD", manifest(tag)).status == 404
    for name in reversed(pushed.manifests):
        assert client("HEAD", manifest(name)).status == 200
        assert client("DELETE", manifest(name)).status == 202
        assert client("HEAD", manifest(name)).status == 404
        assert client("DELETE", manifest(name)).status == 404
    for name in pushed.blobs:
        assert_deletable(client, name)
    assert client("GET", f"/v2/{REPOSITORY}/tags/list").status == 404


# --- errors of manifests ---


@pytest.mark.parametrize("ref", [digest(b"never pushed"), digest(b"never pushed", "sha512"), "missing-tag"])
def test_missing_manifest(client: Client, ref: str) -> None:
    for method in ("GET", "DELETE"):
        found = client(method, manifest(ref))
        assert (found.status, found.code) == (404, "MANIFEST_UNKNOWN")


def test_invalid_digest_format(client: Client) -> None:
    data = datasets.make("no-layers")
    for content in data.blobs.values():
        client.put_blob(REPOSITORY, content)
    [(media_type, document)] = data.manifests.values()
    refused = client("PUT", manifest("sha256:baddigeststring"), document, Content_Type=media_type)
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert client("GET", manifest("sha256:baddigeststring")).status == 400


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_bad_digest_image(client: Client, algorithm: str) -> None:
    data = datasets.make("no-layers", algorithm=algorithm)
    for content in data.blobs.values():
        client.put_blob(REPOSITORY, content, algorithm)
    [(name, (media_type, document))] = data.manifests.items()
    refused = client("PUT", manifest(name), document + b"  ", Content_Type=media_type)
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert client("GET", manifest(name)).status == 404


def test_sparse(client: Client) -> None:
    """What needs something that is not there is refused, as the spec allows."""
    data = datasets.make("index")
    [first, *others] = data.blobs
    for name in others:
        client.put_blob(REPOSITORY, data.blobs[name])
    for name, (media_type, document) in data.manifests.items():
        done = client("PUT", manifest(name), document, Content_Type=media_type)
        if first in document.decode() or media_type == INDEX:
            assert (done.status, done.code) == (404, "MANIFEST_BLOB_UNKNOWN")
        else:
            assert done.status == 201
