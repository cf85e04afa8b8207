"""The conformance kit, by an ordinary user: by night all of it, by day what shows most in little time."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from rootless import outside
from rootless.conftest import NewUser

KIT = Path(outside.__file__).with_name("kit.py")

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

BY_DAY = "one_attribute_alone or was_only_opened or order_of_calls"

CASES = [("overlay2", "ext4"), ("vfs", "xfs"), ("overlay2", "xfs"), ("vfs", "ext4")]


@pytest.mark.root
@pytest.mark.tools("newuidmap")
@pytest.mark.parametrize(("driver", "filesystem"), CASES if NIGHTLY else CASES[:1])
def test_an_ordinary_users_driver_does_what_every_driver_does(driver: str, filesystem: str, new_user: NewUser) -> None:
    user = new_user(filesystem, "many")
    (user.home / "empty.ini").write_text("[pytest]\n")
    words = ["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", "empty.ini"]
    chosen = [] if NIGHTLY else ["-k", BY_DAY]

    shown = user.run(
        *("-m", "layerstore.cli", "unshare", "env", f"DRIVER={driver}"),
        *(sys.executable, *words, "--rootdir", ".", *chosen, KIT),
    ).stdout

    assert int(re.findall(r"(\d+) passed", shown)[0]) >= (130 if NIGHTLY else 6), shown
