"""A night that is walked in shares: what there is of it, and when it is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from torture.night import rows
from torture.table import Row, write_table

WANTED = [("vfs on ext4", "load", "killed"), ("vfs on ext4", "load", "errors"), ("vfs on ext4", "tag", "killed")]


def row(subject: str, operation: str, kind: str, first: int, revision: str = "one", every: int = 2) -> Row:
    return {
        "revision": revision, "every": every, "first": first, "turn": 0, "subject": subject, "operation": operation,
        "kind": kind, "points": 10, "missed": 0, "losses": [], "seconds": 6.0,
    }  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where rows are noted: the first share of all, the second of one, which was walked twice."""
    noted = [row(*one, first=0) for one in WANTED]
    noted += [row(*WANTED[0], first=1), row(*WANTED[0], first=1), row(*WANTED[1], first=0, every=5)]
    noted.append(row(*WANTED[1], first=1, revision="other"))
    path = tmp_path / "state"
    path.write_text("".join(json.dumps(one) + "\n" for one in noted))
    return path


def told(folder: Path, found: list[Row]) -> str:
    return write_table(folder, found, WANTED, 2, 0).read_text()


def test_shares_add_up(state: Path, tmp_path: Path) -> None:
    found = rows(state, 2, 0, "one")
    text = told(tmp_path, found)
    assert "**Partial**: 4 of 6 walks" in text
    assert "one point of 2, from the points 0, 1 on" in text
    assert "| vfs on ext4 | killed | 2 of 2 | 30 | 30 | 0 | 0 |" in text
    missing = json.loads(next(tmp_path.glob("*-torture.json")).read_text())["missing"]
    assert missing == [[1, *WANTED[1]], [1, *WANTED[2]]]


def test_all_shares_are_the_whole(state: Path, tmp_path: Path) -> None:
    found = [*rows(state, 2, 0, None), row(*WANTED[2], first=1)]
    assert "Whole: all 3 walks" in told(tmp_path, found)


def test_a_share_twice_is_not_the_whole(state: Path, tmp_path: Path) -> None:
    twice = [{**found, "first": 2 * found["first"]} for found in [*rows(state, 2, 0, None), row(*WANTED[2], first=1)]]
    assert "**Partial**: 3 of 6 walks" in told(tmp_path, twice)
