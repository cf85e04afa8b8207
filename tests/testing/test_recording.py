"""The disk that remembers: what was synced is in every image that a power cut can leave, and writes come in order."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from layerstore.kernel.files import syncfs
from layerstore.testing.calls import Call, Half, Omission, run_watched
from layerstore.testing.filesystems import enter_private_namespace, format_image, unmount
from layerstore.testing.power import CUTTABLE, copy_image
from layerstore.testing.recording import BLOCK, Entry, Flush, Recorder, Write, cuts, entries

pytestmark = pytest.mark.root


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    memory = tmp_path / "memory"  # beside which it is mounted: see Ground
    memory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", memory], check=True)
    yield Recorder(memory / "image", memory / "device", memory / "log")
    unmount(memory)


def replay(image: Path, log: Sequence[Entry]) -> None:
    with image.open("r+b") as file:
        for entry in log:
            if isinstance(entry, Write):
                file.seek(entry.offset)
                file.write(entry.data)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_what_was_synced_is_there_and_the_rest_may_be(recorder: Recorder, kind: str) -> None:
    folder = recorder.log.parent
    place, base = folder.parent / "mnt", folder / "base"
    place.mkdir()
    format_image(kind, recorder.image, CUTTABLE[kind])
    with recorder.serving():
        subprocess.run(["mount", "-t", kind, "-o", "loop", recorder.device, place], check=True)
        syncfs(place)
        begun = recorder.noted()
        copy_image(recorder.image, base)
        (place / "synced").write_bytes(b"x" * 10000)
        syncfs(place)
        (place / "late").write_bytes(b"y" * 10000)
        ended = recorder.noted()
        subprocess.run(["umount", place], check=True)
    assert not recorder.device.exists()
    log = entries(recorder.log, ended)[len(entries(recorder.log, begun)) :]
    assert any(isinstance(entry, Flush) for entry in log)
    end = next(cut for cut in cuts(log, 0, random.Random(1)) if cut.after == len(log))
    replay(base, log[: end.whole])
    subprocess.run(["mount", "-t", kind, "-o", "loop", base, place], check=True)
    assert (place / "synced").read_bytes() == b"x" * 10000
    assert not (place / "late").exists()
    subprocess.run(["umount", place], check=True)


def test_whoever_is_killed_first_everything_ends(recorder: Recorder) -> None:
    place = recorder.log.parent.parent / "mnt"
    place.mkdir()
    format_image("ext4", recorder.image, CUTTABLE["ext4"])
    told, tell = os.pipe()
    user = os.fork()
    if user == 0:
        enter_private_namespace()
        with recorder.serving():
            subprocess.run(["mount", "-t", "ext4", "-o", "loop", recorder.device, place], check=True)
            (place / "late").write_bytes(b"y" * 10000)
            os.write(tell, b"%d" % recorder._process)
            signal.pause()
    server = int(os.read(told, 20))
    os.close(told)
    os.close(tell)
    assert os.readlink(f"/proc/{server}/ns/mnt") != os.readlink(f"/proc/{user}/ns/mnt")
    assert str(place) not in Path(f"/proc/{server}/mounts").read_text()
    for process in (user, server):
        os.kill(process, signal.SIGKILL)
    os.waitpid(user, 0)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{server}/exe").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_cuts_leave_whole_what_was_flushed_and_any_part_of_the_rest() -> None:
    log = [Write(0, b"a" * BLOCK), Flush(), Write(BLOCK + 512, b"b" * 2 * BLOCK), Write(0, b"c" * BLOCK), Flush()]
    found = cuts(log, 200, random.Random(1))
    assert [cut.whole for cut in found] == sorted(cut.whole for cut in found)
    assert {cut.whole for cut in found} == {0, 2, 5}
    assert all(cut.whole <= cut.after <= len(log) for cut in found)
    pieces = {cut.pieces for cut in found if cut.whole == 2}
    torn = [(BLOCK + 512, b"b" * (BLOCK - 512)), (2 * BLOCK, b"b" * BLOCK), (3 * BLOCK, b"b" * 512)]
    assert {piece for some in pieces for piece in some} == {*torn, (0, b"c" * BLOCK)}
    assert () in pieces
    assert any(0 < len(some) < 4 for some in pieces)


def test_half_of_a_read_or_write_is_done(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def deed() -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        assert (os.write(fd, b"abcdef"), os.pwrite(fd, b"xy", 4)) == (3, 1)
        os.lseek(fd, 0, os.SEEK_SET)
        assert (os.read(fd, 4), os.pread(fd, 2, 4)) == (b"ab", b"x")
        os.close(fd)

    names = ["read", "pread64", "write", "pwrite64"]
    run = run_watched(deed, lambda _, call: Half(), names=names)
    assert run.failure is None, run.failure
    assert path.read_bytes() == b"abc\0x"


def test_a_call_is_left_out_and_said_to_be_done(tmp_path: Path) -> None:
    def answer(_: int, call: Call) -> Omission | None:
        return Omission() if call.path == str(tmp_path / "no") else None

    run = run_watched(lambda: [os.mkdir(tmp_path / name) for name in ("yes", "no")], answer, names=["mkdir"])
    assert run.failure is None
    assert os.listdir(tmp_path) == ["yes"]
