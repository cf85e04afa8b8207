"""btrfs: what the ioctls do, and that the changes of a snapshot are those of the full comparison."""

from __future__ import annotations

import errno
import mmap
import os
import random
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from kernel.stacks import as_nobody
from kernel.wild import Wild, below
from layerstore.changes import Changes, compare_trees, snapshot_changes
from layerstore.errors import KernelError
from layerstore.kernel import btrfs
from layerstore.kernel.btrfs import QuotaState
from layerstore.kernel.files import clone_file, remove_tree, syncfs
from layerstore.testing.filesystems import Filesystems
from support.properties import by_day

pytestmark = pytest.mark.root


@pytest.fixture
def folder(backing: Callable[[str], Path]) -> Path:
    return backing("btrfs")


def refusal(number: int, action: Callable[[], object]) -> KernelError:
    with pytest.raises(KernelError) as caught:
        action()
    assert caught.value.errno == number
    return caught.value


# ---- subvolumes


def test_subvolume_and_its_snapshot(folder: Path) -> None:
    btrfs.create(folder / "one")
    (folder / "one" / "file").write_text("dirty")
    btrfs.snapshot(folder / "one", folder / "two")
    btrfs.snapshot(folder / "one", folder / "three", read_only=True)
    (folder / "two" / "file").write_text("other")

    one, two, three = (btrfs.info(folder / name) for name in ("one", "two", "three"))
    assert len({one.id, two.id, three.id}) == len({one.uuid, two.uuid, three.uuid}) == 3
    assert one.parent is None
    assert two.parent == three.parent == one.uuid
    assert one.created <= two.created < three.created
    syncfs(folder)
    assert two.created < btrfs.info(folder / "two").changed
    assert [btrfs.is_read_only(folder / name) for name in ("one", "two", "three")] == [False, False, True]
    assert (folder / "one" / "file").read_text() == (folder / "three" / "file").read_text() == "dirty"
    with pytest.raises(OSError, match="Read-only"):
        (folder / "three" / "new").touch()


def test_facts_are_of_the_subvolume_that_a_folder_lies_in(folder: Path) -> None:
    btrfs.create(folder / "one")
    (folder / "one" / "inner").mkdir()
    assert btrfs.info(folder / "one" / "inner").id == btrfs.info(folder / "one").id != btrfs.info(folder).id


def test_read_only_is_set_once(folder: Path) -> None:
    btrfs.create(folder / "one")
    btrfs.set_read_only(folder / "one")
    btrfs.set_read_only(folder / "one")
    assert btrfs.is_read_only(folder / "one")
    btrfs.snapshot(folder / "one", folder / "two")
    assert not btrfs.is_read_only(folder / "two")


def test_destroying(folder: Path) -> None:
    btrfs.create(folder / "one")
    with (folder / "one" / "open").open("w") as file:
        btrfs.set_read_only(folder / "one")
        assert btrfs.destroy(folder / "one")
        file.write("into nothing")
    assert not btrfs.destroy(folder / "one")
    assert os.listdir(folder) == []


def test_destroying_what_is_nested(folder: Path) -> None:
    inside = ("outer/a", "outer/deep/er/b", "outer/deep/er/b/c", "outer/deep/er/b/c/d")
    btrfs.create(folder / "outer")
    (folder / "outer" / "deep" / "er").mkdir(parents=True)
    for name in inside:
        btrfs.create(folder / name)
        (folder / name / "file").touch()
    btrfs.set_read_only(folder / inside[-1])
    numbers = [btrfs.info(folder / name).id for name in inside]
    assert btrfs.nested(folder / "outer") == sorted(numbers[:2])
    assert btrfs.nested(folder, numbers[1]) == [numbers[2]]

    assert btrfs.destroy(folder / "outer")
    assert not set(btrfs.nested(folder)) & set(numbers)


def test_more_nested_ones_than_fit_the_first_answer(folder: Path) -> None:
    btrfs.create(folder / "outer")
    for number in range(100):
        btrfs.create(folder / "outer" / f"{number}")
    assert len(btrfs.nested(folder / "outer")) == 100
    assert btrfs.destroy(folder / "outer")


