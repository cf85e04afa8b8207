"""Tars that mean harm: nothing is reached outside the tree, nothing is used up, nothing crashes.

Beside every tree lies a canary; whatever an archive does, it may neither change nor grow.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layerstore.driver import Dialect
from layerstore.errors import InvalidArchive, LayerstoreError
from layerstore.tar import Level, unpack, verify
from layerstore.testing import tars, trees
from layerstore.testing.tars import (
    BLOCK,
    END,
    Entry,
    Sparse,
    archive,
    base256,
    encode,
    fifo,
    file,
    folder,
    hardlink,
    header,
    opaque,
    pax,
    sealed,
    sparse,
    symlink,
    whiteout,
)
from support.properties import by_day
from tar.bounds import Raised, bounded
from tar.conftest import Scratch
from tar.engine import Stack, diff_id, exported

pytestmark = pytest.mark.root

DIALECTS = pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.value)


@contextmanager
def guarded(folder: Path) -> Iterator[Path]:
    """A folder to unpack in; on the way out nothing beside it may have changed."""
    canary = folder / "canary"
    (canary / "sub").mkdir(parents=True)
    (canary / "file").write_text("as it was")
    (canary / "sub" / "link").symlink_to("../file")
    os.utime(canary, ns=(5, 5))
    before = trees.listing(canary)
    work = folder / "work"
    work.mkdir()
    yield work
    trees.assert_same(before, trees.listing(canary))
    assert sorted(os.listdir(folder)) == ["canary", "work"]


class Source:
    """A stream that is not counted as memory of the engine: made on the fly, piece by piece."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readinto(self, buffer: memoryview) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def unpack_in(work: Path, pieces: Iterator[bytes], dialect: Dialect = Dialect.OVERLAY) -> int:
    """Unpack a stream. Returns how many entries it had."""
    tree = work / "tree"
    tree.mkdir()
    return unpack(Source(pieces), tree, dialect=dialect, skeleton=work / "skeleton").entries


# --- out of the tree -------------------------------------------------------------------------------------------------


