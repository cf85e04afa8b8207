"""Files with holes, in the four forms that tars have them in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from layerstore.driver import Dialect
from layerstore.errors import InvalidArchive, LayerstoreError
from layerstore.testing import tars, trees
from layerstore.testing.tars import Entry, Sparse, archive, file, gnu_sparse, hardlink, header, padded, pax, sparse
from tar.bounds import bounded
from tar.engine import Stack

Stacked = Callable[..., dict[str, trees.Entry]]

pytestmark = pytest.mark.root


@pytest.fixture
def stack(folder: Path) -> Stack:
    """Only one dialect: how a tar is read does not depend on what is made of it."""
    return Stack(folder / "stack", Dialect.OVERLAY)


FORMS = pytest.mark.parametrize("form", Sparse, ids=lambda form: form.name.lower())


@FORMS
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 24, 25, 26, 46, 47, 200])
def test_any_number_of_pieces(form: Sparse, count: int, stacked: Stacked) -> None:
    pieces = [(at * 8192 + 4096, bytes([at % 255 + 1]) * 512) for at in range(count)]
    exact = sparse(b"exact", count * 8192, *pieces, form=form)
    longer = sparse(b"longer", count * 8192 + 100_000, *pieces, form=form)
    assert stacked([exact, longer, file(b"after", b"x")])["after"].size == 1


@FORMS
@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (0, []),
        (1, []),
        (1 << 40, []),
        (5, [(0, b"12345")]),
        (5, [(4, b"5")]),
        (10_000, [(1, b"a"), (3, b"b"), (4, b"c"), (9_999, b"d")]),
        (1 << 40, [((1 << 40) - 3, b"end")]),
        (1 << 35, [(0, b"x" * 700), (1 << 34, b"y" * 513)]),
        (2 << 20, [(0, b"z" * (2 << 20))]),
    ],
    ids=["empty", "a hole", "a TiB of hole", "full", "last byte", "odd offsets", "end of a TiB", "16 GiB in", "2 MiB"],
)
def test_any_shape(form: Sparse, size: int, pieces: list[tuple[int, bytes]], stack: Stack) -> None:
    tar = archive(sparse(b"d/f", size, *pieces, form=form), file(b"after", b"x"))
    stored = stack.push(tar)
    path = stored.tree / "d/f"
    assert path.stat().st_size == size
    with path.open("rb") as opened:
        for offset, piece in pieces:
            opened.seek(offset)
            assert opened.read(len(piece)) == piece
    # Soon, too: it is the data that are read, not a TiB of zeros.
    assert bounded(lambda: stack.exported(stored)) == tar
    assert bounded(lambda: stack.damage(stored)) == []


@FORMS
def test_holes_are_holes(form: Sparse, folder: Path) -> None:
    stack = Stack(folder, Dialect.OVERLAY)
    tree = stack.push(archive(sparse(b"f", 1 << 30, (1 << 29, b"x" * 4096), form=form))).tree
    assert (tree / "f").stat().st_blocks * 512 <= 64 << 10
    with (tree / "f").open("rb") as opened:
        assert os.lseek(opened.fileno(), 0, os.SEEK_DATA) == 1 << 29


@FORMS
def test_a_sparse_file_has_attributes_links_and_successors(form: Sparse, stacked: Stacked) -> None:
    xattrs = {} if form is Sparse.GNU else {b"user.x": b"y"}
    entry = sparse(
        b"f", 9000, (5000, b"x" * 700), form=form, mode=0o4711, uid=5, gid=2**21, mtime=10**18, xattrs=xattrs
    )
    link = hardlink(b"l", b"f", mode=0o4711, uid=5, gid=2**21, mtime=10**18)
    seen = stacked([entry, link, evolve(entry, size=9001)], [sparse(b"f", 5, (0, b"a"), form=form)])
    assert (seen["f"].size, seen["l"].size) == (5, 9000)


@FORMS
def test_a_long_name_of_a_sparse_file(form: Sparse, stacked: Stacked) -> None:
    name = b"d" * 150 + b"/" + b"\xff" * 200
    assert os.fsdecode(name) in stacked([sparse(name, 9000, (5000, b"x" * 700), form=form)])


# --- maps that are wrong ---------------------------------------------------------------------------------------------

BAD_MAPS: dict[str, tuple[int, list[tuple[int, int]], int]] = {
    "overlapping": (10_000, [(0, 1024), (512, 512)], 1536),
    "backwards": (10_000, [(4096, 512), (0, 512)], 1024),
    "beyond the end": (1000, [(0, 512), (900, 512)], 1024),
    "all beyond the end": (10, [(4096, 512)], 512),
    "more than there is": (10_000, [(0, 512), (4096, 1024)], 512),
    "less than there is": (10_000, [(0, 512)], 1024),
    "no end": (2**62, [(2**62 - 1, 2**62)], 512),
    "sum that wraps": (2**63 - 1, [(0, 2**62), (2**62, 2**62 - 1)], 512),
    "offset that wraps": (10_000, [(2**63 - 512, 1024)], 1024),
    "greater than any file": (2**63 - 1, [(2**63 - 513, 512)], 512),
}


def with_map(form: Sparse, size: int, pieces: list[tuple[int, int]], stored: int) -> bytes:
    body = b"x" * stored
    entry = Entry(b"f", size=size, style=tars.Style.GNU if form is Sparse.GNU else tars.Style.PAX)
    if form is Sparse.GNU:
        return gnu_sparse(entry, pieces, body)
    if form is Sparse.PAX_1_0:
        text = b"".join([b"%d\n" % len(pieces), *(b"%d\n%d\n" % piece for piece in pieces)])
        body = padded(text) + body
        records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"%d" % size)]
    elif form is Sparse.PAX_0_1:
        text = b",".join(b"%d,%d" % piece for piece in pieces)
        records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.map", text)]
    else:
        records = [(b"GNU.sparse.size", b"%d" % size)]
        for offset, length in pieces:
            records += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
    return pax(records) + header(b"f", size=len(body)) + padded(body)


@FORMS
@pytest.mark.parametrize("case", BAD_MAPS)
def test_a_map_that_does_not_fit_is_refused(form: Sparse, case: str, stack: Stack) -> None:
    with pytest.raises(LayerstoreError):
        stack.push(archive(with_map(form, *BAD_MAPS[case])))


@FORMS
def test_a_file_larger_than_the_filesystem_allows_is_refused(form: Sparse, stack: Stack) -> None:
    with pytest.raises(LayerstoreError):
        stack.push(archive(sparse(b"f", 2**60, (2**60 - 512, b"x" * 512), form=form)))


BAD_RECORDS: dict[str, list[tuple[bytes, bytes]]] = {
    "no size": [(b"GNU.sparse.map", b"0,3")],
    "half a pair": [(b"GNU.sparse.size", b"3"), (b"GNU.sparse.map", b"0,3,5")],
    "letters": [(b"GNU.sparse.size", b"3"), (b"GNU.sparse.map", b"0,abc")],
    "negative": [(b"GNU.sparse.size", b"3"), (b"GNU.sparse.map", b"-3,3")],
    "negative length": [(b"GNU.sparse.size", b"3"), (b"GNU.sparse.map", b"0,-3")],
    "length without offset": [(b"GNU.sparse.size", b"3"), (b"GNU.sparse.numbytes", b"3")],
    "offset without length": [(b"GNU.sparse.size", b"3"), (b"GNU.sparse.offset", b"0")],
    "a map between offset and length": [
        (b"GNU.sparse.size", b"3"),
        (b"GNU.sparse.offset", b"0"),
        (b"GNU.sparse.map", b""),
        (b"GNU.sparse.numbytes", b"3"),
    ],
    "negative size": [(b"GNU.sparse.size", b"-3"), (b"GNU.sparse.map", b"0,3")],
    "an unknown version": [(b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"3")],
    "1.0 without a size": [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")],
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_records_that_make_no_map_are_refused(case: str, stack: Stack) -> None:
    with pytest.raises(InvalidArchive):
        stack.push(archive(pax(BAD_RECORDS[case]), header(b"f", size=3), padded(b"abc")))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x\n",
        b"1\n0\n",
        b"1\n0\nx\n",
        b"-1\n",
        b"2\n0\n3\n",
        b"99999999999999999999\n",
        b"9223372036854775807\n0\n3\n",
        b"1\n-1\n3\n",
        b"1" * 600,
        b"\n" * 512,
    ],
)
def test_a_map_before_the_data_that_is_none_is_refused(text: bytes, stack: Stack) -> None:
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"3")]
    body = padded(text) + b"abc"
    with pytest.raises(InvalidArchive):
        stack.push(archive(pax(records), header(b"f", size=len(body)), padded(body)))


def test_a_map_before_the_data_may_be_long(stack: Stack) -> None:
    pieces = [(at * 4096, b"x") for at in range(20_000)]
    tar = archive(sparse(b"f", 20_000 * 4096, *pieces, form=Sparse.PAX_1_0))
    stored = stack.push(tar)
    assert stack.exported(stored) == tar
