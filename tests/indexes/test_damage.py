"""Listings that are damaged, or that no tar makes: an error that names the listing, or a tree, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from indexes import listings
from indexes.engine import Stack, data_at, erofs
from indexes.listings import BLOCK, CHAR, FIFO, FOLDER, HOLLOW, IMPLIED, LINK, SYMLINK, WHITEOUT, Node, Payload
from layerstore.errors import CannotRepresent, Damaged
from layerstore.indexes import Part, write_index
from layerstore.kernel.mounts import detached
from layerstore.tar.skeleton import SkeletonReader
from layerstore.testing import tars, trees
from layerstore.testing.tars import archive, file, folder, hardlink, sparse, symlink
from support.properties import NIGHTLY
from tar.bounds import bounded

pytestmark = pytest.mark.root

TAR = bytes(range(256)) * 32
ROOT = Node(b"", FOLDER, mode=0o755)


class Made:
    """Stacks of listings made by hand, in one folder; all tars are the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tar = folder / "tar"
        self.tar.write_bytes(TAR)

    def parts(self, layers: Sequence[bytes]) -> list[Part]:
        """Bottom first."""
        return [
            Part(listings.write(self.folder / f"listing{number}", content), self.tar)
            for number, content in enumerate(layers)
        ]

    def look(self, *layers: bytes, content: bool = True) -> dict[str, trees.Entry]:
        """What the index of them shows."""
        parts, index = self.parts(layers), self.folder / "index"
        write_index(tuple(reversed(parts)), index)
        try:
            with detached([erofs(index, [self.tar] * len(parts))]) as root:
                return trees.listing(f"/proc/self/fd/{root}/", content=content)
        finally:
            index.unlink()


@pytest.fixture
def made(folder: Path) -> Made:
    return Made(folder)


def test_a_listing_is_what_its_description_says(stack: Stack) -> None:
    """The engine's own listing of a tar and one that is written down by hand show the same tree."""
    data, value = b"some bytes", {b"user.a": b"1", b"trusted.b": b""}
    tar = archive(
        folder(b"./", mode=0o750, mtime=7),
        folder(b"d", mode=0o700, uid=5, gid=6, mtime=-1),
        file(b"d/f", data, mode=0o4755, mtime=3 * 10**9 + 5, xattrs=value),
        sparse(b"holes", 9000, (10, b"x" * 20), (5000, b"y" * 4000), form=tars.Sparse.GNU),
        symlink(b"l", b"d/f"),
        tars.char(b"c", 1, 3),
        hardlink(b"again", b"d/f"),
    )
    stack.push(tar)
    expected = stack.listing()
    payloads = [
        Payload(tar.index(data), len(data)),
        Payload(tar.index(b"x" * 20), 4020, [(10, 20), (5000, 4000)]),
    ]
    usual = {"mtime": tars.EPOCH}
    nodes = [
        Node(b"", FOLDER, mode=0o750, ns=7),
        Node(b"d", FOLDER, mode=0o700, uid=5, gid=6, mtime=-1, ns=999_999_999),
        Node(b"d/f", mode=0o4755, mtime=3, ns=5, size=len(data), source=1, xattrs=value),
        Node(b"holes", size=9000, source=2, **usual),
        Node(b"l", SYMLINK, mode=0o777, words=b"d/f", **usual),
        Node(b"c", CHAR, device=(1, 3), **usual),
        Node(b"again", LINK, target=b"d/f"),
    ]
    listings.write(stack.parts[0].listing, listings.index(nodes, payloads))
    trees.assert_same(expected, stack.listing())


