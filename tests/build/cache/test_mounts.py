"""Folders that steps share: kept from step to step, shared as they say, containers that nobody else removes."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import layerstore
from layerstore import ConfigError, InUse, InvalidArchive, KernelError, NotFound, Store
from layerstore.build.cache import Cache, prune
from support import images as make

from .conftest import Done

pytestmark = pytest.mark.root


def test_what_one_step_leaves_the_next_finds(store: Store, cache: Cache, settings: layerstore.Config) -> None:
    with cache.mounts.mount("npm") as folder:
        (folder / "left").write_text("x")
    with cache.mounts.mount("npm") as folder:
        assert (folder / "left").read_text() == "x"
    with cache.mounts.mount("other") as folder:
        assert list(folder.iterdir()) == []
    store.close()
    with layerstore.open(config=settings) as again, Cache(again).mounts.mount("npm") as folder:
        assert (folder / "left").read_text() == "x"


def test_an_empty_one_belongs_to_whom_the_mount_says(cache: Cache) -> None:
    with cache.mounts.mount("mine", owner=(7, 8), mode=0o1770) as folder:
        facts = folder.stat()
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (7, 8, 0o1770)
    with cache.mounts.mount("mine") as folder:  # another, for it begins as something else
        assert folder.stat().st_uid == 0


def test_one_begins_as_what_a_layer_has(cache: Cache, done: Done) -> None:
    layer = done("a" * 64, name="srv/seed")
    with cache.mounts.mount("seeded", on=layer.chain_id, source="/srv") as folder:
        assert [path.name for path in folder.iterdir()] == ["seed"]
        (folder / "more").touch()
    with cache.mounts.mount("seeded", on=layer.chain_id, source="srv") as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["more", "seed"]
    with pytest.raises(NotFound), cache.mounts.mount("seeded", on=layer.chain_id, source="/nowhere"):
        pytest.fail("there is no such folder")


def test_a_link_in_what_it_begins_as_leads_nowhere_else(cache: Cache) -> None:
    import io as files
    from contextlib import nullcontext

    from layerstore import LayerSource

    tar = make.layer(make.symlink("out", "/etc"))
    layer = cache.store.add_layer(LayerSource(lambda: nullcontext(files.BytesIO(tar))))
    cache.store.lease(None, layer.chain_id, owner="test", name="x")
    with pytest.raises(NotFound), cache.mounts.mount("x", on=layer.chain_id, source="/out"):
        pytest.fail("it led to the host's /etc")


def test_shared_is_the_same_for_two_at_once(cache: Cache) -> None:
    with cache.mounts.mount("x") as one, cache.mounts.mount("x") as two:
        (one / "file").touch()
        assert (two / "file").exists()


def test_private_is_one_for_each_and_taken_up_again(cache: Cache) -> None:
    with cache.mounts.mount("x", sharing="private") as one, cache.mounts.mount("x", sharing="private") as two:
        (one / "one").touch()
        (two / "two").touch()
        assert not (two / "one").exists()
    with cache.mounts.mount("x", sharing="private") as one:
        assert [path.name for path in one.iterdir()] == ["one"]
    assert [mount.number for mount in cache.mounts.all()] == [0, 1]


def test_locked_is_waited_for(cache: Cache) -> None:
    waits = threading.Event()
    entered: list[bool] = []

    def second() -> None:
        with cache.mounts.mount("x", sharing="locked", waits=waits.set) as folder:
            entered.append((folder / "done").exists())

    with cache.mounts.mount("x", sharing="locked") as folder:
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(30)
        assert entered == []
        (folder / "done").touch()
    thread.join()
    assert entered == [True]


def test_no_other_sharing_is_known(cache: Cache) -> None:
    with pytest.raises(ConfigError, match="unsupported sharing"), cache.mounts.mount("x", sharing="wide"):  # type: ignore[arg-type]
        pytest.fail("there is no such sharing")


def test_its_container_is_removed_by_its_own_commands_alone(store: Store, cache: Cache) -> None:
    with cache.mounts.mount("x"):
        pass
    [mount] = cache.mounts.all()
    with pytest.raises(InUse, match="kept by build_cache"):
        store.container(mount.name).remove(force=True)
    store.prune(containers=True, all_images=True)
    assert cache.mounts.get("x") == mount
    with cache.mounts.mount("x"), pytest.raises(InUse, match="in use by a build"):
        cache.mounts.remove("x")
    cache.mounts.remove("x")
    assert (cache.mounts.all(), store.containers()) == ([], [])


def test_pruning_takes_those_that_no_step_has(store: Store, cache: Cache) -> None:
    with cache.mounts.mount("x") as folder:
        (folder / "file").write_bytes(b"x" * 50_000)
    with cache.mounts.mount("y"):
        pruned = prune(cache)
        assert [record.description for record in pruned.records] == ["cache x"]
        assert pruned.reclaimed >= 50_000
        assert [mount.id for mount in cache.mounts.all()] == ["y"]


def test_one_goes_out_as_a_tar_and_in_again_elsewhere(cache: Cache) -> None:
    with cache.mounts.mount("out") as folder:
        (folder / "deep").mkdir(mode=0o700)
        (folder / "deep/file").write_text("x")
    tar = io.BytesIO()
    cache.mounts.export("out", lambda data: tar.write(data))
    tar.seek(0)
    with tarfile.open(fileobj=tar) as read:
        assert {"deep", "deep/file"} <= {name.removeprefix("./") for name in read.getnames()}
    tar.seek(0)
    cache.mounts.take_in("in", tar)
    with cache.mounts.mount("in") as folder:
        assert (folder / "deep/file").read_text() == "x"
        assert (folder / "deep").stat().st_mode & 0o777 == 0o700


def test_no_tar_that_comes_in_reaches_the_host(cache: Cache, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    tar = make.layer(
        make.symlink("out", str(tmp_path)),
        make.file("out/victim", "theirs"),
        make.file(f"../../../../../../../..{victim}", "theirs"),
    )
    with suppress(InvalidArchive, KernelError):
        cache.mounts.take_in("x", io.BytesIO(tar))
    assert victim.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    with cache.mounts.mount("x", sharing="locked"):
        pass  # nobody holds it


def test_a_build_that_has_one_is_waited_for(cache: Cache) -> None:
    waits = threading.Event()
    tar = io.BytesIO()
    thread = threading.Thread(target=lambda: cache.mounts.export("x", tar.write, waits=waits.set))
    with cache.mounts.mount("x") as folder:
        thread.start()
        assert waits.wait(30)
        (folder / "late").touch()
    thread.join()
    tar.seek(0)
    with tarfile.open(fileobj=tar) as read:
        assert "late" in {name.removeprefix("./") for name in read.getnames()}


HOLD = """
import sys, layerstore
from layerstore.build.cache import Cache
data_root, exec_root = sys.argv[1:]
settings = layerstore.Config(data_root=data_root, exec_root=exec_root, storage_driver="overlay2")
with layerstore.open(config=settings) as store, Cache(store).mounts.mount("x", sharing="locked") as folder:
    (folder / "file").touch()
    print("has it", flush=True)
    sys.stdin.readline()
"""


def test_a_lock_dies_with_its_holder(cache: Cache, settings: layerstore.Config) -> None:
    command = [sys.executable, "-c", HOLD, settings.data_root, settings.exec_root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "has it\n"
        holder.kill()
    with cache.mounts.mount("x", sharing="locked") as folder:
        assert (folder / "file").exists()
