"""One thing at a time is damaged in every kind of file of a store: found, and cured, or named and dropped by word."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import layerstore
from core.adding import Adder
from layerstore import LayerstoreError, Problem, Store, check, facts, tar
from layerstore.digest import ChainID
from layerstore.kernel.btrfs import set_read_only, subvolumes
from layerstore.layers import Layers, garbage
from layerstore.records import Records
from layerstore.values import frozen
from layerstore.volumes import Attachment
from mending.store import BASE, LONE, Everything
from support import images as make
from support.properties import NIGHTLY

pytestmark = pytest.mark.root

DRIVERS = ["overlay2", "btrfs", "erofs"] + (["vfs", "aufs"] if NIGHTLY else [])


@frozen
class Case:
    """One thing that is done to the files of a layer, by its image and the number of the layer from below.

    `quick`: plain `check` finds it, without reading content. `here`: the store itself can repair it.
    """

    title: str
    image: str
    level: int
    do: Callable[[Path], object]
    quick: bool = True
    here: bool = True


def flip(name: str) -> Callable[[Path], None]:
    """Other bytes, at the same length and time."""

    def do(tree: Path) -> None:
        path = tree / name
        before = path.stat()
        with path.open("r+b") as file:
            file.seek(7)
            byte = file.read(1)
            file.seek(7)
            file.write(bytes([byte[0] ^ 1]))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return do


CASES = [
    Case("a bit of a file that another layer has, too", "first:1", 0, flip("etc/twice"), quick=False),
    Case("a bit of a file that nobody else has", "lone:1", 0, flip("lone"), quick=False, here=False),
    Case("a file that is gone", "first:1", 0, lambda tree: (tree / "etc/twice").unlink()),
    Case("a file that is shorter", "lone:1", 0, lambda tree: os.truncate(tree / "lone", 3), here=False),
    Case("a mode", "first:1", 0, lambda tree: (tree / "etc/passwd").chmod(0o600)),
    Case("an owner", "first:1", 1, lambda tree: os.chown(tree / "etc", 5, 5)),
    Case("an extended attribute", "first:1", 0, lambda tree: os.removexattr(tree / "etc/passwd", "user.note")),
    Case("a time", "first:1", 1, lambda tree: os.utime(tree / "etc/new", (1, 1))),
    Case("a symbolic link", "first:1", 0, lambda tree: (tree / "etc/name").unlink()),
    Case("a folder that is gone", "first:1", 0, lambda tree: (tree / "empty").rmdir()),
    Case("a file too many", "first:1", 1, lambda tree: (tree / "etc/more").write_text("not of this layer")),
    Case("another kind of file", "first:1", 0, lambda tree: swap(tree / "etc/twice")),
]


def swap(path: Path) -> None:
    path.unlink()
    path.mkdir()


def keys_of(store: Store, image: str) -> list[str]:
    """The keys of an image's layers, bottom to top."""
    with store._parts.database.read() as tx:
        rows = tx.execute("SELECT chain_id, key FROM layers").fetchall()
    found = {ChainID(chain): str(key) for chain, key in rows}
    return [found[chain] for chain in store.image(image).chain_ids]


def tree_of(store: Store, image: str, level: int) -> Path:
    found = store._parts.images.folders_of(store.image(image))
    return found[store.image(image).chain_ids[level]]


@contextmanager
def written_to(store: Store, tree: Path) -> Iterator[Path]:
    """While inside, a layer can be damaged, whatever keeps it from being written to."""
    if store.driver_name != "btrfs":
        yield tree
        return
    set_read_only(tree, to=False)
    try:
        yield tree
    finally:
        if tree.exists():
            set_read_only(tree, to=True)


def found(store: Store, *, content: bool) -> list[Problem]:
    return list(store.check(content=content))


