"""Finding drivers, and choosing one."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from attrs import field, frozen

from layerstore import options, plugins
from layerstore.changes import Changes
from layerstore.config import Config
from layerstore.driver import Backing, Capabilities, CopyOnWrite, Dialect, Layer, LayerKey, Mount, StorageDriver
from layerstore.errors import ConfigError, DriverMismatch, DriverNotFound, DriverNotSupported


@frozen
class Settings:
    size: int | None = field(default=None, converter=options.size)


class Working(StorageDriver):
    """A driver that claims to work."""

    name: ClassVar[str] = "overlay2"
    capabilities: ClassVar[Capabilities] = Capabilities(Dialect.MERGED)
    options: ClassVar[type] = Settings

    @classmethod
    def probe(cls, home: Path, options: Any) -> Backing:
        return Backing(str(home), CopyOnWrite.NONE, quota=False)

    def create(self, layer: Layer, parents: Sequence[Layer], *, size: int | None = None) -> None: ...

    def tree(self, layer: Layer) -> Path:
        return self.home / layer.key

    def mounts(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> Sequence[Mount]:
        return ()

    def seal(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        return layer.key

    def remove(self, layer: Layer) -> None: ...

    def keys(self) -> Iterator[LayerKey]:
        return iter(())

    def changes(self, layer: Layer, parents: Sequence[Layer]) -> Changes:
        return Changes.of(())

    def graph_data(self, layer: Layer, parents: Sequence[Layer]) -> Mapping[str, str]:
        return {}


class Vfs(Working):
    name: ClassVar[str] = "vfs"


class Refusing(Working):
    name: ClassVar[str] = "btrfs"

    @classmethod
    def probe(cls, home: Path, options: Any) -> Backing:
        raise DriverNotSupported("not on this filesystem", remedy="Use another one.")


class Crashing(Working):
    name: ClassVar[str] = "aufs"

    @classmethod
    def probe(cls, home: Path, options: Any) -> Backing:
        raise ZeroDivisionError("oops")


class Unfinished(Working):
    """One whose author has forgotten what it can, and misspelt a method."""

    name: ClassVar[str] = "unfinished"
    seal = StorageDriver.seal
    tree = StorageDriver.tree
    capabilities: ClassVar[Any] = None
    options: ClassVar[Any] = dict


class Nameless(Working):
    name: ClassVar[Any] = None


MODULE = "drivers_for_this_test"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`install(overlay2="Working")`: entry points as if packages with these drivers were installed, and no others."""
    module = ModuleType(MODULE)
    for driver in (Working, Vfs, Refusing, Crashing, Unfinished, Nameless):
        setattr(module, driver.__name__, driver)
    module.number = 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, module)

    def entry_points(drivers: Mapping[str, str]) -> list[importlib.metadata.EntryPoint]:
        return [
            importlib.metadata.EntryPoint(name, value if ":" in value else f"{MODULE}:{value}", plugins.GROUP)
            for name, value in drivers.items()
        ]

    def put(**drivers: str) -> None:
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: entry_points(drivers))

    return put


def choose(config: Config | None = None, remembered: str | None = None) -> plugins.Choice:
    return plugins.choose(config or Config(), lambda name: Path("/home") / name, remembered)


# ---- finding


def test_installed_drivers_have_names(install: Callable[..., None]) -> None:
    install(vfs="Vfs", overlay2="Working", broken="no.such.module:Driver")

    assert plugins.names() == ["broken", "overlay2", "vfs"]
    assert plugins.find("vfs") is Vfs


def test_a_driver_that_is_not_installed_names_those_that_are(install: Callable[..., None]) -> None:
    install(overlay2="Working", vfs="Vfs")

    with pytest.raises(DriverNotFound) as caught:
        plugins.find("overlay")
    assert str(caught.value) == (
        "no storage driver 'overlay' is installed\nDid you mean 'overlay2'? Installed are: overlay2, vfs."
    )

    install()
    with pytest.raises(DriverNotFound, match="Installed are: none"):
        plugins.find("vfs")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("no.such.module:Driver", "cannot be imported: ModuleNotFoundError"),
        (f"{MODULE}:Missing", "cannot be imported: AttributeError"),
        (f"{MODULE}:number", "is no storage driver"),
        (
            f"{MODULE}:Unfinished",
            r"is not complete: it has no capabilities \(a Capabilities\), options \(an attrs class\), seal, tree",
        ),
        (f"{MODULE}:Nameless", r"is not complete: it has no name\n"),
        ("builtins:dict", "is no storage driver"),
        (MODULE, "cannot be imported"),
    ],
)
def test_what_is_no_driver_is_never_a_crash(install: Callable[..., None], entry: str, words: str) -> None:
    with pytest.raises(DriverNotFound, match=words):
        plugins.load(entry)


def test_a_driver_under_a_wrong_name_is_refused(install: Callable[..., None]) -> None:
    install(btrfs="Working")

    with pytest.raises(DriverNotFound, match="calls itself 'overlay2'"):
        plugins.find("btrfs")


