"""A volume is filled alike whatever driver keeps the image, and whatever filesystem the store is on."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from layerstore import Attachment
from support import images as make

pytestmark = pytest.mark.root

LOWER = make.layer(
    make.folder("srv/", mode=0o755),
    make.folder("srv/db/", mode=0o2750, uid=26, gid=27),
    make.file("srv/db/kept", "lower", uid=26),
    make.file("srv/db/gone", "lower"),
    make.folder("srv/db/hidden/"),
    make.file("srv/db/hidden/below", "lower"),
)
UPPER = make.layer(
    make.folder("srv/db/", mode=0o2750, uid=26, gid=27),
    make.whiteout("srv/db/gone"),
    make.folder("srv/db/hidden/"),
    make.opaque("srv/db/hidden"),
    make.file("srv/db/hidden/above", "upper", xattrs={"user.note": b"1"}),
    make.symlink("srv/db/link", "/etc/passwd"),
    make.hard_link("srv/db/again", "srv/db/hidden/above"),
    make.fifo("srv/db/pipe", mode=0o600),
)


@pytest.mark.parametrize(
    ("driver", "filesystem"),
    [
        ("overlay2", "ext4"),
        ("overlay2", "xfs"),
        ("vfs", "ext4"),
        ("erofs", "ext4"),
        ("btrfs", "btrfs"),
        ("overlay2", "btrfs"),
    ],
)
def test_what_the_container_sees_is_what_the_volume_is_given(
    backing: Callable[[str], Path], tmp_path: Path, driver: str, filesystem: str
) -> None:
    archive = make.docker_archive(tmp_path / "image.tar", [LOWER, UPPER], ["data:1"])
    config = layerstore.Config(data_root=backing(filesystem) / "store", exec_root=tmp_path, storage_driver=driver)
    with layerstore.open(config=config) as store:
        store.load(archive)
        box = store.create_container("data:1")
        with box.mount() as root:
            (root / "srv/db/mine").write_text("written before")
        (use,) = store.volumes.attach(box, [Attachment("/srv/db", "db")])
        data = use.volume.mountpoint
        names = {str(path.relative_to(data)) for path in data.rglob("*")}
        assert names == {"again", "hidden", "hidden/above", "kept", "link", "mine", "pipe"}
        facts = data.stat()
        assert [facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)] == [26, 27, 0o2750]
        assert os.readlink(data / "link") == "/etc/passwd"
        assert os.path.samefile(data / "again", data / "hidden/above")
        assert os.getxattr(data / "again", "user.note") == b"1"
        assert stat.S_ISFIFO((data / "pipe").stat().st_mode)
        assert not [name for name in os.listxattr(data) if name.startswith("trusted.overlay")]
        box.remove()
        store.volumes.remove("db")
        assert os.listdir(store.data_root / "volumes") == []
        assert store.check() == []
