"""Every way in which a tar can say something, and the odd ones that are met."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from layerstore.driver import Dialect
from layerstore.errors import InvalidArchive, LayerstoreError
from layerstore.testing import tars, trees
from layerstore.testing.tars import (
    EPOCH,
    GNU_MAGIC,
    SECOND,
    V7_MAGIC,
    Entry,
    Kind,
    Sparse,
    Style,
    archive,
    base256,
    file,
    folder,
    gnu_long,
    hardlink,
    header,
    padded,
    pax,
    raw_pax,
    sparse,
    symlink,
)
from tar.engine import Stack

Stacked = Callable[..., dict[str, trees.Entry]]

pytestmark = pytest.mark.root


@pytest.fixture
def stack(folder: Path) -> Stack:
    """Only one dialect: how a tar is read does not depend on what is made of it."""
    return Stack(folder / "stack", Dialect.OVERLAY)


def unpacked(stack: Stack, tar: bytes) -> dict[str, trees.Entry]:
    """What is seen of a tar that is written by hand; that it is exported again is checked in passing."""
    stored = stack.push(tar)
    assert stack.exported(stored) == tar
    assert stack.damage(stored) == []
    return stack.listing()


@pytest.mark.parametrize("style", Style, ids=lambda style: style.value)
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name.lower())
def test_each_kind_in_each_style(kind: Kind, style: Style, stacked: Stacked) -> None:
    target = {Kind.HARDLINK: b"first", Kind.SYMLINK: b"some/where"}.get(kind, b"")
    name = b"dir/entry/" if kind is Kind.FOLDER else b"dir/entry"
    entry = Entry(name, kind, mode=0o640, uid=5, gid=6, target=target, device=(5, 1), style=style)
    if kind is Kind.FILE:
        entry = evolve(entry, data=b"content")
    if kind is Kind.HARDLINK:
        entry = evolve(entry, mode=0o644, uid=0, gid=0)
    stacked([file(b"first", b"x", style=style), folder(b"dir/", style=style), entry])


# --- names -----------------------------------------------------------------------------------------------------------

LENGTHS = [99, 100, 101, 154, 155, 156, 199, 255, 256, 257, 600, 3800]


@pytest.mark.parametrize("style", [Style.GNU, Style.PAX], ids=lambda style: style.value)
@pytest.mark.parametrize("length", LENGTHS)
def test_names_of_every_length(length: int, style: Style, stacked: Stacked) -> None:
    name = (b"n" * 99 + b"/") * (length // 100) + b"m" * (length % 100)
    name = name.rstrip(b"/")
    seen = stacked([file(name, b"x", style=style), symlink(b"l", b"t" * length, style=style)])
    assert name.decode() in seen


@pytest.mark.parametrize("length", [4095, 4096, 8192])
def test_a_name_ends_at_what_the_kernel_can_be_told(length: int, stack: Stack) -> None:
    name = ((b"n" * 99 + b"/") * (length // 100) + b"m" * (length % 100)).ljust(length, b"m")
    tar = archive(file(name, b"x"), hardlink(b"l", name))
    if length > 4095:
        with pytest.raises(InvalidArchive):
            stack.push(tar)
        return
    # Twice, for the second time the directories are there already.
    for stored in (stack.push(tar), stack.push(tar)):
        assert (stored.tree / "l").stat().st_nlink == 2
        assert stack.exported(stored) == tar
        assert stack.damage(stored) == []


@pytest.mark.parametrize("length", [101, 150, 200, 255])
def test_the_prefix_of_ustar(length: int, stacked: Stacked) -> None:
    name = b"p" * (length - 101) + b"/" + b"n" * 100 if length > 101 else b"p/" + b"n" * 99
    seen = stacked([file(name, b"x", style=Style.USTAR)])
    assert name.decode() in seen


def test_the_prefix_of_ustar_is_not_read_in_other_dialects(stack: Stack) -> None:
    seen = unpacked(
        stack,
        archive(
            header(b"gnu", magic=GNU_MAGIC, rest=b"1234567\x001234567\x00"),
            header(b"v7", magic=V7_MAGIC, rest=b"prefix"),
            header(b"ustar", rest=b"prefix"),
            header(b"star", rest=b"prefix".ljust(131, b"\0") + b"0" * 24 + bytes(8) + b"tar\0"),
        ),
    )
    assert set(seen) == {"", "gnu", "v7", "prefix", "prefix/ustar", "prefix/star"}


@pytest.mark.parametrize(
    "name", [b"./a/b", b"/a/b", b"//a//b", b"./././a/./b", b"a/b/", b"a/c/../b", b"a/b/.", b"a/b//"]
)
def test_spellings_of_one_name(name: bytes, stack: Stack) -> None:
    assert set(unpacked(stack, archive(folder(name)))) == {"", "a", "a/b"}


def test_names_of_all_bytes(stacked: Stacked) -> None:
    entries = [file(b"x" + bytes([byte]), style=style) for byte in range(1, 256) for style in [Style.PAX] if byte != 47]
    entries += [file(b"y" + bytes([byte]), style=Style.GNU) for byte in range(1, 256) if byte != 47]
    assert len(stacked(entries)) == 509


@pytest.mark.parametrize("length", [255, 256, 1000])
def test_a_component_of_more_than_255_bytes_is_refused(length: int, stack: Stack) -> None:
    tar = archive(file(b"d/" + b"n" * length))
    if length <= 255:
        assert len(unpacked(stack, tar)) == 3
    else:
        with pytest.raises(InvalidArchive):
            stack.push(tar)


def test_a_name_that_fills_its_field_has_no_nul(stack: Stack) -> None:
    name, target = b"n" * 100, b"t" * 100
    seen = unpacked(stack, archive(header(name), header(b"l", typeflag=b"2", linkname=target)))
    assert seen[name.decode()].type == "file"
    assert seen["l"].target == target.decode()


def test_the_longer_way_to_say_a_name_counts(stack: Stack) -> None:
    seen = unpacked(
        stack,
        archive(
            pax([(b"path", b"by pax"), (b"linkpath", b"pax target")]),
            header(b"ignored", typeflag=b"2", linkname=b"ignored"),
            gnu_long(b"K", b"gnu target"),
            gnu_long(b"L", b"by gnu"),
            header(b"ignored", typeflag=b"2", linkname=b"ignored", magic=GNU_MAGIC),
            gnu_long(b"L", b"unterminated", terminated=False),
            header(b"ignored", magic=GNU_MAGIC),
        ),
    )
    assert set(seen) == {"", "by pax", "by gnu", "unterminated"}
    assert (seen["by pax"].target, seen["by gnu"].target) == ("pax target", "gnu target")


def test_what_was_said_of_one_entry_is_not_said_of_the_next(stack: Stack) -> None:
    records = [
        (b"path", b"first"),
        (b"uid", b"5"),
        (b"gid", b"6"),
        (b"mtime", b"7.5"),
        (b"size", b"3"),
        (b"SCHILY.xattr.user.x", b"y"),
    ]
    seen = unpacked(
        stack, archive(pax(records), header(b"-", size=3), padded(b"abc"), header(b"second", size=4), padded(b"abcd"))
    )
    assert (seen["first"].uid, seen["first"].gid, seen["first"].mtime_ns, seen["first"].size) == (
        5,
        6,
        7_500_000_000,
        3,
    )
    second = seen["second"]
    assert (second.uid, second.gid, second.mtime_ns, second.size, second.xattrs) == (0, 0, EPOCH * SECOND, 4, ())


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field", [b"0000644\0", b"000644 \0", b"    644 ", b"   644 \0", b"644\0", b"644     ", b"00000644"]
)
def test_octal_in_every_form(field: bytes, stack: Stack) -> None:
    assert unpacked(stack, archive(header(b"f", mode=field)))["f"].mode == 0o644


@pytest.mark.parametrize("field", [b"", b"        ", b"\0\0\0\0    "])
def test_an_empty_number_is_zero(field: bytes, stack: Stack) -> None:
    seen = unpacked(stack, archive(header(b"f", mode=field, uid=field, gid=field, mtime=field, size=field)))["f"]
    assert (seen.mode, seen.uid, seen.gid, seen.mtime_ns) == (0, 0, 0, 0)


@pytest.mark.parametrize("mtime", [0, 1, -1, -(2**31), 8**11, 2**33 + 5])
def test_base_256(mtime: int, stack: Stack) -> None:
    raw = header(b"f", mtime=base256(mtime, 12), uid=base256(7, 8), size=base256(3, 12), magic=GNU_MAGIC)
    seen = unpacked(stack, archive(raw, padded(b"abc")))["f"]
    assert (seen.mtime_ns, seen.uid, seen.size) == (mtime * SECOND, 7, 3)


BAD_NUMBERS: dict[str, dict[str, bytes]] = {
    "size of letters": {"size": b"abc"},
    "size of nines": {"size": b"00000000999\0"},
    "negative size": {"size": base256(-1, 12)},
    "the most negative size": {"size": b"\x80\0\0\0\x80" + bytes(7)},
    "size of 95 bits": {"size": b"\x80" + b"\xff" * 11},
    "the greatest size": {"size": base256(2**63 - 1, 12)},
    "negative owner": {"uid": base256(-5, 8)},
    "mode of letters": {"mode": b"rwxr-xr-"},
    "time of letters": {"mtime": b"yesterday"},
    "a sign": {"size": b"-0000000001\0"},
}


@pytest.mark.parametrize("case", BAD_NUMBERS)
def test_a_number_that_is_none_is_refused(case: str, stack: Stack) -> None:
    with pytest.raises(InvalidArchive):
        stack.push(archive(header(b"f", **BAD_NUMBERS[case])))  # type: ignore[arg-type]  # only numbers are given


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1", SECOND),
        (b"1.", SECOND),
        (b"1.5", 1_500_000_000),
        (b"0.000000001", 1),
        (b"1.123456789", 1_123_456_789),
        (b"1.1234567891", 1_123_456_789),
        (b"1.123456789123456789123", 1_123_456_789),
        (b"-1.5", -1_500_000_000),
        (b"-0.5", -500_000_000),
        (b"-1", -SECOND),
        (b"007.25", 7_250_000_000),
    ],
)
def test_times_of_pax(text: bytes, expected: int, stack: Stack) -> None:
    assert unpacked(stack, archive(pax([(b"mtime", text)]), header(b"f")))["f"].mtime_ns == expected


BAD_RECORDS: dict[str, bytes] = {
    "no length": b" path=a\n",
    "length of letters": b"ab path=a\n",
    "negative length": b"-9 path=a\n",
    "length 0": b"0 path=a\n",
    "length too short": b"5 path=a\n",
    "length too long": b"99 path=a\n",
    "huge length": b"99999999999999999999999999 path=a\n",
    "length of 2**63": b"9223372036854775808 path=a\n",
    "length of 2**64 and a little": b"18446744073709551626 path=a\n",
    "no equals sign": b"9 path_a\n",
    "no key": b"5 =a\n",
    "no newline": b"9 path=ab",
    "only a length": b"10",
    "NUL in a path": tars.record(b"path", b"a\0b"),
    "NUL in a link": tars.record(b"linkpath", b"a\0b"),
    "NUL in the name of an xattr": tars.record(b"SCHILY.xattr.user.a\0b", b"x"),
    "size of letters": tars.record(b"size", b"abc"),
    "negative size": tars.record(b"size", b"-1"),
    "size of 2**63": tars.record(b"size", b"9223372036854775808"),
    "size of 2**64": tars.record(b"size", b"18446744073709551616"),
    "size with a sign": tars.record(b"size", b"+1"),
    "owner of letters": tars.record(b"uid", b"root"),
    "negative owner": tars.record(b"uid", b"-1"),
    "owner of 2**32": tars.record(b"gid", b"4294967296"),
    "time of letters": tars.record(b"mtime", b"now"),
    "time with two points": tars.record(b"mtime", b"1.5.5"),
    "time beyond all": tars.record(b"mtime", b"9" * 30),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_a_malformed_record_is_refused(case: str, stack: Stack) -> None:
    with pytest.raises(InvalidArchive):
        stack.push(archive(raw_pax(BAD_RECORDS[case]), header(b"f")))


def test_unknown_records_are_kept_and_mean_nothing(stack: Stack) -> None:
    records = [(b"comment", b"\0\1\2"), (b"VENDOR.key", b""), (b"hdrcharset", b"BINARY"), (b"atime", b"1.5")]
    assert set(unpacked(stack, archive(pax(records), header(b"f")))) == {"", "f"}


def test_global_headers_are_kept_and_mean_nothing(stack: Stack) -> None:
    # As in what `git archive` writes. What they say of all files none of the peers applies.
    tar = archive(pax([(b"comment", b"c0ffee")], typeflag=b"g"), pax([(b"uid", b"7")], typeflag=b"g"), header(b"f"))
    assert unpacked(stack, tar)["f"].uid == 0


def test_an_empty_pax_header_means_nothing(stack: Stack) -> None:
    assert set(unpacked(stack, archive(raw_pax(b""), header(b"f")))) == {"", "f"}


def test_size_by_pax_is_the_size_of_the_data(stack: Stack) -> None:
    tar = archive(pax([(b"size", b"5")]), header(b"f", size=0), padded(b"12345"), file(b"g", b"x"))
    seen = unpacked(stack, tar)
    assert (seen["f"].size, seen["g"].size) == (5, 1)


# --- types -----------------------------------------------------------------------------------------------------------


def test_v7_says_directory_by_a_slash(stack: Stack) -> None:
    seen = unpacked(stack, archive(header(b"d/", typeflag=b"\0", magic=V7_MAGIC), header(b"f", typeflag=b"\0")))
    assert (seen["d"].type, seen["f"].type) == ("folder", "file")


def test_a_contiguous_file_is_a_file(stack: Stack) -> None:
    assert unpacked(stack, archive(header(b"f", typeflag=b"7", size=1), padded(b"x")))["f"].size == 1


@pytest.mark.parametrize("typeflag", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_what_has_no_data_has_none_whatever_its_size_says(typeflag: bytes, stack: Stack) -> None:
    linkname = {b"1": b"first", b"2": b"first"}.get(typeflag, b"")
    odd = header(b"odd", typeflag=typeflag, size=700, linkname=linkname, major=1, minor=3)
    assert set(unpacked(stack, archive(file(b"first"), odd, file(b"last")))) == {"", "first", "odd", "last"}


@pytest.mark.parametrize("typeflag", [b"8", b"9", b"A", b"M", b"X", b"z", b"\xff", b" "])
def test_an_unknown_type_is_refused(typeflag: bytes, stack: Stack) -> None:
    with pytest.raises(InvalidArchive):
        stack.push(archive(header(b"f", typeflag=typeflag)))


def test_a_volume_label_is_no_file(stack: Stack) -> None:
    assert set(unpacked(stack, archive(header(b"label", typeflag=b"V", magic=GNU_MAGIC), file(b"f")))) == {"", "f"}


@pytest.mark.parametrize("kind", [b"0", b"1", b"2", b"3", b"6"])
@pytest.mark.parametrize("name", [b"", b".", b"./", b"/", b"a/.."])
def test_the_root_is_a_directory(kind: bytes, name: bytes, stack: Stack) -> None:
    with pytest.raises(InvalidArchive):
        stack.push(archive(file(b"f"), header(name, typeflag=kind, linkname=b"f", major=1, minor=3)))


def test_an_empty_symbolic_link_is_refused(stack: Stack) -> None:
    with pytest.raises(InvalidArchive):
        stack.push(archive(symlink(b"l", b"")))


@pytest.mark.parametrize("length", [4095, 4096, 70_000])
def test_the_target_of_a_symbolic_link_ends_at_4095_bytes(length: int, stack: Stack) -> None:
    tar = archive(symlink(b"l", b"x/" * (length // 2) + b"y" * (length % 2)))
    if length < 4096:
        assert len(unpacked(stack, tar)["l"].target) == length
    else:
        with pytest.raises(LayerstoreError):
            stack.push(tar)


# --- checksums, blocks, ends -----------------------------------------------------------------------------------------


def test_a_signed_checksum(stack: Stack) -> None:
    assert "\udcff\udcfe" in unpacked(stack, archive(header(b"\xff\xfe", signed=True)))


@pytest.mark.parametrize("field", [b"000000\0 ", b"abcdefgh", b"\xff" * 8])
def test_a_wrong_checksum_is_refused(field: bytes, stack: Stack) -> None:
    right = header(b"f")
    with pytest.raises(InvalidArchive):
        stack.push(archive(right[:148] + field + right[156:]))


def checksum_as(form: str) -> bytes:
    right = header(b"f")
    return right[:148] + form.format(tars.checksum(right)).encode() + right[156:]


@pytest.mark.parametrize("form", ["{:06o}\0 ", "{:07o}\0", "{:6o}\0 ", "{:6o} \0", "{:08o}", "{:o}\0\0\0\0"])
def test_the_checksum_in_every_form(form: str, stack: Stack) -> None:
    field = checksum_as(form)
    assert set(unpacked(stack, archive(field[:512].ljust(512, b"\0")))) == {"", "f"}


@pytest.mark.parametrize(
    "end",
    [b"", bytes(512), bytes(1024), bytes(10240), bytes(1 << 20), bytes(1024) + b"x", bytes(1024) + b"garbage" * 1000],
    ids=["none", "one block", "two blocks", "a record", "a MiB", "one byte more", "garbage"],
)
def test_every_end_of_a_tar(end: bytes, stacked: Stacked, stack: Stack) -> None:
    tar = archive(folder(b"d"), file(b"d/f", b"x" * 700), end=end)
    assert set(unpacked(stack, tar)) == {"", "d", "d/f"}


def test_what_follows_the_end_is_no_entry(stack: Stack) -> None:
    tar = archive(file(b"f")) + archive(file(b"never"))
    assert set(unpacked(stack, tar)) == {"", "f"}


def test_padding_may_be_anything(stack: Stack) -> None:
    tar = archive(header(b"f", size=3), padded(b"abc", b"\xaa"), file(b"g", b"x"))
    assert unpacked(stack, tar)["f"].size == 3


def test_unused_fields_may_be_anything(stack: Stack) -> None:
    odd = header(b"f\0garbage", linkname=b"garbage", uname=b"\xff" * 32, gname=b"x" * 32, major=b"?", minor=b"!")
    assert set(unpacked(stack, archive(odd))) == {"", "f"}


def test_a_tar_of_nothing(stack: Stack) -> None:
    assert set(unpacked(stack, archive())) == {""}


@pytest.mark.parametrize("piece", [1, 7, 511, 512, 513, 10_000])
def test_a_stream_may_come_in_pieces_of_any_size(piece: int, stack: Stack) -> None:
    tar = archive(
        folder(b"d"),
        file(b"d/f", b"x" * 1500, xattrs={b"user.x": b"y" * 600}),
        file(b"g" * 200, b"y" * 5, style=Style.GNU),
        sparse(b"s", 100_000, (512, b"a" * 600), (50_000, b"b" * 10), form=Sparse.PAX_1_0),
        sparse(b"t", 900_000, *((at * 8192, b"z") for at in range(30)), form=Sparse.GNU),
        hardlink(b"h", b"d/f"),
    )
    stored = stack.push(tar, piece=piece)
    assert stack.exported(stored) == tar


def test_files_larger_than_every_buffer(stacked: Stacked) -> None:
    noise = bytes(range(256)) * 4096
    seen = stacked([file(b"f", noise * 9 + b"end"), file(b"g", b"x"), file(b"h", noise)])
    assert seen["f"].size == 9 * (1 << 20) + 3


def test_many_small_files(stacked: Stacked) -> None:
    entries = [folder(b"d%d" % number) for number in range(20)]
    entries += [file(b"d%d/f%d" % (number % 20, number), b"%d" % number) for number in range(3000)]
    assert len(stacked(entries)) == 3021
