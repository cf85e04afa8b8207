"""A state that was met before is known again, and no other is taken for it."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import layerstore
from layerstore.kernel import btrfs
from layerstore.testing.torture.operations import OPERATIONS, Place, build_world, give
from layerstore.testing.torture.sameness import facts_of, names_in, same
from layerstore.testing.torture.walking import Ground, Walk
from torture.subjects import SUBJECTS

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A store with everything, closed."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("exec", "given", "copy"):
        (folder / name).mkdir()
    give(folder / "given")
    place = Place(folder / "store", folder / "exec", folder / "given", folder / "out", "overlay2")
    build_world(place)
    return place


@pytest.fixture
def clone(world: Place, tmp_path: Path) -> Iterator[Callable[[], Place]]:
    """`clone()`: another of the same, in the same place."""
    kept = tmp_path / "kept"
    subprocess.run(["cp", "-a", world.data_root, kept], check=True)

    def anew() -> Place:
        world.close()
        shutil.rmtree(world.data_root)
        subprocess.run(["cp", "-a", kept, world.data_root], check=True)
        return world

    yield anew
    anew()


def state(place: Place, usual: frozenset[bytes] = frozenset()) -> str:
    return same(facts_of(place.given, place.data_root, place.out, place.exec_root), usual)


def usual(place: Place) -> frozenset[bytes]:
    return names_in(facts_of(place.given, place.data_root, place.out))


def create(place: Place) -> None:
    place.store.create_container("base:1", name="new")
    place.close()


def rename(place: Place) -> None:
    place.store.container("changed").rename("renamed")
    place.close()


@pytest.mark.parametrize("deed", [create, rename])
def test_what_is_done_twice_comes_to_the_same(clone: Callable[[], Place], deed: Callable[[Place], None]) -> None:
    names = usual(clone())
    before = state(clone(), names)
    found = []
    for _ in range(2):
        place = clone()
        deed(place)
        found.append(state(place, names))
    assert found[0] == found[1] != before


def _alter_a_file(place: Place) -> None:
    path = next(place.data_root.glob("overlay2/*/diff/usr/2"))
    facts = path.stat()
    path.write_bytes(b"3" + path.read_bytes()[1:])
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _alter_digits(place: Place) -> None:
    path = next(place.data_root.glob("overlay2/*/diff/usr/2"))
    facts = path.stat()
    path.write_bytes(b"3" * 3000)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _alter_a_time(place: Place) -> None:
    path = next(place.data_root.glob("overlay2/*/diff/usr/2"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def _alter_an_xattr(place: Place) -> None:
    os.setxattr(next(place.data_root.glob("overlay2/*/diff/usr/2")), "user.mark", b"2")


def _alter_a_mode(place: Place) -> None:
    next(place.data_root.glob("overlay2/*/diff/usr/2")).chmod(0o600)


def _leave_a_file(place: Place) -> None:
    (place.data_root / "staging" / "0123456789abcdef").write_bytes(b"")


def _exchange(place: Place) -> None:
    one, other = sorted(path.parent.parent for path in place.data_root.glob("overlay2/*/diff/etc"))[:2]
    one.rename(spare := one.with_name("spare"))
    other.rename(one)
    spare.rename(other)


def _alter_a_row(place: Place) -> None:
    with closing(sqlite3.connect(place.data_root / "layerstore.db")) as database, database:
        [digest] = database.execute("SELECT diff_id FROM diffs").fetchone()
        wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
        database.execute("UPDATE diffs SET diff_id = ? WHERE diff_id = ?", (wrong, digest))


def _lose_an_index(place: Place) -> None:
    with closing(sqlite3.connect(place.data_root / "layerstore.db")) as database, database:
        database.execute("DROP INDEX tags_by_image")


def _lose_a_row(place: Place) -> None:
    with closing(sqlite3.connect(place.data_root / "layerstore.db")) as database, database:
        database.execute("DELETE FROM tags WHERE name LIKE '%second'")


@pytest.mark.parametrize(
    "damage",
    [
        _alter_a_file,
        _alter_digits,
        _alter_a_time,
        _alter_an_xattr,
        _alter_a_mode,
        _leave_a_file,
        _exchange,
        _alter_a_row,
        _lose_a_row,
        _lose_an_index,
    ],
)
def test_nothing_else_is_taken_for_it(clone: Callable[[], Place], damage: Callable[[Place], None]) -> None:
    names = usual(clone())
    place = clone()
    create(place)
    right = state(place, names)
    damage(place)
    assert state(place, names) != right


def test_a_subvolume_that_is_read_only_is_another_state(backing: Callable[[str], Path], tmp_path: Path) -> None:
    folder = backing("btrfs")
    btrfs.create(folder / "layer")
    before = same(facts_of(tmp_path, folder), frozenset())
    btrfs.set_read_only(folder / "layer")
    after = same(facts_of(tmp_path, folder), frozenset())
    assert before != after
    btrfs.set_read_only(folder / "layer", to=False)
    assert same(facts_of(tmp_path, folder), frozenset()) == before


def test_a_name_of_free_space_is_told_where_it_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    (folder / "layer" / "reserve").mkdir(parents=True)
    before = same(facts_of(tmp_path, folder), frozenset())
    (folder / "layer" / "reserve" / "file").write_bytes(b"")
    assert same(facts_of(tmp_path, folder), frozenset()) != before


def test_which_names_are_one_file_is_told(tmp_path: Path) -> None:
    states = []
    for joined in ("ab cd", "ac bd"):
        folder = tmp_path / joined
        folder.mkdir()
        for one, other in joined.split():
            (folder / one).write_bytes(b"same")
            os.link(folder / one, folder / other)
        states.append(same(facts_of(tmp_path, folder), frozenset()))
    assert states[0] != states[1]


def test_the_log_of_a_database_is_read_and_left(clone: Callable[[], Place]) -> None:
    place = clone()
    before = state(place)
    store = place.store
    store.tag("base:1", "new:1")
    log = Path(f"{place.data_root}/layerstore.db-wal")
    content = log.read_bytes()
    assert content
    assert state(place) != before
    assert log.read_bytes() == content


def test_a_walk_judges_a_state_once_and_what_is_wrong_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory").mkdir()
    walk = Walk(Ground(tmp_path, SUBJECTS[0]), next(one for one in OPERATIONS if one.name == "tag"))
    points = random.Random(1).sample(walk.points("errors"), 6)
    assert walk.fail(points).losses == []
    judged = tmp_path / "judged"
    judge = Walk._judge

    def noted(self: Walk, place: Place, **how: bool | str) -> None:
        with judged.open("a") as file:  # each is in a process of its own
            file.write("one\n")
        judge(self, place, **how)

    monkeypatch.setattr(Walk, "_judge", noted)
    assert walk.fail(points).losses == []
    assert not judged.exists()
    remove = layerstore.Store.tag

    def leaves(self: layerstore.Store, *names: str) -> None:
        (self.data_root / "left").touch()
        remove(self, *names)

    monkeypatch.setattr(layerstore.Store, "tag", leaves)
    assert len(walk.fail(points).losses) == len(points)