def escapes(canary: bytes) -> dict[str, list[Entry]]:
    """Ways that have led out of somebody's tree. `canary` is the absolute path of the folder beside it."""
    up = b"../" * 30
    return {
        "absolute name": [file(canary + b"/file", b"changed")],
        "absolute link": [symlink(b"l", canary), file(b"l/file", b"changed")],
        "relative link": [symlink(b"l", b"../../canary"), file(b"l/file", b"changed")],
        "far up": [symlink(b"l", up + canary.lstrip(b"/")), file(b"l/file", b"changed"), file(b"l/new", b"new")],
        "link to a link": [symlink(b"a", b"b"), symlink(b"b", canary), file(b"a/file", b"changed")],
        "link through a link": [symlink(b"a", b"../.."), symlink(b"b", b"a/canary"), file(b"b/file", b"changed")],
        "link to the parent": [folder(b"d"), symlink(b"d/l", b"../.."), file(b"d/l/canary/file", b"changed")],
        "directory turned into a link": [
            folder(b"d"),
            folder(b"d/e"),
            symlink(b"d", canary),
            file(b"d/file", b"changed"),
            folder(b"d/sub"),
        ],
        "link turned into a directory": [symlink(b"d", canary), folder(b"d"), file(b"d/file", b"changed")],
        "file through a link of its own name": [symlink(b"f", canary + b"/file"), file(b"f", b"changed")],
        "append through a link": [symlink(b"f", canary + b"/new"), file(b"f", b"new")],
        "hard link outside": [hardlink(b"h", canary + b"/file"), file(b"h", b"changed")],
        "hard link through a link": [symlink(b"l", canary), hardlink(b"h", b"l/file"), file(b"h", b"changed")],
        "hard link to a link outside": [
            symlink(b"l", canary + b"/file"),
            hardlink(b"h", b"l", mode=0o777),
            file(b"h", b"changed"),
        ],
        "hard link up": [hardlink(b"h", b"../canary/file")],
        "chmod through a link": [symlink(b"f", canary + b"/file", mode=0o777, uid=5, mtime=1)],
        "xattr through a link": [symlink(b"f", canary + b"/file", xattrs={b"trusted.x": b"y"})],
        "fifo through a link": [symlink(b"l", canary), fifo(b"l/pipe")],
        "device through a link": [symlink(b"l", canary), tars.char(b"l/null", 1, 3)],
        "directory through a link": [symlink(b"l", canary), folder(b"l/new"), folder(b"l/sub", mode=0o700)],
        "implied directory through a link": [symlink(b"l", canary), file(b"l/a/b/c")],
        "whiteout through a link": [symlink(b"l", canary), whiteout(b"l/file")],
        "whiteout of the folder beside": [whiteout(b"../canary")],
        "opaque through a link": [symlink(b"l", canary), opaque(b"l")],
        "opaque above": [opaque(b"..")],
        "dots in a name": [file(b"../canary/file", b"changed")],
        "dots behind a name": [folder(b"d"), file(b"d/../../canary/file", b"changed")],
        "dots after a link": [symlink(b"l", canary + b"/sub"), file(b"l/../file", b"changed")],
        "dots at the end": [folder(b"d/../.."), folder(b"..", mode=0o700, uid=5, mtime=5)],
        "links in a circle": [symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/f")],
        "link to itself": [symlink(b"a", b"a"), file(b"a/f")],
        "link to what is below it": [symlink(b"a", b"a/b"), file(b"a/f")],
        "magic link": [symlink(b"l", b"/proc/self/cwd"), file(b"l/new", b"new")],
        "hard link in the store of aufs": [hardlink(b"h", b".wh..wh.plnk/../../canary/file")],
        "name in the store of aufs": [file(b".wh..wh.plnk/../../canary/file", b"changed")],
        "dots hidden as a whiteout": [file(b".wh..", b""), file(b".wh...", b"")],
    }


@DIALECTS
@pytest.mark.parametrize("case", escapes(b""))
def test_nothing_leads_out_of_the_tree(case: str, dialect: Dialect, scratch: Scratch) -> None:
    with scratch() as place, guarded(place) as work:
        entries = escapes(os.fsencode(place / "canary"))[case]
        for number, tar in enumerate([archive(*entries), archive(*(tars.file(b"f"), *entries, *entries))]):
            stack = Stack(work / str(number), dialect)
            try:
                stored = stack.push(tar)
            except LayerstoreError:
                continue
            assert stack.exported(stored) == tar


@DIALECTS
@pytest.mark.parametrize("case", escapes(b""))
def test_nothing_leads_out_of_the_tree_by_way_of_a_lower_layer(case: str, dialect: Dialect, scratch: Scratch) -> None:
    with scratch() as place, guarded(place) as work:
        entries = escapes(os.fsencode(place / "canary"))[case]
        stack = Stack(work / "stack", dialect)
        try:
            for entry in entries:
                stack.push(archive(entry))
        except LayerstoreError:
            pass


@pytest.mark.parametrize("name", [b"../x", b"/../x", b"a/../../x", b"..", b"./..", b"a/b/../../.."])
@pytest.mark.parametrize("make", [file, folder, fifo, whiteout], ids=lambda make: make.__name__)
def test_a_name_outside_the_root_is_refused(make: Callable[[bytes], Entry], name: bytes, stack: Stack) -> None:
    with pytest.raises(InvalidArchive, match=r"\.\."):
        stack.push(archive(make(name)))


# --- cut short -------------------------------------------------------------------------------------------------------

SMALL = [
    folder(b"d", mtime=5),
    file(b"d/f", b"x" * 600, xattrs={b"user.x": b"y"}),
    hardlink(b"d/h", b"d/f"),
    symlink(b"l", b"t" * 120, style=tars.Style.GNU),
    sparse(b"s", 9000, (0, b"a" * 100), (5000, b"b" * 100), form=Sparse.PAX_1_0),
    sparse(b"g", 90_000, *((at * 9000, b"z") for at in range(6)), form=Sparse.GNU),
    whiteout(b"w"),
]


def boundaries() -> set[int]:
    """Where the small tar ends after a whole entry."""
    ends, at = {0}, 0
    for entry in SMALL:
        at += len(encode(entry))
        ends.add(at)
    return ends | {at + BLOCK, at + 2 * BLOCK}


def test_a_tar_that_is_cut_short_is_refused_wherever_it_is_cut(scratch: Scratch) -> None:
    whole = archive(*SMALL)
    legal = boundaries()
    with scratch() as place, guarded(place) as work:
        for length in range(len(whole) + 1):
            if length > BLOCK and 2 < length % BLOCK < BLOCK - 2 and length % 61:
                continue
            tar = whole[:length]
            tree, skeleton = work / "tree", work / "skeleton"
            tree.mkdir()
            try:
                unpacked = unpack(Source(iter([tar])), tree, dialect=Dialect.OVERLAY, skeleton=skeleton)
            except InvalidArchive:
                assert length not in legal, f"refused at {length}, the end of an entry"
            else:
                # The end of a file's last block may be missing: its data are there.
                assert length in legal or not any(whole[length : length + 1]), f"accepted at {length}"
                assert unpacked.diff_id == diff_id(tar)
                assert exported(skeleton, tree, unpacked.diff_id) == tar
            skeleton.unlink(missing_ok=True)
            shutil.rmtree(tree)


# --- bytes flipped ---------------------------------------------------------------------------------------------------

FLIPPED = [
    file(b"d/f", b"x" * 10, xattrs={b"user.x": b"y"}, uid=3, mtime=10**18 + 1),
    symlink(b"l", b"d/f", style=tars.Style.USTAR),
    hardlink(b"h", b"d/f"),
    sparse(b"s", 9000, (0, b"a" * 10), (5000, b"b" * 10), form=Sparse.PAX_1_0),
    sparse(b"g", 90_000, *((at * 9000, b"z") for at in range(6)), form=Sparse.GNU),
    tars.char(b"c", 1, 3, style=tars.Style.STAR),
    file(b"n" * 120, b"y", style=tars.Style.GNU),
    folder(b"d", style=tars.Style.V7),
    whiteout(b"w"),
]


def must_survive(work: Path, tar: bytes, dialect: Dialect) -> None:
    """`tar` is refused with an error of the library, or it is stored whole and comes out again."""
    tree, skeleton = work / "tree", work / "skeleton"
    tree.mkdir()
    try:
        unpacked = unpack(Source(iter([tar])), tree, dialect=dialect, skeleton=skeleton)
        if not unpacked.needs_parents:
            assert exported(skeleton, tree, diff_id(tar)) == tar
            assert not list(verify(skeleton, tree, dialect=dialect, level=Level.CONTENT))
    except LayerstoreError:
        pass
    finally:
        shutil.rmtree(tree)
        skeleton.unlink(missing_ok=True)
        shutil.rmtree(f"{skeleton}.shadowed", ignore_errors=True)


def blocks_that_are_headers() -> list[int]:
    """Offsets of the headers in the tar of FLIPPED: those are sealed again after the flip."""
    tar = archive(*FLIPPED)
    found = []
    for at in range(0, len(tar) - len(END), BLOCK):
        block = tar[at : at + BLOCK]
        if sealed(block) == block:
            found.append(at)
    return found


def test_no_byte_of_a_header_can_do_harm(scratch: Scratch) -> None:
    """Every byte of every header, with the checksum made right again: it is the fields that are tried, not the sum."""
    tar = archive(*FLIPPED)
    flips = (0xFF, 0x80, 0x01)
    with scratch() as place, guarded(place) as work:
        for start in blocks_that_are_headers():
            for at in set(range(BLOCK)) - set(range(148, 156)):
                # Where something stands all three are tried; of the empty part of a field, here and there one.
                for flip in flips if tar[start + at] else flips[at % 12 : at % 12 + 1]:
                    block = bytearray(tar[start : start + BLOCK])
                    block[at] ^= flip
                    must_survive(work, tar[:start] + sealed(bytes(block)) + tar[start + BLOCK :], Dialect.OVERLAY)


def test_no_byte_of_an_extension_can_do_harm(scratch: Scratch) -> None:
    """Records, long names, sparse maps: what is no header has no checksum to protect it."""
    tar = archive(*FLIPPED)
    headers = set(blocks_that_are_headers())
    with scratch() as place, guarded(place) as work:
        for at, byte in enumerate(tar[: -len(END)]):
            if at // BLOCK * BLOCK in headers or byte == 0:
                continue
            for flip in (0xFF, 0x01):
                damaged = bytearray(tar)
                damaged[at] ^= flip
                must_survive(work, bytes(damaged), Dialect.AUFS)


@by_day(50, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 40))
@example(seed=0, count=1)
def test_garbage_is_no_tar(seed: int, count: int, scratch: Scratch) -> None:
    """Blocks of a good tar, of zeros and of noise in any order, with bytes changed here and there."""
    chance = random.Random(seed)
    tar = archive(*FLIPPED)
    blocks = [tar[at : at + BLOCK] for at in range(0, len(tar), BLOCK)]
    mixed = bytearray()
    for _ in range(count):
        block = bytearray(chance.choice(blocks))
        if chance.random() < 0.2:
            block[chance.randrange(BLOCK)] = chance.randrange(256)
            block = bytearray(sealed(bytes(block)))
        mixed += block
    with scratch() as place, guarded(place) as work:
        must_survive(work, bytes(mixed), Dialect.MERGED)


