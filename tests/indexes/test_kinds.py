"""All that a layer can say of a file is what a mounted index shows of it."""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
from collections.abc import Callable

import pytest

from indexes.engine import Stack, data_at, unpacked
from layerstore.errors import CannotRepresent
from layerstore.testing import tars, trees
from layerstore.testing.strategies import capability, posix_acl
from layerstore.testing.tars import Entry, Sparse, archive, block, char, fifo, file, folder, hardlink, sparse, symlink

pytestmark = pytest.mark.root

Stacked = Callable[..., dict[str, trees.Entry]]
SECOND = 10**9


def test_a_symlink_has_the_mode_that_all_have(stack: Stack) -> None:
    stack.push(archive(symlink(b"l", b"x", mode=0o755)))
    assert stack.listing()["l"].mode == 0o777


def test_every_kind_of_file(stacked: Stacked) -> None:
    stacked(
        [
            folder(b"./", mode=0o1751, uid=3, gid=4, mtime=5),
            file(b"plain", b"some bytes", mode=0o4755, uid=70_000, gid=2**32 - 2),
            file(b"empty"),
            folder(b"folder", mode=0o2770),
            symlink(b"link", b"plain", uid=9),
            fifo(b"fifo", mode=0o600),
            char(b"null", 1, 3, mode=0o666),
            char(b"high", 4095, 1048575),
            block(b"disk", 259, 70_000),
            hardlink(b"again", b"plain"),
            hardlink(b"folder/null", b"null"),
            hardlink(b"folder/link", b"link"),
        ]
    )


TIMES = [0, 1, -1, -SECOND, -SECOND - 1, 999_999_999, 2**31 * SECOND, 2**33 * SECOND + 7, -(2**31) * SECOND + 1]


def test_times_of_any_age(stacked: Stacked) -> None:
    stacked([file(b"%d" % time, b"x", mtime=time) for time in TIMES] + [folder(b"f%d" % t, mtime=t) for t in TIMES])


def test_times_beyond_what_other_filesystems_have(stack: Stack) -> None:
    """They are what the tar says; unpacked, each filesystem would make another time of them."""
    times = [2**60, -(2**60)]
    stack.push(archive(*(file(b"%d" % time, mtime=time * SECOND) for time in times)))
    with stack.mounted() as root:
        found = {os.stat(name, dir_fd=root).st_mtime_ns for name in os.listdir(root)}
    assert found == {time * SECOND for time in times}


def test_links_of_every_length(stacked: Stacked) -> None:
    """Each lies with its inode or, where that would cross a block's end, elsewhere; with xattrs between, too."""
    entries: list[Entry] = []
    for length in [*range(1, 530), *range(1000, 1060), 4000, 4090, 4094, 4095]:
        target = (b"abcdefghijklmnopqrstuvw/" * 200)[: length - 1] + b"z"
        xattrs = {b"trusted.x": b"v" * (length % 97)} if length % 3 == 0 else {}
        entries.append(symlink(b"l%d" % length, target, xattrs=xattrs))
    stacked(entries)


def test_a_link_that_no_kernel_follows(stack: Stack) -> None:
    stack.push(archive(symlink(b"long", b"x" * 4096)))
    with pytest.raises(CannotRepresent, match="4,095") as caught:
        stack.write()
    assert caught.value.path == "/long"


def test_names_of_any_bytes(stacked: Stacked) -> None:
    usable = [bytes([byte]) for byte in range(1, 256) if byte not in b"/."]
    names = [
        *usable,
        b"..x",
        b".x",
        b"...",
        b"-",
        b"\xff" * 255,
        b"\x01" * 255,
        *(b"n" * count for count in range(2, 256)),
    ]
    stacked([file(name, name) for name in names], [tars.whiteout(name) for name in names[::3] if len(name) < 252])


@pytest.mark.parametrize("count", [0, 1, 2, 30, 31, 32, 33, 500])
def test_folders_of_every_size(count: int, stacked: Stacked) -> None:
    """Names of one length fill blocks exactly, or nearly."""
    stacked([folder(b"d"), *(file(b"d/%0*d" % (2 + count % 7, n)) for n in range(count))])


def test_deep_folders(stacked: Stacked) -> None:
    path = b"/".join([b"d" * 50] * 70)
    stacked([file(path + b"/file", b"deep"), hardlink(b"shallow", path + b"/file")], [tars.opaque(path[:101])])


# --- xattrs -----------------------------------------------------------------------------------------------------------


