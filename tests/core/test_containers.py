"""Containers: made, mounted once however many ask, changed, committed, removed."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import layerstore
from core.adding import Adder
from layerstore.database import Database, Transaction
from layerstore.driver import Layer, LayerKey
from layerstore.errors import (
    Ambiguous,
    ConfigError,
    Damaged,
    InUse,
    KernelError,
    LayerstoreError,
    NameInUse,
    NotFound,
)
from layerstore.images import Image
from layerstore.kernel.mounts import Mount, mount_id, mounts_below
from layerstore.store import Store
from layerstore_overlay2 import Overlay2
from support import images as make

pytestmark = pytest.mark.root

Leftovers = Callable[[], Sequence[str]]

MOUNT = (
    "import sys, layerstore; from pathlib import Path\n"
    "settings = layerstore.Config(data_root=sys.argv[1], exec_root=sys.argv[1] + '-exec')\n"
    "store = layerstore.open(config=settings)\n"
    "mounted = store.container(sys.argv[2]).mount(persistent=len(sys.argv) > 3)\n"
    "print(mounted.path, flush=True); sys.stdin.read()\n"
    "if len(sys.argv) <= 3: mounted.unmount()\n"
    "store.close()\n"
)


@pytest.fixture
def image(add: Adder, base: bytes) -> Image:
    return add(base, name="base")


def other_process(data_root: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
    """A process that has the container mounted until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", MOUNT, data_root, name, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip()
    return process


# --- making


def test_container_begins_as_its_image(store: Store, image: Image) -> None:
    box = store.create_container("base", name="web")
    assert (box.name, box.image_id, box.image_name, box.status, box.mounts) == (
        "web",
        image.id,
        "base:latest",
        "created",
        0,
    )
    assert box.image == image
    assert list(box.changes()) == []
    with box.mount() as root:
        assert (root / "etc/passwd").read_text() == "root:x:0:0\n"
        assert os.stat(root).st_mode & 0o777 == 0o755
        assert (box.status, box.mountpoint, box.mounts) == ("mounted", root, 1)
    assert (box.status, box.mountpoint, box.mounts) == ("unmounted", None, 0)
    assert image.containers == ("web",)


def test_container_is_found_by_name_and_id(store: Store, image: Image) -> None:
    box, other = store.create_container(name="web"), store.create_container(image)
    for ref in ("web", "/web", box.id, box.id[:12]):
        assert store.container(ref).id == box.id
    with pytest.raises(NotFound):
        store.container("nobody")
    with pytest.raises(NotFound):
        store.container("")
    assert [container.id for container in store.containers()] == [other.id, box.id]
    boxes = [store.create_container() for _ in range(16)]
    digit = next(d for d in "0123456789abcdef" if sum(box.id[0] == d for box in boxes) > 1)
    with pytest.raises(Ambiguous):
        store.container(digit)


def test_name_is_taken_once(store: Store, leftovers: Leftovers) -> None:
    box = store.create_container(name="web")
    before = leftovers()
    with pytest.raises(NameInUse, match=box.short_id):
        store.create_container(name="web")
    assert leftovers() == before
    other = store.create_container()
    with pytest.raises(NameInUse):
        other.rename("web")
    other.rename("db")
    other.rename("db")
    assert store.container("db").id == other.id == store.container(other.id).id
    assert other.name == "db"


@pytest.mark.parametrize("name", ["", "x", "-x", "a b", "a/b", "ü2"])
def test_name_that_is_none_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigError):
        store.create_container(name=name)
    with pytest.raises(ConfigError):
        store.create_container().rename(name)


def test_size_that_is_none_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="plenty"):
        store.create_container(size="plenty")
    with pytest.raises(LayerstoreError):
        store.create_container(size="10M")  # this kernel or filesystem has no project quota
    assert store.containers() == []
    assert store.check() == []


def test_random_names_do_not_run_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerstore.containers.names.random_name", lambda: "only_one")
    names = {store.create_container().name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("only_one") for name in names)


def test_container_of_a_missing_image_is_refused(store: Store, leftovers: Leftovers) -> None:
    before = leftovers()
    with pytest.raises(NotFound):
        store.create_container("nothing")
    assert leftovers() == before


