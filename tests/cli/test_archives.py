"""load, save, import and export, on a real store."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from support import images as made

Run = Callable[..., Result]
Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]

pytestmark = pytest.mark.root

BASE = made.layer(made.folder("etc"), made.file("etc/hostname", "base\n"))
TOP = made.layer(made.file("etc/motd", "hello\n"))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A docker-archive of one image with two names."""
    return made.docker_archive(tmp_path / "in.tar", [BASE, TOP], ["base:1", "other:2"])


LOADED = "Loaded image: base:1\nLoaded image: other:2\n"


def test_load_takes_a_file_an_option_a_stream_and_a_folder(run: Run, archive: Path, tmp_path: Path) -> None:
    assert run("load", str(archive)).stdout == LOADED
    assert run("load", "-i", str(archive)).stdout == LOADED
    assert run("load", "-q", "-i", str(archive)).stdout == LOADED
    assert run("load", "-", stdin=archive.read_bytes()).stdout == LOADED
    assert run("load", stdin=archive.read_bytes()).stdout == LOADED
    layout = made.oci_layout(tmp_path / "layout", [BASE], "base:oci")
    assert run("load", str(layout)).stdout == "Loaded image: base:oci\n"


def test_files_and_formats_are_given_with_an_equals_sign_too(run: Run, archive: Path, tmp_path: Path) -> None:
    assert run("-s=overlay2", "load", "-q=true", f"-i={archive}").stdout == LOADED
    run("save", f"-o={tmp_path / 'out.tar'}", "base:1")
    assert tarfile.is_tarfile(tmp_path / "out.tar")
    assert run("inspect", "-f={{.Os}}", "base:1").stdout == "linux\n"
    assert len(run("images", "-qf=dangling=false").stdout.splitlines()) == 2


def test_load_of_an_image_without_a_name_tells_its_id(run: Run, tmp_path: Path) -> None:
    nameless = made.docker_archive(tmp_path / "nameless.tar", [TOP], [])
    assert run("load", str(nameless)).stdout == f"Loaded image ID: {made.digest(made.config([TOP]))}\n"


def test_load_tells_the_names_that_this_archive_gave(run: Run, archive: Path, tmp_path: Path) -> None:
    run("load", str(archive))
    run("tag", "base:1", "mine:3")
    assert run("load", str(archive)).stdout == LOADED
    nameless = made.docker_archive(tmp_path / "nameless.tar", [BASE, TOP], [])
    assert run("load", str(nameless)).stdout == f"Loaded image ID: {made.digest(made.config([BASE, TOP]))}\n"


def test_load_says_from_which_image_it_took_a_name(run: Run, archive: Path, tmp_path: Path) -> None:
    run("load", str(archive))
    other = made.docker_archive(tmp_path / "other.tar", [BASE], ["base:1"])
    done = run("load", "-q", str(other))
    old = made.digest(made.config([BASE, TOP]))
    assert done.stdout == "Loaded image: base:1\n"
    assert done.stderr == f"The image base:1 already exists, renaming the old one with ID {old} to empty string\n"


def test_load_takes_some_images_and_names_one(run: Run, archive: Path) -> None:
    assert run("load", str(archive), "other:2").stdout == "Loaded image: other:2\n"
    assert run("load", "-i", str(archive), "base:1", "other:2").stdout == LOADED
    assert run("load", "-", "base:1", "--name", "mine", stdin=archive.read_bytes()).stdout == (
        "Loaded image: mine:latest\n"
    )
    done = run("load", str(archive), "base:9", code=1)
    assert done.stderr == (f"layerstore: {archive}: the archive has no image base:9\nIt has base:1, other:2.\n")


def test_load_shows_nothing_but_its_result_where_nobody_watches(shell: Shell, archive: Path) -> None:
    done = shell("load", str(archive))
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, LOADED, b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", b"layerstore: "), (b"no archive at all", b"layerstore: "), (b"\x1f\x8b\x08\x00", b"layerstore: ")],
)
def test_what_is_no_archive_is_an_error_and_leaves_nothing(
    shell: Shell, tmp_path: Path, content: bytes, words: bytes
) -> None:
    (tmp_path / "bad").write_bytes(content)
    for args, stdin in ((("load", str(tmp_path / "bad")), b""), (("load",), content)):
        done = shell(*args, stdin=stdin)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.startswith(words)
        assert len(done.stderr.splitlines()) <= 2
    assert shell("check").returncode == 0


