"""Copying trees: all of it, exactly, nothing else, whatever it looks like."""

from __future__ import annotations

import errno
import itertools
import os
import random
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.wild import CAPABILITY, Wild, acl, below
from layerstore.errors import KernelError
from layerstore.kernel.copying import copy_tree
from layerstore.kernel.files import can_reflink, remove_tree
from layerstore.kernel.mounts import Mount
from layerstore.testing import trees
from support.properties import by_day

pytestmark = pytest.mark.root

Backing = Callable[[str], Path]
Mounter = Callable[[list[Mount], Path], int]


@contextmanager
def few_descriptors(number: int) -> Iterator[None]:
    """So few more may be opened. The limit is a number of a descriptor, and the process has some, wherever they are."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    free = (there for there in itertools.count() if there not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, number, None)), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def records(raw: bytes) -> list[tuple[int, int, int]]:
    """Inode of the copy, inode of the source, time of change of the copy: as the list has them, read anew."""
    numbers = []
    value = shift = 0
    for byte in raw:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append((value >> 1) ^ -(value & 1))
            value = shift = 0
    found = []
    inode = source = seconds = nanoseconds = 0
    for at in range(0, len(numbers), 4):
        inode += numbers[at]
        source += numbers[at + 1]
        seconds += numbers[at + 2]
        nanoseconds += numbers[at + 3]
        found.append((inode, source, seconds * 10**9 + nanoseconds))
    return found


def expected_records(source: Path, copy: Path) -> list[tuple[int, int, int]]:
    found = set()
    for path in [os.fsencode(copy), *below(os.fsencode(copy))]:
        made = os.lstat(path)
        origin = os.lstat(os.fsencode(source) + path[len(os.fsencode(copy)) :])
        found.add((made.st_ino, origin.st_ino, made.st_ctime_ns))
    return sorted(found)


def assert_copied(source: Path, copy: Path) -> None:
    trees.assert_same(trees.listing(source), trees.listing(copy))


def test_everything_is_kept(backing: Backing, filesystem: str) -> None:
    folder = backing(filesystem)
    source = folder / "source"
    Wild(source, random.Random(7)).grow(200)
    before = trees.listing(source)

    copied = copy_tree(source, folder / "copy")

    trees.assert_same(before, trees.listing(folder / "copy"))
    assert copied.reflinked == can_reflink(folder)
    assert copied.files == sum(entry.type != "folder" for entry in before.values())
    contents = {entry.names: entry.size for entry in before.values() if entry.type == "file"}
    assert copied.bytes == sum(contents.values())
    assert sorted(records(copied.raw)) == expected_records(source, folder / "copy")


@given(seed=st.integers(0, 2**32), threads=st.integers(1, 4), share=st.booleans())
@by_day(30)
def test_any_tree_is_kept(filesystems_in_turn: Iterator[Path], seed: int, threads: int, share: bool) -> None:  # noqa: FBT001 - drawn
    folder = next(filesystems_in_turn)
    try:
        dice = random.Random(seed)
        Wild(folder / "source", dice).grow(dice.randrange(60))
        copied = copy_tree(folder / "source", folder / "copy", threads=threads, share=share)
        assert_copied(folder / "source", folder / "copy")
        assert sorted(records(copied.raw)) == expected_records(folder / "source", folder / "copy")
    finally:
        remove_tree(folder)


@pytest.fixture(scope="module")
def filesystems_in_turn(filesystems: object) -> Iterator[Path]:
    """A new folder each time, on one filesystem after another."""

    def turn() -> Iterator[Path]:
        number = 0
        while True:
            for kind in ("ext4", "xfs", "btrfs", "tmpfs"):
                number += 1
                folder = Path(filesystems.shared(kind)) / f"copy-{number}"  # type: ignore[attr-defined]
                folder.mkdir()
                yield folder

    return turn()


@pytest.mark.parametrize(("origin", "target"), [("tmpfs", "ext4"), ("xfs", "btrfs"), ("ext4", "tmpfs")])
def test_from_one_filesystem_to_another(backing: Backing, origin: str, target: str) -> None:
    source, copy = backing(origin) / "source", backing(target) / "copy"
    Wild(source, random.Random(11)).grow(150)

    copied = copy_tree(source, copy)

    assert_copied(source, copy)
    assert not copied.reflinked


def test_source_by_descriptor(backing: Backing) -> None:
    folder = backing("ext4")
    Wild(folder / "source", random.Random(3)).grow(20)
    handle = os.open(folder / "source", os.O_PATH)
    try:
        copy_tree(handle, folder / "copy")
    finally:
        os.close(handle)

    assert_copied(folder / "source", folder / "copy")


def test_nothing_is_inherited_from_where_the_copy_lies(backing: Backing, filesystem: str) -> None:
    folder = backing(filesystem)
    source = folder / "source"
    (source / "inner").mkdir(parents=True)
    (source / "inner" / "file").write_text("x")
    (source / "plain").write_text("x")
    heir = folder / "heir"
    heir.mkdir()
    os.setxattr(heir, "system.posix_acl_default", acl())
    os.chown(heir, 5, 5)
    heir.chmod(0o2777)
    mask = os.umask(0o077)
    try:
        copy_tree(source, heir / "copy")
    finally:
        os.umask(mask)

    assert_copied(source, heir / "copy")


def test_group_that_the_filesystem_gives(own_filesystem: Callable[..., Path]) -> None:
    folder = own_filesystem("ext4", size=16 << 20, options="grpid")
    heir = folder / "heir"
    heir.mkdir()
    os.chown(heir, 0, 77)
    (folder / "source" / "inner").mkdir(parents=True)
    (folder / "source" / "inner" / "file").write_text("x")
    os.chown(folder / "source" / "inner", 0, 88)
    (folder / "source" / "setuid").write_text("x")
    (folder / "source" / "setuid").chmod(0o6755)
    os.setxattr(folder / "source" / "setuid", "security.capability", CAPABILITY)

    copy_tree(folder / "source", heir / "copy")

    assert_copied(folder / "source", heir / "copy")


def test_holes_stay_holes(backing: Backing, filesystem: str) -> None:
    folder = backing(filesystem)
    (folder / "source").mkdir()
    with open(folder / "source" / "sparse", "wb") as file:
        for at in (0, 10 << 20, 63 << 20):
            file.seek(at)
            file.write(os.urandom(8192))
        file.truncate(200 << 20)
    with open(folder / "source" / "only a hole", "wb") as file:
        file.truncate(1 << 30)

    for share in (True, False):
        copy = folder / f"copy {share}"
        copied = copy_tree(folder / "source", copy, share=share)
        assert copied.bytes == (200 << 20) + (1 << 30)
        assert_same_files(folder / "source", copy, "sparse")
        os.sync()
        assert (copy / "sparse").stat().st_blocks * 512 <= 1 << 20
        assert (copy / "only a hole").stat().st_size == 1 << 30
        assert (copy / "only a hole").stat().st_blocks * 512 <= 64 << 10


def assert_same_files(source: Path, copy: Path, name: str) -> None:
    assert subprocess.run(["cmp", source / name, copy / name], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_shared_blocks_are_shared_until_written(backing: Backing, kind: str) -> None:
    folder = backing(kind)
    (folder / "source").mkdir()
    (folder / "source" / "big").write_bytes(os.urandom(32 << 20))
    os.sync()
    free = os.statvfs(folder).f_bavail
    copied = copy_tree(folder / "source", folder / "copy")
    os.sync()
    used = (free - os.statvfs(folder).f_bavail) * os.statvfs(folder).f_frsize
    assert copied.reflinked
    assert used < 4 << 20

    with open(folder / "copy" / "big", "r+b") as file:
        file.write(b"altered")
    assert (folder / "source" / "big").read_bytes()[:7] != b"altered"


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_blocks_are_not_shared_if_they_shall_not_be(backing: Backing, kind: str) -> None:
    folder = backing(kind)
    (folder / "source").mkdir()
    (folder / "source" / "big").write_bytes(os.urandom(16 << 20))
    os.sync()
    free = os.statvfs(folder).f_bavail
    copied = copy_tree(folder / "source", folder / "copy", share=False)
    os.sync()
    used = (free - os.statvfs(folder).f_bavail) * os.statvfs(folder).f_frsize
    assert not copied.reflinked
    assert used >= 16 << 20


def test_file_without_copy_on_write_is_copied(backing: Backing) -> None:
    folder = backing("btrfs")
    (folder / "source").mkdir()
    (folder / "source" / "b").write_bytes(os.urandom(9000))
    (folder / "source" / "a").touch()
    subprocess.run(["chattr", "+C", folder / "source" / "a"], check=True)
    (folder / "source" / "a").write_bytes(os.urandom(9000))

    copied = copy_tree(folder / "source", folder / "copy")

    assert_copied(folder / "source", folder / "copy")
    assert copied.reflinked


def test_depth_beyond_any_path_and_any_number_of_descriptors(backing: Backing, filesystem: str) -> None:
    """A chain with a side folder and a link to a file of another level on each: nothing of it has a path."""
    folder = backing(filesystem)
    depth = 1500
    make_comb(folder / "source", depth)

    with few_descriptors(200):
        copied = copy_tree(folder / "source", folder / "copy", threads=4)

    assert copied.files == 3 * depth
    assert walk_comb(folder / "copy") == walk_comb(folder / "source")
    for name in ("source", "copy"):
        remove_tree(folder / name)


def make_comb(root: Path, depth: int) -> None:
    root.mkdir()
    first = os.open(root, os.O_RDONLY)
    here = os.dup(first)
    for level in range(depth):
        os.mkdir("side", dir_fd=here)
        os.close(os.open("side/file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=here))
        os.mkdir("d" * 40, dir_fd=here)
        inner = os.open("d" * 40, os.O_RDONLY, dir_fd=here)
        os.close(os.open("origin", os.O_CREAT | os.O_WRONLY, level % 0o777, dir_fd=here))
        os.link("origin", "deeper", src_dir_fd=here, dst_dir_fd=inner)
        os.utime(here, ns=(5, level))
        os.close(here)
        here = inner
    os.close(here)
    os.close(first)


def walk_comb(root: Path) -> list[tuple[int, ...]]:
    here = os.open(root, os.O_RDONLY)
    found = []
    while True:
        names = sorted(os.listdir(here))
        facts = os.stat(here)
        row = [facts.st_mode, facts.st_mtime_ns, len(names)]
        for name in ("origin", "deeper", "side/file"):
            try:
                file = os.stat(name, dir_fd=here)
                row += [file.st_mode, file.st_nlink, file.st_mtime_ns]
            except FileNotFoundError:
                row.append(-1)
        found.append(tuple(row))
        try:
            inner = os.open("d" * 40, os.O_RDONLY, dir_fd=here)
        except FileNotFoundError:
            os.close(here)
            return found
        os.close(here)
        here = inner


def test_a_wide_folder(backing: Backing) -> None:
    folder = backing("ext4")
    (folder / "source").mkdir()
    for number in range(5_000):
        os.close(os.open(folder / "source" / f"f{number}", os.O_CREAT | os.O_WRONLY))
    for number in range(500):
        (folder / "source" / f"d{number}").mkdir()

    with few_descriptors(60):
        copied = copy_tree(folder / "source", folder / "copy")

    assert copied.files == 5_000
    assert_copied(folder / "source", folder / "copy")


def test_links_across_folders_and_threads(backing: Backing) -> None:
    """Each file has a name in every folder, so that all threads meet it at once; more files than descriptors."""
    folder = backing("tmpfs")
    (folder / "source").mkdir()
    for number in range(20):
        (folder / "source" / f"{number}").mkdir()
        for name in range(150):
            path = folder / "source" / f"{number}" / f"{name}"
            if number:
                os.link(folder / "source" / "0" / f"{name}", path)
            else:
                path.write_bytes(b"%d" % name * 100)

    with few_descriptors(60):
        copied = copy_tree(folder / "source", folder / "copy", threads=8)

    assert copied.bytes == sum(len(b"%d" % name) * 100 for name in range(150))
    assert_copied(folder / "source", folder / "copy")
    assert sorted(records(copied.raw)) == expected_records(folder / "source", folder / "copy")


def test_each_later_change_shows_in_the_list(backing: Backing, filesystem: str) -> None:
    folder = backing(filesystem)
    source, copy = folder / "source", folder / "copy"
    (source / "folder").mkdir(parents=True)
    for name in ("write", "mode", "owner", "xattr", "time", "link", "rename", "unlink", "kept"):
        (source / name).write_text(name)
    os.link(source / "unlink", source / "unlinked")
    known = records(copy_tree(source, copy).raw)
    deeds: dict[str, Callable[[Path], object]] = {
        "write": lambda path: path.write_text("W"),
        "mode": lambda path: path.chmod(0o644),
        "owner": lambda path: os.chown(path, 0, 0),
        "xattr": lambda path: os.setxattr(path, "user.x", b"1"),
        "time": lambda path: os.utime(path, ns=(1, path.stat().st_mtime_ns)),
        "link": lambda path: os.link(path, copy / "other"),
        "rename": lambda path: path.rename(copy / "renamed").rename(path),
        "unlink": lambda path: (copy / "unlinked").unlink(),
        "folder": lambda path: (path / "new").touch(),
    }
    for name, deed in deeds.items():
        deed(copy / name)

    times = {inode: changed for inode, _, changed in known}
    assert len(times) == len(known) == 11
    for name in deeds:
        facts = (copy / name).stat()
        assert times[facts.st_ino] != facts.st_ctime_ns, name
    facts = (copy / "kept").stat()
    assert times[facts.st_ino] == facts.st_ctime_ns


def test_no_list_where_times_are_whole_seconds(own_filesystem: Callable[..., Path]) -> None:
    folder = own_filesystem("ext4", size=16 << 20, mkfs=("-I", "128"))
    (folder / "source").mkdir()
    for number in range(20):
        (folder / "source" / f"{number}").touch()

    assert copy_tree(folder / "source", folder / "copy").raw == b""


def test_no_symlink_is_followed(backing: Backing) -> None:
    folder = backing("ext4")
    (folder / "outside").mkdir()
    (folder / "outside" / "secret").touch()
    (folder / "source").mkdir()
    (folder / "source" / "in").symlink_to(folder / "outside")
    (folder / "source" / "out").symlink_to("..")

    copied = copy_tree(folder / "source", folder / "copy")

    assert copied.files == 2
    assert_copied(folder / "source", folder / "copy")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_mount_in_the_source_is_refused(backing: Backing, mounted: Mounter, what: str) -> None:
    folder = backing("ext4")
    (folder / "source" / "folder").mkdir(parents=True)
    (folder / "source" / "file").touch()
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "file").touch()
    other = folder / "elsewhere" if what == "folder" else folder / "elsewhere" / "file"
    mounted([Mount("bind", str(other))], folder / "source" / what)

    with pytest.raises(KernelError) as caught:
        copy_tree(folder / "source", folder / "copy")

    assert caught.value.errno == errno.EBUSY
    assert caught.value.path == str(folder / "copy" / what)
    assert not (folder / "copy" / "folder" / "file").exists()


@pytest.mark.tools("btrfs")
def test_subvolume_within_is_a_folder(backing: Backing) -> None:
    folder = backing("btrfs")
    (folder / "source").mkdir()
    subprocess.run(["btrfs", "-q", "subvolume", "create", folder / "source" / "inner"], check=True)
    (folder / "source" / "inner" / "file").write_bytes(os.urandom(10_000))
    os.link(folder / "source" / "inner" / "file", folder / "source" / "inner" / "again")
    (folder / "source" / "file").write_text("x")
    os.link(folder / "source" / "file", folder / "source" / "link")

    copied = copy_tree(folder / "source", folder / "copy")

    assert_copied(folder / "source", folder / "copy")
    # Inode numbers of the subvolume are those of others outside.
    inner = (folder / "copy" / "inner" / "file").stat().st_ino
    assert inner not in [inode for inode, _, _ in records(copied.raw)]


def test_copy_into_itself_is_refused(backing: Backing) -> None:
    folder = backing("ext4")
    (folder / "inner").mkdir()
    with pytest.raises(KernelError) as caught:
        copy_tree(folder, folder / "inner" / "copy")
    assert caught.value.errno == errno.ELOOP


def test_target_that_exists_is_refused(backing: Backing) -> None:
    folder = backing("ext4")
    (folder / "source").mkdir()
    (folder / "copy").mkdir()
    with pytest.raises(KernelError) as caught:
        copy_tree(folder / "source", folder / "copy")
    assert caught.value.errno == errno.EEXIST


def test_source_that_is_missing(backing: Backing) -> None:
    folder = backing("ext4")
    with pytest.raises(KernelError) as caught:
        copy_tree(folder / "source", folder / "copy")
    assert caught.value.errno == errno.ENOENT
    assert os.listdir(folder) == []


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_full_filesystem(own_filesystem: Callable[..., Path], kind: str) -> None:
    folder = own_filesystem(kind, size=14 << 20)
    for number in range(20):
        (folder / "source" / f"{number}").mkdir(parents=True)
        (folder / "source" / f"{number}" / "file").write_bytes(os.urandom(400_000))
    descriptors = len(os.listdir("/proc/self/fd"))

    with pytest.raises(KernelError) as caught:
        copy_tree(folder / "source", folder / "copy", threads=4, share=False)

    assert caught.value.errno == errno.ENOSPC
    assert caught.value.path is not None
    assert caught.value.path.startswith(str(folder / "copy"))
    assert len(os.listdir("/proc/self/fd")) == descriptors
    remove_tree(folder / "copy")
    assert sorted(os.listdir(folder)) in (["source"], ["lost+found", "source"])


def test_no_inode_left(own_filesystem: Callable[..., Path]) -> None:
    folder = own_filesystem("ext4", size=16 << 20, mkfs=("-N", "64"))
    (folder / "source").mkdir()
    for number in range(40):
        (folder / "source" / f"{number}").touch()
    with pytest.raises(KernelError) as caught:
        copy_tree(folder / "source", folder / "copy")
    assert caught.value.errno == errno.ENOSPC


def test_tree_that_is_in_use(backing: Backing) -> None:
    """What vanishes is left out; a folder that becomes a symlink leads nowhere."""
    folder = backing("tmpfs")
    source = folder / "source"
    (folder / "outside").mkdir()
    (folder / "outside" / "secret").touch()
    for number in range(20):
        (source / f"{number}").mkdir(parents=True)
    over = threading.Event()

    def point_outside(path: Path) -> None:
        path.symlink_to(folder / "outside")

    def work() -> None:
        dice = random.Random(1)
        while not over.is_set():
            path = source / str(dice.randrange(20)) / str(dice.randrange(20))
            deed = dice.choice((Path.touch, Path.unlink, Path.mkdir, Path.rmdir, point_outside))
            try:
                deed(path)
            except OSError:
                pass

    worker = threading.Thread(target=work)
    worker.start()
    outcomes = set()
    try:
        for number in range(15):
            try:
                copy_tree(source, folder / f"copy{number}")
                outcomes.add(0)
            except KernelError as error:
                outcomes.add(error.errno)
            assert not [name for name in below(os.fsencode(folder / f"copy{number}")) if name.endswith(b"secret")]
            remove_tree(folder / f"copy{number}")
    finally:
        over.set()
        worker.join()
    assert 0 in outcomes
    assert outcomes <= {0, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EBUSY, errno.EINVAL}


def test_reading_leaves_no_trace_in_the_source(own_filesystem: Callable[..., Path]) -> None:
    folder = own_filesystem("ext4", size=16 << 20, options="strictatime")
    (folder / "source" / "inner").mkdir(parents=True)
    (folder / "source" / "file").write_text("x" * 5000)
    (folder / "source" / "inner" / "file").write_text("x")
    paths = [folder / "source" / name for name in ("inner", "file", "inner/file")]
    before = [path.stat().st_atime_ns for path in paths]

    copy_tree(folder / "source", folder / "copy")

    assert [path.stat().st_atime_ns for path in paths] == before
