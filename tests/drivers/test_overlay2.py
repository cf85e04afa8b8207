"""The overlay2 driver: layers, stacks, containers."""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

from drivers.conftest import Workbench, key, keys_of
from layerstore import plugins
from layerstore.driver import Layer, State, StorageDriver
from layerstore.errors import ConfigError, Damaged, DepthExceeded, DriverNotSupported, KernelError
from layerstore.kernel.mounts import attach, unmount
from layerstore_overlay2 import Overlay2, Settings

pytestmark = pytest.mark.root

Bench = Callable[..., Workbench]


def options_of(bench: Workbench, layer: Layer, parents: list[Layer], *, read_only: bool) -> dict[str, str | None]:
    [mount] = bench.driver.mounts(layer, parents, read_only=read_only)
    return dict(mount.options)


def test_the_driver_is_installed() -> None:
    assert "overlay2" in plugins.names()
    assert plugins.find("overlay2") is Overlay2
    assert issubclass(Overlay2, StorageDriver)


# ---- layers


def test_a_layer_is_made_in_staging_and_sealed_into_the_home(workbench: Bench) -> None:
    bench = workbench()
    staged = Layer(key(), State.STAGED)

    bench.create(staged)
    assert bench.tree(staged) == bench.driver.staging / staged.key / "diff"
    assert bench.keys() == []

    layer = bench.seal(staged)
    assert layer == Layer(staged.key)
    assert bench.tree(layer) == bench.driver.home / layer.key / "diff"
    assert bench.keys() == [layer.key]
    assert os.listdir(bench.driver.staging) == []


