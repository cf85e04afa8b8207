"""Pieces of a layer's tar made of pieces of its blob: for each compression, from each point, with nothing believed."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tempfile
import zlib
from pathlib import Path

import pytest
import zstandard
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from layerstore import tar
from layerstore.digest import DiffID, of_bytes
from layerstore.errors import DigestMismatch, InvalidArchive, LimitExceeded
from layerstore.limits import USUAL, Limits
from layerstore.seekable import LayerIndex, Ranges, zstd
from layerstore.seekable import gzip as gzips
from layerstore.seekable.making import make
from layerstore.testing.tars import Sparse, archive, file, folder, hardlink, sparse, symlink, whiteout

rng = random.Random(13)


def prose(size: int) -> bytes:
    """Bytes that deflate makes something of."""
    words = [rng.randbytes(rng.randrange(3, 40)) for _ in range(300)]
    made = bytearray()
    while len(made) < size:
        made += b"".join(rng.choices(words, k=1 + (size - len(made)) // 40))
    return bytes(made[:size])


LAYER = archive(
    folder(b"d"),
    file(b"d/large", prose(5 << 20)),
    file(b"d/noise", rng.randbytes(700_000)),
    file(b"tiny", b"x"),
    file(b"twice", b"first"),
    hardlink(b"d/link", b"tiny"),
    symlink(b"s", b"d/large"),
    file(b"twice", prose(300_000)),
    whiteout(b"gone"),
    sparse(b"holes", 1 << 20, (4096, b"z" * 512), (1 << 19, b"y" * 5000), form=Sparse.PAX_1_0),
    file(b"n" * 200, prose(100_000)),
)
DIFF_ID = DiffID(of_bytes(LAYER))


def members(data: bytes) -> bytes:
    return b"".join(gzip.compress(data[at : at + 700_001]) for at in range(0, len(data), 700_001))


def bgzip(data: bytes) -> bytes:
    return b"".join(gzip.compress(data[at : at + 60_000]) for at in range(0, len(data), 60_000)) + bytes(1000)


def isal(data: bytes) -> bytes:
    from isal import igzip

    return igzip.compress(data, 1)


def named_member(data: bytes) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile("a name", "wb", fileobj=out) as stream:
        stream.write(data)
    return out.getvalue()


def frames(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor()
    pieces = [compressor.compress(data[at : at + 1_000_003]) for at in range(0, len(data), 1_000_003)]
    return (b"\x50\x2a\x4d\x18\x05\x00\x00\x00seven" + pieces[0]) + b"".join(pieces[1:])


BLOBS = {
    "gzip -1": ("gzip", gzip.compress(LAYER, 1)),
    "gzip -9": ("gzip", gzip.compress(LAYER, 9)),
    "gzip, stored": ("gzip", gzip.compress(LAYER, 0)),
    "gzip, with a name": ("gzip", named_member(LAYER)),
    "isal": ("gzip", isal(LAYER)),
    "members": ("gzip", members(LAYER)),
    "bgzip": ("gzip", bgzip(LAYER)),
    "zstd frames": ("zstd", frames(LAYER)),
    "plain": ("none", LAYER),
}


def made_of(name: str, tmp_path: Path) -> tuple[LayerIndex, bytes, bytes]:
    compression, blob = BLOBS[name]
    made = make(blob, of_bytes(blob), len(blob), compression, DIFF_ID, io.BytesIO(LAYER), tmp_path)
    assert made is not None
    index, windows = made
    return LayerIndex.unpacked(index.packed(), USUAL), windows, blob


def pieces_of(data: bytes) -> list[bytes]:
    """Pieces, as a line brings them: the first is short."""
    return [data[:7], *(data[at : at + 50_021] for at in range(7, len(data), 50_021))]


def ranges_of(index: LayerIndex, windows: bytes, blob: bytes) -> Ranges:
    return Ranges(index, lambda at, n: pieces_of(blob[at : at + n]), lambda at, n: windows[at : at + n])


@pytest.mark.parametrize("name", BLOBS)
def test_each_chunk_can_be_had_by_itself(name: str, tmp_path: Path) -> None:
    index, windows, blob = made_of(name, tmp_path)
    asked: list[int] = []
    ranges = Ranges(
        index, lambda at, n: asked.append(n) or pieces_of(blob[at : at + n]), lambda at, n: windows[at : at + n]
    )

    for number in range(0, index.chunks, 5):
        asked.clear()
        found = dict(ranges.chunks(number, number))
        assert number in found
        for one, data in found.items():
            assert data == LAYER[one * index.chunk : (one + 1) * index.chunk]
        assert sum(asked) < 4 << 20
    everything = b"".join(data for _, data in sorted(dict(ranges.chunks(0, index.chunks - 1)).items()))
    assert everything == LAYER
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["gzip -9", "plain"])
def test_the_tar_is_listed_without_its_data(name: str, tmp_path: Path) -> None:
    """What is known of it, with zeros in the place of file data, means what the tar means."""
    index, _, _ = made_of(name, tmp_path)
    hollow = b"".join(data + bytes(size) for data, size in index.tokens())
    assert len(hollow) == len(LAYER)
    assert len(index.stream) < 20_000

    told = tar.take_listing(io.BytesIO(hollow), tmp_path / "hollow", claimed=DIFF_ID)
    real = tar.take_listing(io.BytesIO(LAYER), tmp_path / "real")

    assert told == real

    def facts(path: Path) -> list[tuple[object, ...]]:
        return [(e.path, e.kind, e.mode, e.size, e.stored, e.target, e.covers) for e in tar.entries(path)]

    assert facts(tmp_path / "hollow") == facts(tmp_path / "real")


@pytest.mark.parametrize("name", ["gzip -1", "zstd frames", "plain"])
def test_other_bytes_are_found_out(name: str, tmp_path: Path) -> None:
    index, windows, blob = made_of(name, tmp_path)
    point = index.points[1].at if index.points else 1 << 20
    wrong = bytearray(blob)
    wrong[point + 5000] ^= 0x40

    with pytest.raises((DigestMismatch, InvalidArchive)):
        list(ranges_of(index, windows, bytes(wrong)).chunks(0, index.chunks - 1))


def test_a_wrong_window_is_found_out(tmp_path: Path) -> None:
    index, windows, blob = made_of("gzip -9", tmp_path)
    assert len([point for point in index.points if point.window[1]]) > 2

    with pytest.raises((DigestMismatch, InvalidArchive)):
        list(ranges_of(index, bytes(len(windows)), blob).chunks(20, 20))


@pytest.mark.parametrize("compression", ["zstd", "gzip", "bzip2"])
def test_what_cannot_be_read_from_within_has_no_index(compression: str, tmp_path: Path) -> None:
    data = archive(file(b"zeros", bytes(40 << 20)))
    blob = {
        "zstd": zstandard.ZstdCompressor().compress(data),
        "gzip": gzip.compress(data, 9),
        "bzip2": b"BZh9",
    }[compression]

    made = make(blob, of_bytes(blob), len(blob), compression, DiffID(of_bytes(data)), io.BytesIO(data), tmp_path)

    # zlib ends a block after so many symbols, of which each stands for 258 zeros.
    assert (made is None) == (compression != "gzip")


@pytest.mark.parametrize("cut", [20, 3000, 200_000, -4])
def test_a_blob_that_is_cut_short_is_refused(cut: int, tmp_path: Path) -> None:
    blob = gzip.compress(LAYER, 6)[:cut]

    with pytest.raises(InvalidArchive):
        make(blob, of_bytes(blob), len(blob), "gzip", DIFF_ID, io.BytesIO(LAYER), tmp_path)


def test_a_blob_of_another_layer_is_refused(tmp_path: Path) -> None:
    blob = gzip.compress(LAYER + bytes(512), 6)

    with pytest.raises(InvalidArchive, match="its layer"):
        make(blob, of_bytes(blob), len(blob), "gzip", DIFF_ID, io.BytesIO(LAYER), tmp_path)


@given(
    st.binary(max_size=3000),
    st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE]),
    st.lists(st.integers(0, 3000), max_size=4),
    st.integers(0, 9),
)
def test_blocks_are_found_where_they_begin(data: bytes, strategy: int, cuts: list[int], level: int) -> None:
    """Whatever the blocks are, and at whatever bit they begin: what follows is inflated from each."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, 31, 9, strategy)
    blob, at = b"", 0
    for cut in sorted(cuts):
        blob += compressor.compress(data[at:cut]) + compressor.flush(zlib.Z_BLOCK)
        at = max(at, cut)
    blob += compressor.compress(data[at:]) + compressor.flush()
    before, gzips.SPAN = gzips.SPAN, 1  # type: ignore[misc]
    try:
        *points, (end, _) = gzips.points(blob)
    finally:
        gzips.SPAN = before  # type: ignore[misc]

    assert (end.out, end.at) == (len(data), len(blob))
    for point, known in points:
        window = data[point.out - known : point.out]
        found = gzips.inflating(pieces_of(blob[point.at :]), point.bit, window, len(data) - point.out)
        assert b"".join(found) == data[point.out :]


