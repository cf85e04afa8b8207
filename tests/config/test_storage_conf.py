"""podman's storage.conf, where there is no daemon.json: what is taken of it, what is told, and what it can never do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import layerstore
from layerstore import config as configuration
from layerstore import storage_conf
from layerstore.cli.front import front
from layerstore.config import Config

FEDORAS = """
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
[storage.options]
additionalimagestores = ["/usr/lib/containers/storage"]
pull_options = {enable_partial_images = "true"}
[storage.options.overlay]
mountopt = "nodev,metacopy=on,volatile,index=off"
mount_program = "/usr/bin/fuse-overlayfs"
size = "10G"
ignore_chown_errors = ""
[storage.options.btrfs]
min_space = "1G"
"""


def parsed(text: str, *, rootless: bool = False) -> storage_conf.Advice:
    return storage_conf.parsed(text.encode(), Path("/x/storage.conf"), rootless=rootless)


def test_what_means_the_same_is_taken_and_all_else_is_told() -> None:
    found = parsed(FEDORAS)
    assert (found.driver, found.of("btrfs")) == ("overlay2", ())
    assert found.of("overlay2") == ("overlay2.mountopt=nodev", "overlay2.metacopy=true")
    left = dict(found.left)
    assert left["graphroot"] == left["runroot"] == "it is podman's own: no other program's folder is taken for a store"
    assert "--attach podman:/usr/lib/containers/storage" in left["options.additionalimagestores"]
    assert left["options.overlay.mountopt"].startswith("not taken of it: volatile (what a container wrote is durable")
    assert left["options.overlay.mountopt"].endswith("index=off")
    assert "overlay2.size of daemon.json" in left["options.overlay.size"]
    assert "btrfs.min_space of daemon.json" in left["options.btrfs.min_space"]
    assert left.keys() >= {"options.overlay.mount_program", "options.pull_options.enable_partial_images"}
    without_root = parsed(FEDORAS, rootless=True)
    assert without_root.options == ("overlay2.mountopt=nodev",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "storage = 1",
        "[storage]\ndriver = ['overlay']",
        "[storage]\noptions = 1",
        "[storage]\n[storage.options]\noverlay = [1]\nmountopt = 1\n",
        "no toml",
        "[storage]\ndriver = 'zfs'",
        "x" * (2 << 20),
        "a = " + "[" * 5000,
    ],
)
def test_a_file_that_says_nothing_is_no_error(text: str) -> None:
    found = parsed(text)
    assert (found.driver, found.options) == (None, ())
    assert all(reason for _, reason in found.left)


def test_it_is_where_podman_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTAINERS_STORAGE_CONF", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = tmp_path / "containers" / "storage.conf"
    own.parent.mkdir()
    own.write_text("[storage]\ndriver = 'vfs'\n")
    assert storage_conf.read(rootless=True).source == own
    assert storage_conf.read(rootless=False).source != own
    named = tmp_path / "named.conf"
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(named))
    assert storage_conf.read(rootless=True) == storage_conf.Advice()
    named.mkdir()
    [(_, reason)] = storage_conf.read(rootless=False).left
    assert reason == "the file cannot be read: Is a directory"


@pytest.mark.root
def test_it_is_advice_to_a_new_store_and_never_hides_another(
    backing: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuration, "DEFAULT_FILE", tmp_path / "daemon.json")
    place = backing("ext4")
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))

    def said(driver: str, more: str = "") -> None:
        text = f"[storage]\ndriver = '{driver}'\ngraphroot = '{place}/podman'\n{more}"
        (tmp_path / "storage.conf").write_text(text)

    def told(root: Path, *words: str) -> str:
        done = CliRunner().invoke(front, ["--root", str(root), "info", *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    said("vfs")
    assert configuration.load().data_root == Config().data_root
    with layerstore.open(place / "one") as store:
        assert store.info().driver == "vfs"
    said("overlay", "[storage.options.overlay]\nmountopt = 'nodev,userxattr'\n")
    text = told(place / "one")
    assert " Driver of a new store: overlay2 (this store was made with vfs)\n" in text
    assert " Not taken: graphroot: it is podman's own" in text
    assert " Taken:" not in text
    assert " Not taken: overlay2.mountopt=nodev: it is for another driver, and this store's is vfs\n" in text
    said("vfs", "[storage.options.overlay]\nmountopt = 'nodev,metacopy=on'\n")
    facts = json.loads(told(place / "one", "--format", "{{json .StorageConf}}"))
    assert facts["Options"] == []
    reason = "it is for another driver, and this store's is vfs"
    assert [["overlay2.mountopt=nodev", reason], ["overlay2.metacopy=true", reason]] == facts["NotTaken"][-2:]
    said("overlay", "[storage.options.overlay]\nmountopt = 'nodev,userxattr'\n")
    facts = json.loads(told(place / "two", "--format", "{{json .StorageConf}}"))
    assert (facts["Driver"], facts["Options"]) == ("overlay2", ["overlay2.mountopt=nodev"])
    assert ["options.overlay.mountopt", "not taken of it: userxattr"] in facts["NotTaken"]
    with layerstore.open(place / "two") as store, store.create_container() as box, box.mount() as root:
        line = next(text for text in Path("/proc/self/mountinfo").read_text().splitlines() if f" {root} " in text)
        assert "nodev" in line
    said("btrfs")  # which cannot be on ext4: the next that can is taken, and it is told why not this
    assert "Not chosen: btrfs: " in told(place / "three")
    (tmp_path / "daemon.json").write_text("{}")
    assert "Storage.conf" not in told(place / "two")
    assert not (place / "podman").exists()
