"""Images of the store, as clients see them: under which names, by which manifests, and what can be asked of these."""

from __future__ import annotations

import gzip
import json
from http.client import IncompleteRead
from typing import TYPE_CHECKING, Any

import pytest

from serve.client import INDEX, MANIFEST, Client, digest
from support import images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from layerstore import Image, Store

pytestmark = pytest.mark.root

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
TARS = [images.layer(images.file("a", "x" * 3000)), images.layer(images.file("b", "y"), images.whiteout("a"))]
CONFIG = images.config(TARS)


@pytest.fixture
def load(store: Store, tmp_path: Path) -> Callable[..., Image]:
    """`load("debian:12")`: the image of this module, under names."""

    def loaded(*names: str) -> Image:
        path = images.docker_archive(tmp_path / "in.tar", TARS, names, image_config=CONFIG)
        [image] = store.load(path)
        return image

    return loaded


def manifest_of(client: Client, name: str, ref: str, **headers: str) -> dict[str, Any]:
    """What a manifest says, which must be there."""
    found = client("GET", f"/v2/{name}/manifests/{ref}", **headers)
    assert found.status == 200, found
    assert found.header["docker-content-digest"] == digest(found.body)
    fields: dict[str, Any] = found.json
    assert fields["mediaType"] == found.header["content-type"]
    return fields


@pytest.mark.parametrize(
    ("tag", "names", "others"),
    [
        ("debian:12", ["debian", "library/debian", "docker.io/library/debian"], ["team/debian", "docker.io/debian/x"]),
        ("team/app:12", ["team/app", "docker.io/team/app"], ["app", "library/team/app"]),
        ("quay.io/x/y/z:12", ["quay.io/x/y/z"], ["x/y/z"]),
        ("localhost/app:12", ["localhost/app"], ["app"]),
    ],
)
def test_a_repository_is_called_as_images_are(
    load: Callable[..., Image], client: Client, tag: str, names: list[str], others: list[str]
) -> None:
    load(tag)
    found = [manifest_of(client, name, "12") for name in names]
    assert found == found[:1] * len(names)
    for name in names:
        assert client("GET", f"/v2/{name}/tags/list").json == {"name": name, "tags": ["12"]}
    for name in others:
        assert client("GET", f"/v2/{name}/manifests/12").code == "MANIFEST_UNKNOWN"
    assert client("GET", "/v2/_catalog").json == {"repositories": names[:1]}


def test_a_mirror_is_told_the_registry_beside_the_name(load: Callable[..., Image], client: Client) -> None:
    load("debian:12", "quay.io/team/app:1", "registry.example:5000/app:2")
    for name, ns, tag in (
        ("library/debian", "docker.io", "12"),
        ("team/app", "quay.io", "1"),
        ("app", "registry.example:5000", "2"),
    ):
        found = client("GET", f"/v2/{name}/manifests/{tag}", query={"ns": ns})
        assert (found.status, found.header["oci-namespace"]) == (200, ns)
        blob = client("GET", f"/v2/{name}/blobs/{digest(CONFIG)}", query={"ns": ns})
        assert blob.body == CONFIG
    assert client("GET", "/v2/team/app/manifests/1").status == 404
    assert client("GET", "/v2/_catalog").json == {"repositories": ["debian", "quay.io/team/app"]}
    begun = client("POST", "/v2/team/app/blobs/uploads/", query={"ns": "quay.io"})
    assert begun.header["location"].endswith("?ns=quay.io")
    for ns in ("-", "a/b", "a:99999999", "a b", "ä.example", "[zz]", "é\r\nx: y"):
        assert client("GET", "/v2/app/manifests/2", query={"ns": ns}).code == "NAME_INVALID"


def test_an_image_goes_out_with_the_tars_that_it_has(load: Callable[..., Image], client: Client) -> None:
    image = load("app:1")
    fields = manifest_of(client, "app", "1")
    assert fields["mediaType"] == MANIFEST
    assert (fields["config"]["digest"], fields["config"]["size"]) == (image.id, len(CONFIG))
    assert [layer["digest"] for layer in fields["layers"]] == list(image.layers)
    assert [layer["size"] for layer in fields["layers"]] == [len(tar) for tar in TARS]
    for descriptor, content in zip([fields["config"], *fields["layers"]], [CONFIG, *TARS], strict=True):
        path = f"/v2/app/blobs/{descriptor['digest']}"
        assert client("GET", path).body == content
        assert client("GET", path, Range="bytes=3-99").body == content[3:100]
        assert client("HEAD", path).header["content-length"] == str(len(content))
    again = client("GET", "/v2/app/manifests/1")
    assert client("GET", f"/v2/app/manifests/{digest(again.body)}").body == again.body


