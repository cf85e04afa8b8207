"""What a container does, in one word. Pure.

What runs is the runtime's to say, what is mounted the core's. A container that has ended and is mounted is both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from layerstore import ContainerState
    from layerstore.runtime.life.state import RunState

__all__ = ["STATES", "health_of", "is_shown", "state", "states"]

STATES: Final = (
    "created", "running", "paused", "restarting", "removing", "exited", "dead", "mounted", "unmounted",
)  # fmt: skip
"""What the filter `status` knows: docker's, and those of a container that is only mounted."""


def state(run: RunState | None, core: ContainerState) -> str:
    """The word for it: the runtime's for one that it has started, else the core's."""
    if run is None or run.status == "created":
        # One that could not be started was touched by nobody else.
        return "created" if core.status == "unmounted" and run is not None and run.error else core.status
    return run.status


def states(run: RunState | None, core: ContainerState) -> set[str]:
    """All the words that are true of it, for the filter: one that has ended may be mounted, too."""
    found = {state(run, core)}
    if core.mountpoint is not None:
        found.add("mounted")
    if found == {"unmounted"}:
        found.add("exited")  # as docker would call what was used and is not any more
    return found


def is_shown(run: RunState | None, core: ContainerState) -> bool:
    """Does `ps` without `-a` show it: does it run, or is it mounted?"""
    return core.mountpoint is not None or bool({"running", "paused"} & states(run, core))


def health_of(health: Mapping[str, Any] | None) -> str:
    """`starting`, `healthy` or `unhealthy`; "" where nobody checks."""
    status = (health or {}).get("Status")
    return status if isinstance(status, str) and status != "none" else ""
