"""The aufs driver, in the two of its modes that run everywhere: one layer form, and the same answers as overlay2."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import layerstore
from drivers.conftest import Workbench, key, keys_of
from kernel.stacks import servers, wait_until
from layerstore import plugins
from layerstore.driver import Layer, LayerKey, State, StorageDriver
from layerstore.errors import CannotRepresent, ConfigError, DepthExceeded, DriverNotSupported, KernelError
from layerstore.kernel import files
from layerstore.kernel.mounts import mounting, mounts_below
from layerstore.testing.trees import assert_same, listing
from layerstore_aufs import Aufs, Mode, Settings, ancestors, probing
from support import images

pytestmark = [pytest.mark.root, pytest.mark.tools("fuse-overlayfs")]

Bench = Callable[..., Workbench]
Backing = Callable[[str], Path]

TIME = 1_700_000_000_123_456_789


@pytest.fixture(params=["fuse", "copy"])
def mode(request: pytest.FixtureRequest) -> str:
    """The modes that need no kernel with aufs."""
    return str(request.param)


@pytest.fixture
def aufs(backing: Backing) -> Iterator[Bench]:
    """`aufs("xfs", mode="copy")`: a new home on such a filesystem, with a driver of these options."""
    made: list[Workbench] = []

    def make(kind: str = "ext4", folder: Path | None = None, **options: Any) -> Workbench:
        folder = folder or backing(kind)
        home, staging = folder / "aufs", folder / "staging"
        home.mkdir(mode=0o700, exist_ok=True)
        staging.mkdir(mode=0o700, exist_ok=True)
        made.append(Workbench(Aufs(home, staging, Settings(**options))))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for bench in made:
        for place in bench.mounted:
            mounting.unmount(place, lazy=True)
        files.remove_tree(bench.driver.home)


def names_in(home: Path) -> set[str]:
    """All that there is of any layer."""
    found = set()
    for folder in ("diff", "layers", "mnt", "work", "trees", "copied"):
        found |= {f"{folder}/{name}" for name in os.listdir(home / folder)}
    return found


# ---- the same as overlay2


BOTTOM = images.layer(
    images.folder("./"),
    *(images.folder(f"{name}/") for name in ("dir", "dir/sub", "rep", "empty", "ren", "op", "perm", "deep", "deep/er")),
    *(
        images.file(name, f"content of {name}\n")
        for name in (
            *(
                "f",
                "kept",
                "dir/x",
                "dir/sub/y",
                "rep/old",
                "rep/both",
                "ren/inner",
                "op/z",
                "deep/er/file",
                "deep/gone",
            ),
            *("chmod", "touched", "opened", "grown", "moved", "hidden", "linked"),
        )
    ),
    images.hard_link("linked2", "linked"),
    images.symlink("sym", "f"),
    images.device("null", 1, 3),
    images.fifo("fifo"),
    images.file("attributes", "x", xattrs={"user.a": b"1", "security.thing": b"2"}, uid=5, gid=6, mode=0o750),
    images.file("setuid", "x", uid=5, gid=6, mode=0o4755),
)
MIDDLE = images.layer(
    images.whiteout("hidden"),
    images.folder("op/"),
    images.opaque("op"),
    images.file("op/new", "new in the middle\n"),
    images.file("more", "more\n"),
)
TOP = images.layer(images.folder("deep/"), images.whiteout("deep/gone"), images.file("deep/top", "top\n"))


def edit(tree: Path) -> None:
    """Every way to change a tree, with the times that any run gives it. Nothing of it is undone by a second run."""
    (tree / "f").unlink()
    shutil.rmtree(tree / "dir")
    shutil.rmtree(tree / "rep")
    (tree / "rep").mkdir()
    (tree / "rep/new").write_text("new")
    (tree / "rep/both").write_text("other")
    (tree / "empty").rmdir()
    (tree / "moved").rename(tree / "moved2")
    (tree / "chmod").chmod(0o600)
    (tree / "perm").chmod(0o700)
    os.chown(tree / "perm", 7, 8)
    with (tree / "opened").open("r+b"):
        pass
    with (tree / "grown").open("a") as file:
        file.write("more")
    (tree / "fresh/in/side").mkdir(parents=True)
    (tree / "fresh/in/file").write_text("x")
    (tree / "fresh/in/gone").write_text("x")
    (tree / "fresh/in/gone").unlink()
    os.link(tree / "fresh/in/file", tree / "fresh/link")
    (tree / "fresh/sym").symlink_to("nowhere")
    os.mkfifo(tree / "fresh/pipe")
    os.mknod(tree / "fresh/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.setxattr(tree / "fresh", "user.mark", b"yes")
    os.setxattr(tree / "attributes", "user.b", b"3")
    os.removexattr(tree / "attributes", "user.a")
    (tree / "op/new").unlink()
    (tree / "op/z").write_text("back again")
    (tree / "deep/gone").write_text("back again")
    (tree / "deep/er/file").unlink()
    (tree / "sym").unlink()
    (tree / "sym").mkdir()
    (tree / "null").unlink()
    (tree / "never").write_text("x")
    (tree / "never").unlink()
    (tree / "touched").touch()
    os.utime(tree / "touched", ns=(TIME, TIME))
    # fuse-overlayfs gives a directory a new time when it copies something up into it, which overlay does not.
    for parent, folders, names in os.walk(tree, topdown=False):
        for name in [*names, *folders]:
            path = os.path.join(parent, name)
            if os.lstat(path).st_mtime_ns != images.EPOCH * 10**9:
                os.utime(path, ns=(TIME, TIME), follow_symlinks=False)
    for path in ("deep", "deep/er", "op", "."):
        os.utime(tree / path, ns=(TIME, TIME))


CHANGES = """\
C /attributes
C /chmod
C /deep
C /deep/er
D /deep/er/file
A /deep/gone
D /dir
D /empty
D /f
A /fresh
A /fresh/in
A /fresh/in/file
A /fresh/in/side
A /fresh/link
A /fresh/pipe
A /fresh/sym
A /fresh/zero
C /grown
D /moved
A /moved2
D /null
C /op
D /op/new
A /op/z
C /perm
C /rep
C /rep/both
A /rep/new
D /rep/old
C /sym
C /touched
""".splitlines()


@contextmanager
def opened(folder: Path, driver: str, *options: str) -> Iterator[layerstore.Store]:
    config = layerstore.Config(
        data_root=folder / driver, exec_root=folder / "exec", storage_driver=driver, storage_opts=options
    )
    with layerstore.open(config=config) as store:
        yield store


def saved(store: layerstore.Store, ref: str, target: Path) -> bytes:
    store.save(ref, target)
    return target.read_bytes()


def packed(box: Any) -> bytes:
    out = io.BytesIO()
    box.write_changes(out.write)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_every_edit_is_the_same_layer_as_with_overlay2(backing: Backing, kind: str) -> None:
    folder = backing(kind)
    archive = images.docker_archive(folder / "image.tar", [BOTTOM, MIDDLE, TOP])
    seen: dict[str, Any] = {}
    for mode in ("overlay2", "fuse", "copy"):
        place = folder / mode
        place.mkdir()
        name, options = ("overlay2", ()) if mode == "overlay2" else ("aufs", (f"aufs.mode={mode}",))
        with opened(place, name, *options) as store:
            [image] = store.load(archive)
            box = store.create_container(image)
            with box.mount() as root:
                before = listing(root)
                edit(root)
                mounted = list(map(str, box.changes()))
                after = listing(root)
            with box.mount() as root:
                assert_same(after, listing(root), ignoring=["mtime_ns"] if mode == "fuse" else [])
            changes = list(map(str, box.changes()))
            tar = packed(box)
            made = box.commit("changed:latest")
            assert list(box.changes()) == []
            with store.create_container(made).mount() as root:
                committed = listing(root)
            assert store.check(content=True) == []
            archived = saved(store, "test:latest", folder / "saved.tar")
            seen[mode] = (before, after, mounted, changes, made.layers, tar, committed, archived)
        files.remove_tree(place)

    assert seen["overlay2"][3] == CHANGES
    for mode in ("fuse", "copy"):
        for number, what in enumerate(("before", "after", "mounted", "changes", "layers", "tar", "committed", "saved")):
            if isinstance(seen[mode][number], dict):
                assert_same(seen["overlay2"][number], seen[mode][number])
            else:
                assert seen[mode][number] == seen["overlay2"][number], f"{mode}: {what}"


def test_a_mounted_container_is_committed_the_same(backing: Backing, mode: str) -> None:
    folder = backing("ext4")
    with opened(folder, "aufs", f"aufs.mode={mode}") as store:
        [image] = store.load(images.docker_archive(folder / "image.tar", [BOTTOM, MIDDLE, TOP]))
        box = store.create_container(image)
        with box.mount() as root:
            edit(root)
            live = box.commit("live:latest")
        sealed = box.commit("sealed:latest")
        assert live.layers == sealed.layers
        assert store.check(content=True) == []


def test_what_is_being_written_is_seen(backing: Backing, mode: str) -> None:
    with opened(backing("ext4"), "aufs", f"aufs.mode={mode}") as store:
        box = store.create_container()
        with box.mount() as root, (root / "log").open("w") as log:
            log.write("not synced, not closed")
            log.flush()
            box.commit("live:latest")
        with store.create_container("live:latest").mount() as root:
            assert (root / "log").read_text() == "not synced, not closed"


def test_the_whole_life_leaves_nothing(backing: Backing, mode: str) -> None:
    folder = backing("ext4")
    before = servers()
    with opened(folder, "aufs", f"aufs.mode={mode}") as store:
        home = folder / "aufs" / "aufs"
        [image] = store.load(images.docker_archive(folder / "image.tar", [BOTTOM, MIDDLE, TOP]))
        box = store.create_container(image)
        with box.mount() as root:
            edit(root)
        made = box.commit("changed:latest")
        other = store.create_container(made)
        with other.mount() as root:
            (root / "more").unlink()
        assert list(map(str, other.changes())) == ["D /more"]
        other.remove()
        box.remove()
        for tag in ("changed:latest", "test:latest"):
            store.remove_image(tag)
    assert names_in(home) == set()
    assert list((home / "copies").glob("*/*")) == []
    wait_until(lambda: servers() <= before)
    assert mounts_below(folder) == []
    assert set(os.listdir(folder / "aufs" / "staging")) <= {".spare"}


# ---- layers


def test_the_driver_is_installed() -> None:
    assert "aufs" in plugins.names()
    assert plugins.find("aufs") is Aufs
    assert issubclass(Aufs, StorageDriver)


def test_a_layer_lies_as_docker_laid_it(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)
    bottom, staged = bench.layer(), Layer(key(), State.STAGED)
    home = bench.driver.home

    bench.create(staged, [bottom])
    assert bench.tree(staged).parent == bench.driver.staging
    assert stat.S_IMODE(bench.tree(staged).stat().st_mode) == 0o755
    assert bench.keys() == [bottom.key]

    layer = bench.seal(staged, [bottom])
    assert layer.key == staged.key
    assert bench.tree(layer) == home / "diff" / layer.key
    assert (home / "layers" / layer.key).read_text() == f"{bottom.key}\n"
    assert os.listdir(home / "mnt" / layer.key) == []
    assert bench.keys() == keys_of(bottom, layer)
    assert os.listdir(bench.driver.staging) == []


def test_the_root_of_a_container_looks_as_that_of_its_parent(aufs: Bench, mode: str, filesystem: str) -> None:
    bench = aufs(filesystem, mode=mode)
    bottom, top = bench.layer(), bench.layer()
    root = bench.driver.tree(top)
    os.setxattr(root, "security.thing", b"value")
    os.chown(root, 5, 6)
    root.chmod(0o1750)
    os.utime(root, ns=(1, TIME))

    layer = bench.container([top, bottom])

    with bench.mount(layer, [top, bottom]) as tree:
        facts = tree.stat()
        assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode), facts.st_mtime_ns) == (5, 6, 0o1750, TIME)
        assert os.getxattr(tree, "security.thing") == b"value"


def test_removal_moves_everything_into_staging(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)
    bottom = bench.layer(file="x")
    layer = bench.container([bottom])
    with bench.mount(layer, [bottom]) as tree:
        (tree / "new").touch()
    with bench.look(layer, [bottom]), bench.look(bottom):
        pass

    for one in (layer, bottom):
        bench.driver.remove(one)
        bench.driver.remove(one)

    assert names_in(bench.driver.home) == set()
    assert all(name.startswith((layer.key, bottom.key)) for name in os.listdir(bench.driver.staging))


def test_what_a_death_left_is_found_and_removed(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)
    orphans = [key() for _ in range(6)]
    for kind, orphan in zip(("diff", "layers", "mnt", "work", "trees", "copied"), orphans, strict=True):
        (bench.driver.home / kind / orphan).mkdir()
    (bench.driver.home / "diff" / "lost+found").mkdir()
    (bench.driver.home / "diff" / ("ab" * 32)).mkdir()

    assert bench.keys() == sorted(orphans)
    for orphan in orphans:
        bench.remove(Layer(orphan))

    assert names_in(bench.driver.home) == {"diff/lost+found", "diff/" + "ab" * 32}


def test_what_is_mounted_is_not_removed(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)
    layer = bench.container()
    with bench.mount(layer) as tree:
        (tree / "file").write_text("x")
        with pytest.raises(KernelError, match="busy"):
            bench.driver.remove(layer)
        assert (tree / "file").read_text() == "x"
    with bench.look(layer) as tree:
        assert (tree / "file").read_text() == "x"


REMOVE = """
import sys
from pathlib import Path
from layerstore.driver import Layer
from layerstore_aufs import Aufs, Settings
home, staging, mode, layer = sys.argv[1:]
Aufs(Path(home), Path(staging), Settings(mode=mode)).remove(Layer(layer))
"""


@pytest.mark.tools("strace")
@pytest.mark.parametrize("number", range(1, 8))
def test_a_death_while_removing_leaves_what_is_found(aufs: Bench, number: int) -> None:
    bench = aufs(mode="copy")
    layer = bench.layer(file="x")
    with bench.look(layer):
        pass
    cache = next((bench.driver.home / "copies").iterdir())

    killed = subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename"),
            *("-e", f"inject=rename:signal=KILL:when={number}"),
            *(sys.executable, "-c", REMOVE, bench.driver.home, bench.driver.staging, "copy", layer.key),
        ],
        check=False,
    )

    assert killed.returncode != 0
    for left in map(Layer, bench.keys()):
        bench.remove(left)
    assert names_in(bench.driver.home) == set()
    assert os.listdir(cache) == []


def test_a_layer_that_could_not_be_made_leaves_nothing(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)

    with pytest.raises(KernelError):
        bench.container([Layer(key())])

    assert names_in(bench.driver.home) == set()
    assert os.listdir(bench.driver.staging) == []


def test_a_container_can_be_made_again_over_what_a_power_cut_left(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)
    bottom = bench.layer(file="x")
    layer = bench.container([bottom])
    files.remove_tree(bench.tree(layer))
    if mode == "copy":
        (bench.driver.home / "trees" / layer.key / "file").unlink()

    bench.create(layer, [bottom])

    with bench.mount(layer, [bottom]) as tree:
        assert (tree / "file").read_text() == "x"
    assert len(bench.driver.changes(layer, [bottom])) == 0


# ---- stacks


def test_marks_hide_what_is_below_them(aufs: Bench, mode: str, filesystem: str) -> None:
    bench = aufs(filesystem, mode=mode)
    bottom, middle, top = bench.layer(a="0", b="0", c="0"), bench.layer(), bench.layer(c="2")
    trees = [bench.driver.tree(layer) for layer in (bottom, middle, top)]
    for number, tree in enumerate(trees):
        (tree / "dir").mkdir(mode=(0o700, 0o710, 0o740)[number])
        (tree / "dir" / str(number)).touch()
        (tree / "file or dir").mkdir() if number != 1 else (tree / "file or dir").touch()
        (tree / "file or dir" / str(number)).touch() if number != 1 else None
    (trees[0] / "deep/er").mkdir(parents=True)
    (trees[0] / "deep/er/gone").touch()
    (trees[1] / "deep").mkdir()
    (trees[1] / "deep/.wh.er").touch()
    (trees[2] / "deep/er").mkdir(parents=True)
    (trees[1] / ".wh.a").touch()
    (trees[1] / "dir/.wh..wh..opq").touch()
    (trees[2] / ".wh.b").touch()
    (trees[1] / "b").touch()
    (trees[2] / "a").write_text("again")
    for name in (".wh..wh.aufs", ".wh.nothing"):
        (trees[0] / name).touch()
    (trees[0] / ".wh..wh.plnk").mkdir()

    with bench.look(top, [middle, bottom]) as tree:
        found = {str(path.relative_to(tree)) for path in tree.rglob("*")}
        assert found == {"a", "c", "dir", "dir/1", "dir/2", "file or dir", "file or dir/2", "deep", "deep/er"}
        assert (tree / "a").read_text() == "again"
        assert stat.S_IMODE((tree / "dir").stat().st_mode) == 0o740
    with bench.look(middle, [bottom]) as tree:
        assert sorted(os.listdir(tree)) == ["b", "c", "deep", "dir", "file or dir"]
        assert os.listdir(tree / "deep") == []
        assert (tree / "file or dir").is_file()
    with bench.look(bottom) as tree:
        assert sorted(os.listdir(tree)) == ["a", "b", "c", "deep", "dir", "file or dir"]


def test_staged_layers_can_be_looked_at(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)
    bottom, middle, top = bench.layer(bottom=""), Layer(key(), State.STAGED), Layer(key(), State.STAGED)
    for layer in (middle, top):
        bench.create(layer)
        (bench.tree(layer) / layer.key).touch()

    with bench.look(top, [middle, bottom]) as tree:
        assert sorted(os.listdir(tree)) == sorted(["bottom", middle.key, top.key])
        with pytest.raises(OSError, match="Read-only"):
            (tree / "new").touch()
    sealed = bench.seal(middle, [bottom])
    with bench.look(top, [sealed, bottom]) as tree:
        assert sorted(os.listdir(tree)) == sorted(["bottom", middle.key, top.key])


def test_500_layers_are_mounted_and_changed(aufs: Bench, mode: str) -> None:
    bench = aufs("tmpfs", mode=mode)
    parents = [bench.layer([], **{"same": str(number), f"f{number}": ""}) for number in range(500)]
    layer = bench.container(parents)

    with bench.mount(layer, parents) as tree:
        assert len(os.listdir(tree)) == 501
        (tree / "f499").unlink()
        (tree / "same").write_text("new")
        with bench.look(layer, parents) as seen:
            assert len(os.listdir(seen)) == 500

    assert [str(change) for change in bench.driver.changes(layer, parents)] == ["D /f499", "C /same"]


def test_a_mounted_container_can_be_looked_at(aufs: Bench, mode: str, filesystem: str) -> None:
    bench = aufs(filesystem, mode=mode)
    bottom = bench.layer(kept="", gone="")
    layer = bench.container([bottom])

    with bench.mount(layer, [bottom]) as tree:
        (tree / "gone").unlink()
        (tree / "new").touch()
        with bench.look(layer, [bottom]) as seen:
            assert sorted(os.listdir(seen)) == ["kept", "new"]


def test_a_container_without_an_image_can_be_filled(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)
    layer = bench.container()

    with bench.mount(layer) as tree:
        assert os.listdir(tree) == []
        (tree / "file").write_text("x")

    assert [str(change) for change in bench.driver.changes(layer, [])] == ["A /file"]
    with bench.look(layer) as tree:
        assert (tree / "file").read_text() == "x"


# ---- sealing


def test_a_sealed_layer_is_in_aufs_form_and_the_container_goes_on(aufs: Bench, mode: str, filesystem: str) -> None:
    bench = aufs(filesystem, mode=mode)
    bottom = bench.layer(kept="1", gone="1", opened="1")
    (bench.driver.tree(bottom) / "dir/sub").mkdir(parents=True)
    (bench.driver.tree(bottom) / "dir/old").touch()
    layer = bench.container([bottom])
    with bench.mount(layer, [bottom]) as tree:
        (tree / "gone").unlink()
        with (tree / "opened").open("r+b"):
            pass
        shutil.rmtree(tree / "dir")
        (tree / "dir/sub/new").mkdir(parents=True)
        os.mkfifo(tree / "pipe")
        os.link(tree / "pipe", tree / "pipe2")

    sealed = bench.seal_only(layer, [bottom])

    tree = bench.driver.tree(sealed)
    found = {str(path.relative_to(tree)) for path in tree.rglob("*")}
    assert found == {".wh.gone", "dir", "dir/.wh.old", "dir/sub", "dir/sub/new", "pipe", "pipe2"}
    assert (tree / "pipe").stat().st_ino == (tree / "pipe2").stat().st_ino
    assert stat.S_ISREG((tree / ".wh.gone").lstat().st_mode)
    for path in (tree, *tree.rglob("*")):
        assert not [name for name in os.listxattr(path, follow_symlinks=False) if "overlay" in name]
    above = bench.container([sealed, bottom])
    with bench.mount(above, [sealed, bottom]) as merged:
        assert sorted(os.listdir(merged)) == ["dir", "kept", "opened", "pipe", "pipe2"]
    # Should the machine go down before the row is written, the container goes on, and can be sealed again.
    with bench.mount(layer, [bottom]) as merged:
        assert sorted(os.listdir(merged)) == ["dir", "kept", "opened", "pipe", "pipe2"]
        (merged / "more").touch()
        (merged / "kept").unlink()
    if sealed.key != layer.key:
        bench.remove(sealed)
    again = bench.seal_only(layer, [bottom])
    with bench.look(again, [bottom]) as merged:
        assert sorted(os.listdir(merged)) == ["dir", "more", "opened", "pipe", "pipe2"]


def test_a_commit_after_one_that_died_before_its_row(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)
    layer = bench.container()
    with bench.mount(layer) as tree:
        (tree / "first").touch()
    bench.seal_only(layer, [])
    with bench.mount(layer) as tree:
        (tree / "second").touch()

    sealed = bench.seal_only(layer, [])

    assert sorted(os.listdir(bench.driver.tree(sealed))) == ["first", "second"]
    for one in map(Layer, bench.keys()):
        bench.remove(one)
    assert names_in(bench.driver.home) == set()


def test_a_full_filesystem_in_the_middle_of_a_commit(own_filesystem: Callable[..., Path], aufs: Bench) -> None:
    disk = own_filesystem("ext4", size=32 << 20)
    bench = aufs(folder=disk, mode="copy")
    layer = bench.container()
    with bench.mount(layer) as tree:
        for number in range(12):
            (tree / f"{number}").write_bytes(os.urandom(1 << 20))
    before = names_in(bench.driver.home)
    with (disk / "full").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass

    with pytest.raises(KernelError, match="No space left") as caught:
        bench.seal_only(layer, [])

    assert "Free some space" in (caught.value.remedy or "")
    assert names_in(bench.driver.home) == before
    assert os.listdir(bench.driver.staging) == []
    (disk / "full").unlink()
    assert len(os.listdir(bench.tree(bench.seal_only(layer)))) == 12


def test_what_a_sealed_layer_hides_it_hides_by_name(aufs: Bench, mode: str) -> None:
    """So it means the same on other parents: an opaque directory would hide more there."""
    bench = aufs(mode=mode)
    bottom, other = bench.layer(), bench.layer()
    for layer, names in ((bottom, ("a", "b")), (other, ("b", "c"))):
        for name in names:
            (bench.driver.tree(layer) / "dir/sub").mkdir(parents=True, exist_ok=True)
            (bench.driver.tree(layer) / "dir/sub" / name).touch()
    layer = bench.container([bottom])
    with bench.mount(layer, [bottom]) as tree:
        shutil.rmtree(tree / "dir")
        (tree / "dir/sub").mkdir(parents=True)

    sealed = bench.seal_only(layer, [bottom])

    with bench.look(sealed, [other]) as tree:
        assert os.listdir(tree / "dir/sub") == ["c"]


SEAL = """
import sys
from pathlib import Path
from layerstore.driver import Layer, State
from layerstore_aufs import Aufs, Settings
home, staging, layer, parent = sys.argv[1:]
Aufs(Path(home), Path(staging), Settings(mode="fuse")).seal(Layer(layer, State.WRITABLE), [Layer(parent)])
"""


@pytest.mark.tools("strace")
@pytest.mark.parametrize(("call", "number"), [("mknodat", 2), ("unlinkat", 2), ("unlinkat", 6), ("removexattr", 2)])
def test_a_death_while_sealing_leaves_a_container(aufs: Bench, call: str, number: int) -> None:
    bench = aufs(mode="fuse")
    bottom = bench.layer(gone="1", opened="1")
    for name in ("dir/x", "rep/old", "rep/in/old"):
        path = bench.driver.tree(bottom) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    layer = bench.container([bottom])
    with bench.mount(layer, [bottom]) as tree:
        (tree / "gone").unlink()
        shutil.rmtree(tree / "dir")
        shutil.rmtree(tree / "rep")
        (tree / "rep/in/new").mkdir(parents=True)
        with (tree / "opened").open("r+b"):
            pass
    with bench.look(layer, [bottom]) as tree:
        before = listing(f"{tree}/.")
    changes = bench.driver.changes(layer, [bottom])

    done = subprocess.run(
        [
            *("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"),
            *("-e", f"inject={call}:signal=KILL:when={number}"),
            *(sys.executable, "-c", SEAL, bench.driver.home, bench.driver.staging, layer.key, bottom.key),
        ],
        check=False,
    )

    assert done.returncode != 0
    again = aufs(folder=bench.driver.home.parent, mode="fuse")
    with again.look(layer, [bottom]) as tree:
        # The time of the directory in hand is put back after each change in it.
        assert_same(before, listing(f"{tree}/."), ignoring=["mtime_ns"])
    assert again.driver.changes(layer, [bottom]) == changes
    tree = again.driver.tree(again.seal_only(layer, [bottom]))
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == [
        *(".wh.dir", ".wh.gone", "rep", "rep/.wh.old", "rep/in", "rep/in/.wh.old", "rep/in/new"),
    ]


@pytest.mark.parametrize(("mode", "length"), [("fuse", 251), ("copy", 251)])
def test_the_removal_of_a_name_of_251_bytes_is_kept(aufs: Bench, mode: str, length: int) -> None:
    bench = aufs(mode=mode)
    bottom = bench.layer(**{"n" * length: ""})
    layer = bench.container([bottom])
    with bench.mount(layer, [bottom]) as tree:
        (tree / ("n" * length)).unlink()

    sealed = bench.seal_only(layer, [bottom])

    assert os.listdir(bench.driver.tree(sealed)) == [".wh." + "n" * length]
    with bench.look(sealed, [bottom]) as tree:
        assert os.listdir(tree) == []


@pytest.mark.parametrize("length", [252, 255])
def test_the_removal_of_a_longer_name_cannot_be_kept(aufs: Bench, length: int) -> None:
    bench = aufs(mode="copy")  # fuse-overlayfs 1.10 dies of it
    bottom = bench.layer(**{"n" * length: ""})
    layer = bench.container([bottom])
    with bench.mount(layer, [bottom]) as tree:
        (tree / ("n" * length)).unlink()

    with pytest.raises(CannotRepresent, match="more than 251 bytes"):
        bench.seal_only(layer, [bottom])

    assert os.listdir(bench.driver.staging) == []
    assert bench.keys() == keys_of(bottom, layer)
    with bench.look(layer, [bottom]) as tree:
        assert os.listdir(tree) == []


@pytest.mark.parametrize("name", [".wh.x", "zero"])
def test_a_file_that_would_be_a_mark_cannot_be_kept(aufs: Bench, name: str) -> None:
    bench = aufs(mode="copy")
    layer = bench.container()
    with bench.mount(layer) as tree:
        if name == "zero":
            os.mknod(tree / name, stat.S_IFCHR, os.makedev(0, 0))
        else:
            (tree / name).touch()

    with pytest.raises(CannotRepresent, match=f"{name}: a file that means a removal"):
        bench.seal_only(layer, [])
    assert (names_in(bench.driver.home) & {f"{kind}/{layer.key}s" for kind in ("diff", "layers", "mnt")}) == set()


def test_a_copied_container_shares_blocks_where_it_can(aufs: Bench) -> None:
    bench = aufs("xfs", mode="copy")
    bottom = bench.layer()
    with (bench.driver.tree(bottom) / "big").open("wb") as file:
        file.write(os.urandom(16 << 20))
    files.syncfs(bench.driver.home)
    free = os.statvfs(bench.driver.home).f_bavail

    layer = bench.container([bottom])
    with bench.mount(layer, [bottom]) as tree, (tree / "big").open("r+b") as file:
        file.write(b"x")
    sealed = bench.seal_only(layer, [bottom])

    files.syncfs(bench.driver.home)
    used = (free - os.statvfs(bench.driver.home).f_bavail) * os.statvfs(bench.driver.home).f_frsize
    assert used < 4 << 20
    assert (bench.driver.tree(sealed) / "big").stat().st_size == 16 << 20


def test_bytes_that_were_put_back_in_time_are_seen(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)
    bottom = bench.layer(file="before")
    layer = bench.container([bottom])
    with bench.mount(layer, [bottom]) as tree:
        facts = (tree / "file").stat()
        (tree / "file").write_text("after!")
        os.utime(tree / "file", ns=(facts.st_atime_ns, facts.st_mtime_ns))

    assert [str(change) for change in bench.driver.changes(layer, [bottom])] == ["C /file"]


# ---- modes


def test_a_container_is_used_in_the_way_it_was_made(aufs: Bench) -> None:
    copying = aufs(mode="copy")
    fusing = aufs(folder=copying.driver.home.parent, mode="fuse")
    bottom = copying.layer(kept="", gone="")
    for first, second in ((copying, fusing), (fusing, copying)):
        layer = first.container([bottom])
        with first.mount(layer, [bottom]) as tree:
            (tree / "gone").unlink()
        with second.mount(layer, [bottom]) as tree:
            assert os.listdir(tree) == ["kept"]
            (tree / "new").touch()
        for bench in (first, second):
            assert [str(change) for change in bench.driver.changes(layer, [bottom])] == ["D /gone", "A /new"]
        sealed = second.seal_only(layer, [bottom])
        for bench in (first, second):
            with bench.look(sealed, [bottom]) as tree:
                assert sorted(os.listdir(tree)) == ["kept", "new"]


def test_a_container_that_was_never_mounted_has_no_way_yet(aufs: Bench) -> None:
    fusing = aufs(mode="fuse")
    copying = aufs(folder=fusing.driver.home.parent, mode="copy")
    bottom = fusing.layer(kept="", gone="")
    layer = fusing.container([bottom])
    with copying.look(layer, [bottom]):
        pass

    with copying.mount(layer, [bottom]) as tree:
        (tree / "gone").unlink()

    for bench in (fusing, copying):
        assert [str(change) for change in bench.driver.changes(layer, [bottom])] == ["D /gone"]


def test_a_container_of_a_way_that_is_gone_is_refused(aufs: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fusing = aufs(mode="fuse")
    bottom = fusing.layer()
    layer = fusing.container([bottom])
    with fusing.mount(layer, [bottom]) as tree:
        (tree / "file").touch()
    monkeypatch.setenv("PATH", str(fusing.driver.staging))
    bench = aufs(folder=fusing.driver.home.parent)
    assert bench.driver.mode is Mode.COPY

    with pytest.raises(DriverNotSupported, match=r"were written with aufs\.mode=fuse.*not installed"):
        bench.driver.prepare(layer, [bottom], read_only=False)
    with pytest.raises(DriverNotSupported, match=r"aufs\.mode=fuse"):
        bench.driver.changes(layer, [bottom])
    with bench.look(bottom):
        pass
    bench.driver.remove(layer)
    assert bench.keys() == [bottom.key]


def test_a_dead_server_is_named(aufs: Bench) -> None:
    bench = aufs(mode="fuse")
    layer = bench.container()
    before = servers()
    with bench.mount(layer) as tree:
        (tree / "file").write_text("kept")
        [process] = servers() - before
        os.kill(process, 9)
        wait_until(lambda: process not in servers())
        with pytest.raises(KernelError, match=r"process that serves it has ended.*\n.*mount it again"):
            bench.driver.changes(layer, [])

    with bench.mount(layer) as tree:
        assert (tree / "file").read_text() == "kept"


# ---- stacks without a mount


def copies_in(bench: Workbench) -> list[Path]:
    return sorted((bench.driver.home / "copies").glob("*/*"))


def test_a_stack_is_linked_once(aufs: Bench) -> None:
    bench = aufs(mode="copy")
    bottom, top = bench.layer(file="x"), bench.layer(other="y")

    for _ in range(2):
        with bench.look(top, [bottom]) as tree:
            assert (tree / "file").stat().st_ino == (bench.driver.tree(bottom) / "file").stat().st_ino
    [copy] = copies_in(bench)
    assert copy.name.startswith(top.key)

    bench.driver.remove(bottom)
    assert copies_in(bench) == [], "what it shows is gone from the disk, too"


def test_two_processes_may_link_a_stack_at_once(aufs: Bench) -> None:
    first = aufs(mode="copy")
    second = aufs(folder=first.driver.home.parent, mode="copy")
    layers = [first.layer(**{f"f{number}": ""}) for number in range(50)]
    failures: list[BaseException] = []
    together = threading.Barrier(4)

    def look(bench: Workbench) -> None:
        try:
            together.wait()
            with bench.look(layers[0], layers[1:]) as tree:
                assert len(os.listdir(tree)) == 50
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=look, args=(bench,)) for bench in (first, second, first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(copies_in(first)) == 1
    assert os.listdir(first.driver.staging) == []


def test_links_of_another_boot_are_thrown_away(aufs: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = aufs(mode="copy")
    layer = bench.layer(file="x")
    with bench.look(layer):
        pass
    [old] = copies_in(bench)
    (old / "tree/file").unlink()  # a power cut: half of it was on disk
    for module in ("copies", "probing"):
        monkeypatch.setattr(f"layerstore_aufs.{module}.boot_id", lambda: "another-boot")

    again = aufs(folder=bench.driver.home.parent, mode="copy")
    with again.look(layer) as tree:
        assert (tree / "file").read_text() == "x"

    [new] = copies_in(bench)
    assert new.parent.name == "another-boot"


def test_a_file_with_as_many_names_as_can_be_is_copied(aufs: Bench) -> None:
    bench = aufs("ext4", mode="copy")
    layer = bench.layer(file="x", other="y")
    tree = bench.driver.tree(layer)
    os.chown(tree / "file", 3, 4)
    os.utime(tree / "file", ns=(TIME, TIME))
    elsewhere = bench.driver.staging / "names"
    elsewhere.mkdir()
    with suppress(OSError):
        for number in range(70_000):
            os.link(tree / "file", elsewhere / str(number))
    assert (tree / "file").stat().st_nlink == 65_000
    wanted = listing(tree)

    with bench.look(layer) as seen:
        assert_same(wanted, listing(f"{seen}/."))
        assert (seen / "file").stat().st_ino != (tree / "file").stat().st_ino
    files.remove_tree(elsewhere)


# ---- the kernel's aufs, which is nowhere here


def test_the_options_for_the_kernel() -> None:
    settings = Settings(mode="kernel", mountopt="noatime,dirperm1")  # type: ignore[arg-type]

    writable = probing.recipe(Mode.KERNEL, ("/b", "/a"), "/c", None, settings)
    looking = probing.recipe(Mode.KERNEL, ("/c", "/b"), None, None, settings)

    more = (("dio", None), ("noplink", None), ("xino", "/dev/shm/aufs.xino"), ("noatime", None), ("dirperm1", None))
    assert (writable.type, writable.read_only) == ("aufs", False)
    assert writable.options == (("lowerdir+", "/b"), ("lowerdir+", "/a"), ("upperdir", "/c"), *more)
    assert (looking.read_only, looking.options) == (True, (("lowerdir+", "/c"), ("lowerdir+", "/b"), *more))


def test_the_kernels_aufs_is_refused_where_docker_refused_it(backing: Backing, monkeypatch: pytest.MonkeyPatch) -> None:
    assert probing.refusal(Mode.KERNEL, backing("ext4")) is not None
    monkeypatch.setattr(probing, "_has_aufs", lambda: True)

    assert probing.refusal(Mode.KERNEL, backing("ext4")) is None
    refusal = probing.refusal(Mode.KERNEL, backing("btrfs"))
    assert refusal is not None
    assert "not supported over btrfs" in refusal[0]
    with pytest.raises(DriverNotSupported, match=r"aufs\.mode=kernel .*not supported over btrfs"):
        Aufs.probe(backing("btrfs"), Settings(mode=Mode.KERNEL))


def test_the_kernels_aufs_takes_127_branches(aufs: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = aufs("tmpfs", mode="copy")
    layer = bench.layer()
    monkeypatch.setitem(bench.driver.__dict__, "mode", Mode.KERNEL)

    bench.container([layer] * 126)
    with pytest.raises(DepthExceeded, match="cannot stack 127 layers and a container"):
        bench.container([layer] * 127)


# ---- docker's own home


def test_an_old_home_of_docker_can_be_read(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)
    home = bench.driver.home
    ids = [LayerKey(os.urandom(32).hex()) for _ in range(3)]
    for number, name in enumerate(ids):
        (home / "diff" / name).mkdir(mode=0o755)
        (home / "mnt" / name).mkdir(mode=0o755)
        (home / "layers" / name).write_text("".join(f"{parent}\n" for parent in reversed(ids[:number])))
        (home / "diff" / name / f"f{number}").write_text(str(number))
        (home / "diff" / name / "same").write_text(str(number))
    top = home / "diff" / ids[2]
    (top / ".wh.f0").touch(0o444)
    for name in ("aufs", "orph", "plnk"):
        (top / f".wh..wh.{name}").mkdir(0o700) if name != "aufs" else (top / ".wh..wh.aufs").touch(0o444)

    assert ancestors(home, ids[2]) == [ids[1], ids[0]]
    assert ancestors(home, ids[0]) == []
    with bench.look(Layer(ids[2]), [Layer(parent) for parent in ancestors(home, ids[2])]) as tree:
        assert sorted(os.listdir(tree)) == ["f1", "f2", "same"]
        assert (tree / "same").read_text() == "2"
    assert bench.keys() == [], "and nothing of it is garbage"
    with pytest.raises(KernelError, match="No such file"):
        ancestors(home, key())


# ---- probing and options


def test_a_probe_says_which_mode_and_why_not_another(backing: Backing) -> None:
    folder, other = backing("ext4"), backing("xfs")

    found = Aufs.probe(folder / "aufs", Settings())

    notes = dict(found.notes)
    assert notes["Mode"] == "copy (a copy of each container's files)"
    assert "/proc/filesystems" in notes["Not kernel"]
    assert "aufs.mode=fuse" in notes["Not fuse"], "it is to be had by word"
    assert notes["Backing Filesystem"] == "extfs"
    assert (notes["Root Dir"], notes["Dirs"]) == (str(folder / "aufs"), "0")
    assert found.copy_on_write.value == "none"
    assert Aufs.probe(other, Settings()).copy_on_write.value == "block"
    assert dict(Aufs.probe(folder / "aufs", Settings(mode=Mode.FUSE)).notes)["Mode"] == "fuse (fuse-overlayfs)"
    assert os.listdir(folder) == [], "it leaves nothing"


def test_what_is_taken_by_itself_gives_each_layer_the_digest_that_it_has_elsewhere(backing: Backing) -> None:
    """fuse-overlayfs alters the times of folders that it passes through, with the same edits."""
    folder = backing("ext4")
    archive = images.docker_archive(folder / "image.tar", [BOTTOM, MIDDLE, TOP])
    digests = []
    for driver in ("overlay2", "aufs"):
        with opened(folder, driver) as store:
            [image] = store.load(archive)
            with store.create_container(image) as box:
                with box.mount() as root:
                    (root / "deep/er/file").write_text("other")
                    os.utime(root / "deep/er/file", ns=(TIME, TIME))
                digests.append(box.commit("made").layers)

    assert digests[0] == digests[1]


def test_fuse_that_is_not_there_is_refused(backing: Backing, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = backing("ext4")
    monkeypatch.setenv("PATH", str(folder))

    with pytest.raises(DriverNotSupported, match=r"aufs does not work with aufs\.mode=fuse") as caught:
        Aufs.probe(folder / "aufs", Settings(mode=Mode.FUSE))

    assert "fuse-overlayfs is not installed" in str(caught.value)
    assert "aufs.mode=copy" in str(caught.value)


def test_a_program_that_does_not_work_is_found_out(backing: Backing, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = backing("ext4")
    (folder / "bin").mkdir()
    program = folder / "bin" / "fuse-overlayfs"
    program.write_text("#!/bin/sh\necho it is broken >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    with pytest.raises(DriverNotSupported, match="it is broken"):
        Aufs.probe(folder / "aufs", Settings(mode=Mode.FUSE))

    assert os.listdir(folder) == ["bin"]


def test_a_folder_with_a_colon_cannot_be_stacked_by_fuse(backing: Backing) -> None:
    folder = backing("ext4") / "a:b"
    folder.mkdir()

    with pytest.raises(DriverNotSupported, match="cannot take the name"):
        Aufs.probe(folder, Settings(mode=Mode.FUSE))


def test_a_home_in_use_keeps_the_answer_for_this_boot(aufs: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = aufs()
    first = Aufs.probe(bench.driver.home, Settings())
    asked = []
    monkeypatch.setattr(probing, "_tried", lambda *arguments: asked.append(arguments))

    assert Aufs.probe(bench.driver.home, Settings()) == first
    assert bench.driver.mode is Mode.COPY
    bench.layer()
    assert dict(Aufs.probe(bench.driver.home, Settings()).notes) == {**dict(first.notes), "Dirs": "1"}
    assert not asked


def test_an_answer_of_the_time_when_fuse_was_taken_by_itself_is_asked_anew(
    aufs: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = aufs()
    with monkeypatch.context() as then:
        then.setattr(probing, "AUTO", (Mode.KERNEL, Mode.FUSE, Mode.COPY))
        assert probing.find(bench.driver.home, Settings()).mode is Mode.FUSE

    assert bench.driver.mode is Mode.COPY


def test_an_ordinary_user_is_told_that_it_takes_root(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from layerstore_aufs import Aufs, Settings\n"
        "import layerstore.kernel.copying, layerstore.kernel.mounts.refusals, subprocess, hashlib, tempfile\n"
        "os.chdir(sys.argv[1]); os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)\n"
        "from layerstore.errors import DriverNotSupported\n"
        "try: Aufs.probe(pathlib.Path(), Settings())\n"
        "except DriverNotSupported as error: print(error)\n"
    )
    for permissions in (0o755, 0o777):
        tmp_path.chmod(permissions)
        done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "needs root (CAP_SYS_ADMIN)" in done.stdout
        assert os.listdir(tmp_path) == []


def test_a_size_is_refused(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)

    with pytest.raises(DriverNotSupported, match="cannot limit the size"):
        bench.container(size=1 << 20)

    assert names_in(bench.driver.home) == set()


def test_attributes_are_for_every_mode(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode, mountopt="nodev,noatime")
    layer = bench.container()

    with bench.mount(layer) as tree, open("/proc/self/mountinfo") as table:
        options = next(line.split()[5] for line in table if line.split()[4] == str(tree))
    assert {"nodev", "noatime"} <= set(options.split(","))


@pytest.mark.parametrize("text", ["br:/etc=rw", "nodev,lowerdir=/etc", "append:/etc", "xino=/tmp/x", ""])
def test_options_that_are_the_drivers_own_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="options of the mount such as"):
        Settings(mountopt=text)  # type: ignore[arg-type]


def test_options_come_from_daemon_json() -> None:
    from layerstore.config import Config, driver_options

    config = Config(storage_opts=("aufs.mode=Copy", "aufs.mountopt=nodev"))
    assert driver_options(config, "aufs", Settings) == Settings(mode=Mode.COPY, mountopt=(("nodev", None),))
    assert driver_options(Config(storage_opts=("aufs.mode=auto",)), "aufs", Settings) == Settings()
    with pytest.raises(ConfigError, match="auto, kernel, fuse or copy"):
        driver_options(Config(storage_opts=("aufs.mode=overlay",)), "aufs", Settings)


def test_inspect_shows_where_things_are(aufs: Bench, mode: str) -> None:
    bench = aufs(mode=mode)
    bottom = bench.layer(file="x" * 5000)
    layer = bench.container([bottom])
    home = bench.driver.home

    assert bench.driver.graph_data(bottom, []) == {
        "MergedDir": f"{home}/mnt/{bottom.key}",
        "UpperDir": f"{home}/diff/{bottom.key}",
    }
    data = bench.driver.graph_data(layer, [bottom])
    assert data["MergedDir"] == str(bench.driver.mountpoint(layer))
    assert data.get("LowerDir" if mode == "fuse" else "SourceDir") == (
        f"{home}/diff/{bottom.key}" if mode == "fuse" else f"{home}/trees/{layer.key}"
    )
    assert bench.driver.usage(layer, [bottom]).inodes == 0
    assert bench.driver.usage(bottom, []).size >= 5000
