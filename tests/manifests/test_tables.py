"""Tables of contents of layers: eStargz's and zstd:chunked's, and whatever pretends to be one."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.errors import InvalidArchive
from layerstore.manifests import Descriptor
from layerstore.manifests.tables import FOOTER, Piece, place_in_footer, place_of, read_table
from support import images as make
from support.properties import by_day

DIGEST = make.digest(b"table")
# As skopeo 1.9.3 writes it, but for two long digests.
CHUNKED: list[dict[str, Any]] = [
    {"type": "dir", "name": "./etc/", "mode": 0o40755, "modtime": "2026-11-29T13:08:46.5Z", "uid": 3},
    {"type": "symlink", "name": "./etc/l", "linkName": "hi", "mode": 0o777, "modtime": "2026-11-29T15:08:46+02:00"},
    {"type": "reg", "name": "./etc/hi", "mode": 0o644, "size": 6, "digest": DIGEST, "offset": 130, "endOffset": 149},
    {
        "type": "reg",
        "name": "./etc/big",
        "size": 300,
        "offset": 243,
        "endOffset": 700,
        "chunkSize": 100,
        "xattrs": {"user.x": "eA=="},
    },
    {"type": "chunk", "name": "./etc/big", "offset": 400, "chunkSize": 150, "chunkOffset": 100},
    {"type": "chunk", "name": "./etc/big", "chunkSize": 50, "chunkOffset": 250, "chunkType": "zeros"},
]


def table(entries: object, version: object = 1) -> bytes:
    return json.dumps({"version": version, "entries": entries}).encode()


def test_what_a_table_says_of_each_file() -> None:
    folder, link, small, large = read_table(table(CHUNKED), 800, "the table")
    assert (folder.mode, folder.uid, folder.mtime_ns % 10**10) == (0o755, 3, 6_500_000_000)
    assert (link.target, folder.mtime_ns - link.mtime_ns) == ("hi", 500_000_000)
    assert small.pieces == (Piece(0, 6, 130, 149, DIGEST),)
    assert [(one.offset, one.size, one.start, one.end, one.is_zeros) for one in large.pieces] == [
        (0, 100, 243, 400, False),
        (100, 150, 400, 800, False),
        (250, 50, 0, 700, True),
    ]
    assert large.xattrs == {"user.x": b"x"}


def test_where_a_table_lies_is_taken_from_what_the_manifest_names() -> None:
    def place(**notes: str) -> Any:
        return place_of(
            Descriptor("layer", DIGEST, 1000, {key.replace("_", "."): value for key, value in notes.items()})
        )

    prefix = "io.github.containers.zstd-chunked.manifest-"
    chunked = {f"{prefix}position": "800:100:300:1", f"{prefix}checksum": DIGEST}
    found = place_of(Descriptor("layer", DIGEST, 1000, chunked))
    assert found is not None
    assert (found.form, found.start, found.end, found.size, found.of_compressed) == ("zstd", 800, 900, 300, True)
    assert place_of(Descriptor("layer", DIGEST, 850, chunked)) is None
    assert place_of(Descriptor("layer", DIGEST, 1000, {f"{prefix}position": "800:100:300:1"})) is None
    stargz = place_of(Descriptor("layer", DIGEST, 1000, {"containerd.io/snapshot/stargz/toc.digest": DIGEST}))
    assert stargz is not None
    assert (stargz.form, stargz.start, stargz.end, stargz.of_compressed) == ("gzip", None, 1000 - FOOTER, False)
    assert place_of(Descriptor("layer", DIGEST, 1000)) is None


def test_a_footer_of_estargz_says_where() -> None:
    extra = b"SG" + (22).to_bytes(2, "little") + b"%016xSTARGZ" % 12345
    head = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff" + len(extra).to_bytes(2, "little") + extra
    footer = head + b"\x01\0\0\xff\xff" + bytes(8)
    assert (len(footer), place_in_footer(footer), gzip.decompress(footer)) == (FOOTER, 12345, b"")
    assert place_in_footer(footer[1:]) is None
    assert place_in_footer(footer.replace(b"STARGZ", b"STARGX")) is None


def _altered(number: int, **fields: object) -> list[dict[str, Any]]:
    return [{**entry, **fields} if place == number else entry for place, entry in enumerate(CHUNKED)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        table(CHUNKED, version=2),
        table("x"),
        table([1]),
        table(_altered(0, type="sparse")),
        table(_altered(0, name="a\0b")),
        table(_altered(0, uid=-1)),
        table(_altered(0, uid="3")),
        table(_altered(0, xattrs={"user.x": "?"})),
        table(_altered(2, size=1 << 70)),
        table(_altered(2, offset=0)),
        table(_altered(2, offset=900)),
        table(_altered(2, digest="sha256:x")),
        table(_altered(3, size=301)),
        table(_altered(4, chunkOffset=99)),
        table(_altered(4, chunkSize=1000)),
        table(CHUNKED[:4]),
    ],
)
def test_what_is_no_table_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArchive):
        read_table(data, 800, "the table")


_values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2))


@by_day(40)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                key: st.one_of(_values, st.sampled_from([value]))
                for entry in CHUNKED
                for key, value in {**entry, "innerOffset": 5, "devMajor": 1}.items()
            },
        ),
        max_size=4,
    )
)
def test_whatever_a_table_says_its_pieces_are_whole_files_that_lie_within(entries: list[dict[str, Any]]) -> None:
    try:
        found = read_table(table(entries), 800, "the table")
    except InvalidArchive:
        return
    for entry in found:
        assert sum(one.size for one in entry.pieces) == (entry.size if entry.pieces else 0)
        assert all(one.is_zeros or 0 < one.start < one.end <= 800 for one in entry.pieces)
