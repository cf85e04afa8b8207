"""Tests that could not run one after the other in one root filesystem."""

from __future__ import annotations

import subprocess

import pytest

from layerstore import Checkpoint, Container


def run(box: Container, program: str) -> str:
    """What a program of the container's shell prints."""
    done = box.run(["sh", "-c", program], isolation="process", check=True, stdout=subprocess.PIPE, text=True)
    return str(done.stdout)


def test_an_account_is_emptied(branch: Container, warm: Checkpoint) -> None:
    run(branch, "echo balance 0 > /srv/accounts/1")
    assert [str(change) for change in branch.changes(since=warm)] == ["C /srv", "C /srv/accounts", "C /srv/accounts/1"]


def test_everything_is_lost(branch: Container) -> None:
    run(branch, "rm -r /srv /etc")
    assert run(branch, "ls / | grep srv || true") == ""


@pytest.mark.parametrize("number", range(1, 10))
def test_each_account_is_as_it_was(branch: Container, number: int) -> None:
    assert run(branch, f"cat /srv/accounts/{number}") == "balance 100\n"


def test_a_branch_branches(branch: Container) -> None:
    run(branch, "echo balance 50 > /srv/accounts/1")
    point = branch.checkpoint()
    [left, right] = point.fork(2)
    run(left, "echo balance 40 > /srv/accounts/1")
    assert run(right, "cat /srv/accounts/1") == "balance 50\n"
    for box in (left, right):
        box.remove(lasts=False)