def assert_whole(store: Store) -> None:
    assert [str(problem) for problem in store.check(content=True)] == []
    with store.image("second:1").mount() as root:
        assert len((root / "etc/passwd").read_text()) == 3300
        assert (root / "copy").read_text() == "of this there are two" * 200
        assert not (root / "etc/group").exists()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A docker-archive of the layer that only one image has."""
    return make.docker_archive(tmp_path / "lone.tar", [LONE], ["lone:1"])


@pytest.mark.parametrize("driver", [driver for driver in DRIVERS if driver != "erofs"])
def test_files_of_layers(everything: Callable[[str], Everything], archive: Path, driver: str) -> None:
    store = everything(driver).open()
    for case in CASES:
        with written_to(store, tree_of(store, case.image, case.level)) as tree:
            case.do(tree)
        if not case.quick:
            assert not [one for one in found(store, content=False) if one.layer], case.title
        problems = found(store, content=not case.quick)
        assert {one.kind for one in problems} == {"damaged layer"}, (case.title, [str(one) for one in problems])
        layer = store.image(case.image).layers[case.level]
        assert {(one.subject.kind, one.subject.name) for one in problems if one.subject} == {("layer", layer)}
        taken = {str(subject) for one in problems for subject in one.affects}
        assert f"image {case.image if case.image != 'first:1' else 'also:first'}" in taken, case.title
        assert ("container box" in taken) == (case.image == "first:1"), case.title
        if not case.here:
            assert [str(one.error) for one in store.repair(problems) if one.is_done] == [], case.title
        done = list(store.repair(problems, sources=() if case.here else [str(archive)]))
        assert [str(one.error) for one in done if not one.is_done] == [], case.title
        assert_whole(store)
    with store.container("box").mount() as root:
        assert ((root / "written").read_text(), (root / "etc/passwd").read_text()) == ("after", "changed")


def test_what_has_come_into_a_folder_is_named_beside_its_time(everything: Callable[[str], Everything]) -> None:
    store = everything("overlay2").open()
    (tree_of(store, "first:1", 0) / "etc/strange").write_text("not the layer's")
    told = [problem.text.partition(": ")[2] for problem in found(store, content=False)]
    assert told == ["/etc: the time has changed", "/etc/strange: it does not belong to the layer"]


def test_many_files_cost_one_look_at_each_other_layer(
    everything: Callable[[str], Everything], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = everything("overlay2").open()
    contents = [f"{number} of many" * 300 for number in range(9)]
    add = Adder(store)
    add(make.layer(*(make.file(f"{number}", text) for number, text in enumerate(contents))), name="many:1")
    add(make.layer(*(make.file(f"as-{number}", text) for number, text in enumerate(contents))), name="twins:1")
    for path in tree_of(store, "many:1", 0).iterdir():
        path.unlink()
    looked: list[Path] = []
    index_of = tar.index_of

    def noted(skeleton: Path) -> tar.Index:
        looked.append(skeleton)
        return index_of(skeleton)

    monkeypatch.setattr(tar, "index_of", noted)
    assert all(one.is_done for one in store.repair(found(store, content=False)))
    assert sorted(set(looked)) == sorted(looked)
    with store.image("many:1").mount() as root:
        assert [(root / str(number)).read_text() for number in range(9)] == contents
    assert_whole(store)


def beside(store: Store, kind: str) -> Sequence[tuple[str, Path]]:
    """Files of the store that are no layer's, with what is to come of it."""
    root = store.data_root
    key = keys_of(store, "lone:1")[0]
    base = keys_of(store, "first:1")[0]
    [blob] = (root / "blobs/sha256").iterdir()
    return {
        "archive": [("a skeleton", root / "skeletons" / key), ("a blob", blob)],
        "here": [
            ("a shadowed file", root / "skeletons" / f"{base}.shadowed/0"),
            *(("a record", next((root / "records" / name).iterdir())) for name in ("images", "containers", "volumes")),
            ("the record of the store", root / "records/store/store"),
        ],
    }[kind]


