"""What walks have found, once mended: each in the few lines that it takes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

import layerstore
from layerstore.copying import Tree, copy, entries
from layerstore.testing.calls import Call, Death, Failure, Verdict, run_watched
from layerstore.testing.remains import descriptors

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("driver", "options"), [("overlay2", ()), ("aufs", ("aufs.mode=copy",))])
@pytest.mark.parametrize("call", ["write", "rename"])
def test_who_dies_while_what_works_is_noted_leaves_nothing(
    driver: str, options: tuple[str, ...], call: str, data_root: Path
) -> None:
    def create() -> None:
        config = layerstore.Config(
            data_root=data_root,
            exec_root=data_root.with_name("exec"),
            storage_driver=driver,
            storage_opts=options,
        )
        with layerstore.open(config=config) as store:
            store.create_container().mount().unmount()
            assert store.info().driver == driver

    def answer(_: int, one: Call) -> Death | None:
        return Death() if ".backing" in one.path else None

    create()
    home = data_root / driver  # where a store asks once a boot
    (home / ".backing").unlink()
    before = {*os.listdir(home)}
    assert run_watched(create, answer, names=[call]).died
    create()
    assert {name for name in {*os.listdir(home)} - before if name.startswith(".")} == {".backing"}


@pytest.mark.parametrize(("driver", "call", "made"), [("vfs", "syncfs", []), ("overlay2", "fsconfig", ["a"])])
def test_a_container_stays_mounted_when_a_call_of_its_checkpoint_fails(
    driver: str, call: str, made: list[str], data_root: Path
) -> None:
    config = layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver=driver)
    with layerstore.open(config=config) as store:
        box = store.create_container(name="web")
        (box.mount(persistent=True).path / "new").touch()
    seen: list[Call] = []

    def checkpoint() -> None:
        with layerstore.open(config=config) as store:
            store.container("web").checkpoint("a")

    def answer(_: int, one: Call) -> int | None:
        seen.append(one)
        return errno.ENOMEM if len(seen) == 1 else None

    def then(failure: Failure | None) -> list[str]:
        assert (failure is None) == bool(made), failure
        with layerstore.open(config=config) as store:
            box = store.container("web")
            assert box.mountpoint is not None
            found = os.listdir(box.mountpoint)
            assert [point.label for point in box.checkpoints()] == made
            box.unmount(all=True)
            return found

    run = run_watched(checkpoint, answer, then, names=[call])
    assert run.result == ["new"]
    assert seen


@pytest.mark.parametrize("call", ["newfstatat", "readlinkat"])
def test_what_cannot_be_looked_at_is_told_by_a_copy(call: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to("nowhere")
    handle = os.open(tmp_path / "tree", os.O_PATH)
    place = str(tmp_path / "tree/link")
    run = run_watched(
        lambda: list(entries.of_tree(handle, xattrs=False)),
        lambda _, one: errno.EIO if one.path == place else None,
        names=[call],
    )
    os.close(handle)
    assert run.failure is not None
    assert layerstore.KernelError.__name__ in run.failure.kinds, run.failure.trace
    assert "link" in run.failure.text


@pytest.mark.parametrize("nameless", [True, False])
def test_who_dies_while_he_copies_leaves_nothing_under_another_name(*, nameless: bool, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("new", "old"):
        (source / name).write_text("copied")
    (source / "other").hardlink_to(source / "old")
    (source / "way").symlink_to("new")
    os.mkfifo(source / "pipe")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))

    def copied() -> None:
        places = os.open(source, os.O_PATH), os.open(target, os.O_PATH)
        copy(Tree(places[0], "there"), "/.", Tree(places[1], "here"), "/", owner=(0, 0), archive=True, follow=False)

    for number in range(1, 100):
        target.mkdir()
        for name in ("old", "way"):
            (target / name).write_text("what was there")
        seen = 0

        def answer(_: int, call: Call, last: int = number) -> Verdict:
            nonlocal seen
            if not nameless and call.name == "openat" and call.arguments[2] & os.O_TMPFILE == os.O_TMPFILE:
                return errno.EOPNOTSUPP  # as on a filesystem that has no files without a name
            seen += call.alters
            return Death() if seen == last and call.alters else None

        died = run_watched(copied, answer).died
        names = {*os.listdir(target)}
        assert names <= {*os.listdir(source)}, number
        if nameless:
            assert {(target / name).read_text() for name in names & {"new", "old", "other"}} <= {
                "copied",
                "what was there",
            }
        if not died:
            assert number > 20
            assert names == {*os.listdir(source)}
            return
        shutil.rmtree(target)
    raise AssertionError("it has no end")


@pytest.mark.parametrize("deed", ["tag", "untag"])
def test_who_dies_while_a_record_is_written_leaves_it_to_the_next_open(deed: str, data_root: Path) -> None:
    config = layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2")
    with layerstore.open(config=config) as store:
        store.create_container().commit("old:1")

    def done() -> None:
        with layerstore.open(config=config) as store:
            if deed == "tag":
                store.tag("old:1", "new:1")
            else:
                store.remove_image("old:1")

    run = run_watched(done, lambda _, call: Death() if "/records/images/" in call.path and call.alters else None)
    assert run.died
    with layerstore.open(config=config) as store:
        assert [image.tags for image in store.images()] == ([("new:1", "old:1")] if deed == "tag" else [])
        assert store.check() == []


def test_what_stays_because_the_database_fails_after_a_commit_goes_with_the_next_open(data_root: Path) -> None:
    config = layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2")
    with layerstore.open(config=config) as store:
        box = store.create_container()
        with box.mount() as root:
            (root / "new").touch()
        box.commit("gone:1")
        box.remove()
    synced = 0

    def answer(_: int, call: Call) -> Verdict:
        nonlocal synced
        synced += call.name == "fdatasync" and call.path.endswith("-wal")
        # The log has a new beginning, which is synced first.
        return errno.EIO if synced == 2 and call.name != "fdatasync" else None

    def remove() -> None:
        with layerstore.open(config=config) as store:
            store.remove_image("gone:1")

    run = run_watched(remove, answer, names=["pread64", "pwrite64", "fdatasync"])
    assert run.failure is not None
    assert "LayerstoreError" in run.failure.kinds, run.failure.trace
    assert len(os.listdir(data_root / "skeletons")) == 2  # with its record
    with layerstore.open(config=config) as store:
        assert (store.images(), store.check()) == ([], [])
    assert os.listdir(data_root / "skeletons") == []


def test_an_open_that_cannot_look_at_its_database_leaves_it_closed(data_root: Path) -> None:
    config = layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2")

    def opened() -> None:
        layerstore.open(config=config).close()

    def left(_: Failure | None) -> list[str]:
        return [name for name in descriptors() if name.startswith(str(data_root))]

    opened()
    is_met = True
    number = 0
    while is_met:
        number += 1
        seen = 0

        def answer(_: int, call: Call, last: int = number) -> Verdict:
            nonlocal seen
            seen += call.path == str(data_root / "layerstore.db")
            return errno.ENOMEM if seen == last else None

        run = run_watched(opened, answer, left, names=["newfstatat"])
        assert run.result == [], number
        is_met = seen >= number
    assert number > 3


@pytest.mark.parametrize("driver", ["overlay2", "aufs"])
def test_what_is_left_of_a_trial_that_cannot_be_removed_goes_with_the_next(driver: str, data_root: Path) -> None:
    options = ("aufs.mode=copy",) if driver == "aufs" else ()
    config = layerstore.Config(
        data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver=driver, storage_opts=options
    )
    home = data_root / driver

    def create() -> None:
        with layerstore.open(config=config) as store:
            store.create_container().mount().unmount()
            assert store.info().driver == driver

    def answer(_: int, call: Call) -> int | None:
        return errno.EIO if ".layerstore-probe-" in call.path and (home / ".backing").exists() else None

    create()
    (home / ".backing").unlink()
    assert run_watched(create, answer, names=["rmdir", "unlinkat"]).failure is None
    assert any(name.startswith(".layerstore-probe-") for name in os.listdir(home))
    create()
    assert {name for name in os.listdir(home) if name.startswith(".")} <= {".backing", ".empty"}