def test_inspect_speaks_dockers_words(store: Store, image: Image) -> None:
    box = store.create_container(image, name="web")
    shown = json.loads(json.dumps(box.inspect(size=True)))
    assert (shown["Id"], shown["Name"], shown["Image"], shown["Driver"]) == (box.id, "/web", image.id, "overlay2")
    data = shown["GraphDriver"]["Data"]
    assert set(data) == {"LowerDir", "MergedDir", "UpperDir", "WorkDir"}
    assert data["LowerDir"] == image.inspect()["GraphDriver"]["Data"]["UpperDir"]
    assert shown["SizeRootFs"] == shown["SizeRw"] + image.size
    with box.mount() as root:
        assert data["MergedDir"] == str(root) == box.inspect()["Mountpoint"]


# --- mounting


def test_second_mount_is_the_same_mount(store: Store, image: Image) -> None:
    box = store.create_container(image)
    first = box.mount()
    second = store.container(box.id).mount()
    assert first.path == second.path
    assert os.fspath(first) == str(first.path)
    assert box.mounts == 2
    first.unmount()
    first.unmount()
    assert mount_id(second.path) is not None
    second.unmount()
    assert mount_id(second.path) is None


def test_mounts_are_counted_over_processes(store: Store, image: Image, data_root: Path) -> None:
    box = store.create_container(image, name="web")
    other = other_process(data_root, "web")
    with box.mount():
        assert box.mounts == 2
        other.communicate()
        assert box.mounts == 1
        assert box.mountpoint is not None
    assert box.mountpoint is None
    other = other_process(data_root, "web")
    with box.mount():
        pass
    assert box.mounts == 1
    assert box.mountpoint is not None
    other.communicate()
    assert box.mountpoint is None


def test_threads_share_one_mount(store: Store, image: Image) -> None:
    box = store.create_container(image)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                with store.container(box.id).mount() as root:
                    (root / f"{number}").write_text("x")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert box.mountpoint is None
    assert [str(change) for change in box.changes()] == ["A /0", "A /1", "A /2", "A /3"]


def test_mount_of_a_killed_process_is_shared_then_ended(store: Store, image: Image, data_root: Path) -> None:
    box = store.create_container(image, name="web")
    other = other_process(data_root, "web")
    other.kill()
    other.communicate()
    assert box.mountpoint is not None
    assert box.mounts == 0
    with box.mount() as root:
        (root / "x").touch()
    assert box.mountpoint is None


def test_mount_of_a_killed_process_ends_at_the_next_open(
    store: Store, image: Image, data_root: Path, settings: layerstore.Config
) -> None:
    box = store.create_container(image, name="web")
    other = other_process(data_root, "web")
    other.send_signal(signal.SIGKILL)
    other.communicate()
    with layerstore.open(config=settings):
        assert box.mountpoint is None


def test_mount_that_outlives_its_process(
    store: Store, image: Image, data_root: Path, settings: layerstore.Config
) -> None:
    box = store.create_container(image, name="web")
    for _ in range(2):
        other_process(data_root, "web", "persistent").communicate()
    with layerstore.open(config=settings) as again:
        assert [(container.name, str(path)) for container, path in again.mounted()] == [("web", str(box.mountpoint))]
    assert box.mounts == 2
    assert box.unmount() is False
    assert box.unmount() is True
    assert box.mountpoint is None
    with pytest.raises(LayerstoreError, match="not mounted"):
        box.unmount()


def test_unmount_by_name_leaves_what_a_process_holds(store: Store, image: Image, data_root: Path) -> None:
    box = store.create_container(image, name="web")
    other = other_process(data_root, "web")
    with pytest.raises(InUse, match="running process"):
        box.unmount()
    assert box.unmount(all=True) is True
    assert box.mountpoint is None
    other.communicate()
    assert other.returncode == 0


def test_busy_mount_names_who_is_in_it(store: Store, image: Image) -> None:
    box = store.create_container(image)
    mounted = box.mount()
    sleeper = subprocess.Popen(["sleep", "60"], cwd=mounted.path)
    with pytest.raises(KernelError) as caught:
        mounted.unmount()
    assert caught.value.errno == errno.EBUSY
    assert str(sleeper.pid) in str(caught.value)
    assert box.mounts == 1
    sleeper.kill()
    sleeper.wait()
    mounted.unmount()
    assert box.mountpoint is None


