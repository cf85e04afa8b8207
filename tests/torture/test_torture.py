"""Nothing is lost wherever an operation is broken off: a sample with each operation, driver and fault.

By day that of the driver that nobody knows. `make torture` walks over all points (`night`).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerstore.testing.filesystems import enter_private_namespace, source_of, unmount
from layerstore.testing.torture import KINDS, OPERATIONS, Ground, Loss, Operation, Point, Subject, Walk
from layerstore.testing.torture.faults import concerns
from support.properties import NIGHTLY
from torture.lazily import LAZILY
from torture.subjects import SUBJECTS, operations, unknown_installed

pytestmark = pytest.mark.root


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for a ground, with memory."""
    memory = tmp_path / "memory"
    memory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", memory], check=True)
    yield tmp_path
    unmount(memory)


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    with unknown_installed():
        yield


def losses(walk: Walk, kind: str, dice: random.Random) -> list[Loss]:
    """What one point of a kind shows, and the end of a recording beside."""
    if kind == "statements":
        return walk.die_between_statements([dice.randint(1, walk.statements())]).losses
    if kind == "lines":
        return walk.die_between_lines([dice.randint(1, walk.lines())]).losses
    if kind == "power":
        recording = walk.record()
        cuts = walk.cuts(recording, 5)
        end = next(cut for cut in cuts if cut.after == len(recording.log))
        return walk.cut(recording, [dice.choice(cuts), end]).losses
    points = walk.points(kind)
    return walk.fail([dice.choice(points)]).losses if points else []


def chosen(subject: Subject) -> Iterator[tuple[Operation, str]]:
    """Each operation with one of the drivers, and with half of its kinds of faults."""
    for number, operation in enumerate(operations(subject)):
        for kind in operation.kinds[number % 2 :: 2]:
            turn = (number + operation.kinds.index(kind) // 2) % len(SUBJECTS)
            if operation in LAZILY or turn == SUBJECTS.index(subject):
                yield operation, kind


@pytest.mark.tools("crun", "conmon", "ip")
@pytest.mark.parametrize("subject", SUBJECTS if NIGHTLY else SUBJECTS[-1:], ids=str)
def test_nothing_is_lost(subject: Subject, scratch: Path) -> None:
    ground = Ground(scratch, subject)
    found = []
    walk: Walk | None = None
    for operation, kind in chosen(subject):
        if walk is None or walk.operation is not operation:
            walk = Walk(ground, operation)
        found += [(str(operation), kind, loss) for loss in losses(walk, kind, random.Random(f"{operation} {kind}"))]
    assert found == []


def test_the_sample_has_everything() -> None:
    pairs = {(str(operation), kind) for subject in SUBJECTS for operation, kind in chosen(subject)}
    assert {name for name, _ in pairs} == {str(one) for subject in SUBJECTS for one in operations(subject)}
    assert {kind for _, kind in pairs} == {*KINDS}
    assert all(len(list(chosen(subject))) >= len(KINDS) for subject in SUBJECTS)


@pytest.mark.parametrize(("call", "number"), [("syncfs", 1), ("fdatasync", 3)])
def test_a_sync_that_is_left_out_is_found(call: str, number: int, scratch: Path) -> None:
    walk = Walk(Ground(scratch, SUBJECTS[0]), OPERATIONS[0])
    recording = walk.record(left_out=Point(call, number, "left out"))
    end = [cut for cut in walk.cuts(recording, 20) if cut.after == len(recording.log)]
    assert walk.cut(recording, end).losses


def test_who_is_killed_while_his_folder_is_removed_elsewhere_leaves_no_device(tmp_path: Path) -> None:
    told, tell = os.pipe()
    process = os.fork()
    if process == 0:
        enter_private_namespace()
        memory = tmp_path / "memory"
        memory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", memory], check=True)
        ground = Ground(tmp_path, SUBJECTS[0])
        with ground.plugged(ground.clone()):
            os.write(tell, os.fsencode(source_of(ground.mountpoint)))
            signal.pause()
    device = os.fsdecode(os.read(told, 100))
    os.close(told)
    os.close(tell)
    shutil.rmtree(tmp_path)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    deadline = time.monotonic() + 60
    while Path(f"/sys/block/{Path(device).name}/loop").exists():
        assert time.monotonic() < deadline, f"{device} stays"
        time.sleep(0.01)


def test_what_a_driver_that_cannot_be_had_should_have_removed_goes_with_the_next_open(scratch: Path) -> None:
    subject = next(subject for subject in SUBJECTS if subject.driver == "aufs")
    removal = next(operation for operation in OPERATIONS if operation.name == "rmi")
    walk = Walk(Ground(scratch, subject), removal)
    stats = [call.path for call in walk.usual.calls if concerns(call) and call.name == "newfstatat"]
    place = next(path for path in stats if path.endswith("/aufs/trees"))
    assert walk.fail([Point("newfstatat", stats.index(place) + 1, "ENOMEM")]).losses == []


def test_what_a_driver_notes_of_its_host_when_it_is_asked_once_more_is_nothing_left(scratch: Path) -> None:
    subject = next(subject for subject in SUBJECTS if subject.driver == "vfs")
    walk = Walk(Ground(scratch, subject), next(one for one in operations(subject) if one.name == "migrate"))
    assert walk.die_between_statements([walk.statements() // 2]).losses == []


def test_what_a_driver_has_kept_for_a_former_boot_goes_with_the_next_open(scratch: Path) -> None:
    subject = next(subject for subject in SUBJECTS if subject.driver == "aufs")
    walk = Walk(Ground(scratch, subject), next(one for one in OPERATIONS if one.name == "prune"))
    recording = walk.record()
    end = [cut for cut in walk.cuts(recording, 1) if cut.after == len(recording.log)]
    assert walk.cut(recording, end).losses == []
