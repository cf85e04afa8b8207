"""The images of a store as a filesystem: names in paths, links, errors, and who opens what."""

from __future__ import annotations

import os
import pickle
import stat
from pathlib import Path
from typing import Any

import fsspec
import pytest

import layerstore
from core.adding import Adder
from layerstore import NotFound, Store
from layerstore.fs import ImageFileSystem
from support import images as make

pytestmark = pytest.mark.root

LAYER = make.layer(
    make.folder("etc/", mode=0o750, uid=3, gid=4),
    make.file("etc/os-release", "ID=test\n", xattrs={"user.note": b"n"}),
    make.symlink("release", "/etc/os-release"),
    make.symlink("conf", "etc"),
    make.symlink("etc/up", ".."),
    make.symlink("nowhere", "gone"),
    make.device("null", 1, 3),
)
NAME = "registry.example:5000/team/app:1.2"


@pytest.fixture
def fs(store: Store) -> Any:
    Adder(store)(LAYER, name=NAME)
    return ImageFileSystem(store=store, skip_instance_cache=True)


def test_the_protocol_is_known_to_fsspec(store: Store, data_root: Path, settings_file: Path) -> None:
    Adder(store)(LAYER, name="app:1")
    with fsspec.open("layerstore://app:1/etc/os-release", "r", root=str(data_root), config=str(settings_file)) as file:
        assert file.read() == "ID=test\n"
    fs, path = fsspec.core.url_to_fs("layerstore://app:1/etc", root=str(data_root), config=str(settings_file))
    assert (type(fs), path, fs.store is store) == (ImageFileSystem, "app:1/etc", False)
    assert pickle.loads(pickle.dumps(fs)).cat("app:1/etc/os-release") == b"ID=test\n"
    fs.close()
    assert fs.exists("app:1/etc")
    fs.close()


@pytest.fixture
def settings_file(store: Store, tmp_path: Path) -> Path:
    path = tmp_path / "daemon.json"
    path.write_text(f'{{"exec-root": "{store.config.exec_root}"}}')
    return path


def test_a_folder_that_is_no_store_is_told_and_does_not_become_one(tmp_path: Path) -> None:
    fs = ImageFileSystem(root=tmp_path / "misspelt", skip_instance_cache=True)
    for ask in (fs.ls, fs.info, fs.cat):
        with pytest.raises(FileNotFoundError, match="there is no store in"):
            ask("debian/etc")
    with pytest.raises(FileNotFoundError, match="there is no store in"):
        fs.ls("")
    with pytest.raises(NotFound):
        layerstore.open(tmp_path / "misspelt", make=False)
    assert list(tmp_path.iterdir()) == []


def test_a_path_begins_with_any_name_of_an_image_or_container(fs: Any, store: Store) -> None:
    image = store.image(NAME)
    box = store.create_container(image, name="box")
    box.checkpoint("first")
    with box.mount() as root:
        (root / "etc/os-release").write_text("ID=box\n")
    for name, content in {
        NAME: b"ID=test\n",
        image.short_id: b"ID=test\n",
        str(image.id): b"ID=test\n",
        "box": b"ID=box\n",
        "box@first": b"ID=test\n",
    }.items():
        assert fs.cat(f"layerstore://{name}/etc/os-release") == content
    assert fs.ls("", detail=False) == ["box", NAME]
    with pytest.raises(FileNotFoundError, match="does not begin with the name"):
        fs.cat("registry.example:5000/team/other:1/etc")


def test_what_is_told_of_a_path(fs: Any) -> None:
    told = fs.info(f"{NAME}/etc")
    assert (told["type"], stat.S_IMODE(told["mode"]), told["uid"], told["gid"]) == ("directory", 0o750, 3, 4)
    file, link = fs.info(f"{NAME}/etc/os-release"), fs.info(f"{NAME}/release")
    assert (file["type"], file["size"], file["islink"]) == ("file", 8, False)
    assert (link["type"], link["size"], link["islink"], link["destination"]) == ("file", 8, True, "/etc/os-release")
    assert fs.info(f"{NAME}/nowhere")["type"] == "link" if fs.exists(f"{NAME}/nowhere") else True
    assert fs.xattrs(f"{NAME}/release") == {"user.note": b"n"}
    assert fs.readlink(f"{NAME}/conf") == "etc"
    assert fs.modified(f"{NAME}/release").timestamp() == file["mtime"]
    assert fs.created is not None


def test_a_walk_follows_no_link_to_a_folder(fs: Any) -> None:
    assert fs.isdir(f"{NAME}/conf")
    assert {one["name"]: one["type"] for one in fs.ls(f"{NAME}")} == {
        f"{NAME}/conf": "link",
        f"{NAME}/etc": "directory",
        f"{NAME}/nowhere": "link",
        f"{NAME}/null": "other",
        f"{NAME}/release": "file",
    }
    assert fs.find(f"{NAME}/etc") == [f"{NAME}/etc/os-release", f"{NAME}/etc/up"]
    assert fs.glob(f"{NAME}/**/os-*") == [f"{NAME}/etc/os-release"]
    assert fs.ls(f"{NAME}/conf", detail=False) == [f"{NAME}/conf/os-release", f"{NAME}/conf/up"]
    assert fs.du(f"{NAME}/etc") == 8


def test_within_one_image_no_name_is_needed(fs: Any, store: Store) -> None:
    one = ImageFileSystem(NAME, store=store, skip_instance_cache=True)
    assert one.ls("", detail=False) == ["conf", "etc", "nowhere", "null", "release"]
    assert one.ls("/etc", detail=False) == ["etc/os-release", "etc/up"]
    assert one.cat("/etc/os-release") == one.cat("release") == b"ID=test\n"
    assert one.isdir("/")
    assert one.get_mapper("etc")["os-release"] == b"ID=test\n"


def test_parts_of_files_are_read(fs: Any) -> None:
    path = f"{NAME}/etc/os-release"
    assert fs.cat_file(path, start=3, end=5) == b"te"
    assert (fs.head(path, 2), fs.tail(path, 3), fs.read_block(path, 3, 4)) == (b"ID", b"st\n", b"test")
    assert fs.read_text(path) == "ID=test\n"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("gone", FileNotFoundError),
        ("nowhere", FileNotFoundError),
        ("etc/os-release/x", NotADirectoryError),
        ("etc", IsADirectoryError),
        ("null", OSError),
        ("../../etc/passwd", FileNotFoundError),
    ],
)
def test_what_cannot_be_read_is_an_error_as_python_has_it(fs: Any, path: str, error: type[OSError]) -> None:
    assert os.path.exists("/etc/passwd")
    with pytest.raises(error):
        fs.cat(f"{NAME}/{path}")