def test_foreign_unmount_is_noticed(store: Store, image: Image) -> None:
    box = store.create_container(image)
    mounted = box.mount()
    subprocess.run(["umount", mounted.path], check=True)
    assert box.mountpoint is None
    with box.mount() as root:
        assert (root / "etc/passwd").exists()
        mounted.unmount()
        assert box.mountpoint == root
    assert box.mountpoint is None


def test_mount_in_another_namespace_is_refused(store: Store, image: Image, data_root: Path) -> None:
    box = store.create_container(image, name="web")
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", MOUNT, str(data_root), "web"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline()
    with pytest.raises(InUse, match="another mount namespace"):
        box.mount()
    with pytest.raises(InUse, match="another mount namespace"):
        box.remove(force=True)
    other.communicate()
    with box.mount():
        pass


def test_close_ends_the_mounts_of_this_process(store: Store, image: Image, settings: layerstore.Config) -> None:
    box = store.create_container(image, name="web")
    with layerstore.open(config=settings) as other:
        other.container("web").mount()
        assert box.mountpoint is not None
    assert box.mountpoint is None
    with store.container("web") as same:
        same.mount()
    assert box.mountpoint is None


# --- changes


def test_changes_are_seen_mounted_or_not(store: Store, image: Image) -> None:
    box = store.create_container(image)
    expected = ["C /etc", "D /etc/group", "C /etc/passwd", "A /new"]
    with box.mount() as root:
        (root / "new").touch()
        (root / "etc/group").unlink()
        (root / "etc/passwd").write_text("changed")
        assert [str(change) for change in box.changes()] == expected
    assert [str(change) for change in box.changes()] == expected
    out = io.BytesIO()
    box.write_changes(out.write)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert "etc/.wh.group" in tar.getnames()


@pytest.mark.parametrize("mounted", [False, True])
def test_export_is_the_whole_tree(store: Store, image: Image, *, mounted: bool) -> None:
    box = store.create_container(image)
    with box.mount() as root:
        (root / "new").write_text("n")
        (root / "etc/group").unlink()
        if mounted:
            out = io.BytesIO()
            box.export(out.write)
    if not mounted:
        out = io.BytesIO()
        box.export(out.write)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        names = {name.strip("./") for name in tar.getnames()}
    assert names - {""} == {"etc", "etc/passwd", "new", "usr", "usr/tool"}


# --- commit


def write(box: layerstore.Container, name: str, text: str) -> None:
    with box.mount() as root:
        (root / name).write_text(text)


def test_commit_seals_the_layer_without_a_copy(store: Store, image: Image, data_root: Path) -> None:
    box = store.create_container(image, name="web")
    write(box, "big", "x" * 100_000)
    before = os.stat(Path(box.inspect()["GraphDriver"]["Data"]["UpperDir"]) / "big").st_ino
    made = box.commit("made", message="why", author="me")
    own = Path(made.inspect()["GraphDriver"]["Data"]["UpperDir"])
    assert os.stat(own / "big").st_ino == before
    assert (made.parent, made.layers[:1], made.tags) == (image.id, image.layers, ("made:latest",))
    assert (made.comment, made.author) == ("why", "me")
    assert made.history[-1].created_by == "/bin/sh", "as docker: the container's command"
    assert (box.image_id, box.image_name, list(box.changes())) == (made.id, "made:latest", [])
    write(box, "more", "m")
    again = box.commit("made")
    assert (again.parent, len(again.layers), again.layers[:2]) == (made.id, 3, made.layers)
    with again.mount() as root:
        assert (root / "more").read_text() + (root / "big").read_text()[:1] == "mx"
    assert store.check(content=True) == []
    out = bytearray()
    store.write_layer(made.chain_ids[1], out.extend)
    assert make.digest(bytes(out)) == made.layers[1]


def test_commit_while_mounted_keeps_what_was_hashed(store: Store, image: Image) -> None:
    box = store.create_container(image, name="web")
    with box.mount() as root:
        (root / "new").write_text("one")
        (root / "etc/group").unlink()
        made = box.commit("made")
        (root / "new").write_text("two")
        assert box.image_id == image.id
    with made.mount() as root:
        assert (root / "new").read_text() == "one"
        assert not (root / "etc/group").exists()
    assert [str(change) for change in box.changes()] == ["C /etc", "D /etc/group", "A /new"]
    assert store.check(content=True) == []