LONG = b"n" * 256
WRONG: dict[str, tuple[list[Node], list[Payload]]] = {
    "a name of dots": ([Node(b"..")], []),
    "a dot": ([Node(b".")], []),
    "dots within": ([Node(b"d", FOLDER), Node(b"d/..", FOLDER)], []),
    "no name": ([Node(b"d", FOLDER), Node(b"d/")], []),
    "an absolute name": ([Node(b"/")], []),
    "NUL in a name": ([Node(b"a\0b")], []),
    "a long name": ([Node(LONG)], []),
    "a name longer than a block": ([Node(LONG * 4)], []),
    "a root that is a file": ([Node(b"")], []),
    "a root that is a link": ([Node(b"f"), Node(b"", LINK, target=b"f")], []),
    "no parent": ([Node(b"d/f")], []),
    "a parent that is a file": ([Node(b"d"), Node(b"d/f")], []),
    "a parent that is removed": ([Node(b"d", FOLDER), Node(b"d", 0, WHITEOUT), Node(b"d/f")], []),
    "a parent that is a symlink": ([Node(b"e", FOLDER), Node(b"d", SYMLINK, words=b"e"), Node(b"d/f")], []),
    "nothing below": ([Node(b"f", words=b"g")], []),
    "a folder below": ([Node(b"f", words=b"lower")], []),
    "a link to nothing": ([Node(b"f", LINK, target=b"g")], []),
    "a link to itself": ([Node(b"f", LINK, target=b"f")], []),
    "links in a ring": ([Node(b"f", LINK, target=b"g"), Node(b"g", LINK, target=b"f")], []),
    "a link to a folder": ([Node(b"d", FOLDER), Node(b"f", LINK, target=b"d")], []),
    "a link to the root": ([Node(b"f", LINK)], []),
    "a link without a folder": ([Node(b"f"), Node(b"d/f", LINK, target=b"f")], []),
    "no removal": ([Node(b"f", 0)], []),
    "an unknown type": ([Node(b"f", 8)], []),
    "a large type": ([Node(b"f", 1 << 31)], []),
    "nanoseconds": ([Node(b"f", ns=10**9)], []),
    "a symlink to nowhere": ([Node(b"f", SYMLINK)], []),
    "NUL in a symlink": ([Node(b"f", SYMLINK, words=b"a\0b")], []),
    "a large major number": ([Node(b"f", CHAR, device=(1 << 12, 0))], []),
    "a large minor number": ([Node(b"f", BLOCK, device=(0, 1 << 20))], []),
    "a size below nothing": ([Node(b"f", size=-1)], []),
    "a least size": ([Node(b"f", size=-(1 << 63))], []),
    "another size than its data": ([Node(b"f", size=11, source=1)], [Payload(0, 10)]),
    "less than its extents": ([Node(b"f", size=19, source=1)], [Payload(0, 10, [(10, 10)])]),
    "no such data": ([Node(b"f", size=10, source=2)], [Payload(0, 10)]),
    "data beyond the tar": ([Node(b"f", size=10, source=1)], [Payload(len(TAR) - 9, 10)]),
    "data far beyond the tar": ([Node(b"f", size=10, source=1)], [Payload((1 << 63) - 5, 10)]),
    "data before the tar": ([Node(b"f", size=10, source=1)], [Payload(-5, 10)]),
    "data of less than nothing": ([Node(b"f", size=-10, source=1)], [Payload(0, -10)]),
    "extents of less": ([Node(b"f", size=30, source=1)], [Payload(0, 20, [(0, 10)])]),
    "extents of more": ([Node(b"f", size=30, source=1)], [Payload(0, 5, [(0, 10)])]),
    "extents on each other": ([Node(b"f", size=30, source=1)], [Payload(0, 20, [(0, 10), (9, 10)])]),
    "extents in disorder": ([Node(b"f", size=30, source=1)], [Payload(0, 20, [(15, 10), (0, 10)])]),
    "an empty extent": ([Node(b"f", size=30, source=1)], [Payload(0, 10, [(5, 0), (10, 10)])]),
    "an extent before the file": ([Node(b"f", size=30, source=1)], [Payload(0, 10, [(-10, 10)])]),
    "an endless extent": ([Node(b"f", size=30, source=1)], [Payload(0, 10, [((1 << 63) - 5, 10)])]),
    "cut xattrs": ([Node(b"f", xattrs=listings.xattrs({b"user.x": b"123"})[:-1])], []),
    "long xattrs": ([Node(b"f", xattrs=listings.number(1 << 63) + b"\0")], []),
    "NUL in an xattr": ([Node(b"f", xattrs={b"user.a\0b": b""})], []),
}


@pytest.mark.parametrize(("nodes", "payloads"), WRONG.values(), ids=WRONG)
def test_what_no_tar_makes(nodes: list[Node], payloads: list[Payload], made: Made) -> None:
    lower = listings.index([ROOT, Node(b"lower", FOLDER)])
    wrong = listings.index(nodes, payloads)
    with pytest.raises(Damaged) as caught:
        bounded(lambda: made.look(lower, wrong, listings.index([])))
    assert caught.value.path == str(made.folder / "listing1")
    assert "Load an image" in str(caught.value)
    assert not (made.folder / "index").exists()


