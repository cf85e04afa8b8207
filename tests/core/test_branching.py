"""Checkpoints, the way back, forks: on every driver, mounted and not, in use and not; and what keeps them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import layerstore
from core.adding import Adder
from layerstore import ConfigError, Container, InUse, NameInUse, NotFound, Store
from layerstore.driver import Layer
from layerstore.images.trees import changes_between
from layerstore.layers.files import LayerFiles
from layerstore.locks import of_container
from layerstore.segments.rows import STEP

pytestmark = pytest.mark.root

PLACES = {"overlay2": "ext4", "btrfs": "btrfs", "vfs": "xfs", "aufs": "ext4"}


@pytest.fixture(params=PLACES)
def any_store(request: pytest.FixtureRequest, backing: Callable[[str], Path]) -> Iterator[Store]:
    """A store of each driver."""
    folder = backing(PLACES[request.param])
    config = layerstore.Config(data_root=folder / "store", exec_root=folder / "exec", storage_driver=str(request.param))
    with layerstore.open(config=config) as opened:
        yield opened


@pytest.fixture
def box(any_store: Store, base: bytes) -> Container:
    """A container on an image."""
    [image] = [Adder(any_store)(base, name="base")]
    return any_store.create_container(image, name="box")


def texts(root: Path) -> dict[str, str]:
    """What all files say."""
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def write(box: Container, **files: str) -> dict[str, str]:
    """Write these, and say what is there then."""
    with box.mount() as root:
        for name, text in files.items():
            (root / name).write_text(text)
        return texts(root)


def has(box: Container) -> dict[str, str]:
    with box.mount() as root:
        return texts(root)


def test_a_container_goes_back_and_forth(box: Container) -> None:
    first = write(box, one="1")
    box.checkpoint("first")
    with box.mount() as root:
        shutil.rmtree(root / "etc")
        (root / "etc").mkdir()
        (root / "etc/passwd").write_text("nobody")
    second = write(box, two="2")
    assert box.checkpoint("second").consistent
    write(box, three="3")
    for label, expected in (("first", first), ("second", second), ("first", first)):
        box.rollback(label)
        assert has(box) == expected
    assert [point.label for point in box.checkpoints()] == ["first", "second"]


def test_checkpoints_below_are_those_that_it_stands_on(box: Container, any_store: Store) -> None:
    def below() -> list[str]:
        return [checkpoint.label for checkpoint in box.checkpoints(below=True)]

    for label in ("a", "b", "c"):
        with box.mount() as root:
            (root / label).write_text(label)
        box.checkpoint(label)
    in_layers = any_store.driver_name == "overlay2"
    assert below() == (["a", "b", "c"] if in_layers else [])
    box.rollback("a")
    assert below() == ["a"]
    assert len(box.checkpoints()) == 3
    box.rollback("c")
    assert below() == (["a", "b", "c"] if in_layers else ["c"])
    assert box.chain_id == any_store.image("base").chain_id
    image = box.commit("next")
    assert box.chain_id == image.chain_id
    assert below() == []


def test_what_holds_its_mount_holds_it_still(box: Container) -> None:
    with box.mount() as root:
        (root / "one").write_text("1")
        box.checkpoint("a")
        assert box.mountpoint == root
        (root / "one").write_text("2")
        box.rollback("a")
        assert (box.mountpoint, (root / "one").read_text()) == (root, "1")
        box.rollback("a")
        (root / "after").write_text("x")
        box.checkpoint("b")
        assert box.mounts == 1
    assert (box.mountpoint, has(box)["after"]) == (None, "x")


def test_nothing_written_costs_nothing(box: Container, any_store: Store) -> None:
    before = sorted(any_store._parts.storage.driver.keys())
    for label in ("a", "b"):
        box.checkpoint(label)
    box.rollback("a")
    assert sorted(any_store._parts.storage.driver.keys()) == before


def test_forks_are_containers_of_their_own(box: Container, any_store: Store) -> None:
    written = write(box, one="1")
    made = box.fork(3, names=["a1", "a2", "a3"])
    assert [fork.name for fork in made] == ["a1", "a2", "a3"]
    for number, fork in enumerate(made):
        assert (has(fork), fork.image_id, fork.checkpoints()) == (written, box.image_id, [])
        write(fork, mine=str(number))
    assert has(box) == written
    assert [has(fork)["mine"] for fork in made] == ["0", "1", "2"]
    assert [str(change) for change in made[0].changes()] == ["A /mine", "A /one"]
    box.remove()
    assert has(made[2]) == {**written, "mine": "2"}
    for fork in made:
        fork.remove()
    assert any_store.check() == []


def test_a_checkpoint_is_forked_too(box: Container) -> None:
    then = write(box, one="1")
    point = box.checkpoint()
    write(box, one="2")
    [past] = point.fork()
    assert (point.label, has(past)) == ("1", then)
    point.remove()
    assert has(past) == then
    with pytest.raises(NotFound):
        point.fork()


def test_any_two_are_compared(box: Container) -> None:
    write(box, one="1")
    first = box.checkpoint("first")
    with box.mount() as root:
        (root / "one").unlink()
        (root / "etc/passwd").write_text("x")
    second = box.checkpoint("second")
    write(box, three="3")
    assert [str(change) for change in box.changes("first")] == ["C /etc", "C /etc/passwd", "D /one", "A /three"]
    assert [str(change) for change in second.changes(first)] == ["C /etc", "C /etc/passwd", "D /one"]
    assert [str(change) for change in first.changes(second)] == ["C /etc", "C /etc/passwd", "A /one"]
    assert [str(change) for change in first.changes()] == ["A /one"]
    [fork] = first.fork()
    for new, old in ((fork, box), (box, fork), (fork, second), (second, box.image)):
        assert old is not None
        assert list(new.changes(old)) == list(changes_between(new, old))


def test_what_was_written_since_a_checkpoint_is_a_tar(box: Container) -> None:
    def names(of: Container, since: layerstore.Checkpoint | Container | str | None) -> list[str]:
        tar = bytearray()
        of.write_changes(tar.extend, since=since)
        with tarfile.open(fileobj=io.BytesIO(tar)) as found:
            return sorted(set(found.getnames()) - {"."})

    write(box, a="1")
    box.checkpoint("first")
    write(box, b="2")
    second = box.checkpoint("second")
    [fork] = second.fork()
    write(fork, c="3")
    with fork.mount() as root:
        (root / "a").unlink()

    assert names(box, None) == ["a", "b"]
    assert names(box, "first") == ["b"]
    assert names(box, second) == []
    assert names(fork, second) == [".wh.a", "c"]
    box.rollback("first")
    assert names(box, second) == [".wh.b"]
    assert names(fork, box) == [".wh.a", "b", "c"]


def test_nobody_rolls_it_back_between_the_look_at_it_and_the_tar(
    box: Container, any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(box, a="1")
    box.checkpoint("first")
    write(box, b="2")
    changes, locked = Container.changes, []

    def found(self: Container, since: Any = None) -> Any:
        looked = changes(self, since)
        locked.append(any_store._parts.locks.is_held(of_container(self.id)))
        return looked

    monkeypatch.setattr(Container, "changes", found)
    tar = bytearray()
    box.write_changes(tar.extend, since="first")
    assert locked == [True]
    with tarfile.open(fileobj=io.BytesIO(tar)) as written:
        assert "b" in written.getnames()


def test_a_commit_is_one_layer_of_the_same_digest(box: Container, any_store: Store) -> None:
    plain = any_store.create_container("base")
    for one in (box, plain):
        for number in range(3):
            with one.mount() as root:
                made = root / f"file{number}"
                made.write_text("x")
                (root / "usr/tool").unlink(missing_ok=True)
                for path in (made, root / "usr", root):
                    os.utime(path, (5, 5))
            if one is box:
                box.checkpoint()
    of_box, of_plain = box.commit("box:1"), plain.commit("plain:1")
    assert of_box.layers == of_plain.layers
    for one, image in ((box, of_box), (plain, of_plain)):
        assert (one.image_id, list(one.changes()), list(one.changes(image))) == (image.id, [], [])
    before = has(box)
    assert len(box.checkpoints()) == 3
    box.rollback("1")
    assert (len(has(box)), "file0" in has(box), "file2" in has(box)) == (len(before) - 2, True, False)


def test_long_stacks_stay_shallow(box: Container, any_store: Store) -> None:
    states = {}
    for number in range(3 * STEP + 1):
        states[str(number)] = write(box, **{f"f{number % 5}": str(number), "last": str(number)})
        box.checkpoint(str(number))
    any_store.wait()
    for label, expected in states.items():
        box.rollback(label)
        assert has(box) == expected
        assert list(box.changes()) == list(changes_between(box, any_store.image("base")))
    data = box.inspect()["GraphDriver"]["Data"]
    assert len(data.get("LowerDir", "").split(":")) <= 6
    assert any_store.check() == []


def test_while_somebody_is_inside(box: Container) -> None:
    with box.mount() as root, open(root / "held", "w") as held:
        held.write("a")
        held.flush()
        point = box.checkpoint("busy")
        held.write("b")
        with pytest.raises(InUse, match="is in use"):
            box.rollback("busy")
        held.flush()
        assert (root / "held").read_text() == "ab"
    assert has(box)["held"] == "ab"
    box.rollback("busy")
    assert has(box)["held"] == "a"
    assert point.changes(box.image) is not None


def test_programs_that_run_in_it(box: Container, tmp_path: Path) -> None:
    place = tmp_path / "tree"
    place.mkdir()
    write(box, one="1")
    asleep: list[str] = []

    @contextmanager
    def quiet() -> Iterator[None]:
        asleep.append("yes")
        yield

    process = box.launch(["sleep", "100"], root=place)
    try:
        box.checkpoint("running")
        assert box.checkpoint("frozen", quiet=quiet()).consistent
        [fork] = box.fork()
        with pytest.raises(InUse, match="is running"):
            box.rollback("frozen")
    finally:
        process.kill()
        process.wait()
    box.rollback("running")
    assert has(box)["one"] == has(fork)["one"] == "1"
    assert asleep in ([], ["yes"])


def test_programs_that_start_after_a_checkpoint_see_what_the_mount_shows(box: Container, tmp_path: Path) -> None:
    place = tmp_path / "tree"
    place.mkdir()
    with box.mount() as root:
        (root / "one").write_text("1")
        box.checkpoint("a")
        box.rollback("a")
        process = box.launch(["sh", "-c", f"echo 2 >{place}/two; exec sleep 100"], root=place)
        try:
            while not (root / "two").exists() or not (root / "two").read_text():
                time.sleep(0.01)
            assert [one.pid for one in box.processes()] == [process.pid]
            with pytest.raises(InUse, match="is running"):
                box.rollback("a")
        finally:
            process.kill()
            process.wait()
        assert texts(root)["two"] == "2\n"
        box.rollback("a")
        assert "two" not in texts(root)
    assert has(box)["one"] == "1"


@pytest.mark.parametrize("number", [0, -1])
def test_how_many_is_one_or_more(box: Container, number: int) -> None:
    with pytest.raises(ConfigError, match=f"{number} forks cannot be made"):
        box.fork(number)
    with pytest.raises(ConfigError, match="1 or more"):
        box.checkpoint().fork(number)


def test_names_are_taken_once(box: Container) -> None:
    box.checkpoint("a")
    with pytest.raises(NameInUse):
        box.checkpoint("a")
    with pytest.raises(NameInUse):
        box.fork(names=["box"])
    with pytest.raises(layerstore.ConfigError):
        box.checkpoint("no/label")
    with pytest.raises(layerstore.ConfigError):
        box.fork(0)


def test_its_image_stays(box: Container, any_store: Store) -> None:
    write(box, one="1")
    kept = box.checkpoint("kept")
    image = any_store.image("base")
    write(box, two="2")
    other = any_store.create_container("base", name="other")
    write(other, x="x")
    other.checkpoint("before")
    other.rollback("before")
    with pytest.raises(InUse):
        image.remove()
    box.remove()
    other.remove()
    image.remove()
    assert (any_store.info().layers, any_store.check()) == (0, [])
    with pytest.raises(NotFound):
        kept.remove()


def test_what_is_missing_is_told(box: Container, any_store: Store) -> None:
    write(box, one="1")
    box.checkpoint("a")
    write(box, one="2")
    box.checkpoint("b")
    any_store.wait()
    parts = any_store._parts
    with parts.database.read() as tx:
        [key, *_] = [row[0] for row in tx.execute("SELECT key FROM segments ORDER BY number")]
    tree = parts.storage.files.place_of(layerstore.driver.Layer(key))
    if parts.storage.driver.name == "btrfs":
        subprocess.run(["btrfs", "subvolume", "delete", tree], check=True, stdout=subprocess.DEVNULL)
    else:
        shutil.rmtree(tree)
    [problem] = [problem for problem in any_store.check() if problem.kind == "missing checkpoint"]
    assert "of container box" in problem.text


def test_a_checkpoint_that_goes_while_it_is_looked_at_is_no_problem(
    box: Container, any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(box, one="1")
    box.checkpoint("a")
    write(box, one="2")
    any_store.wait()
    with any_store._parts.database.read() as tx:
        [segment] = [str(row[0]) for row in tx.execute("SELECT key FROM segments")]
    kind = type(any_store._parts.storage.files)
    has = kind.has

    def removed_first(files: LayerFiles, layer: Layer) -> bool:
        if layer.key == segment and any_store.containers():
            with layerstore.open(config=any_store.config) as other:
                other.container("box").remove()
                other.wait()
        return has(files, layer)

    monkeypatch.setattr(kind, "has", removed_first)
    assert [problem for problem in any_store.check() if problem.kind == "missing checkpoint"] == []
    assert any_store.containers() == []


def test_what_it_occupies(box: Container) -> None:
    empty = box.usage().size
    write(box, big="x" * 1_000_000)
    box.checkpoint()
    assert box.usage().size >= empty + 1_000_000
    assert all(fork.usage().size < 1_000_000 for fork in box.fork(2))


def test_many_threads_branch_one_container(box: Container, any_store: Store) -> None:
    write(box, one="1")
    failures: list[BaseException] = []

    def live(number: int) -> None:
        try:
            for turn in range(3):
                point = box.checkpoint(f"p{number}-{turn}")
                [fork] = point.fork()
                write(fork, mine=str(number))
                fork.checkpoint("own")
                fork.rollback("own")
                fork.remove()
                point.remove()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (has(box)["one"], box.checkpoints(), any_store.check()) == ("1", [], [])


@pytest.mark.parametrize(("one", "other"), [("overlay2", "btrfs"), ("btrfs", "overlay2"), ("overlay2", "vfs")])
def test_a_conversion_keeps_them(one: str, other: str, backing: Callable[[str], Path], base: bytes) -> None:
    folder = backing("btrfs")
    before = layerstore.Config(data_root=folder / "store", exec_root=folder / "exec", storage_driver=one)
    states = {}
    with layerstore.open(config=before) as store:
        Adder(store)(base, name="base")
        box = store.create_container("base", name="box")
        for number in range(STEP + 1):
            states[str(number)] = write(box, **{"f": str(number), f"g{number}": "x"})
            box.checkpoint(str(number))
        now = write(box, top="t")
        box.checkpoint_named("1").fork(names=["fork"])
    layerstore.migrate(other, config=before)
    with layerstore.open(config=evolve(before, storage_driver=other)) as store:
        box = store.container("box")
        assert (has(box), has(store.container("fork"))) == (now, states["1"])
        for label, expected in states.items():
            box.rollback(label)
            assert has(box) == expected
        store.prune(containers=True, all_images=True)
        assert (store.check(), store.info().layers) == ([], 0)
