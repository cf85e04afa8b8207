"""By night: an ordinary user's podman store, attached by that user, whose layers have owners of a user namespace."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from rootless import outside
from rootless.conftest import NewUser, new_user
from support import images as make

__all__ = ["new_user"]

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools("skopeo", "newuidmap"),
    pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "nightly", reason="skopeo enters a namespace"),
]

LAYERS = [
    make.layer(
        make.folder("etc/", mode=0o750, uid=3),
        make.file("etc/passwd", "root:x:0:0\n", uid=5),
        make.file("etc/gone", "gone"),
        make.file("bin/tool", b"#!/bin/sh\n"),
    ),
    make.layer(make.whiteout("etc/gone"), make.folder("bin/"), make.opaque("bin"), make.file("bin/new", b"new")),
]

COPY = """
import os, subprocess
home = os.environ["HOME"]
os.environ.pop("XDG_RUNTIME_DIR", None)
place = f"[overlay@{home}/podman+{home}/run]example.org/app:1"
subprocess.run(["skopeo", "copy", "-q", f"docker-archive:{home}/image.tar", f"containers-storage:{place}"], check=True)
"""


def test_a_user_attaches_what_podman_keeps_without_root(new_user: NewUser) -> None:
    user = new_user("ext4", "many")
    archive = make.docker_archive(user.home / "image.tar", LAYERS, ["example.org/app:1"])
    os.chown(archive, outside.UID, outside.UID)
    user.run("-c", COPY)
    attach = ("--attach", f"podman:{outside.HOME}/podman")

    assert "example.org/app   1" in user.layerstore(*attach, "images")
    assert user.layerstore(*attach, "ls", "example.org/app:1:/bin").split() == ["new"]
    listed = user.layerstore(*attach, "ls", "-l", "example.org/app:1:/etc")
    assert "passwd" in listed
    assert "gone" not in listed
    user.layerstore(*attach, "create", "--name", "web", "example.org/app:1", "true")
    user.layerstore("export", "-o", f"{outside.HOME}/web.tar", "web")
    with tarfile.open(user.home / "web.tar") as tar:
        found = {one.name.strip("./"): (one.uid, one.isfile()) for one in tar}
    assert found["etc/passwd"] == (5, True)
    assert found["bin/new"] == (0, True)
    assert {"etc/gone", "bin/tool"}.isdisjoint(found)
    assert user.layerstore(*attach, "adopt", "example.org/app:1") == "Adopted image: example.org/app:1\n"
    assert user.layerstore("check", "--content") == ""


def test_it_is_not_roots_to_attach(new_user: NewUser, tmp_path: Path) -> None:
    user = new_user("ext4", "many")
    archive = make.docker_archive(user.home / "image.tar", LAYERS, ["example.org/app:1"])
    os.chown(archive, outside.UID, outside.UID)
    user.run("-c", COPY)
    told = user.root.layerstore(
        "--root", str(tmp_path / "own"), "--attach", f"podman:{outside.HOME}/podman", "images", code=1
    )
    assert f"it belongs to user {outside.UID}, and this is user 0" in told
