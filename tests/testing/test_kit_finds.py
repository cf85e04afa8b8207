"""The machine finds what a driver does wrong: overlay2, broken on purpose."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from layerstore.changes import Changes
from layerstore.driver import LayerKey
from layerstore.testing import machine_for
from layerstore_overlay2 import Overlay2

pytestmark = pytest.mark.root

REAL_CHANGES, REAL_CREATE, REAL_SEAL = Overlay2.changes, Overlay2.create, Overlay2.seal


def forgets_what_is_removed(driver: Overlay2, layer: LayerKey, parents: Sequence[LayerKey]) -> Changes:
    found = REAL_CHANGES(driver, layer, parents)
    kept = [record + b"\0" for record in found.raw.split(b"\0")[:-1] if not record.startswith(b"D")]
    return Changes(b"".join(kept), sealable=found.sealable)


def root_of_another_mode(driver: Overlay2, layer: LayerKey, parents: Sequence[LayerKey], **more: bool) -> None:
    REAL_CREATE(driver, layer, parents, staged=more.get("staged", False))
    driver.tree(layer).chmod(0o711)


def loses_an_xattr(driver: Overlay2, layer: LayerKey, parents: Sequence[LayerKey]) -> LayerKey:
    for path in driver.tree(layer).rglob("*"):
        for name in os.listxattr(path, follow_symlinks=False):
            if not name.startswith("trusted.overlay."):
                os.removexattr(path, name, follow_symlinks=False)
    return REAL_SEAL(driver, layer, parents)


MUTANTS = {"changes": forgets_what_is_removed, "create": root_of_another_mode, "seal": loses_an_xattr}


@pytest.mark.parametrize("method", MUTANTS)
def test_a_driver_that_is_broken_is_found_out(
    method: str, backing: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Overlay2, method, MUTANTS[method])
    machine = machine_for("overlay2", backing("ext4"), breaks_links=True)

    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(
            machine, settings=settings(max_examples=60, stateful_step_count=25, phases=[Phase.generate])
        )
