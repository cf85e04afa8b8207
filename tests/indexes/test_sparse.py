"""Files with holes in an index: what is read of them, and what they may cost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.engine import Stack, unpacked
from layerstore.errors import CannotRepresent, KernelError
from layerstore.testing import tars, trees
from layerstore.testing.tars import Sparse, archive, file, hardlink, sparse
from support.properties import by_day
from tar.bounds import bounded
from tar.conftest import Scratch

pytestmark = pytest.mark.root

FORMS = pytest.mark.parametrize("form", Sparse, ids=lambda form: form.name.lower())

EDGES = [0, 1, 511, 512, 513, 1024, 4095, 4096, 4097, 8192, 65536, 70_000, 1 << 20]


@st.composite
def files(draw: st.DrawFn) -> tars.Entry:
    """Holes and data that begin and end at blocks and pages, or beside them."""
    position, pieces = 0, []
    lengths = st.sampled_from(EDGES) | st.integers(1, 10_000)
    for _ in range(draw(st.integers(0, 6))):
        position += draw(lengths)
        if draw(st.booleans()):
            position = -(-position // 4096) * 4096
        length = draw(lengths)
        if length:
            pieces.append((position, os.urandom(8).hex().encode() * (length // 16 + 1)))
            pieces[-1] = (position, pieces[-1][1][:length])
        position += length
    size = position + draw(st.sampled_from(EDGES))
    return sparse(b"f", size, *pieces, form=draw(st.sampled_from(list(Sparse))))


@by_day(60, deadline=None)
@given(entries=st.lists(files(), min_size=1, max_size=4))
def test_holes_and_data_of_any_length_at_any_place(entries: list[tars.Entry], scratch: Scratch) -> None:
    with scratch() as folder:
        stack = Stack(folder / "stack")
        layers = [archive(file(b"before", b"x" * number), entry) for number, entry in enumerate(entries)]
        for layer in layers:
            stack.push(layer)
        trees.assert_same(unpacked(layers, folder / "tree"), stack.listing())


@FORMS
@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (1 << 40, []),
        ((1 << 40) + 1, []),
        (1 << 40, [((1 << 40) - 3, b"end")]),
        (1 << 42, [((1 << 42) - 3, b"end")]),
        (1 << 35, [(0, b"x" * 700), (1 << 34, b"y" * 513)]),
        (1 << 30, [(at << 20, b"z" * 4096) for at in range(0, 1000, 50)]),
        (1 << 30, [((at << 20) + 7, b"z" * 5000) for at in range(0, 1000, 50)]),
        (1 << 50, []),
        (1 << 50, [(12345, b"a"), (1 << 49, b"b" * 1000)]),
    ],
    ids=["hole", "one more", "end", "4 TiB", "16 GiB in", "many", "many odd ones", "PiB", "in a PiB"],
)
def test_a_large_file_costs_little(form: Sparse, size: int, pieces: list[tuple[int, bytes]], stack: Stack) -> None:
    stack.push(archive(file(b"before", b"x"), sparse(b"f", size, *pieces, form=form), file(b"after", b"x")))
    index, _ = stack.write()
    assert index.stat().st_blocks * 512 <= (1 << (20 if size <= 1 << 42 else 22)) + 8192
    with stack.mounted() as root, open(os.open("f", os.O_RDONLY, dir_fd=root), "rb") as opened:
        assert os.fstat(opened.fileno()).st_size == size
        for offset, piece in pieces:
            opened.seek(offset)
            assert opened.read(len(piece)) == piece
            opened.seek(offset + len(piece))
            assert not opened.read(1).strip(b"\0")
            if offset:
                opened.seek(offset - 1)
                assert opened.read(1) == b"\0"


def test_many_files_of_holes_make_no_large_index(stack: Stack) -> None:
    """A kilobyte of tar each: what it asks for is no reason to write gigabytes."""
    stack.push(archive(*(sparse(b"%d" % at, 1 << 38, (1 << 37, b"x"), form=Sparse.GNU) for at in range(300))))
    index = bounded(lambda: stack.write()[0])
    assert index.stat().st_blocks * 512 < 300 * (128 << 10)


def test_data_that_lie_at_blocks_stay_in_the_tar(stack: Stack) -> None:
    """As GNU tar makes it of a file with pages of holes, the last piece of any length."""
    pieces = [(at * 65536, b"x" * 32768) for at in range(100)]
    stack.push(archive(sparse(b"f", 100 * 65536 + 5000, *pieces, (100 * 65536, b"y" * 5000))))
    index, _ = stack.write()
    assert index.stat().st_blocks * 512 <= 8192
    with stack.mounted() as root:
        data = Path(f"/proc/self/fd/{root}/f").read_bytes()
    assert data == (b"x" * 32768 + bytes(32768)) * 100 + b"y" * 5000


def test_a_link_to_a_sparse_file_below_has_its_data(stack: Stack, folder: Path) -> None:
    pieces = [(100, b"a" * 3000), (8192, b"b" * 4096), (70_000, b"c")]
    layers = [
        archive(sparse(b"f", 90_000, *pieces)),
        archive(hardlink(b"copy", b"f"), file(b"f", b"new")),
        archive(hardlink(b"again", b"copy")),
    ]
    for layer in layers:
        stack.push(layer)
    seen = stack.listing()
    assert seen["copy"].size == seen["again"].size == 90_000
    trees.assert_same(unpacked(layers, folder / "tree"), seen)


@FORMS
def test_a_file_of_more_than_a_pib_is_refused(form: Sparse, stack: Stack) -> None:
    stack.push(archive(sparse(b"d/f", (1 << 50) + 1, (5, b"x"), form=form)))
    with pytest.raises(CannotRepresent, match=r"^/d/f: a file of more than 1 PiB"):
        stack.write()


def test_what_has_to_be_copied_at_more_than_two_tib_is_refused(stack: Stack) -> None:
    pieces = [(at << 40, b"x") for at in range(1, 900)]
    stack.push(archive(*(sparse(b"%d" % number, 1 << 50, *pieces) for number in range(3))))
    with pytest.raises(CannotRepresent, match="no room for so large a sparse file"):
        stack.write()
    assert not list(stack.folder.glob("index*"))


def test_a_tar_that_is_gone_is_told(stack: Stack) -> None:
    stack.push(archive(sparse(b"f", 9000, (5, b"x"))))
    stack.parts[0].tar.unlink()
    with pytest.raises(KernelError) as caught:
        stack.write()
    assert (caught.value.call, caught.value.path) == ("stat", str(stack.parts[0].tar))
