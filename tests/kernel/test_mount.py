"""Mounting: recipes become trees, and what fails leaves nothing and says why."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from kernel.stacks import Stack, as_nobody, in_child, make_stack
from layerstore.errors import KernelError
from layerstore.kernel._shim import lib
from layerstore.kernel.mounts import Mount, attach, detached, mount_id, mounting, mounts_below, unmount
from layerstore.testing.filesystems import enter_private_namespace

pytestmark = pytest.mark.root

Mounter = Callable[[list[Mount], Path], int]
Backing = Callable[[str], Path]


def line_of(mountpoint: Path) -> str:
    with open("/proc/self/mountinfo") as table:
        return next(line for line in table if line.split()[4] == str(mountpoint))


def test_the_topmost_layer_is_seen_and_the_upper_is_written(stack: Stack, interface: str, mounted: Mounter) -> None:
    mounted(stack.writable(), stack.merged)

    (stack.merged / "new").write_text("hello")

    assert (stack.merged / "same").read_text() == "0"
    assert sorted(os.listdir(stack.merged)) == ["0", "1", "2", "new", "same"]
    assert (stack.upper / "new").read_text() == "hello"


def test_the_mount_is_known_by_its_id(stack: Stack, interface: str, mounted: Mounter) -> None:
    identity = mounted(stack.writable(), stack.merged)

    assert mount_id(stack.merged) == identity
    unmount(stack.merged)
    assert mount_id(stack.merged) is None
    assert mounted(stack.writable(), stack.merged) != identity


def test_a_read_only_stack_refuses_writing(stack: Stack, interface: str, mounted: Mounter) -> None:
    mounted(stack.read_only(), stack.merged)

    with pytest.raises(OSError, match="Read-only") as caught:
        (stack.merged / "new").touch()
    assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_500_layers_are_mounted(backing: Backing, interface: str, mounted: Mounter, kind: str) -> None:
    stack = make_stack(backing(kind), 500)

    mounted(stack.writable(), stack.merged)

    assert len(os.listdir(stack.merged)) == 501


def test_501_layers_are_refused_in_words(backing: Backing, interface: str) -> None:
    stack = make_stack(backing("tmpfs"), 501)

    with pytest.raises(KernelError, match="too many lower directories: 501, and the limit is 500") as caught:
        attach(stack.writable(), stack.merged)

    assert caught.value.errno == errno.EINVAL
    assert "Flatten the image" in str(caught.value)
    assert mount_id(stack.merged) is None


def test_names_of_any_length_and_with_any_character(backing: Backing, interface: str, mounted: Mounter) -> None:
    deep = backing("ext4") / "a:b,c\\d e" / ("x" * 200) / ("y" * 200)
    deep.mkdir(parents=True)
    stack = make_stack(deep, 100)

    mounted(stack.writable(), stack.merged)

    assert len(os.listdir(stack.merged)) == 101
    assert mounts_below(deep) == [(mount_id(stack.merged), stack.merged)]


def test_the_mount_table_shows_the_real_names(stack: Stack, interface: str, mounted: Mounter) -> None:
    mounted(stack.writable(), stack.merged)

    line = line_of(stack.merged)

    assert f"upperdir={stack.upper}" in line
    assert str(stack.lowers[2]) in line


def test_the_current_directory_of_the_process_stays(backing: Backing, mounted: Mounter, interface: str) -> None:
    stack = make_stack(backing("tmpfs"), 300)
    before = os.getcwd()

    mounted(stack.writable(), stack.merged)

    assert os.getcwd() == before


def test_attributes_of_the_mount_are_no_options_of_the_filesystem(
    stack: Stack, interface: str, mounted: Mounter
) -> None:
    mounted(stack.writable(("noatime", None), ("nodev", None), ("nosuid", None)), stack.merged)

    assert {"rw", "noatime", "nodev", "nosuid"} <= set(line_of(stack.merged).split()[5].split(","))


def test_a_bind_shows_a_directory_again(stack: Stack, interface: str, mounted: Mounter) -> None:
    mounted([Mount("bind", str(stack.lowers[1]), (("noatime", None),))], stack.merged)

    (stack.merged / "new").touch()

    assert (stack.lowers[1] / "new").exists()
    assert {"rw", "noatime"} <= set(line_of(stack.merged).split()[5].split(","))


def test_a_read_only_bind_refuses_writing_and_leaves_the_source_writable(
    stack: Stack, interface: str, mounted: Mounter
) -> None:
    mounted([Mount("bind", str(stack.lowers[1]), read_only=True)], stack.merged)

    with pytest.raises(OSError, match="Read-only"):
        (stack.merged / "new").touch()
    (stack.lowers[1] / "new").touch()


@pytest.mark.parametrize("options", [(), (("noatime", None),)], ids=["plain", "noatime"])
def test_what_is_mounted_in_a_bind_is_not_seen_at_its_source(
    stack: Stack, interface: str, options: tuple[tuple[str, None], ...]
) -> None:
    """Even where mounts are shared, as systemd has them: a layer must not get the mounts of its container."""
    recipe = [Mount("bind", str(stack.lowers[1]), options)]
    for name in ("in container", "in layer"):
        (stack.lowers[1] / name).mkdir()

    def action() -> object:
        enter_private_namespace()
        subprocess.run(["mount", "--make-rshared", "/"], check=True)
        attach(recipe, stack.merged)
        with detached(recipe) as tree:
            for place in (stack.merged / "in container", stack.lowers[1] / "in layer"):
                subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
            apart = os.stat("in layer", dir_fd=tree).st_dev == stack.folder.stat().st_dev
        below = [str(path.relative_to(stack.folder)) for _, path in mounts_below(stack.folder)]
        return sorted(below), apart

    expected = ["lower1/in layer", "merged", "merged/in container"]
    assert in_child(action) == str((expected, True))


def test_a_recipe_of_several_mounts_stands_on_the_first_ones(stack: Stack, interface: str, mounted: Mounter) -> None:
    below = stack.folder / "below"
    below.mkdir()
    bind = Mount("bind", str(stack.lowers[2]), target=str(below))
    overlay = Mount("overlay", "overlay", (("lowerdir+", str(below)), ("lowerdir+", str(stack.lowers[0]))), True)

    mounted([bind, overlay], stack.merged)

    assert sorted(os.listdir(stack.merged)) == ["0", "2", "same"]
    assert [place for _, place in mounts_below(stack.folder)] == [stack.merged]
    unmount(stack.merged)
    assert mounts_below(stack.folder) == []


def is_free(device: str) -> bool:
    """Is it mounted nowhere? The kernel lets go of a mount a moment after its last descriptor is closed."""
    deadline = time.monotonic() + 30
    while True:
        try:
            os.close(os.open(device, os.O_RDWR | os.O_EXCL))
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


@pytest.mark.parametrize("kind", ["bind", "overlay"])
def test_the_mounts_below_live_as_long_as_the_one_above(stack: Stack, interface: str, kind: str) -> None:
    """And no longer: the lowest is of a device, which nobody else gets as long as it is mounted anywhere."""
    places = [stack.folder / "first", stack.folder / "second"]
    for place in places:
        place.mkdir()
    image = stack.folder / "image"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    device = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        lowest = Mount("ext4", device, read_only=True, target=str(places[0]))
        middle = Mount("bind", str(places[0]), target=str(places[1]), read_only=True)
        overlay = (("lowerdir+", str(places[1])), ("lowerdir+", str(stack.lowers[0])))
        bind = Mount("bind", str(places[1]), read_only=True)
        recipe = [lowest, middle, bind if kind == "bind" else Mount("overlay", "overlay", overlay, True)]
        attach(recipe, stack.merged)
        assert [place for _, place in mounts_below(stack.folder)] == [stack.merged]
        assert "lost+found" in os.listdir(stack.merged)
        unmount(stack.merged)
        with detached(recipe) as tree:
            assert mounts_below(stack.folder) == []
            assert "lost+found" in os.listdir(tree)
        assert is_free(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_process_that_dies_leaves_none_of_several_mounts(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    below = stack.folder / "below"
    below.mkdir()
    bind = Mount("bind", str(stack.lowers[2]), target=str(below))
    overlay = Mount("overlay", "overlay", (("lowerdir+", str(below)), ("lowerdir+", str(stack.lowers[0]))), True)

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    real = mounting._new_tree
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(mounting, "_new_tree", lambda mount: die() if mount is overlay else real(mount))
            attach([bind, overlay], stack.merged)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert mounts_below(stack.folder) == []


def test_a_failure_undoes_the_mounts_before_it(stack: Stack, interface: str) -> None:
    below = stack.folder / "below"
    below.mkdir()
    bind = Mount("bind", str(stack.lowers[2]), target=str(below))
    broken = Mount("overlay", "overlay", (("lowerdir+", str(below)), ("nonsense", "1")), True)

    with pytest.raises(KernelError):
        attach([bind, broken], stack.merged)

    assert mount_id(below) is None
    assert mount_id(stack.merged) is None


# ---- detached


def test_a_detached_tree_is_nowhere_to_be_seen(stack: Stack, interface: str) -> None:
    with open("/proc/self/mountinfo") as table:
        before = table.read()

    with detached(stack.writable()) as tree:
        assert sorted(os.listdir(tree)) == ["0", "1", "2", "same"]
        os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=tree))
        with open("/proc/self/mountinfo") as table:
            assert table.read() == before

    assert (stack.upper / "new").exists()


def test_a_detached_tree_gives_everything_back(stack: Stack, interface: str) -> None:
    before = os.listdir("/proc/self/fd")

    with detached(stack.writable()):
        pass

    assert os.listdir("/proc/self/fd") == before
    # Nothing holds the upper any longer: with index=on overlay would refuse a second mount of it.
    with detached(stack.writable(("index", "on"))):
        pass


def test_a_detached_read_only_tree_refuses_writing(stack: Stack, interface: str) -> None:
    with detached(stack.read_only()) as tree, pytest.raises(OSError, match="Read-only"):
        os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=tree)


def test_a_detached_tree_dies_with_its_process(stack: Stack) -> None:
    child = os.fork()
    if child == 0:
        held = detached(stack.writable(("index", "on")))
        held.__enter__()
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)

    with detached(stack.writable(("index", "on"))) as tree:
        assert "same" in os.listdir(tree)


# ---- refusals


def test_a_missing_directory_is_named(stack: Stack, interface: str) -> None:
    shutil.rmtree(stack.lowers[1])

    with pytest.raises(KernelError, match=f"{stack.lowers[1]}: No such file") as caught:
        attach(stack.writable(), stack.merged)

    assert (caught.value.errno, caught.value.path) == (errno.ENOENT, str(stack.lowers[1]))


def test_a_missing_mountpoint_is_named(stack: Stack, interface: str) -> None:
    stack.merged.rmdir()

    with pytest.raises(KernelError, match=f"{stack.merged}: No such file"):
        attach(stack.writable(), stack.merged)


def test_overlays_own_words_are_passed_on(stack: Stack) -> None:
    with pytest.raises(KernelError, match="Unknown parameter 'nonsense'"):
        attach(stack.writable(("nonsense", "1")), stack.merged)
    with pytest.raises(KernelError, match="Bad value for 'metacopy'"):
        attach(stack.writable(("metacopy", "perhaps")), stack.merged)
    assert mounting._by_descriptor


def test_what_overlay_refuses_without_words_is_explained(stack: Stack, backing: Backing, interface: str) -> None:
    lowers = (("lowerdir+", str(stack.lowers[0])),)
    upper = ("upperdir", str(stack.upper))
    elsewhere = backing("xfs")
    inside = stack.upper / "work"
    inside.mkdir()

    def refusal(*options: tuple[str, str | None]) -> str:
        with pytest.raises(KernelError) as caught:
            attach([Mount("overlay", "overlay", (*lowers, *options))], stack.merged)
        assert mount_id(stack.merged) is None
        return str(caught.value)

    assert "an upper directory needs a work directory" in refusal(upper)
    assert "is on another filesystem than the upper" in refusal(upper, ("workdir", str(elsewhere)))
    assert "must lie beside each other" in refusal(upper, ("workdir", str(inside)))
    work = ("workdir", str(stack.work))
    assert "exclude each other" in refusal(upper, work, ("userxattr", None), ("metacopy", "on"))
    assert "takes two, or an upper" in refusal()


def test_the_same_directory_twice_is_explained(stack: Stack, interface: str) -> None:
    twice = Stack(stack.folder, (stack.lowers[0], stack.lowers[0]))

    with pytest.raises(KernelError, match="one directory is there twice") as caught:
        attach(twice.writable(), stack.merged)

    assert caught.value.errno == errno.ELOOP


def test_an_upper_of_another_stack_is_explained(stack: Stack, interface: str, mounted: Mounter) -> None:
    index = ("index", "on")
    mounted(stack.writable(index), stack.merged)
    other = stack.folder / "other"
    other.mkdir()

    with pytest.raises(KernelError, match="belongs to another mount") as caught:
        attach(stack.writable(index), other)
    assert caught.value.errno == errno.EBUSY

    unmount(stack.merged)
    with pytest.raises(KernelError, match="index=on") as caught:
        attach(Stack(stack.folder, stack.lowers[1:]).writable(index), stack.merged)
    assert caught.value.errno == errno.ESTALE


def test_an_unclean_volatile_mount_is_explained(stack: Stack, interface: str, mounted: Mounter) -> None:
    mounted(stack.writable(("volatile", None)), stack.merged)
    unmount(stack.merged)

    with pytest.raises(KernelError, match="was mounted volatile and did not end well"):
        attach(stack.writable(), stack.merged)


def test_an_unknown_filesystem_is_named(stack: Stack, interface: str) -> None:
    with pytest.raises(KernelError, match="the kernel has no layerfs") as caught:
        attach([Mount("layerfs", "none")], stack.merged)

    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize("kind", ["bind", "overlay"])
def test_an_ordinary_user_is_told_that_it_takes_root(stack: Stack, interface: str, kind: str) -> None:
    recipe = [Mount("overlay", "overlay", (("lowerdir+", "lower0"), ("lowerdir+", "lower1")), read_only=True)]
    if kind == "bind":
        recipe = [Mount("bind", "lower0")]

    answer = as_nobody(lambda: attach(recipe, Path("merged")), within=stack.folder)

    assert answer.startswith("KernelError")
    assert "Mounting needs root (CAP_SYS_ADMIN)" in answer


# ---- mounts that would be read-only


def fill(folder: Path) -> None:
    """Use up every block and byte that root can have."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        block = bytes(1 << 20)
        while block:
            try:
                filler.write(block)
            except OSError:
                block = block[: len(block) // 2]
    for number in range(10_000):
        try:
            (folder / f"filler{number}").write_bytes(bytes(512))
            (folder / f"folder{number}").mkdir()
        except OSError:
            return


def test_a_full_filesystem_is_an_error_and_not_a_read_only_mount(
    own_filesystem: Callable[..., Path], interface: str
) -> None:
    folder = own_filesystem("ext4", size=16 << 20)
    stack = make_stack(folder, 2)
    fill(folder)

    with pytest.raises(KernelError, match=r"would be read-only.*No space left on device.*no space is left") as caught:
        attach(stack.writable(), stack.merged)

    assert caught.value.errno == errno.EROFS
    assert mount_id(stack.merged) is None
    with pytest.raises(KernelError, match="would be read-only"), detached(stack.writable()):
        pass


def test_no_inode_left_is_named(own_filesystem: Callable[..., Path], interface: str) -> None:
    folder = own_filesystem("ext4", size=16 << 20, mkfs=("-N", "64"))
    stack = make_stack(folder, 2)
    with suppress(OSError):
        for number in range(100):
            (folder / f"filler{number}").touch()

    with pytest.raises(KernelError, match="no inode is left"):
        attach(stack.writable(), stack.merged)


@pytest.mark.tools("btrfs")
def test_a_quota_that_is_used_up_is_named(own_filesystem: Callable[..., Path], interface: str) -> None:
    folder = own_filesystem("btrfs")
    subprocess.run(["btrfs", "-q", "quota", "enable", folder], check=True)
    subprocess.run(["btrfs", "-q", "subvolume", "create", folder / "limited"], check=True, stdout=subprocess.DEVNULL)
    stack = make_stack(folder / "limited", 2)
    subprocess.run(["btrfs", "-q", "qgroup", "limit", "1M", folder / "limited"], check=True)
    with suppress(OSError), (folder / "limited" / "filler").open("wb", buffering=0) as filler:
        for _ in range(64):
            filler.write(os.urandom(1 << 16))
            os.fsync(filler)

    with pytest.raises(KernelError, match=r"would be read-only.*quota") as caught:
        attach(stack.writable(), stack.merged)

    assert "raise the limit" in str(caught.value)


def test_an_overlay_without_upper_cannot_be_asked_to_be_writable(stack: Stack, interface: str) -> None:
    [recipe] = stack.read_only()

    with pytest.raises(KernelError, match="has no upper directory") as caught:
        attach([Mount(recipe.type, recipe.source, recipe.options)], stack.merged)

    assert caught.value.errno == errno.EROFS
    assert mount_id(stack.merged) is None


# ---- what kernels differ in


def test_a_kernel_that_takes_no_descriptors_gets_names(
    stack: Stack, mounted: Mounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux 6.1 to 6.12 know fsopen, and refuse `lowerdir+` by descriptor with one of these words."""
    for words in (
        "overlay: Unknown parameter 'lowerdir+'",
        "VFS: Legacy: Parameter type for 'lowerdir+' not supported",
        "overlay: Bad value for 'lowerdir+'",
    ):
        monkeypatch.setattr(mounting, "_by_descriptor", True)
        monkeypatch.setattr(mounting, "lib", OldOverlay(lib))
        monkeypatch.setattr(mounting, "words_of", lambda context, words=words: words)
        mounted(stack.writable(), stack.merged)
        assert (stack.merged / "same").read_text() == "0"
        assert not mounting._by_descriptor
        unmount(stack.merged)


class OldOverlay:
    """The shim on a kernel whose overlay takes no directory by descriptor."""

    def __init__(self, lib: object) -> None:
        self._lib = lib

    def __getattr__(self, name: str) -> object:
        if name == "ls_fsconfig_folder":
            return lambda *_: -errno.EINVAL
        return getattr(self._lib, name)


def test_importing_mounts_loads_little() -> None:
    code = "import sys; import layerstore.kernel.mounts; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "layerstore.kernel.mounts.refusals" not in loaded
    assert not {"tempfile", "subprocess", "difflib"} & set(loaded)


@pytest.mark.parametrize("room", range(8))
def test_a_lack_of_descriptors_is_an_error_like_others(stack: Stack, interface: str, room: int) -> None:
    """At whichever call it happens: nothing stays mounted, nothing stays open."""
    before = os.listdir("/proc/self/fd")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, before)) + room, limits[1]))
    try:
        with suppress(KernelError):
            attach(stack.writable(), stack.merged)
            unmount(stack.merged)
        with suppress(KernelError), detached(stack.writable()):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert os.listdir("/proc/self/fd") == before
    assert mount_id(stack.merged) is None
