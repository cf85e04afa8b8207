"""cp, on a real store: out of containers and images, into containers, as tars."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from support import images as made

Run = Callable[..., Result]

pytestmark = pytest.mark.root

BASE = made.layer(
    made.folder("etc"),
    made.file("etc/hostname", "base\n", uid=5, gid=6),
    made.symlink("etc/passwd", "/etc/hostname"),
    made.symlink("host", "/"),
)


@pytest.fixture
def boxes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A store with the image base:1 and the container web; a folder to work in."""
    run("load", str(made.docker_archive(tmp_path / "base.tar", [BASE], ["base:1"])))
    run("create", "--name", "web", "base:1")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield run
    run("umount", "--all")


@pytest.mark.parametrize("mounted", [False, True])
def test_files_come_out_and_go_in(boxes: Run, *, mounted: bool) -> None:
    if mounted:
        boxes("mount", "web")
    Path("new").write_text("from here\n")
    os.chown("new", 7, 8)
    assert boxes("cp", "new", "web:/etc/").output == ""
    assert boxes("diff", "web").stdout.splitlines() == ["C /etc", "A /etc/new"]
    boxes("cp", "web:/etc/new", "back")
    assert Path("back").read_text() == "from here\n"
    boxes("cp", "-a", "new", "web:etc/kept")
    with tarfile.open(fileobj=io.BytesIO(boxes("cp", "web:/etc/.", "-").stdout_bytes)) as tar:
        owners = {member.name: (member.uid, member.gid) for member in tar if member.isfile()}
    assert owners == {"hostname": (5, 6), "kept": (7, 8), "new": (0, 0)}
    boxes("cp", "web:/etc/hostname", ".")
    assert (os.stat("hostname").st_uid, os.stat("hostname").st_gid) == (os.geteuid(), os.getegid())
    boxes("cp", "-a", "web:/etc/hostname", ".")
    assert (os.stat("hostname").st_uid, os.stat("hostname").st_gid) == (5, 6)


def test_a_folder_comes_whole_or_its_contents(boxes: Run) -> None:
    boxes("cp", "web:/etc", "copy")
    boxes("cp", "web:/etc", "copy")
    boxes("cp", "web:/etc/.", "other")
    assert sorted(os.listdir("copy")) == ["etc", "hostname", "passwd"]
    assert sorted(os.listdir("other")) == ["hostname", "passwd"]


def test_from_one_container_into_another(boxes: Run) -> None:
    boxes("create", "--name", "other", "base:1")
    boxes("cp", "-a", "web:/etc/hostname", "other:/etc/named")
    boxes("cp", "base:1:/etc", "other:/copied")
    boxes("cp", "web:/etc/.", "other:/copied")
    assert boxes("cp", "--no-quiet", "web:/etc/hostname", "other:/x").stderr == "Successfully copied 5B to other:/x\n"
    with tarfile.open(fileobj=io.BytesIO(boxes("cp", "other:/etc/named", "-").stdout_bytes)) as tar:
        assert [(member.name, member.uid, member.gid) for member in tar] == [("named", 5, 6)]
    assert boxes("ls", "other:/copied").stdout.split() == ["hostname", "passwd"]
    assert os.listdir() == []


def test_links_lead_to_what_the_container_has(boxes: Run) -> None:
    boxes("cp", "web:/etc/passwd", "link")
    assert os.readlink("link") == "/etc/hostname"
    for path in ("/etc/passwd", "/host/etc/passwd", "../../host/host/etc/passwd"):
        boxes("cp", "-L", f"web:{path}", "copy")
        assert Path("copy").read_text() == "base\n"
    Path("new").write_text("new\n")
    boxes("cp", "new", "web:/etc/passwd")  # is a link to /etc/hostname, there
    boxes("cp", "web:/etc/hostname", "copy")
    assert Path("copy").read_text() == "new\n"
    assert not boxes("cp", "new", f"web:/host{Path.cwd()}/x", code=1).stdout
    assert sorted(os.listdir()) == ["copy", "link", "new"]


def test_files_come_out_of_images_and_none_go_in(boxes: Run) -> None:
    image = boxes("images", "-q", "--no-trunc").stdout.strip()
    for name in ("base:1", image, image[7:19]):
        boxes("cp", f"{name}:/etc/hostname", "copy")
        assert Path("copy").read_text() == "base\n"
        Path("copy").unlink()
    refused = boxes("cp", "base.tar", "base:1:/etc/x", code=1)
    assert refused.stderr.startswith("layerstore: base:1:/etc/x is in an image, which is never written to\n")


def test_a_tar_goes_in(boxes: Run) -> None:
    content = made.layer(made.file("etc/a", "a", uid=3, gid=4), made.file("etc/.wh.b", "b"))
    boxes("cp", "-", "web:/", stdin=content)
    assert boxes("diff", "web").stdout.splitlines() == ["C /etc", "A /etc/.wh.b", "A /etc/a"]
    refused = boxes("cp", "-", "web:/etc/hostname", stdin=content, code=1)
    assert "must be a directory" in refused.stderr
    assert "cannot be read" in boxes("cp", "-", "web:/", stdin=b"no tar", code=1).stderr


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a", "b", "must specify at least one container source"),
        ("web:/none", "web:/b", "could not find the file /none in container web"),
        ("web:/etc", "base:1:/b", "base:1:/b is in an image, which is never written to"),
        ("web:/none", ".", "could not find the file /none in container web"),
        ("base:1:/none", ".", "could not find the file /none in image base:1"),
        ("none", "web:/", "could not find the file "),
        ("nobody:/x", ".", "no such object: nobody"),
        ("web:/etc", "new/folder", "/here/new on this machine to copy folder to"),
        ("web:/etc/hostname", "new/", "does not exist"),
        ("./a:b", "./c", "must specify at least one container source"),
    ],
)
def test_what_cannot_be_copied_is_told(boxes: Run, source: str, target: str, words: str) -> None:
    done = boxes("cp", source, target, code=1)
    assert words in done.stderr.splitlines()[0]
    assert os.listdir() == []


def test_what_was_copied_is_told_on_request(boxes: Run) -> None:
    assert boxes("cp", "--no-quiet", "web:/etc/hostname", "here").stderr == (
        f"Successfully copied 5B to {Path.cwd()}/here\n"
    )
    assert boxes("cp", "--no-quiet", "here", "web:/there").stderr == "Successfully copied 5B to web:/there\n"
    assert boxes("cp", "-q", "here", "web:/there").stderr == ""


def test_names_are_completed(boxes: Run, shell: Callable[..., object], settings: Path) -> None:
    done = shell(
        variables={
            "_LAYERSTORE_COMPLETE": "bash_complete",
            "COMP_WORDS": f"layerstore --config {settings} cp w",
            "COMP_CWORD": "4",
        }
    )
    assert b"plain,web:\n" in done.stdout
