"""What dead processes and former boots left in a store is put in order: `recover`, before an `open` returns.

Others may do the same at the same time. A store that is in order never gets here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from layerstore import facts, homes, session
from layerstore.errors import LayerstoreError
from layerstore.kernel.mounts import boot_id, trial
from layerstore.layers import garbage
from layerstore.layers.orphans import is_orphaned

if TYPE_CHECKING:
    from layerstore.parts import Parts

__all__ = ["recover", "sweep_trials"]


def recover(parts: Parts) -> None:
    """Put in order what dead processes and former boots left. Others may do the same at the same time.

    What cannot be removed, or may be in the hands of somebody alive, stops nobody: the next `open` tries again, and
    `check` tells of it.
    """
    staging = parts.session.staging
    request = facts.request_of(facts.read(parts.database))  # before all: what is asked meanwhile is not done with it
    if is_orphaned(parts.home):
        holder = parts.storage.files.holder
        if holder is not None:
            holder.recover()
    with session.dead(staging) as dead:
        parts.containers.recover()
        parts.images.recover()
        parts.layers.recover()
        left = [deed for deed in _deeds(parts) if not _is_done(deed)]
        sweep_trials(parts)
        session.remove(staging, dead)
    with suppress(LayerstoreError):  # it is tried again by the next `open`, and `info` tells of it
        homes.remove_former(parts.config.data_root, parts.database, parts.locks, parts.session, parts.layers)
    if not left:
        with parts.database.write(durable=False) as tx:
            facts.put_in_order(tx, boot_id(), request)
    else:
        facts.ask_for_recovery(parts.database, parts.session.stay)


def _deeds(parts: Parts) -> Iterator[Callable[[], bool | None]]:
    """What is put in order for later; False is returned by what has to be done once more."""
    yield parts.mirror.put_in_step
    yield parts.layers.complete_records
    yield parts.layers.forget_lazy
    yield lambda: garbage.sweep(parts.layers, parts.session.staging)
    yield lambda: parts.blobs.recover()
    if (parts.config.data_root / "volumes").is_dir():
        yield lambda: parts.containers.volumes.recover()


def _is_done(deed: Callable[[], bool | None]) -> bool:
    try:
        return deed() is not False
    except (LayerstoreError, OSError):
        return False


def sweep_trials(parts: Parts) -> None:
    """Remove what was left by those who died while they tried what works here."""
    for folder in (parts.config.data_root, parts.home):
        trial.sweep(folder)