def test_what_is_refused(folder: Path, backing: Callable[[str], Path]) -> None:
    btrfs.create(folder / "one")
    (folder / "plain").mkdir()
    refusal(errno.EEXIST, lambda: btrfs.create(folder / "one"))
    refusal(errno.EEXIST, lambda: btrfs.create(folder / "plain"))
    refusal(errno.ENOENT, lambda: btrfs.create(folder / "not there" / "one"))
    refusal(errno.ENAMETOOLONG, lambda: btrfs.create(folder / ("x" * 256)))
    refusal(errno.EEXIST, lambda: btrfs.snapshot(folder / "one", folder / "plain"))
    refusal(errno.EINVAL, lambda: btrfs.snapshot(folder / "plain", folder / "two"))
    refusal(errno.EINVAL, lambda: btrfs.destroy(folder / "plain"))
    error = refusal(errno.ENOTTY, lambda: btrfs.create(backing("ext4") / "one"))
    assert error.remedy
    assert sorted(os.listdir(folder)) == ["one", "plain"]


def test_ordinary_user(folder: Path) -> None:
    btrfs.create(folder / "one")
    (folder / "one").chmod(0o777)
    folder.chmod(0o777)
    for action in (lambda: btrfs.nested("one"), lambda: btrfs.written("one", 0), lambda: btrfs.destroy("one")):
        answer = as_nobody(action, within=folder)
        assert answer.startswith("KernelError")
        assert "CAP_SYS_ADMIN" in answer
    assert as_nobody(lambda: btrfs.info("one").parent, within=folder) == "None"
    assert (folder / "one").is_dir()


def test_what_was_written(folder: Path) -> None:
    btrfs.create(folder / "one")
    for number in range(1000):
        (folder / "one" / f"{number}").write_bytes(bytes(10_000))
    syncfs(folder)
    inodes, size = btrfs.written(folder / "one", 0)
    assert inodes == 1001
    assert size == 1000 * 12_288
    btrfs.snapshot(folder / "one", folder / "two")
    created = btrfs.info(folder / "two").created
    assert btrfs.written(folder / "two", created) == (0, 0)
    (folder / "two" / "new").write_bytes(bytes(100_000))
    with (folder / "two" / "hole").open("wb") as file:
        file.truncate(1 << 30)
    (folder / "two" / "small").write_text("inline")
    syncfs(folder)
    inodes, size = btrfs.written(folder / "two", created)
    assert inodes == 4  # with the folder
    assert 102_400 <= size < 102_400 + 100


# ---- quotas


def test_quota_groups(own_filesystem: Callable[..., Path]) -> None:
    folder = own_filesystem("btrfs", size=256 << 20, options="commit=1")
    assert btrfs.quota_state(folder) is QuotaState.OFF
    assert btrfs.groups(folder) == []
    btrfs.create(folder / "one")
    number = btrfs.info(folder / "one").id
    assert btrfs.remove_group(folder, number)  # there are none
    state = btrfs.enable_quota(folder)
    assert state is btrfs.quota_state(folder) is btrfs.enable_quota(folder)
    assert state is not QuotaState.OFF

    btrfs.create(folder / "two")
    numbers = [btrfs.info(folder / name).id for name in ("one", "two")]
    assert set(numbers) <= set(btrfs.groups(folder))
    btrfs.limit(folder / "two", 1 << 20)
    with pytest.raises(OSError, match="quota") as caught:
        (folder / "two" / "file").write_bytes(os.urandom(4 << 20))
    assert caught.value.errno == errno.EDQUOT
    (folder / "one" / "file").write_bytes(os.urandom(4 << 20))
    btrfs.limit(folder / "two", 0)
    (folder / "two" / "file").write_bytes(os.urandom(4 << 20))

    assert not btrfs.remove_group(folder, numbers[1])
    assert btrfs.destroy(folder / "two")
    until_gone(folder, numbers[1])
    assert btrfs.remove_group(folder, numbers[1])
    assert numbers[1] not in btrfs.groups(folder)


def until_gone(folder: Path, group: int) -> None:
    """Let the cleaner work, which wakes with each commit."""
    for _ in range(100):
        (folder / "stir").write_text(os.urandom(4).hex())
        syncfs(folder)
        if btrfs.remove_group(folder, group):
            return
        subprocess.run(["btrfs", "-q", "subvolume", "sync", folder], check=True, stdout=subprocess.DEVNULL)
    pytest.fail("the group stays")