# --- bombs -----------------------------------------------------------------------------------------------------------


def headers_of(typeflag: bytes, size: tars.Field) -> bytes:
    return header(b"././@LongLink", typeflag=typeflag, size=size)


@pytest.mark.parametrize("typeflag", [b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize("size", [1 << 30, 8**11 - 1, base256(1 << 40, 12), base256(2**62, 12), base256(-512, 12)])
def test_an_extension_of_any_size_takes_no_memory(typeflag: bytes, size: tars.Field, scratch: Scratch) -> None:
    def attack(work: Path) -> None:
        with pytest.raises(InvalidArchive):
            unpack_in(work, chain([headers_of(typeflag, size)], repeat(bytes(1 << 20), 512)))

    with scratch() as place, guarded(place) as work:
        bounded(lambda: attack(work), seconds=5)


@pytest.mark.parametrize("size", [8**11 - 1, base256(1 << 50, 12), base256(2**62, 12)])
def test_a_file_that_says_it_is_huge_is_only_cut_short(size: tars.Field, scratch: Scratch) -> None:
    def attack(work: Path) -> None:
        with pytest.raises(LayerstoreError):
            unpack_in(work, iter([header(b"f", size=size), b"x" * 100_000]))
        assert trees.disk_usage(work) < 1 << 20

    with scratch() as place, guarded(place) as work:
        bounded(lambda: attack(work), seconds=5)


def test_endless_extensions_before_an_entry_take_no_memory(scratch: Scratch) -> None:
    piece = pax([(b"comment", b"x" * 900_000)])

    def attack(work: Path) -> None:
        try:
            unpack_in(work, chain(repeat(piece, 400), [encode(file(b"f")), END]))
        except LayerstoreError:
            pass

    with scratch() as place, guarded(place) as work:
        bounded(lambda: attack(work), seconds=20)


def test_a_sparse_map_of_many_pieces_takes_its_time_once(scratch: Scratch) -> None:
    count = 400_000
    text = b"%d\n" % count + b"".join(b"%d\n1\n" % (at * 2) for at in range(count))
    body = tars.padded(text) + b"x" * count
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"%d" % (2 * count))]
    tar = archive(pax(records), header(b"f", size=len(body)), tars.padded(body))

    def attack(work: Path) -> None:
        try:
            unpack_in(work, iter([tar]))
        except LayerstoreError:
            pass

    with scratch() as place, guarded(place) as work:
        bounded(lambda: attack(work), seconds=20)


