"""Programs that are given a container's tree: where they see it, what the container is meanwhile, what is left."""

from __future__ import annotations

import io
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import layerstore
from layerstore import CannotStart, Container, InUse, KernelError, Process
from layerstore.containers import launching
from layerstore.kernel.processes import identity
from layerstore.store import Store
from layerstore.testing.torture import rows

pytestmark = pytest.mark.root


@pytest.fixture
def box(store: Store) -> Container:
    """A container on nothing, with a file in it."""
    made = store.create_container(name="box")
    with made.mount() as root:
        (root / "old").write_text("old")
    return made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where programs see a tree."""
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


@pytest.fixture
def sleeper(box: Container, place: Path) -> Iterator[Process]:
    """A program that has the box, and does nothing."""
    process = box.launch(["sleep", "100"], root=place)
    yield process
    process.kill()
    process.wait()


def said(box: Container, place: Path, line: str) -> str:
    """What a line of shell says that has the box at `place`."""
    reader, writer = os.pipe()
    with open(reader) as out:
        process = box.launch(["sh", "-ec", line], root=place, stdout=writer, stdin=subprocess.DEVNULL)
        os.close(writer)
        words = out.read()
    assert process.wait() == 0
    return words


def test_a_program_alone_sees_the_tree(box: Container, place: Path) -> None:
    assert said(box, place, f"cat {place}/old; echo new >{place}/new") == "old"
    assert list(place.iterdir()) == []
    assert [str(change) for change in box.changes()] == ["A /new", "A /old"]


def test_a_program_sees_more_trees(box: Container, place: Path, store: Store, tmp_path: Path) -> None:
    with box.mount() as root:
        (root / "old").write_text("image's")
    image = box.commit("image")
    with box.mount() as root:
        (root / "old").write_text("container's")
    more = tmp_path / "more"
    more.mkdir()
    reader, writer = os.pipe()
    line = f"cat {place}/old {more}/old; ! touch {more}/new 2>/dev/null"
    with open(reader) as out, image.open_tree() as tree:
        process = box.launch(["sh", "-ec", line], root=place, stdout=writer, trees={str(more): tree})
        os.close(writer)
        assert out.read() == "container'simage's"
    assert process.wait() == 0
    assert list(more.iterdir()) == []
    with pytest.raises(KernelError, match=f"move_mount {tmp_path}/none: No such file"), image.open_tree() as tree:
        box.launch(["true"], root=place, trees={f"{tmp_path}/none": tree})
    assert box.processes() == []


def test_running_is_what_the_kernel_says(box: Container, sleeper: Process) -> None:
    assert (box.status, box.state.status, box.mountpoint) == ("running", "running", None)
    assert [process.pid for process in box.processes()] == [sleeper.pid]
    assert (sleeper.poll(), sleeper.is_alive) == (None, True)
    sleeper.kill()
    assert sleeper.wait() == -9
    assert (box.status, box.processes(), sleeper.is_alive) == ("unmounted", [], False)


def test_how_it_ends(box: Container, place: Path) -> None:
    assert box.launch(["sh", "-c", "exit 7"], root=place).wait() == 7
    process = box.launch(["sleep", "100"], root=place)
    with pytest.raises(TimeoutError):
        process.wait(timeout=0.01)
    [found] = box.processes()
    found.kill(15)
    assert found.wait() is None  # which only its parent is told
    assert process.wait() == -15
    assert process.wait() == process.returncode == process.poll() == -15
    process.kill()


def test_who_waits_for_it_hears_signals_that_were_noted(box: Container, sleeper: Process) -> None:
    """As those are which come in the moment before a wait begins."""

    def told(*_: object) -> None:
        sleeper.kill()

    before = signal.signal(signal.SIGUSR1, told)
    other = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
    try:
        other.start()
        assert sleeper.wait() == -9
        other.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_it_can_be_waited_for_with_others(box: Container, sleeper: Process) -> None:
    poll = select.poll()
    poll.register(sleeper, select.POLLIN)
    assert poll.poll(0) == []
    sleeper.kill()
    assert poll.poll(5000) != []


def test_what_a_program_is_given(box: Container, place: Path, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    other = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(other, True)
    script = f"ls /proc/$$/fd; echo $X; pwd; cat; readlink /proc/$$/fd/{writer}"
    with open(tmp_path / "in", "w+") as given, open(tmp_path / "out", "w+") as out, open(reader):
        given.write("given\n")
        given.seek(0)
        env = {"X": "1", "PATH": os.environ["PATH"]}
        process = box.launch(
            ["sh", "-c", script], root=place, env=env, cwd="/usr", fds=[writer], stdin=given, stdout=out, stderr=out
        )
        assert process.wait() == 0
        out.seek(0)
        words = out.read().split()
    os.close(writer)
    os.close(other)
    assert sorted(words[:-4]) == sorted(["0", "1", "2", str(writer)])
    assert words[-4:-1] == ["1", "/usr", "given"]
    assert words[-1].startswith("pipe:")


def test_a_child_that_nobody_waits_for_is_buried(box: Container, place: Path) -> None:
    pid = box.launch(["true"], root=place).pid
    other = box.launch(["sleep", "100"], root=place)
    other.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        assert box.launch(["true"], root=place).wait() == 0
    [found] = box.processes()
    assert found.pid == other.pid
    found.kill()
    found.wait()


def test_a_session_of_its_own(box: Container, place: Path) -> None:
    for new_session in (False, True):
        process = box.launch(["sleep", "100"], root=place, new_session=new_session)
        assert (os.getsid(process.pid) == process.pid) == new_session
        process.kill()
        process.wait()


def test_signals_are_as_a_program_expects_them(box: Container, place: Path) -> None:
    # Python ignores SIGPIPE, and the start itself blocks all.
    fields = said(box, place, "grep -E 'Sig(Blk|Ign|Cgt)' /proc/self/status").split()
    blocked, ignored = int(fields[1], 16), int(fields[3], 16)
    assert (blocked, ignored & 1 << 12) == (0, 0)


@pytest.mark.parametrize(
    ("program", "code"), [("not-there", 127), ("/not/there", 127), ("/etc/passwd", 126), ("/etc", 126)]
)
def test_a_program_that_cannot_be_executed(box: Container, place: Path, program: str, code: int) -> None:
    before = open_files()
    with pytest.raises(CannotStart) as refusal:
        box.launch([program], root=place)
    assert refusal.value.code == code
    assert program in str(refusal.value)
    assert (box.status, box.processes(), open_files()) == ("unmounted", [], before)
    box.remove()


def test_a_place_that_is_not_there(box: Container, tmp_path: Path) -> None:
    before = open_files()
    for options in ({"root": tmp_path / "none"}, {"root": tmp_path, "cwd": tmp_path / "none"}):
        with pytest.raises(layerstore.KernelError, match="none"):
            box.launch(["true"], **options)
    assert (open_files(), box.status) == (before, "unmounted")


def test_wrong_arguments(box: Container, place: Path) -> None:
    for wrong in ([], "true"):
        with pytest.raises(layerstore.ConfigError, match="argv"):
            box.launch(wrong, root=place)
    with pytest.raises(layerstore.ConfigError, match="0, 1 and 2"):
        box.launch(["true"], root=place, fds=[1])
    with pytest.raises(layerstore.ConfigError, match="not a descriptor"):
        box.launch(["true"], root=place, stdin=subprocess.PIPE)


def open_files() -> list[str]:
    """What is open, but for the listing itself."""
    names = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            names.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return sorted(names)


# --- meanwhile ---


def test_a_running_container_is_not_removed(box: Container, sleeper: Process, store: Store) -> None:
    with pytest.raises(InUse, match=f"container box is running \\(process {sleeper.pid}\\)"):
        box.remove()
    assert store.prune(containers=True).containers == ()
    box.remove(force=True)
    assert sleeper.wait() == -9
    assert (store.containers(), store.check()) == ([], [])


def test_a_running_container_is_read_and_committed(box: Container, place: Path, store: Store, tmp_path: Path) -> None:
    line = f"echo x >{place}/being-written; mv {place}/being-written {place}/new; exec sleep 100"
    process = box.launch(["sh", "-c", line], root=place)
    while not any(change.path == "/new" for change in box.changes()):
        time.sleep(0.01)
    box.copy_out("/new", tmp_path / "new")
    box.copy_in(tmp_path / "new", "/copied")
    assert Path(f"/proc/{process.pid}/root{place}/copied").read_text() == "x\n"
    exported = io.BytesIO()
    box.export(exported.write)
    with tarfile.open(fileobj=io.BytesIO(exported.getvalue())) as tar:
        assert {"new", "old", "copied"} <= set(tar.getnames())
    assert (box.usage().inodes, box.mountpoint) == (3, None)
    image = box.commit("made")
    assert (tmp_path / "new").read_text() == "x\n"
    with image.mount() as root:
        assert (root / "new").read_text() == "x\n"
    assert box.status == "running"
    process.kill()
    process.wait()
    assert [str(change) for change in box.changes()] == ["A /copied", "A /new", "A /old"]


def test_a_running_container_is_mounted_with_the_tree_that_its_programs_have(box: Container, place: Path) -> None:
    process = box.launch(["sh", "-c", f"until [ -e {place}/go ]; do sleep 0.01; done; echo >{place}/seen"], root=place)
    with box.mount() as root:
        assert (root / "old").read_text() == "old"
        assert os.stat(root).st_dev == os.stat(f"/proc/{process.pid}/root{place}").st_dev
        (root / "go").write_text("")
        assert process.wait() == 0
        assert (root / "seen").exists()
        assert box.status == "mounted"
    assert (box.status, list(place.iterdir())) == ("unmounted", [])


def test_a_mounted_container_is_launched_with_that_tree(box: Container, place: Path) -> None:
    with box.mount() as root:
        process = box.launch(["sleep", "100"], root=place)
        (root / "late").write_text("")
        assert Path(f"/proc/{process.pid}/root{place}/late").exists()
    assert box.status == "running"
    with pytest.raises(InUse):
        box.remove()
    assert Path(f"/proc/{process.pid}/root{place}/late").exists()
    process.kill()
    process.wait()
    assert box.status == "unmounted"
    box.remove()


@pytest.mark.parametrize("can_list", [True, False])
def test_a_program_keeps_no_mount_of_another_container(
    store: Store, box: Container, place: Path, monkeypatch: pytest.MonkeyPatch, *, can_list: bool
) -> None:
    if not can_list:  # as before Linux 6.8
        monkeypatch.setattr(launching, "facts_of", lambda _: None)
    other = store.create_container(name="other")
    with other.mount() as root:
        (root / "x").write_text("")
        mounts = said(box, place, "cat /proc/self/mountinfo")
        assert (str(place) in mounts, str(root) in mounts) == (True, False)


def test_several_programs_have_one_tree(box: Container, place: Path) -> None:
    first = box.launch(["sleep", "100"], root=place)
    assert said(box, place, f"cat {place}/old; echo >{place}/late") == "old"
    assert Path(f"/proc/{first.pid}/root{place}/late").exists()
    assert [process.pid for process in box.processes()] == [first.pid]
    first.kill()
    first.wait()


@pytest.mark.parametrize("has_ids", [True, False])
def test_what_a_program_leaves_behind_is_found(
    box: Container, place: Path, monkeypatch: pytest.MonkeyPatch, *, has_ids: bool
) -> None:
    if not has_ids:  # as before Linux 6.11
        monkeypatch.setattr(identity, "_namespace", lambda pid: (os.stat(f"/proc/{pid}/ns/mnt").st_ino, 0))
    process = box.launch(["sh", "-c", "sleep 100 & echo $!"], root=place, stdout=subprocess.DEVNULL)
    process.wait()
    with pytest.raises(InUse, match="running"):
        box.remove()
    box.remove(force=True)


def test_a_store_with_a_running_container_is_not_converted(store: Store, box: Container, place: Path) -> None:
    pid = box.launch(["sleep", "100"], root=place).pid
    store.close()
    with pytest.raises(InUse, match=f"container box is running \\(process {pid}\\)"):
        layerstore.migrate("vfs", store.data_root, config=store.config)
    with layerstore.open(config=store.config) as again:
        again.container("box").remove(force=True)


def test_threads_launch_at_once(store: Store, tmp_path: Path) -> None:
    def life(number: int) -> list[int | None]:
        folder = tmp_path / str(number)
        folder.mkdir()
        mine = store.create_container()
        codes = [mine.launch(["sh", "-c", f"echo >{folder}/x; exit {number}"], root=folder).wait() for _ in range(5)]
        codes.append(len(mine.changes()))
        mine.remove()
        return codes

    assert life(8) == [8] * 5 + [1]
    store._parts.session.wait()  # what was removed is deleted in the background
    before = open_files()
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(life, range(8))) == [[number] * 5 + [1] for number in range(8)]
    store._parts.session.wait()
    assert open_files() == before


def test_what_a_runtime_starts_is_kept(box: Container, place: Path, tmp_path: Path) -> None:
    script = f"unshare -m sleep 100 & echo $! >{tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; sleep 0.2"
    process = box.launch(["sh", "-c", script], root=place)
    while not (tmp_path / "pid").exists():
        time.sleep(0.01)
    kept = process.keep(int((tmp_path / "pid").read_text()))
    assert kept is not None
    assert process.wait() == 0
    assert [found.pid for found in box.processes()] == [kept.pid]
    with pytest.raises(InUse, match=str(kept.pid)):
        box.remove()
    kept.kill()
    kept.wait()
    assert box.status == "unmounted"
    assert process.keep(kept.pid) is None


# --- runtimes ---


@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.tools("crun", "runc")
def test_an_oci_runtime_runs_it(store: Store, tmp_path: Path, runtime: str) -> None:
    box = store.create_container()
    bundle = tmp_path / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    with box.mount() as root:
        (root / "proc").mkdir()
        for folder in ("bin", "usr"):
            (root / folder).mkdir()
    subprocess.run([runtime, "spec"], cwd=bundle, check=True)
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"] |= {"terminal": False, "args": ["/init", "-c", "import os; print(os.getpid())"]}
    spec["root"]["readonly"] = False
    with box.mount() as root:
        shutil.copy(static_program(tmp_path), root / "init")
    (bundle / "config.json").write_text(json.dumps(spec))
    process = box.launch(
        [runtime, "--root", str(tmp_path / "state"), "run", f"layerstore-{os.getpid()}"],
        root=bundle / "rootfs",
        cwd=bundle,
        hide=["/sys/fs/cgroup/unified"],
    )
    assert process.wait() == 41
    assert "A /made" in [str(change) for change in box.changes()]
    assert list((bundle / "rootfs").iterdir()) == []


def static_program(folder: Path) -> Path:
    """A program that needs no library: it makes a file, and ends with its number and 40."""
    source = folder / "init.c"
    source.write_text(
        "#include <fcntl.h>\n#include <unistd.h>\n"
        'int main(void) { close(open("/made", O_CREAT | O_WRONLY, 0644)); return 40 + (int)getpid(); }\n'
    )
    subprocess.run(["gcc", "-static", "-o", folder / "init", source], check=True)
    return folder / "init"


# --- deaths ---

DIES = """
import os, sys, layerstore
from core import worker
from pathlib import Path
root, place = Path(sys.argv[1]), sys.argv[2]
store = layerstore.open(config=worker.settings(root))
line = f"echo >{place}/left; exec sleep 100 >/dev/null 2>&1"
process = store.container("box").launch(["sh", "-c", line], root=place)
print(process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def launched_by_one_who_dies(data_root: Path, place: Path) -> str:
    """What he said: the number of his program."""
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", DIES, data_root, place],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    return done.stdout


def test_it_outlives_who_launched_it(box: Container, store: Store, data_root: Path, place: Path) -> None:
    number = launched_by_one_who_dies(data_root, place)
    with layerstore.open(config=store.config) as again:
        found = again.container("box")
        [process] = found.processes()
        assert process.pid == int(number)
        with pytest.raises(InUse):
            found.remove()
        with found.mount() as root:
            while not (root / "left").exists():
                time.sleep(0.01)
        assert found.status == "running"
        process.kill()
        process.wait()
    with layerstore.open(config=store.config) as again:
        assert again.container("box").status == "unmounted"
        again.container("box").remove()


def test_who_looks_for_programs_that_have_ended_writes_that_down(
    box: Container, store: Store, data_root: Path, place: Path
) -> None:
    launched_by_one_who_dies(data_root, place)
    with layerstore.open(config=store.config) as again:
        [process] = again.container("box").processes()
        ended = process.pidfd  # opened while it lives
        os.kill(process.pid, signal.SIGKILL)
        select.select([ended], [], [])
    with layerstore.open(config=store.config) as again:
        assert again.container("box").processes() == []
    assert rows.counts(data_root / "layerstore.db")["processes"] == 0


def test_rows_of_another_boot_mean_nothing(
    box: Container, sleeper: Process, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("containers.rows", "kernel.processes.identity", "opening", "kernel.mounts.table"):
        monkeypatch.setattr(f"layerstore.{module}.boot_id", lambda: "another")
    with layerstore.open(config=store.config) as again:
        found = again.container("box")
        assert (found.processes(), found.status) == ([], "unmounted")
