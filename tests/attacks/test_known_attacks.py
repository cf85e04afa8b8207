"""Every known attack on each driver: refused, without a trace, or harmless, with exactly the tree that it says.

By day on one driver that mounts layers and on one that copies trees; by night on all of them.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attacks.cases import ATTACKS, Attack
from attacks.conftest import Opened, require_empty
from layerstore import InvalidArchive, LayerstoreError, LimitExceeded, NotFound, Store
from layerstore.driver import Dialect
from layerstore.runtime.bundle import beneath
from layerstore.tar import unpack
from layerstore.testing import trees
from layerstore.testing.tars import archive, file, symlink
from support import images
from support.properties import NIGHTLY
from tar.bounds import bounded
from transfer.archives import encoded, manifest, tar

pytestmark = pytest.mark.root

HOMES = {"overlay2": "ext4", "btrfs": "btrfs", "erofs": "ext4"} | ({"vfs": "ext4", "aufs": "ext4"} if NIGHTLY else {})


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest, backing: Callable[[str], Path]) -> tuple[str, Path]:
    """A driver, and a folder for a store of it."""
    return request.param, backing(HOMES[request.param])


@pytest.fixture
def target(home: tuple[str, Path], limited: Opened) -> Store:
    """A store, beside a folder that may not change."""
    return limited(driver=home[0], root=home[1] / "store")


@pytest.fixture
def canary(home: tuple[str, Path]) -> Iterator[Path]:
    """A folder of the host, as it was at the end."""
    place = home[1] / "canary"
    (place / "sub").mkdir(parents=True)
    (place / "file").write_text("as it was")
    (place / "secret").write_text("of the host")
    for path in (place / "file", place / "sub", place):
        os.utime(path, ns=(5, 5))
    before = trees.listing(place)
    yield place
    trees.assert_same(before, trees.listing(place))


def seen(root: Path, canary: Path) -> dict[str, str]:
    """What a tree shows, as `Attack.tree` has it."""
    within = str(canary).lstrip("/")
    above = {within[:at] for at, char in enumerate(within) if char == "/"}
    found = {}
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(folder) / name
            shown = str(path.relative_to(root))
            if shown in above:
                continue
            shown = "@" + shown.removeprefix(within) if f"{shown}/".startswith(f"{within}/") else shown
            if path.is_symlink():
                found[shown] = "-> " + os.readlink(path).replace(str(canary), "canary")
            elif path.is_dir():
                found[shown] = "dir"
            else:
                found[shown] = path.read_bytes().rstrip(b"\0").split(b"\0")[0].decode()
    return found


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.number)
def test_a_known_attack(attack: Attack, target: Store, canary: Path, tmp_path: Path) -> None:
    layers = list(attack.layers(os.fsencode(canary)))
    source = images.oci_layout(tmp_path / "layout", layers)
    if attack.tree is None:
        with pytest.raises(LayerstoreError) as caught:
            target.load(source)
        assert attack.refusal in str(caught.value), caught.value
        require_empty(target)
    else:
        [image] = target.load(source)
        with image.mount() as root:
            assert seen(root, canary) == attack.tree
        assert target.check() == []


# --- those that are no layers ---


def test_cve_2014_9357_no_program_of_a_layer_unpacks_it(target: Store, canary: Path) -> None:
    """Docker started the image's own xz, to unpack the rest of it."""
    script = f"#!/bin/sh\necho changed >{canary}/file\n".encode()
    programs = [file(b"usr/bin/" + name, script, mode=0o755) for name in (b"xz", b"unxz", b"gzip", b"zstd", b"tar")]
    image = target.import_tar(io.BytesIO(lzma.compress(archive(*programs))), "programs")
    with image.mount() as root:
        assert (root / "usr/bin/xz").read_bytes() == script


@pytest.mark.parametrize("member", ["../../canary/file", "/../../canary/file", "a/../../../canary/file"])
def test_cve_2014_9358_no_name_in_an_archive_is_a_path_of_the_host(
    member: str, target: Store, canary: Path, tmp_path: Path
) -> None:
    """Docker took an image's ID, which an archive said, for a name of a file."""
    config = images.config([b""])
    for made in (manifest(member, ["layer.tar"]), manifest("config.json", [member])):
        data = tar([("config.json", config), ("layer.tar", b""), ("manifest.json", made)])
        (tmp_path / "image.tar").write_bytes(data)
        with pytest.raises(InvalidArchive):
            target.load(tmp_path / "image.tar")
        with pytest.raises(InvalidArchive):
            target.load(io.BytesIO(gzip.compress(data)))
        require_empty(target)


def test_cve_2024_3727_no_digest_is_a_path_of_the_host(target: Store, canary: Path, tmp_path: Path) -> None:
    """containers/image used digests, which manifests said, unchecked: as names of files, and in requests."""
    layout = images.oci_layout(tmp_path / "layout", [archive(file(b"f"))])
    index = layout / "index.json"
    for wrong in (b"sha256:../../../canary/file", b"sha256:" + b"/" * 64, b"../canary:" + b"0" * 64):
        index.write_bytes(
            encoded(
                {
                    "schemaVersion": 2,
                    "manifests": [
                        {
                            "mediaType": "application/vnd.oci.image.manifest.v1+json",
                            "digest": wrong.decode(),
                            "size": 9,
                        }
                    ],
                }
            )
        )
        with pytest.raises(InvalidArchive, match="digest"):
            target.load(layout)
    require_empty(target)


