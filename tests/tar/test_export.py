"""The tar that comes out is the tar that went in; and what is damaged is named, never given out as whole."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from layerstore.driver import Dialect
from layerstore.errors import Damaged, LayerstoreError
from layerstore.tar import Level, export, verify
from layerstore.tar.skeleton import SkeletonReader, SkeletonWriter
from layerstore.testing import strategies
from layerstore.testing.tars import (
    Entry,
    Sparse,
    archive,
    char,
    fifo,
    file,
    folder,
    hardlink,
    header,
    opaque,
    padded,
    sparse,
    symlink,
    whiteout,
)
from tar.engine import Stack, diff_id, exported

pytestmark = pytest.mark.root

LAYER = [
    folder(b"d", mode=0o750, uid=5),
    file(b"d/f", b"content " * 100, mode=0o640, xattrs={b"user.x": b"y"}),
    hardlink(b"d/h", b"d/f"),
    symlink(b"l", b"d/f"),
    fifo(b"p"),
    char(b"c", 1, 3),
    file(b"implied/empty"),
    sparse(b"s", 100_000, (4096, b"x" * 5000), form=Sparse.PAX_0_1),
    whiteout(b"gone"),
    opaque(b"d/o"),
]


def test_a_file_that_was_overwritten_in_its_own_layer_is_still_in_the_tar(stack: Stack) -> None:
    tar = archive(
        file(b"f", b"first" * 300),
        file(b"f", b"second" * 300),
        folder(b"d"),
        file(b"d/a", b"inside" * 300),
        hardlink(b"h", b"f"),
        file(b"d", b"now a file"),
        symlink(b"f", b"now a link"),
        file(b"same", b"same"),
        file(b"same", b"same"),
        file(b"empty"),
        file(b"empty"),
        sparse(b"s", 9000, (5000, b"x" * 600), form=Sparse.PAX_1_0),
        folder(b"s"),
    )
    stored = stack.push(tar)
    assert stack.exported(stored) == tar
    assert stack.damage(stored) == []


def test_payload_of_what_is_no_file_is_in_the_tar(stack: Stack) -> None:
    tar = archive(
        file(b".wh.gone", b"words in a whiteout"),
        file(b"d/.wh..wh..opq", b"in an opaque mark" * 100),
        file(b".wh..wh.plnk/1.2", b"in the store of aufs" * 100),
        hardlink(b"a", b".wh..wh.plnk/1.2"),
        file(b".wh..wh.aufs", b"aufs" * 200),
        header(b"label", typeflag=b"V", size=600),
        padded(b"l" * 600),
    )
    stored = stack.push(tar)
    assert stack.exported(stored) == tar
    assert stack.damage(stored) == []


def test_the_tar_comes_out_when_the_parents_have_changed_how_it_looks(folder: Path) -> None:
    stack = Stack(folder, Dialect.OVERLAY)
    stack.push(archive(Entry(b"d/", kind=LAYER[0].kind, mode=0o700, uid=9), file(b"d/old", b"x")))
    tar = archive(file(b"d/f", b"y"), hardlink(b"g", b"d/old", mode=0o600))
    stored = stack.push(tar)
    assert stack.exported(stored) == tar
    assert stack.damage(stored) == []


def test_another_digest_than_expected_is_damage(stack: Stack) -> None:
    stored = stack.push(archive(*LAYER))
    with pytest.raises(Damaged):
        export(stored.skeleton, stored.tree, lambda piece: None, expected=diff_id(b"another"))


def test_what_the_writer_raises_comes_through(stack: Stack) -> None:
    stored = stack.push(archive(*LAYER))

    def full(piece: memoryview) -> None:
        raise OSError(28, "no space where it goes")

    with pytest.raises(OSError, match="no space where it goes"):
        export(stored.skeleton, stored.tree, full, expected=stored.unpacked.diff_id)


# --- damage ----------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    """One byte is another, as a bad disk has it: size and times are as before."""
    facts = path.stat()
    with path.open("r+b") as opened:
        opened.seek(facts.st_size // 2)
        byte = opened.read(1)
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def empty(path: Path) -> None:
    """As files are after a power cut."""
    facts = path.stat()
    os.truncate(path, 0)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def replace(path: Path) -> None:
    path.unlink()
    path.mkdir()


def relink(path: Path) -> None:
    facts = path.lstat()
    path.unlink()
    path.symlink_to("d/x")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns), follow_symlinks=False)


def redevice(path: Path) -> None:
    facts = path.lstat()
    path.unlink()
    os.mknod(path, 0o020644, os.makedev(1, 5))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


DAMAGE: dict[str, tuple[str, Callable[[Path], object], Level]] = {
    "a missing file": ("d/f", Path.unlink, Level.SIZES),
    "a missing directory": ("d", shutil.rmtree, Level.SIZES),
    "a missing link": ("l", Path.unlink, Level.SIZES),
    "an empty file": ("d/f", empty, Level.SIZES),
    "a shorter sparse file": ("s", lambda path: os.truncate(path, 99_999), Level.SIZES),
    "a longer file": ("implied/empty", lambda path: path.write_bytes(b"x"), Level.SIZES),
    "another type": ("implied/empty", replace, Level.SIZES),
    "a device instead of a FIFO": ("p", redevice, Level.SIZES),
    "another device": ("c", redevice, Level.ATTRIBUTES),
    "another target": ("l", relink, Level.ATTRIBUTES),
    "another mode": ("d/f", lambda path: path.chmod(0o600), Level.ATTRIBUTES),
    "another owner": ("d", lambda path: os.chown(path, 6, 0), Level.ATTRIBUTES),
    "another owner of a link": ("l", lambda path: os.chown(path, 6, 0, follow_symlinks=False), Level.ATTRIBUTES),
    "another xattr": ("d/f", lambda path: os.setxattr(path, "user.x", b"z"), Level.ATTRIBUTES),
    "one more xattr": ("d", lambda path: os.setxattr(path, "user.z", b"z"), Level.ATTRIBUTES),
    "a missing xattr": ("d/f", lambda path: os.removexattr(path, "user.x"), Level.ATTRIBUTES),
    "another byte": ("d/f", flip, Level.CONTENT),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_from_its_level_on(case: str, stack: Stack) -> None:
    name, damage, least = DAMAGE[case]
    stored = stack.push(archive(*LAYER))
    damage(stored.tree / name)
    for level in Level:
        names = {one.path.strip("/") for one in stack.damage(stored, level)}
        assert names & {name, name.replace("d/f", "d/h")} if level >= least else names == set(), level


def test_the_content_of_a_sparse_file_is_checked_too(stack: Stack) -> None:
    stored = stack.push(archive(*LAYER))
    path = stored.tree / "s"
    facts = path.stat()
    with path.open("r+b") as opened:
        opened.seek(5000)
        opened.write(b"y")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert stack.damage(stored, Level.ATTRIBUTES) == []
    assert [one.path for one in stack.damage(stored)] == ["/s"]


def test_what_was_put_beside_the_layers_own_is_named(stack: Stack) -> None:
    if stack.dialect is Dialect.MERGED:
        pytest.skip("has files of the parents")
    stored = stack.push(archive(*LAYER))
    facts = (stored.tree / "d").stat()
    (stored.tree / "d/stranger").write_text("x")
    os.utime(stored.tree / "d", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert any("stranger" in str(one) for one in stack.damage(stored, Level.ATTRIBUTES))


def test_a_link_that_is_none_any_more_is_named(stack: Stack) -> None:
    stored = stack.push(archive(*LAYER))
    facts = (stored.tree / "d/h").stat()
    shutil.copy2(stored.tree / "d/h", stored.tree / "copy")
    (stored.tree / "copy").replace(stored.tree / "d/h")
    os.utime(stored.tree / "d/h", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert {one.path for one in stack.damage(stored, Level.ATTRIBUTES)} & {"/d/h", "/d/f"}


def test_a_missing_whiteout_is_damage(folder: Path) -> None:
    for dialect, mark in ((Dialect.OVERLAY, "gone"), (Dialect.AUFS, ".wh.gone")):
        stack = Stack(folder / dialect.value, dialect)
        stored = stack.push(archive(*LAYER))
        (stored.tree / mark).unlink()
        assert stack.damage(stored, Level.ATTRIBUTES), f"{dialect}: {mark} is missing, and nobody says so"


def test_a_missing_opaque_mark_is_damage(folder: Path) -> None:
    for dialect in (Dialect.OVERLAY, Dialect.AUFS):
        stack = Stack(folder / dialect.value, dialect)
        stored = stack.push(archive(*LAYER))
        if dialect is Dialect.OVERLAY:
            os.removexattr(stored.tree / "d/o", "trusted.overlay.opaque")
        else:
            (stored.tree / "d/o/.wh..wh..opq").unlink()
        assert stack.damage(stored, Level.ATTRIBUTES), f"{dialect}: no longer opaque, and nobody says so"


@pytest.mark.parametrize("case", ["a missing file", "a missing directory", "an empty file", "another byte"])
def test_an_export_of_damaged_files_fails_with_the_path(case: str, stack: Stack) -> None:
    name, damage, _ = DAMAGE[case]
    stored = stack.push(archive(*LAYER))
    damage(stored.tree / name)
    with pytest.raises(Damaged) as caught:
        stack.exported(stored)
    assert caught.value.path is not None
    assert caught.value.path.strip("/") in {"d/f", "d/h"}


def test_a_link_that_was_put_into_the_tree_is_not_followed(folder: Path) -> None:
    stack = Stack(folder, Dialect.OVERLAY)
    stored = stack.push(archive(*LAYER))
    secret = folder / "secret"
    secret.mkdir()
    shutil.copy2(stored.tree / "d/f", secret / "f")
    shutil.rmtree(stored.tree / "d")
    (stored.tree / "d").symlink_to(secret)
    with pytest.raises(Damaged):
        stack.exported(stored)
    assert stack.damage(stored, Level.SIZES)


# --- damaged skeletons -----------------------------------------------------------------------------------------------


def try_with(stack: Stack, skeleton: Path, tar: bytes) -> None:
    stored = stack.layers[-1]
    try:
        assert exported(skeleton, stored.tree, diff_id(tar)) == tar
    except LayerstoreError:
        pass
    try:
        list(verify(skeleton, stored.tree, dialect=stack.dialect, level=Level.CONTENT))
    except LayerstoreError:
        pass


def test_a_skeleton_that_is_cut_short_is_an_error(folder: Path) -> None:
    stack = Stack(folder, Dialect.OVERLAY)
    tar = archive(*LAYER)
    stored = stack.push(tar)
    whole = stored.skeleton.read_bytes()
    for length in range(len(whole)):
        stored.skeleton.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            stack.exported(stored)


def test_a_skeleton_with_wrong_bytes_does_no_harm(folder: Path) -> None:
    stack = Stack(folder, Dialect.OVERLAY)
    tar = archive(*LAYER)
    stored = stack.push(tar)
    whole = stored.skeleton.read_bytes()
    damaged = folder / "damaged"
    chance = random.Random(1)
    for at in range(len(whole)):
        for value in (whole[at] ^ 0xFF, whole[at] ^ 1 << chance.randrange(8)):
            damaged.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            try_with(stack, damaged, tar)


def test_a_skeleton_whose_index_lies_does_no_harm(folder: Path) -> None:
    """The index itself, without the compression that would notice: numbers change, lengths grow, strings end early."""
    stack = Stack(folder, Dialect.OVERLAY)
    tar = archive(*LAYER)
    stored = stack.push(tar)
    with SkeletonReader(stored.skeleton) as reader:
        index, stream = reader.index(), b"".join(reader.stream())
    damaged = folder / "damaged"

    def write(new_index: bytes, new_stream: bytes) -> None:
        damaged.unlink(missing_ok=True)
        with SkeletonWriter(damaged) as writer:
            writer.add(new_stream)
            writer.close(new_index)
        try_with(stack, damaged, tar)

    for at in range(len(index)):
        write(index[:at] + bytes([(0, 0x7F, 0x80, 0xFF, index[at] ^ 1)[at % 5]]) + index[at + 1 :], stream)
        write(index[:at], stream)
    for at in range(0, len(stream), 7):
        write(index, stream[:at] + bytes([(0, 0x7F, 0xFF)[at % 3]]) + stream[at + 1 :])


def test_a_missing_skeleton_is_damage(stack: Stack) -> None:
    stored = stack.push(archive(*LAYER))
    stored.skeleton.unlink()
    with pytest.raises(Damaged):
        stack.exported(stored)
    assert [one.path for one in stack.damage(stored, Level.SIZES)] == [""]


def test_a_skeleton_holds_no_payload(folder: Path) -> None:
    stack = Stack(folder, Dialect.OVERLAY)
    noise = random.Random(2).randbytes(1 << 20)
    stored = stack.push(archive(file(b"f", noise), file(b"g", noise)))
    assert stored.skeleton.stat().st_size < 10_000


def test_strategies_draw_names_of_files_only_once() -> None:
    assert len(set(strategies.NAMES)) == len(strategies.NAMES)
