"""migrate, and what the other commands say of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from core.plain import Plain
from layerstore import plugins
from layerstore.layers.folders import Folders
from support import images as made

Run = Callable[..., Result]

pytestmark = pytest.mark.root

LAYER = made.layer(made.folder("etc"), made.file("etc/hostname", "base\n"))


@pytest.fixture
def filled(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A store of overlay2 with an image and a container, where `plain` is installed, too."""
    installed = plugins._entries()
    monkeypatch.setattr(plugins, "_entries", lambda: {**installed, "plain": f"{Plain.__module__}:Plain"})
    run("load", "-q", str(made.docker_archive(tmp_path / "base.tar", [LAYER], ["base:1"])))
    run("create", "--name", "web", "base:1")
    return run


def set_config(settings: Path, **facts: object) -> None:
    settings.write_text(json.dumps(json.loads(settings.read_text()) | facts))


def test_migrate_says_what_was_done_and_what_to_set(filled: Run, settings: Path) -> None:
    set_config(settings, **{"storage-opts": ["overlay2.metacopy=off"]})
    done = filled("migrate", "plain")
    assert done.stdout.startswith("Converted from overlay2 to plain: 1 layer (")
    assert done.stdout.endswith("), 1 container\n")
    assert done.stderr.splitlines() == [
        f'Set "storage-driver": "plain" in {settings}',
        f"Remove 'overlay2.metacopy=off' from the storage-opts in {settings}: it is no option of plain",
    ]
    refused = filled("images", code=1)
    assert "this store keeps its layers with plain, but storage-driver is overlay2" in refused.stderr
    assert "migrate overlay2" in refused.stderr
    set_config(settings, **{"storage-opts": [], "storage-driver": "plain"})
    assert filled("info", "-f", "{{.Driver}} {{.Images}} {{.Containers}}").stdout == "plain 1 1\n"
    again = filled("migrate", "overlay2")
    assert again.stderr == f'Set "storage-driver": "overlay2" in {settings}\n'


def test_migrate_to_the_same_driver_is_refused(filled: Run) -> None:
    assert "keeps its layers with overlay2 already" in filled("migrate", "overlay2", code=1).stderr
    assert "no storage driver 'plan' is installed" in filled("migrate", "plan", code=1).stderr


def test_unfinished_migration_is_shown_and_given_up(filled: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Folders, "_keep_skeleton", interrupted)
        assert "The same command goes on" in filled("migrate", "plain", code=130).stderr
    line = "Unfinished Migration: to plain (layerstore migrate plain goes on, layerstore migrate overlay2 gives it up)"
    assert line in filled("info").stdout.splitlines()
    assert filled("info", "-f", "{{.Migration}}").stdout == "plain\n"
    assert filled("check").stdout == ""
    done = filled("migrate", "overlay2")
    assert done.stdout == "Given up: the migration to plain. The store keeps its layers with overlay2\n"
    assert "Unfinished" not in filled("info").stdout


def test_info_says_why_it_is_no_other_driver(bare: Run, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drivers = {"overlay2": "no.such.module:Driver", "vfs": "core.test_selection:Vfs"}
    monkeypatch.setattr(plugins, "_entries", lambda: drivers)
    shown = bare("--root", str(data_root), "info").stdout.splitlines()
    reason = "the storage driver no.such.module:Driver cannot be imported: ModuleNotFoundError: No module named 'no'"
    assert "Storage Driver: vfs" in shown
    assert [line for line in shown if line.startswith(("Not chosen: ", "Broken driver: "))] == [
        f"Not chosen: overlay2: {reason} Install the package that it is in, or mend it.",
        "Not chosen: btrfs: not installed",
        "Not chosen: aufs: not installed",
        f"Broken driver: overlay2: {reason}",
    ]
    facts = json.loads(bare("--root", str(data_root), "info", "-f", "json").stdout)
    assert [name for name, _ in facts["DriverRefusals"]] == ["overlay2", "btrfs", "aufs"]
    assert facts["BrokenDrivers"] == [["overlay2", reason]]