def test_cve_2021_41190_a_manifest_that_is_an_index_as_well_is_neither(target: Store, tmp_path: Path) -> None:
    """The same bytes were one image to some, and another to others, by the media type that they came with."""
    layout = images.oci_layout(tmp_path / "layout", [archive(file(b"f"))])
    blobs = {path.name: path for path in (layout / "blobs" / "sha256").iterdir()}
    index = json.loads((layout / "index.json").read_bytes())
    described = index["manifests"][0]
    both = json.loads(blobs[described["digest"][7:]].read_bytes()) | {"manifests": []}
    data = encoded(both)
    described |= {"digest": images.digest(data), "size": len(data)}
    (layout / "blobs" / "sha256" / images.digest(data)[7:]).write_bytes(data)
    (layout / "index.json").write_bytes(encoded(index))
    with pytest.raises(InvalidArchive, match="index"):
        target.load(layout)
    require_empty(target)


def test_cve_2023_25153_an_index_without_end_takes_no_memory(target: Store, tmp_path: Path) -> None:
    """containerd read the index of an archive into memory, however long it was."""
    layout = images.oci_layout(tmp_path / "layout", [archive(file(b"f"))])
    os.truncate(layout / "index.json", 1 << 40)

    def load() -> None:
        with pytest.raises(LimitExceeded, match="max-manifest-size"):
            target.load(layout)

    bounded(load, seconds=20, memory=32 << 20)


def test_cve_2017_14992_padding_without_end_takes_no_memory(backing: Callable[[str], Path]) -> None:
    """Docker kept what follows a tar's end in one piece, inflated, though it was nothing but zeros."""
    place = backing("ext4")
    (place / "tree").mkdir()
    source = Endless(archive(file(b"f")), 192 << 20)

    def load() -> int:
        return unpack(source, place / "tree", dialect=Dialect.OVERLAY, skeleton=place / "skeleton").size

    assert bounded(load, seconds=60, memory=64 << 20) > 192 << 20
    assert (place / "skeleton").stat().st_size < 1 << 20


class Endless:
    """A tar, and zeros after it."""

    def __init__(self, begin: bytes, zeros: int) -> None:
        self._begin = begin
        self._left = zeros

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self._begin) or self._left)
        if self._begin:
            buffer[:count], self._begin = self._begin[:count], self._begin[count:]
        else:
            buffer[:count] = bytes(count)
            self._left -= count
        return count


def test_cve_2021_20291_xz_that_is_broken_ends(target: Store) -> None:
    """containers/storage waited for ever for a reader of data that were no xz."""
    data = lzma.compress(archive(file(b"f", os.urandom(100_000))))
    for wrong in (data[:6] + b"\xff" * 50, data[:-40], data[:50_000] + b"\0" * 50_000):
        with pytest.raises(InvalidArchive):
            target.import_tar(io.BytesIO(wrong))
    require_empty(target)


def test_cve_2019_10152_cp_follows_no_link_of_a_container_to_the_host(
    target: Store, canary: Path, tmp_path: Path
) -> None:
    """podman's and docker's cp (CVE-2018-15664, CVE-2019-18466, CVE-2021-41089) read and wrote files of the host."""
    tar = archive(symlink(b"l", os.fsencode(canary)), symlink(b"f", os.fsencode(canary) + b"/secret"), file(b"g"))
    target.import_tar(io.BytesIO(tar), "links")
    box = target.create_container("links", name="box")
    with pytest.raises(NotFound):
        box.copy_out("/l/secret", tmp_path / "out")
    with pytest.raises(NotFound):
        box.copy_out("/f", tmp_path / "out", follow=True)
    assert not (tmp_path / "out").exists()
    (tmp_path / "in").mkdir(mode=0o777)
    (tmp_path / "in" / "file").write_text("changed")
    for where in ("/l", "/l/", "/f"):
        with pytest.raises(LayerstoreError):
            box.copy_in(tmp_path / "in", where)
    box.remove()


def test_cve_2024_9676_users_are_read_in_the_image_alone(target: Store, canary: Path) -> None:
    """containers/storage read /etc/passwd through a link, on the host: a FIFO there, and it waited for ever."""
    os.mkfifo(canary.parent / "pipe")
    links = [
        symlink(b"etc/passwd", os.fsencode(canary.parent) + b"/pipe"),
        symlink(b"etc/group", os.fsencode(canary) + b"/secret"),
    ]
    image = target.import_tar(io.BytesIO(archive(*links, file(b"etc/shadow"))), "users")
    with image.open_tree() as tree:
        assert beneath.text(tree, "/etc/passwd") == beneath.text(tree, "/etc/group") == ""
