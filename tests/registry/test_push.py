"""Pushing: what is sent and what is not, in which form, and what is there when something goes wrong."""

from __future__ import annotations

import gzip
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

import layerstore
from layerstore.blobs import KnownBlob
from layerstore.digest import DiffID, Digest
from layerstore.errors import ConfigError, Denied, InvalidReference, NotFound, RegistryError
from support import images

from .conftest import CredentialFiles
from .servers import memory
from .servers.debian import DockerRegistry
from .servers.quirks import Quirk, Quirks, flipped, status
from .servers.tokens import PASSWORD, USER, TokenService

if TYPE_CHECKING:
    from layerstore import Image, Store

pytestmark = pytest.mark.root

LAYERS = [
    images.layer(images.folder("etc"), images.file("etc/hosts", "localhost\n"), images.file("big", bytes(300_000))),
    images.layer(images.file("etc/motd", "hello\n")),
    images.layer(images.whiteout("big"), images.file("x", "x" * 5000)),
]
DIFF_IDS = [images.digest(layer) for layer in LAYERS]
GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@pytest.fixture
def ours(store: Store, tmp_path: Path) -> Image:
    """An image of three layers, loaded."""
    [image] = store.load(images.docker_archive(tmp_path / "ours.tar", LAYERS))
    return image


class Pushing:
    """Pushes an image of a store, and keeps docker's words for what became of each layer."""

    def __init__(self, store: Store, image: Image) -> None:
        self.store, self.image = store, image
        self.words: list[str] = []

    def __call__(self, name: str, **options: Any) -> Any:
        self.image.tag(name)
        self.words = []
        return self.store.push(name, done=lambda _, words: self.words.append(words), **options)


@pytest.fixture
def push(store: Store, ours: Image) -> Pushing:
    """`push(name)`: the image under this name."""
    return Pushing(store, ours)


@pytest.fixture
def other_store(tmp_path: Path, backing: Callable[[str], Path]) -> Iterator[Store]:
    """A store that knows nothing of the first."""
    root = backing("ext4") / "other"
    with layerstore.open(
        config=layerstore.Config(data_root=root, exec_root=tmp_path / "other-exec", storage_driver="overlay2")
    ) as opened:
        yield opened


def name_in(registry: Quirks | DockerRegistry, repository: str, tag: str = "1") -> str:
    """The name of an image there."""
    return f"{registry.host}/{repository}:{tag}"


def written(server: Quirks) -> list[str]:
    """The bodies that were sent: how many bytes, and to where."""
    return [f"{seen.method} {len(seen.body)}" for seen in server.requests if seen.body]


# --- what comes out again ---


@pytest.mark.tools("skopeo")
@pytest.mark.parametrize("compression", [None, "gzip", "zstd", "none"])
def test_skopeo_reads_what_was_pushed(
    push: Pushing, docker_registry: DockerRegistry, repository: str, tmp_path: Path, compression: str | None
) -> None:
    name = name_in(docker_registry, repository)
    pushed = push(name, compression=compression)
    assert push.words == ["Pushed"] * 3
    command = ["skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path / 'target'}"]
    subprocess.run(command, check=True, capture_output=True)
    data = (tmp_path / "target" / "manifest.json").read_bytes()
    assert (images.digest(data), len(data)) == (pushed.digest, pushed.size)
    manifest = json.loads(data)
    ending = {None: "+gzip", "none": ""}.get(compression, f"+{compression}")
    assert [layer["mediaType"] for layer in manifest["layers"]] == [memory.LAYER + ending] * 3
    assert manifest["config"]["digest"] == push.image.id


def test_annotations_are_those_that_are_asked_for(push: Pushing, store: Store, quirks: Quirks, repository: str) -> None:
    def annotations(**options: Any) -> Any:
        pushed = push(name_in(quirks, repository), **options)
        [manifest] = [found for found in store.blobs.manifests_of(push.image.id) if found.digest == pushed.digest]
        return json.loads(manifest.data).get("annotations")

    assert annotations() is None
    assert annotations(annotations={"b": "2", "a": "1"}) == {"a": "1", "b": "2"}
    assert push.words == ["Layer already exists"] * 3, "the layers are the same"
    assert annotations(annotations={"a": "other"}) == {"a": "other"}


@pytest.mark.tools("podman")
def test_podman_pulls_what_was_pushed(
    push: Pushing, docker_registry: DockerRegistry, repository: str, backing: Callable[[str], Path]
) -> None:
    name = name_in(docker_registry, repository)
    push(name)
    # podman accepts no long names for its second folder.
    with tempfile.TemporaryDirectory(prefix="p-") as run_root:
        podman = ["podman", "--root", backing("ext4"), "--runroot", run_root, "--storage-driver", "vfs"]
        command = [*podman, "pull", "-q", "--tls-verify=false", name]
        pulled = subprocess.run(command, check=True, capture_output=True, text=True)
    assert pulled.stdout.strip() == push.image.id.removeprefix("sha256:")


