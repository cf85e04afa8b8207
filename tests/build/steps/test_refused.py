"""Any system call of a build may be refused: that is an error in words, or is put up with; and nothing is left."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

import layerstore
from layerstore import LayerstoreError
from layerstore.build import build
from layerstore.testing.calls import Call, Failure, run_watched

pytestmark = pytest.mark.root

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
DAILY = 40
"""Calls that are refused by day, of some hundreds; by night all."""

DOCKERFILE = """\
FROM base
WORKDIR /made
COPY --chown=someone dir file /d/
COPY --link <<END /said
text
END
ADD a.tar /t
LABEL a=b
"""


def test_a_build_whose_calls_are_refused(data_root: Path, base_archive: Path, archive: bytes, tmp_path: Path) -> None:
    context = tmp_path / "context"
    (context / "dir" / "sub").mkdir(parents=True)
    (context / "dir" / "sub" / "f").write_text("f")
    (context / "file").write_text("file")
    (context / "a.tar").write_bytes(archive)
    (context / "Dockerfile").write_text(DOCKERFILE)
    fresh = data_root.with_name("fresh")
    config = layerstore.Config(
        data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2", storage_opts=()
    )
    with layerstore.open(config=layerstore.Config(data_root=fresh, exec_root=config.exec_root)) as store:
        store.load(base_archive)

    def begin() -> None:
        shutil.rmtree(data_root, ignore_errors=True)
        shutil.copytree(fresh, data_root, symlinks=True)

    def deed() -> None:
        with layerstore.open(config=config) as store:
            build(store, context, tags=["built"], source_date_epoch=0)

    def then(failure: Failure | None) -> str:
        assert failure is None or LayerstoreError.__name__ in failure.kinds, failure.trace
        with layerstore.open(config=config) as store:
            image = build(store, context, tags=["built"], source_date_epoch=0).image
            assert store.leases("building") == {}
            assert store.containers() == []
            assert [str(problem) for problem in store.check()] == []
            assert {tag for each in store.images() for tag in each.tags} == {"base:latest", "built:latest"}
            store.wait()
            return image.id

    begin()
    calls: list[Call] = []
    whole = run_watched(deed, lambda number, call: calls.append(call), then)
    altering = [number for number, call in enumerate(calls) if call.alters]
    assert len(altering) > DAILY
    chosen = altering if NIGHTLY else altering[:: len(altering) // DAILY]
    for refused in chosen:
        begin()
        run = run_watched(deed, lambda number, _, refused=refused: errno.EIO if number == refused else None, then)
        assert run.result == whole.result, (refused, str(run.calls[refused]), run.failure)