MAGIC = len("LSINDEX1")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"LSINDEX",
        listings.index([ROOT])[:-1],
        listings.index([ROOT]) + b"\0",
        b"LSINDEX2" + listings.index([ROOT])[MAGIC:],
        listings.index([ROOT]).replace(b"LSPLACE1", b"LSPLACE2"),
        listings.index([ROOT]).partition(b"LSPLACE1")[0],
        b"LSINDEX1" + b"\xff" * 9 + b"\x01",
        b"LSINDEX1\0" + b"\xff" * 9 + b"\x01",
        b"LSINDEX1" + b"\xff" * 20,
    ],
    ids=["empty", "short", "cut", "more", "magic", "places", "no places", "many payloads", "many nodes", "long number"],
)
def test_what_is_no_listing(content: bytes, made: Made) -> None:
    with pytest.raises(Damaged) as caught:
        bounded(lambda: made.look(content))
    assert caught.value.path == str(made.folder / "listing0")


def test_a_listing_that_is_missing(made: Made) -> None:
    with pytest.raises(Damaged, match="missing"):
        write_index([Part(made.folder / "nothing", made.tar)], made.folder / "index")


def test_a_tar_that_has_become_shorter(stack: Stack) -> None:
    stack.push(archive(file(b"f", b"x" * 2000)))
    with stack.parts[0].tar.open("r+b") as tar:
        tar.truncate(2000)
    with pytest.raises(Damaged) as caught:
        stack.write()
    assert caught.value.path == str(stack.parts[0].listing)


# --- odd, and still a tree --------------------------------------------------------------------------------------------


def names(seen: dict[str, trees.Entry]) -> set[str]:
    return set(seen) - {""}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([[Node(b"a", FOLDER), Node(b"a/b"), Node(b"a")]], {"a"}),
        ([[Node(b"a", FOLDER), Node(b"a/b"), Node(b"a"), Node(b"a", FOLDER)]], {"a"}),
        ([[Node(b"a"), Node(b"d", FOLDER), Node(b"d/f"), Node(b"d", LINK, target=b"a")]], {"a", "d"}),
        ([[Node(b"d", FOLDER), Node(b"d/f"), Node(b"d", LINK, target=b"d/f")]], None),
        ([[Node(b"a", apart=1), Node(b"b", apart=1), Node(b"b", FOLDER), Node(b"b/c")]], {"a", "b", "b/c"}),
        ([[Node(b"a", apart=1), Node(b"b", 0, WHITEOUT, apart=1), Node(b"c", apart=1)]], {"a", "c"}),
        ([[Node(b"d", FOLDER), Node(b"d/f")], [Node(b"d", FOLDER, WHITEOUT)]], {"d"}),
        (
            [[Node(b"d", FOLDER), Node(b"d/f")], [Node(b"d", FOLDER, IMPLIED | HOLLOW), Node(b"d/f", 0, WHITEOUT)]],
            {"d"},
        ),
        (
            [
                [
                    Node(b"d", FOLDER, IMPLIED | HOLLOW),
                    Node(b"d/e", FOLDER, IMPLIED | HOLLOW),
                    Node(b"d/e/f", 0, WHITEOUT),
                ]
            ],
            set(),
        ),
        ([[Node(b"d")], [Node(b"d", FOLDER, IMPLIED | HOLLOW), Node(b"d/f", 0, WHITEOUT)]], {"d"}),
        ([[Node(b"", 0, WHITEOUT), Node(b"x/y/z", 0, WHITEOUT)]], set()),
        ([[Node(b"f"), Node(b"g", FIFO)], [Node(b"", FOLDER, listings.OPAQUE), Node(b"h")]], {"h"}),
        ([[Node(b"f", size=1 << 40)], [Node(b"g", words=b"f")]], {"f", "g"}),
        ([[]], set()),
    ],
    ids=[
        "a file where a folder was",
        "a folder again",
        "a link where a folder was",
        "a link to what it replaces",
        "a name that is taken",
        "a name that is gone",
        "emptied by a removal",
        "a removal in a folder",
        "a removal in none",
        "a removal in a file",
        "removals of what is not there",
        "an opaque root",
        "a hole of a file below",
        "nothing at all",
    ],
)
def test_what_is_odd(layers: list[list[Node]], expected: set[str] | None, made: Made) -> None:
    def look() -> dict[str, trees.Entry]:
        return made.look(*map(listings.index, layers), content=False)

    if expected is None:
        with pytest.raises(Damaged):
            bounded(look)
    else:
        assert names(bounded(look)) == expected


