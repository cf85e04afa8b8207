"""Programs started in a container without a runtime: what they see, what they are given, how they end."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import resource
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore import Bind, CannotStart, Container, InUse, Tmpfs
from layerstore.store import Store
from support import programs

pytestmark = pytest.mark.root


@pytest.fixture
def box(store: Store, tmp_path: Path) -> Container:
    """A container in which programs run."""
    [image] = store.load(programs.archive(tmp_path / "image.tar"))
    return store.create_container(image, name="box")


RT_SIGACTION = 13 if platform.machine() == "x86_64" else 134


def said(box: Container, line: str, **options: Any) -> str:
    """What a line of shell says in it."""
    reader, writer = os.pipe()
    with open(reader) as out:
        process = box.start(["sh", "-ec", line], stdout=writer, stdin=subprocess.DEVNULL, **options)
        os.close(writer)
        words = out.read()
    assert process.wait() == 0
    return words


def changed(box: Container) -> list[str]:
    return [str(change) for change in box.changes()]


def test_it_sees_its_tree_and_its_processes(box: Container) -> None:
    assert said(box, "ls /").split() == sorted(
        ["bin", "dev", "etc", "home", "lib", "lib64", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var"]
    )
    assert [line.split()[0] for line in said(box, "ps -e").splitlines()[1:]] == ["1", "2", "3"]
    assert [line.split()[0] for line in said(box, "ps -e", init=False).splitlines()[1:]] == ["1", "2"]
    assert len(said(box, "cat /proc/self/mountinfo").splitlines()) == 7


def test_it_leaves_no_trace_that_it_did_not_make(box: Container) -> None:
    said(box, "cat /etc/hosts /dev/null; touch /dev/x /dev/shm/y")
    assert changed(box) == []
    said(box, "echo 1.2.3.4 me >>/etc/hosts")
    assert changed(box) == ["C /etc", "C /etc/hosts"]


def test_usual_devices(box: Container) -> None:
    names = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert said(box, "ls /dev").split() == names.split()
    assert said(box, "echo x >/dev/null; cat /dev/null; echo y >/dev/stdout") == "y\n"
    # The umask of who starts it has no part in that.
    assert said(box, "ls -l /dev/full").startswith("crw-rw-rw-")


def test_names_and_network_of_the_host(box: Container) -> None:
    assert said(box, "cat /proc/sys/kernel/hostname").strip() == box.short_id
    assert said(box, "cat /proc/sys/kernel/hostname", hostname="other").strip() == "other"
    assert said(box, "ls -L /proc/self/ns/net -i").split()[0] == str(os.stat("/proc/self/ns/net").st_ino)


def test_environment_and_folder(box: Container) -> None:
    env = said(box, "env", working_dir="/home/someone", env={"A": "b", "PATH": "/usr/bin"})
    assert {"A=b", "PATH=/usr/bin", "PWD=/home/someone"} <= set(env.split())
    with pytest.raises(layerstore.KernelError, match="chdir /nowhere"):
        box.start(["true"], working_dir="/nowhere")
    assert changed(box) == []
    assert said(box, "pwd", working_dir="/nowhere/yet", make_working_dir=True).strip() == "/nowhere/yet"
    assert changed(box) == ["A /nowhere", "A /nowhere/yet"]
    with pytest.raises(layerstore.KernelError, match="chdir /etc/passwd: Not a directory"):
        box.start(["true"], working_dir="/etc/passwd", make_working_dir=True)


def test_what_is_too_long_for_it_is_told(box: Container) -> None:
    with pytest.raises(layerstore.CannotStart, match="cannot execute true: Argument list too long") as refused:
        box.start(["true", "x" * (1 << 17)])
    assert (refused.value.code, refused.value.remedy) == (126, "Give it less: as a file, or on standard input.")


def test_user_limits_and_mask(box: Container) -> None:
    assert said(box, "id", uid=1000, gid=50, groups=[1, 0]).strip() == (
        "uid=1000(someone) gid=50(staff) groups=50(staff),0(root),1(daemon)"
    )
    said(box, "touch /tmp/mine; mkdir /tmp/ours", uid=1000, gid=50, umask=0o027)
    with box.mount() as root:
        assert [os.stat(root / "tmp" / name).st_mode & 0o7777 for name in ("mine", "ours")] == [0o640, 0o750]
        assert os.stat(root / "tmp" / "mine").st_uid == 1000
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = {resource.RLIMIT_NOFILE: (64, 128), resource.RLIMIT_CORE: (-1, -1)}
    assert said(box, "ulimit -Sn; ulimit -Hn; ulimit -c", limits=limits).split() == ["64", "128", "unlimited"]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_no_descriptor_goes_in_but_those_named(box: Container) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    assert said(box, "ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    assert said(box, f"echo x >/proc/self/fd/{writer}; ls /proc/1/fd", fds=[writer]) == ""
    assert os.read(reader, 9) == b"x\n"
    os.close(reader)
    os.close(writer)


def test_binds_and_memory(box: Container, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "in").write_text("in")
    (tmp_path / "file").write_text("file")
    mounts = [
        Bind(str(tmp_path / "folder"), "/data/deep"),
        Bind(str(tmp_path / "file"), "/etc/hosts", read_only=True),
        Bind(str(tmp_path / "file"), "/new-file"),
        Tmpfs("/data", ("size=1m", "mode=700")),
    ]
    script = (
        "cat /data/deep/in /etc/hosts /new-file; echo out >/data/deep/out; touch /data/x; (echo >/etc/hosts) || true"
    )
    assert said(box, f"({script}) 2>/dev/null", mounts=mounts) == "infilefile"
    assert (tmp_path / "folder" / "out").read_text() == "out\n"
    assert (tmp_path / "file").read_text() == "file"
    # What was not there is made, as docker does; a file of the image that something is mounted on is not altered.
    assert changed(box) == ["A /data", "A /new-file"]
    with pytest.raises(layerstore.KernelError, match="nowhere"):
        box.start(["true"], mounts=[Bind("/nowhere", "/x")])
    with pytest.raises(layerstore.ConfigError, match="no place"):
        box.start(["true"], mounts=[Tmpfs("relative")])


def test_no_link_of_the_tree_leads_out_of_it(box: Container, tmp_path: Path) -> None:
    with box.mount() as root:
        (root / "out").symlink_to(tmp_path)
        (root / str(tmp_path)[1:]).mkdir(parents=True)
        (root / "up").symlink_to("../../../.." + str(tmp_path))
    for target in ("/out/first", "/up/second"):
        said(box, "true", mounts=[Tmpfs(target)])
    assert [path.name for path in tmp_path.iterdir()] == ["image.tar"]
    with box.mount() as root:
        assert sorted(os.listdir(root / str(tmp_path)[1:])) == ["first", "second"]


@pytest.mark.parametrize(
    ("program", "code"), [("not-there", 127), ("/etc/hosts", 126), ("/etc", 126), ("bin/sh/x", 127)]
)
@pytest.mark.parametrize("init", [True, False])
def test_a_program_that_cannot_be_executed(box: Container, program: str, code: int, *, init: bool) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(CannotStart) as refusal:
        box.start([program], init=init)
    assert refusal.value.code == code
    assert (box.processes(), changed(box)) == ([], [])
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_how_it_ends(box: Container) -> None:
    for init in (True, False):
        assert box.start(["sh", "-c", "exit 7"], init=init).wait() == 7
    assert box.start(["sh", "-c", "kill -9 $$"]).wait() == 128 + 9
    process = box.start(["sleep", "100"])
    process.kill(15)
    assert process.wait() == 128 + 15
    process = box.start(["sleep", "100"], init=False)
    process.kill(15)  # which the first process of a namespace does not hear, unless it says so
    with pytest.raises(TimeoutError):
        process.wait(0.05)
    process.kill()
    assert process.wait() == -9


def test_signals_reach_the_program_and_orphans_are_buried(box: Container) -> None:
    reader, writer = os.pipe()
    with open(reader) as out:
        line = "trap 'echo got; exit 4' USR1; (sleep 0.05 & ) ; echo ready; while :; do sleep 0.02; done"
        process = box.start(["sh", "-c", line], stdout=writer)
        os.close(writer)
        assert out.readline() == "ready\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + 20
        while len(children.read_text().split()) != 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill(10)
        assert out.read() == "got\n"
    assert process.wait() == 4


def test_all_ends_with_the_first(box: Container) -> None:
    process = box.start(["sh", "-c", "sleep 1000 & echo $! ; exit 0"], stdout=subprocess.DEVNULL)
    assert process.wait() == 0
    box.remove()


def test_where_the_extension_may_not_be_executed(
    box: Container, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from layerstore.kernel import _shim

    copy = tmp_path / "shim.so"
    copy.write_bytes(Path(str(_shim.__file__)).read_bytes())
    copy.chmod(0o644)
    monkeypatch.setattr(_shim, "__file__", str(copy))
    assert said(box, "echo x") == "x\n"


def test_a_terminal(box: Container) -> None:
    line = "echo ready; read x; echo got $x; ls /dev/pts; echo all; exec sleep 100"
    process = box.start(["sh", "-c", line], terminal=True)
    assert process.terminal is not None
    fcntl.ioctl(process.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    text = b""
    while b"ready" not in text:
        text += os.read(process.terminal, 100)
    os.write(process.terminal, b"word\n")
    while b"all" not in text:
        text += os.read(process.terminal, 100)
    assert b"got word" in text
    assert b"ptmx" in text
    os.write(process.terminal, b"\x03")  # the terminal makes it SIGINT
    assert process.wait() == 128 + 2


def test_no_signal_is_ignored_because_whoever_starts_it_ignores_it(box: Container) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what it starts with &
    libc, own = ctypes.CDLL(None), (ctypes.c_long * 4)(1)  # SIG_IGN
    libc.syscall(ctypes.c_long(RT_SIGACTION), 32, own, own, 8)  # one that the C library does not let anybody have
    try:
        text = said(box, "grep SigIgn /proc/self/status")
    finally:
        signal.signal(signal.SIGINT, before)
        libc.syscall(ctypes.c_long(RT_SIGACTION), 32, own, None, 8)
    assert int(text.split()[1], 16) == 0


def test_without_isolation_it_has_a_root_of_its_own(box: Container) -> None:
    process = box.start(["sleep", "100"], isolated=False)
    spaces = {name: os.stat(f"/proc/{process.pid}/ns/{name}").st_ino for name in ("pid", "ipc", "uts", "mnt")}
    same = {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in spaces}
    assert {name for name in spaces if spaces[name] == same[name]} == {"pid", "ipc", "uts"}
    assert Path(f"/proc/{process.pid}/root/etc/hosts").read_text() == "127.0.0.1 localhost\n"
    process.kill(15)
    assert process.wait() == -15


def test_meanwhile_it_is_running(box: Container) -> None:
    process = box.start(["sh", "-c", "touch /tmp/new; sleep 100"])
    assert (box.status, [found.pid for found in box.processes()]) == ("running", [process.pid])
    with pytest.raises(InUse, match="is running"):
        box.remove()
    with box.mount() as root:
        while not (root / "tmp/new").exists():
            time.sleep(0.01)
        assert sorted(os.listdir(root / "proc")) == []
        (root / "there").write_text("")
        assert Path(f"/proc/{process.pid}/root/there").exists()
    second = box.start(["cat", "/there"], stdout=subprocess.DEVNULL)
    assert second.wait() == 0
    box.remove(force=True)
    assert process.wait() == -9


def test_a_tree_without_folders_for_proc_and_dev(store: Store) -> None:
    empty = store.create_container()
    with pytest.raises(CannotStart):
        empty.start(["true"])
    assert changed(empty) == []


def test_many_at_once(store: Store, box: Container) -> None:
    boxes = [store.create_container(box.image) for _ in range(40)]
    running = [one.start(["sleep", "1000"]) for one in boxes]
    assert {one.status for one in boxes} == {"running"}
    for one in boxes:
        one.remove(force=True)
    assert {process.wait() for process in running} == {-9}