def test_a_many_entries_of_one_name(scratch: Scratch) -> None:
    def attack(work: Path) -> int:
        pieces = (encode(file(b"f", b"%d" % number)) for number in range(40_000))
        count = unpack_in(work, chain(pieces, [END]))
        assert (work / "tree" / "f").read_bytes() == b"39999"
        return count

    with scratch() as place, guarded(place) as work:
        assert bounded(lambda: attack(work), seconds=40) == 40_000


def test_directories_and_files_of_one_name_in_turns(scratch: Scratch) -> None:
    def attack(work: Path) -> None:
        turns = (encode([file(b"n"), folder(b"n"), file(b"n/f"), symlink(b"n", b"x")][at % 4]) for at in range(8000))
        unpack_in(work, chain(turns, [END]))
        assert (work / "tree" / "n").is_symlink()

    with scratch() as place, guarded(place) as work:
        bounded(lambda: attack(work), seconds=20)


def test_links_to_a_name_that_is_replaced_again_and_again(scratch: Scratch) -> None:
    def attack(work: Path) -> None:
        pairs = (encode(file(b"f", b"%d" % at)) + encode(hardlink(b"l%d" % at, b"f")) for at in range(10_000))
        unpack_in(work, chain(pairs, [END]))
        assert (work / "tree" / "l77").read_bytes() == b"77"

    with scratch() as place, guarded(place) as work:
        bounded(lambda: attack(work), seconds=20)


@pytest.mark.parametrize("depth", [1000, 2500, 10_000])
@DIALECTS
def test_a_name_of_many_levels(depth: int, dialect: Dialect, scratch: Scratch) -> None:
    """Far beyond PATH_MAX: stored and exported again, or refused; and soon."""
    tar = archive(pax([(b"path", b"d/" * depth + b"f")]), header(b"-", size=1), tars.padded(b"x"))

    def attack(work: Path) -> bool:
        try:
            unpack_in(work, iter([tar]), dialect)
        except LayerstoreError:
            return False
        return exported(work / "skeleton", work / "tree", diff_id(tar)) == tar

    with scratch() as place, guarded(place) as work:
        stored = bounded(lambda: attack(work), seconds=10)
        assert stored or depth > 2047