# --- what is not sent ---


def test_what_is_there_is_not_sent(push: Pushing, quirks: Quirks, repository: str) -> None:
    pushed = push(name_in(quirks, repository))
    assert len(written(quirks)) == 5  # three layers, a config, a manifest
    quirks.requests.clear()
    assert push(name_in(quirks, repository, "2")).digest == pushed.digest
    assert push.words == ["Layer already exists"] * 3
    assert written(quirks) == [f"PUT {pushed.size}"]


def test_two_stores_push_the_same(
    push: Pushing, other_store: Store, quirks: Quirks, repository: str, tmp_path: Path
) -> None:
    pushed = push(name_in(quirks, repository))
    [image] = other_store.load(tmp_path / "ours.tar")
    quirks.requests.clear()
    other = Pushing(other_store, image)
    assert other(name_in(quirks, repository)) == pushed
    assert other.words == ["Layer already exists"] * 3


def test_layers_are_mounted_from_other_repositories(push: Pushing, quirks: Quirks, repository: str) -> None:
    push(name_in(quirks, f"{repository}/one"))
    quirks.requests.clear()
    pushed = push(name_in(quirks, f"{repository}/two"))
    assert push.words == [f"Mounted from {repository}/one"] * 3
    assert written(quirks) == [f"PUT {pushed.size}"]  # the config is mounted, too


def test_a_layer_that_went_is_mounted_from_where_it_still_is(push: Pushing, quirks: Quirks, repository: str) -> None:
    push(name_in(quirks, f"{repository}/old"))
    push(name_in(quirks, f"{repository}/new"))
    for name, digest in list(quirks.blobs):
        if name == f"{repository}/new":
            del quirks.blobs[name, digest]
    push(name_in(quirks, f"{repository}/third"))
    assert push.words == [f"Mounted from {repository}/old"] * 3


def test_where_nothing_can_be_mounted_it_is_sent(push: Pushing, quirks: Quirks, repository: str) -> None:
    first = push(name_in(quirks, f"{repository}/one"))
    quirks.mounts = False
    assert push(name_in(quirks, f"{repository}/two")).digest == first.digest
    assert push.words == ["Pushed"] * 3


def test_all_tags_are_pushed(store: Store, ours: Image, quirks: Quirks, repository: str) -> None:
    for tag in ("b", "a", "c"):
        ours.tag(name_in(quirks, repository, tag))
    ours.tag(name_in(quirks, f"{repository}/other"))
    name = name_in(quirks, repository).rpartition(":")[0]
    assert [pushed.tag for pushed in store.push_all(name)] == ["a", "b", "c"]
    assert sorted(quirks.tags) == [(repository, "a"), (repository, "b"), (repository, "c")]


def test_by_tokens_layers_are_mounted_from_other_repositories(
    push: Pushing,
    token_registry: tuple[DockerRegistry, TokenService],
    credential_files: CredentialFiles,
    repository: str,
) -> None:
    registry, _ = token_registry
    credential_files.know(registry.host, USER, PASSWORD)
    first = push(name_in(registry, f"{repository}/one"))
    assert push.words == ["Pushed"] * 3
    assert push(name_in(registry, f"{repository}/two")).digest == first.digest
    assert push.words == [f"Mounted from {repository}/one"] * 3


# --- in which form ---


class Known:
    """An image as it came from a registry, in docker's form, and known as pull leaves it; its blobs are nowhere yet."""

    def __init__(self, store: Store, image: Image) -> None:
        self.blobs = [gzip.compress(layer, 1, mtime=0) for layer in LAYERS]
        config = image.config_bytes
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **self._of(config)},
            "layers": [{"mediaType": GZIP, **self._of(blob)} for blob in self.blobs],
        }
        self.manifest = json.dumps(manifest, indent=3).encode()
        self.digest = images.digest(self.manifest)
        for diff_id, blob in zip(DIFF_IDS, self.blobs, strict=True):
            store.blobs.remember(None, KnownBlob(Digest(images.digest(blob)), DiffID(diff_id), len(blob), GZIP))
        store.blobs.put_manifest(str(manifest["mediaType"]), self.manifest, images=[image.id])
        self.store = store

    def keep(self, blobs: Sequence[bytes]) -> None:
        for blob in blobs:
            self.store.blobs.put(_Bytes(blob), expected=Digest(images.digest(blob)))

    def are_in(self, server: Quirks, repository: str, blobs: Sequence[bytes]) -> None:
        digests = [Digest(server.put_blob(repository, blob)) for blob in blobs]
        self.store.blobs.saw(None, digests, server.host, repository)

    @staticmethod
    def _of(data: bytes) -> dict[str, Any]:
        return {"digest": images.digest(data), "size": len(data)}


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


