"""What a container does, as `ps` says it: docker's STATUS, and PORTS; the words are the runtime's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from layerstore.cli import units
from layerstore.runtime.statuses import STATES, health_of, is_shown, state, states

if TYPE_CHECKING:
    from layerstore.containers import ContainerState
    from layerstore.runtime import RunState

__all__ = ["STATES", "address", "health_of", "is_shown", "published", "state", "states", "words"]


def words(run: RunState | None, core: ContainerState, *, now: datetime | None = None) -> str:
    """The STATUS: `Up 3 seconds (healthy)`, `Exited (0) 2 minutes ago`, `Created`, `Mounted`."""
    word = state(run, core)
    text = _ran(run, now or datetime.now(UTC)) if run is not None and word == run.status else None
    if text is None:
        return word.capitalize()
    return f"{text} (mounted)" if core.mountpoint is not None and word == "exited" else text


def _ran(run: RunState, now: datetime) -> str | None:
    """What is said of one that was started; None where its word says all."""
    if run.status in ("running", "paused"):
        up = "Up" if run.started is None else f"Up {units.duration(now - run.started)}"
        if run.status == "paused":
            return f"{up} (Paused)"
        health = health_of(run.health)
        return f"{up} ({f'health: {health}' if health == 'starting' else health})" if health else up
    if run.status == "exited":
        if run.finished is None:
            return f"Exited ({run.exit_code})"
        return f"Exited ({run.exit_code}) {units.ago(run.finished, now=now)}"
    return None


def published(bindings: Mapping[str, Any] | None) -> str:
    """The PORTS, from what `inspect` has of them: `0.0.0.0:8080->80/tcp, 9/udp`."""
    texts = []
    for port, bound in sorted((bindings or {}).items(), key=lambda item: _by_number(item[0])):
        for one in bound or [None]:
            texts.append(port if one is None else f"{address(one)}->{port}")
    return ", ".join(texts)


def address(bound: Mapping[str, str]) -> str:
    """Where a port is published: `0.0.0.0:8080`, `[::]:8080`."""
    ip = bound.get("HostIp") or "0.0.0.0"
    return f"{f'[{ip}]' if ':' in ip else ip}:{bound.get('HostPort', '')}"


def _by_number(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    return int(number) if number.isdigit() else 0, protocol