def test_xattrs_of_every_kind(stacked: Stacked) -> None:
    both = {b"user.a": b"1", b"user.empty": b"", b"user." + b"n" * 250: b"long name", b"trusted.t": bytes(range(256))}
    stacked(
        [
            file(b"file", b"x", xattrs={**both, b"security.capability": capability(), b"security.other": b"s"}),
            file(b"acl", xattrs={b"system.posix_acl_access": posix_acl()}, mode=0o754),
            folder(
                b"folder",
                xattrs={**both, b"system.posix_acl_access": posix_acl(), b"system.posix_acl_default": posix_acl()},
                mode=0o754,
            ),
            symlink(b"link", b"somewhere", xattrs={b"trusted.t": b"of a link"}),
            fifo(b"fifo", xattrs={b"trusted.t": b"of a fifo"}),
        ]
    )


@pytest.mark.parametrize("size", [1, 3, 4, 400, 511, 512, 513, 4096, 40_000, 65_535])
def test_values_of_every_size(size: int, stack: Stack) -> None:
    """Larger than what ext4 takes, so there is nothing to compare with but the words themselves."""
    value = (bytes(range(251)) * 262)[:size]
    stack.push(archive(file(b"f", b"data", xattrs={b"user.a": value, b"user.b": value[::-1]}), file(b"g", b"more")))
    with stack.mounted() as root:
        place = f"/proc/self/fd/{root}/f"
        assert os.getxattr(place, "user.a") == value
        assert os.getxattr(place, "user.b") == value[::-1]
        assert (data_at(root, "f"), data_at(root, "g")) == (b"data", b"more")


@pytest.mark.parametrize(
    ("xattrs", "words"),
    [
        ({b"user.x": b"v" * 65_536}, "larger than"),
        ({b"user.%d" % number: b"v" * 60_000 for number in range(5)}, "more than"),
        ({b"user." + b"n" * 251: b""}, "larger than"),
        ({b"trusted.overlay." + b"n" * 232: b""}, "larger than"),
        ({b"btrfs.compression": b"zlib"}, "of a kind"),
        ({b"user.": b"zlib"}, "of a kind"),
    ],
    ids=["large", "many", "long", "long escaped", "of no kind", "without a name"],
)
def test_xattrs_that_cannot_be(xattrs: dict[bytes, bytes], words: str, stack: Stack) -> None:
    stack.push(archive(file(b"d/f", xattrs=xattrs)))
    with pytest.raises(CannotRepresent, match=words) as caught:
        stack.write()
    assert caught.value.path == "/d/f"
    assert not list(stack.folder.glob("index*"))


def test_xattrs_of_overlay_are_escaped(stack: Stack) -> None:
    """Overlay on the index gives out what the tar says; the index by itself shows what is stored."""
    xattrs = {b"trusted.overlay.opaque": b"y", b"trusted.overlay.overlay.whiteout": b"", b"trusted.overlaid": b"1"}
    stack.push(archive(file(b"f", b"data", xattrs=xattrs), folder(b"d", xattrs=xattrs), file(b"d/in")))
    _, written = stack.write()
    assert written.escaped
    seen = stack.listing()
    expected = tuple((name.decode(), value) for name, value in sorted(xattrs.items()))
    assert seen["f"].xattrs == seen["d"].xattrs == expected
    assert "d/in" in seen
    raw = stack.listing(through_overlay=False)
    assert dict(raw["f"].xattrs) == {
        "trusted.overlay.overlay.opaque": b"y",
        "trusted.overlay.overlay.overlay.whiteout": b"",
        "trusted.overlaid": b"1",
    }


def test_without_such_xattrs_nothing_is_escaped(stack: Stack) -> None:
    stack.push(archive(file(b"f", xattrs={b"trusted.overlaid": b"1", b"user.overlay.opaque": b"y"})))
    _, written = stack.write()
    assert not written.escaped
    assert written.inodes == 2


def test_an_escape_that_a_layer_above_takes_away(stack: Stack) -> None:
    stack.push(archive(file(b"f", xattrs={b"trusted.overlay.opaque": b"y"})))
    stack.push(archive(file(b"f")))
    _, written = stack.write()
    assert not written.escaped


# --- data -------------------------------------------------------------------------------------------------------------

SIZES = [1, 511, 512, 513, 4095, 4096, 4097, 100_000, (1 << 20) + 1]


def test_files_of_every_size(stacked: Stacked) -> None:
    stacked([file(b"%d" % size, (bytes(range(253)) * 5000)[:size]) for size in SIZES])


def patterns(size: int) -> list[tuple[tuple[int, bytes], ...]]:
    """Extents at every kind of place: aligned and not, at the ends, touching, tiny, over chunks."""
    word = bytes(range(1, 252)) * 200
    return [
        (),
        ((0, word[:512]),),
        ((0, word[:4096]), (8192, word[:4096])),
        ((1, word[:1]),),
        ((size - 1, b"z"),),
        ((0, word[:100]), (100, word[:412]), (512, word[:512])),
        ((511, word[:2]), (4095, word[:2]), (9000, word[:10_000])),
        ((4096, word[:8192]), (12_288, word[:3])),
        tuple((at, word[:5]) for at in range(0, size - 5, 1000)),
        tuple((at, word[:512]) for at in range(512, size - 512, 4096)),
        ((3, word[: size - 3]),),
    ]


