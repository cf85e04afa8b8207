"""What there is, how it is kept, and on what kind of host: what `layerstore info` shows."""

from __future__ import annotations

import json
import os
from pathlib import Path

from layerstore import facts, plugins
from layerstore.blobs import Remains
from layerstore.errors import LayerstoreError
from layerstore.parts import Parts
from layerstore.storage_conf import Advice
from layerstore.values import frozen

__all__ = ["Info", "gather"]


@frozen
class Info:
    """What `info` tells of a store and of its host.

    `refusals` are the drivers that were not taken when the store was made, and why; `broken` those that are installed
    and can never work. `migration`: to which driver an unfinished one leads. `former`: the driver whose home is still
    to be removed. `memory` is in bytes.
    """

    id: str
    version: str
    containers: int
    mounted: int
    images: int
    layers: int
    blobs: Remains
    driver: str
    driver_status: tuple[tuple[str, str], ...]
    refusals: tuple[tuple[str, str], ...]
    broken: tuple[tuple[str, str], ...]
    migration: str | None
    former: str | None
    attached: tuple[str, ...]
    """Stores of other programs whose images are used where they lie."""
    data_root: Path
    exec_root: Path
    kernel: str
    operating_system: str
    os: str
    architecture: str
    cpus: int
    memory: int
    name: str
    advice: Advice
    """What podman's storage.conf says, where there is no daemon.json."""


def gather(parts: Parts) -> Info:
    """Ask the store, its driver and the host."""
    from layerstore import __version__

    host = os.uname()
    with parts.database.read() as tx:
        known, counts = facts.all_of(tx), facts.counts(tx)
        mounted = parts.containers.count_mounted(tx)
    return Info(
        id=known["id"],
        version=__version__,
        containers=counts["containers"],
        mounted=mounted,
        images=counts["images"],
        layers=counts["layers"],
        blobs=parts.blobs.remains(),
        driver=known["driver"],
        driver_status=_driver_status(parts),
        refusals=tuple((name, reason) for name, reason in json.loads(known.get("refusals", "[]"))),
        broken=tuple((refusal.name, refusal.reason) for refusal in plugins.broken()),
        migration=facts.target_of(known),
        former=facts.former_of(known),
        attached=parts.config.attach,
        data_root=parts.config.data_root,
        exec_root=parts.config.exec_root,
        kernel=host.release,
        operating_system=_operating_system(),
        os="linux",
        architecture=host.machine,
        cpus=os.cpu_count() or 1,
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        name=host.nodename,
        advice=parts.config.advice,
    )


def _driver_status(parts: Parts) -> tuple[tuple[str, str], ...]:
    try:
        driver = parts.storage.driver
        lazy = len(parts.layers.lazy())
        notes = (("Lazy Layers", f"{lazy}, of which not all is there yet"),) if lazy else ()
        return (*driver.probe(driver.home, driver.settings).notes, *notes)
    except LayerstoreError as error:
        return (("Problem", error.message),)  # on a full disk, say: the rest can be told


def _operating_system() -> str:
    try:
        text = Path("/etc/os-release").read_text(errors="replace")
    except OSError:
        return "Linux"
    pairs = dict(line.partition("=")[::2] for line in text.splitlines())
    return pairs.get("PRETTY_NAME", "Linux").strip("\"'")