@pytest.fixture
def known(store: Store, ours: Image) -> Known:
    """The image, as if it had been pulled."""
    return Known(store, ours)


def test_what_is_kept_goes_back_as_it_came(push: Pushing, known: Known, quirks: Quirks, repository: str) -> None:
    known.keep(known.blobs)
    assert push(name_in(quirks, repository)).digest == known.digest
    assert push.words == ["Pushed"] * 3
    assert quirks.manifests[repository, known.digest][1] == known.manifest


def test_what_another_registry_has_streams_from_there(
    push: Pushing, known: Known, quirks: Quirks, elsewhere: Quirks, repository: str
) -> None:
    known.keep(known.blobs[:1])
    known.are_in(elsewhere, "team/source", known.blobs[1:])
    assert push(name_in(quirks, repository)).digest == known.digest
    assert push.words == ["Pushed"] * 3
    assert all(quirks.blobs[repository, images.digest(blob)] == blob for blob in known.blobs)


def test_what_this_registry_has_elsewhere_streams_where_it_cannot_be_mounted(
    push: Pushing, known: Known, quirks: Quirks, repository: str
) -> None:
    quirks.mounts = False
    known.are_in(quirks, "team/source", known.blobs)
    assert push(name_in(quirks, repository)).digest == known.digest
    assert push.words == ["Pushed"] * 3


@pytest.mark.parametrize("spoilt", [flipped(5), status(403, "DENIED")], ids=["wrong", "denied"])
def test_what_another_registry_has_no_more_is_compressed_anew(
    push: Pushing, known: Known, quirks: Quirks, elsewhere: Quirks, repository: str, spoilt: Quirk
) -> None:
    known.are_in(elsewhere, "team/source", known.blobs)
    elsewhere.spoil("GET", f"/blobs/{images.digest(known.blobs[1])}", spoilt)
    pushed = push(name_in(quirks, repository))
    assert pushed.digest != known.digest
    assert push.words == ["Pushed"] * 3
    manifest = json.loads(quirks.manifests[repository, pushed.digest][1])
    tars = [gzip.decompress(quirks.blobs[repository, layer["digest"]]) for layer in manifest["layers"]]
    assert tars == LAYERS


def test_what_cannot_be_had_is_compressed_anew(push: Pushing, known: Known, quirks: Quirks, repository: str) -> None:
    known.keep(known.blobs[:2])
    pushed = push(name_in(quirks, repository))
    assert pushed.digest != known.digest
    manifest = json.loads(quirks.manifests[repository, pushed.digest][1])
    assert [layer["digest"] for layer in manifest["layers"][:2]] == list(map(images.digest, known.blobs[:2]))
    tars = [gzip.decompress(quirks.blobs[repository, layer["digest"]]) for layer in manifest["layers"]]
    assert tars == LAYERS
    assert push(name_in(quirks, f"{repository}/other")).digest == pushed.digest


def test_another_compression_is_made_on_request(push: Pushing, known: Known, quirks: Quirks, repository: str) -> None:
    known.keep(known.blobs)
    zstd = push(name_in(quirks, repository), compression="zstd")
    assert zstd.digest != known.digest
    assert push(name_in(quirks, repository, "2"), compression="zstd").digest == zstd.digest
    assert push(name_in(quirks, f"{repository}/other"), compression="gzip").digest == known.digest


def test_a_recipe_that_is_a_guess_is_tried(store: Store, push: Pushing, known: Known, quirks: Quirks) -> None:
    from layerstore.compression.recipes import own

    right, wrong = "zlib level=1 memory=8", str(own("gzip"))
    for number, (recipe, expected) in enumerate([(wrong, False), (right, True)]):
        for diff_id, blob in zip(DIFF_IDS, known.blobs, strict=True):
            form = KnownBlob(Digest(images.digest(blob)), DiffID(diff_id), len(blob), GZIP, _recipe(recipe, blob))
            store.blobs.remember(None, form)
        assert (push(name_in(quirks, f"team/recipes{number}")).digest == known.digest) is expected


def _recipe(text: str, blob: bytes) -> str:
    """The recipe of Python's own gzip, with the header that it writes."""
    from layerstore.compression.recipes import Recipe

    if text.startswith("isal"):
        return text
    import zlib

    return str(Recipe("zlib", (("level", 1), ("memory", 8)), blob[:10], zlib.ZLIB_RUNTIME_VERSION))