@pytest.mark.parametrize("form", Sparse, ids=lambda form: form.name)
def test_sparse_files_of_every_pattern(form: Sparse, stacked: Stacked) -> None:
    entries = []
    for size in (20_480, 33_001):
        entries += [sparse(b"%d-%d" % (size, n), size, *pieces, form=form) for n, pieces in enumerate(patterns(size))]
    entries.append(file(b"after", b"what comes behind"))
    stacked(entries, [hardlink(b"linked", b"33001-8")])


def test_a_mapped_file(stack: Stack) -> None:
    """Programs are run by mapping them: from the tar, and from what was copied."""
    data = os.urandom(10_000)
    stack.push(archive(file(b"whole", data), sparse(b"holes", 20_000, (5, data))))
    with stack.mounted() as root:
        for name, start in (("whole", 0), ("holes", 5)):
            file_ = os.open(name, os.O_RDONLY, dir_fd=root)
            with mmap.mmap(file_, 0, prot=mmap.PROT_READ) as seen:
                assert seen[start : start + len(data)] == data
            os.close(file_)


def test_it_is_what_unpacking_makes(stack: Stack) -> None:
    layers = [
        archive(
            folder(b"d", mode=0o700, xattrs={b"user.old": b"1"}),
            file(b"d/old", b"old"),
            symlink(b"way", b"d"),
            file(b"below", b"of the parents" * 50, uid=7, xattrs={b"user.below": b"2"}),
            sparse(b"holes", 50_000, (10_001, b"x" * 3000)),
        ),
        archive(
            file(b"way/g", b"by way of a link"),
            hardlink(b"copied", b"below"),
            hardlink(b"copied-holes", b"holes"),
            file(b"below", b"now of the layer"),
            tars.whiteout(b"holes"),
            file(b"twice", b"first"),
            hardlink(b"first", b"twice"),
            file(b"twice", b"second"),
            file(b".wh..wh.plnk/1.2", b"of aufs"),
            hardlink(b"p1", b".wh..wh.plnk/1.2"),
            hardlink(b"p2", b".wh..wh.plnk/1.2"),
        ),
        archive(tars.whiteout(b"below"), hardlink(b"once-more", b"copied-holes"), file(b"d/implied/f", b"f")),
    ]
    for layer in layers:
        stack.push(layer)
    seen = stack.listing()
    trees.assert_same(unpacked(layers, stack.folder / "tree"), seen)
    assert stat.S_IMODE(seen["d"].mode) == 0o700


def test_behind_the_end_of_a_mapped_file_are_zeros(stack: Stack) -> None:
    """Nobody says what fills up the last block in a tar; mmap(2) says what a program sees there."""

    def filled(entry: Entry) -> bytes:
        tar = tars.encode(entry)
        return tar.rstrip(b"\0").ljust(len(tar), b"\xff")

    sizes = (1, 511, 513, 4095, 100_001, 3_000_003)
    pieces = [(0, b"y" * 600), (4096, b"z" * 4904)]
    stack.push(
        archive(
            *(filled(file(b"%d" % size, b"x" * size)) for size in sizes),
            *(filled(sparse(b"holes" + bytes([65 + at]), 9000, *pieces, form=form)) for at, form in enumerate(Sparse)),
            filled(file(b".wh..wh.plnk/1.2", b"of aufs")),
            hardlink(b"plinked", b".wh..wh.plnk/1.2"),
            file(b"even", b"x" * 100),
        )
    )
    stack.push(archive(hardlink(b"again", b"513"), tars.whiteout(b"513")))
    index, _ = stack.write()
    assert index.stat().st_blocks * 512 < 100_000
    with stack.mounted() as root:
        names = os.listdir(f"/proc/self/fd/{root}")
        assert len(names) == len(sizes) + len(Sparse) + 2
        for name in names:
            with open(os.open(name, os.O_RDONLY, dir_fd=root), "rb") as opened:
                assert not behind_the_end(opened.fileno()).strip(b"\0"), name
        assert data_at(root, "100001") == b"x" * 100_001
        assert data_at(root, "again") == b"x" * 513


def behind_the_end(file_: int) -> bytes:
    """What a program sees of the last page of a file that it has mapped, behind its end."""
    size = os.fstat(file_).st_size
    with mmap.mmap(file_, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as seen:
        first = ctypes.c_char.from_buffer(seen)
        behind = ctypes.string_at(ctypes.addressof(first) + size, -size % mmap.PAGESIZE)
        del first
    return behind
