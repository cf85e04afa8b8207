"""What tar-split would make of what is written for it is the tar; how it does that is said here once more."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.adding import Adder
from layerstore import Store
from layerstore.faces.podman.splitting import write_split
from layerstore.kernel._shim import ffi, lib
from layerstore.testing import strategies, tars
from support.properties import by_day

pytestmark = pytest.mark.root


def crc(data: bytes) -> int:
    """By the definition, bit by bit."""
    value = (1 << 64) - 1
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xD800000000000000 if value & 1 else 0)
    return value ^ ((1 << 64) - 1)


def assembled(split: bytes, tree: Path) -> tuple[bytes, int]:
    """The tar, as `WriteOutputTarStream` of tar-split makes it; and how many files were read for it."""
    made, files = io.BytesIO(), 0
    for line in gzip.decompress(split).splitlines():
        entry = json.loads(line)
        payload = base64.b64decode(entry["payload"])
        if entry["type"] == 2:
            made.write(payload)
            continue
        name = base64.b64decode(entry["name_raw"]) if "name_raw" in entry else entry["name"].encode()
        data = Path(tree, name.decode("utf-8", "surrogateescape").lstrip("/")).read_bytes()
        assert len(data) == entry["size"]
        assert int.from_bytes(payload, "big") == crc(data)
        made.write(data)
        files += 1
    return made.getvalue(), files


def test_the_crc_is_gos() -> None:
    assert lib.ls_crc64(0, b"123456789", 9) == 0xB90956C775A41001  # of CRC-64/GO-ISO, in catalogues of CRCs


@given(st.binary(max_size=100), st.integers(0, 100))
def test_the_crc_in_two_parts(data: bytes, at: int) -> None:
    first, second = ffi.from_buffer(data[:at]), ffi.from_buffer(data[at:])
    assert lib.ls_crc64(lib.ls_crc64(0, first, len(first)), second, len(second)) == crc(data)


def split(store: Store, layer: bytes) -> tuple[bytes, int]:
    """There and back."""
    image = Adder(store)(layer)
    [(chain, tree)] = image.folders.items()
    out = io.BytesIO()
    write_split(store, chain, tree, out)
    return assembled(out.getvalue(), tree)


def test_any_layer_comes_back(store: Store) -> None:
    @by_day(25)
    @given(layers=strategies.stacks(max_layers=1))
    def comes_back(layers: Sequence[strategies.Layer]) -> None:
        tar = layers[0].tar
        assert split(store, tar)[0] == tar
        store.prune(all_images=True)

    comes_back()


ODD = {
    "replaced later": ([tars.file(b"f", b"first"), tars.file(b"f", b"other")], 1),
    "large": ([tars.file(b"f", bytes(range(256)) * 10_000)], 1),
    "an absolute name": ([tars.file(b"/a/../f", b"data")], 0),
    "through a link": ([tars.folder(b"d"), tars.symlink(b"l", b"d"), tars.file(b"l/f", b"data")], 0),
    "sparse": ([tars.sparse(b"f", 100_000, (4096, b"data"), form=form) for form in tars.Sparse], 0),
    "a folder later": ([tars.file(b"f", b"data"), tars.folder(b"f"), tars.file(b"f/g", b"data")], 1),
    "a device later": ([tars.file(b"f", b"data"), tars.char(b"f", 1, 3)], 0),
    "a pipe later": ([tars.file(b"f", b"data"), tars.fifo(b"f")], 0),
    "removed again": ([tars.file(b"d/f", b"data"), tars.file(b"d", b"no folder")], 1),
    "a long name": ([tars.file(b"n" * 200, b"data"), tars.file(b"\xff", b"data")], 2),
    "a size withdrawn": ([tars.file(b"f", b"data", before=tars.pax([(b"size", b"")]))], 1),
    "a second name": ([tars.file(b"f", b"data"), tars.hardlink(b"g", b"f")], 1),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_layers_come_back(store: Store, name: str) -> None:
    entries, files = ODD[name]
    tar = b"".join(map(tars.encode, entries)) + tars.END + b"and more"
    assert split(store, tar) == (tar, files)


@pytest.mark.parametrize("size", [b"no number", b"", b"-1", b"9" * 5000], ids=["words", "empty", "negative", "long"])
def test_what_follows_a_tars_end_may_look_like_headers(store: Store, size: bytes) -> None:
    more = tars.pax([(b"size", size)]) + tars.archive(tars.file(b"g", b"more"))
    tar = tars.archive(tars.file(b"f", b"data")) + more
    assert split(store, tar)[0] == tar
