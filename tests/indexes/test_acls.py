"""Access control lists and file capabilities: an index takes and shows what the kernel would if they were set."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.engine import Stack, unpacked
from layerstore.errors import KernelError
from layerstore.testing import trees
from layerstore.testing.strategies import capability, posix_acl
from layerstore.testing.tars import Entry, archive, fifo, file, folder, symlink
from support.properties import by_day
from tar.conftest import Scratch

pytestmark = pytest.mark.root

ACCESS, DEFAULT, CAPABILITY = b"system.posix_acl_access", b"system.posix_acl_default", b"security.capability"
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    """A list as the kernel gives it: of each entry the tag, the permissions, and who."""
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


MINIMAL = ((USER_OBJ, 6, NOBODY), (GROUP_OBJ, 4, NOBODY), (OTHER, 1, NOBODY))
FULL = (
    (USER_OBJ, 7, NOBODY),
    (USER, 7, 1000),
    (GROUP_OBJ, 5, NOBODY),
    (GROUP, 3, 7),
    (MASK, 6, NOBODY),
    (OTHER, 0, NOBODY),
)


def assert_taken_alike(scratch: Path, entry: Entry) -> None:
    """Mounted by an index, and unpacked, it is the same; or both are refused with the same words."""

    def outcome(act: Callable[[], dict[str, trees.Entry]]) -> dict[str, trees.Entry] | tuple[object, ...]:
        try:
            return act()
        except KernelError as error:
            return error.call, error.errno, error.path

    def indexed() -> dict[str, trees.Entry]:
        stack = Stack(scratch / "stack")
        stack.push(tar)
        return stack.listing()

    tar = archive(entry)
    expected, seen = outcome(lambda: unpacked([tar], scratch / "tree")), outcome(indexed)
    if isinstance(expected, dict) and isinstance(seen, dict):
        trees.assert_same(expected, seen)
    assert seen == expected


ODD: dict[str, bytes] = {
    "full": acl(*FULL),
    "minimal": acl(*MINIMAL),
    "nothing": b"",
    "only a head": acl(),
    "half a head": acl()[:3],
    "text": b"user::rwx,group::r-x,other::r-x",
    "another version": acl(*FULL, version=1),
    "cut": acl(*FULL)[:-1],
    "no mask": acl(*FULL[:4], FULL[5]),
    "a mask alone": acl(*MINIMAL[:2], FULL[4], MINIMAL[2]),
    "in disorder": acl(*FULL[::-1]),
    "groups first": acl(FULL[0], FULL[2], FULL[1], *FULL[3:]),
    "twice": acl(FULL[0], *FULL),
    "without others": acl(*FULL[:5]),
    "more behind": acl(*FULL, FULL[1]),
    "more permissions": acl((USER_OBJ, 8, NOBODY), *FULL[1:]),
    "another tag": acl(*FULL[:5], (64, 1, NOBODY)),
    "user nobody": acl(FULL[0], (USER, 7, NOBODY), *FULL[2:]),
    "group nobody": acl(*FULL[:3], (GROUP, 7, NOBODY), *FULL[4:]),
    "a user twice": acl(FULL[0], FULL[1], *FULL[1:]),
}
FILES: dict[str, Callable[..., Entry]] = {"file": file, "folder": folder, "fifo": fifo}


@pytest.mark.parametrize("name", [ACCESS, DEFAULT], ids=["access", "default"])
@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_a_list_is_taken_as_the_kernel_takes_it(
    value: bytes, make: Callable[..., Entry], name: bytes, folder: Path
) -> None:
    assert_taken_alike(folder, make(b"f", mode=0o4640, xattrs={name: value, b"trusted.more": b"1"}))


def test_a_list_of_a_symlink_is_refused(folder: Path) -> None:
    assert_taken_alike(folder, symlink(b"d/l", b"x", xattrs={ACCESS: posix_acl()}))


TAGS = st.sampled_from([USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER] * 5 + [0, 3, 64])


@st.composite
def lists(draw: st.DrawFn) -> Sequence[tuple[int, int, int]]:
    """Most are nearly right."""
    entries = [*draw(st.sampled_from([MINIMAL, FULL]))]
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(entries) - 1)) if entries else 0
        entry = (draw(TAGS), draw(st.integers(0, 8)), draw(st.sampled_from([0, 7, 1000, NOBODY])))
        entries[place : place + draw(st.integers(0, 1))] = [entry] * draw(st.integers(0, 1))
    return entries


@by_day(80, deadline=None)
@given(entries=lists(), name=st.sampled_from([ACCESS, DEFAULT]), mode=st.integers(0, 0o7777))
def test_any_list_is_taken_as_the_kernel_takes_it(
    entries: Sequence[tuple[int, int, int]], name: bytes, mode: int, scratch: Scratch
) -> None:
    with scratch() as place:
        assert_taken_alike(place, folder(b"f", mode=mode, xattrs={name: acl(*entries)}))


@pytest.mark.parametrize(
    "value",
    [
        capability(),
        struct.pack("<III", 0x01000000, 0x2400, 0),
        struct.pack("<IIIII", 0x02000001, 0x2400, 0, 0, 0),
        struct.pack("<IIIII", 0x02000002, 0x2400, 0, 0, 0),
        struct.pack("<IIIII", 0x03000001, 0x2400, 0, 0, 0),
        struct.pack("<IIIIII", 0x03000001, 0x2400, 0, 0, 0, 0),
        struct.pack("<IIIIII", 0x02000001, 0x2400, 0, 0, 0, 0),
        b"\0",
        b"garbage",
    ],
    ids=["usual", "1", "2", "another flag", "3 in 2", "3", "2 in 3", "NUL", "garbage"],
)
def test_a_capability_is_taken_as_the_kernel_takes_it(value: bytes, folder: Path) -> None:
    assert_taken_alike(folder, file(b"d/f", b"x", xattrs={CAPABILITY: value}))


def test_an_empty_capability_is_refused(stack: Stack) -> None:
    """Ext4 keeps one, and the kernel cannot read it then: neither the xattr nor, to run it, the file."""
    stack.push(archive(file(b"d/f", b"x", xattrs={CAPABILITY: b""})))
    with pytest.raises(KernelError) as caught:
        stack.write()
    assert (caught.value.call, caught.value.path) == ("setxattr", "/d/f")
    assert "no storage driver" in (caught.value.remedy or "")
