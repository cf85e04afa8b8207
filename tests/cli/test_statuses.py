"""STATUS and PORTS of `ps`, in docker's words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from layerstore.cli import statuses
from layerstore.containers import ContainerState
from layerstore.runtime import RunState

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def core(status: str = "created", mountpoint: str | None = None) -> ContainerState:
    return ContainerState(
        status=status,
        mountpoint=None if mountpoint is None else Path(mountpoint),
        mounts=int(bool(mountpoint)),
        image=None,
    )


def ago(**span: int) -> datetime:
    return NOW - timedelta(**span)


@pytest.mark.parametrize(
    ("run", "at_core", "words", "states", "is_shown"),
    [
        (None, core(), "Created", {"created"}, False),
        (None, core("unmounted"), "Unmounted", {"unmounted", "exited"}, False),
        (None, core("mounted", "/m"), "Mounted", {"mounted"}, True),
        (RunState("created"), core(), "Created", {"created"}, False),
        (RunState("created"), core("mounted", "/m"), "Mounted", {"mounted"}, True),
        (RunState("created"), core("unmounted"), "Unmounted", {"unmounted", "exited"}, False),
        (RunState("created", error="no such user"), core("unmounted"), "Created", {"created"}, False),
        (RunState("running", started=ago(seconds=3)), core(), "Up 3 seconds", {"running"}, True),
        (RunState("running", started=NOW), core(), "Up Less than a second", {"running"}, True),
        (RunState("paused", started=ago(seconds=90)), core(), "Up About a minute (Paused)", {"paused"}, True),
        (
            RunState("running", started=ago(hours=5), health={"Status": "starting"}),
            core(),
            "Up 5 hours (health: starting)",
            {"running"},
            True,
        ),
        (
            RunState("running", started=ago(days=3), health={"Status": "unhealthy"}),
            core(),
            "Up 3 days (unhealthy)",
            {"running"},
            True,
        ),
        (RunState("running", started=ago(days=3), health={"Status": "none"}), core(), "Up 3 days", {"running"}, True),
        (
            RunState("exited", exit_code=137, started=ago(hours=1), finished=ago(minutes=2)),
            core("unmounted"),
            "Exited (137) 2 minutes ago",
            {"exited"},
            False,
        ),
        (
            RunState("exited", started=ago(hours=1), finished=ago(seconds=1)),
            core("mounted", "/m"),
            "Exited (0) 1 second ago (mounted)",
            {"exited", "mounted"},
            True,
        ),
        (RunState("exited", exit_code=255), core("unmounted"), "Exited (255)", {"exited"}, False),
        (RunState("dead"), core("unmounted"), "Dead", {"dead"}, False),
    ],
)
def test_status(run: RunState | None, at_core: ContainerState, words: str, states: set[str], is_shown: object) -> None:
    assert statuses.words(run, at_core, now=NOW) == words
    assert statuses.states(run, at_core) == states
    assert statuses.is_shown(run, at_core) == is_shown


@pytest.mark.parametrize(
    ("bindings", "text"),
    [
        (None, ""),
        ({}, ""),
        ({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}, "0.0.0.0:8080->80/tcp"),
        (
            {"443/tcp": [{"HostIp": "::1", "HostPort": "1"}], "53/udp": None},
            "53/udp, [::1]:1->443/tcp",
        ),
        (
            {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}, {"HostIp": "::", "HostPort": "80"}]},
            "0.0.0.0:80->80/tcp, [::]:80->80/tcp",
        ),
    ],
)
def test_ports(bindings: dict[str, list[dict[str, str]] | None] | None, text: str) -> None:
    assert statuses.published(bindings) == text
