"""What others write, we read; what we write, they read. Their programs are asked, on a small image of two layers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pytest

from layerstore.testing import trees
from support import images

if TYPE_CHECKING:
    from layerstore import Image, Store

pytestmark = pytest.mark.root

LAYERS = [
    images.layer(
        images.folder("etc", mtime=1_600_000_000),
        images.file("etc/hosts", "localhost\n", mode=0o600, uid=7, gid=8),
        images.symlink("etc/link", "hosts"),
        images.hard_link("etc/hard", "etc/hosts"),
        images.file("gone", "soon"),
        images.folder("hidden"),
        images.file("hidden/below", "x"),
    ),
    images.layer(
        images.folder("etc", mtime=1_600_000_001),
        images.file("etc/motd", "hello\n", xattrs={"user.colour": b"blue"}),
        images.whiteout("gone"),
        images.folder("hidden"),
        images.opaque("hidden"),
        images.file("hidden/above", "y"),
    ),
]
CONFIG = images.config(LAYERS)
IMAGE = images.digest(CONFIG)
DIFF_IDS = [images.digest(layer) for layer in LAYERS]
NAME = "localhost/team/peers:1.0"


def run(*command: str | Path) -> str:
    """The output of a program that has to succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """The image as an OCI layout, made with Python's own modules."""
    return images.oci_layout(tmp_path / "original", LAYERS, "1.0", image_config=CONFIG)


@pytest.fixture
def ours(store: Store, original: Path) -> Image:
    """The image in a store, with its name."""
    [image] = store.load(original)
    image.tag(NAME)
    return store.image(NAME)


@pytest.fixture
def podman(backing: Callable[[str], Path]) -> Iterator[list[str | Path]]:
    """podman with a storage of its own. It accepts no long names for the second folder."""
    with tempfile.TemporaryDirectory(prefix="p-") as run_root:
        yield ["podman", "--root", backing("ext4"), "--runroot", run_root, "--storage-driver", "vfs"]


SAVED = [
    pytest.param({"format": "docker-archive"}, id="docker-archive"),
    pytest.param({"format": "oci", "compression": "gzip"}, id="oci-gzip"),
    pytest.param({"format": "oci", "compression": "zstd"}, id="oci-zstd"),
    pytest.param({"format": "oci", "compression": "none"}, id="oci-plain"),
]


# --- what we write ---


@pytest.mark.tools("skopeo")
@pytest.mark.parametrize("form", SAVED)
def test_skopeo_reads_what_we_save(store: Store, ours: Image, tmp_path: Path, form: dict[str, Any]) -> None:
    store.save(ours, tmp_path / "out.tar", **form)
    store.save(ours, tmp_path / "out", folder=True, **form)
    transports = [f"oci-archive:{tmp_path}/out.tar:1.0", f"oci:{tmp_path}/out:1.0"]
    if form["format"] == "docker-archive":
        transports.append(f"docker-archive:{tmp_path}/out.tar:{NAME}")
    for number, transport in enumerate(transports):
        assert json.loads(run("skopeo", "inspect", "--config", transport))["rootfs"]["diff_ids"] == DIFF_IDS
        # A copy reads and verifies every byte.
        run("skopeo", "copy", "-q", transport, f"dir:{tmp_path}/copy{number}")
        assert (tmp_path / f"copy{number}" / IMAGE[7:]).read_bytes() == CONFIG


@pytest.mark.tools("podman")
@pytest.mark.parametrize("form", SAVED)
def test_podman_loads_what_we_save(
    store: Store, ours: Image, tmp_path: Path, podman: list[str | Path], form: dict[str, Any]
) -> None:
    store.save(ours, tmp_path / "out.tar", **form)
    assert run(*podman, "load", "-q", "-i", tmp_path / "out.tar").split() == ["Loaded", "image:", NAME]
    [facts] = json.loads(run(*podman, "inspect", NAME))
    assert "sha256:" + facts["Id"] == IMAGE
    assert facts["RootFS"]["Layers"] == DIFF_IDS


@pytest.mark.tools("umoci")
@pytest.mark.parametrize("form", [SAVED[0], SAVED[1], SAVED[3]])  # umoci 0.4.7 knows no zstd
def test_umoci_unpacks_what_we_save(
    store: Store, ours: Image, tmp_path: Path, backing: Callable[[str], Path], form: dict[str, Any]
) -> None:
    store.save(ours, tmp_path / "out", folder=True, **form)
    bundle = backing("ext4") / "bundle"
    run("umoci", "unpack", "--image", f"{tmp_path}/out:1.0", bundle)
    with ours.mount() as root:
        # umoci touches a folder when it removes something from it.
        trees.assert_same(trees.listing(root), trees.listing(bundle / "rootfs"), ignoring=("mtime_ns",))