@pytest.mark.parametrize("driver", DRIVERS[:1] if not NIGHTLY else DRIVERS)
@pytest.mark.parametrize("what", ["altered", "gone"])
def test_files_beside_layers(everything: Callable[[str], Everything], tmp_path: Path, driver: str, what: str) -> None:
    store = everything(driver).open()
    layout = make.oci_layout(tmp_path / "layout", [LONE, BASE], "both:1")
    for kind in ("archive", "here"):
        for number in range(len(beside(store, kind))):
            title, path = beside(store, kind)[number]
            if what == "gone":
                path.unlink()
            else:
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 0x10
                path.write_bytes(data)
            problems = found(store, content=True)
            if what == "gone" and "record" in title:  # which looking at it makes anew
                assert problems == []
                assert path.exists()
                continue
            assert problems != [], title
            done = list(store.repair(problems, sources=[str(layout)] if kind == "archive" else []))
            left = [str(one.error) for one in done if not one.is_done]
            assert left == [], (title, [str(one) for one in problems])
            assert_whole(store)


def test_a_record_that_the_power_took_is_written_anew(everything: Callable[[str], Everything]) -> None:
    store = everything("overlay2").open()
    record = next((store.data_root / "records/images").iterdir())
    before = record.read_bytes()
    record.write_bytes(b"")
    assert found(store, content=True) == []
    assert record.read_bytes() == before


