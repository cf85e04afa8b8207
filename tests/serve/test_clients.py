"""Other programs against what we serve: skopeo and podman pull and push, and so do we, from store to store."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import layerstore
from serve.client import INDEX, Client, digest
from support import images

if TYPE_CHECKING:
    from layerstore import Image, Store
    from layerstore.faces.serve.server import Server

pytestmark = pytest.mark.root

TARS = [
    images.layer(
        images.folder("etc"),
        images.file("etc/hosts", "localhost\n", mode=0o600, uid=7, gid=8),
        images.hard_link("etc/hard", "etc/hosts"),
        images.file("gone", "soon"),
    ),
    images.layer(images.file("etc/motd", "hello\n", xattrs={"user.colour": b"blue"}), images.whiteout("gone")),
]
CONFIG = images.config(TARS)
IMAGE = images.digest(CONFIG)


def run(*command: str | Path) -> str:
    """The output of a program that has to succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def ours(store: Store, tmp_path: Path) -> Image:
    """The image in the store that is served, with a name."""
    [image] = store.load(images.docker_archive(tmp_path / "in.tar", TARS, ["team/app:1"], image_config=CONFIG))
    return image


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """The image as an OCI layout, made with Python's own modules."""
    return images.oci_layout(tmp_path / "layout", TARS, "1", image_config=CONFIG)


@pytest.fixture
def podman(backing: Callable[[str], Path]) -> Iterator[list[str | Path]]:
    """podman with a storage of its own. It accepts no long names for the second folder."""
    with tempfile.TemporaryDirectory(prefix="p-") as run_root:
        yield ["podman", "--root", backing("ext4"), "--runroot", run_root, "--storage-driver", "vfs"]


@pytest.fixture
def elsewhere(backing: Callable[[str], Path]) -> Iterator[Store]:
    """Another store, on another machine as far as it knows."""
    root = backing("ext4")
    config = layerstore.Config(data_root=root / "root", exec_root=root / "exec", storage_driver="overlay2")
    with layerstore.open(config=config) as store:
        yield store


def manifest_in(layout: Path) -> bytes:
    """The one manifest of a layout, or its index."""
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    return (layout / "blobs" / "sha256" / entry["digest"][7:]).read_bytes()


@pytest.mark.tools("skopeo")
def test_skopeo_pulls_what_we_load(ours: Image, server: Server, tmp_path: Path) -> None:
    source = f"docker://127.0.0.1:{server.port}/team/app:1"
    run("skopeo", "copy", "-q", "--src-tls-verify=false", source, f"dir:{tmp_path}/copy")
    for content in (CONFIG, *TARS):
        assert (tmp_path / "copy" / digest(content)[7:]).read_bytes() == content
    facts = json.loads(run("skopeo", "inspect", "--tls-verify=false", source))
    assert (facts["RepoTags"], facts["Layers"]) == (["1"], list(ours.layers))


@pytest.mark.tools("skopeo")
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_skopeo_pushes_and_pulls_the_same_bytes(store: Store, server: Server, tmp_path: Path, compression: str) -> None:
    layout = images.oci_layout(tmp_path / "layout", TARS, "1", image_config=CONFIG, compression=compression)
    target = f"docker://127.0.0.1:{server.port}/team/app:2"
    run("skopeo", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", f"oci:{layout}:1", target)
    image = store.image("team/app:2")
    assert (image.id, image.digests) == (IMAGE, (f"team/app@{digest(manifest_in(layout))}",))
    with image.mount() as root:
        assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == [
            "etc", "etc/hard", "etc/hosts", "etc/motd"
        ]  # fmt: skip
    store.blobs.prune()  # what can be made again is not kept twice
    run("skopeo", "copy", "-q", "--src-tls-verify=false", target, f"dir:{tmp_path}/back")
    assert (tmp_path / "back" / "manifest.json").read_bytes() == manifest_in(layout)
    run("skopeo", "delete", "--tls-verify=false", target)
    assert store.images() == []
    assert store.check(content=True) == []


@pytest.mark.tools("skopeo")
def test_skopeo_pushes_an_index(store: Store, server: Server, client: Client, tmp_path: Path) -> None:
    """All platforms are kept, and the one for this machine is the image."""
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    images.oci_layout(tmp_path / "layout", TARS, "1", image_config=CONFIG)
    entries = []
    for architecture in ("amd64", "s390x"):
        config = images.config(TARS, architecture=architecture)
        fields = json.loads(manifest_in(tmp_path / "layout"))
        fields["config"] |= {"digest": digest(config), "size": len(config)}
        document = json.dumps(fields).encode()
        for content in (config, document):
            (blobs / digest(content)[7:]).write_bytes(content)
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": fields["mediaType"], "digest": digest(document), "size": len(document)})
        entries[-1]["platform"] = platform
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    (blobs / digest(index)[7:]).write_bytes(index)
    top = {"mediaType": INDEX, "digest": digest(index), "size": len(index)}
    top["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (tmp_path / "layout" / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))

    target = f"docker://127.0.0.1:{server.port}/team/app:1"
    run("skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:1", target)
    [image] = store.images()
    assert (image.tags, image.digests) == (("team/app:1",), (f"team/app@{digest(index)}",))
    assert client("GET", "/v2/team/app/manifests/1").body == index
    single = client("GET", "/v2/team/app/manifests/1", Accept=entries[0]["mediaType"])
    assert single.json["config"]["digest"] == image.id, "for who takes no index"
    run("skopeo", "copy", "-q", "--all", "--src-tls-verify=false", target, f"oci:{tmp_path}/back:1")
    assert manifest_in(tmp_path / "back") == index


@pytest.mark.tools("podman")
def test_podman_pulls_and_pushes(store: Store, ours: Image, server: Server, podman: list[str | Path]) -> None:
    name = f"127.0.0.1:{server.port}/team/app"
    assert run(*podman, "pull", "-q", "--tls-verify=false", f"{name}:1").strip() == IMAGE[7:]
    run(*podman, "tag", f"{name}:1", f"127.0.0.1:{server.port}/quay.io/x/y:2")
    run(*podman, "push", "-q", "--tls-verify=false", f"127.0.0.1:{server.port}/quay.io/x/y:2")
    image = store.image("quay.io/x/y:2")
    with image.mount() as root:
        assert (root / "etc/motd").read_text() == "hello\n"
    run(*podman, "rmi", "--all", "--force")
    assert run(*podman, "pull", "-q", "--tls-verify=false", f"127.0.0.1:{server.port}/quay.io/x/y:2").strip()


def test_one_store_pulls_from_another(ours: Image, server: Server, elsewhere: Store) -> None:
    name = f"127.0.0.1:{server.port}/team/app:1"
    pulled = elsewhere.pull(name)
    assert elsewhere.image(name).id == IMAGE == ours.id
    assert [*pulled.layers] == [images.digest(tar) for tar in TARS]
    assert elsewhere.check(content=True) == []


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_one_store_pushes_to_another(
    store: Store, server: Server, elsewhere: Store, tmp_path: Path, compression: str
) -> None:
    name = f"127.0.0.1:{server.port}/team/app:3"
    elsewhere.load(images.docker_archive(tmp_path / "in.tar", TARS, [name], image_config=CONFIG))
    pushed = elsewhere.push(name, compression=compression)
    image = store.image("team/app:3")
    assert (image.id, image.digests) == (IMAGE, (f"team/app@{pushed.digest}",))
    assert elsewhere.push(name, compression=compression) == pushed
    elsewhere.remove_image(name)
    assert elsewhere.pull(name).id == IMAGE
    assert store.check(content=True) == elsewhere.check(content=True) == []
