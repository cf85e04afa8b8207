"""Contexts by what they are called: a folder, a tar, standard input, a URL, a git repository."""

from __future__ import annotations

import gzip
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerstore import LimitExceeded, Limits, Store
from layerstore.build import BuildError, build
from layerstore.build.context import Context, GitRepository, Staging, checked_out, open_context

pytestmark = pytest.mark.root

FILES = {
    "Dockerfile": "FROM scratch\nCOPY . /\n",
    ".dockerignore": "*.log\n",
    "a.txt": "a",
    "d/b.txt": "b",
    "x.log": "-",
}


def tar_of(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    """Folders that are gone when they are not needed any more."""

    @contextmanager
    def folder() -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=tmp_path) as place:
            yield Path(place)

    return Staging(folder, lambda tx, layer: None)


def shown(context: Context) -> set[str]:
    [whole] = context.choose(["."])
    return {os.fsdecode(path) for path, _ in whole.below}


def assert_is_of_files(context: Context) -> None:
    assert context.dockerfile is not None
    assert context.dockerfile.text == FILES["Dockerfile"]
    assert shown(context) == {"Dockerfile", ".dockerignore", "a.txt", "d", "d/b.txt"}


@pytest.mark.parametrize("form", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_tar_is_a_context_as_a_file_and_as_standard_input(
    form: Callable[[bytes], bytes], store: Store, staging: Staging, tmp_path: Path
) -> None:
    data = form(tar_of(FILES))
    (tmp_path / "context.tar").write_bytes(data)
    with open_context(tmp_path / "context.tar", store=store, staging=staging, reads_dockerfile=True) as context:
        assert_is_of_files(context)
        from_file = context.digest(".")
    with open_context("-", store=store, staging=staging, reads_dockerfile=True, stdin=io.BytesIO(data)) as context:
        assert_is_of_files(context)
        assert context.digest(".") == from_file


def test_a_dockerfile_that_leads_out_of_the_context_is_told_apart_from_none(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "link").mkdir()
    (tmp_path / "outside").write_text("FROM scratch\n")
    (tmp_path / "link/Dockerfile").symlink_to("../outside")
    for name, remedy in (("none", "Name it with --file."), ("link", "It is a folder, or a link that leads out")):
        opened = open_context(tmp_path / name, reads_dockerfile=True)
        with pytest.raises(BuildError, match="no such file") as caught, opened:
            pass
        assert (caught.value.remedy or "").startswith(remedy)


def test_standard_input_may_be_a_dockerfile_alone(store: Store, staging: Staging) -> None:
    stdin = io.BytesIO(b"FROM scratch\n")
    with open_context("-", store=store, staging=staging, reads_dockerfile=True, stdin=stdin) as context:
        assert context.dockerfile is not None
        assert context.dockerfile.text == "FROM scratch\n"
        assert shown(context) == set()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """The URL of a repository with `FILES`, and a second commit with a tag, on loopback."""
    folder = tmp_path / "served" / "app.git"
    folder.mkdir(parents=True)
    git = [
        "git",
        "-C",
        str(folder),
        "-c",
        "user.name=n",
        "-c",
        "user.email=e@example.org",
        "-c",
        "commit.gpgsign=false",
    ]
    subprocess.run(["git", "init", "-q", "--initial-branch=main", str(folder)], check=True)
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    subprocess.run([*git, "add", "-f", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    (folder / "a.txt").write_text("later")
    subprocess.run([*git, "commit", "-q", "-a", "-m", "two"], check=True)
    subprocess.run([*git, "tag", "v2"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "git",
        "daemon",
        "--export-all",
        "--listen=127.0.0.1",
        f"--port={port}",
        f"--base-path={tmp_path}/served",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as daemon:
        try:
            while daemon.poll() is None:
                with socket.socket() as trial:
                    if trial.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.01)
            yield f"git://127.0.0.1:{port}/app.git"
        finally:
            os.killpg(daemon.pid, signal.SIGKILL)


def test_standard_input_is_one_of_both(store: Store, staging: Staging) -> None:
    opened = open_context("-", store=store, staging=staging, file="-", reads_dockerfile=True, stdin=io.BytesIO())
    with pytest.raises(BuildError, match="cannot be both"), opened:
        pass


def test_a_repository_is_a_context_at_a_commit_and_a_folder(store: Store, staging: Staging, repository: str) -> None:
    with open_context(repository, store=store, staging=staging, reads_dockerfile=True) as context:
        assert_is_of_files(context)
    with open_context(f"{repository}#v2:d", store=store, staging=staging) as context:
        assert shown(context) == {"b.txt"}
    for behind, words in (("v2:nowhere", "there is no folder"), ("nowhere", "nowhere is no branch, tag or commit")):
        opened = open_context(f"{repository}#{behind}", store=store, staging=staging)
        with pytest.raises(BuildError, match=words), opened:
            pass


def test_a_commit_may_be_told_by_the_beginning_of_its_number(
    store: Store, staging: Staging, repository: str, tmp_path: Path
) -> None:
    served = tmp_path / "served" / "app.git"
    number = subprocess.run(["git", "-C", served, "rev-parse", "v2"], capture_output=True, text=True, check=True).stdout
    with open_context(f"{repository}#{number[:9]}:d", store=store, staging=staging) as context:
        assert shown(context) == {"b.txt"}


def test_add_copies_a_repository(store: Store, repository: str, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        f"FROM scratch\nADD {repository}#v2 /app\nADD --keep-git-dir {repository} /kept\n"
    )
    built = build(store, context)
    with built.image.mount() as root:
        assert (root / "app/a.txt").read_text() == "later"
        assert not (root / "app/.git").exists()
        assert (root / "kept/.git/HEAD").exists()
    (context / "Dockerfile").write_text(f"FROM scratch\nADD --checksum={'0' * 40} {repository} /app\n")
    with pytest.raises(BuildError, match="digest mismatch"):
        build(store, context)


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`ssh(end)`: git has a stub for ssh, whose child outlives it if nobody ends it. The file gets their numbers."""

    def stub(end: str) -> Path:
        program, pids = tmp_path / "ssh", tmp_path / "pids"
        program.write_text(
            f"#!/bin/sh\nsleep 1000 > /dev/null 2>&1 &\necho $$ $! > {pids}.new; mv {pids}.new {pids}\n{end}\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("GIT_SSH_COMMAND", str(program))
        monkeypatch.setenv("GIT_SSH_VARIANT", "simple")
        return pids

    return stub


def are_gone(pids: Path) -> bool:
    """Have these processes ended, within a moment?"""
    deadline = time.monotonic() + 30
    rest = [Path("/proc", pid) for pid in pids.read_text().split()]
    while any((place / "exe").exists() for place in rest) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any((place / "exe").exists() for place in rest)


def test_an_interrupt_ends_git_and_all_that_it_has_started(tmp_path: Path, ssh: Callable[[str], Path]) -> None:
    pids = ssh("wait")

    def interrupt() -> None:
        if pids.exists():
            raise KeyboardInterrupt

    (tmp_path / "folder").mkdir()
    with pytest.raises(KeyboardInterrupt):
        checked_out(GitRepository("ssh://nowhere.invalid/x.git"), tmp_path / "folder", limits=Limits(), check=interrupt)
    assert are_gone(pids)


def test_what_git_leaves_when_it_fails_is_ended(tmp_path: Path, ssh: Callable[[str], Path]) -> None:
    pids = ssh("exit 1")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BuildError, match="git fetch has failed"):
        checked_out(GitRepository("ssh://nowhere.invalid/x.git"), tmp_path / "folder", limits=Limits())
    assert are_gone(pids)


@pytest.fixture
def git_stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`git_stub(script)`: what is called git does this."""

    def stub(script: str) -> None:
        program = tmp_path / "bin" / "git"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        (tmp_path / "folder").mkdir()

    return stub


@pytest.mark.parametrize(
    ("script", "limits", "setting"),
    [
        ("while :; do head -c 1000000 /dev/zero >> big; done", Limits(layer_size=10_000_000), "max-layer-size"),
        ("i=0; while :; do i=$((i + 1)); : > $i; done", Limits(layer_entries=100), "max-layer-entries"),
    ],
)
def test_a_repository_that_has_no_end_is_ended(
    tmp_path: Path, git_stub: Callable[[str], None], script: str, limits: Limits, setting: str
) -> None:
    git_stub(script)
    with pytest.raises(LimitExceeded, match=setting):
        checked_out(GitRepository("ssh://nowhere.invalid/x.git"), tmp_path / "folder", limits=limits)
    before = list(tmp_path.rglob("*"))
    time.sleep(0.05)
    assert list(tmp_path.rglob("*")) == before


def test_git_may_remember_as_much_as_is_remembered_of_a_layer(tmp_path: Path, git_stub: Callable[[str], None]) -> None:
    git_stub(f"sleep 0.3; exec {sys.executable} -c 'bytearray(300 << 20)'")
    with pytest.raises(BuildError, match=r"(?s)git init has failed: .*MemoryError"):
        checked_out(
            GitRepository("ssh://nowhere.invalid/x.git"), tmp_path / "folder", limits=Limits(layer_memory=200 << 20)
        )


def test_a_repository_that_is_larger_than_a_layer_is_refused(tmp_path: Path, repository: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(LimitExceeded, match="max-layer-size is 100"):
        checked_out(GitRepository(repository), tmp_path / "folder", limits=Limits(layer_size=100))