def test_a_file_that_is_not_there_is_named(shell: Shell) -> None:
    for command in ("load", "import"):
        done = shell(command, "/nowhere/x.tar")
        assert done.returncode == 1
        assert b"/nowhere/x.tar" in done.stderr
        assert b"No such file or directory" in done.stderr


def test_a_truncated_archive_is_an_error_and_leaves_nothing(shell: Shell, archive: Path) -> None:
    os.truncate(archive, archive.stat().st_size - 12_000)
    done = shell("load", str(archive))
    assert (done.returncode, done.stdout) == (1, b"")
    assert len(done.stderr.splitlines()) <= 2
    assert shell("images", "-q").stdout == b""
    assert shell("check").returncode == 0


@pytest.mark.parametrize("form", ["docker-archive", "oci"])
def test_what_is_saved_loads_again(run: Run, archive: Path, tmp_path: Path, form: str) -> None:
    run("load", str(archive))
    layers = json.loads(run("inspect", "base:1").stdout)[0]["RootFS"]["Layers"]
    for target in (tmp_path / "out.tar", tmp_path / "folder/"):
        where = f"{target}/" if target.name == "folder" else str(target)
        assert run("save", "--format", form, "-o", where, "base:1").stdout == ""
        assert target.is_dir() == where.endswith("/")
        run("rmi", "base:1", "other:2")
        run("load", where)
        assert json.loads(run("inspect", "base:1").stdout)[0]["RootFS"]["Layers"] == layers
        run("tag", "base:1", "other:2")


def test_save_writes_to_a_pipe(shell: Shell, archive: Path) -> None:
    shell("load", str(archive))
    done = shell("save", "base:1", "other:2")
    assert (done.returncode, done.stderr) == (0, b"")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert "manifest.json" in tar.getnames()
    assert shell("save", "-o", "-", "base:1", "other:2").stdout == done.stdout


def test_save_of_what_is_not_there_leaves_no_file(shell: Shell, tmp_path: Path) -> None:
    target = tmp_path / "out.tar"
    assert shell("save", "-o", str(target), "nope").returncode == 1
    assert not list(tmp_path.glob("*out*"))
    assert shell("save", "nope").stdout == b""


def test_a_full_disk_under_a_saved_stream_is_an_error(shell: Shell, archive: Path, full: Path) -> None:
    shell("load", str(archive))
    shell("create", "--name", "web", "base:1")
    for args in (("save", "base:1"), ("export", "web")):
        with full.open("wb") as out:
            done = shell(*args, stdout=out.fileno())
        assert done.returncode == 1
        assert b"No space left on device" in done.stderr
        assert len(done.stderr.splitlines()) <= 2


def test_a_reader_of_a_saved_stream_may_go(shell: Shell, archive: Path) -> None:
    shell("load", str(archive))
    shell("create", "--name", "web", "base:1")
    for args in (("save", "base:1"), ("export", "web"), ("images",)):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = shell(*args, stdout=writing)
        finally:
            os.close(writing)
        assert (done.returncode, done.stderr) == (141, b"")


def test_import_makes_an_image_of_one_layer(run: Run, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(BASE)
    args = ("-c", 'CMD ["/bin/true"]', "-m", "from a tar")
    [image] = run("import", *args, str(tmp_path / "root.tar"), "mine:1").stdout.splitlines()
    [facts] = json.loads(run("inspect", "mine:1").stdout)
    assert facts["Id"] == image
    assert facts["RootFS"]["Layers"] == [made.digest(BASE)]
    assert facts["Config"]["Cmd"] == ["/bin/true"]
    assert run("history", "--format", "{{.Comment}}", "mine:1").stdout == "from a tar\n"
    [nameless] = run("import", "-", stdin=TOP).stdout.splitlines()
    assert run("images", "-q", "--no-trunc", "-f", "dangling=true").stdout.split() == [nameless]


def test_export_writes_the_whole_tree(run: Run, shell: Shell, archive: Path, tmp_path: Path) -> None:
    run("load", str(archive))
    run("create", "--name", "web", "base:1")
    run("export", "-o", str(tmp_path / "out.tar"), "web")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert {"etc", "etc/hostname", "etc/motd"} <= {name.removeprefix("./").rstrip("/") for name in tar.getnames()}
    assert shell("export", "web").stdout == (tmp_path / "out.tar").read_bytes()
    assert shell("export", "-o", str(tmp_path / "no.tar"), "nope").returncode == 1
    assert shell("export", "-o", str(tmp_path), "web").returncode == 1
    assert [path.name for path in tmp_path.iterdir() if "no.tar" in path.name] == []