def test_a_client_gets_a_manifest_that_it_accepts(load: Callable[..., Image], client: Client) -> None:
    load("app:1")
    for accept, expected in (
        ("*/*", MANIFEST),
        ("application/*", MANIFEST),
        (f"{INDEX}, {MANIFEST};q=0.5", MANIFEST),
        (f"{DOCKER}, {INDEX}", DOCKER),
        (f"{MANIFEST};q=0, */*;q=0.1", DOCKER),
    ):
        assert manifest_of(client, "app", "1", Accept=accept)["mediaType"] == expected
    for accept in (INDEX, "text/html", f"{MANIFEST};q=0.0", ";;;,,", "*"):
        assert client("GET", "/v2/app/manifests/1", Accept=accept).code == "MANIFEST_UNKNOWN"
    docker = client("GET", "/v2/app/manifests/1", Accept=DOCKER)
    assert docker.json["layers"][0]["mediaType"] == "application/vnd.docker.image.rootfs.diff.tar"
    assert client("GET", f"/v2/app/manifests/{digest(docker.body)}").body == docker.body


def test_what_is_known_is_not_sent_again(load: Callable[..., Image], client: Client) -> None:
    load("app:1")
    first = client("GET", "/v2/app/manifests/1")
    for etag in (first.header["etag"], f'"x", W/{first.header["etag"]}'):
        again = client("GET", "/v2/app/manifests/1", If_None_Match=etag)
        assert (again.status, again.body) == (304, b"")
    assert client("GET", "/v2/app/manifests/1", If_None_Match='"other"').status == 200


def test_a_range_counts_if_the_blob_is_the_same(load: Callable[..., Image], client: Client) -> None:
    image = load("app:1")
    path = f"/v2/app/blobs/{image.id}"
    assert client("GET", path, Range="bytes=0-0", If_Range=f'"{image.id}"').status == 206
    assert client("GET", path, Range="bytes=0-0", If_Range='"other"').body == CONFIG
    for several in ("bytes=0-1,4-5", "lines=0-1", "bytes=", "bytes=-", "bytes=a-b", "bytes=1-2x", "0-1"):
        assert client("GET", path, Range=several).body == CONFIG
    assert client("GET", path, Range=f"bytes={10**18}-").status == 416
    assert client("GET", path, Range="bytes=-0").status == 416
    assert client("GET", path, Range=f"bytes=-{10**18}").body == CONFIG


def test_a_repository_has_its_own_blobs_only(load: Callable[..., Image], store: Store, client: Client) -> None:
    image = load("app:1")
    assert client("GET", f"/v2/other/blobs/{image.id}").code == "BLOB_UNKNOWN"
    store.tag("app:1", "other:1")
    assert client("GET", f"/v2/other/blobs/{image.id}").body == CONFIG
    store.remove_image("other:1")
    assert client("GET", f"/v2/other/blobs/{image.id}").code == "BLOB_UNKNOWN"
    refused = client("DELETE", f"/v2/app/blobs/{image.id}")
    assert (refused.status, refused.code) == (405, "UNSUPPORTED")


def test_the_store_has_the_last_word_on_a_tag(load: Callable[..., Image], store: Store, client: Client) -> None:
    """A tag that was pushed counts until somebody tags, loads or removes another image by that name."""
    packed = [gzip.compress(tar) for tar in TARS]
    layers = [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(data), "size": len(data)}
        for data in packed
    ]
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(CONFIG), "size": len(CONFIG)}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    for data in (CONFIG, *packed):
        client.put_blob("app", data)
    pushed = client.put_manifest("app", "1", document)
    name = pushed.header["docker-content-digest"]
    assert "warning" not in pushed.header
    [image] = store.images()
    assert (image.id, image.tags, image.digests) == (digest(CONFIG), ("app:1",), (f"app@{name}",))
    assert manifest_of(client, "app", "1") == document

    store.tag("app:1", "other/name:2")
    assert manifest_of(client, "other/name", "2") == document, "the image is the same, and so are its blobs"
    assert client("GET", f"/v2/other/name/blobs/{layers[0]['digest']}").body == packed[0]

    tar = images.layer(images.file("new", "z"))
    [other] = store.load(images.docker_archive(store.data_root.with_name("o.tar"), [tar], ["app:1"]))
    assert manifest_of(client, "app", "1")["config"]["digest"] == other.id
    assert client("GET", f"/v2/app/manifests/{name}").json == document, "by its digest it stays"
    store.tag("other/name:2", "app:1")
    assert manifest_of(client, "app", "1") == document

    store.remove_image("app:1")
    assert client("GET", "/v2/app/manifests/1").code == "MANIFEST_UNKNOWN"
    assert client("GET", "/v2/app/tags/list").json["tags"] == []


