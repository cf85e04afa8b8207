"""What is mounted where, who holds it, and undoing it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel.stacks import Stack, as_nobody
from layerstore.errors import KernelError
from layerstore.kernel.mounts import Mount, boot_id, mount_id, mount_namespace, mounts_below, namespace_holds, unmount
from layerstore.kernel.mounts import table as mounttable

pytestmark = pytest.mark.root

Mounter = Callable[[list[Mount], Path], int]

STRANGE = "a space, a\ttab, a\nnewline and a back\\slash"


@contextmanager
def process(code: str, *arguments: object, prefix: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A Python process that says `ready` and then waits to be ended."""
    code += "\nprint('ready', flush=True)\ninput()"
    command = [*prefix, sys.executable, "-c", code, *map(str, arguments)]
    # Not under a sanitizer: it wants /proc at the end, which is not there in every root.
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=plain) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
        started.communicate("\n")


@pytest.fixture(params=["listmount", "mountinfo"])
def table(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to read the table: the second is that of kernels before 6.8."""
    if request.param == "mountinfo":
        monkeypatch.setattr(mounttable, "_listed", lambda under: None)
    return str(request.param)


def test_mounts_below_a_folder_are_listed_in_order(stack: Stack, table: str, mounted: Mounter) -> None:
    places = [stack.folder / name for name in ("b", "a", "c")]
    ids = []
    for place in places:
        place.mkdir()
        ids.append(mounted(stack.read_only(), place))
    inner = places[0] / "0"
    mounted([Mount("bind", str(stack.lowers[0]))], stack.merged)

    found = mounts_below(stack.folder)

    assert found == [*zip(ids, places, strict=True), (mount_id(stack.merged), stack.merged)]
    assert mounts_below(inner.parent) == []
    assert mounts_below(stack.folder / "missing") == []


def test_a_mountpoint_may_have_any_name(stack: Stack, table: str, mounted: Mounter) -> None:
    place = stack.folder / os.fsdecode(b"\xff" + STRANGE.encode())
    place.mkdir()
    identity = mounted(stack.read_only(), place)

    assert mounts_below(stack.folder) == [(identity, place)]


def test_a_folder_whose_name_begins_alike_is_not_below(stack: Stack, table: str, mounted: Mounter) -> None:
    other = stack.folder / "merged2"
    other.mkdir()
    mounted(stack.read_only(), other)

    assert mounts_below(stack.merged) == []


def test_hundreds_of_mounts_are_all_found(stack: Stack, table: str, mounted: Mounter) -> None:
    count = 600
    for number in range(count):
        place = stack.folder / f"place{number}"
        place.mkdir()
        mounted([Mount("bind", str(stack.lowers[0]))], place)

    assert len(mounts_below(stack.folder)) == count


def test_only_the_root_of_a_mount_has_its_id(stack: Stack, mounted: Mounter) -> None:
    identity = mounted(stack.writable(), stack.merged)
    (stack.merged / "folder").mkdir()
    os.symlink(stack.merged, stack.folder / "link")

    assert mount_id(stack.merged) == mount_id(str(stack.merged)) == identity
    assert mount_id(stack.merged / "folder") is None
    assert mount_id(stack.folder / "link") is None
    assert mount_id(stack.folder / "missing") is None


def test_the_boot_and_the_namespace_have_names() -> None:
    assert len(boot_id()) == 36
    assert mount_namespace() == os.stat(f"/proc/{os.getpid()}/ns/mnt").st_ino


# ---- unmounting


def test_what_is_not_mounted_cannot_be_unmounted(stack: Stack) -> None:
    with pytest.raises(KernelError, match="nothing is mounted there") as caught:
        unmount(stack.merged)
    assert caught.value.errno == errno.EINVAL

    with pytest.raises(KernelError, match="No such file"):
        unmount(stack.folder / "missing")


def test_unmounting_follows_no_symlink(stack: Stack, mounted: Mounter) -> None:
    mounted(stack.read_only(), stack.merged)
    link = stack.folder / "link"
    link.symlink_to(stack.merged)

    with pytest.raises(KernelError):
        unmount(link)

    assert mount_id(stack.merged) is not None


HOLDS = {
    "a file": "import sys; file = open(sys.argv[1] + '/same')",
    "the current directory": "import os, sys; os.chdir(sys.argv[1])",
    "the root directory": "import os, sys; os.chroot(sys.argv[1])",
    "a mapping": "import mmap, os, sys; fd = os.open(sys.argv[1] + '/same', os.O_RDONLY);"
    "kept = mmap.mmap(fd, 0, prot=mmap.PROT_READ); os.close(fd)",
}


@pytest.mark.parametrize("what", HOLDS)
def test_a_busy_mount_names_who_holds_it(stack: Stack, mounted: Mounter, what: str) -> None:
    mounted(stack.writable(), stack.merged)

    with process(HOLDS[what], stack.merged) as holder:
        with pytest.raises(KernelError, match=rf"held by python.* \(pid {holder.pid}\)") as caught:
            unmount(stack.merged)
        assert caught.value.errno == errno.EBUSY
        assert str(stack.merged) in str(caught.value)

    unmount(stack.merged)


@pytest.mark.tools("unshare")
def test_a_holder_in_another_mount_namespace_is_named(stack: Stack, mounted: Mounter) -> None:
    mounted(stack.writable(), stack.merged)
    apart = ("unshare", "--mount", "--propagation", "private")

    with process(HOLDS["the current directory"], stack.merged, prefix=apart):
        from layerstore.kernel.mounts import refusals

        assert any(name.startswith("python") for name in refusals.holders(stack.merged))


def test_a_mount_that_others_stand_on_names_them(stack: Stack, mounted: Mounter) -> None:
    (stack.lowers[0] / "folder").mkdir()
    mounted(stack.writable(), stack.merged)
    mounted([Mount("bind", str(stack.lowers[1]))], stack.merged / "folder")

    with pytest.raises(KernelError, match=f"mounts stand on it: {stack.merged}/folder"):
        unmount(stack.merged)


def test_a_lazy_unmount_leaves_the_holders_what_they_hold(stack: Stack, mounted: Mounter) -> None:
    mounted(stack.writable(), stack.merged)

    with (stack.merged / "same").open() as file:
        unmount(stack.merged, lazy=True)
        assert file.read() == "0"

    assert mount_id(stack.merged) is None


def test_an_ordinary_user_cannot_unmount_and_is_told(stack: Stack, mounted: Mounter) -> None:
    mounted(stack.read_only(), stack.merged)

    assert "needs root" in as_nobody(lambda: unmount(Path("merged")), within=stack.folder)


# ---- other namespaces


@pytest.mark.tools("unshare")
def test_a_mount_in_another_namespace_is_found(stack: Stack, mounted: Mounter) -> None:
    place = stack.folder / STRANGE
    place.mkdir()
    mounted(stack.writable(), place)
    apart = ("unshare", "--mount", "--propagation", "private")

    with process("import os, sys; print", prefix=apart) as other:
        namespace = os.stat(f"/proc/{other.pid}/ns/mnt").st_ino
        unmount(place)

        assert mount_id(place) is None
        assert namespace != mount_namespace()
        assert namespace_holds(namespace, place) == other.pid
        assert namespace_holds(namespace, stack.merged) is None
        assert namespace_holds(mount_namespace(), place) is None

    assert namespace_holds(namespace, place) is None
