"""Which programs an ordinary user can run, and what is said where that cannot be."""

from __future__ import annotations

import pytest

from rootless import outside
from rootless.conftest import NewUser
from support.buildah import busybox

pytestmark = [pytest.mark.root, pytest.mark.tools("newuidmap", "setpriv", "busybox")]

REFUSED = (
    "import layerstore; from layerstore.runtime.engine.words import failure; layerstore.unshare();"
    "print(failure('it cannot be run', ['no cgroups for you']).remedy)"
)


@pytest.mark.parametrize(("ids", "code", "words"), [("many", 0, "hello\n"), ("one", 125, "has one ID here")])
def test_programs_are_run_without_an_engine(ids: str, code: int, words: str, new_user: NewUser) -> None:
    user = new_user("ext4", ids)
    busybox(user.home / "box.tar")
    user.layerstore("import", str(outside.HOME / "box.tar"), "box:1")
    assert words in user.layerstore("run", "--rm", "--isolation", "process", "box:1", "echo", "hello", code=code)


def test_what_an_engine_refuses_a_user_can_be_done_without(new_user: NewUser) -> None:
    user = new_user("ext4", "one")
    assert "--isolation process" in user.run("-c", REFUSED).stdout
    assert user.root.run("-c", REFUSED).stdout == "None\n"