def test_lists_come_in_pages(load: Callable[..., Image], store: Store, client: Client) -> None:
    load("app:B", *(f"app:{tag}" for tag in ("a", "b", "10", "9", "_z")), "team/b:1", "team/a:1")
    tags = ["10", "9", "B", "_z", "a", "b"]
    path = "/v2/app/tags/list"
    assert client("GET", path).json["tags"] == tags
    found = client("GET", path, query={"n": "4"})
    assert (found.json["tags"], found.header["link"]) == (tags[:4], f'<{path}?n=4&last=_z>; rel="next"')
    rest = client("GET", found.header["link"][1:].partition(">")[0])
    assert rest.json["tags"] == tags[4:]
    assert "link" not in rest.header
    for query, expected in (
        ({"n": "0"}, []),
        ({"n": "6"}, tags),
        ({"n": "999999999"}, tags),
        ({"last": "B"}, tags[3:]),
        ({"last": "Aa", "n": "1"}, ["B"]),
        ({"last": "zzz"}, []),
        ({"last": ""}, tags),
    ):
        answer = client("GET", path, query=query)
        assert (answer.status, answer.json["tags"]) == (200, expected)
        assert ("link" in answer.header) == (query == {"last": "Aa", "n": "1"})
    for n in ("-1", "x", "", "1.5", "1" * 30, "٣"):
        assert client("GET", path, query={"n": n}).status == 400
    assert client("GET", "/v2/_catalog").json == {"repositories": ["app", "team/a", "team/b"]}
    found = client("GET", "/v2/_catalog", query={"n": "2"})
    assert found.json == {"repositories": ["app", "team/a"]}
    assert client("GET", found.header["link"][1:].partition(">")[0]).json == {"repositories": ["team/b"]}


def test_many_referrers_come_in_pages(client: Client) -> None:
    subject = {"mediaType": MANIFEST, "digest": digest(b"subject"), "size": 7}
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": client.put_blob("app", b"{}"), "size": 2}
    pushed = []
    for number in range(5):
        notes = {"number": str(number), "long": "x" * 900_000}
        fields = {"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [], "subject": subject}
        fields |= {"annotations": notes, "artifactType": "a/b" if number else "c/d"}
        pushed.append(client.put_manifest("app", digest(json.dumps(fields).encode()), fields).header)
    found, path, pages = [], f"/v2/app/referrers/{subject['digest']}?artifactType=a%2Fb", 0
    while path:
        page = client("GET", path)
        assert page.header["oci-filters-applied"] == "artifactType"
        assert len(page.body) < 4 << 20
        found += [descriptor["annotations"]["number"] for descriptor in page.json["manifests"]]
        path, pages = page.header.get("link", "<>")[1:].partition(">")[0], pages + 1
    assert (sorted(found), pages) == (["1", "2", "3", "4"], 2)


@pytest.mark.parametrize("size", [3000, 3_000_000])
def test_a_damaged_layer_is_not_given_out_whole(
    store: Store, tmp_path: Path, client: Client, capfd: pytest.CaptureFixture[str], size: int
) -> None:
    """What is found to be wrong at its end is an error, or breaks the connection: nobody takes it for the layer."""
    tar = images.layer(images.file("a", "x" * size))
    store.load(images.docker_archive(tmp_path / "in.tar", [tar], ["app:1"]))
    [kept] = [path for path in store.data_root.glob("overlay2/**/a") if path.is_file()]
    kept.write_text("x" * (size - 1) + "!")
    path = f"/v2/app/blobs/{digest(tar)}"
    if size < 1 << 20:
        assert client("GET", path).status == 500
    else:
        with pytest.raises(IncompleteRead):
            client("GET", path)
        client.close()
    told = capfd.readouterr().err
    assert told.startswith(f"layerstore: layer {digest(tar)}: /a: the file does not have its content any more")
    assert client("GET", "/v2/").status == 200


def test_an_index_keeps_the_manifests_that_were_made_for_it(
    load: Callable[..., Image], store: Store, client: Client
) -> None:
    """A client may make an index of manifests that it was given, which the store had not kept till then."""
    load("app:1")
    single = client("GET", "/v2/app/manifests/1")
    entry = {"mediaType": MANIFEST, "digest": digest(single.body), "size": len(single.body)}
    fields = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    assert client.put_manifest("app", "all", fields, INDEX).status == 201
    assert store.image("app:all").id == store.image("app:1").id
    store.remove_image("app:1")
    assert client("GET", "/v2/app/manifests/all").json == fields
    assert client("GET", f"/v2/app/manifests/{entry['digest']}").body == single.body