def test_data_that_begin_at_no_block(made: Made) -> None:
    """A tar's never do. They are copied."""
    payloads = [Payload(1, 300), Payload(513, 5000), Payload(700, 7, [(1, 3), (600, 4)])]
    nodes = [Node(b"%d" % n, size=max(p.size, 604 * bool(p.extents)), source=n + 1) for n, p in enumerate(payloads)]
    [part] = made.parts([listings.index(nodes, payloads)])
    write_index([part], made.folder / "index")
    with detached([erofs(made.folder / "index", [made.tar])]) as root:
        assert data_at(root, "0") == TAR[1:301]
        assert data_at(root, "1") == TAR[513:5513]
        assert data_at(root, "2") == b"\0" + TAR[700:703] + bytes(596) + TAR[703:707]


def test_what_replaces_a_large_folder_again_and_again(made: Made) -> None:
    """It takes the time of one name, however many the folder had."""
    nodes = [Node(b"d", FOLDER), *(Node(b"d/%d" % number) for number in range(20_000))]
    nodes += [Node(b"d", FOLDER) if number % 2 else Node(b"d") for number in range(40_000)]
    parts = made.parts([listings.index(nodes)])
    written = bounded(lambda: write_index(parts, made.folder / "index"), seconds=1)
    assert written.inodes == 2


# --- every byte -------------------------------------------------------------------------------------------------------

STEP = 1 if NIGHTLY else 5


def _rich(stack: Stack) -> list[bytes]:
    """The listings of two layers that have something of everything."""
    stack.push(
        archive(
            folder(b"d", xattrs={b"user.a": b"1"}),
            file(b"d/f", b"data" * 200, xattrs={b"trusted.x": b"y"}),
            symlink(b"l", b"d/f"),
            sparse(b"s", 9000, (10, b"x" * 20), (5000, b"y" * 4000)),
            tars.char(b"c", 1, 3),
        )
    )
    stack.push(
        archive(
            hardlink(b"copied", b"d/f"),
            file(b"d/in/deep", b"1"),
            tars.whiteout(b"l"),
            hardlink(b"again", b"d/in/deep"),
            file(b"twice", b"first"),
            hardlink(b"kept", b"twice"),
            hardlink(b"kept2", b"twice"),
            file(b"twice", b"second"),
            tars.opaque(b"e"),
            tars.whiteout(b"n/o"),
        )
    )
    found = []
    for part in stack.parts:
        with SkeletonReader(part.listing) as reader:
            found.append(reader.index())
    return found


def _walk(made: Made, layers: list[bytes], damaged: Callable[[bytes, int], bytes], layer: int) -> tuple[int, int]:
    """Each place of a listing is damaged in turn. How many were errors, and how many trees."""
    errors = shown = 0
    for place in range(layer % STEP, len(layers[layer]), STEP):
        altered = list(layers)
        altered[layer] = damaged(layers[layer], place)
        try:
            made.look(*altered, content=False)
        except (Damaged, CannotRepresent):
            errors += 1
        else:
            shown += 1
    return errors, shown


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF] if NIGHTLY else [0x01, 0xFF])
def test_a_listing_with_one_other_byte(mask: int, layer: int, made: Made, stack: Stack) -> None:
    def altered(content: bytes, place: int) -> bytes:
        return content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :]

    layers = _rich(stack)
    made.tar.write_bytes(bytes(max(part.tar.stat().st_size for part in stack.parts)))
    errors, shown = bounded(lambda: _walk(made, layers, altered, layer), seconds=60)
    assert errors > 10
    assert shown > 10


@pytest.mark.parametrize("layer", [0, 1])
def test_a_listing_that_ends_early(layer: int, made: Made, stack: Stack) -> None:
    layers = _rich(stack)
    made.tar.write_bytes(bytes(max(part.tar.stat().st_size for part in stack.parts)))
    errors, shown = bounded(lambda: _walk(made, layers, lambda content, place: content[:place], layer), seconds=60)
    assert errors > 10
    assert not shown
