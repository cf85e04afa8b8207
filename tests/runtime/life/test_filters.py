"""A seccomp filter that crun has made once is given to it the next time, and does the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from layerstore.runtime import Runtime
from layerstore.runtime.engine import Engine
from layerstore.runtime.engine.filters import give_filter
from layerstore.runtime.streams import Streams
from runtime.life.conftest import Make

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "conmon")]

LINE = "grep ^Seccomp: /proc/self/status"


def said(runtime: Runtime, make: Make, **options: Any) -> str:
    fd = os.memfd_create("said")
    try:
        assert runtime.run(make("sh", "-c", LINE, runtime="crun", **options), Streams(stdin=None, stdout=fd)) == 0
        return Path(f"/proc/self/fd/{fd}").read_text().strip()
    finally:
        os.close(fd)


@pytest.mark.parametrize("how", ["directly", "held"])
def test_a_filter_is_learnt_and_given(runtime: Runtime, make: Make, how: str) -> None:
    remove = how == "directly"
    assert not runtime.places.filters.exists()
    assert said(runtime, make, remove=remove) == "Seccomp:\t2"
    [kept] = runtime.places.filters.iterdir()
    before = kept.read_bytes()

    assert said(runtime, make, remove=remove) == "Seccomp:\t2"
    assert said(runtime, make, remove=True, security_opt=("seccomp=unconfined",)) == "Seccomp:\t0"
    said(runtime, make, remove=remove, cap_add=("SYS_ADMIN",))

    assert kept.read_bytes() == before
    assert len(list(runtime.places.filters.iterdir())) == 2


def test_a_program_that_could_not_be_run_teaches_nothing(runtime: Runtime, make: Make) -> None:
    for _ in range(3):
        with pytest.raises(Exception, match="nowhere"):
            runtime.run(make("nowhere", runtime="crun", remove=True), Streams(stdin=None))
    assert not runtime.places.filters.exists() or not list(runtime.places.filters.iterdir())


def test_only_what_is_the_same_is_given(tmp_path: Path) -> None:
    crun = Engine("crun", str(tmp_path / "crun"))
    Path(crun.path).write_text("")
    runc = Engine("runc", str(tmp_path / "runc"))
    Path(runc.path).write_text("")

    def config(action: str) -> dict[str, Any]:
        return {"linux": {"seccomp": {"defaultAction": action}}}

    learning = give_filter(config("a"), crun, tmp_path / "kept", tmp_path)
    assert learning is not None
    learning.taken.write_bytes(b"filter")
    learning.keep()

    known, other = config("a"), config("b")
    assert give_filter(known, crun, tmp_path / "kept", tmp_path) is None
    assert known["annotations"] == {"run.oci.seccomp_bpf_data": "ZmlsdGVy"}
    assert give_filter(other, crun, tmp_path / "kept", tmp_path) is not None
    assert "annotations" not in other
    assert give_filter(config("a"), runc, tmp_path / "kept", tmp_path) is None
    assert give_filter({"linux": {}}, crun, tmp_path / "kept", tmp_path) is None
    Path(crun.path).write_text("another version")
    assert give_filter(config("a"), crun, tmp_path / "kept", tmp_path) is not None
