"""Stores of ordinary users: what they hold is exact, and what is done in them means what it means in root's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rootless import outside
from rootless.conftest import LIFE, NewUser, User
from support import images
from support.images import device, fifo, file, folder, hard_link, opaque, symlink, whiteout

pytestmark = [pytest.mark.root, pytest.mark.tools("newuidmap", "setpriv")]

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ACL_OF_A_USER = bytes.fromhex(
    "02000000 01000600ffffffff 0200060021000000 04000400ffffffff 10000400ffffffff 20000400ffffffff"
)
"""user::rw-, user:33:rw-, group::r--, mask::r--, other::r-- (setfacl(1))."""

LAYERS = (
    images.layer(
        folder("etc"),
        file("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
        file("etc/shadow", "secret", mode=0o640, gid=42),
        folder("var"),
        folder("var/www", mode=0o2775, uid=33, gid=33),
        file("var/www/index.html", "hello", uid=33, gid=33, xattrs={"trusted.overlay.redirect": b"/x"}),
        file("var/far", "far", mode=0o4755, uid=700_000, gid=700_001),
        file("su", "su", mode=0o4755),
        file("ping", "ping", mode=0o755, xattrs={"security.capability": CAPABILITY}),
        folder("dev"),
        device("dev/null", 1, 3, mode=0o666),
        fifo("dev/pipe", mode=0o600, uid=33, gid=33),
        symlink("link", "etc/passwd", uid=33, gid=33),
        file("trusted", "t", xattrs={"trusted.thing": b"yes", "security.other": b"s", "user.overlay.opaque": b"y"}),
        file(
            "told", "t", xattrs={"user.containers.override_stat": b"1:1:0777:file", "user.layerstore.trusted.x": b"x"}
        ),
        file("listed", "l", xattrs={"system.posix_acl_access": ACL_OF_A_USER}),
        file("hard", "hard", uid=5, gid=60),
        hard_link("hard2", "hard"),
        file("gone", "gone"),
        folder("opaque", mode=0o700, uid=1, gid=1),
        file("opaque/a", "a"),
    ),
    images.layer(
        whiteout("gone"),
        folder("opaque", mode=0o711, uid=2, gid=2),
        opaque("opaque"),
        file("opaque/b", "b", uid=77, gid=77),
    ),
)


def lived(user: User, driver: str) -> dict[str, Any]:
    images.docker_archive(user.home / "image.tar", LAYERS)
    told: dict[str, Any] = json.loads(user.run(LIFE, driver, outside.HOME / "image.tar").stdout)
    return told


@pytest.fixture(scope="module")
def by_root(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What root's store says of the same life."""
    place = tmp_path_factory.mktemp("root")
    images.docker_archive(place / "image.tar", LAYERS)
    words = [sys.executable, LIFE, "vfs", place / "image.tar", place / "store"]
    told: dict[str, Any] = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    return told


CASES = [("overlay2", "ext4", "one"), ("vfs", "xfs", "one"), ("overlay2", "xfs", "many"), ("vfs", "ext4", "many")]


@pytest.mark.parametrize(("driver", "filesystem", "ids"), CASES)
def test_a_life_is_what_it_is_in_roots_store(
    driver: str, filesystem: str, ids: str, new_user: NewUser, by_root: dict[str, Any]
) -> None:
    told = lived(new_user(filesystem, ids), driver)

    assert told["exported"] == list(map(images.digest, LAYERS))
    assert told["problems"] == []
    assert told["again"] == told["committed"]
    assert told["changes"] == by_root["changes"]
    assert told["committed"] == by_root["committed"]
    assert told["left"] == by_root["left"]
    assert len(told["ids"].splitlines()) == (2 if ids == "one" else 4)


def test_a_keeper_that_cannot_be_noted_ends(new_user: NewUser) -> None:
    user = new_user("ext4", "one")
    blocked = user.home / "keeper"
    blocked.mkdir()
    os.chown(blocked, outside.UID, outside.UID)
    words = user.layerstore("--root", str(outside.HOME), "images", code=1)
    assert "Is a directory" in words
    blocked.rmdir()
    deadline = time.monotonic() + 30
    while left := sleepers(user.home):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def sleepers(home: Path) -> list[str]:
    """Who only waits, as a keeper does, and has the disk of `home` mounted."""
    disk = f" {os.major(home.stat().st_dev)}:{os.minor(home.stat().st_dev)} "
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if (process / "comm").read_text() == "sleep\n" and disk in (process / "mountinfo").read_text():
                found.append(process.name)
    return found