def test_a_kept_blob_that_is_damaged_is_none(
    store: Store, push: Pushing, known: Known, quirks: Quirks, repository: str
) -> None:
    known.keep(known.blobs)
    path = store.data_root / "blobs/sha256" / images.digest(known.blobs[0])[7:]
    path.write_bytes(bytes(path.stat().st_size))
    pushed = push(name_in(quirks, repository))
    assert pushed.digest != known.digest
    assert images.digest(known.blobs[0]) not in {name for _, name in quirks.blobs}


def test_a_foreign_layer_is_never_sent(store: Store, push: Pushing, known: Known, quirks: Quirks) -> None:
    manifest = json.loads(known.manifest)
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    manifest["layers"][0] |= {"mediaType": foreign, "urls": ["https://elsewhere.example/blob"]}
    data = json.dumps(manifest).encode()
    store.blobs.delete(Digest(known.digest))
    store.blobs.put_manifest(manifest["mediaType"], data, images=[push.image.id])
    known.keep(known.blobs)
    assert push(name_in(quirks, "team/foreign")).digest == images.digest(data)
    assert sorted(push.words) == ["Pushed", "Pushed", "Skipped foreign layer"]
    assert ("team/foreign", images.digest(known.blobs[0])) not in quirks.blobs


# --- what is remembered ---


def test_an_image_knows_the_digest_that_it_was_pushed_with(
    store: Store, push: Pushing, quirks: Quirks, repository: str
) -> None:
    name = name_in(quirks, repository)
    pushed = push(name)
    pinned = f"{name.rpartition(':')[0]}@{pushed.digest}"
    assert store.image(pinned).id == push.image.id
    assert pinned in store.image(name).digests


def test_keep_blobs_keeps_what_was_compressed(store: Store, ours: Image, quirks: Quirks, repository: str) -> None:
    ours.tag(name_in(quirks, repository))
    with layerstore.open(config=evolve(store.config, keep_blobs=True)) as keeping:
        keeping.push(name_in(quirks, repository))
    assert store.blobs.remains().kept == 3


def test_a_store_that_can_only_be_read_can_give(store: Store, ours: Image, quirks: Quirks, repository: str) -> None:
    config = evolve(store.config, keep_blobs=True)
    store.close()
    root = str(config.data_root)
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        with layerstore.open(config=config) as frozen:
            frozen.save("test", f"docker://{name_in(quirks, repository)}")
    finally:
        subprocess.run(["umount", root], check=True)
    assert (repository, "1") in quirks.tags


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("host.example/none:1", NotFound),
        ("test@sha256:" + "ab" * 32, InvalidReference),
        ("Test", InvalidReference),
    ],
)
def test_what_cannot_be_pushed_is_said(store: Store, ours: Image, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        store.push(name)


def test_other_wrong_wishes_are_refused(store: Store, ours: Image) -> None:
    with pytest.raises(ConfigError, match="no compression 'xz'"):
        store.push("test", compression="xz")
    with pytest.raises(InvalidReference, match="has a tag"):
        list(store.push_all("test:latest"))
    with pytest.raises(NotFound, match="no image has a tag"):
        list(store.push_all("none"))


def test_a_push_that_is_denied_is_told_and_forgotten(
    store: Store, push: Pushing, quirks: Quirks, repository: str
) -> None:
    quirks.refuse("POST", "/blobs/uploads/", lambda _: memory.failure(403, "DENIED"))
    with pytest.raises(Denied):
        push(name_in(quirks, repository))
    assert quirks.manifests == {}
    assert store.image(name_in(quirks, repository)).digests == ()


def test_a_push_goes_on_where_the_last_one_ended(push: Pushing, quirks: Quirks, repository: str) -> None:
    quirks.refuse("PUT", "/blobs/uploads/", lambda _: memory.failure(403, "DENIED"), after=2)
    with pytest.raises(RegistryError):
        push(name_in(quirks, repository))
    there = len(quirks.blobs)
    assert there == 2
    quirks.behave()
    quirks.requests.clear()
    push(name_in(quirks, repository))
    assert len(written(quirks)) == 5 - there


def test_progress_ends_at_the_size_of_each_layer(push: Pushing, quirks: Quirks, repository: str) -> None:
    last: dict[str, tuple[int, int | None]] = {}

    def report(label: str, done: int, total: int | None) -> None:
        last[label] = (done, total)

    push(name_in(quirks, repository), progress=report)
    assert set(last) == {diff_id[7:19] for diff_id in DIFF_IDS}
    assert all(done == total and total for done, total in last.values())
