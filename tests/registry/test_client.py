"""A repository as a client sees it, on docker-registry and on one that does what is allowed and rare."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import evolve

from layerstore import reference
from layerstore.digest import Digest
from layerstore.errors import DigestMismatch, LimitExceeded, NotFound, RegistryError, UnsupportedMediaType
from layerstore.manifests import Descriptor, Manifest, read
from layerstore.registry.client.repository import Repository, catalog
from layerstore.registry.client.uploads import Sent
from layerstore.registry.transport import hosts
from layerstore.registry.transport.http import Body, Http
from layerstore.registry.transport.settings import Settings
from support import images

from .reading import all_of, noise
from .servers import memory
from .servers.debian import DockerRegistry
from .servers.quirks import Quirk, Quirks, body, cut, headers, html, length, more, moved, reset, silence, status
from .servers.tokens import TokenService

LAYERS = [images.layer(images.file("a", "one")), images.layer(images.file("b", b"two" * 1000))]
BOTH = ("pull", "push")


def push_image(repository: Repository, ref: str = "1", **fields: Any) -> Manifest:
    """Push a small image; `fields` go into its manifest."""
    config = images.config(LAYERS)
    described = []
    for data, media_type in [(config, memory.CONFIG), *((tar, memory.LAYER) for tar in LAYERS)]:
        name = Digest(memory.digest(data))
        repository.upload(name, Body.of(data))
        described.append({"mediaType": media_type, "digest": name, "size": len(data)})
    content = {"schemaVersion": 2, "mediaType": memory.MANIFEST, "config": described[0], "layers": described[1:]}
    manifest = Manifest.of(memory.MANIFEST, json.dumps(content | fields).encode())
    repository.put_manifest(ref, manifest)
    return manifest


# --- a real registry ---


def test_an_image_goes_there_and_comes_back(
    docker_registry: DockerRegistry, opened: Callable[..., Repository], repository: str
) -> None:
    there = opened(docker_registry, repository, actions=BOTH)
    pushed = push_image(there)
    found = there.resolve("1")
    assert found is not None
    assert (found.digest, found.media_type, found.size) == (pushed.digest, memory.MANIFEST, pushed.size)
    assert there.manifest("1") == there.manifest(found.digest) == pushed
    contents = read(pushed)
    assert contents.config is not None
    assert there.small_blob(contents.config) == images.config(LAYERS)
    for layer, tar in zip(contents.layers, LAYERS, strict=True):
        assert there.has_blob(layer.digest) == len(tar)
        assert all_of(there.blob(layer.digest, layer.size)) == tar
        assert all_of(there.blob(layer.digest, layer.size, start=777)) == tar[777:]
        assert all_of(there.blob(layer.digest, layer.size, start=layer.size)) == b""
    assert list(there.tags()) == ["1"]
    there.delete(pushed.digest)
    assert there.resolve("1") is None


def test_what_is_not_there_is_not_found(docker_registry: DockerRegistry, opened: Callable[..., Repository]) -> None:
    there = opened(docker_registry, "not/there")
    assert there.resolve("1") is None
    assert there.has_blob(Digest("sha256:" + "0" * 64)) is None
    with pytest.raises(NotFound, match="not/there:1"):
        there.manifest("1")
    with pytest.raises(NotFound, match="not/there"):
        list(there.tags())
    with pytest.raises(NotFound, match="blob sha256:0000"):
        all_of(there.blob(Digest("sha256:" + "0" * 64), 5))


def test_a_token_service_stands_in_front(
    token_registry: tuple[DockerRegistry, TokenService], opened: Callable[..., Repository], repository: str
) -> None:
    registry, tokens = token_registry
    tokens.anonymous = ("pull", "push")
    try:
        there = opened(registry, repository, actions=BOTH)
        assert there.manifest(push_image(there).digest).size
    finally:
        tokens.anonymous = ("pull",)


def test_a_repository_may_be_empty_of_blobs(
    docker_registry: DockerRegistry, opened: Callable[..., Repository], repository: str
) -> None:
    there = opened(docker_registry, repository, actions=BOTH)
    nothing = Digest(memory.digest(b""))
    assert there.upload(nothing, Body.of(b"")) is Sent.SENT
    assert there.upload(nothing, Body.of(b"")) is Sent.PRESENT
    assert all_of(there.blob(nothing, 0)) == b""


def test_referrers_are_found_by_their_tag_where_there_is_no_api(
    docker_registry: DockerRegistry, opened: Callable[..., Repository], repository: str
) -> None:
    there = opened(docker_registry, repository, actions=BOTH)
    pushed = push_image(there)
    assert there.referrers(pushed.digest) == []
    subject = {"mediaType": pushed.media_type, "digest": pushed.digest, "size": pushed.size}
    signature, sbom = (
        push_image(there, f"about{number}", subject=subject, artifactType=kind, annotations={"of": kind})
        for number, kind in enumerate(("text/signature", "text/sbom"))
    )
    listed = there.referrers(pushed.digest)
    assert [(entry.digest, entry.size, entry.artifact_type) for entry in listed] == [
        (signature.digest, signature.size, "text/signature"),
        (sbom.digest, sbom.size, "text/sbom"),
    ]
    assert [entry.annotations["of"] for entry in listed] == ["text/signature", "text/sbom"]
    assert [entry.digest for entry in there.referrers(pushed.digest, "text/sbom")] == [sbom.digest]
    assert there.manifest(pushed.digest.replace(":", "-")).is_index
    there.put_manifest("again", sbom)
    assert there.referrers(pushed.digest) == listed


def test_a_manifest_may_be_written_again(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    quirks.spoil("PUT", "/manifests/", reset(), times=1)
    quirks.spoil("PUT", "/manifests/", status(502), times=1, after=1)
    push_image(opened(quirks, actions=BOTH))
    assert [seen.status for seen in quirks.asked("PUT", "/manifests/")] == [201, 502, 201]


def test_a_manifest_without_its_blobs_is_refused_by_the_registry(
    docker_registry: DockerRegistry, opened: Callable[..., Repository], repository: str
) -> None:
    missing = {"mediaType": memory.CONFIG, "digest": "sha256:" + "0" * 64, "size": 5}
    content = {"schemaVersion": 2, "mediaType": memory.MANIFEST, "config": missing, "layers": []}
    with pytest.raises(RegistryError, match=rf"writing the manifest of .*{repository}:1.*BLOB_UNKNOWN"):
        opened(docker_registry, repository, actions=BOTH).put_manifest(
            "1", Manifest.of(memory.MANIFEST, json.dumps(content).encode())
        )


# --- manifests ---


def test_only_manifests_are_asked_for_by_media_type(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    name = quirks.put_image("a/b", "1", LAYERS)
    there = opened(quirks)
    contents = read(there.manifest("1"))
    all_of(there.blob(contents.layers[0].digest, contents.layers[0].size))
    there.has_blob(contents.layers[0].digest)
    assert there.resolve(name) is not None
    for seen in quirks.requests:
        accept = seen.headers["Accept"]
        if "/manifests/" in seen.path:
            assert set(accept.split(", ")) == {
                memory.MANIFEST,
                memory.INDEX,
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.distribution.manifest.list.v2+json",
            }
        else:
            assert accept is None
        assert seen.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("told", [None, "sha256:" + "0" * 64, "nonsense"])
def test_the_bytes_of_a_manifest_are_its_digest(
    quirks: Quirks, opened: Callable[..., Repository], told: str | None
) -> None:
    name = quirks.put_image("a/b", "1", LAYERS)
    quirks.spoil("GET", "/manifests/", headers(Docker_Content_Digest=told))
    assert opened(quirks).manifest("1").digest == name
    assert opened(quirks).manifest(name).digest == name


def test_a_manifest_of_another_digest_is_refused(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    name = quirks.put_image("a/b", "1", LAYERS)
    other = quirks.put_image("a/b", "2", LAYERS[:1])
    quirks.spoil("GET", "/manifests/", body(quirks.manifests["a/b", other][1]))
    with pytest.raises(DigestMismatch, match=f"has digest {other}, not {name}"):
        opened(quirks).manifest(name)
    with pytest.raises(DigestMismatch, match="thrown away"):
        opened(quirks).manifest("1", expected=Digest(name))


def test_an_incomplete_answer_to_head_is_made_good_by_get(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    name = quirks.put_image("a/b", "1", LAYERS)
    there = opened(quirks)
    for spoilt in (
        headers(Docker_Content_Digest=None),
        headers(Docker_Content_Digest="md5:1"),
        headers(Content_Type="text/plain"),
        length("0"),
        status(405),
        html(200),
    ):
        quirks.behave()
        quirks.spoil("HEAD", "/manifests/", spoilt)
        found = there.resolve("1")
        assert found is not None
        assert (found.digest, found.media_type) == (name, memory.MANIFEST)
    quirks.behave()
    quirks.forget()
    assert there.resolve("1") == found
    assert [seen.method for seen in quirks.requests] == ["HEAD"]


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "text/plain", "", "Application/OCTET-STREAM"]
)
def test_a_manifest_says_itself_what_it_is_where_its_registry_does_not(
    quirks: Quirks, opened: Callable[..., Repository], media_type: str
) -> None:
    quirks.put_image("a/b", "1", LAYERS)
    quirks.spoil("GET", "/manifests/", headers(Content_Type=media_type))
    assert opened(quirks).manifest("1").media_type == memory.MANIFEST
    bare = {"schemaVersion": 2, "manifests": []}
    quirks.put_manifest("a/b", "bare", bare, memory.INDEX)
    assert opened(quirks).manifest("bare").is_index


def test_a_manifest_has_a_size_that_is_the_most(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    quirks.put_image("a/b", "1", LAYERS)
    quirks.spoil("GET", "/manifests/", more(b" " * (4 << 20)))
    with pytest.raises(LimitExceeded, match=r"max-manifest-size is 4,194,304"):
        opened(quirks).manifest("1")
    assert quirks.sent() < 5 << 20
    large = Manifest.of(memory.MANIFEST, b" " * (4 << 20) + b"{}")
    with pytest.raises(RegistryError, match="registries take 4194304"):
        opened(quirks, actions=BOTH).put_manifest("1", large)
    assert quirks.asked("PUT") == []


@pytest.mark.parametrize("code", [200, 403])
def test_a_web_page_is_no_manifest(quirks: Quirks, opened: Callable[..., Repository], code: int) -> None:
    quirks.spoil("GET", "/manifests/", html(code))
    with pytest.raises(RegistryError, match="web page") as caught:
        opened(quirks).manifest("1")
    assert str(caught.value).isprintable() or "\x1b" not in str(caught.value)


def test_schema_1_is_refused_with_words(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    old = {"schemaVersion": 1, "name": "a/b", "tag": "1", "architecture": "amd64", "fsLayers": [], "history": []}
    quirks.put_manifest("a/b", "old", old)
    for media_type in (
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
        memory.MANIFEST,
    ):
        quirks.behave()
        quirks.spoil("GET", "/manifests/", headers(Content_Type=media_type))
        with pytest.raises(UnsupportedMediaType, match="schema 1"):
            opened(quirks).manifest("old")


def test_a_manifest_that_breaks_off_is_read_again(
    quirks: Quirks, opened: Callable[..., Repository], settings: Settings
) -> None:
    name = quirks.put_image("a/b", "1", LAYERS)
    quirks.spoil("GET", "/manifests/", cut(20), times=settings.attempts - 1)
    assert opened(quirks).manifest("1").digest == name
    quirks.spoil("GET", "/manifests/", cut(20))
    quirks.forget()
    with pytest.raises(RegistryError, match="broke off"):
        opened(quirks).manifest("1")
    assert len(quirks.asked("GET")) == settings.attempts


# --- blobs ---


def test_a_small_blob_is_verified(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    name = Digest(quirks.put_blob("a/b", b"config"))
    there = opened(quirks)
    descriptor = Descriptor(memory.CONFIG, name, 6)
    assert there.small_blob(descriptor) == b"config"
    quirks.spoil("GET", "/blobs/", body(b"others"))
    with pytest.raises(DigestMismatch, match=str(name)):
        there.small_blob(descriptor)
    with pytest.raises(LimitExceeded, match="1,099,511,627,776 bytes: max-config-size is 4,194,304"):
        there.small_blob(Descriptor(memory.CONFIG, name, 1 << 40))


def test_embedded_content_is_not_asked_for(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    name = Digest(memory.digest(b"{}"))
    assert opened(quirks).small_blob(Descriptor(memory.CONFIG, name, 2, data=b"{}")) == b"{}"
    assert quirks.requests == []


def test_a_foreign_layer_is_fetched_where_its_manifest_says(
    quirks: Quirks, elsewhere: Quirks, opened: Callable[..., Repository]
) -> None:
    data = noise(50_000)
    name = Digest(elsewhere.put_blob("x/y", data))
    urls = ["ftp://127.0.0.1/layer", "no url", f"{elsewhere.url}/v2/x/y/blobs/{name}"]
    elsewhere.spoil("GET", "/blobs/", cut(20_000), times=1)
    assert all_of(opened(quirks).blob(name, len(data), urls=urls)) == data
    assert [seen.authorization for seen in elsewhere.requests] == [None, None]
    with pytest.raises(NotFound):
        all_of(opened(quirks).blob(name, len(data), urls=urls[:2]))


# --- lists ---


def test_tags_come_in_pages(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    for number in range(25):
        quirks.put_manifest("a/b", f"t{number:02}", {"number": number})
    quirks.page = 10
    assert list(opened(quirks).tags()) == [f"t{number:02}" for number in range(25)]
    assert len(quirks.asked("GET", "/tags/list")) == 3


def test_a_link_leads_nowhere_else(quirks: Quirks, elsewhere: Quirks, opened: Callable[..., Repository]) -> None:
    for tag in ("a", "b", "c"):
        quirks.put_manifest("a/b", tag, {"tag": tag})
    quirks.page = 2
    link = f'<{elsewhere.url}/v2/other/tags/list?last=b&n=2>; rel="next"'
    quirks.spoil("GET", "/tags/list", headers(Link=link), times=1)
    assert list(opened(quirks).tags()) == ["a", "b", "c"]
    assert elsewhere.requests == []


def test_a_list_that_leads_in_a_circle_ends(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    quirks.put_manifest("a/b", "a", {})
    quirks.spoil("GET", "/tags/list", headers(Link='</v2/a/b/tags/list?last=a&n=1>; rel="next"'))
    with pytest.raises(RegistryError, match="circle"):
        list(opened(quirks).tags())
    assert len(quirks.requests) == 2


def test_what_can_be_no_tag_is_left_out(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    quirks.put_manifest("a/b", "a", {})
    for listed, expected in (
        (["good", "\x1b[2J", 7, None, "a b", "x" * 129, "_also.good-1"], ["good", "_also.good-1"]),
        (None, []),
    ):
        quirks.behave()
        quirks.spoil("GET", "/tags/list", body(json.dumps({"tags": listed}).encode()))
        assert list(opened(quirks).tags()) == expected
    for wrong in (b"[]", b'{"tags": 7}', b"\xff", b"[" * 100_000):
        quirks.behave()
        quirks.spoil("GET", "/tags/list", body(wrong))
        with pytest.raises(RegistryError, match="listing the tags of"):
            list(opened(quirks).tags())


def test_the_catalog_comes_in_pages(http: Http, settings: Settings, quirks: Quirks) -> None:
    names = [f"team/app{number}" for number in range(5)]
    for name in names:
        quirks.put_manifest(name, "1", {})
    quirks.page = 2
    assert list(catalog(http, settings, quirks.host)) == names


def test_referrers_by_the_api(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    there = opened(quirks, actions=BOTH)
    pushed = push_image(there)
    subject = {"mediaType": pushed.media_type, "digest": pushed.digest, "size": pushed.size}
    sbom = push_image(there, "sbom", subject=subject, artifactType="text/sbom")
    other = push_image(there, "other", subject=subject)
    assert [entry.digest for entry in there.referrers(pushed.digest)] == [sbom.digest, other.digest]
    assert [entry.digest for entry in there.referrers(pushed.digest, "text/sbom")] == [sbom.digest]
    assert quirks.asked(path="sha256-") == []


def test_a_page_for_people_is_no_list_of_referrers(quirks: Quirks, opened: Callable[..., Repository]) -> None:
    there = opened(quirks, actions=BOTH)
    pushed = push_image(there)
    quirks.spoil("GET", "/referrers/", html())
    assert there.referrers(pushed.digest) == []
    assert len(quirks.asked("GET", "/manifests/sha256-")) == 1


# --- mirrors ---


@pytest.fixture
def mirrored(
    quirks: Quirks, elsewhere: Quirks, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Repository]]:
    """Opens a repository of Docker Hub, which is `quirks` here and has `elsewhere` for a mirror."""
    monkeypatch.setattr(hosts, "_HUB_HOST", quirks.host)
    told = evolve(settings, mirrors=(elsewhere.url,), verify=False)
    with Http(told) as http:
        yield lambda: Repository(http, told, reference.parse("a/b"))


DATA = noise(30_000)
BLOB = Digest(memory.digest(DATA))


def test_a_mirror_is_asked_first_and_is_never_needed(
    quirks: Quirks, elsewhere: Quirks, mirrored: Callable[[], Repository]
) -> None:
    name = quirks.put_image("a/b", "1", [DATA], compress=False)
    there = mirrored()
    assert there.resolve("1") is not None
    assert there.manifest("1").digest == name
    assert all_of(there.blob(BLOB, len(DATA))) == DATA
    assert [seen.status for seen in elsewhere.requests] == [404] * 3
    elsewhere.put_blob("a/b", DATA)
    quirks.forget()
    assert all_of(there.blob(BLOB, len(DATA))) == DATA
    assert quirks.requests == []


@pytest.mark.parametrize(
    "spoilt",
    [
        status(500),
        status(401),
        moved("ftp://example.com/"),
        reset(),
        pytest.param(silence(), marks=pytest.mark.hasty),
        cut(99),
        cut(0),
        cut(0, reset=True),
    ],
)
def test_a_mirror_that_fails_is_asked_no_more(
    quirks: Quirks, elsewhere: Quirks, mirrored: Callable[[], Repository], spoilt: Quirk
) -> None:
    quirks.put_blob("a/b", DATA)
    elsewhere.put_blob("a/b", DATA)
    elsewhere.spoil("GET", "/blobs/", spoilt)
    there = mirrored()
    assert all_of(there.blob(BLOB, len(DATA))) == DATA
    assert len(elsewhere.requests) == 1
    elsewhere.forget()
    quirks.put_blob("a/b", b"other")
    assert all_of(there.blob(Digest(memory.digest(b"other")), 5)) == b"other"
    assert elsewhere.requests == []


def test_what_a_mirror_has_that_is_wrong_is_had_from_the_registry(
    quirks: Quirks, elsewhere: Quirks, mirrored: Callable[[], Repository]
) -> None:
    name = quirks.put_image("a/b", "1", [DATA], compress=False)
    elsewhere.blobs.update(quirks.blobs)
    elsewhere.manifests.update(quirks.manifests)
    for spoilt in (body(b"{}"), html(), more(b" " * (4 << 20)), body(b"}"), headers(Content_Type="a/b"), cut(7)):
        elsewhere.behave()
        elsewhere.spoil("GET", "/manifests/", spoilt)
        assert mirrored().manifest(name).digest == name
    # A size that is another.
    elsewhere.spoil("GET", "/blobs/", body(DATA[:-1]))
    assert all_of(mirrored().blob(BLOB, len(DATA))) == DATA
    # A digest that is another: only its reader knows, and asks again.
    elsewhere.behave()
    elsewhere.spoil("GET", "/blobs/", body(DATA[::-1]))
    there = mirrored()
    assert all_of(there.blob(BLOB, len(DATA))) == DATA[::-1]
    assert all_of(there.blob(BLOB, len(DATA))) == DATA


def test_who_may_push_reads_from_the_registry(
    quirks: Quirks, elsewhere: Quirks, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_HUB_HOST", quirks.host)
    told = evolve(settings, mirrors=(elsewhere.url,), verify=False)
    with Http(told) as http:
        there = Repository(http, told, reference.parse("a/b"), actions=BOTH)
        assert there.has_blob(BLOB) is None
        push_image(there)
    assert elsewhere.requests == []