def test_the_root_of_a_staged_layer_is_plain(workbench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = workbench()
    previous = os.umask(0o077)
    try:
        layer = bench.layer()
    finally:
        os.umask(previous)

    assert stat.S_IMODE(bench.driver.tree(layer).stat().st_mode) == 0o755
    assert stat.S_IMODE(bench.driver.tree(layer).parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_nothing_in_a_layer_inherits_from_above_the_home(workbench: Bench, kind: str) -> None:
    bench = workbench(kind)
    everybody, user = 0xFFFFFFFF, 7
    entries = [(0x01, 7, everybody), (0x02, 7, user), (0x04, 5, everybody), (0x10, 7, everybody), (0x20, 5, everybody)]
    default = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    bench.driver.staging.chmod(0o2755)
    os.chown(bench.driver.staging, 0, 12)
    os.setxattr(bench.driver.staging, "system.posix_acl_default", default)

    bottom = bench.layer(file="x")
    for layer in (bottom, bench.container(), bench.container([bottom])):
        root = bench.driver.tree(layer)
        (root / "made").touch()
        (root / "folder").mkdir()
        for path in (root, root / "made", root / "folder"):
            assert not [name for name in os.listxattr(path) if "acl" in name.lower()]
            assert (path.stat().st_gid, path.stat().st_mode & stat.S_ISGID) == (0, 0)


def test_a_container_is_whole_in_the_home(workbench: Bench) -> None:
    bench = workbench()
    layer = bench.container()

    assert bench.keys() == [layer.key]
    assert os.listdir(bench.driver.staging) == []
    assert sorted(os.listdir(bench.driver.home / layer.key)) == ["diff", "merged", "work"]


def test_the_root_of_a_container_looks_as_that_of_its_parent(workbench: Bench, filesystem: str) -> None:
    bench = workbench(filesystem)
    bottom, top = bench.layer(), bench.layer()
    root = bench.driver.tree(top)
    os.setxattr(root, "security.thing", b"value")
    os.chown(root, 5, 6)
    root.chmod(0o1750)
    os.utime(root, ns=(1, 987_654_321_123_456_789))

    layer = bench.container([top, bottom])

    with bench.mount(layer, [top, bottom]) as tree:
        facts = tree.stat()
        assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (5, 6, 0o1750)
        assert facts.st_mtime_ns == 987_654_321_123_456_789
        assert os.getxattr(tree, "security.thing") == b"value"


def test_removal_moves_a_layer_into_staging(workbench: Bench) -> None:
    bench = workbench()
    layer = bench.layer(file="x")

    bench.driver.remove(layer)
    bench.driver.remove(layer)

    assert bench.keys() == []
    assert (bench.driver.staging / layer.key / "diff" / "file").exists()


def test_a_layer_that_could_not_be_made_leaves_nothing(workbench: Bench) -> None:
    bench = workbench()
    missing = Layer(key())

    with pytest.raises(KernelError, match=missing.key):
        bench.container([missing])

    assert os.listdir(bench.driver.staging) == []
    assert bench.keys() == []


def test_what_the_driver_keeps_for_itself_is_no_layer(workbench: Bench) -> None:
    bench = workbench(metacopy=True)
    layer = bench.container()
    Overlay2.probe(bench.driver.home, bench.driver.settings)

    assert bench.keys() == [layer.key]
    assert any(name.startswith(".") for name in os.listdir(bench.driver.home))


# ---- stacks


def test_the_topmost_layer_is_seen_first(workbench: Bench, filesystem: str) -> None:
    bench = workbench(filesystem)
    bottom, middle = bench.layer(same="0", bottom=""), bench.layer(same="1", middle="")
    top = bench.layer(same="2")

    with bench.look(top, [middle, bottom]) as tree:
        assert (tree / "same").read_text() == "2"
        assert sorted(os.listdir(tree)) == ["bottom", "middle", "same"]


def test_one_layer_alone_is_a_stack(workbench: Bench, filesystem: str) -> None:
    bench = workbench(filesystem)
    layer = bench.layer(file="x")

    with bench.look(layer) as tree:
        assert os.listdir(tree) == ["file"]
        with pytest.raises(OSError, match="Read-only"):
            (tree / "new").touch()


def test_a_staged_layer_can_be_looked_at(workbench: Bench) -> None:
    bench = workbench()
    bottom, middle, top = bench.layer(bottom=""), Layer(key(), State.STAGED), Layer(key(), State.STAGED)
    for layer in (middle, top):
        bench.create(layer)
        (bench.tree(layer) / layer.key).touch()

    # Its parents may be staged, too, or some of them.
    with bench.look(top, [middle, bottom]) as tree:
        assert sorted(os.listdir(tree)) == sorted(["bottom", middle.key, top.key])
    sealed = bench.seal(middle, [bottom])
    with bench.look(top, [sealed, bottom]) as tree:
        assert sorted(os.listdir(tree)) == sorted(["bottom", middle.key, top.key])


def test_whiteouts_of_a_lone_layer_are_not_seen_as_devices(workbench: Bench) -> None:
    bench = workbench()
    layer = bench.layer(file="x")
    os.mknod(bench.driver.tree(layer) / "gone", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(bench.driver.tree(layer), "trusted.overlay.origin", b"")

    with bench.look(layer) as tree:
        assert os.listdir(tree) == ["file"]


def test_a_container_without_an_image_can_be_filled(workbench: Bench, filesystem: str) -> None:
    bench = workbench(filesystem)
    layer = bench.container()

    with bench.mount(layer) as tree:
        assert os.listdir(tree) == []
        (tree / "file").write_text("x")

    assert (bench.driver.tree(layer) / "file").read_text() == "x"


def test_a_mounted_container_can_be_looked_at(workbench: Bench, filesystem: str) -> None:
    bench = workbench(filesystem)
    bottom = bench.layer(kept="", gone="")
    layer = bench.container([bottom])

    with bench.mount(layer, [bottom]) as tree:
        (tree / "gone").unlink()
        (tree / "new").touch()
        with bench.look(layer, [bottom]) as seen:
            assert sorted(os.listdir(seen)) == ["kept", "new"]


def test_500_layers_are_mounted_changed_and_looked_at(workbench: Bench) -> None:
    bench = workbench("tmpfs")
    parents = [bench.layer([], **{"same": str(number), f"f{number}": ""}) for number in range(500)]
    layer = bench.container(parents)

    with bench.mount(layer, parents) as tree:
        assert len(os.listdir(tree)) == 501
        (tree / "f499").unlink()
        (tree / "same").write_text("new")
        # Looking takes one place more, and may not disturb the mount that is there.
        with bench.look(layer, parents) as seen:
            assert len(os.listdir(seen)) == 500
            assert (seen / "same").read_text() == "new"
        (tree / "f498").unlink()

    assert [str(change) for change in bench.driver.changes(layer, parents)] == ["D /f498", "D /f499", "C /same"]
    with bench.look(parents[0], parents[1:]) as tree:
        assert len(os.listdir(tree)) == 501


def test_501_layers_are_refused_before_anything_is_made(workbench: Bench) -> None:
    bench = workbench("tmpfs")
    layer = bench.layer()

    with pytest.raises(DepthExceeded, match="cannot stack 501 layers: the limit is 500"):
        bench.container([layer] * 501)

    assert os.listdir(bench.driver.staging) == []
    assert bench.keys() == [layer.key]


def test_the_defaults_of_the_host_never_matter(workbench: Bench) -> None:
    bench = workbench()
    layer = bench.container()

    for read_only in (True, False):
        options = options_of(bench, layer, [], read_only=read_only)
        assert (options["index"], options["metacopy"], options["redirect_dir"]) == ("off", "off", "nofollow")


# ---- changes and sealing


def test_changes_are_those_of_the_container(workbench: Bench, filesystem: str) -> None:
    bench = workbench(filesystem)
    bottom = bench.layer(kept="1", edited="1", gone="1")
    layer = bench.container([bottom])
    with bench.mount(layer, [bottom]) as tree:
        (tree / "edited").write_text("2")
        (tree / "gone").unlink()
        (tree / "folder").mkdir()
        (tree / "folder" / "new").touch()
        mounted = bench.driver.changes(layer, [bottom])

    changes = bench.driver.changes(layer, [bottom])

    assert [str(change) for change in changes] == ["C /edited", "A /folder", "A /folder/new", "D /gone"]
    assert changes == mounted


def test_a_sealed_container_is_a_layer_and_is_still_a_container(workbench: Bench, filesystem: str) -> None:
    bench = workbench(filesystem)
    bottom = bench.layer(bottom="")
    layer = bench.container([bottom])
    with bench.mount(layer, [bottom]) as tree:
        (tree / "file").write_text("x")
        inode = (tree / "file").stat().st_ino

    sealed = bench.seal_only(layer, [bottom])

    assert sealed.key == layer.key
    assert os.listdir(bench.driver.home / layer.key / "work") == []
    assert (bench.driver.tree(layer) / "file").stat().st_ino == inode, "no byte is copied"
    above = bench.container([sealed, bottom])
    with bench.mount(above, [sealed, bottom]) as tree:
        assert sorted(os.listdir(tree)) == ["bottom", "file"]
    # Should the machine go down before the row is written, the container goes on.
    with bench.mount(layer, [bottom]) as tree:
        (tree / "more").touch()


# ---- metacopy and redirect_dir


def big(bench: Workbench) -> Layer:
    layer = bench.layer()
    with (bench.driver.tree(layer) / "big").open("wb") as file:
        file.write(os.urandom(8 << 20))
    (bench.driver.tree(layer) / "old").mkdir()
    (bench.driver.tree(layer) / "old" / "inner").write_text("inner")
    return layer


def test_metacopy_copies_no_data_for_a_chmod(workbench: Bench) -> None:
    bench = workbench(metacopy=True)
    bottom = big(bench)
    layer = bench.container([bottom])

    with bench.mount(layer, [bottom]) as tree:
        (tree / "big").chmod(0o600)

    assert (bench.driver.tree(layer) / "big").stat().st_blocks * 512 < 1 << 20
    assert [str(change) for change in bench.driver.changes(layer, [bottom])] == ["C /big"]


def test_redirect_dir_renames_folders_of_lower_layers(workbench: Bench) -> None:
    bottom = big(without := workbench())
    with (
        without.mount(plain := without.container([bottom]), [bottom]) as tree,
        pytest.raises(OSError, match="cross-dev"),
    ):
        (tree / "old").rename(tree / "new")
    without.driver.remove(plain)

    bench = workbench(folder=without.driver.home.parent, redirect_dir=True)
    layer = bench.container([bottom])
    with bench.mount(layer, [bottom]) as tree:
        (tree / "old").rename(tree / "new")
        assert (tree / "new" / "inner").read_text() == "inner"


@pytest.mark.parametrize("option", ["metacopy", "redirect_dir"])
def test_a_layer_written_with_it_is_never_read_without(workbench: Bench, option: str) -> None:
    written = workbench(**{option: True})
    bottom = big(written)
    middle = written.container([bottom])
    with written.mount(middle, [bottom]) as tree:
        if option == "metacopy":
            (tree / "big").chmod(0o600)
        else:
            (tree / "old").rename(tree / "new")
    content = (written.driver.tree(bottom) / "big").read_bytes()

    # Another process, with another configuration.
    plain = workbench(folder=written.driver.home.parent)
    assert (plain.driver.settings.metacopy, plain.driver.settings.redirect_dir) == (False, False)
    top = plain.layer([middle, bottom], top="")
    layer = plain.container([top, middle, bottom])

    def check(tree: Path) -> None:
        assert (tree / "big").read_bytes() == content
        assert (tree / ("new" if option == "redirect_dir" else "old") / "inner").read_text() == "inner"

    with plain.look(middle, [bottom]) as tree:
        check(tree)
    with plain.look(top, [middle, bottom]) as tree:
        check(tree)
    with plain.mount(layer, [top, middle, bottom]) as tree:
        check(tree)
        (tree / "big").chmod(0o640)
    third = workbench(folder=written.driver.home.parent)
    with third.look(layer, [top, middle, bottom]) as tree:
        check(tree)
    other = third.layer(other="")
    assert options_of(third, other, [], read_only=True)["metacopy"] == "off"


# ---- volatile


def test_a_volatile_container_can_be_mounted_again_in_the_same_boot(workbench: Bench) -> None:
    bench = workbench(volatile=True)
    layer = bench.container()

    for name in ("first", "second"):
        with bench.mount(layer) as tree:
            (tree / name).touch()
            with open("/proc/self/mounts") as table:
                assert any("volatile" in line for line in table if str(tree) in line)

    with bench.look(layer) as tree:
        assert sorted(os.listdir(tree)) == ["first", "second"]
    # Without the option, too.
    plain = workbench(folder=bench.driver.home.parent)
    with plain.mount(layer):
        pass


def test_a_volatile_container_is_not_used_after_a_crash_of_the_machine(
    workbench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = workbench(volatile=True)
    layer = bench.container()
    with bench.mount(layer):
        pass
    monkeypatch.setattr("layerstore_overlay2.boot_id", lambda: "another boot")

    with pytest.raises(Damaged, match="what it wrote may be incomplete") as caught:
        bench.driver.prepare(layer, [], read_only=False)
    assert caught.value.layer == layer.key
    with pytest.raises(Damaged):
        bench.driver.seal(layer, [])
    with bench.look(layer):
        pass


def test_a_volatile_container_can_be_sealed(workbench: Bench) -> None:
    bench = workbench(volatile=True)
    layer = bench.container()
    with bench.mount(layer) as tree:
        (tree / "file").touch()

    bench.driver.seal(layer, [])

    assert os.listdir(bench.driver.home / layer.key / "work") == []


def test_a_container_that_goes_with_its_program_is_mounted_volatile_and_others_are_not(workbench: Bench) -> None:
    bench = workbench()
    going, staying = bench.container(), bench.container()
    bench.driver.leave_unsynced(going)

    assert ("volatile", None) in bench.driver.mounts(going, [], read_only=False)[0].options
    assert ("volatile", None) not in bench.driver.mounts(going, [], read_only=True)[0].options
    assert ("volatile", None) not in bench.driver.mounts(staying, [], read_only=False)[0].options
    with bench.mount(going) as tree:
        (tree / "file").touch()

    # Another process, which was not told, mounts it in the same boot.
    with workbench(folder=bench.driver.home.parent).mount(going) as tree:
        assert os.listdir(tree) == ["file"]
        with open("/proc/self/mounts") as table:
            assert not any("volatile" in line for line in table if str(tree) in line)


# ---- size


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_a_size_is_refused_where_nothing_can_limit_it(workbench: Bench, kind: str) -> None:
    bench = workbench(kind)

    with pytest.raises(DriverNotSupported, match="size of a container cannot be limited") as caught:
        bench.container(size=1 << 20)

    assert os.listdir(bench.driver.staging) == []
    assert bench.keys() == []
    assert caught.value.remedy is not None
    assert ("prjquota" in caught.value.remedy) == (kind in ("ext4", "xfs"))


class CountedQuota:
    """Stands in for the kernel's quotas, which many kernels lack: what the driver asks for."""

    def __init__(self) -> None:
        self.limits: dict[int, int] = {}
        self.projects: dict[str, int] = {}

    def put(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the kernel's place."""
        for name in ("usage", "set_project", "project_of", "limit"):
            monkeypatch.setattr(f"layerstore.kernel.files.quota.{name}", getattr(self, name))
        monkeypatch.setattr("layerstore.kernel.files.quota.refusal", lambda folder: None)

    def usage(self, folder: Path, project: int) -> tuple[int, int]:
        return (0, self.limits.get(project, 0))

    def set_project(self, folder: Path, project: int) -> None:
        self.projects[folder.name] = project

    def project_of(self, folder: Path) -> int:
        return self.projects[folder.parent.name if folder.name == "diff" else folder.name]

    def limit(self, folder: Path, project: int, size: int) -> None:
        self.limits[project] = size


def test_each_container_gets_a_project_of_its_own(workbench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = CountedQuota()
    quota.put(monkeypatch)
    bench = workbench(size="1G")

    first, second, unlimited = bench.container(), bench.container(size=5 << 20), bench.layer()

    assert sorted(quota.limits.values()) == [5 << 20, 1 << 30]
    assert all(project >= 1 << 30 for project in quota.projects.values())
    assert sorted(quota.projects) == keys_of(first, second)
    # By a process that knows nothing yet.
    other = workbench(folder=bench.driver.home.parent)
    for layer in (first, unlimited):
        other.driver.remove(layer)
    assert sorted(quota.limits.values()) == [0, 5 << 20]

    def refuse(*_: object) -> None:
        raise KernelError("quotactl_fd", errno.ESRCH)

    monkeypatch.setattr("layerstore.kernel.files.quota.limit", refuse)
    other.driver.remove(second)
    assert other.keys() == []


@pytest.mark.parametrize("broken", ["layerstore_overlay2.files.copy_root_attributes", "pathlib.Path.rename"])
def test_the_limit_of_a_container_that_could_not_be_made_is_taken_back(
    workbench: Bench, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    quota = CountedQuota()
    quota.put(monkeypatch)
    bench = workbench(size="1G")
    bottom = bench.layer()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(broken, refuse)
        with pytest.raises(KernelError, match="No space left"):
            bench.container([bottom])

    assert set(quota.limits.values()) == {0}
    assert os.listdir(bench.driver.staging) == []
    assert bench.keys() == [bottom.key]


# ---- what inspect and info say


def test_inspect_shows_the_four_directories_in_dockers_words(workbench: Bench) -> None:
    bench = workbench()
    bottom, top = bench.layer(), bench.layer()
    home = bench.driver.home

    assert bench.driver.graph_data(top, [bottom]) == {
        "LowerDir": f"{home}/{bottom.key}/diff",
        "MergedDir": f"{home}/{top.key}/merged",
        "UpperDir": f"{home}/{top.key}/diff",
        "WorkDir": f"{home}/{top.key}/work",
    }
    assert "LowerDir" not in bench.driver.graph_data(bottom, [])
    layer = bench.container([top, bottom])
    assert (
        bench.driver.graph_data(layer, [top, bottom])["LowerDir"] == f"{home}/{top.key}/diff:{home}/{bottom.key}/diff"
    )


def test_usage_counts_what_the_layer_has_itself(workbench: Bench) -> None:
    bench = workbench()
    bottom = big(bench)

    usage = bench.driver.usage(bottom, [])

    assert 8 << 20 <= usage.size < 9 << 20
    assert usage.inodes == 3


# ---- probing


@pytest.mark.parametrize(
    ("kind", "copy_up"), [("ext4", "full"), ("xfs", "reflink"), ("btrfs", "reflink"), ("tmpfs", "full")]
)
def test_a_probe_says_what_works_in_dockers_words(backing: Callable[[str], Path], kind: str, copy_up: str) -> None:
    folder = backing(kind)

    found = Overlay2.probe(folder / "overlay2", Settings(metacopy=True))

    assert dict(found.notes) == {
        "Backing Filesystem": {"ext4": "extfs"}.get(kind, kind),
        "Supports d_type": "true",
        "Using metacopy": "true",
        "Native Overlay Diff": "true",
        "userxattr": "false",
        "Copy-up": copy_up,
        "Max depth": "500",
    }
    assert (found.filesystem, found.copy_on_write.value) == (kind, "block" if copy_up == "reflink" else "file")
    assert not found.quota
    assert os.listdir(folder) == [], "it leaves nothing"


def test_a_home_in_use_keeps_the_answer_for_this_boot(workbench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = workbench()
    first = Overlay2.probe(bench.driver.home, Settings())
    asked = []
    monkeypatch.setattr("layerstore_overlay2.probing._try_overlay", lambda *arguments: asked.append(arguments))

    assert Overlay2.probe(bench.driver.home, Settings()) == first
    assert not asked
    Overlay2.probe(bench.driver.home, Settings(redirect_dir=True))
    monkeypatch.setattr("layerstore_overlay2.probing.boot_id", lambda: "another boot")
    Overlay2.probe(bench.driver.home, Settings(redirect_dir=True))
    assert len(asked) == 2

    (bench.driver.home / ".backing").write_text("nonsense")
    Overlay2.probe(bench.driver.home, Settings())
    assert len(asked) == 3


def test_an_overlay_cannot_hold_a_home(workbench: Bench) -> None:
    bench = workbench()
    layer = bench.container()

    with (
        bench.mount(layer) as tree,
        pytest.raises(DriverNotSupported, match="overlay cannot write to overlayfs") as caught,
    ):
        Overlay2.probe(tree / "home", Settings())

    assert "ext4, xfs, btrfs" in str(caught.value)


def test_a_filesystem_without_types_is_refused(own_filesystem: Callable[..., Path]) -> None:
    folder = own_filesystem("ext4", mkfs=("-O", "^filetype"))

    with pytest.raises(DriverNotSupported):
        Overlay2.probe(folder / "home", Settings())
    assert os.listdir(folder) == ["lost+found"]


def test_a_size_is_part_of_the_probe(backing: Callable[[str], Path]) -> None:
    with pytest.raises(DriverNotSupported, match=r"overlay2\.size: .*quota") as caught:
        Overlay2.probe(backing("ext4"), Settings(size="1G"))

    assert "mkfs.ext4 -O quota,project" in str(caught.value)


def test_an_ordinary_user_is_told_that_it_takes_root(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from layerstore_overlay2 import Overlay2, Settings\n"
        "import layerstore.kernel.files.quota, tempfile, xattr\n"
        "os.chdir(sys.argv[1]); os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)\n"
        "from layerstore.errors import DriverNotSupported\n"
        "try: Overlay2.probe(pathlib.Path(), Settings())\n"
        "except DriverNotSupported as error: print(error)\n"
    )
    for mode in (0o755, 0o777):
        tmp_path.chmod(mode)
        done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "needs root (CAP_SYS_ADMIN)" in done.stdout


# ---- options


def test_more_options_for_the_mount(workbench: Bench) -> None:
    bench = workbench(mountopt="nodev,noatime")
    layer = bench.container()

    with bench.mount(layer) as tree, open("/proc/self/mountinfo") as table:
        options = next(line.split()[5] for line in table if line.split()[4] == str(tree))
    assert {"nodev", "noatime"} <= set(options.split(","))


@pytest.mark.parametrize("text", ["metacopy=on", "nodev,lowerdir=/etc", "volatile"])
def test_options_that_are_the_drivers_own_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="which the driver sets itself"):
        Settings(mountopt=text)


def test_labels_may_have_commas() -> None:
    label = "system_u:object_r:container_file_t:s0:c1,c2"

    assert Settings(mountopt=f'nodev, context="{label}"').mountopt == (("nodev", None), ("context", label))


def test_options_come_from_daemon_json() -> None:
    from layerstore.config import Config, driver_options

    opts = ("overlay2.size=10G", "overlay2.metacopy=true", "overlay2.mountopt=nodev,context=a=b")
    assert driver_options(Config(storage_opts=opts), "overlay2", Settings) == evolve(
        Settings(), size=10 << 30, metacopy=True, mountopt=(("nodev", None), ("context", "a=b"))
    )
    with pytest.raises(ConfigError, match="Did you mean 'redirect_dir'"):
        driver_options(Config(storage_opts=("overlay2.redirectdir=on",)), "overlay2", Settings)


def test_a_second_writable_mount_is_the_cores_to_refuse(workbench: Bench) -> None:
    """The kernel does so only with index=on: this is why the core counts mounts."""
    bench = workbench()
    layer = bench.container()
    other = bench.driver.home.parent / "other"
    other.mkdir()

    with bench.mount(layer):
        attach(bench.driver.mounts(layer, [], read_only=False), other)
        unmount(other)
