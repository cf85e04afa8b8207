"""In which bytes images go out, and what is kept for that; what is refused, and what goes when nothing needs it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import layerstore
from layerstore import ConfigError
from layerstore.faces.serve import Registry
from layerstore.faces.serve.server import Server, Timing
from serve import datasets
from serve.client import MANIFEST, Client, digest
from support import images

if TYPE_CHECKING:
    from layerstore import Store

pytestmark = pytest.mark.root

TARS = [
    images.layer(images.file("a", os.urandom(700_000).hex())),
    images.layer(images.file("b", "y")),
]
CONFIG = images.config(TARS)


@pytest.fixture
def open_store(backing: Callable[[str], Path]) -> Iterator[Callable[..., Store]]:
    """`open_store(keep_blobs=True)`: one more store."""
    opened: list[Store] = []

    def make(**settings: object) -> Store:
        root = backing("ext4")
        config = layerstore.Config(
            data_root=root / "root", exec_root=root / "exec", storage_driver="overlay2", **settings
        )
        opened.append(layerstore.open(config=config))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def manifest(client: Client, ref: str, name: str = "team/app") -> dict[str, object]:
    """A manifest, all blobs of which can be had to the byte."""
    found = client("GET", f"/v2/{name}/manifests/{ref}", Accept=MANIFEST)
    assert found.status == 200, found
    for part in (found.json["config"], *found.json["layers"]):
        blob = client("GET", f"/v2/{name}/blobs/{part['digest']}")
        assert (blob.status, digest(blob.body), len(blob.body)) == (200, part["digest"], part["size"])
    assert client("HEAD", f"/v2/{name}/manifests/{digest(found.body)}").status == 200
    fields: dict[str, object] = found.json
    return fields


@pytest.mark.parametrize("keep_blobs", [False, True])
def test_what_was_pulled_goes_out_by_the_bytes_that_it_had(
    store: Store,
    serve: Callable[..., Server],
    open_store: Callable[..., Store],
    tmp_path: Path,
    keep_blobs: bool,  # noqa: FBT001
) -> None:
    origin = serve(compression="gzip")
    store.load(images.docker_archive(tmp_path / "in.tar", TARS, ["team/app:1"], image_config=CONFIG))
    mirror = open_store(keep_blobs=keep_blobs)
    pulled = mirror.pull(f"127.0.0.1:{origin.port}/team/app:1")
    mirror.tag(pulled.id, "team/app:1")
    with Client(f"127.0.0.1:{origin.port}") as upstream, Client(f"127.0.0.1:{serve(of=mirror).port}") as client:
        expected = manifest(upstream, "1")
        assert [layer["mediaType"] for layer in expected["layers"]] == [f"{datasets.LAYER}+gzip"] * 2  # type: ignore[attr-defined]
        assert manifest(client, "1") == expected
        assert manifest(client, pulled.digest) == expected


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_images_go_out_compressed_if_that_is_wanted(
    store: Store, serve: Callable[..., Server], open_store: Callable[..., Store], tmp_path: Path, compression: str
) -> None:
    suffix = "" if compression == "none" else f"+{compression}"
    store.load(images.docker_archive(tmp_path / "in.tar", TARS, ["team/app:1"], image_config=CONFIG))
    with Client(f"127.0.0.1:{serve(compression=compression).port}") as client:
        fields = manifest(client, "1")
        assert manifest(client, "1") == fields
    assert [layer["mediaType"] for layer in fields["layers"]] == [f"{datasets.LAYER}{suffix}"] * 2  # type: ignore[attr-defined]
    assert store.blobs.remains().kept == 0, "nothing is kept but how it is made"
    other = open_store()
    other.load(images.docker_archive(tmp_path / "in.tar", TARS, ["team/app:1"], image_config=CONFIG))
    with Client(f"127.0.0.1:{serve(of=other, compression=compression).port}") as client:
        assert manifest(client, "1") == fields, "the same image has the same manifest"


def test_an_unknown_compression_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="xz"):
        Registry(store, compression="xz")


def test_what_nothing_refers_to_goes(store: Store, client: Client) -> None:
    """A day after it came; here at once."""
    data = datasets.make("artifacts-with-subject")
    for content in (*data.blobs.values(), lonely := os.urandom(100)):
        client.put_blob("app", content)
    for name, (media_type, document) in data.manifests.items():
        assert client.put_manifest("app", name, document, media_type).status == 201
    untagged = datasets.make("no-layers")
    for content in untagged.blobs.values():
        client.put_blob("app", content)
    [(stray, (media_type, document))] = untagged.manifests.items()
    client.put_manifest("app", stray, document, media_type)
    subject = data.tags["image"]
    client.put_manifest("app", "image", data.manifests[subject][1])

    store.prune()
    assert client("HEAD", f"/v2/app/manifests/{stray}").status == 200, "somebody may be pushing still"
    store.repositories.prune(age=0)
    assert client("HEAD", f"/v2/app/manifests/{stray}").status == 404
    assert client("HEAD", f"/v2/app/blobs/{digest(lonely)}").status == 404
    for name in data.manifests:
        assert client("HEAD", f"/v2/app/manifests/{name}").status == 200, "it has a tag, or is about what has one"
    for content in data.blobs.values():
        assert client("HEAD", f"/v2/app/blobs/{digest(content)}").status == 200
    store.remove_image("app:image")
    store.repositories.prune(age=0)
    assert client("GET", "/v2/app/tags/list").status == 404
    assert store.blobs.holds() == {}


def test_a_repository_of_very_many_tags_is_listed_and_emptied(store: Store, client: Client, tmp_path: Path) -> None:
    names = [f"team/app:{number:05}" for number in range(10_000)]
    archive = images.docker_archive(tmp_path / "image.tar", TARS[1:], names)
    [image] = store.load(archive)
    pushed = client("GET", "/v2/team/app/manifests/00000", Accept=MANIFEST)
    for tag in ("00000", "new"):
        assert client.put_manifest("team/app", tag, pushed.body).status == 201
    found: list[str] = []
    began, page = time.process_time(), client("GET", "/v2/team/app/tags/list?n=50")
    while True:
        found += page.json["tags"]
        if "link" not in page.header:
            break
        page = client("GET", page.header["link"].partition("<")[2].partition(">")[0])
    assert time.process_time() - began < 3
    assert found == [*(name.partition(":")[2] for name in names), "new"]
    assert client("GET", "/v2/team/app/tags/list?n=3&last=09998").json["tags"] == ["09999", "new"]

    began = time.process_time()
    store.save(image, tmp_path / "saved.tar")
    assert time.process_time() - began < 3

    store.tag("team/app:new", "kept:1")
    began = time.process_time()
    assert client("DELETE", f"/v2/team/app/manifests/{digest(pushed.body)}").status == 202
    assert time.process_time() - began < 3
    assert client("GET", "/v2/team/app/tags/list").status in (200, 404)
    assert store.image("kept:1").tags == ("kept:1",)


def test_an_image_that_is_removed_is_served_no_more(store: Store, client: Client) -> None:
    data = datasets.make("image-uncompressed")
    for content in data.blobs.values():
        client.put_blob("app", content)
    [(name, (media_type, document))] = data.manifests.items()
    client.put_manifest("app", "1", document, media_type)
    store.remove_image("app:1")
    assert client("GET", "/v2/app/manifests/1").code == "MANIFEST_UNKNOWN"
    found = client("GET", f"/v2/app/manifests/{name}")
    assert found.status in (200, 404)
    if found.status == 200:  # then it is whole
        manifest(client, name, "app")


def test_a_store_that_cannot_be_written_to_is_served(
    open_store: Callable[..., Store], serve: Callable[..., Server], tmp_path: Path
) -> None:
    store = open_store()
    store.load(images.docker_archive(tmp_path / "in.tar", TARS, ["team/app:1"], image_config=CONFIG))
    config = store.config
    store.close()
    root = config.data_root
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        with (
            layerstore.open(config=config) as frozen,
            Server("127.0.0.1", 0, Registry(frozen, compression="gzip"), timing=Timing(tick=0.02), threads=2) as server,
            Client(f"127.0.0.1:{server.port}") as client,
        ):
            fields = manifest(client, "1")
            assert fields["config"]["digest"] == digest(CONFIG)  # type: ignore[index]
            assert client("GET", "/v2/_catalog").json == {"repositories": ["team/app"]}
            for method, path in (
                ("POST", "/v2/a/blobs/uploads/"),
                ("DELETE", "/v2/team/app/manifests/1"),
                ("PUT", "/v2/a/manifests/1"),
            ):
                body = client("GET", "/v2/team/app/manifests/1").body if method == "PUT" else None
                refused = client(method, path, body)
                assert (refused.status, refused.code) == (405, "UNSUPPORTED"), (method, refused)
    finally:
        subprocess.run(["umount", root], check=True)


def test_a_full_disk_is_told_and_leaves_nothing(own_filesystem: Callable[..., Path]) -> None:
    root = own_filesystem("ext4", size=48 << 20)
    config = layerstore.Config(data_root=root / "root", exec_root=root / "exec", storage_driver="overlay2")
    with (
        layerstore.open(config=config) as store,
        Server("127.0.0.1", 0, Registry(store), timing=Timing(tick=0.02), threads=2) as server,
        Client(f"127.0.0.1:{server.port}") as client,
    ):
        data = os.urandom(1 << 20) * 60
        begun = client("POST", "/v2/app/blobs/uploads/").header["location"]
        refused = client("PATCH", begun, data)
        assert refused.status == 507
        assert "space" in refused.json["errors"][0]["message"]
        (came,) = (root / "root" / "partial").iterdir()
        with came.open("rb"):  # as the thread that puts it on the disk has it, until that is done
            assert client("DELETE", begun).status == 204
            assert store.check(content=True) == []
            name = client.put_blob("app", data[: 1 << 20])
        assert client("GET", f"/v2/app/blobs/{name}").body == data[: 1 << 20]


def test_a_layer_that_lies_about_itself_makes_no_image(store: Store, client: Client) -> None:
    """It claims to be one that the store has: what it really holds is found out, and it is never taken for that."""
    real = images.layer(images.file("real", "x"))
    store.load(images.docker_archive(store.data_root.with_name("in.tar"), [real], ["real:1"]))
    config, fake = images.config([real]), images.layer(images.file("fake", "x"))
    for content in (config, fake):
        client.put_blob("app", content)
    fields = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": datasets.CONFIG, "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": datasets.LAYER, "digest": digest(fake), "size": len(fake)}],
    }
    done = client.put_manifest("app", "1", fields)
    assert done.status == 201
    assert "is no image of the store" in done.header["warning"]
    assert done.header["warning"].startswith('299 - "')
    assert [image.tags for image in store.images()] == [("real:1",)]
    assert not store.blobs.known([digest(fake)])  # type: ignore[list-item]
    assert client("GET", "/v2/app/manifests/1").json == fields
    assert client("GET", "/v2/app/tags/list").json["tags"] == ["1"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda fields: fields["layers"][0].update(size=1), "MANIFEST_INVALID"),
        (lambda fields: fields["layers"][0].update(size=-1), "MANIFEST_INVALID"),
        (lambda fields: fields["layers"][0].update(digest="md5:x"), "MANIFEST_INVALID"),
        (lambda fields: fields.update(config=None), "MANIFEST_INVALID"),
        (lambda fields: fields.update(layers="x"), "MANIFEST_INVALID"),
        (lambda fields: fields.update(manifests=[]), "MANIFEST_INVALID"),
        (lambda fields: fields.update(mediaType="text/plain"), "MANIFEST_INVALID"),
        (lambda fields: fields.update(schemaVersion=1), None),
        (lambda fields: fields.update(subject="x"), "MANIFEST_INVALID"),
        (lambda fields: fields.update(layers=fields["layers"] * 10_001), "MANIFEST_INVALID"),
        (lambda fields: fields["config"].update(digest=digest(b"gone")), "MANIFEST_BLOB_UNKNOWN"),
    ],
)
def test_malformed_manifests_are_refused(
    client: Client, store: Store, change: Callable[[dict[str, object]], object], code: str | None
) -> None:
    data = datasets.make("image")
    for content in data.blobs.values():
        client.put_blob("app", content)
    [(_, document)] = data.manifests.values()
    fields = json.loads(document)
    change(fields)
    refused = client.put_manifest("app", "1", fields)
    assert refused.code == code
    if code is not None:
        assert refused.status == (404 if code == "MANIFEST_BLOB_UNKNOWN" else 400)
        assert client("GET", "/v2/app/manifests/1").status == 404
        assert store.images() == []


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b'{"a":' * 5000, b"{}"])
def test_what_is_no_manifest_is_refused(client: Client, body: bytes) -> None:
    for media_type in (MANIFEST, "", "application/octet-stream", "text/html"):
        refused = client("PUT", "/v2/app/manifests/1", body, Content_Type=media_type)
        assert (refused.status, refused.code) == (400, "MANIFEST_INVALID")
    schema1 = client("PUT", "/v2/app/manifests/1", b'{"schemaVersion": 1, "fsLayers": []}')
    assert (schema1.status, schema1.code) == (400, "MANIFEST_INVALID")


def test_an_image_in_use_is_served_no_more_and_stays(store: Store, client: Client) -> None:
    data = datasets.make("image")
    for content in data.blobs.values():
        client.put_blob("app", content)
    [(name, (media_type, document))] = data.manifests.items()
    client.put_manifest("app", "1", document, media_type)
    box = store.create_container("app:1", name="box")
    store.tag("app:1", "other:1")
    assert client("DELETE", f"/v2/app/manifests/{name}").status == 202
    assert client("GET", f"/v2/app/manifests/{name}").status == 404
    assert client("GET", "/v2/other/manifests/1").status == 200
    assert client("DELETE", "/v2/other/manifests/1").status == 202
    [image] = store.images()
    assert (image.tags, image.digests) == ((), ())
    with box.mount() as root:
        assert (root / "file0").exists()
    box.remove()
    store.prune()
    assert store.images() == []
