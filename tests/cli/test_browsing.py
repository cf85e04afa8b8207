"""ls, cat, find and du: files of images, containers and checkpoints, as people and scripts ask for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import layerstore
from cli.conftest import Run, Shell
from core.adding import Adder
from layerstore import Store
from registry.servers.quirks import Quirks
from registry.test_browsing import LARGE, put
from support import images as make

pytestmark = pytest.mark.root

LAYER = make.layer(
    make.folder("etc/", mode=0o750, uid=3, gid=4),
    make.file("etc/os-release", "ID=test\n"),
    make.hard_link("etc/again", "etc/os-release"),
    make.symlink("etc/link", "/etc/os-release"),
    make.file("etc/deep/.hidden", "x" * 2500),
    make.file("line\nfeed", b"\x00\xff"),
    make.device("null", 1, 3),
)


@pytest.fixture
def browsing(run: Run, settings: Path) -> Run:
    with layerstore.open(config=str(settings)) as store:
        image = Adder(store)(LAYER, name="registry.example:5000/app:1")
        box = store.create_container(image, name="box")
        box.checkpoint("before")
        with box.mount() as root:
            (root / "etc/new").write_text("new")
    return run


def test_a_place_is_a_name_and_a_path(browsing: Run) -> None:
    for place in ("registry.example:5000/app:1", "registry.example:5000/app:1:/", "box@before", "box@before:/"):
        assert browsing("ls", place).output == "etc\nline\nfeed\nnull\n"
    assert browsing("ls", "registry.example:5000/app:1:/etc/deep").output == ".hidden\n"
    assert browsing("ls", "box:etc").output == "again\ndeep\nlink\nnew\nos-release\n"
    assert browsing("ls", "box@before:etc").output == "again\ndeep\nlink\nos-release\n"
    assert browsing("ls", "box:/etc/link").output == "/etc/link\n"
    assert browsing("ls", "-d", "box:/etc").output == "/etc\n"


def test_several_places_have_their_names_above_them(browsing: Run) -> None:
    shown = browsing("ls", "box:/etc/deep", "none:/x", "box:/etc/deep", code=1)
    assert shown.stdout == "box:/etc/deep:\n.hidden\n\nnone:/x:\n\nbox:/etc/deep:\n.hidden\n"
    assert "no such object: none" in shown.stderr


def test_a_long_list_tells_all_of_each(browsing: Run) -> None:
    lines = [line.split() for line in browsing("ls", "-l", "box@before:/etc").output.splitlines()]
    assert lines[0] == ["MODE", "UID", "GID", "SIZE", "MODIFIED", "NAME"]
    assert [line[-3:] for line in lines if line[-2:-1] == ["->"]] == [["link", "->", "/etc/os-release"]]
    assert lines[1][:4] == ["-rw-r--r--", "0", "0", "8B"]
    assert "line\\nfeed" in browsing("ls", "-l", "box").output
    found = [json.loads(line) for line in browsing("ls", "--format", "json", "box:/").output.splitlines()]
    assert {one["Name"]: (one["Mode"], one["UID"], one["Type"]) for one in found} == {
        "etc": ("drwxr-x---", 3, "folder"),
        "line\nfeed": ("-rw-r--r--", 0, "file"),
        "null": ("crw-r--r--", 0, "character device"),
    }
    assert browsing("ls", "--format", "{{.Path}} {{.Bytes}}", "box:/etc/deep").output == "/etc/deep/.hidden 2500\n"


def test_files_are_written_as_they_are(browsing: Run, shell: Shell) -> None:
    assert browsing("cat", "box:/etc/link", "box:etc/new").output == "ID=test\nnew"
    assert shell("cat", "box:line\nfeed").stdout == b"\x00\xff"
    failed = browsing("cat", "box:/etc", "box:/etc/new", "box:/gone", "box:/etc/new/x", "box:null", code=1)
    assert (failed.exit_code, failed.stdout) == (1, "new")
    for words in (
        "/etc: Is a directory",
        "there is no /gone",
        "/etc/new/x: Not a directory",
        "/null: Invalid argument",
    ):
        assert words in failed.stderr


def test_what_fits_is_found(browsing: Run, shell: Shell) -> None:
    assert browsing("find", "box@before:/etc", "--type", "f").output.split() == [
        "/etc/again",
        "/etc/deep/.hidden",
        "/etc/os-release",
    ]
    assert browsing("find", "box", "--name", ".h*").output == "/etc/deep/.hidden\n"
    assert browsing("find", "box", "--path", "/etc/*e", "--maxdepth", "2").output == "/etc/os-release\n"
    assert browsing("find", "box:/etc/deep", "--maxdepth", "0").output == "/etc/deep\n"
    assert shell("find", "-0", "box", "--name", "line*").stdout == b"/line\nfeed\0"


def test_a_file_of_two_names_is_summed_up_once(browsing: Run) -> None:
    assert browsing("du", "-b", "box@before").output == "2500\t/etc/deep\n2508\t/etc\n2510\t/\n"
    assert browsing("du", "-s", "box@before:/etc").output == "2.51kB\t/etc\n"
    assert browsing("du", "-ab", "-d", "1", "box@before:etc").output.splitlines() == [
        "8\t/etc/again",
        "2500\t/etc/deep",
        "0\t/etc/link",
        "0\t/etc/os-release",
        "2508\t/etc",
    ]
    assert browsing("du", "--format", "{{.Files}} {{.Path}}", "-s", "box@before").output == "6 /\n"


def test_a_place_in_a_registry_needs_no_store(bare: Run) -> None:
    with Quirks() as server:
        name = put(server, "zstd:chunked", LARGE)
        assert bare("cat", f"docker://{name}:/etc/first").output == "first"
        assert bare("ls", f"docker://{name}").output == "etc\nlarge\nopt\nrest\n"
        assert bare("du", "-sb", f"docker://{name}:/opt").output == "30000\t/opt\n"
        assert "/gone" in bare("cat", f"docker://{name}:/gone").output


def test_of_a_place_in_a_registry_an_index_is_believed_if_that_is_asked_for(bare: Run, store: Store) -> None:
    image = Adder(store)(LARGE)
    with Quirks() as server:
        name = f"{server.host}/a/b:1"
        image.tag(name)
        store.push(name, with_index=True)
        size = max(len(blob) for blob in server.blobs.values())
        for command, place, said in (
            (("cat",), ":/opt/wanted", "wanted" * 5000),
            (("ls",), "", "etc\nlarge\nopt\nrest\n"),
            (("find", "--name", "want*"), "", "/opt/wanted\n"),
            (("du", "-sb"), ":/opt", "30000\t/opt\n"),
        ):
            for option in ((), ("--indexes",)):
                server.forget()
                assert bare(command[0], *option, *command[1:], f"docker://{name}{place}").output == said
                assert (server.sent("/blobs/") < size / 4) == bool(option), (command, option)
