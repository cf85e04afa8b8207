"""The limits of daemon.json: at each all is well, beyond it what comes is refused by every way in, and nothing is left.

Each error says the setting, its value, and what was met.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path

import pytest
import zstandard

from attacks.conftest import Opened, require_empty
from layerstore import ConfigError, InvalidArchive, LayerSource, LimitExceeded, Limits, Store, open_stream
from layerstore.build import build
from layerstore.config import load
from layerstore.driver import Dialect
from layerstore.errors import LayerstoreError
from layerstore.faces.serve import Registry
from layerstore.faces.serve.server import Server
from layerstore.limits import SETTINGS
from layerstore.tar import unpack
from layerstore.testing import tars
from layerstore.testing.tars import END, archive, file, gnu_long, header, pax
from serve.client import MANIFEST, Client
from support import images
from tar.bounds import bounded

pytestmark = pytest.mark.root

THREE = images.layer(*(images.file(name) for name in "abc"))
FOUR = images.layer(*(images.file(name) for name in "abcd"))


# --- by every way in ---


def as_docker_archive(store: Store, tar: bytes, place: Path) -> None:
    store.load(images.docker_archive(place / "image.tar", [tar]))


def as_layout(store: Store, tar: bytes, place: Path) -> None:
    store.load(images.oci_layout(place / "layout", [tar], compression="zstd"))


def as_stream(store: Store, tar: bytes, place: Path) -> None:
    store.load(io.BytesIO(gzip.compress(images.docker_archive(place / "image.tar", [tar]).read_bytes())))


def as_import(store: Store, tar: bytes, place: Path) -> None:
    store.import_tar(io.BytesIO(gzip.compress(tar)))


def as_layer(store: Store, tar: bytes, place: Path) -> None:
    @contextmanager
    def opened() -> Iterator[io.BytesIO]:
        yield io.BytesIO(tar)

    store.add_layer(LayerSource(opened), None)


def as_addition(store: Store, tar: bytes, place: Path) -> None:
    (place / "context").mkdir()
    (place / "context" / "root.tar.gz").write_bytes(gzip.compress(tar))
    (place / "context" / "Dockerfile").write_text("FROM scratch\nADD root.tar.gz /\n")
    build(store, place / "context")


def as_pull(store: Store, tar: bytes, place: Path) -> None:
    """From a store without limits, which serves what it has."""
    other = place / "other"
    settings = store.config
    from attrs import evolve

    import layerstore

    with layerstore.open(config=evolve(settings, data_root=other, limits=Limits())) as origin:
        origin.load(images.docker_archive(place / "image.tar", [tar], ["team/app:1"]))
        registry = Registry(origin)
        try:
            with Server("127.0.0.1", 0, registry) as server:
                store.pull(f"127.0.0.1:{server.port}/docker.io/team/app:1")
        finally:
            registry.close()


WAYS = [as_docker_archive, as_layout, as_stream, as_import, as_layer, as_addition, as_pull]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_limit_holds_for_every_way_in(
    way: Callable[[Store, bytes, Path], None], limited: Opened, backing: Callable[[str], Path]
) -> None:
    store, place = limited(layer_entries=3), backing("ext4")
    (place / "within").mkdir()
    (place / "beyond").mkdir()
    with pytest.raises(LayerstoreError) as caught:
        way(store, FOUR, place / "beyond")
    assert "has 4 entries: max-layer-entries is 3" in str(caught.value)
    require_empty(store)
    way(store, THREE, place / "within")


def test_what_is_served_takes_no_more(limited: Opened) -> None:
    """A manifest, a config and a blob are refused; an image with too large a layer is kept as what it is, and none."""
    store = limited(manifest_size=600, config_size=500, layer_size=4096, layer_entries=3)
    registry = Registry(store)
    try:
        with Server("127.0.0.1", 0, registry) as server, Client(f"127.0.0.1:{server.port}") as client:
            assert client("PUT", "/v2/app/manifests/1", b" " * 601, Content_Type=MANIFEST).status == 413
            refused = client("POST", f"/v2/app/blobs/uploads/?digest={images.digest(bytes(4097))}", bytes(4097))
            assert (refused.status, b"max-layer-size is 4,096" in refused.body) == (413, True)
            client.put_blob("app", bytes(4096))
    finally:
        registry.close()
    assert store.images() == []


# --- each limit, at it and beyond it ---


def taken(store: Store, tar: bytes) -> None:
    store.import_tar(io.BytesIO(tar), "it")
    store.remove_image("it")


def refused(store: Store, tar: bytes, setting: str) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as caught:
        store.import_tar(io.BytesIO(tar))
    assert caught.value.setting == setting
    assert setting in str(caught.value)
    assert f"{caught.value.limit:,}" in str(caught.value)
    require_empty(store)
    return caught.value


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_the_size_of_a_layer(driver: str, limited: Opened) -> None:
    store = limited(driver=driver, layer_size=len(THREE))
    taken(store, THREE)
    assert refused(store, THREE + b"\0", "max-layer-size").met == len(THREE) + 1


def test_names_that_an_entry_implies_are_entries(limited: Opened) -> None:
    store = limited(layer_entries=4)
    taken(store, archive(file(b"a/b/c/d")))
    assert refused(store, archive(file(b"a/b/c/d/e")), "max-layer-entries").met == 5


def test_entries_of_one_name_are_as_many_entries(limited: Opened) -> None:
    store = limited(layer_entries=4)
    taken(store, archive(*[file(b"a")] * 4))
    assert refused(store, archive(*[file(b"a")] * 5), "max-layer-entries").met == 5


def test_the_headers_of_an_entry(limited: Opened) -> None:
    store = limited(pax_header=1024)
    exact = pax([(b"comment", b"x" * (1024 - len(tars.record(b"comment", b"")) - 2))])
    assert len(exact) == 512 + 1024
    taken(store, exact + archive(file(b"a")))
    longer = pax([(b"comment", b"x" * 1024)])
    assert refused(store, longer + archive(file(b"a")), "max-pax-header").met == len(
        tars.record(b"comment", b"x" * 1024)
    )
    assert refused(store, exact + gnu_long(b"L", b"name") + archive(file(b"a")), "max-pax-header").met == 1024 + 5
    taken(store, exact + encode_one(b"a") + exact + archive(file(b"b")))  # two entries, each within it


def encode_one(name: bytes) -> bytes:
    return tars.encode(file(name))


def test_a_map_of_a_sparse_file_is_a_header(limited: Opened) -> None:
    store = limited(pax_header=1024)
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"400")]
    text = b"200\n" + b"".join(b"%d\n1\n" % (2 * at) for at in range(200))
    body = tars.padded(text) + b"x" * 200
    tar = pax(records) + header(b"f", size=len(body)) + tars.padded(body) + END
    assert refused(store, tar, "max-pax-header").met == 1536
    taken(limited(pax_header=1536, root=store.data_root.with_name("other")), tar)


def inflating(compress: Callable[[bytes], bytes], size: int) -> bytes:
    return compress(bytes(size))


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("name", COMPRESS)
def test_the_ratio_of_a_compression(name: str) -> None:
    """Beyond the floor only: what is honest, too, may have a beginning of nothing but zeros."""
    size = 8 << 20
    data = COMPRESS[name](bytes(size))
    ratio = size // len(data)
    assert read(data, compression_ratio=10, compression_floor=size) == size
    assert read(data, compression_ratio=ratio, compression_floor=1 << 20) == size
    with pytest.raises(LimitExceeded, match="max-compression-ratio is 10") as caught:
        read(data, compression_ratio=10, compression_floor=1 << 20)
    assert caught.value.met is not None
    assert caught.value.met > 10


def read(data: bytes, **limits: int) -> int:
    """How much a stream inflates to."""
    buffer, size = memoryview(bytearray(1 << 20)), 0
    with open_stream(io.BytesIO(data), limits=Limits(**limits)) as stream:
        while count := stream.readinto(buffer):
            size += count
    return size


def zstd_of(window_log: int, *, size: int) -> bytes:
    made = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log, write_content_size=0)
    feed = zstandard.ZstdCompressor(compression_params=made).compressobj()
    return feed.compress(bytes(size)) + feed.flush()


def test_the_window_of_a_zstd_frame() -> None:
    data = zstd_of(20, size=3 << 20)
    assert read(data, zstd_window=1 << 20) == 3 << 20
    with pytest.raises(LimitExceeded, match="1,048,576 bytes: max-zstd-window is 1,048,575"):
        read(data, zstd_window=(1 << 20) - 1)
    wide = zstd_of(28, size=1 << 20)  # more than the library itself would take
    with pytest.raises(LimitExceeded, match="max-zstd-window is 134,217,728"):
        read(wide)
    assert read(wide, zstd_window=1 << 28) == read(wide, zstd_window=0) == 1 << 20


def test_a_frame_of_one_segment_is_its_own_window() -> None:
    data = zstandard.ZstdCompressor().compress(bytes(300))
    assert read(data, zstd_window=300) == 300
    with pytest.raises(LimitExceeded, match="300 bytes: max-zstd-window is 299"):
        read(data, zstd_window=299)


def test_the_memory_of_xz() -> None:
    data = lzma.compress(b"x", preset=6)  # a dictionary of 8 MiB
    assert read(data, xz_memory=16 << 20) == read(data, xz_memory=0) == 1
    with pytest.raises(LimitExceeded, match="more than 4,194,304 bytes: max-xz-memory is 4,194,304"):
        read(data, xz_memory=4 << 20)


@pytest.mark.parametrize("way", ["docker-archive", "layout", "stream"])
def test_the_size_of_a_config(way: str, limited: Opened, tmp_path: Path) -> None:
    config = images.config([THREE])
    for beyond in (1, 0):
        store = limited(config_size=len(config) - beyond, root=tmp_path.parent / f"{tmp_path.name}-{beyond}")
        path = tmp_path / str(beyond)
        if way == "layout":
            source: Path | io.BytesIO = images.oci_layout(path, [THREE], image_config=config)
        else:
            source = images.docker_archive(path, [THREE], image_config=config)
        if way == "stream":
            assert isinstance(source, Path)
            source = io.BytesIO(source.read_bytes())
        if beyond:
            with pytest.raises(LimitExceeded, match=f"{len(config):,} bytes: max-config-size is {len(config) - 1:,}"):
                store.load(source)
            require_empty(store)
        else:
            assert len(store.load(source)) == 1


def test_the_size_of_a_manifest(limited: Opened, tmp_path: Path) -> None:
    layout = images.oci_layout(tmp_path / "layout", [THREE])
    described = json.loads((layout / "index.json").read_bytes())["manifests"][0]["size"]
    size = max(described, (layout / "index.json").stat().st_size)
    with pytest.raises(LimitExceeded, match=f"max-manifest-size is {size - 1:,}"):
        limited(manifest_size=size - 1).load(layout)
    limited(manifest_size=size, root=tmp_path.parent / f"{tmp_path.name}-store").load(layout)


def test_a_lower_limit_leaves_what_is_there(limited: Opened, tmp_path: Path) -> None:
    """What was taken in is read, checked and saved, whatever daemon.json says today."""
    store = limited()
    store.load(images.docker_archive(tmp_path / "image.tar", [FOUR]))
    store.close()
    low = limited(layer_size=1, layer_entries=1, layer_memory=1, pax_header=1, config_size=1, manifest_size=1)
    assert low.check() == []
    low.save("test:latest", tmp_path / "again.tar")
    with low.image("test:latest").mount() as root:
        assert sorted(path.name for path in root.iterdir()) == ["a", "b", "c", "d"]


# --- the memory that a bomb takes ---


def many(entry: Callable[[int], bytes]) -> Iterator[bytes]:
    yield from map(entry, range(1_000_000))


BOMBS: dict[str, Callable[[int], bytes]] = {
    "links with long words": lambda at: (
        pax([(b"linkpath", b"a/" * 500_000 + b"x")]) + header(b"l%d" % at, typeflag=b"1")
    ),
    "directories with xattrs": lambda at: (
        pax([(b"SCHILY.xattr.user.x", b"x" * 1_000_000)]) + header(b"d%d" % at, typeflag=b"5")
    ),
    "deep names": lambda at: pax([(b"path", b"%d/" % at + b"a/" * 400 + b"f")]) + header(b"-"),
    "notices of long names": lambda at: (
        pax([(b"path", b"a/" * 1900 + b"%d" % at), *((b"SCHILY.xattr.user.%d" % n, b"x") for n in range(500))])
        + header(b"-", typeflag=b"6")
    ),
    "maps of pieces": lambda at: (
        pax([(b"GNU.sparse.size", b"99999999"), (b"GNU.sparse.map", MAP)]) + header(b"f%d" % at, size=512) + bytes(512)
    ),
}
PIECES = 512
MAP = b",".join(b"%d,1" % (2 * at) for at in range(PIECES))


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_is_remembered_of_a_layer_has_its_limit(bomb: str, backing: Callable[[str], Path]) -> None:
    """Each of these grew by many times what it sent, as long as anybody sent more."""
    limits = Limits(layer_memory=8 << 20)

    def attack(work: Path) -> int:
        (work / "tree").mkdir()
        stream = Stream(chain(many(BOMBS[bomb]), repeat(b"")))
        with pytest.raises(LimitExceeded) as caught:
            unpack(stream, work / "tree", dialect=Dialect.OVERLAY, skeleton=work / "skeleton", limits=limits)
        assert caught.value.setting == "max-layer-memory"
        assert caught.value.met is not None
        return caught.value.met

    place = backing("ext4")
    assert bounded(lambda: attack(place), seconds=20, memory=64 << 20) > 8 << 20


class Stream:
    """Pieces, one after another."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readinto(self, buffer: memoryview) -> int:
        self._rest = self._rest or next(self._pieces)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def test_pieces_of_a_sparse_file_that_are_none_take_no_memory(backing: Callable[[str], Path]) -> None:
    empty = b",".join(repeat(b"0,0", 300_000))

    def attack(work: Path) -> None:
        (work / "tree").mkdir()
        entries = (
            pax([(b"GNU.sparse.size", b"0"), (b"GNU.sparse.map", empty)]) + header(b"f%d" % at) for at in range(30)
        )
        stream = Stream(chain(entries, [END], repeat(b"")))
        unpack(stream, work / "tree", dialect=Dialect.OVERLAY, skeleton=work / "skeleton")

    place = backing("ext4")
    bounded(lambda: attack(place), seconds=20, memory=48 << 20)


# --- daemon.json ---


def test_each_setting_is_a_key_of_daemon_json(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps(dict.fromkeys(SETTINGS, 7)))
    assert load(path).limits == Limits(**dict.fromkeys(SETTINGS.values(), 7))
    path.write_text('{"max-layer-size": "10g", "max-zstd-window": "1 MiB", "max-layer-entries": 0}')
    assert load(path).limits == Limits(layer_size=10 << 30, zstd_window=1 << 20, layer_entries=0)
    path.write_text("{}")
    assert load(path).limits == Limits()


@pytest.mark.parametrize(
    "text",
    [
        '{"max-layer-size": "much"}',
        '{"max-layer-size": -1}',
        '{"max-layer-size": true}',
        '{"max-layer-size": 1.5}',
        '{"max-layer-size": null}',
        '{"max-layer-entries": "4"}',
        '{"max-layer-size": "99999999p"}',
        '{"max-layer-entry": 1}',
    ],
)
def test_a_setting_that_is_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="max-layer-"):
        load(path)


def test_beyond_a_limit_is_an_error_of_what_came_in() -> None:
    assert issubclass(LimitExceeded, InvalidArchive)
