"""What is made of an archive's documents, before a byte of a layer is read."""

from __future__ import annotations

from typing import Any

import pytest

from layerstore.errors import DigestMismatch, InvalidArchive, UnsupportedMediaType
from layerstore.platforms import make, parse
from layerstore.transfer import docker_archive, oci
from layerstore.transfer.loading import describe
from support import images

from .archives import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Held, Layout, encoded, manifest, platform

ONE = images.layer(images.file("one", "1"))
TWO = images.layer(images.file("two", "2"))
HOST = platform("amd64")


@pytest.fixture(autouse=True)
def on_amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of these tests."""
    monkeypatch.setattr("layerstore.platforms.host", lambda: make("linux", "amd64"))


def names(layout: Layout, wanted: str | None = None) -> list[tuple[str, ...]]:
    """The names of the images that are chosen."""
    return [image.names for image in describe(Held(layout.files), None if wanted is None else parse(wanted))]


def config_for(architecture: str, variant: str = "", layers: tuple[bytes, ...] = (ONE,)) -> bytes:
    return images.config(layers, architecture=architecture, variant=variant)


# --- names ---


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, ()),
        ({oci.REF_NAME: "latest"}, ()),
        ({oci.REF_NAME: "debian:12"}, ("docker.io/library/debian:12",)),
        ({oci.REF_NAME: "docker.io/library/debian"}, ("docker.io/library/debian:latest",)),
        ({oci.REF_NAME: "12", oci.IMAGE_NAME: "host:5000/a/b:12"}, ("host:5000/a/b:12",)),
        ({oci.REF_NAME: "Not/A/Name"}, ()),
        ({oci.REF_NAME: "a/b@sha256:" + "0" * 64}, ()),
        ({oci.IMAGE_NAME: "!:!", oci.REF_NAME: "debian:12"}, ("docker.io/library/debian:12",)),
    ],
)
def test_names_are_whole_or_none(annotations: dict[str, str], expected: tuple[str, ...]) -> None:
    assert oci.names_of(annotations) == expected


def test_one_image_has_all_its_names() -> None:
    layout = Layout()
    layout.add(layout.image([ONE]), "a/b:1", "latest", "a/b:2")
    [image] = describe(Held(layout.files), None)
    assert image.names == ("docker.io/a/b:1", "docker.io/a/b:2")
    assert [blob.diff_id for blob in image.layers] == [images.digest(ONE)]


def test_images_of_different_names_are_all_there() -> None:
    layout = Layout()
    layout.add(layout.image([ONE]), "a/a:1")
    layout.add(layout.image([ONE, TWO]), "a/b:1")
    layout.add(layout.image([TWO]))
    assert names(layout) == [("docker.io/a/a:1",), ("docker.io/a/b:1",), ()]


# --- platforms ---


def several(**more: Any) -> tuple[Layout, list[dict[str, Any]]]:
    layout = Layout()
    entries = [
        layout.image([ONE], config_for("arm64"), platform=platform("arm64", "v8"), **more),
        layout.image([ONE], config_for("amd64"), platform=HOST, **more),
        layout.image([ONE], config_for("arm", "v6"), platform=platform("arm", "v6"), **more),
    ]
    return layout, entries


def architectures(layout: Layout, wanted: str | None = None) -> list[str]:
    from layerstore.transfer.incoming import platform_of

    chosen = describe(Held(layout.files), None if wanted is None else parse(wanted))
    return [str(platform_of(image.config, "config")) for image in chosen]


def test_a_nested_index_gives_the_image_for_the_host_or_the_one_asked_for() -> None:
    layout, entries = several()
    layout.add(layout.index(entries), "a/b:1")
    assert architectures(layout) == ["linux/amd64"]
    assert architectures(layout, "linux/arm64") == ["linux/arm64"]
    assert architectures(layout, "linux/arm/v7") == ["linux/arm/v6"]
    with pytest.raises(InvalidArchive, match=r"docker\.io/a/b:1 has no image for linux/s390x") as caught:
        architectures(layout, "linux/s390x")
    assert caught.value.remedy is not None
    assert "linux/amd64, linux/arm/v6, linux/arm64" in caught.value.remedy


def test_platforms_side_by_side_in_index_json_are_one_image() -> None:
    layout, entries = several()
    for entry in entries:
        layout.add(entry, "a/b:1")
    assert architectures(layout) == ["linux/amd64"]
    layout.entries = entries
    assert architectures(layout, "linux/arm64") == ["linux/arm64"]


def test_without_a_platform_in_the_descriptor_the_config_tells() -> None:
    layout = Layout()
    entries = [layout.image([ONE], config_for(name)) for name in ("arm64", "amd64")]
    layout.add(layout.index(entries), "a/b:1")
    assert architectures(layout) == ["linux/amd64"]


def test_a_single_image_is_taken_whatever_it_is_for() -> None:
    layout = Layout()
    layout.add(layout.index([layout.image([ONE], config_for("s390x"), platform=platform("s390x"))]), "a/b:1")
    assert architectures(layout) == ["linux/s390x"]
    with pytest.raises(InvalidArchive, match="no image for linux/amd64"):
        architectures(layout, "linux/amd64")


def test_platforms_that_are_listed_but_not_there_do_not_count() -> None:
    layout, entries = several()
    layout.add(layout.index(entries), "a/b:1")
    del layout.blobs["blobs/sha256/" + entries[1]["digest"][7:]]
    del layout.blobs["blobs/sha256/" + entries[2]["digest"][7:]]
    assert architectures(layout) == ["linux/arm64"]


def test_attestations_are_passed_over() -> None:
    layout = Layout()
    attestation = layout.manifest(
        layout.put(b"{}", OCI_CONFIG), [layout.put(b"{}", "application/vnd.in-toto+json")], platform=platform("unknown")
    )
    image = layout.image([ONE], platform=HOST)
    layout.add(layout.index([image, attestation | {"platform": {"os": "unknown", "architecture": "unknown"}}]), "a/b:1")
    assert architectures(layout) == ["linux/amd64"]


# --- artifacts and media types ---


def test_artifacts_beside_images_are_passed_over() -> None:
    layout = Layout()
    layout.add(layout.manifest(layout.put(b"{}", "application/vnd.cncf.helm.config.v1+json"), []), "chart")
    layout.add(layout.manifest(layout.put(images.config([]), OCI_CONFIG), [layout.put(b"{}", "application/x")]), "sig")
    layout.add(layout.image([ONE]), "a/b:1")
    layout.add(layout.put(b"text", "text/plain"))
    assert names(layout) == [("docker.io/a/b:1",)]


def test_artifacts_alone_are_an_error() -> None:
    layout = Layout()
    layout.add(layout.manifest(layout.put(b"{}", "application/vnd.cncf.helm.config.v1+json"), []), "chart")
    with pytest.raises(UnsupportedMediaType, match=r"helm\.config"):
        names(layout)


@pytest.mark.parametrize("suffix", ["+encrypted", "+gzip+encrypted", "+lz4", "x"])
def test_layers_of_an_unknown_kind(suffix: str) -> None:
    layout = Layout()
    layer = layout.put(ONE, OCI_LAYER + suffix)
    layout.add(layout.manifest(layout.put(images.config([ONE]), OCI_CONFIG), [layer]), "a/b:1")
    with pytest.raises(UnsupportedMediaType) as caught:
        names(layout)
    assert caught.value.layer == images.digest(ONE)
    assert OCI_LAYER + suffix in caught.value.message


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    ],
)
def test_layers_of_every_known_kind(media_type: str) -> None:
    layout = Layout()
    config = layout.put(images.config([ONE]), "application/vnd.docker.container.image.v1+json")
    fields = {"schemaVersion": 2, "config": config, "layers": [layout.put(ONE, media_type)]}
    layout.add(layout.put(encoded(fields), "application/vnd.docker.distribution.manifest.v2+json"), "a/b:1")
    assert names(layout) == [("docker.io/a/b:1",)]


# --- lies ---


def test_wrong_digests_of_documents() -> None:
    layout = Layout()
    layout.add(layout.image([ONE]), "a/b:1")
    for name in [name for name, data in layout.blobs.items() if data != ONE]:
        files = layout.files
        files[name] = files[name].replace(b"2", b"3", 1)
        with pytest.raises(DigestMismatch) as caught:
            describe(Held(files), None)
        assert caught.value.expected == "sha256:" + name.rpartition("/")[2]


def test_wrong_sizes() -> None:
    for kind in ("manifest", "config", "layer"):
        layout = Layout()
        config, layer = layout.put(images.config([ONE]), OCI_CONFIG), layout.put(ONE, OCI_LAYER)
        if kind in ("config", "layer"):
            (config if kind == "config" else layer)["size"] += 1
        descriptor = layout.manifest(config, [layer])
        if kind == "manifest":
            descriptor["size"] -= 1
        layout.add(descriptor, "a/b:1")
        with pytest.raises(InvalidArchive, match=r"has \d+ bytes, not \d+ as announced"):
            names(layout)


def test_missing_members() -> None:
    layout = Layout()
    layout.add(layout.image([ONE]), "a/b:1")
    for name in layout.blobs:
        files = layout.files
        del files[name]
        with pytest.raises(InvalidArchive, match="is not in the archive"):
            describe(Held(files), None)


def test_a_manifest_that_is_an_index_as_well() -> None:
    layout = Layout()
    config, layer = layout.put(images.config([ONE]), OCI_CONFIG), layout.put(ONE, OCI_LAYER)
    both = {"schemaVersion": 2, "config": config, "layers": [layer], "manifests": []}
    for media_type in (OCI_MANIFEST, OCI_INDEX):
        layout.entries = [layout.put(encoded(both), media_type)]
        with pytest.raises(InvalidArchive, match="index and a manifest at once"):
            names(layout)
    layout.entries = [layout.put(encoded(both | {"mediaType": OCI_INDEX}), OCI_MANIFEST)]
    with pytest.raises(InvalidArchive, match="is announced as"):
        names(layout)


def test_indexes_within_indexes_have_an_end() -> None:
    layout = Layout()
    entry = layout.image([ONE])
    for _ in range(6):
        entry = layout.index([entry, entry])
    layout.add(entry, "a/b:1")
    assert names(layout) == [("docker.io/a/b:1",)]
    for _ in range(6):
        entry = layout.index([entry])
    layout.entries = [entry]
    with pytest.raises(InvalidArchive, match="nested more than"):
        names(layout)


def test_more_manifests_than_anybody_has() -> None:
    layout = Layout()
    layout.entries = [
        {"mediaType": OCI_MANIFEST, "digest": f"sha256:{number:064x}", "size": 1} for number in range(10_001)
    ]
    with pytest.raises(InvalidArchive, match="more than 10000 manifests"):
        names(layout)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"[" * 100_000, "too deeply"),
        (b'{"a":' * 100_000, "too deeply"),
        (b"", "no JSON"),
        (b"\xff\xfe{\0}\0", "no JSON"),
        (b"{" + b'"a":1,' * 10 + b"}", "no JSON"),
        (b'{"manifests":1' + b"0" * 5000 + b"}", "no JSON"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"manifests":{}}', "no JSON array"),
        (b'{"manifests":[1]}', "no JSON object"),
        (b'{"manifests":[{}]}', "is no size"),
        (b'{"manifests":[{"size":true}]}', "is no size"),
        (b'{"manifests":[{"size":1e3}]}', "is no size"),
        (b'{"manifests":[{"size":-1}]}', "is no size"),
        (b'{"manifests":[{"size":1,"digest":"sha256:../../x"}]}', "not a sha256 digest"),
        (b'{"manifests":[{"size":1,"digest":"sha512:00"}]}', "not a sha256 digest"),
        (b'{"manifests":[{"size":1,"digest":7}]}', "not a sha256 digest"),
        (b'{"manifests":[{"size":1,"mediaType":7}]}', "no JSON string"),
        (b'{"manifests":[{"size":1,"mediaType":"a\\nb"}]}', "cannot be printed"),
        (b'{"manifests":[]}', "lists no image"),
        (b"{}", "lists no image"),
    ],
)
def test_an_index_that_cannot_be_read(document: bytes, words: str) -> None:
    with pytest.raises(InvalidArchive, match=words):
        describe(Held({"index.json": document}), None)


@pytest.mark.parametrize(
    "rootfs", [None, {}, {"type": "x"}, {"type": "layers", "diff_ids": ["sha256:1"]}, {"type": "layers"}]
)
def test_a_config_that_cannot_be_read(rootfs: Any) -> None:
    layout = Layout()
    layout.add(layout.image([ONE], images.config([ONE], rootfs=rootfs)), "a/b:1")
    with pytest.raises(InvalidArchive):
        names(layout)


def test_another_layout_version() -> None:
    layout = Layout()
    layout.add(layout.image([ONE]), "a/b:1")
    with pytest.raises(InvalidArchive, match="version"):
        describe(Held(layout.files | {"oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}), None)
    assert describe(Held(layout.files | {"oci-layout": b'{"imageLayoutVersion":"1.1.0"}'}), None)


def test_a_document_that_claims_to_be_huge() -> None:
    layout = Layout()
    layout.add(layout.image([ONE]) | {"size": 1 << 40}, "a/b:1")
    with pytest.raises(InvalidArchive, match="max-manifest-size"):
        names(layout)


# --- with manifest.json beside it ---


def both(layout: Layout, *listed: tuple[list[bytes], list[str]]) -> Held:
    """A layout, and manifest.json as docker writes it."""
    items = [
        {
            "Config": "blobs/sha256/" + images.digest(images.config(layers))[7:],
            "RepoTags": tags,
            "Layers": ["blobs/sha256/" + images.digest(layer)[7:] for layer in layers],
        }
        for layers, tags in listed
    ]
    return Held(layout.files | {"manifest.json": encoded(items)})


def test_names_of_both_count() -> None:
    layout = Layout()
    layout.add(layout.image([ONE]), "a/b:1")
    [image] = describe(both(layout, ([ONE], ["a/b:1", "a/b:2"])), None)
    assert image.names == ("docker.io/a/b:1", "docker.io/a/b:2")


def test_an_image_that_dockers_index_forgot_is_there() -> None:
    layout = Layout()
    layout.add(layout.image([ONE]), "a/b:1")
    layout.image([TWO])
    found = describe(both(layout, ([ONE], ["a/b:1"]), ([TWO], [])), None)
    assert [image.names for image in found] == [("docker.io/a/b:1",), ()]


def test_layers_that_dockers_index_has_in_the_wrong_order_are_right() -> None:
    layout = Layout()
    config = layout.put(images.config([ONE, TWO]), OCI_CONFIG)
    layout.add(layout.manifest(config, [layout.put(TWO, OCI_LAYER), layout.put(ONE, OCI_LAYER)]), "a/b:1")
    [image] = describe(both(layout, ([ONE, TWO], ["a/b:1"])), None)
    assert [blob.digest for blob in image.layers] == [images.digest(ONE), images.digest(TWO)]


def test_an_index_that_is_broken_does_not_matter_beside_manifest_json() -> None:
    layout = Layout()
    layout.image([ONE])
    layout.entries = [{"size": "?"}]
    assert [image.names for image in describe(both(layout, ([ONE], ["a/b:1"])), None)] == [("docker.io/a/b:1",)]


def test_the_platform_counts_although_manifest_json_lists_another() -> None:
    layout, entries = several()
    layout.add(layout.index(entries), "a/b:1")
    arm = images.digest(config_for("arm64"))[7:]
    listed = encoded(
        [{"Config": f"blobs/sha256/{arm}", "RepoTags": ["a/b:1"], "Layers": ["blobs/sha256/" + images.digest(ONE)[7:]]}]
    )
    [image] = describe(Held(layout.files | {"manifest.json": listed}), None)
    assert image.id == images.digest(config_for("amd64"))


# --- manifest.json alone ---


def docker(members: dict[str, bytes]) -> list[tuple[str, ...]]:
    return [image.names for image in describe(Held(members), None)]


CONFIG = images.config([ONE])


@pytest.mark.parametrize("name", ["{}.json", "blobs/sha256/{}", "sha256:{}", "config.json"])
def test_configs_go_by_many_names(name: str) -> None:
    name = name.format(images.digest(CONFIG)[7:])
    assert docker({"manifest.json": manifest(name, ["l.tar"]), name: CONFIG, "l.tar": ONE}) == [
        ("docker.io/library/test:latest",)
    ]


@pytest.mark.parametrize("name", ["{}.json", "blobs/sha256/{}", "sha256:{}"])
def test_a_config_that_is_not_what_its_name_says(name: str) -> None:
    name = name.format("0" * 64)
    with pytest.raises(DigestMismatch):
        docker({"manifest.json": manifest(name, ["l.tar"]), name: CONFIG, "l.tar": ONE})


def test_old_dockers_word_for_no_name() -> None:
    members = {"manifest.json": manifest("c", ["l.tar"], ["<none>:<none>"]), "c": CONFIG, "l.tar": ONE}
    assert docker(members) == [()]
    assert docker(members | {"manifest.json": manifest("c", ["l.tar"], None)}) == [()]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"manifest.json": b"{}"}, "no JSON array"),
        ({"manifest.json": b"[]"}, "lists no image"),
        ({"manifest.json": b"[1]"}, "no JSON object"),
        ({"manifest.json": b"[{}]"}, "Config is no JSON string"),
        ({"manifest.json": manifest("c", ["l"])}, "config 'c' is not in the archive"),
        ({"manifest.json": manifest("c", ["l"]), "c": CONFIG}, r"\(l\) is not in the archive"),
        ({"manifest.json": manifest("c", []), "c": CONFIG}, "lists 0 layers, but its config has 1"),
        ({"manifest.json": manifest("c", ["l"] * 2), "c": CONFIG, "l": ONE}, "lists 2 layers"),
        ({"manifest.json": manifest("c", ["l"], ["UPPER"]), "c": CONFIG, "l": ONE}, "invalid image name"),
        ({"manifest.json": encoded([{"Config": "c", "Layers": "l"}]), "c": CONFIG}, "no JSON array"),
        ({"manifest.json": encoded([{"Config": "c", "Layers": [7]}]), "c": CONFIG}, "no JSON string"),
        ({"repositories": b"{}"}, "docker 1.9"),
        ({"etc/passwd": b""}, "no archive of images"),
        ({}, "no archive of images"),
    ],
)
def test_a_docker_archive_that_cannot_be_read(members: dict[str, bytes], words: str) -> None:
    with pytest.raises(InvalidArchive, match=words):
        docker(members)


def test_a_platform_that_the_archive_is_not_for() -> None:
    members = {"manifest.json": manifest("c", ["l"]), "c": CONFIG, "l": ONE}
    assert describe(Held(members), parse("linux/amd64"))
    with pytest.raises(InvalidArchive, match="no image for linux/arm64"):
        describe(Held(members), parse("linux/arm64"))


def test_nothing_of_docker_is_nothing() -> None:
    assert docker_archive.describe(Held({})) == []
    assert oci.describe(Held({}), None) == oci.Layout()
