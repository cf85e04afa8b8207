"""Containers that run, by the command: docker's columns, sentences and exit codes, on a real engine."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from support import programs

Run = Callable[..., Result]
Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "conmon")]


@pytest.fixture
def boxes(run: Run, tmp_path: Path) -> Iterator[Run]:
    """A store with the image debian, in which programs run."""
    settings = {"Env": ["PATH=/usr/bin:/bin", "FROM_IMAGE=1"], "Cmd": ["sh"], "Labels": {"a": "b"}}
    run("load", str(programs.archive(tmp_path / "debian.tar", config=settings)))
    yield run
    names = run("ps", "-aq").stdout.split()
    if names:
        run("rm", "-f", "-v", *names)


def lines(result: Result) -> list[str]:
    return result.stdout.splitlines()


def status(boxes: Run, name: str) -> str:
    return boxes("ps", "-a", "-f", f"name=^{name}$", "--format", "{{.Status}}").stdout.strip()


def test_a_program_s_words_and_exit_code_are_the_command_s(boxes: Run, shell: Shell) -> None:
    done = shell("run", "--rm", "debian", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert shell("run", "--rm", "-i", "debian", "cat", stdin=b"a\nb").stdout == b"a\nb"
    assert shell("run", "--rm", "debian", "cat", stdin=b"a\nb").stdout == b""
    assert boxes("ps", "-aq").stdout == ""


def test_what_nobody_would_keep_is_refused_before_anything_is_made(boxes: Run, shell: Shell, tmp_path: Path) -> None:
    for isolation in ("process", "none"):
        done = shell("run", "-d", "--cidfile", str(tmp_path / "id"), "--isolation", isolation, "no/such", "true")
        assert done.returncode == 125
        assert f"isolation '{isolation}' is for programs that are waited for" in done.stderr.decode()
    assert boxes("ps", "-aq").stdout == ""
    assert not (tmp_path / "id").exists()


@pytest.mark.parametrize("how", [("--runtime", "crun"), ("--runtime", "runc"), ("--isolation", "process")])
def test_a_folder_to_work_in_is_made_and_too_much_is_told(
    boxes: Run, shell: Shell, tmp_path: Path, how: tuple[str, ...]
) -> None:
    done = shell("run", "--rm", *how, "-w", "/deep/down", "debian", "sh", "-c", "pwd")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"/deep/down\n", b"")
    done = shell("run", "--rm", *how, "-w", "/etc/passwd", "debian", "true")
    assert (done.returncode, b"not a directory: /etc/passwd" in done.stderr) == (125, True)
    (tmp_path / "variables").write_text("A=" + "x" * (1 << 17))
    done = shell("run", "--rm", *how, "--env-file", str(tmp_path / "variables"), "debian", "true")
    assert (done.returncode, b"cannot execute true: argument list too long" in done.stderr) == (126, True)
    assert boxes("ps", "-aq").stdout == ""


def test_what_cannot_be_run_has_docker_s_exit_codes(boxes: Run, shell: Shell) -> None:
    for args, code, words in [
        (
            ("debian", "nope"),
            127,
            'cannot be started: exec: "nope": executable file not found in $PATH\nLook which programs',
        ),
        (("debian", "/nope"), 127, 'exec: "/nope": stat /nope: no such file or directory\nLook which programs'),
        (("debian", "/etc"), 126, 'exec: "/etc": is a directory\nIt has to be an executable file'),
        (("debian", "/etc/passwd"), 126, 'exec: "/etc/passwd": permission denied\nIt has to be an executable file'),
        (("-u", "nobodyx", "debian", "true"), 125, "unable to find user nobodyx: no matching entries in passwd file"),
        (("--mount", "type=bind,src=/nope,dst=/x", "debian", "true"), 125, "bind source path does not exist: /nope"),
        (("--runtime", "nope", "debian", "true"), 125, "nope"),
    ]:
        done = shell("run", "--rm", *args)
        assert done.returncode == code, done.stderr
        assert words.encode() in done.stderr
        assert done.stderr.startswith(b"layerstore: "), "our sentence is the first"
        assert done.stdout == b""
        assert b"level" not in done.stderr
    silent = shell("run", "--rm", "--runtime", shutil.which("false"), "debian", "true")
    assert silent.returncode == 125
    assert b"cannot be run: the engine does not say why" in silent.stderr
    for args in (("--entrypoint", "", "debian"), ("-d", "--entrypoint", "", "debian")):
        assert "layerstore: no command specified" in boxes("run", *args, code=125).stderr
    refused = boxes("run", "--rm", "--pull", "never", "nope:1", code=125)
    assert refused.stderr.startswith("layerstore: no such image: nope:1")
    assert boxes("ps", "-aq").stdout == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("run",), "missing argument 'IMAGE'"),
        (("run", "--nope", "x"), "unknown flag: --nope"),
        (("run", "-m", "x", "x"), 'invalid argument "x" for "-m, --memory" flag: invalid size: \'x\''),
        (("run", "-d", "-a", "stdout", "x"), "conflicting options: cannot specify both --attach and --detach"),
        (("exec", "x"), "missing argument 'COMMAND [ARG...]'"),
        (("start", "--nope"), "unknown flag: --nope"),
    ],
)
def test_wrong_usage_of_what_runs_programs_is_125(bare: Run, args: tuple[str, ...], words: str) -> None:
    result = bare(*args)
    assert (result.exit_code, result.stdout) == (125, "")
    assert result.stderr.startswith(f"layerstore: {words}")
    assert len(result.stderr.splitlines()) == 2


def test_a_container_lives_on_and_is_stopped(boxes: Run, shell: Shell) -> None:
    [box] = lines(boxes("run", "-d", "--name", "web", "-l", "x=y", "debian", "sh", "-c", "echo hi; exec sleep 100"))
    assert re.fullmatch("[0-9a-f]{64}", box)
    head, row = lines(boxes("ps"))
    assert head.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    cells = re.split(r"\s{2,}", row)
    assert cells[:3] == [box[:12], "debian:latest", '"sh -c \'echo hi; exec…"'.replace("'", "")]
    assert cells[4].startswith("Up ")
    assert cells[-1] == "web"
    assert status(boxes, "web").startswith("Up ")
    facts = json.loads(boxes("ps", "--format", "json").stdout)
    assert (facts["State"], facts["Labels"], facts["Networks"]) == ("running", "a=b,x=y", "host")
    form = "{{range $name, $net := .NetworkSettings.Networks}}{{$name}}={{.IPAddress}}{{.Gateway}};{{end}}"
    assert boxes("inspect", "-f", form, "web").stdout == "host=;\n"
    assert shell("exec", "web", "sh", "-c", "exit 5").returncode == 5
    assert shell("logs", "web").stdout == b"hi\n"
    assert boxes("start", "web").stdout == "web\n"
    refused = boxes("rm", "web", code=1).stderr
    assert "running" in refused
    assert "web" in refused
    assert "container web (running)" in boxes("rmi", "debian", code=1).stderr
    assert lines(boxes("stop", "-t", "0", "web")) == ["web"]
    assert re.fullmatch(r"Exited \(137\) .* ago", status(boxes, "web"))
    assert lines(boxes("ps", "-q")) == []
    assert boxes("wait", "web").stdout == "137\n"
    assert "container web" in boxes("rmi", "debian", code=1).stderr
    assert lines(boxes("ps", "-aq", "-f", "exited=137")) == [box[:12]]
    assert lines(boxes("ps", "-aq", "-f", "exited=0")) == []
    assert boxes("start", "web").stdout == "web\n"
    assert status(boxes, "web").startswith("Up ")
    assert lines(boxes("rm", "-f", "web")) == ["web"]
    assert boxes("ps", "-aq").stdout == ""


def test_what_does_not_run_is_told_so(boxes: Run, shell: Shell) -> None:
    boxes("create", "--name", "idle", "debian")
    for args in (["kill", "idle"], ["pause", "idle"], ["top", "idle"], ["exec", "idle", "true"]):
        refused = boxes(*args, code=1)
        assert "is not running" in refused.stderr, args
        assert refused.stderr.startswith("layerstore: ")
    assert boxes("attach", "idle", code=1).stderr == (
        "layerstore: You cannot attach to a stopped container, start it first\nTo start it: layerstore start idle\n"
    )
    assert boxes("logs", "idle").stdout == ""
    assert boxes("stop", "idle").stdout == "idle\n"
    assert status(boxes, "idle") == "Created"
    for args in (["start"], ["stop"], ["kill"], ["wait"], ["pause"], ["unpause"], ["logs"], ["top"], ["port"], ["rm"]):
        assert "no such container: nope" in boxes(*args, "nope", code=1).stderr
    assert "no such container: nope" in boxes("exec", "nope", "true", code=1).stderr
    forced = boxes("rm", "-f", "nope", "idle")
    assert (forced.stdout, "no such container: nope" in forced.stderr) == ("idle\n", True)


def test_pause_and_unpause(boxes: Run, shell: Shell) -> None:
    boxes("run", "-d", "--name", "web", "debian", "sleep", "100")
    assert boxes("pause", "web").stdout == "web\n"
    assert re.fullmatch(r"Up .* \(Paused\)", status(boxes, "web"))
    assert "is already paused" in boxes("pause", "web", code=1).stderr
    assert boxes("exec", "web", "true", code=1).stderr == (
        "layerstore: container web is paused, unpause the container before exec\n"
        "To let it go on: layerstore unpause web\n"
    )
    assert "paused" in boxes("attach", "web", code=1).stderr
    assert boxes("unpause", "web").stdout == "web\n"
    assert "is not paused" in boxes("unpause", "web", code=1).stderr


def test_signals_by_name(boxes: Run, shell: Shell) -> None:
    script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    boxes("run", "-d", "--name", "web", "debian", "sh", "-c", script)
    assert boxes("kill", "-s", "FOO", "web", code=2).stderr.startswith(
        'layerstore: invalid argument "FOO" for "-s, --signal" flag: invalid signal: FOO\n'
    )
    for _ in range(100):
        if shell("logs", "web").stdout == b"ready\n":
            break
    assert boxes("kill", "-s", "usr1", "web").stdout == "web\n"
    assert boxes("wait", "web").stdout == "9\n"


def test_signals_are_passed_on(boxes: Run, settings: Path) -> None:
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    words = [sys.executable, "-m", "layerstore.cli", "--config", str(settings), "run", "--rm", "debian", "sh", "-c"]
    with subprocess.Popen([*words, script], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 9


def test_exec_has_exit_codes_of_its_own(boxes: Run, shell: Shell) -> None:
    boxes("run", "-d", "--name", "web", "-e", "A=1", "-w", "/tmp", "debian", "sleep", "100")
    missing = shell("exec", "web", "nope")
    words = 'layerstore: exec in container web failed: exec: "nope": executable file not found in $PATH\n'
    assert (missing.returncode, missing.stderr.decode().startswith(words)) == (127, True)
    assert shell("exec", "web", "/etc").returncode == 126
    done = shell("exec", "-e", "B=2", "-i", "web", "sh", "-c", "echo $A$B $(cat) $PWD", stdin=b"in")
    assert (done.returncode, done.stdout) == (0, b"12 in /tmp\n")
    assert shell("exec", "-u", "someone", "-w", "/", "web", "sh", "-c", "id -un; echo $PWD").stdout == b"someone\n/\n"
    assert boxes("exec", "-d", "web", "touch", "/tmp/done").stdout == ""
    assert shell("exec", "web", "sh", "-c", "until ls /tmp/done; do sleep 0.05; done").returncode == 0
    assert shell("exec", "-u", "zz", "web", "true").returncode == 126


def test_options_reach_the_program(boxes: Run, shell: Shell) -> None:
    done = shell(
        "run", "--rm", "-e", "A=1", "-w", "/tmp", "-u", "someone", "-h", "box", "--tmpfs", "/t", "--read-only",
        "debian", "sh", "-c", "echo $A $FROM_IMAGE $PWD $HOME $HOSTNAME; id -un; touch /x || touch /t/x && ls /t",
    )  # fmt: skip
    assert done.stdout.split() == b"1 1 /tmp /home/someone box someone x".split()
    assert shell("run", "--rm", "--entrypoint", "echo", "debian", "a", "b").stdout == b"a b\n"
    only = shell("run", "--rm", "-a", "stderr", "debian", "sh", "-c", "echo out; echo err >&2")
    assert (only.stdout, only.stderr) == (b"", b"err\n")


def test_what_is_mounted(boxes: Run, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/file").write_text("x\n")
    done = shell(
        "run", "--name", "web", "-v", f"{tmp_path}/here:/there:ro", "-v", "data:/data", "-v", "/anon", "debian",
        "sh", "-c", "cat /there/file; touch /there/y; echo kept > /data/f",
    )  # fmt: skip
    assert done.stdout == b"x\n"
    assert shell("run", "--rm", "-v", "data:/d", "debian", "cat", "/d/f").stdout == b"kept\n"
    mounts = {mount["Destination"]: mount for mount in json.loads(boxes("inspect", "web").stdout)[0]["Mounts"]}
    assert set(mounts) == {"/there", "/data", "/anon"}
    assert (mounts["/there"]["Type"], mounts["/there"]["RW"]) == ("bind", False)
    assert mounts["/data"]["Name"] == "data"
    facts = json.loads(boxes("ps", "-a", "--format", "json").stdout)
    assert facts["LocalVolumes"] == "2"
    assert "data" in facts["Mounts"].split(",")
    assert lines(boxes("ps", "-aq", "-f", "volume=data")) != []
    assert shell("run", "--rm", "--volumes-from", "web", "debian", "cat", "/data/f").stdout == b"kept\n"
    boxes("rm", "-v", "web")
    assert lines(boxes("volume", "ls", "-q")) == ["data"]


def test_inspect_has_state_and_host_config(boxes: Run) -> None:
    boxes("run", "-d", "--name", "web", "-m", "64m", "--rm", "debian", "sleep", "100")
    [facts] = json.loads(boxes("inspect", "web").stdout)
    assert facts["State"]["Status"] == "running"
    assert facts["State"]["Running"] is True
    assert facts["State"]["Pid"] > 0
    assert facts["HostConfig"]["Memory"] == 64 << 20
    assert facts["HostConfig"]["AutoRemove"] is True
    assert boxes("inspect", "-f", "{{.State.Status}} {{.Path}} {{.Args}}", "web").stdout == "running sleep [100]\n"
    boxes("stop", "-t", "0", "web")
    assert boxes("ps", "-aq").stdout == ""


def test_top_stats_and_port(boxes: Run) -> None:
    boxes("run", "-d", "--name", "web", "debian", "sleep", "100")
    head, row = lines(boxes("top", "web"))
    assert head.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert row.split()[0] == "root"
    assert row.endswith("sleep 100")
    assert len(lines(boxes("top", "web", "-o", "pid"))) == 2
    head, row = lines(boxes("stats", "--no-stream", "web"))
    assert re.split(r"\s{2,}", head) == [
        "CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS",
    ]  # fmt: skip
    assert row.split()[1] == "web"
    assert row.split()[-1] == "1"
    assert boxes("port", "web").stdout == ""
    assert boxes("port", "web", "80", code=1).stderr.startswith("layerstore: no public port '80' published for web\n")


def test_create_and_start(boxes: Run, shell: Shell, tmp_path: Path) -> None:
    [box] = lines(
        boxes("create", "--cidfile", str(tmp_path / "id"), "--name", "web", "debian", "sh", "-c", "echo hi; exit 3")
    )
    assert (tmp_path / "id").read_text() == box
    again = boxes("create", "--cidfile", str(tmp_path / "id"), "debian", code=1).stderr
    assert again.startswith(
        "layerstore: container ID file found, make sure the other container isn't running or delete"
    )
    done = shell("start", "-a", "web")
    assert (done.returncode, done.stdout) == (3, b"hi\n")
    assert boxes("start", "-a", "web", "x", code=1).stderr.startswith(
        "layerstore: you cannot start and attach multiple containers at once\n"
    )
    taken = boxes("run", "--name", "web", "debian", "true", code=125)
    assert len(taken.stderr.splitlines()) == 2
    assert "web" in taken.stderr
    assert len(lines(boxes("ps", "-aq"))) == 1


def test_a_terminal(boxes: Run, settings: Path) -> None:
    words = [sys.executable, "-m", "layerstore.cli", "--config", str(settings), "run", "--rm"]
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [*words, "-t", "debian", "sh", "-c", "ls -l /proc/self/fd/1; exit 4"],
            stdout=theirs,
            stderr=theirs,
            check=False,
            timeout=60,
        )
        assert select.select([ours], [], [], 30)[0]
        assert b"/dev/pts/" in os.read(ours, 4096)
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == 4
    done = subprocess.run([*words, "-it", "debian", "sh"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (1, b"layerstore: the input device is not a TTY\nLeave -t out, or -i.\n")


def test_a_terminal_has_its_size_when_the_program_begins(boxes: Run, settings: Path) -> None:
    words = [sys.executable, "-m", "layerstore.cli", "--config", str(settings)]
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as shown, open(theirs, "wb") as its:
        termios.tcsetwinsize(its, (33, 91))
        for command in (["run", "--rm", "-t", "debian"], ["run", "--rm", "-it", "debian"]):
            line = [*words, *command, "stty", "size"]
            subprocess.run(line, stdin=its, stdout=its, stderr=its, check=True, timeout=60)
            text = b""
            while not text.endswith(b"\n"):  # a line may come in pieces
                assert select.select([shown], [], [], 30)[0], (command, text)
                text += shown.read(4096)
            assert text.split() == [b"33", b"91"], command


def test_logs_of_a_time(boxes: Run, shell: Shell) -> None:
    boxes("run", "-d", "--name", "web", "debian", "sh", "-c", "echo 1; echo 2; echo 3 >&2")
    boxes("wait", "web")
    done = shell("logs", "web")
    assert (done.stdout, done.stderr) == (b"1\n2\n", b"3\n")
    assert shell("logs", "-f", "-n", "2", "web").stdout == b"2\n"
    assert shell("logs", "--until", "1h", "web").stdout == b""
    assert shell("logs", "--since", "1h", "web").stdout == b"1\n2\n"
    assert re.fullmatch(rb"20\d\d-\d\d-\d\dT\S+Z 2\n", shell("logs", "-t", "--tail=2", "web").stdout)
    assert boxes("logs", "--since", "soon", "web", code=2).stderr.startswith(
        'layerstore: invalid argument "soon" for "--since" flag: '
    )


def test_containers_that_do_not_run_are_pruned(boxes: Run) -> None:
    boxes("run", "-d", "--name", "web", "debian", "sleep", "100")
    assert (
        boxes("info", "-f", "{{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}}").stdout == "1 0 0\n"
    )
    [containers] = [line for line in lines(boxes("system", "df")) if line.startswith("Containers ")]
    assert containers.split()[1:3] == ["1", "1"]
    assert containers.endswith((" 0B (0%)", " 0B"))
    [idle] = lines(boxes("create", "--name", "idle", "-l", "keep=1", "debian"))
    assert "Deleted" not in boxes("container", "prune", "-f", "--filter", "label!=keep").stdout
    assert lines(boxes("container", "prune", "-f", "--filter", "label=keep=1"))[:2] == ["Deleted Containers:", idle]
    assert boxes("ps", "-a", "--format", "{{.Names}}").stdout == "web\n"


def test_a_container_that_is_let_go_of_lives_on_and_its_code_is_told(boxes: Run, settings: Path) -> None:
    words = [sys.executable, "-m", "layerstore.cli", "--config", str(settings)]

    def typed(*args: str, text: bytes) -> int:
        ours, theirs = pty.openpty()
        with open(ours, "rb", buffering=0) as terminal:
            with open(theirs, "wb") as its:
                running = subprocess.Popen([*words, *args], stdin=its, stdout=its, stderr=its)
            try:
                shown = b""
                while not re.search(rb"[#$] $", shown):
                    assert select.select([terminal], [], [], 30)[0], shown
                    shown += terminal.read(4096)
                os.write(ours, text)
                return running.wait(30)
            finally:
                running.kill()
                running.wait()

    assert typed("run", "-it", "--rm", "debian", "sh", text=b"exit 5\n") == 5
    assert typed("run", "-it", "--rm", "--name", "web", "debian", "sh", text=b"\x10\x11") == 0
    assert status(boxes, "web").startswith("Up ")
    boxes("stop", "-t", "0", "web")
    for _ in range(200):
        if boxes("ps", "-aq").stdout == "":
            return
        time.sleep(0.05)
    pytest.fail("web was not removed")


def test_what_is_compared_and_kept_of_one_that_runs_is_what_its_program_wrote(boxes: Run) -> None:
    """Mount points that are made for it (a volume's, its working directory, files in /etc) are not."""
    script = "echo written > /root/file; exec sleep 60"
    boxes("run", "-d", "--name", "web", "-v", "/made/here", "-w", "/work", "debian", "sh", "-c", script)
    wanted = ["C /root", "A /root/file"]
    deadline = time.monotonic() + 10
    while lines(boxes("diff", "web")) != wanted:
        assert time.monotonic() < deadline
    boxes("commit", "web", "kept")
    assert lines(boxes("diff", "kept")) == wanted
    boxes("fork", "web", "--name", "twin")
    assert lines(boxes("diff", "twin")) == wanted
    boxes("checkpoint", "web", "now")
    assert boxes("checkpoints", "web", "--format", "{{.Consistent}}").stdout == "yes\n"
    assert lines(boxes("diff", "web@now")) == wanted
    for pair in (("web", "web@now"), ("web@now", "web"), ("twin", "web"), ("twin", "web@now")):
        assert lines(boxes("diff", *pair)) == []
    assert status(boxes, "web").startswith("Up ")
    assert sorted(lines(boxes("ps", "-a", "--format", "{{.Names}}"))) == ["twin", "web"]


def test_forks_are_run_as_what_they_were_forked_from(boxes: Run, shell: Shell) -> None:
    line = "cat /tmp/x; echo $A; cat /data/x; ls /anon"
    boxes("create", "--name", "web", "-e", "A=1", "-v", "data:/data", "-v", "/anon", "debian", "sh", "-c", line)
    shell("run", "--rm", "--volumes-from", "web", "debian", "sh", "-c", "echo data > /data/x; echo own > /anon/y")
    [root] = lines(boxes("mount", "web"))
    (Path(root) / "tmp/x").write_text("written\n")
    boxes("umount", "web")
    boxes("checkpoint", "web", "one")
    boxes("fork", "web", "--name", "now")
    boxes("fork", "web", "--name", "then", "--checkpoint", "one")
    assert shell("start", "-a", "web").stdout == b"written\n1\ndata\ny\n"
    for name in ("now", "then"):
        assert shell("start", "-a", name).stdout == b"written\n1\ndata\n"
    assert len(lines(boxes("volume", "ls", "-q"))) == 4
    assert boxes("fork", "web", "--name", "now", code=1).stderr.startswith("layerstore: ")
    assert len(lines(boxes("ps", "-aq"))) == 3
