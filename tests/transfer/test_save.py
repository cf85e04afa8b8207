"""Images out of a store: the same bytes each time, readable by everybody, and never half a file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from layerstore.errors import ConfigError, Damaged, KernelError
from support import images

from .archives import manifest, staying, tar

if TYPE_CHECKING:
    from layerstore import Store

pytestmark = pytest.mark.root

BASE = images.layer(
    images.folder("etc"), images.file("etc/hosts", "localhost\n"), images.file("big", bytes(range(256)) * 3000)
)
TOP = images.layer(images.folder("etc"), images.file("etc/motd", "hello\n"), images.whiteout("big"))
CONFIG = images.config([BASE, TOP])
OTHER = images.config([BASE])

FORMS = [("docker-archive", None), ("oci", None), ("oci", "gzip"), ("oci", "zstd"), ("oci", "none")]


@pytest.fixture
def full(store: Store) -> Store:
    """A store with two images that share a layer; one has two names."""
    for config, layers, tags in (
        (CONFIG, [BASE, TOP], ["a/one:1", "host:5000/one:2"]),
        (OTHER, [BASE], ["two:latest"]),
    ):
        members = [(f"{number}", layer) for number, layer in enumerate(layers)]
        listed = manifest("c", [name for name, _ in members], tags)
        store.load(io.BytesIO(tar([("c", config), *members, ("manifest.json", listed)])))
    return store


@pytest.fixture(params=FORMS, ids=lambda form: "-".join(map(str, form)))
def form(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"format": request.param[0], "compression": request.param[1]}


def files_of(path: Path) -> dict[str, bytes]:
    """The members of a tar or a folder."""
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with tarfile.open(path) as archive:
        found = {}
        for member in archive:
            assert (member.uid, member.gid, member.mtime, member.uname) == (0, 0, 0, "")
            if member.isfile():
                assert member.name not in found
                data = archive.extractfile(member)
                assert data is not None
                found[member.name] = data.read()
        return found


def check_layout(files: dict[str, bytes]) -> dict[str, list[str]]:
    """Every blob is what its name and its descriptor say. Returns the names of index.json, with DiffIDs."""
    for name, data in files.items():
        if name.startswith("blobs/sha256/"):
            assert name == "blobs/sha256/" + images.digest(data)[7:]
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    names: dict[str, list[str]] = {}
    reached = set()

    def read(descriptor: dict[str, Any]) -> bytes:
        name = "blobs/sha256/" + descriptor["digest"][7:]
        reached.add(name)
        assert len(files[name]) == descriptor["size"]
        return files[name]

    for entry in json.loads(files["index.json"])["manifests"]:
        fields = json.loads(read(entry))
        for layer in fields["layers"]:
            read(layer)
        name = entry.get("annotations", {}).get("io.containerd.image.name", "")
        names[name] = json.loads(read(fields["config"]))["rootfs"]["diff_ids"]
    assert reached == {name for name in files if name.startswith("blobs/")}
    return names


BOTH = [images.digest(BASE), images.digest(TOP)]
NAMES = {"docker.io/a/one:1": BOTH, "host:5000/one:2": BOTH, "docker.io/library/two:latest": BOTH[:1]}


def test_a_tar(full: Store, tmp_path: Path, form: dict[str, Any]) -> None:
    target = tmp_path / "out.tar"
    full.save([full.image("a/one:1"), full.image("two")], target, **form)
    assert target.stat().st_size % 10240 == 0
    assert check_layout(files_of(target)) == NAMES
    assert os.listdir(tmp_path) == ["out.tar"]


def test_a_folder(full: Store, tmp_path: Path, form: dict[str, Any]) -> None:
    target = tmp_path / "out"
    full.save([full.image("a/one:1"), full.image("two")], target, folder=True, **form)
    assert check_layout(files_of(target)) == NAMES
    assert os.listdir(tmp_path) == ["out"]
    assert {path.name[0] for path in target.rglob("*")}.isdisjoint({"."})


def test_the_same_bytes_wherever_they_go(full: Store, tmp_path: Path, form: dict[str, Any]) -> None:
    wanted = [full.image("a/one:1"), full.image("two")]
    full.save(wanted, tmp_path / "1.tar", **form)
    full.save(wanted, tmp_path / "2.tar", **form)
    memory = io.BytesIO()
    full.save(wanted, memory, **form)
    full.save(wanted, tmp_path / "folder", folder=True, **form)
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes() == memory.getvalue()
    assert files_of(tmp_path / "1.tar") == files_of(tmp_path / "folder")


def test_what_is_saved_is_loaded(full: Store, tmp_path: Path, form: dict[str, Any]) -> None:
    full.save([full.image("a/one:1"), full.image("two")], tmp_path / "out.tar", **form)
    full.save([full.image("a/one:1"), full.image("two")], tmp_path / "out/", folder=True, **form)
    before = {image.id: image.tags for image in full.images()}
    for source in (tmp_path / "out.tar", tmp_path / "out", io.BytesIO((tmp_path / "out.tar").read_bytes())):
        for image in full.images():
            full.remove_image(image.id, force=True)
        full.load(source)
        assert {image.id: image.tags for image in full.images()} == before
        with full.image("a/one:1").mount() as root:
            assert sorted(os.listdir(root)) == ["etc"]
    assert full.check(content=True) == []


def test_shared_layers_are_written_once(full: Store, tmp_path: Path) -> None:
    full.save(["a/one:1", "two", "host:5000/one:2"], tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as archive:
        names = archive.getnames()
    assert len(names) == len(set(names))
    assert names[:3] == ["oci-layout", "index.json", "manifest.json"]  # for those who read a stream


def test_manifest_json(full: Store, tmp_path: Path) -> None:
    full.save(["a/one:1", "two"], tmp_path / "out.tar")
    blobs = "blobs/sha256/"
    assert json.loads(files_of(tmp_path / "out.tar")["manifest.json"]) == [
        {
            "Config": blobs + images.digest(CONFIG)[7:],
            "RepoTags": ["docker.io/a/one:1"],
            "Layers": [blobs + name[7:] for name in BOTH],
        },
        {
            "Config": blobs + images.digest(OTHER)[7:],
            "RepoTags": ["docker.io/library/two:latest"],
            "Layers": [blobs + BOTH[0][7:]],
        },
    ]


def test_an_image_without_a_name(full: Store, tmp_path: Path, form: dict[str, Any]) -> None:
    image = full.image("two")
    members = [("c", OTHER), ("b", BASE), ("manifest.json", manifest("c", ["b"], ["two:latest"]))]
    full.remove_image("two")
    full.load(io.BytesIO(tar([*members[:2], ("manifest.json", manifest("c", ["b"], None))])))
    full.save(image.id, tmp_path / "out.tar", **form)
    assert check_layout(files_of(tmp_path / "out.tar")) == {"": BOTH[:1]}
    [loaded] = full.load(tmp_path / "out.tar")
    assert (loaded.id, loaded.tags) == (image.id, ())


def test_an_image_without_layers(store: Store, tmp_path: Path, form: dict[str, Any]) -> None:
    config = images.config([])
    store.load(io.BytesIO(tar([("c", config), ("manifest.json", manifest("c", []))])))
    store.save("test", tmp_path / "out.tar", **form)
    store.remove_image("test")
    [image] = store.load(tmp_path / "out.tar")
    assert image.id == images.digest(config)


def test_a_file_that_is_there_is_replaced(full: Store, tmp_path: Path) -> None:
    target = tmp_path / "out.tar"
    target.write_text("before")
    (tmp_path / "link").symlink_to("out.tar")
    full.save("two", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert check_layout(files_of(target))


def test_an_empty_folder_is_filled(full: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    full.save("two", tmp_path / "out", format="oci")
    assert check_layout(files_of(tmp_path / "out"))


def test_a_device_or_pipe_is_written_to(full: Store, tmp_path: Path, form: dict[str, Any]) -> None:
    full.save("two", "/dev/null", **form)
    full.save("two", tmp_path / "out.tar", **form)
    reading, writing = os.pipe()
    found = hashlib.sha256()
    import threading

    def read() -> None:
        with open(reading, "rb") as pipe:
            while data := pipe.read(1 << 16):
                found.update(data)

    reader = threading.Thread(target=read)
    reader.start()
    with open(writing, "wb", buffering=0) as pipe:
        full.save("two", pipe, **form)
    reader.join()
    assert found.digest() == hashlib.sha256((tmp_path / "out.tar").read_bytes()).digest()


def test_progress_tells_each_layer_to_its_end(full: Store, form: dict[str, Any]) -> None:
    told: dict[str, tuple[int, int | None]] = {}
    full.save("a/one:1", "/dev/null", progress=lambda label, done, total: told.update({label: (done, total)}), **form)
    assert told == {images.digest(layer)[7:19]: (len(layer), len(layer)) for layer in (BASE, TOP)}


# --- what is refused ---


@pytest.fixture
def untouched(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing may have been made or left."""
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "out.tar").write_text("before")
    (folder / "full").mkdir()
    (folder / "full/file").write_text("before")
    yield folder
    assert files_of(folder) == {"out.tar": b"before", "full/file": b"before"}
    assert sorted(os.listdir(folder)) == ["full", "out.tar"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"format": "zip"}, "no format"),
        ({"format": "oci", "compression": "lz4"}, "no compression"),
        ({"compression": "gzip"}, "plain layers"),
    ],
)
def test_what_cannot_be_asked_for(full: Store, untouched: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        full.save("two", untouched / "out.tar", **more)


def test_a_folder_that_is_not_empty(full: Store, untouched: Path) -> None:
    with pytest.raises(ConfigError, match="no empty folder"):
        full.save("two", untouched / "full", format="oci")
    with pytest.raises(ConfigError, match="no empty folder"):
        full.save("two", untouched / "out.tar", format="oci", folder=True)
    with pytest.raises(ConfigError, match="is a folder"):
        full.save("two", untouched / "full", format="oci", folder=False)


def test_a_place_that_does_not_exist(full: Store, untouched: Path, form: dict[str, Any]) -> None:
    for folder in (False, True):
        with pytest.raises(KernelError, match="No such file"):
            full.save("two", untouched / "nothing/out", folder=folder, **form)


def test_a_damaged_layer_leaves_no_archive(full: Store, data_root: Path, untouched: Path, form: dict[str, Any]) -> None:
    [damaged] = data_root.glob("overlay2/*/diff/etc/hosts")
    damaged.write_text("somebody\n")
    for folder in (False, True):
        with pytest.raises(Damaged):
            full.save("two", untouched / ("new" if folder else "out.tar"), folder=folder, **form)
    memory = io.BytesIO()
    with pytest.raises(Damaged):
        full.save("two", memory, **form)
    assert staying(data_root) == []


def test_no_space_for_the_archive(
    full: Store, own_filesystem: Callable[..., Path], form: dict[str, Any], store: Store
) -> None:
    root = own_filesystem("tmpfs", size=1 << 20)
    noise = images.layer(images.file("noise", os.urandom(4 << 20)))
    store.load(io.BytesIO(tar([("c", images.config([noise])), ("n", noise), ("manifest.json", manifest("c", ["n"]))])))
    for folder in (False, True):
        with pytest.raises(KernelError, match="No space left"):
            store.save("test", root / "out", folder=folder, **form)
        assert os.listdir(root) == []


def test_a_reader_that_goes_away(full: Store, form: dict[str, Any], data_root: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", buffering=0) as pipe, pytest.raises(KernelError, match="Broken pipe"):
        full.save("a/one:1", pipe, **form)
    assert staying(data_root) == []


def test_a_file_object_that_takes_what_it_likes(full: Store, tmp_path: Path) -> None:
    class Slow:
        def __init__(self) -> None:
            self.data = bytearray()

        def write(self, data: memoryview) -> int:
            self.data += data[:1000]
            return min(1000, len(data))

    class Silent(Slow):
        def write(self, data: memoryview) -> None:  # type: ignore[override]
            self.data += data

    full.save("two", tmp_path / "out.tar")
    for file in (Slow(), Silent()):
        full.save("two", file)  # type: ignore[arg-type]
        assert bytes(file.data) == (tmp_path / "out.tar").read_bytes()
