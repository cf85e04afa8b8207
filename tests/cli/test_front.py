"""The front door: help, wrong usage, exit codes, and what a call costs."""

from __future__ import annotations

import ast
import errno
import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import Result

import layerstore
from layerstore.cli import facts
from layerstore.cli.front import exit_code, front
from layerstore.errors import InUse, LayerstoreError, remedy_for

Run = Callable[..., Result]
Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]


def test_help_names_every_command_and_imports_none(bare_shell: Shell) -> None:
    code = "import sys; sys.argv[1:] = ['--help']; from layerstore.cli import main; print(main(), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    with click.Context(front) as ctx:
        commands = front.list_commands(ctx)
    text = done.stdout.replace("\n", " ").split()
    assert set(commands) <= set(text)
    assert not {"attrs", "sqlite3", "rich", "layerstore.store", "layerstore.cli.images"} & set(text)


def test_every_command_has_help(bare: Run) -> None:
    with click.Context(front) as ctx:
        for name in front.list_commands(ctx):
            # -h is the host name of what is run, as in docker.
            for option in ("--help",) if name in ("run", "create") else ("-h", "--help"):
                result = bare(name, option)
                assert result.exit_code == 0
                assert result.stdout.startswith(f"Usage: layerstore {name} ")


def test_version_imports_next_to_nothing() -> None:
    code = "import sys; sys.argv[1:] = ['version']; from layerstore.cli import main; main(); print(list(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *version, modules = done.stdout.splitlines()
    assert "\n".join(version) == facts.version_text()
    costly = {"attr", "attrs", "click", "rich", "sqlite3", "json", "re", "importlib.metadata", "typing", "platform"}
    assert not costly & set(ast.literal_eval(modules))


def modules_of(*words: object) -> set[str]:
    """The modules that a command has imported when it is done."""
    code = "import sys; from layerstore.cli import main; code = main(); print(*sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.root
def test_lists_are_shown_without_what_other_commands_need(data_root: Path) -> None:
    modules_of("--root", data_root, "images")  # which founds the store
    images, ps = (modules_of("--root", data_root, command) for command in ("images", "ps"))
    few = (
        "blobs.blobs check cli.record cli.shapes cli.template containers.commit copying homes images.instructions info"
        " layers.files migration platforms plugins pruning recovery registry tar transfer usage"
    )
    costly = {"asyncio", "html", "importlib.metadata", "rich", "subprocess", "tempfile"}
    for modules in (images, ps):
        assert not ({f"layerstore.{name}" for name in few.split()} | costly) & modules
    assert not {f"layerstore.{name}" for name in ("containers", "runtime", "volumes")} & images
    ours = {name for name in images if name.startswith("layerstore")}
    assert len(ours) < 90, sorted(ours)


def test_a_program_is_run_without_what_few_runs_need() -> None:
    parts = "cli.run containers.launching runtime.life.foreground runtime.life.runtime store"
    code = f"import sys, layerstore_overlay2; {'; '.join(f'import layerstore.{name}' for name in parts.split())}"
    done = subprocess.run([sys.executable, "-c", f"{code}; print(*sys.modules)"], capture_output=True, check=True)
    few = (
        "cli.progress containers.commit copying kernel.copying kernel.processes.housing layers.assembly manifests"
        " platforms registry runtime.boxes runtime.health runtime.life.lean runtime.streams.attaching"
        " runtime.streams.logs transfer"
    )
    costly = {"asyncio", "importlib.metadata", "random", "rich", "selectors", "socket", "subprocess", "tempfile"}
    assert not ({f"layerstore.{name}" for name in few.split()} | costly) & {*done.stdout.decode().split()}


@pytest.mark.parametrize("args", [("version",), ("--root", "/nowhere", "version")])
def test_version(bare_shell: Shell, args: tuple[str, ...]) -> None:
    done = bare_shell(*args)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().startswith(f"layerstore:\n Version:          {layerstore.__version__}\n")


