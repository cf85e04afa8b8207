"""Copying: digests stay, what is there is not sent, archives in and out, what is about an image."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from layerstore import registry
from layerstore.errors import Ambiguous, ConfigError, DigestMismatch, InvalidArchive, InvalidReference, NotFound
from support import images

from .servers import memory
from .servers.debian import DockerRegistry
from .servers.quirks import Quirks, flipped

if TYPE_CHECKING:
    from layerstore import Store

LAYERS = [
    images.layer(images.folder("etc"), images.file("etc/hosts", "localhost\n"), images.file("big", bytes(300_000))),
    images.layer(images.file("etc/motd", "hello\n")),
]
BLOBS = [gzip.compress(layer, 1, mtime=0) for layer in LAYERS]
SIGNATURE = "application/vnd.example.signature.v1+json"


def put_list(server: Quirks, repository: str, tag: str = "1") -> dict[str, str]:
    """An image for three platforms, and an attestation; the digests of all."""
    made, entries = {}, []
    for architecture in ("amd64", "arm64", "s390x"):
        config = images.config(LAYERS, architecture=architecture)
        digest = server.put_image(repository, None, LAYERS, config=config)
        made[architecture] = digest
        size = len(server.manifests[repository, digest][1])
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": memory.MANIFEST, "digest": digest, "size": size, "platform": platform})
    unknown = {"os": "unknown", "architecture": "unknown"}
    provenance = put_artifact(server, repository, "application/vnd.in-toto+json", b"{}")
    size = len(server.manifests[repository, provenance][1])
    entries.append({"mediaType": memory.MANIFEST, "digest": provenance, "size": size, "platform": unknown})
    made["attestation"] = provenance
    index = {"schemaVersion": 2, "mediaType": memory.INDEX, "manifests": entries}
    made["index"] = server.put_manifest(repository, tag, index, memory.INDEX)
    return made


def put_artifact(
    server: Quirks, repository: str, kind: str, content: bytes, *, subject: str | None = None, tag: str | None = None
) -> str:
    """An artifact, as oras and cosign make them."""
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": memory.MANIFEST,
        "artifactType": kind,
        "config": server.describe(repository, b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [server.describe(repository, content, kind)],
    }
    if subject is not None:
        media_type, data = server.manifests[repository, subject]
        manifest["subject"] = {"mediaType": media_type, "digest": subject, "size": len(data)}
    return server.put_manifest(repository, tag, manifest)


def sent(server: Quirks) -> int:
    """The bytes that were sent to a server."""
    return sum(len(seen.body) for seen in server.requests)


# --- registry to registry ---


def test_an_image_is_copied_with_its_digest(quirks: Quirks, elsewhere: Quirks) -> None:
    digest = quirks.put_image("team/app", "1", LAYERS)
    words: list[str] = []
    copied = registry.copy(
        f"docker://{quirks.host}/team/app:1", f"docker://{elsewhere.host}/x:2", done=lambda _, word: words.append(word)
    )
    assert (copied.digest, copied.media_type) == (digest, memory.MANIFEST)
    assert elsewhere.tags == {("x", "2"): digest}
    assert elsewhere.manifests["x", digest] == quirks.manifests["team/app", digest]
    assert words == ["Copied"] * 3
    before = sent(elsewhere)
    registry.copy(f"docker://{quirks.host}/team/app@{digest}", f"docker://{elsewhere.host}/x:3")
    assert sent(elsewhere) - before == copied.size
    assert elsewhere.tags["x", "3"] == digest


def test_in_one_registry_blobs_are_mounted(quirks: Quirks) -> None:
    quirks.put_image("team/app", "1", LAYERS)
    words: list[str] = []
    copied = registry.copy(
        f"docker://{quirks.host}/team/app:1", f"docker://{quirks.host}/other", done=lambda _, word: words.append(word)
    )
    assert words == ["Mounted from team/app"] * 3
    assert sent(quirks) == copied.size


def test_of_a_list_one_platform_is_copied_or_all(quirks: Quirks, elsewhere: Quirks) -> None:
    made = put_list(quirks, "list")
    source, target = f"docker://{quirks.host}/list:1", f"docker://{elsewhere.host}/list"
    one = registry.copy(source, f"{target}:one", platform="linux/arm64")
    assert one.digest == made["arm64"]
    assert {digest for _, digest in elsewhere.manifests} == {made["arm64"]}
    both = registry.copy(source, f"{target}:all", all_platforms=True)
    assert (both.digest, both.media_type) == (made["index"], memory.INDEX)
    assert {digest for _, digest in elsewhere.manifests} == set(made.values())
    assert {digest for _, digest in elsewhere.blobs} == {digest for _, digest in quirks.blobs}
    with pytest.raises(InvalidArchive, match="no image for linux/riscv64") as caught:
        registry.copy(source, target, platform="linux/riscv64")
    assert "linux/s390x" in str(caught.value)
    quirks.put_image("single", "1", LAYERS)
    with pytest.raises(InvalidArchive, match="no image for linux/arm64"):
        registry.copy(f"docker://{quirks.host}/single:1", target, platform="linux/arm64")


@pytest.mark.parametrize("has_api", [True, False])
def test_what_is_about_an_image_comes_on_request(quirks: Quirks, elsewhere: Quirks, *, has_api: bool) -> None:
    elsewhere.referrers = has_api
    digest = quirks.put_image("app", "1", LAYERS)
    signature = put_artifact(quirks, "app", SIGNATURE, b"signed", subject=digest)
    of_signature = put_artifact(quirks, "app", SIGNATURE, b"signed, too", subject=signature)
    tag = f"{digest.replace(':', '-')}.sig"
    cosigned = put_artifact(quirks, "app", "application/vnd.dev.cosign.simplesigning.v1+json", b"x", tag=tag)
    source, target = f"docker://{quirks.host}/app:1", f"docker://{elsewhere.host}/app:1"
    registry.copy(source, target)
    assert {name for _, name in elsewhere.manifests} == {digest}
    registry.copy(source, target, referrers=True)
    assert {digest, signature, of_signature, cosigned} <= {name for _, name in elsewhere.manifests}
    assert elsewhere.tags["app", tag] == cosigned
    listed = elsewhere.tags.get(("app", digest.replace(":", "-")))
    assert (listed is None) is has_api
    if listed is not None:
        [entry] = json.loads(elsewhere.manifests["app", listed][1])["manifests"]
        assert entry["digest"] == signature


def test_docker_registry_takes_all_of_it(quirks: Quirks, docker_registry: DockerRegistry, repository: str) -> None:
    made = put_list(quirks, "list")
    signature = put_artifact(quirks, "list", SIGNATURE, b"signed", subject=made["index"])
    name = f"docker://{docker_registry.host}/{repository}:1"
    registry.copy(f"docker://{quirks.host}/list:1", name, all_platforms=True, referrers=True)
    back = f"docker://{quirks.host}/back:1"
    assert registry.copy(name, back, all_platforms=True, referrers=True).digest == made["index"]
    assert ("back", signature) in quirks.manifests
    assert registry.manifest(name).digest == made["index"]


# --- archives ---


@pytest.mark.parametrize("kind", ["oci:{}/layout", "oci-archive:{}/x.tar", "{}/x.tar", "{}/layout/"])
def test_a_layout_has_the_same_digests(quirks: Quirks, elsewhere: Quirks, tmp_path: Path, kind: str) -> None:
    made = put_list(quirks, "list")
    signature = put_artifact(quirks, "list", SIGNATURE, b"signed", subject=made["arm64"])
    place = kind.format(tmp_path)
    copied = registry.copy(f"docker://{quirks.host}/list:1", place, all_platforms=True, referrers=True)
    assert copied.digest == made["index"]
    again = registry.copy(place, f"docker://{elsewhere.host}/list:1", all_platforms=True, referrers=True)
    assert again == copied
    assert {digest for _, digest in elsewhere.manifests} == {*made.values(), signature}
    assert registry.copy(place, f"docker://{elsewhere.host}/one", platform="linux/s390x").digest == made["s390x"]


@pytest.mark.root
@pytest.mark.parametrize("kind", ["oci-archive:{}:some/word", "docker-archive:{}", "{}"])
def test_a_copied_archive_can_be_loaded(store: Store, quirks: Quirks, tmp_path: Path, kind: str) -> None:
    quirks.put_image("team/app", "1", LAYERS)
    path = tmp_path / "x.tar"
    registry.copy(f"docker://{quirks.host}/team/app:1", kind.format(path))
    [image] = store.load(path)
    expected = "some/word:latest" if "word" in kind else f"{quirks.host}/team/app:1"
    assert image.tags == (expected,)
    assert list(image.layers) == list(map(images.digest, LAYERS))


@pytest.mark.tools("skopeo")
@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "oci"])
def test_skopeo_reads_what_was_copied(quirks: Quirks, tmp_path: Path, form: str) -> None:
    digest = quirks.put_image("team/app", "1", LAYERS)
    place = f"{form}:{tmp_path / 'x'}:team/app:1"
    registry.copy(f"docker://{quirks.host}/team/app:1", place)
    command = ["skopeo", "copy", "-q", place, f"dir:{tmp_path / 'dir'}"]
    subprocess.run(command, check=True, capture_output=True)
    manifest = json.loads((tmp_path / "dir" / "manifest.json").read_text())
    assert manifest["config"]["digest"] == images.digest(images.config(LAYERS))
    if form != "docker-archive":
        assert images.digest((tmp_path / "dir" / "manifest.json").read_bytes()) == digest


@pytest.mark.tools("skopeo")
def test_what_skopeo_wrote_is_copied_on(quirks: Quirks, elsewhere: Quirks, tmp_path: Path) -> None:
    digest = quirks.put_image("app", "1", LAYERS)
    for tag in ("one", "two"):
        command = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{quirks.host}/app:1"]
        subprocess.run([*command, f"oci:{tmp_path / 'layout'}:{tag}"], check=True, capture_output=True)
    assert registry.copy(f"oci:{tmp_path / 'layout'}:two", f"docker://{elsewhere.host}/x").digest == digest


@pytest.mark.tools("skopeo")
def test_an_image_is_added_to_a_layout_that_is_there(quirks: Quirks, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    digests = {tag: quirks.put_image("app", tag, LAYERS[: number + 1]) for number, tag in enumerate(("one", "two"))}
    source = f"docker://{quirks.host}/app"
    skopeo = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"{source}:one", f"oci:{layout}:first"]
    subprocess.run(skopeo, check=True, capture_output=True)
    words: list[str] = []
    registry.copy(f"{source}:two", f"oci:{layout}:second", done=lambda _, word: words.append(word))
    registry.copy(f"{source}:two", f"oci:{layout}:first")
    registry.copy(f"{source}:one", f"oci:{layout}:third")
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    named = {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in entries}
    assert named == {"first": digests["two"], "second": digests["two"], "third": digests["one"]}
    before = sorted(layout.rglob("*"))
    quirks.put_image("app", "three", [images.layer(images.file("three"))])
    quirks.spoil("GET", "/blobs/", flipped(50))
    with pytest.raises(DigestMismatch):
        registry.copy(f"{source}:three", f"oci:{layout}:fourth")
    assert sorted(layout.rglob("*")) == before
    command = ["skopeo", "inspect", "--raw", f"oci:{layout}:third"]
    assert images.digest(subprocess.run(command, check=True, capture_output=True).stdout) == digests["one"]


def test_a_docker_archive_is_compressed_on_its_way(quirks: Quirks, tmp_path: Path) -> None:
    archive = images.docker_archive(tmp_path / "x.tar", LAYERS)
    copied = registry.copy(f"docker-archive:{archive}", f"docker://{quirks.host}/app:1")
    manifest = json.loads(quirks.manifests["app", copied.digest][1])
    assert [gzip.decompress(quirks.blobs["app", layer["digest"]]) for layer in manifest["layers"]] == LAYERS
    assert registry.copy(f"docker-archive:{archive}:test", f"oci:{tmp_path / 'layout'}").digest == copied.digest
    packed = tmp_path / "x.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes()))
    assert registry.copy(str(packed), f"oci-archive:{tmp_path / 'y.tar'}") == copied
    assert registry.copy(f"docker-archive:{packed}:@0", f"docker-archive:{tmp_path / 'z.tar'}:a/b:c").size
    with tarfile.open(tmp_path / "z.tar") as tar:
        [listed] = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert listed["RepoTags"] == ["docker.io/a/b:c"]


def test_an_archive_may_be_a_pipe(quirks: Quirks, tmp_path: Path) -> None:
    archive = images.docker_archive(tmp_path / "x.tar", LAYERS)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(archive.read_bytes()))
    writer.start()
    assert registry.copy(str(pipe), f"docker://{quirks.host}/app:1").digest == quirks.tags["app", "1"]
    writer.join()


# --- what goes wrong ---


def test_wrong_places_are_told(quirks: Quirks, tmp_path: Path) -> None:
    quirks.put_image("app", "1", LAYERS)
    source = f"docker://{quirks.host}/app:1"
    with pytest.raises(ConfigError, match="no place that is known"):
        registry.copy("containers-storage:debian", f"oci:{tmp_path}/x")
    with pytest.raises(ConfigError, match="no place that is known"):
        registry.copy(source, "dir:x")
    with pytest.raises(NotFound):
        registry.copy(f"docker://{quirks.host}/app:none", f"oci:{tmp_path}/x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match="all platforms"):
        registry.copy(source, f"oci:{tmp_path}/x", platform="linux/arm64", all_platforms=True)
    with pytest.raises(ConfigError, match="one platform"):
        registry.copy(source, f"docker-archive:{tmp_path}/x", all_platforms=True)
    for wrong_source, wrong_target in ((f"{quirks.host}/app:1", f"oci:{tmp_path}/x"), (source, f"{quirks.host}/b:1")):
        with pytest.raises(NotFound) as wrong_path:
            registry.copy(wrong_source, wrong_target)
        assert f"docker://{quirks.host}" in wrong_path.value.remedy
    wrong = "sha256:" + "ab" * 32
    with pytest.raises(InvalidReference, match="cannot be"):
        registry.copy(source, f"docker://{quirks.host}/app@{wrong}")


def test_an_archive_of_several_images_wants_a_name(quirks: Quirks, tmp_path: Path) -> None:
    layout = images.oci_layout(tmp_path / "layout", LAYERS, "one")
    other = images.oci_layout(tmp_path / "other", LAYERS[:1], "two")
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] += json.loads((other / "index.json").read_text())["manifests"]
    (layout / "index.json").write_text(json.dumps(index))
    for blob in (other / "blobs/sha256").iterdir():
        (layout / "blobs/sha256" / blob.name).write_bytes(blob.read_bytes())
    target = f"docker://{quirks.host}/app"
    with pytest.raises(Ambiguous, match="layout has 2 images") as caught:
        registry.copy(f"oci:{layout}", target)
    assert "one, two" in str(caught.value)
    with pytest.raises(NotFound, match="no image three"):
        registry.copy(f"oci:{layout}:three", target)
    assert registry.copy(f"oci:{layout}:two", target).digest == index["manifests"][1]["digest"]


def test_a_blob_that_is_not_what_it_should_be_is_not_copied(quirks: Quirks, elsewhere: Quirks, tmp_path: Path) -> None:
    quirks.put_image("app", "1", LAYERS)
    quirks.spoil("GET", images.digest(BLOBS[0]), flipped(100))
    with pytest.raises(DigestMismatch, match=images.digest(BLOBS[0])):
        registry.copy(f"docker://{quirks.host}/app:1", f"docker://{elsewhere.host}/app:1")
    assert elsewhere.manifests == {}
    with pytest.raises(DigestMismatch):
        registry.copy(f"docker://{quirks.host}/app:1", f"oci-archive:{tmp_path}/x.tar")
    assert not list(tmp_path.glob("*x.tar*"))


def test_a_layout_without_all_platforms_says_so(quirks: Quirks, tmp_path: Path) -> None:
    made = put_list(quirks, "list")
    registry.copy(f"docker://{quirks.host}/list:1", f"oci:{tmp_path}/x", all_platforms=True)
    (tmp_path / "x/blobs/sha256" / made["arm64"][7:]).unlink()
    with pytest.raises(InvalidArchive, match="does not have it"):
        registry.copy(f"oci:{tmp_path}/x", f"docker://{quirks.host}/back", all_platforms=True)
    assert registry.copy(f"oci:{tmp_path}/x", f"docker://{quirks.host}/back", platform="linux/s390x").size


def test_progress_counts_the_bytes_of_each_blob(quirks: Quirks, elsewhere: Quirks) -> None:
    quirks.put_image("app", "1", LAYERS)
    last: dict[str, tuple[int, int | None]] = {}

    def report(label: str, done: int, total: int | None) -> None:
        last[label] = (done, total)

    registry.copy(f"docker://{quirks.host}/app:1", f"docker://{elsewhere.host}/app:1", progress=report)
    assert {images.digest(blob)[7:19]: (len(blob), len(blob)) for blob in BLOBS}.items() <= last.items()
