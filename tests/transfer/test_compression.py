"""Streams as they come in: found out, inflated, and never believed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import resource
import threading
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from layerstore.compression import compressing, open_stream, sniff, streams
from layerstore.digest import Digest
from layerstore.errors import DigestMismatch, InvalidArchive, LimitExceeded
from layerstore.limits import USUAL, Limits
from support.images import digest

_CHANCE = random.Random(1)
DATA = b"".join(_CHANCE.randbytes(_CHANCE.randrange(900)) + bytes(_CHANCE.randrange(2000)) for _ in range(400))

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
SKIPPABLE = (0x184D2A53).to_bytes(4, "little") + (1000).to_bytes(4, "little") + bytes(1000)


def inflate(data: bytes, *, expect: str | None = None, piece: int = 1 << 18, limits: Limits = USUAL) -> bytes:
    out = bytearray()
    buffer = memoryview(bytearray(piece))
    with open_stream(io.BytesIO(data), expect=None if expect is None else Digest(expect), limits=limits) as stream:
        while count := stream.readinto(buffer):
            out += buffer[:count]
    return bytes(out)


@pytest.fixture(params=list(COMPRESS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_compression_is_known_by_its_first_bytes(name: str) -> None:
    data = COMPRESS[name](DATA)
    assert sniff(data[:6]) == name
    assert inflate(data, expect=digest(data)) == DATA
    assert inflate(data, piece=777) == DATA


def test_plain_passes_through() -> None:
    assert inflate(DATA, expect=digest(DATA)) == DATA
    assert inflate(b"") == b""
    assert inflate(b"abc") == b"abc"


def test_members_follow_one_another(name: str) -> None:
    data = COMPRESS[name](DATA)
    assert inflate(data + COMPRESS[name](b"") + data) == DATA * 2


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz"])
def test_zeros_may_follow(compression: str) -> None:
    data = COMPRESS[compression](DATA)
    assert inflate(data + bytes(200_000) + data + bytes(1)) == DATA * 2


def test_many_small_members_as_estargz_has_them() -> None:
    pieces = [DATA[at : at + 512] for at in range(0, len(DATA), 512)]
    assert inflate(b"".join(gzip.compress(piece, 1) for piece in pieces)) == DATA


def test_frames_to_be_skipped_are() -> None:
    data = COMPRESS["zstd"](DATA)
    assert inflate(SKIPPABLE + data + SKIPPABLE) == DATA
    assert sniff(SKIPPABLE[:6]) == "zstd"


def test_what_is_cut_short_is_refused(name: str) -> None:
    data = COMPRESS[name](DATA)
    for end in (6, 7, 11, len(data) // 2, len(data) - 5, len(data) - 1):
        with pytest.raises(InvalidArchive, match=f"the {name} data end too early"):
            inflate(data[:end])


def test_zstd_is_whole_at_the_end_of_a_frame_and_nowhere_else() -> None:
    plain = zstandard.ZstdCompressor(write_checksum=False, write_content_size=False)
    frames = [COMPRESS["zstd"](b"hello" * 100), SKIPPABLE[:8] + bytes(1000), plain.compress(_CHANCE.randbytes(300))]
    data = b"".join(frames)
    ends = {len(frames[0]), len(frames[0] + frames[1]), len(data)}
    for end in range(6, len(data) + 1):
        if end in ends:
            inflate(data[:end])
        else:
            with pytest.raises(InvalidArchive):
                inflate(data[:end])


def test_something_else_behind_the_data_is_refused(name: str) -> None:
    with pytest.raises(InvalidArchive):
        inflate(COMPRESS[name](DATA) + b"something else")


def test_damage_is_found(name: str) -> None:
    data = bytearray(COMPRESS[name](DATA))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(InvalidArchive, match=f"the {name} data are damaged"):
        inflate(bytes(data))


def test_a_wrong_digest_is_the_reason_whatever_the_decoder_says(name: str) -> None:
    data = COMPRESS[name](DATA)
    for bad in (data[:-9], bytes([*data[:1000], data[1000] ^ 1, *data[1001:]]), data + b"x"):
        with pytest.raises(DigestMismatch) as caught:
            inflate(bad, expect=digest(data))
        assert (caught.value.expected, caught.value.actual) == (digest(data), digest(bad))


def test_a_wrong_digest_of_plain_bytes_is_found_at_the_end() -> None:
    with pytest.raises(DigestMismatch):
        inflate(DATA, expect=digest(b"else"))


def test_an_error_of_the_source_arrives_as_it_was() -> None:
    class Broken(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.data = io.BytesIO(data)

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            count = self.data.readinto(buffer[:100])
            if not count:
                raise OSError(5, "no more")
            return count

    buffer = memoryview(bytearray(1 << 18))
    for data in (DATA, *(compress(DATA) for compress in COMPRESS.values())):
        with open_stream(Broken(data[: len(data) // 2])) as stream, pytest.raises(OSError, match="no more"):  # noqa: PT012
            while stream.readinto(buffer):
                pass


def test_a_bomb_takes_no_memory_and_ends_when_nobody_reads() -> None:
    bomb = zstandard.ZstdCompressor(level=3).compress(bytes(1 << 30))
    before, threads = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, threading.active_count()
    with open_stream(io.BytesIO(bomb)) as stream:
        stream.readinto(memoryview(bytearray(1000)))
    assert threading.active_count() == threads
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


@given(st.sampled_from(["gzip", "zstd", "xz", "bzip2"]), st.data())
def test_no_damage_gets_through_unnoticed(compression: str, data: st.DataObject) -> None:
    original = DATA[:3000]
    packed = bytearray(COMPRESS[compression](original))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DigestMismatch):
        inflate(bytes(packed), expect=digest(COMPRESS[compression](original)))


# --- the way out ---


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_what_is_compressed_comes_back_and_is_the_same_each_time(compression: str) -> None:
    written = []
    for piece in (1 << 16, 1 << 16, 777):
        out = io.BytesIO()
        with compressing(out.write, compression) as write:
            for at in range(0, len(DATA), piece):
                write(memoryview(DATA)[at : at + piece])
        written.append(out.getvalue())
    assert len(set(written)) == 1
    assert inflate(written[0]) == DATA
    assert sniff(written[0][:6]) == (None if compression == "none" else compression)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_bytes_do_not_depend_on_the_machines_cores(compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DATA * 8
    written = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr("layerstore.compression.coders.THREADS", threads)
        out = io.BytesIO()
        with compressing(out.write, compression) as write:
            write(memoryview(data))
        written.add(out.getvalue())
    assert len(written) == 1


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_errors_of_either_side_pass(compression: str) -> None:
    class Full(Exception):
        pass

    def fail(_: memoryview) -> None:
        raise Full

    with pytest.raises(Full), compressing(fail, compression) as write:
        write(memoryview(DATA))
    with pytest.raises(Full), compressing(io.BytesIO().write, compression) as write:  # noqa: PT012
        write(memoryview(DATA))
        raise Full


@pytest.mark.parametrize(
    "part",
    [gzip.compress(b""), gzip.compress(b"x"), COMPRESS["zstd"](b""), COMPRESS["zstd"](b"x"), SKIPPABLE[:4] + bytes(4)],
    ids=["gzip, empty", "gzip", "zstd, empty", "zstd", "zstd, skippable"],
)
def test_parts_in_which_there_is_hardly_anything_are_limited_as_entries_are(part: bytes) -> None:
    compression = sniff(part[:6])
    assert compression is not None
    with_content = COMPRESS[compression](bytes(512))
    limits = Limits(layer_entries=1000)
    for honest in (part * 1000, with_content * 3000, part * 999 + with_content * 3000):
        inflate(honest, limits=limits)
    with pytest.raises(LimitExceeded, match="max-layer-entries is 1,000") as caught:
        inflate(part * 40_000, limits=limits)
    assert caught.value.setting == "max-layer-entries"
    inflate(part * 40_000, limits=Limits(layer_entries=0))


def test_what_small_members_give_is_passed_on_together(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(streams._Inflated, "_check_ratio", lambda _, size: sizes.append(size))
    data = b"".join(gzip.compress(b"%d" % (number % 10), 1) for number in range(20_000))
    assert inflate(data) == b"0123456789" * 2000
    assert len(sizes) <= len(data) // (128 << 10) + 2


def test_what_came_is_passed_on_before_more_is_waited_for() -> None:
    theirs, ours = os.pipe()
    with open(theirs, "rb", buffering=0) as pipe, open(ours, "wb", buffering=0) as feed:
        feed.write(gzip.compress(b"sm") + gzip.compress(b"all"))
        with open_stream(pipe) as stream:
            found = bytearray(8)
            count = stream.readinto(memoryview(found))
            while count < 5:
                count += stream.readinto(memoryview(found)[count:])
            assert found[:count] == b"small"
            feed.close()
            assert stream.readinto(memoryview(found)) == 0
