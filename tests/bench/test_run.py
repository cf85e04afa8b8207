"""Whole runs, tiny ones, through the command: what they give, what they refuse, and that nothing is left behind."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import jsonschema
import pytest
from click.testing import CliRunner, Result

from bench.test_results import SCHEMA
from layerstore.bench.place import claimed, default_folder
from layerstore.bench.results import BARE, parse
from layerstore.bench.subjects import parse_wanted
from layerstore.bench.workloads import COLD, WARM, WORKLOADS
from layerstore.cli.front import front
from layerstore.errors import ConfigError
from layerstore.testing.filesystems import mountpoints
from support import images
from support.properties import NIGHTLY

pytestmark = pytest.mark.root

TINY = ("--drivers", "overlay2", "--quick", "--rounds", "1", "--scale", "0.005")
Run: TypeAlias = Callable[..., Result]


@pytest.fixture(autouse=True)
def light() -> Iterator[None]:
    """A bench collects garbage before each turn, and this process has thousands of tests to look through."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def run() -> Run:
    """`run(folder, "--only", "load")`: the command in this process. It has to end with `code`."""

    def run(*args: str | Path, code: int = 0) -> Result:
        result = CliRunner().invoke(front, ["bench", *map(str, args)])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def place(backing: Callable[[str], Path]) -> Path:
    """An empty folder on ext4; the test has to leave it so."""
    return backing("ext4")


def test_a_whole_run_gives_every_workload_and_leaves_nothing(run: Run, place: Path, tmp_path: Path) -> None:
    """By day with warm caches: to drop them is felt by all that runs on this machine."""
    wanted = {WARM, COLD} if NIGHTLY else {WARM}
    report = tmp_path / "report.html"
    result = run(place, *TINY, "--cache", "both" if NIGHTLY else "warm", "--format", "json", "--report", report)
    content = json.loads(result.stdout)
    jsonschema.validate(content, SCHEMA)
    results = parse(result.stdout)
    assert os.listdir(place) == []
    assert results.failures == ()
    measured = {(key[0], key[2]) for key in results.measured()}
    assert measured == {
        (workload.name, cache) for workload in WORKLOADS for cache in workload.caches if cache in wanted
    }
    for key in results.measured():
        assert set(results.at(key)) == {BARE, "overlay2"}
    assert all(len(figure.seconds) == 1 for figure in results.figures)
    assert {turn[0] for turn in results.order} == {0, 1}
    # What an untouched container takes is next to nothing, and what is copied up is what was asked for.
    large = next(one for one in results.figures if (one.variant, one.subject) == ("large", "overlay2"))
    assert (large.bytes or 0) > 1_000_000
    html = report.read_text()
    assert all(workload.title in html for workload in WORKLOADS)

    earlier = tmp_path / "earlier.json"
    earlier.write_text(result.stdout)
    shown = run("--from", earlier, "--compare", earlier).stdout
    assert "too few rounds to tell" in shown
    rest = json.loads(result.stdout)
    rest["figures"] = []
    (tmp_path / "rest.json").write_text(json.dumps(rest))
    assert "No figure is in both" in run("--from", earlier, "--compare", tmp_path / "rest.json").stdout
    assert "overlay2" in shown
    assert "Look up files below many layers: 100 layers" in shown


def test_a_run_with_cold_caches(run: Run, place: Path) -> None:
    results = parse(run(place, *TINY, "--cache", "cold", "--only", "readdir", "--format", "json").stdout)
    assert {key[2] for key in results.measured()} == {COLD}
    assert results.failures == ()
    assert os.listdir(place) == []


def test_an_archive_of_the_user_s(run: Run, place: Path, tmp_path: Path) -> None:
    lower = images.layer(
        images.folder("etc"),
        images.symlink("etc/elsewhere", "/"),
        *(images.file(f"etc/{number}", f"{number}\n" * 20) for number in range(20)),
    )
    upper = images.layer(images.whiteout("etc/3"), images.file("etc/4", "other"))
    archive = images.oci_layout(tmp_path / "image", [lower, upper])
    result = run(place, *TINY, "--image", archive, "--only", "commit", "--only", "chmod", "--format", "json")
    results = parse(result.stdout)
    assert results.settings["image"] == "image"
    assert results.settings["image_layers"] == 2
    assert results.settings["chmod_files"] == 19
    assert results.failures == ()
    assert os.listdir(place) == []


