"""The builder of tars against an independent reader, Python's own: what it means to write is what is read."""

from __future__ import annotations

import io
import os
import tarfile

import pytest
from hypothesis import given

from layerstore.testing import strategies, tars
from layerstore.testing.model import split
from layerstore.testing.tars import SECOND, Entry, Kind, Sparse, Style

TYPES = {
    Kind.FILE: tarfile.TarInfo.isreg,
    Kind.HARDLINK: tarfile.TarInfo.islnk,
    Kind.SYMLINK: tarfile.TarInfo.issym,
    Kind.CHAR: tarfile.TarInfo.ischr,
    Kind.BLOCK: tarfile.TarInfo.isblk,
    Kind.FOLDER: tarfile.TarInfo.isdir,
    Kind.FIFO: tarfile.TarInfo.isfifo,
}


def read(tar: bytes) -> tarfile.TarFile:
    # Latin-1 so that every byte of a name survives; PAX records are decoded as UTF-8 all the same.
    return tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape")


def assert_read_as(entry: Entry, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    assert split(os.fsencode(member.name)) == split(entry.name)
    assert TYPES[entry.kind](member)
    assert (member.mode, member.uid, member.gid) == (entry.mode, entry.uid, entry.gid)
    assert member.mtime == pytest.approx(entry.mtime / SECOND, abs=1e-6)
    assert os.fsencode(member.linkname) == entry.target
    if entry.kind in {Kind.CHAR, Kind.BLOCK}:
        assert (member.devmajor, member.devminor) == entry.device
    if entry.kind is Kind.FILE:
        content = archive.extractfile(member)
        assert content is not None
        assert content.read() == entry.content
    xattrs = {key.removeprefix("SCHILY.xattr."): value for key, value in member.pax_headers.items() if "SCHILY" in key}
    assert xattrs.keys() == {os.fsdecode(key) for key in entry.xattrs}


@given(strategies.stacks(max_layers=1))
def test_what_is_drawn_is_a_tar(layers: list[strategies.Layer]) -> None:
    [layer] = layers
    with read(layer.tar) as archive:
        members = archive.getmembers()
        assert len(members) == len(layer.entries)
        for entry, member in zip(layer.entries, members, strict=True):
            assert_read_as(entry, member, archive)


@pytest.mark.parametrize("form", Sparse)
@pytest.mark.parametrize("count", [0, 1, 4, 5, 25, 26, 60])
def test_sparse_files_are_written_as_gnu_tar_writes_them(form: Sparse, count: int) -> None:
    pieces = tuple((at * 8192, bytes([at + 1]) * 512) for at in range(count))
    entry = tars.sparse(b"folder/holes", count * 8192 + 100, *pieces, form=form)
    with read(tars.archive(entry, tars.file(b"next", b"x"))) as archive:
        first, second = archive.getmembers()
        assert_read_as(entry, first, archive)
        assert second.name == "next"


@pytest.mark.parametrize("style", Style)
def test_each_dialect_says_it_in_its_own_way(style: Style) -> None:
    entry = tars.file(b"some/file", b"content", uid=7, style=style)
    with read(tars.archive(entry)) as archive:
        assert_read_as(entry, archive.getmembers()[0], archive)


@pytest.mark.parametrize("length", range(85, 110))
def test_a_record_counts_its_own_length(length: int) -> None:
    record = tars.record(b"path", b"x" * length)
    assert int(record.partition(b" ")[0]) == len(record)
