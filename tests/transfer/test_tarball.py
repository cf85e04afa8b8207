"""The outer tar: what it has, and where it ends."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.errors import InvalidArchive
from layerstore.transfer.tarball import Member, is_header, members, normal

from .archives import Link, tar


class Bytes:
    """A tar in memory."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)
        self.end = len(data)

    def read(self, size: int) -> bytes:
        return self.file.read(size)

    def skip(self, size: int) -> int:
        count = min(size, self.end - self.file.tell())
        self.file.seek(count, io.SEEK_CUR)
        return count

    def tell(self) -> int:
        return self.file.tell()


def read(data: bytes) -> list[tuple[str, bytes | str]]:
    """Names with content or target."""
    source = Bytes(data)
    return [
        (member.name, source.read(member.size) if member.target is None else member.target)
        for member in members(source)
    ]


FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


@pytest.mark.parametrize("form", list(FORMATS))
def test_files_and_links(form: str) -> None:
    data = tar(
        [
            ("manifest.json", b"[]"),
            ("a/layer.tar", b"x" * 1000),
            ("b/layer.tar", Link("../a/layer.tar")),
            ("c", Link("a/layer.tar", hard=True)),
            ("./d/./e", b""),
            ("/f", b"1"),
        ],
        format=FORMATS[form],
    )
    assert read(data) == [
        ("manifest.json", b"[]"),
        ("a/layer.tar", b"x" * 1000),
        ("b/layer.tar", "b/../a/layer.tar"),
        ("c", "a/layer.tar"),
        ("d/e", b""),
        ("f", b"1"),
    ]


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_long_names_and_targets(form: str) -> None:
    name, target = "n" * 300 + "/ü", "t" * 400
    assert read(tar([(name, b"1"), ("s", Link(target))], format=FORMATS[form])) == [(name, b"1"), ("s", f"/{target}")]


def test_ustar_prefix() -> None:
    name = "p" * 120 + "/" + "n" * 80
    assert read(tar([(name, b"1")], format=tarfile.USTAR_FORMAT)) == [(name, b"1")]


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=150),
            st.binary(max_size=1500),
        ),
        max_size=6,
    ),
    st.sampled_from(["gnu", "pax"]),
)
def test_whatever_python_writes_is_read(wanted: list[tuple[str, bytes]], form: str) -> None:
    wanted = [(name, content) for name, content in wanted if normal(name)]
    expected = [(normal(name), content) for name, content in wanted]
    assert read(tar(wanted, format=FORMATS[form])) == expected


def test_sizes_in_binary_and_in_pax_headers() -> None:
    info = tarfile.TarInfo("big")
    info.size = 9 << 30
    header = info.tobuf(tarfile.GNU_FORMAT)
    assert header[124] & 0x80
    with pytest.raises(InvalidArchive, match="ends within big"):
        read(header + bytes(1024))
    info = tarfile.TarInfo("p")
    info.size = 0
    info.pax_headers = {"size": "3"}
    data = info.tobuf(tarfile.PAX_FORMAT) + b"abc" + bytes(509) + bytes(1024)
    assert read(data) == [("p", b"abc")]


def test_each_end_is_either_whole_or_named() -> None:
    """Only padding may be missing; and where one member ends and the next begins, nobody can tell."""
    first, second = b"1" * 700, b"2" * 512
    data = tar([("one", first), ("two" * 60, second)])
    after_first = 512 + 1024
    last = after_first + 512 + 512 + 512 + len(second)  # the long name is a member of its own
    for end in range(0, len(data), 64):
        if end == 0:
            assert read(data[:end]) == []
        elif end >= last:
            assert read(data[:end]) == [("one", first), ("two" * 60, second)]
        elif 512 + len(first) <= end <= after_first:
            assert read(data[:end]) == [("one", first)]
        else:
            with pytest.raises(InvalidArchive, match="the archive ends"):
                read(data[:end])


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (slice(124, 136), b"\xff" * 12, "size"),
        (slice(124, 136), b"\x80" + b"\x7f" * 11, "size"),
        (slice(124, 136), b"-0000000001\0", "size"),
        (slice(124, 136), b"zzzzzzzzzzz\0", "size"),
        (slice(0, 100), b"../../etc/passwd".ljust(100, b"\0"), "outside"),
        (slice(0, 100), b"a/../../b".ljust(100, b"\0"), "outside"),
    ],
)
def test_lies_in_a_header(field: slice, value: bytes, words: str) -> None:
    header = bytearray(tar([("name", b"content")]))
    header[field] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    with pytest.raises(InvalidArchive, match=words):
        read(bytes(header))


@pytest.mark.parametrize(
    "body",
    [
        b"5 a\n",
        b"12 path",
        b"99 path=x\n",
        b"0 path=x\n",
        b"nonsense",
        b"11 path=xyz",
        b"18446744073709551616 path=x\n",
        b"=\n",
    ],
)
def test_pax_headers_that_cannot_be_read(body: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    data = info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + tar([("name", b"")])
    with pytest.raises(InvalidArchive, match="PAX header"):
        read(data)


def test_a_header_that_claims_gigabytes_is_not_read() -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 1 << 40
        with pytest.raises(InvalidArchive, match="claims"):
            read(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))


def test_many_small_records_do_not_take_long() -> None:
    body = b"6 a=b\n" * 170_000
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    data = info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + tar([("name", b"")])
    assert read(data) == [("name", b"")]


def test_what_is_no_tar() -> None:
    for data in (b"\x7fELF" + b"x" * 2000, b"hello", b"<html>" * 200):
        with pytest.raises(InvalidArchive):
            read(data)
    assert not is_header(b"\0" * 512)
    assert not is_header(b"")


@given(st.binary(max_size=3000))
def test_any_bytes_are_a_tar_or_an_error(data: bytes) -> None:
    try:
        read(data)
    except InvalidArchive:
        pass


@given(st.integers(0, 2047), st.integers(1, 255))
def test_any_flipped_byte_is_a_tar_or_an_error(at: int, flip: int) -> None:
    data = bytearray(tar([("one" * 50, b"1" * 100), ("two", Link("one"))], format=tarfile.PAX_FORMAT))
    data[at] ^= flip
    try:
        read(bytes(data))
    except InvalidArchive:
        pass


def test_names() -> None:
    assert normal("./a//b/./c/") == "a/b/c"
    assert normal("/a") == "a"
    assert normal("../x", "a/b") == "a/x"
    assert normal("/x", "a/b") == "x"
    assert normal("../../x", "a") is None
    assert normal("..") is None


def test_a_member_says_where_it_lies() -> None:
    [first, second] = list(members(Bytes(tar([("a", b"1" * 513), ("b", b"2")]))))
    assert first == Member("a", 512, 513)
    assert second.offset == 512 + 1024 + 512
