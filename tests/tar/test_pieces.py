"""Files of other trees become a layer's tar: under other names, with other attributes, and nothing else altered."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.driver import Dialect
from layerstore.errors import CannotRepresent, KernelError
from layerstore.gathering import Folder, Piece, layer_of
from layerstore.tar import pack_tree
from layerstore.testing import strategies, trees
from layerstore.testing.strategies import capability
from tar.conftest import Scratch
from tar.engine import Stack

pytestmark = pytest.mark.root

EPOCH = 1_600_000_000_123_456_789


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(*pieces: Piece | Folder, step: int = 1 << 16) -> bytes:
    """The whole tar, read in buffers of `step` bytes."""
    tar = bytearray()
    with layer_of(pieces).open() as stream:
        buffer = bytearray(step)
        while got := stream.readinto(memoryview(buffer)):
            tar += buffer[:got]
    return bytes(tar)


def members(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {member.name: member for member in archive}


@given(layers=strategies.stacks(max_layers=1), step=st.sampled_from([1, 511, 512, 513, 1 << 16]))
def test_a_tree_gathered_whole_is_the_tar_of_that_tree(
    layers: list[strategies.Layer], step: int, scratch: Scratch
) -> None:
    with scratch() as folder:
        stack = Stack(folder / "stack", Dialect.MERGED)
        stack.push(layers[0].tar)
        expected = bytearray()
        with stack.below() as root:
            pack_tree(root, expected.extend)
            paths = list(trees.listing(f"/proc/self/fd/{root}", content=False))
            entries = [(os.fsencode(path), os.fsencode(path)) for path in reversed(paths)]
            gathered = read(Piece(root, entries), step=step)
        assert members(gathered).keys() == members(bytes(expected)).keys() | {"."}
        again = Stack(folder / "again", Dialect.MERGED)
        again.push(gathered)
        trees.assert_same(stack.listing(), again.listing())


@pytest.fixture
def tree(folder: Path) -> Path:
    """A small tree with one of everything that matters."""
    tree = folder / "tree"
    (tree / "d/sub").mkdir(parents=True)
    (tree / "d/file").write_bytes(b"content" * 1000)
    (tree / "d/empty").touch()
    (tree / "d/sub/link").symlink_to("../file")
    os.link(tree / "d/file", tree / "d/other")
    os.chmod(tree / "d/file", 0o4755)
    os.setxattr(tree / "d/file", "security.capability", capability())
    os.chown(tree / "d/empty", 1000, 1001)
    for path in [tree / "d/file", tree / "d/empty", tree / "d/sub"]:
        os.utime(path, ns=(EPOCH, EPOCH))
    return tree


def test_files_have_other_names_and_all_else_as_they_were(tree: Path) -> None:
    with opened(tree) as root:
        found = members(read(Piece(root, [(b"d/file", b"opt/app/program"), (b"d/empty", b"opt/none")])))
    assert set(found) == {"opt/app/program", "opt/none"}
    program = found["opt/app/program"]
    assert (program.mode, program.size, program.uid, program.gid) == (0o4755, 7000, 0, 0)
    assert program.pax_headers["mtime"] == "1600000000.123456789"
    stored = program.pax_headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape")
    assert stored == capability()
    assert (found["opt/none"].uid, found["opt/none"].gid) == (1000, 1001)


def test_owner_modes_and_latest_time_are_altered_on_the_way(tree: Path) -> None:
    strict: Callable[[int, bool], int] = lambda mode, is_folder: 0o711 if is_folder else mode & ~0o022  # noqa: E731
    entries = [(path, b"x/" + path) for path in (b"d/sub", b"d/empty", b"d/sub/link")]
    with opened(tree) as root:
        latest = 1_500_000_000_000_000_007
        found = members(read(Piece(root, entries, owner=(7, 2**21 + 8), modes=strict, latest=latest)))
        unclamped = members(read(Piece(root, entries, latest=EPOCH + 1)))
    assert {(member.uid, member.gid) for member in found.values()} == {(7, 2**21 + 8)}
    assert (found["x/d/sub"].mode, found["x/d/empty"].mode) == (0o711, 0o644)
    assert found["x/d/sub/link"].mode == 0o777, "a symlink has no mode of its own"
    assert {member.pax_headers["mtime"] for member in found.values()} == {"1500000000.000000007"}
    assert unclamped["x/d/empty"].pax_headers["mtime"] == "1600000000.123456789"


def test_names_of_one_file_are_links_within_a_piece_and_files_in_two(tree: Path) -> None:
    with opened(tree) as root:
        one = members(read(Piece(root, [(b"d/file", b"a"), (b"d/other", b"b")])))
        two = members(read(Piece(root, [(b"d/file", b"a")]), Piece(root, [(b"d/other", b"b")], owner=(1, 1))))
    assert (one["b"].type, one["b"].linkname) == (tarfile.LNKTYPE, "a")
    assert (two["b"].type, two["b"].size, two["b"].uid) == (tarfile.REGTYPE, 7000, 1)


def test_folders_that_are_on_no_disk_stand_between_pieces_in_order(tree: Path) -> None:
    made = Folder(b"tmp", 0o1777, 1, 2, EPOCH, {b"user.b": b"2" * 200, b"user.a": b"1"})
    with opened(tree) as root:
        tar = read(Piece(root, [(b"d/empty", b"tmp/x"), (b"d/empty", b"a")]), made, Folder(b""))
    found = members(tar)
    assert list(found) == [".", "a", "tmp", "tmp/x"]
    assert (found["."].mode, found["."].mtime) == (0o755, 0)
    tmp = found["tmp"]
    assert (tmp.type, tmp.mode, tmp.uid, tmp.gid) == (tarfile.DIRTYPE, 0o1777, 1, 2)
    assert tmp.pax_headers["mtime"] == "1600000000.123456789"
    assert tmp.pax_headers["SCHILY.xattr.user.b"] == "2" * 200
    assert tmp.pax_headers["SCHILY.xattr.user.a"] == "1"


def test_the_last_of_entries_of_one_name_counts(tree: Path) -> None:
    with opened(tree) as root:
        found = members(
            read(
                Folder(b"x", 0o700),
                Piece(root, [(b"d/sub", b"x"), (b"d/empty", b"f")]),
                Piece(root, [(b"d/file", b"f")]),
            )
        )
    assert found["x"].mode == 0o755
    assert found["f"].size == 7000


def test_layers_of_nothing_are_empty_tars() -> None:
    assert read() == bytes(1024)
    assert list(members(read(Folder(b"only")))) == ["only"]


def test_files_with_holes_keep_their_size(tree: Path) -> None:
    with open(tree / "sparse", "wb") as sparse:
        sparse.truncate(5_000_000)
        sparse.seek(4_000_000)
        sparse.write(b"end")
    with opened(tree) as root:
        tar = read(Piece(root, [(b"sparse", b"sparse")]))
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        data = archive.extractfile("sparse")
        assert data is not None
        assert data.read() == (tree / "sparse").read_bytes()


# --- what cannot be --------------------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_any_more_is_named_where_it_was(tree: Path) -> None:
    with opened(tree) as root, pytest.raises(KernelError, match="No such file") as caught:
        read(Piece(root, [(b"d/gone", b"opt/gone")]))
    assert caught.value.path == "/d/gone"


def test_no_path_leads_through_a_symlink(tree: Path) -> None:
    (tree / "out").symlink_to("/etc")
    with opened(tree) as root, pytest.raises(KernelError) as caught:
        read(Piece(root, [(b"out/passwd", b"passwd")]))
    assert caught.value.path == "/out/passwd"


def test_a_file_that_becomes_shorter_is_an_error(tree: Path) -> None:
    (tree / "long").write_bytes(bytes(100_000))
    with opened(tree) as root, layer_of([Piece(root, [(b"long", b"long")])]).open() as stream:
        stream.readinto(memoryview(bytearray(1024)))
        os.truncate(tree / "long", 5000)
        with pytest.raises(KernelError, match="became shorter"):
            list(iter(lambda: stream.readinto(memoryview(bytearray(1 << 16))), 0))


@pytest.mark.parametrize("name", [b".wh.x", b"a/.wh..wh..opq", b".wh.d/f"])
def test_names_that_mean_removals_are_refused(name: bytes, tree: Path) -> None:
    with opened(tree) as root, pytest.raises(CannotRepresent, match="mean removals"):
        read(Piece(root, [(b"d/file", name)]))
    with pytest.raises(CannotRepresent):
        read(Folder(name))