def test_layer_may_be_mended_while_a_container_on_it_is_committed(
    store: Store, add: Adder, image: Image, base: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = store.create_container(image)
    write(box, "new", "n")
    seal = Overlay2.seal

    def then_mend(driver: Overlay2, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        sealed = seal(driver, layer, parents)
        if not layer.is_staged:
            os.truncate(image.folders[image.chain_ids[0]] / "usr/tool", 0)
            add(base)
        return sealed

    monkeypatch.setattr(Overlay2, "seal", then_mend)
    with box.commit().mount() as root:
        assert (root / "usr/tool").read_text() == "#!/bin/sh\n"
        assert (root / "new").read_text() == "n"
    assert store.check(content=True) == []


def test_commit_without_descriptors_says_so(store: Store, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    box = store.create_container(image)
    with box.mount() as root:
        (root / "new").touch()
        monkeypatch.setattr(os, "pipe2", refused)
        with pytest.raises(KernelError, match="pipe2: Too many open files"):
            box.commit()


def test_commit_says_in_the_history_what_made_the_layer(store: Store, image: Image) -> None:
    bare = store.create_container()
    for given, expected in (({"created_by": "by hand"}, "by hand"), ({"created_by": ""}, ""), ({}, "/bin/sh")):
        box = store.create_container(image)
        assert box.commit(**given).history[-1].created_by == expected
    assert bare.commit().history[-1].created_by == ""
    assert bare.commit(instructions=["ENV A=b", "USER ada"]).history[-1].created_by == "ENV A=b; USER ada"


def test_commit_of_no_changes_has_the_same_layers(store: Store, image: Image) -> None:
    box = store.create_container(image)
    made = box.commit("made", instructions=["ENV A=b"])
    assert made.layers == image.layers
    assert made.history[-1].empty_layer
    assert made.config["config"] == {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/bin", "A=b"]}
    assert (made.parent, box.image_id) == (image.id, image.id)


def test_equal_commits_share_their_layer(store: Store, image: Image, data_root: Path) -> None:
    boxes = [store.create_container(image) for _ in range(2)]
    for box in boxes:
        with box.mount() as root:
            (root / "new").write_text("same")
            os.utime(root / "new", ns=(0, 10**18))
            os.utime(root, ns=(0, 10**18))
    one, two = (box.commit(f"made{number}") for number, box in enumerate(boxes))
    assert one.layers == two.layers
    assert [list(box.changes()) for box in boxes] == [[], []]
    assert len([path for path in (data_root / "overlay2").iterdir() if not path.name.startswith(".")]) == 4
    assert store.check(content=True) == []


def test_equal_commit_takes_the_place_of_a_layer_that_is_damaged(
    store: Store, add: Adder, image: Image, data_root: Path
) -> None:
    """Nobody has noticed the damage: what the container wrote must not go for it, on the same parents or others."""
    other = add(make.layer(make.folder("./", mode=0o755)), name="other")
    boxes = [store.create_container(base) for base in (image, image, other)]
    for box in boxes:
        with box.mount() as root:
            (root / "new").write_text("same")
            os.utime(root / "new", ns=(0, 10**18))
            os.utime(root, ns=(0, 10**18))
    first, *others = boxes
    made = first.commit("made")
    for box in others:
        os.truncate(made.folders[made.chain_ids[-1]] / "new", 0)
        assert box.commit().layers[-1] == made.layers[-1]
        with box.mount() as root:
            assert (root / "new").read_text() == "same"
    # On other parents there is no layer to mend: the new one lies beside it.
    assert {problem.layer for problem in store.check(content=True)} == {made.layers[-1]}


def test_the_root_of_a_container_on_nothing_is_committed_as_it_is(store: Store) -> None:
    box = store.create_container()
    with box.mount() as root:
        root.chmod(0o1750)
        (root / "file").touch()

    assert list(map(str, box.changes())) == ["C /", "A /file"]
    with box.commit("made").mount() as root:
        assert root.stat().st_mode & 0o7777 == 0o1750


def test_commits_from_nothing_build_an_image_layer_by_layer(store: Store) -> None:
    with store.create_container(name="scratch") as box:
        for number in range(3):
            write(box, f"{number}", str(number))
            made = box.commit("built", instructions=['CMD ["/0"]'] if number == 2 else [])
        box.remove()
    assert len(made.layers) == len(made.history) == 3
    assert made.config["config"]["Cmd"] == ["/0"]
    assert made.os == "linux"
    assert made.architecture
    with made.mount() as root:
        assert sorted(os.listdir(root)) == ["0", "1", "2"]
    assert store.check(content=True) == []


def test_equal_trees_commit_to_equal_images(store: Store, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    made = []
    for _ in range(2):
        with store.create_container(image) as box:
            with box.mount() as root:
                (root / "new").write_text("same")
                os.utime(root / "new", ns=(0, 10**18))
                os.utime(root, ns=(0, 10**18))
            made.append(box.commit())
    assert made[0] == made[1]


def test_failed_commit_leaves_the_container_as_it_was(
    store: Store, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = store.create_container(image, name="web")
    write(box, "new", "n")
    with pytest.raises(ConfigError):
        box.commit("made", instructions=["RUN rm -rf /"])
    with pytest.raises(layerstore.InvalidReference):
        box.commit("Not A Name")
    with monkeypatch.context() as patched:
        patched.setattr("layerstore.images.rows.insert", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            box.commit("made")
    assert [str(change) for change in box.changes()] == ["A /new"]
    assert box.image_id == image.id
    assert store.check() == []
    box.commit("made")
    assert store.check(content=True) == []


def test_file_that_no_tar_can_hold_stops_the_commit(store: Store, image: Image) -> None:
    box = store.create_container(image)
    write(box, ".wh.odd", "x")
    with pytest.raises(layerstore.CannotRepresent, match="odd"):
        box.commit()
    assert [str(change) for change in box.changes()] == ["A /.wh.odd"]
    assert store.check() == []


# --- removal


def test_removed_container_is_gone(store: Store, image: Image, leftovers: Leftovers) -> None:
    before = leftovers()
    box = store.create_container(image, name="web")
    write(box, "x", "x")
    box.remove()
    with pytest.raises(NotFound):
        store.container("web")
    with pytest.raises(NotFound):
        box.mount()
    with pytest.raises(NotFound):
        box.remove()
    store.close()
    assert sorted(leftovers()) == [name for name in before if len(name) == 32]


def test_mounted_container_is_removed_by_force_only(store: Store, image: Image) -> None:
    box = store.create_container(image, name="web")
    with box.mount() as root:
        with pytest.raises(InUse, match=str(root)):
            box.remove()
        box.remove(force=True)
        assert mount_id(root) is None
    assert store.containers() == []
    assert store.check() == []


@pytest.mark.parametrize("what", ["nothing", "checkpoint", "volume"])
def test_removal_that_needs_not_last_is_synced_if_more_goes_with_it(
    store: Store, image: Image, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    box = store.create_container(image, lasts=False)
    write(box, "x", "x")
    if what == "checkpoint":
        box.checkpoint("a")
    elif what == "volume":
        store.volumes.attach(box, [layerstore.Attachment("/data")])
    synced: list[bool] = []
    real = Database.write

    def noted(database: Database, *, durable: bool = True) -> AbstractContextManager[Transaction]:
        synced.append(durable)
        return real(database, durable=durable)

    monkeypatch.setattr(Database, "write", noted)
    box.remove(volumes=True, lasts=False)

    assert (True in synced) == (what != "nothing")
    assert store.containers() == []
    assert store.check() == []


def test_layers_of_a_removed_image_go_with_the_container(store: Store, image: Image, leftovers: Leftovers) -> None:
    box = store.create_container(image)
    write(box, "x", "x")
    made = box.commit()
    box.remove()
    made.remove()
    image.remove()
    store.close()
    assert leftovers() == []


# --- power cuts


def forget_boot(store: Store) -> None:
    """Let the store look as if it was last used before a reboot."""
    with store._parts.database.write() as tx:
        tx.execute("UPDATE containers SET boot = 'former'")
        tx.execute("UPDATE mounts SET boot = 'former'")
        tx.execute("UPDATE meta SET value = 'former' WHERE key = 'boot'")


def test_container_that_never_reached_the_disk_is_made_again(
    store: Store, image: Image, settings: layerstore.Config, data_root: Path
) -> None:
    box = store.create_container(image, name="web")
    key = Path(box.inspect()["GraphDriver"]["Data"]["UpperDir"]).parent
    key.rename(data_root.with_name("lost"))
    with pytest.raises(Damaged, match="layerstore rm web"):
        box.mount()
    forget_boot(store)
    with layerstore.open(config=settings) as again:
        assert again.check() == []
        with again.container("web").mount() as root:
            assert (root / "etc/passwd").exists()


def test_container_that_cannot_be_made_again_stops_nobody_else(
    store: Store, image: Image, settings: layerstore.Config, data_root: Path
) -> None:
    """Its size cannot be limited any more, say: then it says so itself, and the store opens."""
    box = store.create_container(image, name="web")
    Path(box.inspect()["GraphDriver"]["Data"]["UpperDir"]).parent.rename(data_root.with_name("lost"))
    forget_boot(store)
    with store._parts.database.write() as tx:
        tx.execute("UPDATE containers SET size = 1 << 20")
    refused = layerstore.DriverNotSupported("the size of a container cannot be limited")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("layerstore_overlay2.Overlay2._limit", lambda *_: throw(refused))
        with layerstore.open(config=settings) as again:
            assert [found.name for found in again.containers()] == ["web"]
            with pytest.raises(layerstore.DriverNotSupported, match="cannot be limited"):
                again.container("web").mount()
            again.container("web").remove()


def throw(error: Exception) -> None:
    raise error


def test_lost_container_that_was_used_is_told(
    store: Store, image: Image, settings: layerstore.Config, data_root: Path
) -> None:
    box = store.create_container(image, name="web")
    write(box, "x", "x")
    Path(box.inspect()["GraphDriver"]["Data"]["UpperDir"]).parent.rename(data_root.with_name("lost"))
    forget_boot(store)
    with layerstore.open(config=settings) as again:
        assert [problem.kind for problem in again.check()] == ["missing container"]
        lost = again.container("web")
        with pytest.raises(Damaged):
            lost.mount()
        lost.remove()
        assert again.check() == []


def test_mounts_of_a_former_boot_are_void(store: Store, image: Image, settings: layerstore.Config) -> None:
    box = store.create_container(image, name="web")
    mounted = box.mount(persistent=True)
    subprocess.run(["umount", mounted.path], check=True)
    forget_boot(store)
    with layerstore.open(config=settings) as again:
        assert again.container("web").mounts == 0
        assert again.mounted() == []
        again.container("web").remove()


def test_sealed_layer_is_shared_only_where_the_root_looks_the_same(
    store: Store, add: Adder, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit's tar need not list the root directory: on other parents it must look as theirs."""
    bases = [add(make.layer(make.folder("./", mode=mode)), name=name) for name, mode in (("a", 0o755), ("b", 0o711))]
    roots = []
    for base in bases:
        box = store.create_container(base)
        with box.mount() as root:
            (root / "new").write_text("same")
            os.utime(root / "new", ns=(0, 10**18))
            os.utime(root, ns=(0, 10**18))
        made = box.commit()
        with made.mount() as root:
            roots.append(root.stat().st_mode & 0o777)
    assert roots == [0o755, 0o711]
    assert store.check(content=True) == []


def test_recipe_of_several_mounts_is_wholly_unmounted(
    store: Store, image: Image, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a driver has it whose layers must be mounted before they can be stacked."""
    real = type(store._parts.storage.driver).mounts
    place = data_root / "overlay2" / ".below"
    place.mkdir()

    def several(*args: Any, **more: Any) -> Sequence[Mount]:
        [overlay] = real(*args, **more)
        lowest = [value for key, value in overlay.options if key == "lowerdir+"][-1]
        options = tuple((key, str(place) if value == lowest else value) for key, value in overlay.options)
        return (Mount("bind", str(lowest), read_only=True, target=str(place)), evolve(overlay, options=options))

    monkeypatch.setattr(type(store._parts.storage.driver), "mounts", several)
    box = store.create_container(image, name="box")
    for _ in range(2):
        with box.mount() as root:
            (root / "new").write_text((root / "etc/passwd").read_text())
            assert [path for _, path in mounts_below(data_root)] == [root]
        assert mounts_below(data_root) == []
    with image.mount() as root:
        assert (root / "etc/passwd").read_text() == "root:x:0:0\n"
        assert mounts_below(data_root) == []
    assert "/new" in [str(change.path) for change in box.changes()]
    assert mounts_below(data_root) == mounts_below(root.parent) == []
