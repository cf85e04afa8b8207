"""Which driver a store has, why it is no other, and whose files are never touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

import layerstore
from core.abundance import settings
from core.adding import Adder
from core.plain import Plain
from layerstore import facts, plugins
from layerstore.driver import Backing
from layerstore.errors import ConfigError, Damaged, DriverMismatch, DriverNotSupported
from layerstore.store import Store
from layerstore.testing.trees import assert_same, listing
from support import images as make

pytestmark = pytest.mark.root


class Refusing(Plain):
    """A driver that cannot work here."""

    name: ClassVar[str] = "btrfs"

    @classmethod
    def probe(cls, home: Path, options: Any) -> Backing:
        raise DriverNotSupported("not on this filesystem", remedy="Use another one.")


class Vfs(Plain):
    """The last choice, which works."""

    name: ClassVar[str] = "vfs"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed: to be altered."""
    entries = {"btrfs": f"{__name__}:Refusing", "vfs": f"{__name__}:Vfs"}
    monkeypatch.setattr(plugins, "_entries", lambda: entries)
    return entries


def test_reasons_are_kept_for_as_long_as_the_store(data_root: Path, installed: dict[str, str]) -> None:
    reasons = (
        ("overlay2", "not installed"),
        ("btrfs", "not on this filesystem\nUse another one."),
        ("aufs", "not installed"),
    )
    with layerstore.open(config=settings(data_root)) as store:
        assert (store.driver_name, store.info().refusals) == ("vfs", reasons)
    installed["overlay2"] = "layerstore_overlay2:Overlay2"
    with layerstore.open(config=settings(data_root)) as store:
        assert (store.driver_name, store.info().refusals) == ("vfs", reasons)


def test_broken_plugin_is_told_and_harms_nobody(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.info().broken == ()
    monkeypatch.setattr(plugins, "_entries", lambda: {"theirs": "no.such.module:Driver", "vfs": f"{__name__}:Vfs"})
    [(name, reason)] = store.info().broken
    assert (name, "cannot be imported" in reason) == ("theirs", True)
    assert store.info().driver == "overlay2"


def test_refused_store_is_not_half_made(data_root: Path, installed: dict[str, str]) -> None:
    with pytest.raises(DriverNotSupported):
        layerstore.open(config=settings(data_root / "deep" / "er", "btrfs"))
    with pytest.raises(ConfigError):
        layerstore.open(config=settings(data_root), storage_opts=["vfs.nonsense=1"], storage_driver="vfs")
    assert not data_root.exists()


def test_home_of_another_program_is_refused(data_root: Path) -> None:
    """As where docker keeps its layers: its data-root, and its word for the driver, are the same as ours."""
    theirs = data_root / "overlay2" / ("ab" * 32) / "diff"
    theirs.mkdir(parents=True)
    (data_root / "image").mkdir()
    before = listing(data_root)
    for driver in ("overlay2", None):
        with pytest.raises(ConfigError, match=r"overlay2 is not empty \(it holds abab") as caught:
            layerstore.open(config=settings(data_root, driver))
        assert "another data-root" in str(caught.value)
        assert_same(before, listing(data_root), ignoring=["mtime_ns"])
    theirs.parent.rename(data_root / "elsewhere")
    with layerstore.open(config=settings(data_root, "overlay2")) as store:
        assert store.create_container().name


def test_files_of_others_in_a_home_are_never_garbage(
    store: Store, add: Adder, base: bytes, data_root: Path, settings: layerstore.Config
) -> None:
    add(base)
    theirs = ["ab" * 32, "cd" * 32 + "-init", "l", "lost+found", "0" * 31, "ABCDEF" * 5 + "AB"]
    for folder in ("overlay2", "skeletons"):
        for name in theirs:
            (data_root / folder / name).mkdir()
    (data_root / "overlay2" / ("0" * 32)).mkdir()
    (data_root / "overlay2" / ("1" * 32 + "s")).mkdir()
    found = store.check()
    assert [problem.kind for problem in found if problem.kind != "foreign"] == ["garbage", "garbage"]
    foreign = {problem.path for problem in found if problem.kind == "foreign"}
    assert foreign == {str(data_root / folder / name) for folder in ("overlay2", "skeletons") for name in theirs}
    store.prune()
    facts.ask_for_recovery(store._parts.database, store._parts.session.stay)
    store.close()
    layerstore.open(config=settings).close()
    for folder in ("overlay2", "skeletons"):
        assert set(theirs) <= set(os.listdir(data_root / folder))
    assert not (data_root / "overlay2" / ("0" * 32)).exists()


def test_mismatch_names_both_drivers_and_the_command(data_root: Path, installed: dict[str, str]) -> None:
    layerstore.open(config=settings(data_root, "vfs")).close()
    with pytest.raises(DriverMismatch) as caught:
        layerstore.open(config=settings(data_root, "btrfs"))
    assert "keeps its layers with vfs, but storage-driver is btrfs" in caught.value.message
    assert f"layerstore --root {data_root} migrate btrfs" in str(caught.value)


def test_options_of_another_driver_are_refused(data_root: Path, installed: dict[str, str]) -> None:
    layerstore.open(config=settings(data_root, "vfs")).close()
    for opts, words in {
        ("btrfs.min_space=1G",): "is an option of btrfs, but the storage driver is vfs",
        ("vfs.min=1",): "vfs has no option 'min'",
        ("min=1",): "is not of the form vfs.OPTION=VALUE",
    }.items():
        with pytest.raises(ConfigError, match=words):
            layerstore.open(config=settings(data_root), storage_opts=opts)


def test_every_driver_s_probe_leaves_nothing_behind(backing: Callable[[str], Path], filesystem: str) -> None:
    place = backing(filesystem)
    (place / "there").mkdir()
    before = listing(place)
    asked, reasons = 0, {}
    for name in plugins.names():
        driver = plugins.find(name)
        for home in (place / "not" / "there", place / "there"):
            try:
                found = driver.probe(home, driver.options())
            except DriverNotSupported as refusal:
                reasons[name] = str(refusal)
            else:
                assert found.filesystem
            asked += 1
            assert_same(before, listing(place), ignoring=["mtime_ns"])
    assert asked >= 2
    assert all("\n" in reason for reason in reasons.values()), "a reason without a remedy"


# --- layers whose files somebody has deleted


def test_deleted_layer_of_a_dependent_driver_is_told_and_mended(
    data_root: Path, base: bytes, upper: bytes, installed: dict[str, str]
) -> None:
    with layerstore.open(config=settings(data_root, "vfs")) as store:
        add = Adder(store)
        image = add(base, upper, name="x")
        box = store.create_container(image)
        bottom, top = (data_root / "vfs" / store._layers.stack(chain).layers[0].key for chain in image.chain_ids)
        shutil.rmtree(top)
        for use in (image.mount().__enter__, lambda: store.create_container(image)):
            with pytest.raises(Damaged, match="are missing") as caught:
                use()
            assert "Load an image that has it again" in str(caught.value)
        [problem] = store.check()
        assert (problem.kind, problem.layer) == ("missing layer", make.digest(upper))
        add(base, upper)
        assert store.check(content=True) == []

        shutil.rmtree(bottom)
        assert [problem.layer for problem in store.check()] == [make.digest(base)]
        add(base, upper)
        assert store.check(content=True) == []
        with image.mount() as root, box.mount() as own:
            assert listing(root) == listing(own)

        shutil.rmtree(data_root / "vfs" / box._row.key)
        with pytest.raises(Damaged, match="the files of container"):
            box.mount()
        assert [problem.kind for problem in store.check()] == ["missing container"]
