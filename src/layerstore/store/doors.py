"""How a store is opened, and how it is converted to another driver: `layerstore.open` and `layerstore.migrate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from layerstore import config as configuration
from layerstore import facts
from layerstore.config import Config
from layerstore.errors import ConfigError
from layerstore.opening import require_store
from layerstore.store.store import Store
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.layers import Progress
    from layerstore.migration import Migrated
    from layerstore.rescuing import Rescued


@in_words("open the store")
def open_store(
    data_root: str | Path | None = None,
    *,
    config: Config | str | Path | None = None,
    storage_driver: str | None = None,
    storage_opts: Sequence[str] = (),
    attach: Sequence[str] = (),
    make: bool = True,
) -> Store:
    """Open the store in `data_root`, and make it if there is none, unless `make` is False: then `NotFound` is raised.

    `attach` are stores of others whose images are there to be used, where they lie: `docker:/var/lib/docker`,
    `podman:/var/lib/containers/storage`. Nothing is written there. See `Store.attached_images`.

    What is not given comes from `config`, a daemon.json or one that was read already; by default
    /etc/layerstore/daemon.json, where there is one. Raises `ConfigError`, `DriverMismatch`, `DriverNotSupported`.
    """
    config = configuration.with_overrides(
        configuration.given(config),
        data_root=configuration.root_of(data_root),
        storage_driver=storage_driver,
        storage_opts=storage_opts,
        attach=_stores(attach),
    )
    if not make:
        require_store(config.data_root)
    return Store(config)


def _stores(attach: Sequence[str]) -> tuple[str, ...]:
    """Stores that a caller wants attached, with absolute paths. Raises `ConfigError` for what names none."""
    found = []
    for text in attach:
        kind, _, path = text.partition(":")
        if not path or not configuration.is_store(spec := f"{kind}:{Path(path).absolute()}"):
            remedy = "A store is named like docker:/var/lib/docker."
            raise ConfigError(f"attach: {text!r} names no store", remedy=remedy)
        found.append(spec)
    return tuple(found)


@in_words("rescue the store")
def rescue_store(
    data_root: str | Path | None = None, *, config: Config | str | Path | None = None, storage_driver: str | None = None
) -> Rescued:
    """Make the database of a store anew, which is gone or damaged, of what lies beside the layers.

    Images with their tags, containers with what was written in them, checkpoints and volumes come back, as far as their
    records and files are there; what does not is told. The old database stays, under another name. What is not given
    comes from `config`, as with `open`; `storage_driver` is needed only where nothing says which it was.

    Nobody else may have the store open: `InUse`. Raises `LayerstoreError` if the database is whole, `NotFound`,
    `ConfigError`.
    """
    from layerstore.rescuing import rescue

    config = configuration.given(config)
    config = configuration.with_overrides(
        config, data_root=configuration.root_of(data_root), storage_driver=storage_driver
    )
    done = rescue(config)
    with Store(config):  # which puts in order what is left
        return done


@in_words("convert the store")
def migrate_store(
    to: str,
    data_root: str | Path | None = None,
    *,
    config: Config | str | Path | None = None,
    storage_opts: Sequence[str] = (),
    progress: Progress | None = None,
) -> Migrated:
    """Convert the store in `data_root` to the driver `to`, in place: images, containers and what was written in them.

    Nobody else may have it open, and nothing of it may be mounted: `InUse`. What is not given comes from `config`, as
    with `open`; its storage-driver does not matter, and its storage-opts count for the driver that they are of.

    It can be killed, and goes on when it is called again; until its end the store is the old one, whole. Called with
    the driver that the store has, it gives up a migration that was not finished. Raises `DriverNotFound`,
    `DriverNotSupported`, `Damaged` (a layer that is not what it was), `DepthExceeded`, `ConfigError`, `NotFound`.
    """
    from layerstore.migration import migrate

    config = configuration.given(config)
    config = configuration.with_overrides(config, data_root=configuration.root_of(data_root), storage_opts=storage_opts)
    mine = tuple(opt for opt in config.storage_opts if configuration.owner_of(opt) == to)
    others = tuple(opt for opt in config.storage_opts if configuration.owner_of(opt) != to)
    require_store(config.data_root)
    old = evolve(config, storage_driver=None, storage_opts=others)
    new = evolve(config, storage_driver=to, storage_opts=mine)
    with Store(old) as store:
        done = migrate(store._parts, new, to, progress)
    if done.given_up is not None:
        return done
    with Store(new) as store:  # which removes the former home, as any open would now
        if facts.former_of(facts.read(store._parts.database)) is not None:
            notice = f"the home of {done.origin} could not be removed yet: the next command tries again"
            done = evolve(done, notices=(*done.notices, notice))
    return done
