"""Pulling: what comes into the store, what is asked for and what is not, and what is refused with nothing left."""

from __future__ import annotations

import base64
import errno
import gzip
import json
import os
import random
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import layerstore
from core.adding import Adder
from layerstore.digest import DiffID, Digest
from layerstore.errors import (
    DigestMismatch,
    InvalidArchive,
    KernelError,
    LayerstoreError,
    NotFound,
    UnsupportedMediaType,
)
from layerstore.registry.transport.settings import Settings
from layerstore.store import Store
from support import images as make

from .servers import memory
from .servers import quirks as spoil
from .servers.debian import DockerRegistry
from .servers.listening import Answer
from .servers.quirks import Quirks

pytestmark = pytest.mark.root

BASE = make.layer(make.folder("etc"), make.file("etc/hostname", "base\n"), make.file("big", bytes(range(256)) * 2000))
TOP = make.layer(make.file("etc/motd", "hello\n"))
OTHER = make.layer(make.file("etc/motd", "good day\n"))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries are given up soon, and asked again at once."""
    of = Settings.of.__func__  # type: ignore[attr-defined]

    def fast(cls: type[Settings], *args: Any, **named: Any) -> Settings:
        return evolve(of(cls, *args, **named), connect_timeout=20.0, read_timeout=20.0, pause=0.01)

    monkeypatch.setattr(Settings, "of", classmethod(fast))


@pytest.fixture
def open_store(data_root: Path) -> Callable[..., Store]:
    """`open_store(keep_blobs=True)`: the store of the test, with these settings."""

    def opened(**settings: Any) -> Store:
        return layerstore.open(
            config=layerstore.Config(
                **{
                    "data_root": data_root,
                    "exec_root": data_root.with_name("exec"),
                    "storage_driver": "overlay2",
                    **settings,
                }
            )
        )

    return opened


def asked(server: Quirks) -> list[str]:
    """What was asked for: `GET manifests/1`, with digests cut short."""
    shown = []
    for seen in server.requests:
        kind, _, ref = seen.path.rpartition("/")
        shown.append(f"{seen.method} {kind.rpartition('/')[2]}/{ref[:14]}")
    return shown


def blobs_asked(server: Quirks) -> list[str]:
    return [f"{seen.path.rpartition('/')[2]}" for seen in server.requests if "/blobs/" in seen.path]


def partials(store: Store) -> list[str]:
    folder = store.data_root / "partial"
    return sorted(f"sha256:{path.name}" for path in folder.iterdir()) if folder.is_dir() else []


# --- what comes


@pytest.mark.tools("skopeo")
def test_what_skopeo_pushed_comes_as_it_was(store: Store, docker_registry: DockerRegistry, tmp_path: Path) -> None:
    name = f"{docker_registry.host}/team/pulled:1"
    layout = make.oci_layout(tmp_path / "layout", [BASE, TOP])
    digest = tmp_path / "digest"
    copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"--digestfile={digest}"]
    subprocess.run([*copy, f"oci:{layout}:latest", f"docker://{name}"], check=True)
    image = store.pull(name)
    assert image == store.image(name)
    assert image.layers == tuple(make.digest(tar) for tar in (BASE, TOP))
    assert (image.names, image.tags, image.digest) == ((name,), (name,), digest.read_text())
    assert image.digests == (f"{docker_registry.host}/team/pulled@{image.digest}",)
    assert image.is_newer
    with image.mount() as root:
        assert (root / "etc/motd").read_text() == "hello\n"
    assert store.check(content=True) == []
    assert partials(store) == []


def test_what_it_learnt_is_remembered(store: Store, quirks: Quirks, repository: str) -> None:
    name = f"{quirks.host}/{repository}"
    digest = quirks.put_image(repository, "latest", [BASE, TOP])
    image = store.pull(name)
    [manifest] = store.blobs.manifests_of(image.id)
    assert (manifest.digest, manifest.data) == (digest, quirks.manifests[repository, digest][1])
    for tar, layer in zip([BASE, TOP], json.loads(manifest.data)["layers"], strict=True):
        [form] = store.blobs.forms_of(DiffID(make.digest(tar)))
        assert (form.digest, form.size, form.media_type) == (layer["digest"], layer["size"], layer["mediaType"])
        assert store.blobs.places(form.digest, quirks.host) == [repository]
        # Python's zlib made it, and can make it again: it can be pushed as it was, although it is not kept.
        made = bytearray()
        store.blobs.write(form.digest, made.extend)
        assert made == gzip.compress(tar, 1, mtime=0)
    assert store.blobs.places(Digest(image.id), quirks.host) == [repository]


def test_the_second_pull_is_one_head(store: Store, quirks: Quirks, repository: str) -> None:
    name = f"{quirks.host}/{repository}:1"
    quirks.put_image(repository, "1", [BASE, TOP])
    first = store.pull(name)
    assert asked(quirks)[0] == "GET manifests/1"  # no HEAD: there was nothing to compare with
    quirks.requests.clear()
    again = store.pull(name)
    assert (again, again.digest, again.is_newer) == (first, first.digest, False)
    assert asked(quirks) == ["HEAD manifests/1"]


def test_a_name_that_moved_brings_what_is_new(store: Store, quirks: Quirks, repository: str) -> None:
    name = f"{quirks.host}/{repository}:1"
    quirks.put_image(repository, "1", [BASE, TOP])
    old = store.pull(name)
    quirks.put_image(repository, "1", [BASE, OTHER])
    quirks.requests.clear()
    new = store.pull(name)
    assert new.is_newer
    assert new.taken == {name: old.id}
    assert (store.image(old.id).tags, len(store.image(old.id).digests)) == ((), 1)
    assert blobs_asked(quirks) == [new.id, make.digest(gzip.compress(OTHER, 1, mtime=0))]


def test_layers_that_the_store_has_are_not_fetched(store: Store, quirks: Quirks, repository: str) -> None:
    Adder(store)(BASE)
    quirks.put_image(repository, "latest", [BASE, TOP])
    told: list[tuple[str, int, int | None]] = []
    store.pull(f"{quirks.host}/{repository}", progress=lambda *facts: told.append(facts))
    base, top = (make.digest(gzip.compress(tar, 1, mtime=0)) for tar in (BASE, TOP))
    assert base not in blobs_asked(quirks)
    assert top in blobs_asked(quirks)
    assert {label for label, done, total in told if done == total} == {base[7:19], top[7:19]}


def test_an_image_that_the_store_has_gets_its_names(store: Store, quirks: Quirks, repository: str) -> None:
    image = Adder(store)(BASE, TOP, name="mine")
    digest = quirks.put_image(repository, "1", [BASE, TOP])
    pulled = store.pull(f"{quirks.host}/{repository}:1")
    assert (pulled.id, pulled.is_newer) == (image.id, True)
    assert blobs_asked(quirks) == []
    assert pulled.digests == (f"{quirks.host}/{repository}@{digest}",)
    assert store.pull(f"{quirks.host}/{repository}:1").is_newer is False


def test_damaged_image_is_mended(store: Store, quirks: Quirks, repository: str) -> None:
    name = f"{quirks.host}/{repository}"
    quirks.put_image(repository, "latest", [BASE])
    image = store.pull(name)
    [folder] = image.folders.values()
    (folder / "etc/hostname").unlink()
    assert store.check(content=True)
    store.pull(name)
    assert store.check(content=True) == []


def test_by_digest(store: Store, quirks: Quirks, repository: str) -> None:
    name = f"{quirks.host}/{repository}"
    old = quirks.put_image(repository, "1", [BASE])
    quirks.put_image(repository, "1", [BASE, TOP])
    image = store.pull(f"{name}:1@{old}")
    assert (image.layers, image.tags, image.digests) == ((make.digest(BASE),), (), (f"{name}@{old}",))
    quirks.requests.clear()
    assert not store.pull(f"{name}@{old}").is_newer
    assert asked(quirks) == []  # what has this digest has always had it
    with pytest.raises(NotFound):
        store.pull(f"{name}@{make.digest(b'')}")


def test_of_a_repository_all_tags(store: Store, quirks: Quirks, repository: str) -> None:
    quirks.page = 1
    for tag, layers in (("1", [BASE]), ("2", [BASE, TOP]), ("latest", [BASE, TOP])):
        quirks.put_image(repository, tag, layers)
    name = f"{quirks.host}/{repository}"
    assert [image.names for image in store.pull_all(name)] == [(f"{name}:{tag}",) for tag in ("1", "2", "latest")]
    assert len(store.images()) == 2
    with pytest.raises(LayerstoreError, match="one image, not all"):
        list(store.pull_all(f"{name}:1"))
    with pytest.raises(NotFound):
        next(store.pull_all(f"{name}/none"))


@pytest.mark.parametrize("driver", ["overlay2", "vfs", "erofs"])
def test_image_of_many_layers_takes_few_connections(
    open_store: Callable[..., Store], quirks: Quirks, repository: str, driver: str
) -> None:
    layers = [make.layer(make.file(f"file{number}", str(number))) for number in range(60)]
    quirks.put_image(repository, "latest", layers)
    with open_store(storage_driver=driver) as store:
        image = store.pull(f"{quirks.host}/{repository}")
        assert len(image.layers) == 60
        assert store.check(content=True) == []
    assert quirks.connections <= 3
    assert len(quirks.requests) == 62


def test_many_pull_the_same_at_once(open_store: Callable[..., Store], quirks: Quirks, repository: str) -> None:
    """Threads of one process here, processes elsewhere: each layer comes once."""
    quirks.put_image(repository, "latest", [BASE, TOP])
    name = f"{quirks.host}/{repository}"
    failures: list[BaseException] = []

    def pull(store: Store) -> None:
        try:
            store.pull(name)
        except BaseException as error:
            failures.append(error)

    with open_store() as store:
        threads = [threading.Thread(target=pull, args=(store,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert store.check(content=True) == []
    wanted = [make.digest(gzip.compress(tar, 1, mtime=0)) for tar in (BASE, TOP)]
    assert sorted(digest for digest in blobs_asked(quirks) if digest in wanted) == sorted(wanted)


def test_registry_in_the_place_of_an_archive(store: Store, quirks: Quirks, repository: str) -> None:
    digest = quirks.put_image(repository, "1", [BASE])
    source = f"docker://{quirks.host}/{repository}:1"
    [image] = store.load(source)
    assert (image.names, image.digests) == ((source[9:],), (f"{quirks.host}/{repository}@{digest}",))
    [again] = store.load(source, names=["mine", "mine:2"])
    assert again.names == ("mine:latest", "mine:2")
    assert set(again.tags) == {"mine:2", "mine:latest", source[9:]}
    with pytest.raises(LayerstoreError, match="nothing to choose"):
        store.load(source, only=["x"])


# --- how it is fetched


def test_blobs_of_layers_that_follow_one_another_are_fetched_ahead(
    open_store: Callable[..., Store], quirks: Quirks, repository: str
) -> None:
    quirks.put_image(repository, "latest", [BASE, TOP, OTHER])
    base = make.digest(gzip.compress(BASE, 1, mtime=0))
    quirks.spoil("GET", base, spoil.late(0.5))
    with open_store(storage_driver="vfs") as store:
        assert len(store.pull(f"{quirks.host}/{repository}").layers) == 3
    times = {seen.path.rpartition("/")[2]: seen.at for seen in quirks.requests}
    for tar in (TOP, OTHER):
        assert times[make.digest(gzip.compress(tar, 1, mtime=0))] < times[base] + 0.4


def test_no_more_come_at_once_than_are_allowed(
    open_store: Callable[..., Store], quirks: Quirks, repository: str
) -> None:
    quirks.put_image(repository, "latest", [BASE, TOP, OTHER])
    with open_store(max_concurrent_downloads=1) as store:
        store.pull(f"{quirks.host}/{repository}")
    assert quirks.connections == 1


def test_what_the_manifest_has_is_not_asked_for(store: Store, quirks: Quirks, repository: str) -> None:
    blob, config = gzip.compress(BASE, mtime=0), make.config([BASE])
    entries = [
        {**quirks.describe(repository, data, kind), "data": base64.b64encode(data).decode()}
        for data, kind in ((config, memory.CONFIG), (blob, memory.LAYER + "+gzip"))
    ]
    quirks.blobs.clear()
    quirks.put_manifest(repository, "latest", {"schemaVersion": 2, "config": entries[0], "layers": entries[1:]})
    assert store.pull(f"{quirks.host}/{repository}").layers == (make.digest(BASE),)
    assert asked(quirks) == ["GET manifests/latest"]


@pytest.mark.parametrize("has_it", [False, True])
def test_foreign_layer_comes_from_elsewhere_unless_the_registry_has_it(
    store: Store,
    quirks: Quirks,
    elsewhere: Quirks,
    repository: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_it: bool,
) -> None:
    blob, config = gzip.compress(BASE, mtime=0), make.config([BASE])
    layer = quirks.describe(repository, blob, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    if not has_it:
        del quirks.blobs[repository, make.digest(blob)]
    elsewhere.put_blob("far", blob)
    layer["urls"] = ["ftp://127.0.0.1/x", f"{elsewhere.url}/nothing", f"{elsewhere.url}/v2/far/blobs/{layer['digest']}"]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": quirks.describe(repository, config, "application/vnd.docker.container.image.v1+json"),
        "layers": [layer],
    }
    quirks.put_manifest(repository, "latest", manifest, manifest["mediaType"])
    quirks.users = {"anna": "secret"}
    account = {"auth": base64.b64encode(b"anna:secret").decode()}
    (tmp_path / "config.json").write_text(json.dumps({"auths": {quirks.host: account, elsewhere.host: account}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert store.pull(f"{quirks.host}/{repository}").layers == (make.digest(BASE),)
    assert bool(elsewhere.requests) != has_it
    assert [seen.authorization for seen in elsewhere.requests if seen.authorization] == []


def test_mirror_is_asked_for_what_the_hub_has(open_store: Callable[..., Store], quirks: Quirks) -> None:
    digest = quirks.put_image("library/tool", "1", [BASE])
    with open_store(registry_mirrors=(quirks.url,)) as store:
        image = store.pull("tool:1")
        assert (image.tags, image.digests) == (("tool:1",), (f"tool@{digest}",))


# --- kept blobs


def test_blobs_are_kept_where_that_is_wanted(open_store: Callable[..., Store], quirks: Quirks, repository: str) -> None:
    quirks.put_image(repository, "latest", [BASE, TOP])
    with open_store(keep_blobs=True) as store:
        image = store.pull(f"{quirks.host}/{repository}")
        for tar in (BASE, TOP):
            blob = gzip.compress(tar, 1, mtime=0)
            kept = bytearray()
            store.blobs.write(Digest(make.digest(blob)), kept.extend)
            assert kept == blob
        assert partials(store) == []
        assert store.check(content=True) == []
        # They are there for a day after the image went: what is pulled again is not fetched again.
        image.remove()
        quirks.requests.clear()
        store.pull(f"{quirks.host}/{repository}")
        assert blobs_asked(quirks) == [image.id]


def test_kept_blob_that_is_damaged_is_fetched_again(
    open_store: Callable[..., Store], quirks: Quirks, repository: str
) -> None:
    quirks.put_image(repository, "latest", [BASE])
    name = make.digest(gzip.compress(BASE, 1, mtime=0))
    with open_store(keep_blobs=True) as store:
        store.pull(f"{quirks.host}/{repository}").remove()
        file = store.data_root / "blobs/sha256" / name[7:]
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        store.pull(f"{quirks.host}/{repository}")
        assert store.check(content=True) == []
        assert make.digest(file.read_bytes()) == name


# --- which platform


def index(server: Quirks, repository: str, platforms: dict[str, Sequence[bytes]], tag: str = "latest") -> str:
    entries = []
    for name, layers in platforms.items():
        system, architecture, *variant = name.split("/")
        config = make.config(
            layers, os=system, architecture=architecture, **({"variant": variant[0]} if variant else {})
        )
        digest = server.put_image(repository, None, layers, config=config)
        entries.append(
            {
                "mediaType": memory.MANIFEST,
                "digest": digest,
                "size": len(server.manifests[repository, digest][1]),
                "platform": {
                    "os": system,
                    "architecture": architecture,
                    **({"variant": variant[0]} if variant else {}),
                },
            }
        )
    entries.insert(
        0,
        {
            **entries[0],
            "digest": make.digest(b"attestation"),
            "platform": {"os": "unknown", "architecture": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
        },
    )
    content = {"schemaVersion": 2, "mediaType": memory.INDEX, "manifests": entries}
    return server.put_manifest(repository, tag, content, memory.INDEX)


def test_platform_is_chosen(store: Store, quirks: Quirks, repository: str) -> None:
    digest = index(quirks, repository, {"linux/arm64": [TOP], "linux/amd64": [BASE], "linux/arm/v7": [OTHER]})
    name = f"{quirks.host}/{repository}"
    arm = store.pull(name, platform="linux/arm64/v8")
    assert (arm.layers, arm.digest, arm.digests) == ((make.digest(TOP),), digest, (f"{name}@{digest}",))
    amd = store.pull(name, platform="amd64")
    assert (amd.layers, amd.is_newer) == ((make.digest(BASE),), True)
    assert {manifest.digest for manifest in store.blobs.manifests_of(amd.id)} > {digest}
    quirks.requests.clear()
    assert not store.pull(name, platform="linux/amd64").is_newer
    assert asked(quirks) == ["HEAD manifests/latest"]


def test_platform_that_there_is_not_is_told_with_those_that_there_are(
    store: Store, quirks: Quirks, repository: str
) -> None:
    index(quirks, repository, {"linux/arm64": [TOP], "windows/amd64": [BASE]})
    quirks.put_image(repository, "single", [BASE])
    with pytest.raises(InvalidArchive, match="has no image for linux/s390x") as caught:
        store.pull(f"{quirks.host}/{repository}", platform="linux/s390x")
    assert caught.value.remedy == "It has linux/arm64, windows/amd64: ask for one of these."
    with pytest.raises(InvalidArchive, match="has no image for linux/s390x") as caught:
        store.pull(f"{quirks.host}/{repository}:single", platform="linux/s390x")
    assert caught.value.remedy == "It has linux/amd64: ask for that."
    assert store.images() == []
    store.pull(f"{quirks.host}/{repository}:single")
    with pytest.raises(InvalidArchive, match="has no image for linux/s390x"):
        store.pull(f"{quirks.host}/{repository}:single", platform="linux/s390x")


def test_index_in_an_index(store: Store, quirks: Quirks, repository: str) -> None:
    inner = index(quirks, repository, {"linux/amd64": [BASE]})
    entry = {"mediaType": memory.INDEX, "digest": inner, "size": len(quirks.manifests[repository, inner][1])}
    outer = {"schemaVersion": 2, "mediaType": memory.INDEX, "manifests": [entry]}
    quirks.put_manifest(repository, "latest", outer, memory.INDEX)
    assert store.pull(f"{quirks.host}/{repository}", platform="linux/amd64").layers == (make.digest(BASE),)


# --- what is refused


def assert_refused(store: Store, name: str, kind: type[LayerstoreError], words: str) -> LayerstoreError:
    with pytest.raises(kind, match=words) as caught:
        store.pull(name)
    assert caught.value.remedy
    assert store.images() == []
    assert store.check() == []
    return caught.value


def test_wrong_bytes_name_the_blob_and_are_thrown_away(store: Store, quirks: Quirks, repository: str) -> None:
    quirks.put_image(repository, "latest", [BASE, TOP])
    name = make.digest(gzip.compress(BASE, 1, mtime=0))
    quirks.spoil("GET", name, spoil.flipped(700))
    error = assert_refused(
        store, f"{quirks.host}/{repository}", DigestMismatch, f"blob {name} of {quirks.host}/{repository}"
    )
    assert "thrown away" in str(error.remedy)
    assert partials(store) in ([], [make.digest(gzip.compress(TOP, 1, mtime=0))])  # what was right may stay
    quirks.behave()
    store.pull(f"{quirks.host}/{repository}")


def test_wrong_bytes_of_a_plain_layer(store: Store, quirks: Quirks, repository: str) -> None:
    quirks.put_image(repository, "latest", [BASE], compress=False)
    quirks.spoil("GET", make.digest(BASE), spoil.flipped(1200))
    assert_refused(store, f"{quirks.host}/{repository}", DigestMismatch, f"blob {make.digest(BASE)}")
    assert partials(store) == []


def test_content_that_the_config_does_not_say(store: Store, quirks: Quirks, repository: str) -> None:
    quirks.put_image(repository, "latest", [BASE], config=make.config([TOP]))
    assert_refused(store, f"{quirks.host}/{repository}", DigestMismatch, f"blob .* has digest {make.digest(BASE)}")
    assert partials(store) == []


@pytest.mark.parametrize(
    ("alter", "kind", "words"),
    [
        ({"layers": []}, InvalidArchive, "lists 0 layers, but its config has 1"),
        ({"config": "artifact"}, UnsupportedMediaType, "artifact of type application/vnd.cncf.helm.config"),
        ({"layers": "encrypted"}, UnsupportedMediaType, "Decrypt|not known"),
        ({"layers": "negative"}, InvalidArchive, "-1 is no size"),
        ({"layers": "gone"}, NotFound, "sha256:"),
    ],
)
def test_manifest_that_cannot_be_used(
    store: Store, quirks: Quirks, repository: str, alter: dict[str, Any], kind: type[LayerstoreError], words: str
) -> None:
    digest = quirks.put_image(repository, "latest", [BASE])
    manifest = json.loads(quirks.manifests[repository, digest][1])
    match alter:
        case {"config": "artifact"}:
            manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
        case {"layers": "encrypted"}:
            manifest["layers"][0]["mediaType"] += "+encrypted"
        case {"layers": "negative"}:
            manifest["layers"][0]["size"] = -1
        case {"layers": "gone"}:
            del quirks.blobs[repository, manifest["layers"][0]["digest"]]
        case _:
            manifest |= alter
    quirks.put_manifest(repository, "latest", manifest, manifest["mediaType"])
    assert_refused(store, f"{quirks.host}/{repository}", kind, words)


def test_manifest_of_schema_1(store: Store, quirks: Quirks, repository: str) -> None:
    """Which registries give out whatever a client says it takes."""
    data = json.dumps({"schemaVersion": 1, "name": repository, "fsLayers": [], "history": []}).encode()
    headers = {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}
    quirks.spoil("GET", "/manifests/", lambda seen, answer: Answer(200, headers, data))
    assert_refused(store, f"{quirks.host}/{repository}", UnsupportedMediaType, "schema 1")


def test_no_such_image(store: Store, quirks: Quirks, repository: str) -> None:
    assert_refused(store, f"{quirks.host}/{repository}:none", NotFound, f"{repository}:none")


def test_failed_layer_does_not_wait_for_a_silent_one(store: Store, quirks: Quirks, repository: str) -> None:
    quirks.put_image(repository, "latest", [BASE, TOP, OTHER])
    silent, wrong = (make.digest(gzip.compress(tar, 1, mtime=0)) for tar in (BASE, TOP))
    quirks.spoil("GET", silent, spoil.stall(100))
    quirks.spoil("GET", wrong, spoil.late(0.1))
    quirks.spoil("GET", wrong, spoil.flipped(20))
    began = threading.Event()
    timer = threading.Timer(1.9, began.set)
    timer.start()
    with pytest.raises(DigestMismatch):
        store.pull(f"{quirks.host}/{repository}")
    assert not began.is_set()
    timer.cancel()
    assert store.images() == []


# --- where there is no room for what came


def test_pull_goes_on_without_room_for_partial_files(
    store: Store, quirks: Quirks, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerstore.blobs.partials.MOST", 1000)
    quirks.put_image(repository, "latest", [BASE, TOP, OTHER])
    store.pull(f"{quirks.host}/{repository}")
    assert store.check(content=True) == []
    assert len(blobs_asked(quirks)) == 4


def test_image_for_which_there_is_hardly_room(
    own_filesystem: Callable[..., Path], quirks: Quirks, repository: str
) -> None:
    """Two thirds of the disk, and not compressed: it could not be there twice."""
    disk = own_filesystem("ext4", size=24 << 20)
    config = layerstore.Config(data_root=disk / "store", exec_root=disk / "exec", storage_driver="overlay2")
    with layerstore.open(config=config) as store:
        left = os.statvfs(disk)
        size = left.f_bavail * left.f_frsize * 2 // 3
        layer = make.layer(make.file("random", random.Random(1).randbytes(size)))
        quirks.put_image(repository, "1", [layer], compress=False)
        quirks.put_image(repository, "2", [make.layer(make.file("zeros", bytes(3 * size)))])
        store.pull(f"{quirks.host}/{repository}:1").remove()
        store.wait()
        with pytest.raises(KernelError) as caught:
            store.pull(f"{quirks.host}/{repository}:2")
        assert caught.value.errno == errno.ENOSPC
        assert store.images() == []
        assert store.check() == []
        store.pull(f"{quirks.host}/{repository}:1")
        assert store.check(content=True) == []


def test_pull_goes_on_beside_another_that_has_the_partial_file(store: Store, quirks: Quirks, repository: str) -> None:
    quirks.put_image(repository, "latest", [BASE])
    with store.blobs.partial(make.digest(gzip.compress(BASE, 1, mtime=0))) as taken:
        assert taken is not None
        store.pull(f"{quirks.host}/{repository}")
    assert store.check(content=True) == []