@pytest.mark.tools("buildah")
def test_buildah_pulls_what_we_save(store: Store, ours: Image, tmp_path: Path, backing: Callable[[str], Path]) -> None:
    store.save(ours, tmp_path / "out.tar")
    with tempfile.TemporaryDirectory(prefix="p-") as run_root:
        buildah: list[str | Path] = [
            "buildah",
            "--root",
            backing("ext4"),
            "--runroot",
            run_root,
            "--storage-driver",
            "vfs",
        ]
        assert run(*buildah, "pull", "-q", f"docker-archive:{tmp_path}/out.tar:{NAME}").strip() == IMAGE[7:]


@pytest.mark.tools("tar", "gzip")
def test_tar_unpacks_what_we_save(store: Store, ours: Image, tmp_path: Path) -> None:
    store.save(ours, tmp_path / "out.tar")
    (tmp_path / "out").mkdir()
    run("tar", "-C", tmp_path / "out", "-xf", tmp_path / "out.tar")
    assert (tmp_path / "out/blobs/sha256" / DIFF_IDS[0][7:]).read_bytes() == LAYERS[0]


# --- what we read ---


def loads(store: Store, source: Path, *names: str, rewritten: bool = False) -> None:
    """`source` gives this image, and these names, read as a file and as a stream. `rewritten`: with another config."""
    for opened in (source, None):
        if opened is None:
            if source.is_dir():
                continue
            with source.open("rb") as file, subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) as cat:
                [image] = store.load(cast("BinaryIO", cat.stdout))
        else:
            [image] = store.load(opened)
        assert (list(image.layers), image.tags) == (DIFF_IDS, names)
        assert rewritten or image.id == IMAGE
        with image.mount() as root:
            assert sorted(os.listdir(root / "hidden")) == ["above"]
        store.remove_image(image.id, force=True)


@pytest.mark.tools("skopeo")
def test_we_read_what_skopeo_saves(store: Store, original: Path, tmp_path: Path) -> None:
    source = f"oci:{original}:1.0"
    run("skopeo", "copy", "-q", source, f"docker-archive:{tmp_path}/docker.tar:{NAME}")
    loads(store, tmp_path / "docker.tar", NAME)
    run("skopeo", "copy", "-q", source, f"oci-archive:{tmp_path}/oci.tar:{NAME}")
    loads(store, tmp_path / "oci.tar", NAME)
    run("skopeo", "copy", "-q", source, f"oci:{tmp_path}/oci:some")
    loads(store, tmp_path / "oci")
    run("skopeo", "copy", "-q", "--dest-compress-format", "zstd", source, f"oci:{tmp_path}/zstd:some")
    loads(store, tmp_path / "zstd")


@pytest.mark.tools("podman", "skopeo")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_we_read_what_podman_saves(
    store: Store, original: Path, tmp_path: Path, podman: list[str | Path], form: str
) -> None:
    run("skopeo", "copy", "-q", f"oci:{original}:1.0", f"docker-archive:{tmp_path}/in.tar:{NAME}")
    run(*podman, "load", "-q", "-i", tmp_path / "in.tar")
    run(*podman, "save", "-q", "--format", form, "-o", tmp_path / "out", NAME)
    loads(store, tmp_path / "out", NAME, rewritten=form != "docker-archive")


@pytest.mark.tools("umoci")
def test_we_read_what_umoci_repacks(
    store: Store, original: Path, tmp_path: Path, backing: Callable[[str], Path]
) -> None:
    bundle = backing("ext4") / "bundle"
    run("umoci", "unpack", "--image", f"{original}:1.0", bundle)
    (bundle / "rootfs/etc/new").write_text("new\n")
    (bundle / "rootfs/etc/motd").unlink()
    run("umoci", "repack", "--image", f"{original}:2.0", bundle)
    found = store.load(original)
    assert [len(image.layers) for image in found] == [2, 3]
    with found[1].mount() as root:
        assert sorted(os.listdir(root / "etc")) == ["hard", "hosts", "link", "new"]


@pytest.mark.tools("umoci")
def test_we_read_what_umoci_makes_from_nothing(store: Store, tmp_path: Path, backing: Callable[[str], Path]) -> None:
    layout, bundle = tmp_path / "layout", backing("ext4") / "bundle"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:1.0")
    run("umoci", "unpack", "--image", f"{layout}:1.0", bundle)
    (bundle / "rootfs/file").write_text("1")
    run("umoci", "repack", "--image", f"{layout}:1.0", bundle)
    run("umoci", "gc", "--layout", layout)
    [image] = store.load(layout)
    with image.mount() as root:
        assert (root / "file").read_text() == "1"


@pytest.mark.tools("tar")
@pytest.mark.parametrize("option", ["--format=gnu", "--format=pax", "--format=ustar", "--format=v7"])
def test_we_read_what_tar_packs(store: Store, original: Path, tmp_path: Path, option: str) -> None:
    run("tar", option, "-C", original, "-cf", tmp_path / "out.tar", ".")
    loads(store, tmp_path / "out.tar")
    for program in ("gzip", "zstd", "xz", "bzip2"):
        if shutil.which(program):
            run("tar", option, f"--use-compress-program={program}", "-C", original, "-cf", tmp_path / "out", ".")
            loads(store, tmp_path / "out")