@given(st.integers(0, 1 << 20), st.integers(0, 255))
def test_a_damaged_blob_is_no_harm(at: int, value: int) -> None:
    blob = bytearray(SMALL)
    blob[at % len(blob)] = value
    try:
        found = list(gzips.points(bytes(blob)))
    except InvalidArchive:
        return
    assert found[-1][0].at <= len(blob)


SMALL = gzip.compress(prose(60_000), 6) + gzip.compress(prose(3000), 1)


@given(st.integers(0, 1 << 20), st.integers(0, 255), st.integers(0, 1 << 20))
def test_a_damaged_index_is_refused_or_harmless(at: int, value: int, cut: int) -> None:
    packed = bytearray(PACKED)
    packed[at % len(packed)] = value
    for data in (bytes(packed), PACKED[: cut % len(PACKED)], zstandard.ZstdCompressor().compress(altered(at, value))):
        try:
            index = LayerIndex.unpacked(data, USUAL)
            made = sum(len(known) + size for known, size in index.tokens())
        except (InvalidArchive, LimitExceeded):
            continue
        assert made == index.tar_size


def altered(at: int, value: int) -> bytes:
    plain = bytearray(zstandard.ZstdDecompressor().decompress(PACKED))
    plain[at % len(plain)] = value
    return bytes(plain)


