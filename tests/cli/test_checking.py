"""`check --repair --drop`, as a person has it: what is left afterwards, and what the exit code says of that."""

from __future__ import annotations

import errno
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import layerstore
from layerstore.blobs import Blobs, KnownBlob
from layerstore.digest import DiffID, Digest
from layerstore.errors import KernelError
from support import images as made

Run = Callable[..., Result]

pytestmark = pytest.mark.root

LAYER = made.layer(made.folder("etc"), made.file("etc/hostname", "base\n"))


@pytest.fixture
def damaged(run: Run, tmp_path: Path) -> Run:
    """A store with an image and a container, on a layer that nobody has any more."""
    run("load", str(made.docker_archive(tmp_path / "base.tar", [LAYER], ["base:1"])))
    run("create", "--name", "web", "base:1")
    upper = run("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "base:1").stdout.strip()
    (Path(upper) / "etc/hostname").unlink()
    return run


def test_what_cannot_be_repaired_goes_by_word(damaged: Run) -> None:
    assert damaged("check", "--repair", code=1).stdout != ""
    assert damaged("check", "--repair", "--drop", "-f").stdout.splitlines()[-2:] == [
        "removed: container web",
        "removed: image base:1",
    ]
    assert damaged("check").stdout == ""


def test_what_could_not_be_removed_is_left(
    damaged: Run, settings: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = gzip.compress(LAYER)
    with layerstore.open(config=settings) as store:
        kind = "application/vnd.oci.image.layer.v1.tar+gzip"
        known = KnownBlob(Digest(made.digest(blob)), DiffID(made.digest(LAYER)), len(blob), kind)
        store.blobs.remember(None, known)
        store.blobs.put(io.BytesIO(blob))
    for path in (data_root / "blobs/sha256").iterdir():
        path.unlink()

    def refuse(*_: object) -> None:
        raise KernelError("unlink", errno.EIO)

    monkeypatch.setattr(Blobs, "delete", refuse)
    done = damaged("check", "--repair", "--drop", "-f", code=1)
    assert "removed: image base:1" in done.stdout
    assert "removed: blob" not in done.stdout


def test_what_no_removal_settles_is_left(damaged: Run, data_root: Path) -> None:
    record = data_root / "records/store/store"
    record.unlink()
    record.mkdir()
    assert "removed: image base:1" in damaged("check", "--repair", "--drop", "-f", code=1).stdout
    assert str(record) in damaged("check", code=1).stdout
