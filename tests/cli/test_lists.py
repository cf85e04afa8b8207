"""Lists while containers and images come and go: a row that is gone is left out, and no list fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

import layerstore
from layerstore.containers import Container
from layerstore.store import Store
from support import images as made

Run = Callable[..., Result]

SECONDS = 60.0 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 2.0
"""For which all comes and goes."""

pytestmark = pytest.mark.root

BASE = made.layer(made.folder("etc"), made.file("etc/hostname", "base\n"))

COMING_AND_GOING = """
import sys, threading, layerstore
from pathlib import Path
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
with layerstore.open(config=Path(sys.argv[1])) as store:
    print("ready", flush=True)
    while not ended.is_set():
        [image] = store.load(sys.argv[2])
        boxes = [store.create_container(image) for _ in range(3)]
        boxes[0].mount(persistent=True)
        for box in boxes:
            box.remove(force=True)
        store.remove_image("passing:1")
"""


@pytest.fixture
def boxes(run: Run, tmp_path: Path) -> Iterator[Run]:
    """A store with the image base:1, and on it the containers kept and gone, which is mounted."""
    run("load", str(made.docker_archive(tmp_path / "base.tar", [BASE], ["base:1"])))
    run("create", "--name", "kept", "base:1")
    run("create", "--name", "gone", "base:1")
    run("mount", "gone")
    yield run
    run("umount", "--all")


@pytest.fixture
def going(boxes: Run, settings: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """`boxes`, where the container gone is removed by another as soon as a list has been read."""

    def after(read: Callable[[Store], list[object]]) -> Callable[[Store], list[object]]:
        def listed(self: Store) -> list[object]:
            found = read(self)
            with layerstore.open(config=settings) as other:
                other.container("gone").remove(force=True)
            return found

        return listed

    for name in ("containers", "mounted"):
        monkeypatch.setattr(Store, name, after(getattr(Store, name)))
    yield boxes
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Status}}"), ["gone base:1 Mounted", "kept base:1 Created"]),
        (("ps", "--format", "{{.Names}} {{.Command}} {{.Labels}}"), ['gone "/bin/sh" ']),
        (("ps", "-f", "status=created", "-f", "ancestor=base:1", "--format", "{{.Names}}"), ["kept"]),
        (("ps", "-as", "--format", "{{.Names}} {{.Size}}"), ["kept 0B (virtual 10.2kB)"]),
        (("mount", "--format", "{{.Names}} {{.Mounts}}"), ["gone 1"]),
    ],
)
def test_a_container_that_goes_breaks_no_list(going: Run, args: tuple[str, ...], expected: list[str]) -> None:
    lines = going(*args).stdout.splitlines()
    assert [line.split(" (")[0] for line in lines] == [line.split(" (")[0] for line in expected]


def test_the_table_of_sizes_leaves_out_what_is_gone(going: Run) -> None:
    head, *rows = going("ps", "-as").stdout.splitlines()
    assert head.split()[-1] == "SIZE"
    assert ["kept" in row for row in rows] == [True]


def test_unmounting_all_takes_a_container_that_is_gone_for_unmounted(going: Run) -> None:
    assert going("umount", "--all").output == "gone\n"


@pytest.fixture
def busy(boxes: Run, settings: Path, tmp_path: Path) -> Iterator[Run]:
    """`boxes`, beside a process that makes and removes images and containers all the time."""
    archive = made.docker_archive(
        tmp_path / "passing.tar", [BASE], ["passing:1"], image_config=made.config([BASE], x=1)
    )
    command = [sys.executable, "-c", COMING_AND_GOING, str(settings), str(archive)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield boxes
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_no_list_fails_while_all_comes_and_goes(busy: Run, settings: Path) -> None:
    end = time.monotonic() + SECONDS
    with layerstore.open(config=settings) as store:
        while time.monotonic() < end:
            for args in ("ps -as", "ps -a --format json", "mount", "info", "system df -v"):
                busy(*args.split())
            assert "kept" in busy("ps", "-aq", "--format", "{{.Names}}").stdout
            assert "base" in busy("images", "--format", "{{.Repository}} {{.Containers}} {{.Size}}").stdout
            for box in store.containers():
                assert isinstance(box, Container)
                assert box.status in ("mounted", "unmounted", "created")
                assert (box.mountpoint, box.mounts) is not None
            info = store.info()
            assert 1 <= info.mounted <= info.containers
            for image in store.images():
                assert image.containers is not None
