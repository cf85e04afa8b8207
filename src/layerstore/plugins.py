"""Finding storage drivers, and choosing the one that a store uses.

Drivers are found by the entry-point group `layerstore.drivers` and by nothing else; those that come with layerstore are
found like any third party's. Reading entry points is slow, so a store remembers where its driver is (`entry_of`). A
driver that cannot be imported is a reason to give, never a crash.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from attrs import has

from layerstore.config import DEFAULT_FILE, Config, driver_options
from layerstore.driver import Backing, Capabilities, StorageDriver
from layerstore.errors import DriverMismatch, DriverNotFound, DriverNotSupported, LayerstoreError
from layerstore.values import frozen

__all__ = ["GROUP", "PREFERRED", "Choice", "Refusal", "broken", "choose", "entry_of", "find", "load", "names"]

GROUP = "layerstore.drivers"

PREFERRED = ("overlay2", "btrfs", "aufs", "vfs")
"""The order in which a new store looks for a driver that works. Others are used only when they are named."""


@frozen
class Refusal:
    """A driver that was not taken, and why."""

    name: str
    reason: str


class Choice(NamedTuple):
    """The driver of a store, its options, what it found below its home, and who was asked in vain before it."""

    driver: type[StorageDriver]
    options: Any
    backing: Backing
    refusals: list[Refusal]


def names() -> list[str]:
    """The names of the drivers that are installed, whether they work here or not."""
    return sorted(_entries())


def broken() -> list[Refusal]:
    """The drivers that are installed and can never work: they cannot be imported, or are none. Imports all of them."""
    found = []
    entries = _entries()
    for name in sorted(entries):
        try:
            _named(name, entries)
        except DriverNotFound as error:
            found.append(Refusal(name, error.message))
    return found


def find(name: str) -> type[StorageDriver]:
    """The driver that is installed as `name`."""
    return _named(name, _entries())


def _named(name: str, entries: Mapping[str, str]) -> type[StorageDriver]:
    if name not in entries:
        from difflib import get_close_matches

        near = get_close_matches(name.lower(), entries, n=1, cutoff=0.7)  # zfs is no misspelt vfs
        installed = ", ".join(sorted(entries)) or "none"
        raise DriverNotFound(
            f"no storage driver {name!r} is installed",
            remedy=(f"Did you mean {near[0]!r}? " if near else "") + f"Installed are: {installed}.",
        )
    driver = load(entries[name])
    if driver.name != name:
        raise DriverNotFound(f"the storage driver installed as {name!r} calls itself {driver.name!r}")
    return driver


def load(entry: str) -> type[StorageDriver]:
    """The driver at `module:Class`."""
    module, _, attribute = entry.partition(":")
    try:
        driver = getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:  # whatever a third party's module does when it is imported
        raise DriverNotFound(
            f"the storage driver {entry} cannot be imported: {type(error).__name__}: {error}",
            remedy="Install the package that it is in, or mend it.",
        ) from error
    if not inspect.isclass(driver) or not issubclass(driver, StorageDriver):
        raise DriverNotFound(
            f"{entry} is no storage driver: it has to be a subclass of layerstore.driver.StorageDriver"
        )
    if lacks := _lacks(driver):
        raise DriverNotFound(f"the storage driver {entry} is not complete: it has no {', '.join(lacks)}")
    return driver


def _lacks(driver: type[StorageDriver]) -> list[str]:
    """What a class of a driver has to have, and does not."""
    said = {
        "name": isinstance(getattr(driver, "name", None), str),
        "capabilities (a Capabilities)": isinstance(getattr(driver, "capabilities", None), Capabilities),
        "options (an attrs class)": inspect.isclass(options := getattr(driver, "options", None)) and has(options),
    }
    return [*(what for what, is_there in said.items() if not is_there), *sorted(driver.__abstractmethods__)]


def entry_of(driver: type[StorageDriver]) -> str:
    """What `load` finds the driver by: for a store to remember."""
    return f"{driver.__module__}:{driver.__qualname__}"


def choose(config: Config, home_of: Callable[[str], Path], remembered: str | None) -> Choice:
    """The driver for a store.

    `remembered` is what the store was made with: `entry_of` the driver, or its name. No other one can read the store. A
    new store gets the one that the configuration names, else the first that works of a storage.conf's and `PREFERRED`.
    """
    if remembered is not None:
        driver = load(remembered) if ":" in remembered else find(remembered)
        if config.storage_driver not in (None, driver.name):
            raise DriverMismatch(
                f"this store keeps its layers with {driver.name}, but storage-driver is {config.storage_driver}",
                remedy=f"Set storage-driver to {driver.name} or leave it out. {_conversion(config)}",
            )
        return _choice(driver, config, home_of, [])
    if config.storage_driver is not None:
        return _choice(find(config.storage_driver), config, home_of, [])
    refusals: list[Refusal] = []
    installed = names()
    advised = config.advice.driver
    for name in dict.fromkeys((*([advised] if advised is not None else ()), *PREFERRED)):
        if name not in installed:
            refusals.append(Refusal(name, "not installed"))
            continue
        try:
            return _choice(find(name), config, home_of, refusals)
        except (DriverNotFound, DriverNotSupported) as error:
            refusals.append(Refusal(name, str(error)))
    raise DriverNotSupported(
        "no storage driver works here: "
        + "; ".join(f"{refusal.name}: {refusal.reason.partition(chr(10))[0]}" for refusal in refusals),
        remedy="Put the data-root on ext4, xfs or btrfs, and run as root.",
    )


def _conversion(config: Config) -> str:
    """How the store becomes one of the driver that the configuration names."""
    wanted = config.storage_driver or ""
    if wanted not in names():
        return f"(No driver {wanted!r} is installed.)"
    place = [] if config.source in (None, DEFAULT_FILE) else ["--config", str(config.source)]
    if config.data_root != Config().data_root:
        place += ["--root", str(config.data_root)]
    return f"To convert the store: {shlex.join(['layerstore', *place, 'migrate', wanted])}"


def _choice(
    driver: type[StorageDriver], config: Config, home_of: Callable[[str], Path], refusals: list[Refusal]
) -> Choice:
    options: Any = driver_options(config, driver.name, driver.options)
    try:
        backing = driver.probe(home_of(driver.name), options)
    except LayerstoreError:
        raise
    except Exception as error:  # a third party's driver again
        raise DriverNotSupported(f"the storage driver {driver.name} failed: {type(error).__name__}: {error}") from error
    return Choice(driver, options, backing, refusals)


def _entries() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {entry.name: entry.value for entry in entry_points(group=GROUP)}