def test_version_in_other_forms(bare: Run, bare_shell: Shell) -> None:
    line = f"layerstore version {layerstore.__version__}\n"
    assert bare_shell("--version").stdout.decode() == line
    assert bare("--version").stdout == line
    assert bare("version", "--format", "{{.Version}}").stdout == f"{layerstore.__version__}\n"
    assert bare("version", "-f", "json").stdout.startswith('{"Version":')


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nope",), "there is no command nope\nSee 'layerstore --help'."),
        (("imges",), "there is no command imges, did you mean images?\nSee 'layerstore --help'."),
        (("--nope", "images"), "unknown flag: --nope\nSee 'layerstore --help'."),
        (("-x=1", "images"), "unknown shorthand flag: 'x' in -x=1\nSee 'layerstore --help'."),
        (("images", "-qf"), "flag needs an argument: 'f' in -f\nSee 'layerstore images --help'."),
        (("images", "a", "b"), "got unexpected extra argument (b)\nSee 'layerstore images --help'."),
        (("history",), "missing argument 'IMAGE'\nSee 'layerstore history --help'."),
        (("rm",), "missing argument 'CONTAINER...'\nSee 'layerstore rm --help'."),
        (("tag", "a"), "missing argument 'TARGET_IMAGE[:TAG]'\nSee 'layerstore tag --help'."),
        (
            ("images", "--format", "{{.X"),
            "invalid value for '--format': template: unclosed action: there is no }} to end it\nSee",
        ),
        (
            ("ps", "-f", "x=1"),
            "invalid value for '-f' / '--filter': there is no filter 'x'; there are: ancestor, before, ",
        ),
        (("ps", "-f", "x"), "invalid value for '-f' / '--filter': 'x' is no filter: it has to be NAME=VALUE\nSee"),
        (("ps", "-f", "status=up"), "filter status is one of created, running, paused, "),
        (("create", "--storage-opt", "x=1"), "storage-opt of a container is size=BYTES, not x=1\nSee"),
        (("import", "https://example.org/x.tar"), "import reads a file or standard input: "),
        (("umount",), "either containers or --all has to be given\nSee"),
        (("umount", "-a", "x"), "either containers or --all has to be given\nSee"),
        (("completion", "csh"), "invalid value for '{bash|zsh|fish}': 'csh' is not one of"),
        (("save", "--format", "zip", "x"), "invalid value for '--format': 'zip' is not one of"),
    ],
)
def test_wrong_usage_is_two_lines_and_code_2(bare: Run, args: tuple[str, ...], words: str) -> None:
    result = bare(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"layerstore: {words}")
    assert len(result.stderr.splitlines()) == 2


def test_no_command_at_all_is_wrong_usage_and_shows_the_help(bare: Run) -> None:
    result = bare()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: layerstore [OPTIONS] COMMAND [ARGS]...\n")


def test_switches_take_docker_s_true_and_false(bare: Run) -> None:
    for args in (("--human=false",), ("-H=t",), ("--no-trunc=FALSE", "--quiet=0"), ("-q=1",), ("--help=false",)):
        assert "missing argument 'IMAGE'" in bare("history", *args).stderr
    assert "unknown flag: --nope" in bare("history", "--nope=false").stderr
    assert (
        bare("history", "--human=maybe", "x").stderr
        == 'layerstore: invalid argument "maybe" for "-H, --human" flag: must be true or false\n'
        "See 'layerstore history --help'.\n"
    )


def test_an_option_s_value_has_no_equals_sign_of_the_option(bare: Run, tmp_path: Path) -> None:
    assert bare("version", "-f={{.Version}}").stdout == f"{layerstore.__version__}\n"
    assert bare("version", "-f", "={{.Version}}").stdout == f"={layerstore.__version__}\n"
    store = ("--root", str(tmp_path))
    assert "no storage driver 'nothing' is installed" in bare(*store, "-s=nothing", "images").stderr
    assert "there is no filter 'x'" in bare("images", "-qf=x=1").stderr
    # The last word on a switch counts.
    assert bare("version", "--help", "--help=f", "-f=x").stdout == "x\n"


def _raises(problem: BaseException) -> Callable[[], object]:
    def work() -> object:
        raise problem

    return work


