"""Archives into a store: from a file, a folder, a stream; whole, or not at all."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
import zstandard
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from layerstore.errors import (
    ConfigError,
    DigestMismatch,
    InvalidArchive,
    KernelError,
    LayerstoreError,
    UnsupportedMediaType,
)
from layerstore.layers.diffs import Staged
from layerstore.layers.folders import Folders
from support import images
from support.properties import by_day

from .archives import OCI_CONFIG, OCI_LAYER, Layout, Link, Members, encoded, manifest, platform, staying, tar

if TYPE_CHECKING:
    from layerstore import Store

pytestmark = pytest.mark.root

BASE = images.layer(
    images.folder("etc"), images.file("etc/hosts", "localhost\n"), images.file("big", bytes(range(256)) * 300)
)
TOP = images.layer(images.folder("etc"), images.file("etc/motd", "hello\n"), images.whiteout("big"))
CONFIG = images.config([BASE, TOP])
IMAGE = images.digest(CONFIG)
NAME = "test:latest"


def hexed(data: bytes) -> str:
    return images.digest(data)[7:]


def save_of_docker_24(base: bytes = BASE, top: bytes = TOP) -> Members:
    """What `docker save` wrote before version 25: a folder a layer, what is there twice as a link."""
    return [
        ("1" * 64 + "/VERSION", b"1.0"),
        ("1" * 64 + "/json", b'{"id":"1"}'),
        ("1" * 64 + "/layer.tar", base),
        ("2" * 64 + "/VERSION", b"1.0"),
        ("2" * 64 + "/json", b'{"id":"2"}'),
        ("2" * 64 + "/layer.tar", Link("../" + "3" * 64 + "/layer.tar")),
        ("3" * 64 + "/layer.tar", top),
        (hexed(CONFIG) + ".json", CONFIG),
        ("manifest.json", manifest(hexed(CONFIG) + ".json", ["1" * 64 + "/layer.tar", "2" * 64 + "/layer.tar"])),
        ("repositories", encoded({"test": {"latest": "2" * 64}})),
    ]


def save_of_docker_25() -> Members:
    """What `docker save` writes from version 25 on: an OCI layout, and manifest.json."""
    layout = Layout()
    layout.add(layout.image([BASE, TOP], CONFIG), "docker.io/library/test:latest")
    layers = [f"blobs/sha256/{hexed(layer)}" for layer in (BASE, TOP)]
    return [*layout.files.items(), ("manifest.json", manifest(f"blobs/sha256/{hexed(CONFIG)}", layers))]


def save_of_skopeo() -> Members:
    """skopeo, podman and buildah: digests for names, and the old folders as links."""
    return [
        (hexed(BASE) + ".tar", BASE),
        (hexed(TOP) + ".tar", TOP),
        (hexed(CONFIG) + ".json", CONFIG),
        ("9" * 64 + "/layer.tar", Link(f"../{hexed(TOP)}.tar")),
        ("manifest.json", manifest(hexed(CONFIG) + ".json", [hexed(BASE) + ".tar", hexed(TOP) + ".tar"])),
    ]


def save_of_kaniko() -> Members:
    """kaniko, crane, jib: compressed layers, and a config whose name is its digest."""
    layers = [gzip.compress(layer, mtime=0) for layer in (BASE, TOP)]
    names = [f"{hexed(layer)}.tar.gz" for layer in layers]
    return [
        (IMAGE, CONFIG),
        *zip(names, layers, strict=True),
        ("manifest.json", manifest(IMAGE, names)),
    ]


def oci(compress: Callable[[bytes], bytes], suffix: str) -> Members:
    layout = Layout()
    layers = [layout.put(compress(layer), OCI_LAYER + suffix) for layer in (BASE, TOP)]
    layout.add(layout.manifest(layout.put(CONFIG, OCI_CONFIG), layers), "docker.io/library/test:latest")
    return list(layout.files.items())


FORMS: dict[str, Callable[[], Members]] = {
    "docker-24": save_of_docker_24,
    "docker-25": save_of_docker_25,
    "skopeo": save_of_skopeo,
    "kaniko": save_of_kaniko,
    "manifest-first": lambda: list(reversed(save_of_docker_24())),
    "hard-links": lambda: [
        ("a.tar", BASE),
        ("b.tar", TOP),
        ("c.tar", Link("a.tar", hard=True)),
        ("config.json", CONFIG),
        ("./manifest.json", manifest("config.json", ["/c.tar", "./x/../b.tar"])),
    ],
    "oci-gzip": lambda: oci(gzip.compress, "+gzip"),
    "oci-zstd": lambda: oci(zstandard.ZstdCompressor().compress, "+zstd"),
    "oci-plain": lambda: oci(bytes, ""),
    "oci-gzip-called-plain": lambda: oci(gzip.compress, ""),
    "oci-plain-called-gzip": lambda: oci(bytes, "+gzip"),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.fixture(params=list(FORMS))
def members(request: pytest.FixtureRequest) -> Members:
    return FORMS[request.param]()


def put(folder: Path, members: Members) -> Path:
    """The members as files."""
    for name, content in members:
        path = folder / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
    for name, content in members:
        if isinstance(content, Link):
            path = folder / name
            path.hardlink_to(folder / content.target) if content.hard else path.symlink_to(content.target)
    return folder


class Piped:
    """Bytes that come through a pipe, from another thread."""

    def __init__(self, data: bytes) -> None:
        self.reading, self.writing = os.pipe()
        self.data = data
        self.thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        with open(self.writing, "wb", buffering=0) as pipe:
            try:
                rest = memoryview(self.data)
                while rest:
                    rest = rest[pipe.write(rest[:5000]) :]
            except BrokenPipeError:
                pass

    def __enter__(self) -> BinaryIO:
        self.thread.start()
        self.file = open(self.reading, "rb")
        return self.file

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.thread.join()


def is_loaded(store: Store, name: str = NAME) -> None:
    """The image is there, and its tree is right."""
    image = store.image(name)
    assert image.id == IMAGE
    assert image.config_bytes == CONFIG
    with image.mount() as root:
        assert (root / "etc/hosts").read_text() == "localhost\n"
        assert (root / "etc/motd").read_text() == "hello\n"
        assert not (root / "big").exists()


# --- what there is to be read ---


def test_a_tar_in_a_file(store: Store, tmp_path: Path, members: Members) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(tar(members))
    [image] = store.load(path)
    assert (image.id, image.tags) == (IMAGE, (NAME,))
    is_loaded(store)


def test_a_folder(store: Store, tmp_path: Path, members: Members) -> None:
    [image] = store.load(str(put(tmp_path, members)))
    assert (image.id, image.tags) == (IMAGE, (NAME,))
    is_loaded(store)


def test_a_pipe(store: Store, content: Callable[[], list[str]], members: Members) -> None:
    with Piped(tar(members)) as pipe:
        [image] = store.load(pipe)
    assert (image.id, image.tags) == (IMAGE, (NAME,))
    is_loaded(store)
    assert len(content()) == 1 + 3 + 4  # the image; two layers and `.empty`; two skeletons and their records


def test_a_file_in_memory(store: Store, members: Members) -> None:
    [image] = store.load(io.BytesIO(tar(members)))
    assert image.tags == (NAME,)
    is_loaded(store)


@pytest.mark.parametrize("compression", list(COMPRESSIONS))
def test_a_compressed_tar(store: Store, tmp_path: Path, compression: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(COMPRESSIONS[compression](tar(save_of_docker_24())))
    store.load(path)
    is_loaded(store)


def test_an_open_file_from_where_it_stands(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(b"leader" + tar(save_of_skopeo()))
    with path.open("rb") as file:
        file.read(6)
        store.load(file)
    is_loaded(store)


def test_a_file_that_can_only_read(store: Store) -> None:
    class Reader:
        def __init__(self, data: bytes) -> None:
            self.read = io.BytesIO(data).read

    store.load(Reader(tar(save_of_kaniko())))  # type: ignore[arg-type]
    is_loaded(store)


def test_a_gzip_file_object_is_read_through_not_around(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "image.tar.gz"
    path.write_bytes(gzip.compress(tar(save_of_docker_24())))
    with gzip.open(path) as file:
        store.load(file)  # type: ignore[arg-type]
    is_loaded(store)


@pytest.mark.parametrize("redirected", [True, False])
def test_standard_input(store: Store, data_root: Path, tmp_path: Path, *, redirected: bool) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(tar(save_of_docker_24()))
    code = """
