"""Mode, owner, times, xattrs: what the tar says is what is seen, whatever host, parents and order would add to it."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerstore.driver import Dialect
from layerstore.errors import KernelError, LayerstoreError
from layerstore.testing import trees
from layerstore.testing.filesystems import Filesystems
from layerstore.testing.strategies import capability, posix_acl
from layerstore.testing.tars import (
    SECOND,
    Entry,
    Kind,
    archive,
    block,
    char,
    fifo,
    file,
    folder,
    hardlink,
    opaque,
    symlink,
)
from tar.engine import Stack

Stacked = Callable[..., dict[str, trees.Entry]]

pytestmark = pytest.mark.root

ACL_ACCESS = {b"system.posix_acl_access": posix_acl()}
ACL_DEFAULT = {b"system.posix_acl_default": posix_acl()}


@pytest.fixture(params=[0, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    assert os.umask(before) == request.param, "the engine changed the umask of its caller"


def test_the_umask_of_the_process_does_not_matter(umask: int, stacked: Stacked) -> None:
    seen = stacked(
        [folder(b"d", mode=0o777), file(b"d/f", mode=0o666), fifo(b"d/p", mode=0o622), file(b"implied/f", mode=0o6777)],
        [file(b"d/g", mode=0o666), folder(b"other/e", mode=0o1777)],
    )
    assert seen["implied"].mode == 0o755
    assert seen["d/g"].mode == 0o666


@pytest.mark.parametrize("mode", [0, 0o111, 0o444, 0o600, 0o755, 0o4755, 0o2755, 0o1777, 0o6111, 0o7777])
def test_every_mode(mode: int, stacked: Stacked) -> None:
    seen = stacked([file(b"f", mode=mode, gid=5), folder(b"d", mode=mode, gid=5), fifo(b"p", mode=mode, gid=5)])
    assert [seen[name].mode for name in "fdp"] == [mode] * 3


def test_bits_of_the_file_type_in_the_mode_are_nothing(stack: Stack) -> None:
    stack.push(archive(file(b"f", mode=0o100644), folder(b"d", mode=0o40755)))
    seen = stack.listing()
    assert (seen["f"].mode, seen["d"].mode) == (0o644, 0o755)


def test_a_setuid_program_with_a_capability_and_an_owner_keeps_all_three(stacked: Stacked) -> None:
    seen = stacked(
        [file(b"ping", b"\x7fELF", mode=0o6755, uid=1000, gid=1001, xattrs={b"security.capability": capability()})]
    )
    assert (seen["ping"].mode, seen["ping"].uid, seen["ping"].gid) == (0o6755, 1000, 1001)
    assert dict(seen["ping"].xattrs) == {"security.capability": capability()}


@pytest.mark.parametrize("owner", [0, 1, 65535, 2**21 - 1, 2**21, 2**31 - 1, 2**31, 2**32 - 2])
def test_every_owner(owner: int, stacked: Stacked) -> None:
    seen = stacked([file(b"f", uid=owner, gid=3), folder(b"d", gid=owner), symlink(b"l", b"f", uid=owner)])
    assert (seen["f"].uid, seen["d"].gid, seen["l"].uid) == (owner, owner, owner)


@pytest.mark.parametrize("owner", [2**32 - 1, 2**32, 2**32 + 5])
def test_an_owner_that_linux_does_not_have_is_refused(owner: int, stack: Stack) -> None:
    with pytest.raises(LayerstoreError):
        stack.push(archive(file(b"f", uid=owner)))


TIMES = [0, 1, -1, -SECOND, -SECOND - 1, -SECOND + 1, -(2**31) * SECOND, 10**18 + 123_456_789, (2**33) * SECOND + 1]


@pytest.mark.parametrize(
    "kind", [kind for kind in Kind if kind is not Kind.HARDLINK], ids=lambda kind: kind.name.lower()
)
def test_every_time_to_the_nanosecond(kind: Kind, stacked: Stacked) -> None:
    target = b"x" if kind is Kind.SYMLINK else b""
    seen = stacked([Entry(b"%d" % mtime, kind, mtime=mtime, target=target, device=(1, 3)) for mtime in TIMES])
    assert {name: seen[name].mtime_ns for name in seen if name} == {str(mtime): mtime for mtime in TIMES}


@pytest.mark.parametrize("mtime", [-(2**40) * SECOND, 2**40 * SECOND, 2**62 // SECOND * SECOND])
def test_a_time_that_the_filesystem_does_not_have_is_no_damage(mtime: int, stack: Stack) -> None:
    # ext4 clamps it without a word: the tar that comes out has to have it all the same.
    tar = archive(file(b"f", b"x", mtime=mtime), folder(b"d", mtime=mtime))
    stored = stack.push(tar)
    assert stack.exported(stored) == tar
    assert stack.damage(stored) == []


YEAR_2500 = 16_725_225_600


@pytest.fixture(scope="module")
def limited(filesystems: Filesystems) -> Iterator[Callable[[str], Path]]:
    """Filesystems by how far their times go; each is made once."""
    made: dict[str, Path] = {}
    words = {
        "ext4 with small inodes": ("ext4", 64 << 20, ("-I", "128")),
        "xfs without bigtime": ("xfs", 512 << 20, ("-m", "bigtime=0")),
    }

    def get(kind: str) -> Path:
        if kind not in words:
            return Path(tempfile.mkdtemp(prefix="times-", dir=filesystems.shared(kind)))
        if kind not in made:
            name, size, mkfs = words[kind]
            made[kind] = filesystems.make(name, size=size, mkfs=mkfs)
        return made[kind]

    yield get
    for path in made.values():
        filesystems.drop(path)


@pytest.mark.parametrize(
    "seconds", [2**31, 15_032_385_536, YEAR_2500, -(2**31) - 1], ids=["2038", "2446", "2500", "1901"]
)
@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.value)
@pytest.mark.parametrize("kind", ["ext4", "ext4 with small inodes", "xfs", "xfs without bigtime", "btrfs"])
def test_no_filesystem_damages_a_layer_by_the_times_it_keeps(
    kind: str, dialect: Dialect, seconds: int, limited: Callable[[str], Path]
) -> None:
    entries = [
        file(b"d/f", b"x", mtime=seconds * SECOND),
        folder(b"d", mtime=seconds * SECOND),
        symlink(b"l", b"d", mtime=seconds * SECOND),
        hardlink(b"h", b"d/f"),
    ]
    stack = Stack(limited(kind) / dialect.value / str(seconds), dialect)
    stored = stack.push(archive(*entries))
    assert stack.exported(stored) == archive(*entries)
    assert stack.damage(stored) == []


def test_another_time_is_damage_even_one_that_a_filesystem_ends_with(stack: Stack) -> None:
    stored = stack.push(archive(file(b"f", b"x", mtime=YEAR_2500 * SECOND), file(b"g", b"x", mtime=5 * SECOND)))
    assert stack.damage(stored) == []
    os.utime(stored.tree / "g", ns=((2**31 - 1) * SECOND,) * 2)
    os.utime(stored.tree / "f", ns=(YEAR_2500, YEAR_2500))
    assert {damage.path for damage in stack.damage(stored)} == {"/f", "/g"}


def test_a_directory_has_its_own_time_and_not_that_of_its_filling(stacked: Stacked) -> None:
    lower = [folder(b"d", mtime=5), folder(b"d/e", mtime=6), file(b"d/e/f"), hardlink(b"d/g", b"d/e/f")]
    assert stacked(lower)["d"].mtime_ns == 5


def test_xattrs_of_every_kind_and_any_bytes(stacked: Stacked) -> None:
    xattrs = {
        b"user.text": b"text",
        b"user.empty": b"",
        b"user.binary": bytes(range(256)) * 2,
        b"user.line": b"a=b\nc=d\n",
        "user.ü".encode(): b"name",
        b"user." + b"n" * 240: b"long name",
        b"trusted.x": b"trusted",
        b"security.x": b"security",
    }
    stacked([file(b"f", b"x", xattrs=xattrs), folder(b"d", xattrs=xattrs), file(b"d/f", b"y")])


@pytest.mark.parametrize("make", [file, folder], ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", [b"user.large", b"trusted.large"])
def test_xattrs_that_do_not_fit_are_an_error_that_names_the_file(
    name: bytes, make: Callable[..., Entry], stack: Stack
) -> None:
    stack.push(archive(file(b"before")))
    before = trees.listing(stack.folder)
    with pytest.raises(KernelError) as caught:
        stack.push(archive(file(b"other"), make(b"d/x", xattrs={name: b"x" * 5000})))
    assert caught.value.path == "/d/x"
    assert "4 KiB" in str(caught.value.remedy)
    if stack.dialect is not Dialect.MERGED:  # there the caller discards the copy
        trees.assert_same(before, trees.listing(stack.folder), ignoring=["mtime_ns"])


def test_what_has_no_user_xattrs_may_have_others(stacked: Stacked) -> None:
    xattrs = {b"trusted.x": b"trusted"}
    stacked([symlink(b"l", b"x", xattrs=xattrs), fifo(b"p", xattrs=xattrs), char(b"c", 1, 3, xattrs=xattrs)])


def test_the_later_of_two_records_of_one_xattr_counts(stack: Stack) -> None:
    from layerstore.testing.tars import pax

    tar = archive(pax([(b"SCHILY.xattr.user.x", b"1"), (b"SCHILY.xattr.user.x", b"2")]), file(b"f"))
    stored = stack.push(tar)
    assert stack.listing()["f"].xattrs == (("user.x", b"2"),)
    assert stack.exported(stored) == tar


def test_a_listed_directory_has_only_its_own_xattrs(stacked: Stacked) -> None:
    lower = folder(b"d", mode=0o754, uid=5, xattrs={b"user.old": b"x", **ACL_DEFAULT, **ACL_ACCESS})
    seen = stacked([lower, file(b"d/f")], [folder(b"d", xattrs={b"user.new": b"y"})])
    assert seen["d"].xattrs == (("user.new", b"y"),)
    assert (seen["d"].mode, seen["d"].uid) == (0o755, 0)


def test_a_name_listed_twice_has_the_later_attributes(stacked: Stacked) -> None:
    seen = stacked(
        [
            folder(b"d", mode=0o700, uid=5, xattrs={b"user.a": b"1", **ACL_DEFAULT}),
            file(b"d/f", mode=0o666),
            folder(b"d", mode=0o755, xattrs={b"user.b": b"2"}),
            file(b"f", b"first", xattrs={b"user.a": b"1"}),
            file(b"f", b"second", mode=0o600),
        ]
    )
    assert seen["d"].xattrs == (("user.b", b"2"),)
    assert seen["f"].xattrs == ()


def test_posix_acls(stacked: Stacked) -> None:
    # The mode's group bits are the mask of an access ACL: the two have to agree (acl(5)).
    access = {b"system.posix_acl_access": posix_acl()}
    seen = stacked([file(b"f", mode=0o754, xattrs=access), folder(b"d", mode=0o754, xattrs={**access, **ACL_DEFAULT})])
    assert dict(seen["f"].xattrs) == {"system.posix_acl_access": posix_acl()}


NOBODY = 0xFFFFFFFF
NO_MORE_THAN_A_MODE = struct.pack("<IHHIHHIHHI", 2, 1, 6, NOBODY, 4, 4, NOBODY, 32, 0, NOBODY)


@pytest.mark.parametrize("make", [file, folder, fifo])
@pytest.mark.parametrize(
    ("value", "mode", "kept"),
    [(posix_acl(), 0o4754, 1), (NO_MORE_THAN_A_MODE, 0o4640, 0), (struct.pack("<I", 2), 0o4611, 0)],
    ids=["more than a mode", "a mode", "nothing"],
)
def test_what_an_access_list_says_is_the_mode_and_no_damage(
    make: Callable[..., Entry], value: bytes, mode: int, kept: int, stack: Stack
) -> None:
    layer = stack.push(archive(make(b"f", mode=0o4611, xattrs={b"system.posix_acl_access": value})))
    seen = stack.listing()["f"]
    assert (seen.mode, len(seen.xattrs)) == (mode, kept)
    assert stack.damage(layer) == []


def test_a_default_list_of_nothing_is_none_and_no_damage(stack: Stack) -> None:
    layer = stack.push(archive(folder(b"d", xattrs={b"system.posix_acl_default": struct.pack("<I", 2)})))
    assert stack.listing()["d"].xattrs == ()
    assert stack.damage(layer) == []


@pytest.mark.parametrize("layers", [1, 2])
def test_nothing_is_inherited_from_a_default_acl(layers: int, stacked: Stacked) -> None:
    parent = [folder(b"d", mode=0o2770, gid=77, xattrs=ACL_DEFAULT)]
    inside = [
        file(b"d/f", b"x", mode=0o666),
        folder(b"d/d", mode=0o777),
        file(b"d/d/f", mode=0o666),
        fifo(b"d/p", mode=0o666),
        symlink(b"d/l", b"f"),
        char(b"d/c", 1, 3, mode=0o666),
        file(b"d/implied/f", mode=0o666),
    ]
    seen = stacked(parent, inside) if layers == 2 else stacked([*parent, *inside])
    assert {(seen[name].xattrs, seen[name].gid) for name in seen if name.startswith("d/")} == {((), 0)}
    assert seen["d/implied"].mode == 0o755


def test_the_folder_of_the_store_hands_nothing_down(stack: Stack) -> None:
    os.setxattr(stack.folder, "system.posix_acl_default", posix_acl())
    os.chown(stack.folder, 0, 77)
    os.chmod(stack.folder, 0o2755)
    stack.push(archive(file(b"f", mode=0o666), folder(b"d", mode=0o777), file(b"i/f", mode=0o666)))
    seen = stack.listing()
    assert {(seen[name].gid, seen[name].xattrs) for name in seen if name} == {(0, ())}
    assert [seen[name].mode for name in ("f", "d", "i", "i/f")] == [0o666, 0o777, 0o755, 0o666]


ESCAPED = [b"opaque", b"redirect", b"metacopy", b"origin", b"whiteout", b"overlay.opaque", b"overlay.overlay.x", b"any"]


@pytest.mark.parametrize("space", [b"trusted.overlay.", b"user.overlay."])
@pytest.mark.parametrize("name", ESCAPED)
def test_marks_of_overlay_in_a_tar_are_xattrs_like_any(space: bytes, name: bytes, stacked: Stacked) -> None:
    xattrs = {space + name: b"y"}
    lower = [folder(b"d", xattrs=xattrs), file(b"d/f", b"content", xattrs=xattrs), folder(b"e"), file(b"e/old")]
    seen = stacked(lower, [folder(b"e", xattrs=xattrs), file(b"e/new", b"x", xattrs=xattrs), file(b"d/g")])
    assert {"d/f", "d/g", "e/old", "e/new"} <= set(seen)
    assert dict(seen["e"].xattrs) == {os.fsdecode(space + name): b"y"}


def test_no_tar_can_make_a_directory_opaque_by_xattr(stacked: Stacked) -> None:
    lower = [folder(b"d"), file(b"d/old"), folder(b"secret"), file(b"secret/key")]
    evil = [
        folder(b"d", xattrs={b"trusted.overlay.opaque": b"y", b"user.overlay.opaque": b"y"}),
        folder(b"e", xattrs={b"trusted.overlay.redirect": b"/secret"}),
        file(b"f", xattrs={b"trusted.overlay.metacopy": b"", b"trusted.overlay.redirect": b"/secret/key"}),
    ]
    seen = stacked(lower, evil)
    assert "d/old" in seen
    assert "e/key" not in seen
    assert seen["f"].size == 0


# --- directories that are implied ------------------------------------------------------------------------------------

LOWER_DIR = folder(b"d", mode=0o1730, uid=5, gid=6, mtime=12 * SECOND + 34, xattrs={b"user.x": b"y", **ACL_DEFAULT})


@pytest.mark.parametrize(
    "layer", [[file(b"d/f")], [opaque(b"d")], [folder(b"d/e/g", mode=0o700)], [symlink(b"d/l", b"x")]]
)
def test_an_implied_directory_looks_as_it_did_below(layer: list[Entry], stacked: Stacked) -> None:
    seen = stacked([LOWER_DIR, folder(b"d/e", mode=0o711, mtime=5)], layer)["d"]
    assert (seen.mode, seen.uid, seen.gid, seen.mtime_ns) == (0o1730, 5, 6, 12 * SECOND + 34)
    assert dict(seen.xattrs) == {"user.x": b"y", "system.posix_acl_default": posix_acl()}


def test_an_implied_root_looks_as_it_did_below(stacked: Stacked) -> None:
    root = folder(b"./", mode=0o700, uid=5, gid=6, mtime=12, xattrs={b"user.x": b"y"})
    seen = stacked([root, file(b"a")], [file(b"b")])
    assert (seen[""].mode, seen[""].uid, seen[""].mtime_ns) == (0o700, 5, 12)
    assert dict(seen[""].xattrs) == {"user.x": b"y"}


def test_a_listed_root_has_the_attributes_of_the_list(stacked: Stacked) -> None:
    lower = folder(b"./", mode=0o700, uid=5, mtime=12, xattrs={b"user.x": b"y"})
    seen = stacked([lower], [folder(b".", mode=0o711, mtime=13)], [folder(b"/", mode=0o1777, mtime=14)])
    assert (seen[""].mode, seen[""].uid, seen[""].mtime_ns, seen[""].xattrs) == (0o1777, 0, 14, ())


def test_an_implied_directory_that_nobody_has_is_plain(stacked: Stacked) -> None:
    seen = stacked([file(b"a/b/c", uid=7)])
    assert {(seen[name].mode, seen[name].uid, seen[name].gid, seen[name].xattrs) for name in ("a", "a/b")} == {
        (0o755, 0, 0, ())
    }


def test_an_implied_directory_takes_the_place_of_a_lower_file(stacked: Stacked) -> None:
    seen = stacked([file(b"a", b"x", mode=0o600, uid=5)], [file(b"a/b")])
    assert (seen["a"].type, seen["a"].mode, seen["a"].uid) == ("folder", 0o755, 0)


def test_a_layer_tells_which_directories_it_implies(stack: Stack) -> None:
    if stack.dialect is Dialect.MERGED:
        pytest.skip("has the parents' directories in it")
    unpacked = stack.push(archive(file(b"a/b/c"), folder(b"a/d"), folder(b"e"), file(b"e/f"))).unpacked
    assert set(unpacked.implied) == {"", "a", "a/b"}
    unpacked = stack.push(archive(folder(b"./"), folder(b"a"), file(b"a/b"))).unpacked
    assert unpacked.implied == ()


# --- devices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [(0, 1), (1, 0), (1, 3), (255, 255), (4095, 2**20 - 1), (0, 2**20 - 1)])
def test_every_device_number(device: tuple[int, int], stacked: Stacked) -> None:
    seen = stacked([char(b"c", *device, mode=0o666), block(b"b", *device, uid=6)])
    assert (seen["c"].rdev, seen["b"].rdev) == (device, device)


@pytest.mark.parametrize("device", [(4096, 0), (0, 2**20), (-1, 0), (2**32, 0)])
def test_a_device_number_that_linux_does_not_have_is_refused(device: tuple[int, int], stack: Stack) -> None:
    with pytest.raises(LayerstoreError):
        stack.push(archive(char(b"c", *device)))


def test_a_device_of_number_0_0_is_nowhere_and_comes_out_again(stack: Stack) -> None:
    # On overlay it would be a whiteout, so no dialect has it. It is told, and it is in the tar again.
    tar = archive(char(b"zero", 0, 0), folder(b"d"), char(b"d/zero", 0, 0), file(b"f", b"x"))
    stored = stack.push(tar)
    assert set(stack.listing()) == {"", "d", "f"}
    assert any("zero" in notice for notice in stored.unpacked.notices)
    assert stack.exported(stored) == tar
    assert stack.damage(stored) == []


@pytest.mark.parametrize("way", [b"", b"d/"])
def test_a_device_of_number_0_0_replaces_nothing(way: bytes, stacked: Stacked) -> None:
    lower = [file(b"a", b"lower"), folder(b"d"), file(b"d/a", b"lower")]
    upper = [file(way + b"a", b"new"), char(way + b"a", 0, 0), char(way + b"b", 0, 0), char(b"no/b", 0, 0)]
    seen = stacked(lower, [*upper, hardlink(way + b"b", way + b"a")], [char(b"a", 0, 0), char(b"d/a", 0, 0)])
    assert set(seen) == {"", "a", "d", "d/a", os.fsdecode(way) + "b"}
    assert seen[os.fsdecode(way) + "a"].size == 3


def test_a_capability_of_version_3_is_kept_as_the_tar_has_it(stack: Stack) -> None:
    value = struct.pack("<IIIIII", 0x03000001, 0x2400, 0, 0, 0, 0)
    tar = archive(file(b"f", b"x", xattrs={b"security.capability": value}))
    stored = stack.push(tar)
    assert stack.exported(stored) == tar
    assert stack.damage(stored) == []
