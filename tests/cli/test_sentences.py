"""What goes wrong outside of the store, as sentences: what failed, on what, and what to do."""

from __future__ import annotations

import shlex
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from support import images as made

Run = Callable[..., Result]
Line = Callable[[str], "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.root

BASE = made.layer(made.folder("etc"), made.file("etc/hostname", "base\n"))
LONG = "x" * 300
CLOSED_INPUT = "layerstore: standard input is closed\nName a file, or redirect standard input.\n"
CLOSED_OUTPUT = "layerstore: standard output is closed\nName a file with -o, or redirect standard output.\n"


@pytest.fixture
def line(run: Run, settings: Path, tmp_path: Path, full: Path) -> Line:
    """`line("images >&-")`: a command line of the shell, beside a few files, on a store with base:1 and web."""
    made.docker_archive(tmp_path / "base.tar", [BASE], ["base:1"])
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "null").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    assert full == tmp_path / "full"
    run("load", str(tmp_path / "base.tar"))
    run("create", "--name", "web", "base:1")

    def shell(text: str) -> subprocess.CompletedProcess[str]:
        command = f"{shlex.quote(sys.executable)} -m layerstore.cli --config {shlex.quote(str(settings))} {text}"
        return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)

    return shell


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("load <&-", CLOSED_INPUT),
        ("import - <&-", CLOSED_INPUT),
        ("cp - web:/ <&-", CLOSED_INPUT),
        ("save base:1 >&-", CLOSED_OUTPUT),
        ("export web >&-", CLOSED_OUTPUT),
        ("cp web:/etc - >&-", CLOSED_OUTPUT),
        ("prune <&-", "layerstore: there is nobody to ask, so nothing was done\nWithout a terminal, use --force.\n"),
        ("load 0>new", "layerstore: read standard input: Bad file descriptor\nIt is not open for that"),
        ("import - 0>new", "layerstore: read standard input: Bad file descriptor\nIt is not open for that"),
        ("save base:1 1<text", "layerstore: write standard output: Bad file descriptor\nIt is not open for that"),
        ("export web 1<text", "layerstore: standard output: Bad file descriptor\nIt is not open for that"),
        ("save base:1 >full", "layerstore: write standard output: No space left on device\nFree some space there"),
        ("export web >full", "layerstore: standard output: No space left on device\nFree some space there"),
        ("export web -o full", "layerstore: write {here}/full: No space left on device\nFree some space there"),
        ("cp web:/etc - >full", "layerstore: write the tar: No space left on device\nFree some space there"),
        ("load nothing", "layerstore: open nothing: No such file or directory\nLook whether the path is right"),
        ("load null", "layerstore: null is empty\nLook whether what should have written it has failed.\n"),
        ("load </dev/null", "layerstore: standard input is empty\nLook whether what should have written it has failed"),
        ("save base:1 -o ocy:x", "layerstore: 'ocy:x' is no place that is known, did you mean oci:x?\nAn image is at"),
        ("history base", "layerstore: no such image: base\nThere is base:1: a name without a tag means :latest.\n"),
        ("inspect base", "layerstore: no such object: base\nThere is base:1: a name without a tag means :la"),
        ("history base:2", "layerstore: no such image: base:2\nThere is base:1.\n"),
        ("ls base", "layerstore: no such object: base\nThere is base:1: a name without a tag means :latest.\n"),
        ("ls web@no", "layerstore: no such object: web@no\n`layerstore checkpoints web` shows what it has.\n"),
        (
            "cat /etc/x",
            "layerstore: no such object: /etc/x\nA path is written behind the name that has it: NAME:/etc",
        ),
        ("load text/x", "layerstore: open text/x: Not a directory\nLook whether the path is right"),
        ("load loop", "layerstore: open loop: Too many levels of symbolic links\nIts symbolic links lead nowhere"),
        (f"load {LONG}", f"layerstore: open {LONG}: File name too long\nA name may have 255 bytes"),
        ("import dir", "layerstore: open dir: Is a directory\nIt is a folder: name a file.\n"),
        ("save base:1 -o no/x", "layerstore: open {here}/no/x: No such file or directory\nLook whether the path is"),
        ("save base:1 -o text/x", "layerstore: open {here}/text/x: Not a directory\nLook whether the path is right"),
        (f"save base:1 -o {LONG}", f"layerstore: open {{here}}/{LONG}: File name too long\nA name may have"),
        ("save base:1 --format oci -o no/x/", "layerstore: mkdir {here}/no/x: No such file or directory\nLook"),
        ("export web -o no/x", "layerstore: write {here}/no/x: No such file or directory\nLook whether the path is"),
        ("export web -o text/x", "layerstore: write {here}/text/x: Not a directory\nLook whether the path is right"),
        (f"export web -o {LONG}", f"layerstore: write {{here}}/{LONG}: File name too long\nA name may have"),
        ("--root text images", "layerstore: mkdir {here}/text: File exists\nSomething else has that name"),
        ("--root '' images", "layerstore: the name of the data-root is empty\nName a folder, or leave it out.\n"),
        ("cp web:/nothing .", "layerstore: could not find the file /nothing in container web\nLook whether the path"),
    ],
)
def test_an_error_says_what_failed_on_what_and_what_to_do(line: Line, text: str, words: str, tmp_path: Path) -> None:
    done = line(text)
    told = done.stderr[done.stderr.index("layerstore: ") :]
    assert told.startswith(words.replace("{here}", str(tmp_path.resolve())))
    assert len(told.splitlines()) == 2
    assert done.returncode == 1


def test_streams_that_are_closed_are_no_files_of_ours(line: Line) -> None:
    assert line("load base.tar <&- >&- 2>&-").returncode == 0
    assert line("mount web >&-").returncode == 0
    assert line("umount web <&- >&-").returncode == 0
    assert line("commit web made:1 <&- >&- 2>&-").returncode == 0
    assert line("check 2>&-").stdout == ""
    assert line("check").returncode == 0
    assert "made" in line("images 0<&-").stdout


def test_an_empty_name_of_an_archive_is_none_as_in_docker(line: Line, tmp_path: Path) -> None:
    assert line("save -o '' base:1 > out.tar; cat base.tar").returncode == 0
    assert tarfile.is_tarfile(tmp_path / "out.tar")
    assert line("load -i '' --platform '' < base.tar").stdout == "Loaded image: base:1\n"
    assert line("export -o '' web > out.tar").returncode == 0


def test_a_target_of_any_length_and_kind_is_written(line: Line, tmp_path: Path) -> None:
    longest = "y" * 255
    for command in ("save base:1", "export web"):
        assert line(f"{command} -o {longest}").returncode == 0
        assert tarfile.is_tarfile(tmp_path / longest)
        assert line(f"{command} -o /dev/null").returncode == 0
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    (tmp_path / "link").symlink_to("text")
    assert line("export web -o link").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert tarfile.is_tarfile(tmp_path / "text")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "Images with a name were kept: --all removes those that no container needs.\n"),
        (("--all", "--images"), "What is left is in use or kept: "),
        (("--filter", "label=x"), "Nothing that is unused fits the filters: "),
    ],
)
def test_a_prune_that_finds_nothing_says_what_can_be_done(
    run: Run, line: Line, args: tuple[str, ...], words: str
) -> None:
    if not args:
        run("rm", "web")
    done = run("prune", "-f", *args)
    assert done.stdout == "Total reclaimed space: 0B\n"
    assert done.stderr.startswith(words)
    assert len(done.stderr.splitlines()) == 1