# ---- changes


@define
class Ground:
    """A filesystem to make snapshots on. `read` shows it with every access time written."""

    folder: Path
    read: Path
    made: int = 0

    def place(self) -> Path:
        self.made += 1
        path = self.folder / f"{self.made}"
        path.mkdir()
        return path


@pytest.fixture(scope="module")
def ground(filesystems: Filesystems) -> Iterator[Ground]:
    folder = filesystems.make("btrfs", size=4 << 30, options="noatime")
    read = filesystems.folder / f"{folder.name}.read"
    read.mkdir()
    subprocess.run(["mount", "--bind", folder, read], check=True)
    subprocess.run(["mount", "-o", "remount,bind,strictatime", read], check=True)
    yield Ground(folder, read)
    subprocess.run(["umount", read], check=True)
    read.rmdir()
    filesystems.drop(folder)


@define(slots=False)
class Container(Wild):
    """Edits a subvolume, also as only btrfs knows it, and keeps files open and mapped all the while."""

    path: Path
    ground: Ground
    dice: random.Random
    maps: list[tuple[BinaryIO, mmap.mmap]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__(self.path, self.dice)

    def deeds(self) -> tuple[Callable[[], None], ...]:
        return (
            *super().deeds(),
            *super().deeds(),
            self.look,
            self.map,
            self.clone,
            self.replace,
            self.nest,
            self.swap_twins,
        )

    def aside(self) -> bytes:
        return os.path.join(self._folder(), b".aside")

    def swap_twins(self) -> None:
        """Two folders of the same names, of which none but their own two has changed then."""
        twins = [path for path in below(self.root) if os.path.basename(path).startswith(b"twin")]
        if len(twins) < 2:
            return
        part = self.dice.choice((b"", b"/a"))
        one, other = (twin + part for twin in self.dice.sample(twins, 2))
        aside = os.path.join(self.root, b".aside")
        os.rename(one, aside)
        os.rename(other, one)
        os.rename(aside, other)

    def look(self) -> None:
        """Read files and folders: their access times are all that changes."""
        root = os.fsencode(self.ground.read / self.path.relative_to(self.ground.folder))
        for path in [root, *below(root)]:
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as file:
                    file.read()

    def map(self) -> None:
        """Write through memory, now and again later, and put the times back."""
        path = self._any()
        facts = os.lstat(path)
        if stat.S_ISREG(facts.st_mode) and facts.st_size:
            file = open(path, "r+b")  # noqa: SIM115  held as long as the map is
            self.maps.append((file, mmap.mmap(file.fileno(), 0)))
        for file, memory in self.maps[-5:]:
            size = min(len(memory), os.fstat(file.fileno()).st_size)  # beyond the end is SIGBUS
            if size:
                memory[self.dice.randrange(size)] = self.dice.randrange(256)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns), follow_symlinks=False)

    def clone(self) -> None:
        """Let a file share the blocks of another, and keep its times."""
        source, target = self._any(), self._any()
        facts = os.lstat(target)
        if all(stat.S_ISREG(os.lstat(path).st_mode) for path in (source, target)):
            with open(source, "rb") as old, open(target, "r+b") as new:
                clone_file(old.fileno(), new.fileno())
            os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    def replace(self) -> None:
        """Another file of the same name, and, but for an inode of its own, the same in all."""
        path = self._any()
        facts = os.lstat(path)
        if not stat.S_ISREG(facts.st_mode):
            return
        with open(path, "rb") as file:
            content = file.read()
        aside = self.aside()
        with open(aside, "xb") as file:
            file.write(content if self.dice.random() < 0.5 else os.urandom(len(content)))
        os.chown(aside, facts.st_uid, facts.st_gid)
        os.chmod(aside, stat.S_IMODE(facts.st_mode))
        os.utime(aside, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        os.rename(aside, path)

    def nest(self) -> None:
        """A subvolume in it, seldom: with one, directories are looked at more closely."""
        path = os.path.join(self._folder(), self.dice.choice((b"inner", b"a")))
        if self.dice.random() < 0.3 and not os.path.lexists(path):
            btrfs.create(os.fsdecode(path))

    def close(self) -> None:
        for file, memory in self.maps:
            memory.close()
            file.close()


def add_twins(root: Path, dice: random.Random) -> None:
    """Folders that are named alike and hold the same names, of files that differ."""
    for number in range(3):
        outer = root / f"twin{number}"
        for inner in ("", "a", "a/b"):
            (outer / inner).mkdir()
            for name in ("f", "g"):
                (outer / inner / name).write_bytes(dice.randbytes(dice.choice((3, 3, 6000))))
                os.utime(outer / inner / name, ns=(0, dice.randrange(2)))


def both_ways(new: Path, old: Path) -> tuple[Changes, Changes]:
    with ExitStack() as opened:
        fds = []
        for path in (new, old):
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
            opened.callback(os.close, fds[-1])
        quick = snapshot_changes(*fds, btrfs.info(new).created)
        return quick, compare_trees(*fds, content=True)


@given(seed=st.integers(0, 2**32), edits=st.integers(0, 8))
@by_day(25)
def test_answer_is_that_of_the_full_comparison(ground: Ground, seed: int, edits: int) -> None:
    folder = ground.place()
    dice = random.Random(seed)
    old = folder / "old"
    btrfs.create(old)
    try:
        Wild(old, dice).grow(dice.randrange(5, 50))
        add_twins(old, dice)
        syncfs(folder)
        btrfs.set_read_only(old)
        for generation in range(2):
            new = folder / f"new{generation}"
            btrfs.snapshot(old, new)
            assert len(both_ways(new, old)[0]) == 0
            container = Container(new, ground, dice)
            for _ in range(edits):
                container.edit(dice.randrange(1, 6))
                quick, full = both_ways(new, old)
                assert quick == full
                assert quick.sealable == (not btrfs.nested(new))
            container.close()
            if btrfs.nested(new):
                break  # the driver seals no such one: it would have a stub there, of no lasting attributes
            # What was a container's becomes the parent of the next.
            old = folder / f"sealed{generation}"
            btrfs.snapshot(new, old, read_only=True)
    finally:
        remove_tree(folder)


def test_all_names_of_a_file_of_very_many(ground: Ground) -> None:
    """More than one item of the tree holds, in folders that did not change."""
    folder = ground.place()
    btrfs.create(folder / "old")
    (folder / "old" / "file").write_text("old")
    for place in ("a", "b"):
        (folder / "old" / place).mkdir()
        for number in range(300):
            os.link(folder / "old" / "file", folder / "old" / place / f"{'x' * 200}{number}")
    btrfs.snapshot(folder / "old", folder / "new")
    (folder / "new" / "file").write_text("new")
    quick, full = both_ways(folder / "new", folder / "old")
    assert quick == full
    assert len(full) == 603
    remove_tree(folder)


def test_inode_used_again(own_filesystem: Callable[..., Path]) -> None:
    """The highest number is given out again after a remount, to a file that has all else of the other's too."""
    folder = own_filesystem("btrfs", size=128 << 20)
    btrfs.create(folder / "old")
    (folder / "old" / "folder").mkdir()
    (folder / "old" / "folder" / "last").write_text("old")
    facts = (folder / "old" / "folder" / "last").stat()
    btrfs.snapshot(folder / "old", folder / "new")
    (folder / "new" / "folder" / "last").unlink()
    device = subprocess.run(["findmnt", "-no", "SOURCE", folder], check=True, capture_output=True, text=True)
    loop = os.open(device.stdout.strip(), os.O_RDONLY)  # or the loop device would go with the mount
    subprocess.run(["umount", folder], check=True)
    subprocess.run(["mount", device.stdout.strip(), folder], check=True)
    os.close(loop)
    (folder / "new" / "folder" / "last").write_text("new")
    os.utime(folder / "new" / "folder" / "last", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (folder / "new" / "folder" / "last").stat().st_ino == facts.st_ino
    quick, full = both_ways(folder / "new", folder / "old")
    assert quick == full
    assert list(map(str, quick)) == ["C /folder", "C /folder/last"]
