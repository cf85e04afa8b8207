"""The machine, and a test of the kit, find what a driver does wrong: overlay2, aufs and vfs, broken on purpose."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from layerstore.changes import Changes
from layerstore.driver import Layer, LayerKey, Usage
from layerstore.testing import StackMachine, Workbench, machine_for
from layerstore.testing.conformance.sealing import Sealing
from layerstore_aufs import Aufs
from layerstore_overlay2 import Overlay2
from layerstore_vfs import Vfs
from testing.drivers import FUSE_OVERLAYFS

pytestmark = pytest.mark.root

REAL_CREATE, REAL_SEAL, REAL_AUFS_SEAL = Overlay2.create, Overlay2.seal, Aufs.seal


def forgets_what_is_removed(real: Callable[..., Changes]) -> Callable[..., Changes]:
    def changes(*arguments: Any) -> Changes:
        found = real(*arguments)
        kept = [record + b"\0" for record in found.raw.split(b"\0")[:-1] if not record.startswith(b"D")]
        return Changes(b"".join(kept), sealable=found.sealable)

    return changes


def root_of_another_mode(driver: Overlay2, layer: Layer, parents: Sequence[Layer], **more: int | None) -> None:
    REAL_CREATE(driver, layer, parents, **more)
    driver.tree(layer).chmod(0o711)


def loses_an_xattr(driver: Overlay2, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
    for path in driver.tree(layer).rglob("*"):
        for name in os.listxattr(path, follow_symlinks=False):
            if not name.startswith("trusted.overlay."):
                os.removexattr(path, name, follow_symlinks=False)
    return REAL_SEAL(driver, layer, parents)


def loses_a_whiteout(driver: Aufs, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
    sealed = REAL_AUFS_SEAL(driver, layer, parents)
    for mark in driver.tree(Layer(sealed)).rglob(".wh.*"):
        mark.unlink()
    return sealed


def machine_finds(machine: type[StackMachine]) -> None:
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=60, stateful_step_count=25, phases=[Phase.generate], report_multiple_bugs=False
            ),
        )


MUTANTS = {"changes": forgets_what_is_removed(Overlay2.changes), "create": root_of_another_mode, "seal": loses_an_xattr}


@pytest.mark.parametrize("method", MUTANTS)
def test_a_driver_that_is_broken_is_found_out(
    method: str, backing: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Overlay2, method, MUTANTS[method])

    machine_finds(machine_for("overlay2", backing("ext4"), breaks_links=True))


AUFS_MUTANTS = {"changes": forgets_what_is_removed(Aufs.changes), "seal": loses_a_whiteout}


@pytest.mark.tools("fuse-overlayfs")
@pytest.mark.parametrize("method", AUFS_MUTANTS)
def test_a_driver_is_found_out_within_the_limits_of_another_program(
    method: str, backing: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Aufs, method, AUFS_MUTANTS[method])

    machine_finds(
        machine_for("aufs", backing("ext4"), options=["aufs.mode=fuse"], breaks_links=True, limits=FUSE_OVERLAYFS)
    )


class Noting(Vfs):
    """It measures a layer when it is sealed, and believes that from then on."""

    def seal(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        usage = super().usage(layer, parents)
        (self.home / f"copied/{layer.key}.usage").write_text(f"{usage.size} {usage.inodes}")
        return super().seal(layer, parents)

    def usage(self, layer: Layer, parents: Sequence[Layer]) -> Usage:
        note = self.home / f"copied/{layer.key}.usage"
        return Usage(*map(int, note.read_text().split())) if note.exists() else super().usage(layer, parents)


def test_a_note_of_a_seal_that_came_to_nothing_is_found(backing: Callable[[str], Path]) -> None:
    ask = Sealing().test_a_container_goes_on_after_a_seal_that_came_to_nothing
    with Workbench.of(Vfs, backing("ext4") / "vfs", Vfs.options()) as bench:
        ask(bench)
    with (
        Workbench.of(Noting, backing("ext4") / "vfs", Vfs.options()) as bench,
        pytest.raises(AssertionError, match="nothing that the first seal noted counts"),
    ):
        ask(bench)