@pytest.mark.parametrize("style", ["one name", "a directory each"])
def test_a_ladder_of_many_levels(style: str, scratch: Scratch) -> None:
    if style == "one name":
        pieces = iter([pax([(b"path", b"d/" * 100_000 + b"f")]), header(b"-"), END])
    else:
        pieces = (pax([(b"path", b"d/" * at)]) + header(b"-", typeflag=b"5") for at in range(1, 3000))

    def attack(work: Path) -> None:
        try:
            unpack_in(work, pieces)
        except LayerstoreError:
            pass

    with scratch() as place, guarded(place) as work:
        bounded(lambda: attack(work), seconds=20)


def test_links_that_lead_on_and_on_end_soon(scratch: Scratch) -> None:
    """Each link has two ways through the next: a walk that follows all would take 2**40 steps."""
    links = [symlink(b"l%d" % at, b"l%d/../l%d" % (at + 1, at + 1)) for at in range(40)]

    def attack(work: Path) -> None:
        try:
            unpack_in(work, iter([archive(*links, folder(b"l40"), file(b"l0/f"))]))
        except LayerstoreError:
            pass

    with scratch() as place, guarded(place) as work:
        bounded(lambda: attack(work), seconds=10)


def test_many_xattrs_are_refused_or_kept_but_not_lost(scratch: Scratch) -> None:
    many = {b"user.%d" % number: b"x" * 100 for number in range(2000)}
    tar = archive(file(b"f", b"x", xattrs=many))
    with scratch() as place, guarded(place) as work:
        try:
            unpack_in(work, iter([tar]))
        except LayerstoreError:
            return
        assert len(os.listxattr(work / "tree" / "f")) == 2000


@pytest.mark.parametrize("length", [255, 256, 4000])
def test_an_xattr_with_a_long_name_is_refused_with_its_path(length: int, stack: Stack) -> None:
    tar = archive(file(b"d/f", xattrs={b"user." + b"n" * (length - 5): b"x"}))
    if length <= 255:
        stack.push(tar)
    else:
        with pytest.raises(LayerstoreError) as caught:
            stack.push(tar)
        assert caught.value.path is not None
        assert caught.value.path.endswith("d/f")


@pytest.mark.parametrize("name", [b"nonsense", b"user.", b"system.posix_acl_access", b"security.capability"])
def test_an_xattr_that_the_kernel_refuses_is_one_clear_error(name: bytes, stack: Stack) -> None:
    with pytest.raises(LayerstoreError) as caught:
        stack.push(archive(file(b"d/f", xattrs={name: b"nonsense"})))
    assert caught.value.path is not None
    assert caught.value.path.endswith("d/f")


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_that_fails_is_not_a_tar_that_ends(scratch: Scratch) -> None:
    def broken() -> Iterator[bytes]:
        yield archive(file(b"f", b"x" * 100_000))[:50_000]
        raise OSError(5, "the disk it came from")

    with scratch() as place, guarded(place) as work, pytest.raises(OSError, match="the disk it came from"):
        unpack_in(work, broken())


def test_a_stream_that_says_too_much_is_refused(scratch: Scratch) -> None:
    class Liar:
        def readinto(self, buffer: memoryview) -> int:
            return len(buffer) + 1

    with scratch() as place, guarded(place) as work:
        (work / "tree").mkdir()
        with pytest.raises((LayerstoreError, ValueError)):
            unpack(Liar(), work / "tree", dialect=Dialect.OVERLAY, skeleton=work / "skeleton")


def test_a_wrong_digest_is_an_error_that_names_both(scratch: Scratch) -> None:
    from layerstore.errors import DigestMismatch

    with scratch() as place, guarded(place) as work:
        (work / "tree").mkdir()
        with pytest.raises(DigestMismatch) as caught:
            unpack(
                Source(iter([archive(file(b"f"))])),
                work / "tree",
                dialect=Dialect.OVERLAY,
                skeleton=work / "skeleton",
                expected=diff_id(b"another"),
            )
        assert caught.value.expected == diff_id(b"another")
        assert caught.value.actual == diff_id(archive(file(b"f")))


def test_the_raised_error_of_a_child_is_known() -> None:
    with pytest.raises(InvalidArchive):
        bounded(lambda: (_ for _ in ()).throw(InvalidArchive("no tar")))
    assert issubclass(Raised, Exception)
