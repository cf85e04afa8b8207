"""What an ordinary user reads of an image without a mount is what root reads of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rootless import outside
from rootless.conftest import NewUser
from rootless.test_life import LAYERS
from support import images

pytestmark = [pytest.mark.root, pytest.mark.tools("newuidmap", "setpriv")]

BROWSE = Path(outside.__file__).with_name("browse.py")


@pytest.mark.parametrize(("driver", "ids"), [("overlay2", "one"), ("vfs", "many")])
def test_a_user_reads_what_root_reads(driver: str, ids: str, new_user: NewUser, tmp_path: Path) -> None:
    user = new_user("ext4", ids)
    images.docker_archive(user.home / "image.tar", LAYERS)
    words = [sys.executable, BROWSE, driver, user.home / "image.tar", tmp_path / "store"]
    expected = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    found = json.loads(user.run(BROWSE, driver, outside.HOME / "image.tar").stdout)
    if ids == "one":  # a symlink and a pipe have no room for a note of whose they are
        for path in ("link", "dev/pipe"):
            assert found[path].pop(1) == found[path].pop(1) == 0
            del expected[path][1:3]
    assert found == expected
    assert expected["var/far"][:3] == [0o104755, 700_000, 700_001]
    assert expected["trusted"][7] == [
        ["security.other", b"s".hex()],
        ["trusted.thing", b"yes".hex()],
        ["user.overlay.opaque", b"y".hex()],
    ]
    assert user.layerstore("ls", "-l", "test:/dev").splitlines()[1].startswith("crw-rw-rw-")