def test_broken_drivers_are_named_a_line_each(install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        a="no.such.module:Driver", btrfs="Working", c="Unfinished", overlay2="Working", vfs="Vfs", z="leaves:Driver"
    )
    monkeypatch.setattr(plugins, "import_module", _leaving)

    broken = {driver.name: driver.reason for driver in plugins.broken()}

    assert list(broken) == ["a", "btrfs", "c", "z"]
    assert "cannot be imported: ModuleNotFoundError" in broken["a"]
    assert broken["btrfs"] == "the storage driver installed as 'btrfs' calls itself 'overlay2'"
    assert "is not complete" in broken["c"]
    assert "cannot be imported: SystemExit: 3" in broken["z"]


def _leaving(name: str) -> ModuleType:
    """A module that ends the process when it is imported, and all others as they are."""
    if name == "leaves":
        raise SystemExit(3)
    return importlib.import_module(name)


def test_a_driver_is_found_again_by_its_entry() -> None:
    from layerstore_overlay2 import Overlay2

    assert plugins.entry_of(Overlay2) == "layerstore_overlay2:Overlay2"
    assert plugins.load("layerstore_overlay2:Overlay2") is Overlay2


def test_a_remembered_driver_is_loaded_without_reading_entry_points() -> None:
    code = (
        "import sys; from layerstore import plugins; plugins.load('layerstore_overlay2:Overlay2');"
        "print('importlib.metadata' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# ---- choosing


def test_a_new_store_gets_the_first_that_works_and_the_reasons_against_the_others(install: Callable[..., None]) -> None:
    install(vfs="Vfs", btrfs="Refusing", aufs="Crashing", third_party="Working")

    choice = choose()

    assert choice.driver is Vfs
    assert choice.options == Settings()
    assert choice.backing.filesystem == "/home/vfs"
    assert [(refusal.name, refusal.reason) for refusal in choice.refusals] == [
        ("overlay2", "not installed"),
        ("btrfs", "not on this filesystem\nUse another one."),
        ("aufs", "the storage driver aufs failed: ZeroDivisionError: oops"),
    ]


def test_a_broken_driver_is_a_reason_and_no_crash(install: Callable[..., None]) -> None:
    install(overlay2="no.such.module:Driver", vfs="Vfs")

    choice = choose()

    assert choice.driver is Vfs
    assert "cannot be imported" in choice.refusals[0].reason


def test_the_configuration_wins(install: Callable[..., None]) -> None:
    install(overlay2="Working", vfs="Vfs")

    driver, settings, _, refusals = choose(Config(storage_driver="vfs", storage_opts=("vfs.size=1k",)))

    assert driver is Vfs
    assert settings == Settings(1024)
    assert refusals == []


def test_a_driver_that_was_named_and_does_not_work_is_an_error(install: Callable[..., None]) -> None:
    install(btrfs="Refusing", overlay2="Working")

    with pytest.raises(DriverNotSupported, match="not on this filesystem"):
        choose(Config(storage_driver="btrfs"))


def test_another_driver_is_no_misspelt_one(install: Callable[..., None]) -> None:
    install(vfs="Vfs")

    with pytest.raises(DriverNotFound) as caught:
        plugins.find("zfs")
    assert str(caught.value).endswith("\nInstalled are: vfs.")


def test_none_that_works_is_an_error_with_all_reasons(install: Callable[..., None]) -> None:
    install(btrfs="Refusing")

    with pytest.raises(DriverNotSupported) as caught:
        choose()
    assert "overlay2: not installed; btrfs: not on this filesystem; aufs" in str(caught.value)


@pytest.mark.parametrize("remembered", ["vfs", f"{MODULE}:Vfs"])
def test_a_store_keeps_its_driver(install: Callable[..., None], remembered: str) -> None:
    install(overlay2="Working", vfs="Vfs")

    assert choose(remembered=remembered).driver is Vfs
    assert choose(Config(storage_driver="vfs"), remembered).driver is Vfs
    with pytest.raises(DriverMismatch) as caught:
        choose(Config(storage_driver="overlay2"), remembered)
    assert str(caught.value) == (
        "this store keeps its layers with vfs, but storage-driver is overlay2\n"
        "Set storage-driver to vfs or leave it out. To convert the store: layerstore migrate overlay2"
    )


def test_a_mismatch_names_the_command_for_this_very_store(install: Callable[..., None]) -> None:
    install(overlay2="Working", vfs="Vfs")

    with pytest.raises(DriverMismatch) as caught:
        choose(Config(data_root=Path("/my store"), storage_driver="overlay2"), "vfs")
    assert str(caught.value).endswith("To convert the store: layerstore --root '/my store' migrate overlay2")
    with pytest.raises(DriverMismatch) as caught:
        choose(Config(data_root=Path("/a"), storage_driver="overlay2", source=Path("/b.json")), "vfs")
    assert str(caught.value).endswith("layerstore --config /b.json --root /a migrate overlay2")
    with pytest.raises(DriverMismatch) as caught:
        choose(Config(storage_driver="overlai2"), "vfs")
    assert str(caught.value).endswith("(No driver 'overlai2' is installed.)")


def test_a_wrong_option_is_no_reason_to_take_another_driver(install: Callable[..., None]) -> None:
    install(overlay2="Working", vfs="Vfs")

    with pytest.raises(ConfigError, match="overlay2 has no option 'siez'"):
        choose(Config(storage_opts=("overlay2.siez=1",)))