def _small_index() -> bytes:
    data = archive(file(b"a", prose(300_000)), file(b"b", b"b"))
    blob = gzip.compress(data)
    made = make(
        blob, of_bytes(blob), len(blob), "gzip", DiffID(of_bytes(data)), io.BytesIO(data), Path(tempfile.gettempdir())
    )
    assert made is not None
    return made[0].packed()


PACKED = _small_index()


def test_an_index_is_no_larger_than_limits_allow() -> None:
    huge = zstandard.ZstdCompressor().compress(bytes(100 << 20))

    with pytest.raises(LimitExceeded):
        LayerIndex.unpacked(huge, Limits(layer_memory=1 << 20))
    with pytest.raises(LimitExceeded):
        LayerIndex.unpacked(PACKED, Limits(layer_size=1000))


def test_an_index_lets_no_read_fetch_more_of_a_blob_than_it_could_inflate() -> None:
    index = LayerIndex.unpacked(PACKED, USUAL)

    with pytest.raises(InvalidArchive, match="bytes of the blob lie between two of its points"):
        LayerIndex.unpacked(evolve(index, size=index.size + (64 << 20)).packed(), USUAL)


def test_a_blob_with_a_long_stretch_that_is_no_tar_has_no_index(tmp_path: Path) -> None:
    compression, blob = BLOBS["zstd frames"]
    skipped = 65 << 20
    blob += b"\x50\x2a\x4d\x18" + skipped.to_bytes(4, "little") + bytes(skipped)

    assert make(blob, of_bytes(blob), len(blob), compression, DIFF_ID, io.BytesIO(LAYER), tmp_path) is None


def test_chunks_are_proved_by_sha256(tmp_path: Path) -> None:
    index, _, _ = made_of("plain", tmp_path)

    assert index.hash_of(3) == hashlib.sha256(LAYER[3 * index.chunk : 4 * index.chunk]).digest()
    assert index.hash_of(index.chunks - 1) == hashlib.sha256(LAYER[(index.chunks - 1) * index.chunk :]).digest()


@pytest.mark.parametrize("name", ["gzip -9", "zstd frames", "plain"])
def test_it_is_known_what_comes_along_and_where_files_end(name: str, tmp_path: Path) -> None:
    index, windows, blob = made_of(name, tmp_path)
    for first, last in ((0, 0), (3, 3), (7, 30), (index.chunks - 1, index.chunks - 1)):
        ranges = ranges_of(index, windows, blob)
        wanted = list(ranges.coming(first, last))
        assert [number for number, _ in ranges.chunks(first, last)] == wanted

    begin = LAYER.index(b"ustar") // 512 * 512  # the folder's header
    large = 2 * 512 + begin
    assert index.file_end(begin) == begin
    assert index.file_end(large) == index.file_end(large + 12345) == large + (5 << 20)


@pytest.mark.parametrize("name", ["gzip -9", "isal", "zstd frames", "plain"])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_read_twice_in_whatever_order_it_comes(name: str, seed: int, tmp_path: Path) -> None:
    index, windows, blob = made_of(name, tmp_path)
    asked: list[int] = []
    ranges = Ranges(
        index, lambda at, n: asked.append(n) or pieces_of(blob[at : at + n]), lambda at, n: windows[at:][:n]
    )
    order, have = list(range(index.chunks)), {}
    random.Random(seed).shuffle(order)
    for number in order:
        if number not in have:
            have.update(ranges.chunks(number, number))
    assert b"".join(data for _, data in sorted(have.items())) == LAYER
    assert sum(asked) <= len(blob) * 1.4


def test_a_window_wider_than_the_limit_is_told_as_such() -> None:
    blob = frames(LAYER)
    narrow = Limits(zstd_window=1 << 10)
    with pytest.raises(LimitExceeded, match="max-zstd-window is 1,024"):
        list(zstd.points(blob, narrow))
    with pytest.raises(LimitExceeded, match="max-zstd-window is 1,024"):
        list(zstd.inflating([blob], len(LAYER), narrow))


@pytest.mark.parametrize("window", [0, 1 << 31, 1 << 40])
def test_a_window_that_no_frame_can_have_is_damage_where_there_is_no_limit(window: int) -> None:
    blob = b"\x28\xb5\x2f\xfd\x00\xf8" + bytes(20)  # 2 TiB (RFC 8878, "Window Descriptor")
    for read in (zstd.points(blob, Limits(zstd_window=window)), zstd.inflating([blob], 1, Limits(zstd_window=window))):
        with pytest.raises(InvalidArchive, match="the zstd data are damaged") as refused:
            list(read)
        assert not isinstance(refused.value, LimitExceeded)
