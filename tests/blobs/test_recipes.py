"""Compressed layers that are made again byte for byte: which compressor wrote a blob is found out by its beginning."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zlib
from collections.abc import Callable
from contextlib import closing

import pytest
import zstandard
from attrs import evolve

import layerstore
from blobs.conftest import GZIP_TYPE, name_of, read
from core.adding import Adder
from layerstore.blobs import Blobs, KnownBlob
from layerstore.compression import compressing
from layerstore.compression.goflate import Deflate
from layerstore.compression.pigz import Deflate as PigzDeflate
from layerstore.compression.recipes import TASTE, Recipe, Taster, making, own, parted
from layerstore.digest import DiffID
from layerstore.store import Store
from support import images as make

_CHANCE = random.Random(2)
_WORDS = [_CHANCE.randbytes(_CHANCE.randrange(2, 12)) for _ in range(3000)]


def text(size: int) -> bytes:
    """Bytes that compress as programs do, about three to one."""
    return b"".join(_CHANCE.choices(_WORDS, k=size // 6))[:size]


LARGE = make.layer(*(make.file(f"f{number}", text(250_000)) for number in range(12)))
SMALL = make.layer(*(make.file(f"f{number}", text(9_000)) for number in range(5)))


def deflated(data: bytes, level: int, memory: int = 8, *, header: str, strategy: int = 0) -> bytes:
    coder = zlib.compressobj(level, zlib.DEFLATED, -15, memory, strategy)
    body = coder.compress(data) + coder.flush()
    return bytes.fromhex(header) + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def ours(data: bytes, compression: str) -> bytes:
    made = bytearray()
    with compressing(made.extend, compression) as write:
        for start in range(0, len(data), 100_000):
            write(memoryview(data)[start : start + 100_000])
    return bytes(made)


def by_go(data: bytes, level: int) -> bytes:
    stream = Deflate(level)
    header = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, {1: 4}.get(level, 0), 255])
    return header + stream.feed(data) + stream.finish() + struct.pack("<II", zlib.crc32(data), len(data))


def by_pigz(data: bytes, level: int) -> bytes:
    with closing(PigzDeflate(level, 2)) as stream:
        body = stream.feed(memoryview(data)) + stream.finish()
    return bytes.fromhex("1f8b0800000000000203") + body + struct.pack("<II", zlib.crc32(data), len(data))


def named(data: bytes) -> bytes:
    made = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", 9, made, mtime=1234567) as file:
        file.write(data)
    return made.getvalue()


def sized(data: bytes) -> bytes:
    coder = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj(size=len(data))
    return coder.compress(data) + coder.flush()


def one_frame(data: bytes) -> bytes:
    coder = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    return coder.compress(data) + coder.flush()


WRITERS: dict[str, Callable[[bytes], bytes]] = {
    "our gzip": lambda data: ours(data, "gzip"),
    "our zstd": lambda data: ours(data, "zstd"),
    "docker": lambda data: by_go(data, 6),
    "ko": lambda data: by_go(data, 1),
    "debian": lambda data: by_pigz(data, 9),
    "python": lambda data: gzip.compress(data, 9, mtime=77),
    "python, with a name": named,
    "java": lambda data: deflated(data, 6, header="1f8b0800000000000000"),
    "node": lambda data: deflated(data, 6, header="1f8b0800000000000003"),
    "much memory": lambda data: deflated(data, 9, 9, header="1f8b0800000000000203"),
    "fast": lambda data: deflated(data, 1, header="1f8b0800000000000403"),
    "zstd": one_frame,
    "zstd with its size": sized,
}


def tasted(blob: bytes, tar: bytes) -> Taster:
    taster = Taster()
    for start in range(0, len(blob), 70_000):
        taster.blob(blob[start : start + 70_000])
    for start in range(0, len(tar), 90_000):
        taster.tar(memoryview(tar)[start : start + 90_000])
    return taster


def made(recipe: str, tar: bytes, piece: int = 100_000) -> bytes:
    out = bytearray()
    with making(Recipe.parse(recipe), len(tar), out.extend) as feed:
        for start in range(0, len(tar), piece):
            feed(memoryview(tar)[start : start + piece])
    return bytes(out)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("tar", [LARGE, SMALL], ids=["large", "small"])
def test_what_wrote_it_is_found_and_writes_it_again(writer: str, tar: bytes) -> None:
    blob = WRITERS[writer](tar)
    taster = tasted(blob, tar)
    recipe = taster.recipe()
    assert recipe is not None
    assert taster.is_certain == (len(tar) < TASTE)
    found = [made(str(one), tar) for one in parted(recipe)]
    assert blob in found
    assert found[0] == blob or not taster.is_certain


@pytest.mark.parametrize("piece", [1, 512, 1 << 20, 1 << 24])
def test_in_whatever_pieces_the_tar_comes(piece: int) -> None:
    tar = SMALL if piece == 1 else LARGE
    for compression in ("gzip", "zstd"):
        recipe = own(compression)
        assert recipe is not None
        assert made(str(recipe), tar, piece) == ours(tar, compression)


def test_of_a_plain_layer_there_is_none() -> None:
    assert own("none") is None
    assert tasted(LARGE, LARGE).recipe() is None


@pytest.mark.parametrize(
    "blob",
    [
        deflated(LARGE, 6, header="1f8b0800000000000003", strategy=zlib.Z_HUFFMAN_ONLY),
        gzip.compress(SMALL, mtime=0)[:-1],
        gzip.compress(SMALL, mtime=0) + b"x",
        b"\x1f\x8b\x08",
        b"\x1f\x8b\x08\x04\0\0\0\0\0\0\xff\xff",
        b"\x1f\x8b\x08\x08\0\0\0\0\0\0" + b"x" * 5000,
        b"\x28\xb5\x2f\xfd",
        b"",
    ],
    ids=["other settings", "cut short", "too long", "no header", "long field", "long name", "no frame", "empty"],
)
def test_what_nobody_known_wrote(blob: bytes) -> None:
    assert tasted(blob, LARGE if len(blob) > TASTE else SMALL).recipe() is None


def test_as_text_and_back() -> None:
    recipe = Recipe("zlib", (("level", 6), ("memory", 8)), b"\x1f\x8b", "1.2.13")
    assert str(recipe) == "zlib level=6 memory=8 header=1f8b library=1.2.13"
    assert Recipe.parse(str(recipe)) == recipe
    assert parted(f"strange level=1 library=7 | {recipe} | zlib level=x") == [recipe]


@pytest.mark.root
class TestInAStore:
    def blob(self, data: bytes, tar: bytes, recipe: str | None, *, is_proved: bool = False) -> KnownBlob:
        return KnownBlob(name_of(data), DiffID(name_of(tar)), len(data), GZIP_TYPE, recipe, is_proved)

    def test_a_guess_is_proved_by_being_made(self, blobs: Blobs, add: Adder) -> None:
        add(LARGE)
        data = ours(LARGE, "gzip")
        known = self.blob(data, LARGE, tasted(data, LARGE).recipe())
        blobs.remember(None, known)
        assert blobs.size(known.digest) is None
        assert blobs.guesses() == [known.digest]
        assert blobs.size(known.digest, prove=True) == len(data)
        assert blobs.size(known.digest) == len(data)
        assert blobs.guesses() == []
        assert blobs.forms_of(known.diff_id)[0].is_proved
        assert read(blobs, known.digest) == data
        for start, end in ((0, 5), (9, 11), (100_000, 100_001), (len(data) - 3, None), (0, len(data))):
            assert read(blobs, known.digest, start, end) == data[start:end]

    @pytest.mark.parametrize("writer", ["our zstd", "python"])
    def test_a_range_of_what_is_made_again(self, blobs: Blobs, add: Adder, writer: str) -> None:
        add(LARGE)
        data = WRITERS[writer](LARGE)
        known = self.blob(data, LARGE, tasted(data, LARGE).recipe())
        blobs.remember(None, known)
        assert blobs.prove(known.digest)
        for start, end in ((0, 5), (9, 11), (len(data) - 3, None), (0, len(data))):
            assert read(blobs, known.digest, start, end) == data[start:end]

    def test_a_wrong_guess_is_forgotten(self, blobs: Blobs, add: Adder) -> None:
        add(SMALL)
        data = gzip.compress(SMALL, 6, mtime=0)
        right = tasted(data, SMALL).recipe()
        assert right is not None
        known = self.blob(data, SMALL, f"{right.replace('level=6', 'level=1')} | {right}")
        blobs.remember(None, known)
        with pytest.raises(layerstore.Damaged, match="cannot be made again"):
            read(blobs, known.digest)
        assert read(blobs, known.digest) == data
        assert blobs.forms_of(known.diff_id) == [evolve(known, recipe=right, is_proved=True)]

    def test_all_guesses_wrong(self, blobs: Blobs, add: Adder) -> None:
        add(SMALL)
        data = gzip.compress(SMALL, 6, mtime=0)
        known = self.blob(data, SMALL, "zlib level=1 memory=8 header=1f8b | zlib level=2 memory=8 header=1f8b")
        blobs.remember(None, known)
        assert blobs.size(known.digest, prove=True) is None
        assert blobs.forms_of(known.diff_id) == [evolve(known, recipe=None)]
        with pytest.raises(layerstore.NotFound):
            read(blobs, known.digest)

    def test_a_library_that_writes_otherwise_now(self, blobs: Blobs, add: Adder) -> None:
        """Proved once, and wrong today: that is told, and no worthless byte is taken for the blob."""
        add(SMALL)
        data = gzip.compress(SMALL, 6, mtime=0)
        recipe = f"zlib level=5 memory=8 header=1f8b0800000000000003 library={zlib.ZLIB_RUNTIME_VERSION}"
        known = self.blob(data, SMALL, recipe, is_proved=True)
        blobs.remember(None, known)
        assert blobs.size(known.digest) == len(data)
        with pytest.raises(layerstore.Damaged):
            read(blobs, known.digest)
        assert blobs.size(known.digest) is None

    def test_after_an_update_of_the_library_it_is_a_guess_again(self, blobs: Blobs, add: Adder) -> None:
        add(SMALL)
        data = gzip.compress(SMALL, 6, mtime=0)
        recipe = tasted(data, SMALL).recipe()
        assert recipe is not None
        older = f"{recipe.partition(' library=')[0]} library=1.1"
        known = self.blob(data, SMALL, older, is_proved=True)
        blobs.remember(None, known)
        assert blobs.size(known.digest) is None
        assert blobs.size(known.digest, prove=True) == len(data)
        assert blobs.forms_of(known.diff_id) == [evolve(known, recipe=recipe)]
        assert blobs.size(known.digest) == len(data)

    def test_a_damaged_layer_proves_nothing(self, blobs: Blobs, store: Store, add: Adder) -> None:
        image = add(SMALL)
        data = gzip.compress(SMALL, 6, mtime=0)
        known = self.blob(data, SMALL, tasted(data, SMALL).recipe())
        blobs.remember(None, known)
        folder = store._images.folders_of(image)[image.chain_ids[0]]
        (folder / "f1").write_text("something else")
        assert not blobs.prove(known.digest)
        assert blobs.forms_of(known.diff_id) == [known]

    def test_a_later_sight_does_not_unlearn(self, blobs: Blobs) -> None:
        proved = self.blob(b"x", SMALL, "zlib level=6 memory=8", is_proved=True)
        blobs.remember(None, proved)
        blobs.remember(None, evolve(proved, recipe="zlib level=5 memory=8", is_proved=False))
        blobs.remember(None, evolve(proved, recipe=None, is_proved=False))
        assert blobs.forms_of(proved.diff_id) == [proved]