def test_what_is_being_written_down_is_no_problem(
    everything: Callable[[str], Everything], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = everything("overlay2").open()
    begun, write = threading.Event(), Records.write

    def slowly(*arguments: Any) -> None:
        begun.set()
        time.sleep(0.1)
        write(*arguments)

    monkeypatch.setattr(Records, "write", slowly)
    for deed in (lambda: store.tag("lone:1", "more:1"), lambda: store.remove_image("more:1")):
        begun.clear()
        other = threading.Thread(target=deed)
        other.start()
        begun.wait()
        assert found(store, content=False) == []
        other.join()


def test_a_record_that_goes_while_it_is_looked_at_is_nothing_strange(
    everything: Callable[[str], Everything], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = everything("overlay2").open()
    monkeypatch.setattr(Records, "_there", lambda records: iter([records.folder / "images" / ("0" * 64)]))
    assert found(store, content=False) == []


@pytest.mark.parametrize(
    "failure", [LayerstoreError("the database is busy"), OSError(errno.ENOLCK, "No locks available"), MemoryError()]
)
def test_no_commit_fails_for_its_record(
    everything: Callable[[str], Everything], failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise failure

    def refuse(*_: object) -> None:
        raise LayerstoreError("the database is busy")

    store = everything("overlay2").open()
    with monkeypatch.context() as patch:
        patch.setattr(Records, "write", fails)
        patch.setattr(facts, "clear", refuse)
        store.tag("lone:1", "more:1")
    assert store.image("more:1").tags == ("lone:1", "more:1")
    assert [problem.kind for problem in found(store, content=False)] == ["record"]


def test_a_record_that_cannot_be_read_is_told_and_stops_nothing(everything: Callable[[str], Everything]) -> None:
    there = everything("overlay2")
    with layerstore.open(config=there.config) as store:
        facts.ask_for_recovery(store._parts.database, store._parts.session.stay)
    records = there.root / "records"
    broken = [records / "store/store", next((records / "images").iterdir())]
    for path in broken:
        path.unlink()
        path.mkdir()
    garbage = there.root / "skeletons" / ("0" * 32)
    garbage.write_text("?")
    store = there.open()
    assert not garbage.exists()
    altered = next((records / "volumes").iterdir())
    altered.write_text("?")
    problems = found(store, content=False)
    assert {(one.kind, one.path) for one in problems} == {("record", str(path)) for path in (*broken, altered)}
    assert [one.is_done for one in store.repair(problems)] == [False, False, False]
    assert {one.path for one in found(store, content=False)} == {str(path) for path in broken}


@pytest.mark.parametrize("form", ["docker-archive", "oci", "tar", "tar.gz", "compressed archive"])
def test_what_a_layer_can_be_had_from(
    everything: Callable[[str], Everything], tmp_path: Path, archive: Path, form: str
) -> None:
    source = tmp_path / "source"
    match form:
        case "docker-archive":
            source = archive
        case "oci":
            make.oci_layout(source, [LONE], "lone:1")
        case "tar":
            source.write_bytes(LONE)
        case "tar.gz":
            source.write_bytes(gzip.compress(LONE))
        case _:
            source.write_bytes(gzip.compress(archive.read_bytes()))
    store = everything("overlay2").open()
    flip("lone")(tree_of(store, "lone:1", 0))
    problems = found(store, content=True)
    [done] = store.repair(problems, sources=[str(source)])
    assert (done.error, done.how) == (None, f"repaired from {source}")
    assert_whole(store)


def test_garbage_goes_and_what_is_foreign_stays(everything: Callable[[str], Everything]) -> None:
    store = everything("overlay2").open()
    root = store.data_root
    key = "0" * 32
    garbage = [root / "overlay2" / key, root / "skeletons" / key, root / "blobs/sha256" / ("0" * 64)]
    garbage.append(root / "containers" / ("0" * 64))
    foreign = [root / "overlay2/notes", root / "skeletons/README", root / "blobs/sha256/x", root / "volumes/mine"]
    for path in (*garbage, *foreign):
        path.parent.mkdir(exist_ok=True)
        if path.parent.name in ("overlay2", "containers", "volumes"):
            path.mkdir()
        else:
            path.write_text("?")
    problems = found(store, content=False)
    assert {problem.path for problem in problems} == {str(path) for path in (*garbage, *foreign)}
    done = {str(one.problem.path): one for one in store.repair(problems)}
    assert {path for path, one in done.items() if one.is_done} == {str(path) for path in garbage}
    store.wait()
    assert [path.exists() for path in (*garbage, *foreign)] == [False] * 4 + [True] * 4
    assert {problem.path for problem in found(store, content=False)} == {str(path) for path in foreign}


def test_what_somebody_is_removing_is_no_garbage(
    everything: Callable[[str], Everything], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = everything("overlay2").open()  # another session than that which made it
    looks: list[garbage.Garbage] = []
    looked, drop, find = threading.Event(), Layers.drop, garbage.find

    def drop_when_it_was_looked_at(*arguments: Any, **options: Any) -> None:
        assert looked.wait(60)
        drop(*arguments, **options)

    def look(*arguments: Any) -> garbage.Garbage:
        looks.append(find(*arguments))
        looked.set()
        return looks[-1]

    monkeypatch.setattr(Layers, "drop", drop_when_it_was_looked_at)
    monkeypatch.setattr(garbage, "find", look)
    monkeypatch.setattr(check, "PATIENCE", 60.0)
    store.container("box").remove()  # its checkpoints' files go in the background
    assert found(store, content=False) == []
    assert looks[0].home, "its rows were gone, and its files were there"


@pytest.mark.parametrize("driver", DRIVERS[:1] if not NIGHTLY else DRIVERS)
def test_what_nobody_has_is_named_and_goes_by_word(everything: Callable[[str], Everything], driver: str) -> None:
    store = everything(driver).open()
    with written_to(store, tree_of(store, "first:1", 1)) as tree:
        (tree / "etc/new").unlink()
    problems = found(store, content=True)
    left = [one.problem for one in store.repair(problems) if not one.is_done]
    if driver in ("btrfs", "vfs"):  # what stands on it holds what it held
        assert left == []
        return
    assert {problem.kind for problem in left} == {"damaged layer"}
    things = store.doomed(left)
    assert [str(thing.subject) for thing in things] == ["container box", "image also:first", "image second:1"]
    assert store.image("first:1").tags == ("also:first", "first:1"), "nothing was done"
    assert [error for _, error in store.drop(things)] == [None, None, None]
    assert [str(problem) for problem in store.check(content=True)] == []
    assert {tag for image in store.images() for tag in image.tags} == {"lone:1", "built:1"}
    assert [one.name for one in store.containers()] == ["bare"]
    with store.image("built:1").mount() as root:
        assert (root / "built").read_text() == "by a build" * 20


def test_what_people_wrote_is_named_when_it_is_gone(everything: Callable[[str], Everything]) -> None:
    store = everything("overlay2").open()
    with store._parts.database.read() as tx:
        segment = tx.execute("SELECT key FROM segments").fetchone()[0]
        key = tx.execute("SELECT key FROM containers WHERE name = 'bare'").fetchone()[0]
    for folder in (store.data_root / "overlay2" / segment, store.data_root / "overlay2" / key):
        shutil.rmtree(folder)
    shutil.rmtree(store.data_root / "volumes/data/_data")
    problems = found(store, content=False)
    assert sorted(problem.kind for problem in problems) == ["missing checkpoint", "missing container", "missing volume"]
    assert not any(one.is_done for one in store.repair(problems))
    assert [str(thing.subject) for thing in store.doomed(problems)] == [
        "container box",
        "container bare",
        "volume data",
    ]
    assert [str(error) for _, error in store.drop(store.doomed(problems)) if error] == []
    assert_whole(store)


def test_a_container_goes_with_a_volume_that_it_uses(everything: Callable[[str], Everything]) -> None:
    store = everything("overlay2").open()
    store.volumes.attach(store.create_container("first:1", name="user"), [Attachment("/data", "data")])
    shutil.rmtree(store.data_root / "volumes/data/_data")
    problems = found(store, content=False)
    assert [str(subject) for problem in problems for subject in problem.affects] == ["container user"]
    things = store.doomed(problems)
    assert [str(thing.subject) for thing in things] == ["container user", "volume data"]
    assert [error for _, error in store.drop(things)] == [None, None]
    assert_whole(store)


def test_scratch_that_is_gone_is_made_anew(everything: Callable[[str], Everything]) -> None:
    store = everything("overlay2").open()
    with store._parts.database.read() as tx:
        keys = [row[0] for row in tx.execute("SELECT key FROM containers")]
    for key in keys:
        for name in ("work", "merged"):
            shutil.rmtree(store.data_root / "overlay2" / key / name, ignore_errors=True)
    assert_whole(store)
    for name in ("box", "bare"):
        with store.container(name).mount() as root:
            (root / "more").write_text("more")


@pytest.mark.parametrize(("driver", "home"), [("vfs", "vfs/dir"), ("btrfs", "btrfs/subvolumes")])
def test_garbage_is_where_it_is_said_to_be(everything: Callable[[str], Everything], driver: str, home: str) -> None:
    store = everything(driver).open()
    path = store.data_root / home / ("0" * 32)
    if driver == "btrfs":
        subvolumes.create(path)
    else:
        path.mkdir()
    problems = found(store, content=False)
    assert [problem.path for problem in problems] == [str(path)]
    assert all(one.is_done for one in store.repair(problems))
    assert not path.exists()
    assert_whole(store)


def test_what_is_no_record_is_foreign(everything: Callable[[str], Everything]) -> None:
    store = everything("overlay2").open()
    records = store.data_root / "records"
    (records / "images/mine").mkdir()
    (records / "volumes/other").write_text("?")
    problems = found(store, content=False)
    assert {problem.kind: problem.path for problem in problems} == {
        "foreign": str(records / "images/mine"),
        "record": str(records / "volumes/other"),
    }
    assert {one.problem.kind for one in store.repair(problems) if one.is_done} == {"record"}
    assert [problem.kind for problem in found(store, content=False)] == ["foreign"]


def test_a_blob_that_cannot_be_read_is_told_and_stops_nothing(
    everything: Callable[[str], Everything], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = everything("overlay2").open()
    folder = store.data_root / "blobs/sha256"
    [blob] = folder.iterdir()

    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", refuse)
        assert [str(problem) for problem in found(store, content=True)] == [
            f"damaged blob: the kept blob sha256:{blob.name}: Input/output error"
        ]
    blob.unlink()
    blob.mkdir()
    (folder / ("0" * 64)).mkdir()
    assert sorted((problem.kind, problem.path) for problem in found(store, content=False)) == [
        ("damaged blob", str(blob)),
        ("foreign", str(folder / ("0" * 64))),
        ("foreign", str(blob)),
    ]


def test_a_name_that_is_none_any_more_keeps_no_image_from_being_seen(everything: Callable[[str], Everything]) -> None:
    store = everything("overlay2").open()
    with store._parts.database.write() as tx:
        tx.execute("UPDATE tags SET name = 'docker.io/library''lone:1' WHERE name = 'docker.io/library/lone:1'")
    [image] = [image for image in store.images() if image.tags == ("docker.io/library'lone:1",)]
    (tree_of(store, image.id, 0) / "lone").unlink()
    [problem] = found(store, content=False)
    assert [str(subject) for subject in problem.affects] == ["image docker.io/library'lone:1"]
    store.remove_image(image.id, force=True)
    assert {tag for image in store.images() for tag in image.tags} == {"first:1", "also:first", "second:1", "built:1"}


def test_a_layer_that_is_a_file_is_made_anew(everything: Callable[[str], Everything]) -> None:
    store = everything("overlay2").open()
    folder = tree_of(store, "first:1", 0).parent
    other = Adder(store)(BASE, LONE, name="other:1")
    shutil.rmtree(folder)
    folder.write_text("no folder")
    source = [str(make.oci_layout(store.data_root.parent / "layout", [BASE], "base:1"))]
    assert all(one.is_done for one in store.repair(found(store, content=False), sources=source))
    assert not folder.exists()
    assert other.tags == ("other:1",)
    assert_whole(store)


def test_a_mounted_container_goes_on_and_its_next_mount_is_mended(everything: Callable[[str], Everything]) -> None:
    store = everything("overlay2").open()
    with store.container("box").mount() as root:
        tree = tree_of(store, "first:1", 0)
        (tree / "etc/twice").unlink()
        assert all(one.is_done for one in store.repair(found(store, content=False)))
        with suppress(OSError):  # what overlay shows of a layer that is altered below it is not told
            (root / "etc/twice").exists()
        (root / "more").write_text("while it is mounted")
    with store.container("box").mount() as root:
        assert (root / "etc/twice").read_text() == "of this there are two" * 200
        assert (root / "more").read_text() == "while it is mounted"
    assert_whole(store)


def test_a_row_that_is_not_what_it_was_is_told(everything: Callable[[str], Everything]) -> None:
    """SQLite has no checksums: a config is proved by its image's ID, and all else by its record."""
    store = everything("overlay2").open()
    with store._parts.database.write() as tx:
        tx.execute("DROP TRIGGER temp.noted_tags_UPDATE")
        tx.execute("UPDATE tags SET name = 'docker.io/library/lone:2' WHERE name = 'docker.io/library/lone:1'")
    [problem] = found(store, content=False)
    assert problem.kind == "record"
    assert str(problem).endswith("is not what the database says")


def test_reading_is_as_slow_as_one_wants(everything: Callable[[str], Everything]) -> None:
    store = everything("overlay2").open()
    read: dict[str, int] = {}
    began = time.monotonic()
    list(store.check_iter(content=True, progress=lambda label, done, total: read.update({label: done}), rate=200_000))
    assert len(read) == 5
    assert time.monotonic() - began > 0.9 * sum(read.values()) / 200_000


def own_files(root: Path, driver: str) -> list[Path]:
    """Files by which a store and a driver remember how they work here, and nothing of what they keep."""
    found = [root / "locks", *sorted((root / "reserve").iterdir())[:2], *(root / driver).iterdir()]
    return [path for path in found if path.is_file()]


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_only_remembered_is_found_out_anew(everything: Callable[[str], Everything], driver: str) -> None:
    there = everything(driver)
    for number in range(len(own_files(there.root, driver))):
        for damage in (lambda path: path.write_bytes(os.urandom(64)), Path.unlink):
            files = own_files(there.root, driver)
            if number >= len(files):
                continue
            damage(files[number])
            with layerstore.open(config=there.config) as store:
                assert_whole(store)
                with store.container("box").mount() as root:
                    assert (root / "written").read_text() == "after"
                store.create_container("first:1", name="more").remove()