@pytest.mark.parametrize(
    ("problem", "code", "words"),
    [
        (LayerstoreError("a\nb"), 1, "layerstore: a b\n"),
        (LayerstoreError("a", remedy="Do\nc."), 1, "layerstore: a\nDo c.\n"),
        (InUse("in use", holders=["web"], remedy="layerstore rm web"), 1, "layerstore: in use\nlayerstore rm web\n"),
        (
            OSError(errno.ENOENT, "No such file or directory", "/x"),
            1,
            f"layerstore: /x: No such file or directory\n{remedy_for(errno.ENOENT)}\n",
        ),
        (
            OSError(errno.EIO, "Input/output error"),
            1,
            f"layerstore: the system refused what was asked of it: Input/output error\n{remedy_for(errno.EIO)}\n",
        ),
        (OSError("odd"), 1, f"layerstore: OSError: odd\n{remedy_for(None)}\n"),
        (click.ClickException("bad"), 1, "layerstore: bad\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
        (KeyboardInterrupt(), 130, ""),
        (
            KeyError("x"),
            1,
            "layerstore: unexpected KeyError: 'x'\n"
            "This is a defect of layerstore: LAYERSTORE_TRACEBACK=1 in the environment shows where it is.\n",
        ),
    ],
)
def test_every_error_has_a_code_and_at_most_two_lines(
    problem: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAYERSTORE_TRACEBACK", raising=False)
    assert exit_code(_raises(problem)) == code
    assert capsys.readouterr().err == words


def test_a_defect_shows_its_place_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERSTORE_TRACEBACK", "1")
    with pytest.raises(KeyError):
        exit_code(_raises(KeyError("x")))


def test_a_result_that_is_no_number_is_success() -> None:
    assert [exit_code(partial(str, "text")), exit_code(partial(int, 3)), exit_code(lambda: None)] == [0, 3, 0]


@pytest.mark.parametrize("args", [("version",), ("version", "-f", "json"), ("completion", "zsh")])
def test_a_full_disk_under_standard_output_is_an_error(bare_shell: Shell, args: tuple[str, ...], full: Path) -> None:
    with full.open("wb") as out:
        done = bare_shell(*args, stdout=out.fileno())
    assert done.returncode == 1
    words = b"layerstore: standard output: No space left on device\nFree some space there, or write elsewhere.\n"
    assert done.stderr == words


@pytest.mark.parametrize("args", [("version",), ("version", "-f", "json"), ("--help",)])
def test_a_reader_that_has_gone_is_no_error_worth_a_word(bare_shell: Shell, args: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = bare_shell(*args, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_borne(streams: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m layerstore.cli version -f json {streams}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    wrong = subprocess.run(["/bin/sh", "-c", command + " --nope"], capture_output=True, check=False)
    assert wrong.returncode == 2
    assert b"Traceback" not in wrong.stderr


def test_missing_extra_is_one_sentence() -> None:
    code = (
        "import sys; sys.modules['click'] = None; sys.argv[1:] = ['ps']; import layerstore.cli as c; sys.exit(c.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "layerstore: the command needs the package click, which is not installed\n"
        "Install it with: pip install 'layerstore[cli]'\n"
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(bare: Run, shell: str) -> None:
    result = bare("completion", shell)
    assert result.exit_code == 0
    assert f"_LAYERSTORE_COMPLETE={shell}_complete" in result.stdout


def test_completion_offers_commands_options_and_choices(bare_shell: Shell) -> None:
    def offered(line: str, position: int) -> set[str]:
        variables = {"_LAYERSTORE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(position)}
        done = bare_shell(variables=variables)
        assert (done.returncode, done.stderr) == (0, b"")
        return {text.partition(",")[2] for text in done.stdout.decode().split()}

    assert offered("layerstore im", 1) == {"image", "images", "import"}
    assert offered("layerstore system d", 2) == {"df"}
    assert offered("layerstore ps --no", 2) == {"--no-trunc", "--noheading"}
    assert offered("layerstore save --format ", 3) == {"docker-archive", "oci", "oci-archive", "oci-dir"}
    # No store there: nothing to offer, and nothing to say.
    assert offered("layerstore --root /proc/nowhere rmi ", 4) == set()


@pytest.mark.parametrize("command", [("save", "x"), ("export", "x"), ("load",), ("load", "-"), ("import", "-")])
def test_an_archive_and_a_terminal_do_not_mix(command: tuple[str, ...]) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "layerstore.cli", "--root", "/proc/nowhere", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == 1
    assert b"terminal\n" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_names_reach_a_terminal_without_control_characters() -> None:
    code = "import sys; from layerstore.cli import output; output.lines(['a\\x1b[31m\\tb']); output.error('c\\x07')"
    ours, theirs = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", code], stdout=theirs, stderr=theirs, check=True)
        os.close(theirs)
        shown = os.read(ours, 1000)
    finally:
        os.close(ours)
    assert b"\x1b" not in shown
    assert b"\x07" not in shown
    assert b"a\\x1b[31m" in shown


def test_an_interrupt_within_what_is_compiled_from_text_is_an_exit_code_too(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import sys\n"
        "from layerstore.cli.front import exit_code\n"
        "def halt(): raise KeyboardInterrupt\n"
        "sys.exit(exit_code(lambda: eval('halt()')))\n"
    )
    done = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")