import sys, layerstore
root, exec_root = sys.argv[1:]
settings = layerstore.Config(data_root=root, exec_root=exec_root, storage_driver="overlay2", storage_opts=())
with layerstore.open(config=settings) as store:
    print(*(image.id for image in store.load("-")))
"""
    command = [sys.executable, "-c", code, str(data_root), str(data_root.with_name("exec"))]
    with path.open("rb") as file:
        if redirected:
            done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
        else:
            with subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE) as cat:
                done = subprocess.run(command, stdin=cat.stdout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [IMAGE]
    is_loaded(store)


def piped(store: Store, data: bytes) -> list[str]:
    with Piped(data) as pipe:
        return [image.id for image in store.load(pipe)]


@pytest.mark.parametrize("name", ["blobs/sha256/{}", "{}.tar"], ids=["docker", "skopeo"])
def test_a_pipe_passes_over_the_layers_that_are_there(
    store: Store, content: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """docker names each layer of an archive by its DiffID since version 25."""
    layers = [images.layer(images.folder("etc/"), images.file("etc/a", str(number) * 5000)) for number in range(3)]
    digests = [images.digest(layer)[7:] for layer in layers]
    names = [name.format(digest) for digest in digests]
    config = images.config(layers[:2]), images.config(layers)
    archives = [
        tar(
            [
                *zip(names[:count], layers[:count], strict=True),
                ("c.json", each),
                ("manifest.json", manifest("c.json", names[:count])),
            ]
        )
        for count, each in zip((2, 3), config, strict=True)
    ]
    unpacked: list[str] = []
    take_in = Folders.take_in

    def noted(self: Folders, *args: Any, **more: Any) -> Staged:
        taken = take_in(self, *args, **more)
        unpacked.append(taken.diff_id)
        return taken

    monkeypatch.setattr(Folders, "take_in", noted)
    piped(store, archives[0])
    piped(store, archives[1])
    assert unpacked == [f"sha256:{digest}" for digest in digests]
    before = content()
    piped(store, archives[1])
    assert content() == before

    os.truncate(next(store.data_root.glob("overlay2/*/diff/etc/a")), 1)
    piped(store, archives[1])
    assert len(unpacked) == 4
    assert store.check(content=True) == []

    before = content()
    wrong = archives[1].replace(b"1" * 5000, b"x" * 5000)
    with pytest.raises(DigestMismatch, match=digests[1]):
        piped(store, wrong)
    assert content() == before


def test_a_named_pipe(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(tar(save_of_skopeo())))
    writer.start()
    store.load(path)
    writer.join()
    is_loaded(store)


def test_several_images_that_share_layers(store: Store, content: Callable[[], list[str]]) -> None:
    other = images.config([BASE])
    items = [
        {"Config": "1.json", "RepoTags": ["test:latest"], "Layers": ["b.tar", "t.tar"]},
        {"Config": "2.json", "RepoTags": ["other:1", "other:2"], "Layers": ["b.tar"]},
        {"Config": "1.json", "RepoTags": ["again:1"], "Layers": ["b.tar", "t.tar"]},
    ]
    members = [
        ("1.json", CONFIG),
        ("2.json", other),
        ("b.tar", BASE),
        ("t.tar", TOP),
        ("manifest.json", encoded(items)),
    ]
    for source in (tar(members), gzip.compress(tar(members))):
        loaded = store.load(io.BytesIO(source))
        assert [(image.id, image.tags) for image in loaded] == [
            (IMAGE, ("again:1", "test:latest")),
            (images.digest(other), ("other:1", "other:2")),
        ]
        assert len(content()) == 2 + 3 + 4
    is_loaded(store)


def test_one_layer_twice_in_one_image(store: Store) -> None:
    config = images.config([BASE, TOP, BASE])
    members = [
        ("c", config),
        ("b.tar", BASE),
        ("t.tar", TOP),
        ("manifest.json", manifest("c", ["b.tar", "t.tar", "b.tar"])),
    ]
    for source in (io.BytesIO(tar(members)), io.BytesIO(gzip.compress(tar(members)))):
        [image] = store.load(source)
        assert image.layers == tuple(images.digest(layer) for layer in (BASE, TOP, BASE))
        store.remove_image(image.id)


def test_an_image_without_layers(store: Store, tmp_path: Path) -> None:
    config = images.config([])
    members = [("c", config), ("manifest.json", manifest("c", []))]
    path = tmp_path / "image.tar"
    path.write_bytes(tar(members))
    for source in (path, io.BytesIO(tar(members))):
        [image] = store.load(source)
        assert image.layers == ()


@pytest.mark.parametrize("empty", [bytes(1024), bytes(10240)])
def test_a_layer_without_entries(store: Store, tmp_path: Path, empty: bytes) -> None:
    config = images.config([BASE, empty])
    members = [("c", config), ("b", BASE), ("e", empty), ("manifest.json", manifest("c", ["b", "e"]))]
    path = tmp_path / "image.tar"
    path.write_bytes(tar(members))
    for source in (path, io.BytesIO(tar(members))):
        [image] = store.load(source)
        assert image.layers[1] == images.digest(empty)
        store.remove_image(image.id)


def test_the_last_of_several_members_of_one_name_counts(store: Store, tmp_path: Path) -> None:
    members = [("l", TOP), ("manifest.json", b"no JSON"), ("c", CONFIG), ("l", BASE), ("t", TOP)]
    members.append(("manifest.json", manifest("c", ["l", "t"])))
    path = tmp_path / "image.tar"
    path.write_bytes(tar(members))
    for source in (path, io.BytesIO(tar(members))):
        store.load(source)
        is_loaded(store)
        store.remove_image(IMAGE)


def test_platforms(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    configs = {name: images.config([BASE], architecture=name) for name in ("amd64", "arm64", "s390x")}
    entries = [layout.image([BASE], config, platform=platform(name)) for name, config in configs.items()]
    layout.add(layout.index(entries), "docker.io/library/test:latest")
    put(tmp_path, list(layout.files.items()))
    for name, config in configs.items():
        assert [image.id for image in store.load(tmp_path, platform=f"linux/{name}")] == [images.digest(config)]
        assert [image.id for image in store.load(io.BytesIO(layout.tar()), platform=name)] == [images.digest(config)]
    with pytest.raises(ConfigError):
        store.load(tmp_path, platform="linux/x/y/z")


def test_a_name_moves_to_what_is_loaded(store: Store) -> None:
    older = images.config([BASE])
    store.load(io.BytesIO(tar([("c", older), ("b", BASE), ("manifest.json", manifest("c", ["b"]))])))
    store.load(io.BytesIO(tar(save_of_docker_24())))
    assert store.image(NAME).id == IMAGE
    assert store.image(images.digest(older)).tags == ()


def test_progress_tells_each_layer_to_its_end(store: Store, tmp_path: Path, members: Members) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(tar(members))
    for source in (path, io.BytesIO(path.read_bytes())):
        told: dict[str, tuple[int, int | None]] = {}

        def tell(label: str, done: int, total: int | None, told: dict[str, tuple[int, int | None]] = told) -> None:
            told[label] = (done, total)

        store.load(source, progress=tell)
        assert sorted(done for done, _ in told.values()) == sorted([len(BASE), len(TOP)])
        assert all(done == total for done, total in told.values())
        store.remove_image(IMAGE)


def test_layers_that_are_there_are_not_read(store: Store, tmp_path: Path) -> None:
    """The second archive has nonsense where the layer of the first was: nobody looks."""
    store.load(io.BytesIO(tar(save_of_skopeo())))
    members = [(name, bytes(len(data)) if data == BASE else data) for name, data in save_of_skopeo()]
    path = tmp_path / "image.tar"
    path.write_bytes(tar(members))
    store.load(path)
    is_loaded(store)


# --- what is refused ---


def without(members: Members, name: str) -> Members:
    return [(other, data) for other, data in members if not other.endswith(name)]


def altered(members: Members, name: str, data: bytes | Link) -> Members:
    return [(other, data if other.endswith(name) else old) for other, old in members]


def flipped(data: bytes, at: int) -> bytes:
    return bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]])


def oci_altered(change: Callable[[Layout], None]) -> Members:
    layout = Layout()
    layers = [layout.put(gzip.compress(layer, mtime=0), OCI_LAYER + "+gzip") for layer in (BASE, TOP)]
    layout.add(layout.manifest(layout.put(CONFIG, OCI_CONFIG), layers), "docker.io/library/test:latest")
    change(layout)
    return list(layout.files.items())


def _damage_blob(layout: Layout) -> None:
    name = "blobs/sha256/" + hexed(gzip.compress(TOP, mtime=0))
    layout.blobs[name] = flipped(layout.blobs[name], 100)


def _swap_layers(layout: Layout) -> None:
    layers = [layout.put(gzip.compress(layer, mtime=0), OCI_LAYER + "+gzip") for layer in (TOP, BASE)]
    layout.entries = [layout.manifest(layout.put(CONFIG, OCI_CONFIG), layers)]


def _unknown_layer(layout: Layout) -> None:
    layers = [layout.put(gzip.compress(layer, mtime=0), OCI_LAYER + "+lz4") for layer in (BASE, TOP)]
    layout.entries = [layout.manifest(layout.put(CONFIG, OCI_CONFIG), layers)]


DOCKER = save_of_docker_24()
CIRCLE = [*DOCKER, ("a", Link("b")), ("b", Link("a"))]

REFUSED: Mapping[str, tuple[Members, type[LayerstoreError], str]] = {
    "missing layer": (without(DOCKER, "3/layer.tar"), InvalidArchive, "is not in the archive"),
    "missing config": (without(DOCKER, f"{hexed(CONFIG)}.json"), InvalidArchive, "is not in the archive"),
    "missing manifest": (
        without(without(DOCKER, "manifest.json"), "repositories"),
        InvalidArchive,
        "no archive of images",
    ),
    "legacy": (without(DOCKER, "manifest.json"), InvalidArchive, "docker 1.9"),
    "manifest is no JSON": (altered(DOCKER, "manifest.json", b"{"), InvalidArchive, "no JSON"),
    "manifest is deep": (altered(DOCKER, "manifest.json", b"[" * 100_000), InvalidArchive, "too deeply"),
    "manifest is huge": (altered(DOCKER, "manifest.json", b"[" + b" " * (5 << 20) + b"]"), InvalidArchive, "bytes"),
    "wrong config": (altered(DOCKER, f"{hexed(CONFIG)}.json", CONFIG + b" "), DigestMismatch, "config"),
    "wrong layer": (
        altered(DOCKER, "3/layer.tar", flipped(TOP, TOP.index(b"hello"))),
        DigestMismatch,
        images.digest(TOP),
    ),
    "layer is no tar": (altered(DOCKER, "3/layer.tar", b"text" * 5000), InvalidArchive, "layer"),
    "layer is JSON": (altered(DOCKER, "3/layer.tar", b"{}"), InvalidArchive, "layer"),
    "layer is empty": (altered(DOCKER, "3/layer.tar", b""), InvalidArchive, "layer"),
    "layer is cut short": (altered(DOCKER, "1/layer.tar", BASE[:-5000]), InvalidArchive, "layer"),
    "layer escapes": (
        altered(DOCKER, "3/layer.tar", images.layer(images.file("../../escaped", "x"))),
        InvalidArchive,
        "layer",
    ),
    "gzip is cut short": (altered(DOCKER, "1/layer.tar", gzip.compress(BASE)[:-20]), InvalidArchive, "end too early"),
    "gzip is damaged": (
        altered(DOCKER, "1/layer.tar", flipped(gzip.compress(BASE), -6 + len(gzip.compress(BASE)))),
        InvalidArchive,
        "damaged",
    ),
    "links in a circle": (altered(CIRCLE, "2/layer.tar", Link("../a")), InvalidArchive, "circle"),
    "link leads out": (
        altered(DOCKER, "2/layer.tar", Link("../../../etc/passwd")),
        InvalidArchive,
        "out of the archive",
    ),
    "link leads to nothing": (altered(DOCKER, "2/layer.tar", Link("nothing")), InvalidArchive, "is not in the archive"),
    "layer outside": (
        altered(DOCKER, "manifest.json", manifest(hexed(CONFIG) + ".json", ["../../etc/passwd", "/x"])),
        InvalidArchive,
        "out of the archive",
    ),
    "config outside": (
        altered(DOCKER, "manifest.json", manifest("../../../../etc/passwd", [])),
        InvalidArchive,
        "out of the archive",
    ),
    "name with NUL": (altered(DOCKER, "manifest.json", manifest("a\0b", [])), InvalidArchive, "cannot be printed"),
    "bad tag": (
        altered(
            DOCKER, "manifest.json", manifest(hexed(CONFIG) + ".json", ["1" * 64 + "/layer.tar"] * 2, ["Bad:Tag:"])
        ),
        InvalidArchive,
        "invalid image name",
    ),
    "damaged blob": (oci_altered(_damage_blob), DigestMismatch, "blob"),
    "layers in the wrong order": (oci_altered(_swap_layers), DigestMismatch, "layer"),
    "unknown media type": (oci_altered(_unknown_layer), UnsupportedMediaType, "lz4"),
    "no images": ([("manifest.json", b"[]")], InvalidArchive, "no image"),
    "a root filesystem": (
        [("etc/hosts", b"localhost"), ("bin/sh", b"\x7fELF" * 1000)],
        InvalidArchive,
        "no archive of images",
    ),
    "nothing": ([], InvalidArchive, "no archive of images"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_refused(store: Store, tmp_path: Path, content: Callable[[], list[str]], case: str) -> None:
    members, error, words = REFUSED[case]
    before = content()
    path = tmp_path / "image.tar"
    path.write_bytes(tar(members))
    for source in (path, io.BytesIO(tar(members)), io.BytesIO(gzip.compress(tar(members)))):
        with pytest.raises(error, match=words) as caught:
            store.load(source)
        assert isinstance(caught.value, error)
        assert len(str(caught.value).splitlines()) <= 2
        assert content() == before
    assert str(path) in _message(store, path)


def _message(store: Store, path: Path) -> str:
    with pytest.raises(LayerstoreError) as caught:
        store.load(path)
    return str(caught.value)


FOLDERS = [case for case in REFUSED if case not in ("links in a circle", "nothing")]


@pytest.mark.parametrize("case", FOLDERS)
def test_refused_as_a_folder(store: Store, tmp_path: Path, content: Callable[[], list[str]], case: str) -> None:
    members, error, words = REFUSED[case]
    put(tmp_path, members)
    before = content()
    with pytest.raises(error, match=words if "link leads out" not in case else "is not in the archive"):
        store.load(tmp_path)
    assert content() == before


def test_a_folder_whose_links_go_in_a_circle(store: Store, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").symlink_to("manifest.json")
    with pytest.raises(InvalidArchive, match="circle"):
        store.load(tmp_path)


def test_a_folder_with_a_pipe_for_a_member(store: Store, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(InvalidArchive, match="is no file"):
        store.load(tmp_path)


def test_a_folder_cannot_lead_out_of_itself(store: Store, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    put(inside, save_of_skopeo())
    (tmp_path / "secret").write_bytes(BASE)
    (inside / f"{hexed(BASE)}.tar").unlink()
    (inside / f"{hexed(BASE)}.tar").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidArchive, match="is not in the archive"):
        store.load(inside)


def test_an_archive_that_ends_anywhere(store: Store, tmp_path: Path, content: Callable[[], list[str]]) -> None:
    whole = tar(save_of_skopeo())
    packed = gzip.compress(whole)
    path = tmp_path / "image.tar"
    before = content()
    end_of_content = len(whole.rstrip(b"\0")) // 512 * 512
    for end in {*range(0, end_of_content, len(whole) // 23), 512, 513, end_of_content - 1}:
        path.write_bytes(whole[:end])
        for source in (path, io.BytesIO(whole[:end])):
            with pytest.raises(InvalidArchive):
                store.load(source)
    for end in range(10, len(packed) - 1, len(packed) // 13):
        path.write_bytes(packed[:end])
        with pytest.raises(InvalidArchive, match=r"end too early|ends within"):
            store.load(path)
    assert content() == before


def test_of_several_images_none_comes_if_the_last_cannot(
    store: Store, tmp_path: Path, content: Callable[[], list[str]]
) -> None:
    first = images.layer(images.file("first", "1"))
    older = images.config([first])
    store.load(io.BytesIO(tar([("c", older), ("t", first), ("manifest.json", manifest("c", ["t"], ["other:1"]))])))
    before = content()
    items = [
        {"Config": "1.json", "RepoTags": ["other:1"], "Layers": ["b.tar"]},
        {"Config": "2.json", "RepoTags": ["test:latest"], "Layers": ["b.tar", "t.tar"]},
    ]
    bad = flipped(TOP, TOP.index(b"hello"))
    members = [("1.json", images.config([BASE])), ("2.json", CONFIG), ("b.tar", BASE), ("t.tar", bad)]
    members.append(("manifest.json", encoded(items)))
    path = tmp_path / "image.tar"
    path.write_bytes(tar(members))
    for source in (path, io.BytesIO(tar(members))):
        with pytest.raises(DigestMismatch):
            store.load(source)
        assert content() == before
    assert store.image("other:1").id == images.digest(older)


def test_bad_members_that_nobody_needs_do_no_harm(store: Store, tmp_path: Path) -> None:
    members = [("junk.tar.gz", gzip.compress(b"no tar")[:-3]), ("junk.tar", BASE[:2000]), *DOCKER]
    path = tmp_path / "image.tar"
    path.write_bytes(tar(members))
    for source in (path, io.BytesIO(tar(members))):
        store.load(source)
        is_loaded(store)
        store.remove_image(IMAGE)


def test_more_json_than_anybody_writes(store: Store, content: Callable[[], list[str]]) -> None:
    before = content()
    members = [(f"{number}.json", b"{" + b" " * (3 << 20)) for number in range(25)]
    with pytest.raises(InvalidArchive, match="bytes of JSON"):
        store.load(io.BytesIO(tar(members)))
    assert content() == before


def test_no_such_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="No such file") as caught:
        store.load(tmp_path / "nothing")
    assert caught.value.path == str(tmp_path / "nothing")


def test_a_file_opened_as_text(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(tar(DOCKER))
    with path.open() as file, pytest.raises(ConfigError, match="text"):
        store.load(file)  # type: ignore[arg-type]


def test_no_space(own_filesystem: Callable[..., Path], tmp_path: Path) -> None:
    import layerstore

    root = own_filesystem("ext4", size=24 << 20)
    config = layerstore.Config(
        data_root=root / "store", exec_root=root / "exec", storage_driver="overlay2", storage_opts=()
    )
    large = images.layer(*(images.file(f"f{number}", os.urandom(1 << 20)) for number in range(30)))
    path = tmp_path / "image.tar"
    path.write_bytes(tar([("c", images.config([large])), ("l", large), ("manifest.json", manifest("c", ["l"]))]))
    with layerstore.open(config=config) as store:
        for source in (path, io.BytesIO(path.read_bytes())):
            with pytest.raises(KernelError, match="No space left"):
                store.load(source)
            assert store.images() == []
            assert staying(root / "store") == []
        store.load(io.BytesIO(tar(DOCKER)))  # what failed has given its space back
        assert store.check() == []


@by_day(60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at=st.integers(0, 1 << 20), flip=st.integers(1, 255), form=st.sampled_from(["docker-24", "oci-gzip", "oci-plain"])
)
def test_an_archive_with_any_flipped_byte_is_the_image_or_an_error(
    store: Store, tmp_path: Path, content: Callable[[], list[str]], at: int, flip: int, form: str
) -> None:
    data = bytearray(tar(FORMS[form]()))
    data[at % len(data)] ^= flip
    path = tmp_path / "image.tar"
    path.write_bytes(data)
    for source in (path, io.BytesIO(data)):
        try:
            loaded = store.load(source)
        except LayerstoreError:
            loaded = store.images()
            assert loaded == []
        for image in loaded:
            assert image.id == IMAGE
            store.remove_image(image.id, force=True)
    assert store.images() == []


def test_a_tar_made_by_gnu_tar_of_an_unpacked_archive(store: Store, tmp_path: Path) -> None:
    put(tmp_path / "in", save_of_docker_25())
    with tarfile.open(tmp_path / "out.tar", "w") as archive:
        archive.add(tmp_path / "in", ".")
    store.load(tmp_path / "out.tar")
    is_loaded(store)


def test_a_file_object_that_fails(store: Store, content: Callable[[], list[str]]) -> None:
    class Failing(io.RawIOBase):
        def __init__(self, outcome: Exception | None) -> None:
            self.data, self.outcome = io.BytesIO(tar(DOCKER)[:60_000]), outcome

        def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
            if count := self.data.readinto(buffer):
                return count
            if self.outcome is not None:
                raise self.outcome
            return None

    before = content()
    for outcome, error in (
        (OSError(5, "Input/output error"), KernelError),
        (EOFError("too early"), InvalidArchive),
        (None, KernelError),
    ):
        with pytest.raises(error):
            store.load(Failing(outcome))  # type: ignore[arg-type]
        assert content() == before