def test_a_third_party_s_driver_takes_part_by_its_name(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerstore.plugins._entries", lambda: {"plain": "core.plain:Plain"})
    args = ("--only", "container", "--only", "remove", "--format", "json")
    results = parse(run(place, "--drivers", "plain,lost", *TINY[2:], *args).stdout)
    assert [subject.name for subject in results.subjects] == [BARE, "plain"]
    assert results.failures == ()
    assert [one.name for one in results.refused] == ["lost"]
    assert os.listdir(place) == []


def test_a_driver_that_fails_at_one_thing_is_told_and_the_rest_goes_on(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "worn out")

    monkeypatch.setattr("layerstore.bench.subjects.Driven.save", fail)
    result = run(place, *TINY, "--only", "save", "--only", "readdir", "--format", "json")
    results = parse(result.stdout)
    assert [(one.workload, one.subject, one.reason) for one in results.failures] == [("save", "overlay2", "worn out")]
    assert {figure.subject for figure in results.figures if figure.workload == "save"} == {BARE}
    assert {figure.subject for figure in results.figures if figure.workload == "readdir"} == {BARE, "overlay2"}
    assert os.listdir(place) == []


def test_all_drivers_beside_each_other(run: Run, backing: Callable[[str], Path]) -> None:
    place = backing("btrfs")
    args = ("--drivers", "overlay2,btrfs,vfs,aufs:mode=copy", *TINY[2:], "--only", "container", "--only", "commit")
    results = parse(run(place, *args, "--format", "json").stdout)
    assert results.refused == ()
    assert results.failures == ()
    for key in results.measured():
        assert list(results.at(key)) == [BARE, "overlay2", "btrfs", "vfs", "aufs:mode=copy"]
    assert next(one for one in results.subjects if one.name.startswith("aufs")).options == ("aufs.mode=copy",)
    assert os.listdir(place) == []


# ---- refusals


def test_a_folder_that_is_not_empty_is_left_alone(run: Run, place: Path) -> None:
    (place / "mine").write_text("keep\n")
    assert "is not empty" in run(place, *TINY, code=1).stderr
    assert os.listdir(place) == ["mine"]
    (place / "mine").unlink()


def test_a_store_is_no_place_for_a_bench(run: Run, place: Path) -> None:
    (place / "layerstore.db").touch()
    for folder in (place, place / "inner"):
        assert "is a store" in run(folder, *TINY, code=1).stderr
    assert os.listdir(place) == ["layerstore.db"]
    (place / "layerstore.db").unlink()


def test_a_folder_in_use_is_refused(run: Run, place: Path) -> None:
    with claimed(place, lambda work: None):
        assert "another `layerstore bench` is at work" in run(place, *TINY, code=1).stderr
        assert (place / "work").is_dir()
    assert os.listdir(place) == []


def test_what_somebody_else_prepared_is_not_opened(run: Run, place: Path) -> None:
    (place / "layerstore-bench.json").write_text("{}")
    (place / "work").mkdir()
    os.chown(place / "work", 1234, 1234)
    assert "is not of a bench that you ran" in run(place, *TINY, code=1).stderr
    (place / "work").rmdir()
    (place / "work").symlink_to("/")
    assert "is not of a bench that you ran" in run(place, *TINY, code=1).stderr
    (place / "work").unlink()
    run(place, *TINY, "--only", "readdir")
    assert os.listdir(place) == []


def test_a_disk_with_little_room_is_refused_at_once(run: Run, own_filesystem: Callable[..., Path]) -> None:
    small = own_filesystem("ext4", size=64 << 20)
    result = run(small, "--drivers", "overlay2", code=1)
    assert "GB free, and this run needs about" in result.stderr
    assert os.listdir(small) == ["lost+found"]


def test_a_disk_that_fills_up_ends_the_run_with_the_reason(
    run: Run, own_filesystem: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = own_filesystem("ext4", size=96 << 20)
    monkeypatch.setattr("layerstore.bench.running.require_room", lambda *_: None)
    result = run(small, "--drivers", "overlay2", "--rounds", "1", "--only", "write", code=1)
    assert "No space left on device" in result.stderr
    assert os.listdir(small) == ["lost+found"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--only", "lod"), "there is no workload 'lod'"),
        (("--drivers", "overlay2,,"), "has an empty name"),
        (("--drivers", "overlay2,overlay2"), "has overlay2 twice"),
        (("--drivers", "overlay2:size"), "'size' in 'overlay2:size' is no option"),
        (("--drivers", "overlay2:nope=1"), "overlay2 has no option 'nope'"),
        (("--drivers", "bare"), "always takes part"),
        (("--drivers", "nope"), "none of the drivers can work there: nope: no storage driver 'nope' is installed"),
        (("--storage-opt", "vfs.x=1", "--drivers", "overlay2"), "of a driver that does not take part"),
        (("--compare", "/nowhere.json"), "No such file"),
        (("--report", "/nowhere/x.html"), "no such folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(
    run: Run, place: Path, args: tuple[str, ...], words: str
) -> None:
    assert words in run(place, *args, code=1).stderr
    assert os.listdir(place) == []


def test_without_its_packages_the_command_says_how_to_get_them() -> None:
    code = (
        "import importlib.util, sys; importlib.util.find_spec = lambda name: None;"
        "sys.argv[1:] = ['bench']; from layerstore.cli import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "layerstore: bench needs matplotlib and jinja2, not installed: pip install 'layerstore[bench]'"
    ]


# ---- ends that nobody planned

_SIGNALLED = """
import os, signal, sys
from layerstore.bench import subjects, workloads
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in a shell's background
def signalled(*_):
    os.kill(os.getpid(), signal.{name})
{where} = signalled
from layerstore.cli import main
sys.exit(main())
"""


def signalled(place: Path, name: str, where: str, driver: str = "overlay2") -> int:
    """A run that gets a signal while a container is mounted, or while an image is loaded."""
    code = _SIGNALLED.format(name=name, where=where)
    args = ("--drivers", driver, *TINY[2:], "--only", "load", "--only", "commit")
    done = subprocess.run(
        [sys.executable, "-c", code, "bench", str(place), *args],
        capture_output=True,
        check=False,
    )
    return done.returncode


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("SIGINT", "workloads._edit"),
        ("SIGINT", "subjects.Driven.load"),
        ("SIGTERM", "workloads._edit"),
        ("SIGINT", "subjects._listing"),
    ],
)
def test_an_interrupted_run_leaves_nothing(place: Path, name: str, where: str) -> None:
    assert signalled(place, name, where) == 128 + getattr(signal, name)
    assert os.listdir(place) == []


@pytest.mark.parametrize(("driver", "kind"), [("overlay2", "ext4"), ("btrfs", "btrfs"), ("vfs", "btrfs")])
def test_a_killed_run_is_cleaned_up_by_the_next(
    run: Run, backing: Callable[[str], Path], driver: str, kind: str
) -> None:
    folder = backing(kind) / "bench"
    assert signalled(folder, "SIGKILL", "workloads._edit", driver) == -signal.SIGKILL
    assert any(Path(name).is_relative_to(folder) for name in mountpoints())
    assert sorted(os.listdir(folder)) == ["layerstore-bench.json", "work"]
    results = parse(run(folder, *TINY, "--only", "readdir", "--format", "json").stdout)
    assert "What a killed run had left in the folder was removed first." in results.notes
    # The first run had made the folder.
    assert not folder.exists()


def test_a_killed_run_with_nothing_but_its_mark(run: Run, place: Path) -> None:
    (place / "layerstore-bench.json").touch()
    run(place, *TINY, "--only", "readdir")
    assert os.listdir(place) == []


# ---- what is pure


def test_drivers_are_named_by_commas_and_their_options_by_colons() -> None:
    found = parse_wanted("overlay2, aufs:mode=copy,aufs:mode=fuse:size=1G", ["aufs.x=1"])
    assert [(one.name, one.driver, one.options) for one in found] == [
        ("overlay2", "overlay2", ()),
        ("aufs:mode=copy", "aufs", ("aufs.x=1", "aufs.mode=copy")),
        ("aufs:mode=fuse:size=1G", "aufs", ("aufs.x=1", "aufs.mode=fuse", "aufs.size=1G")),
    ]
    with pytest.raises(ConfigError):
        parse_wanted("")


def test_the_default_folder_lies_on_the_disk_of_the_store(tmp_path: Path) -> None:
    assert default_folder(tmp_path / "a" / "b" / "store") == tmp_path / "layerstore-bench"
