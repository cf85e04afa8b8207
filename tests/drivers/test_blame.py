"""What a driver raises becomes a sentence with the driver, the layer, what was done, and what to do about it."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from layerstore.driver import Layer, LayerKey, blamed
from layerstore.errors import DriverFailed, InUse, KernelError, remedy_for

LAYER = Layer(LayerKey("ab" * 16))
WHAT = f"the storage driver mine could not create layer {LAYER.key}"


def test_a_refused_call_of_python_is_one_of_the_kernel(tmp_path: Path) -> None:
    with pytest.raises(KernelError) as caught, blamed("mine", "create", LAYER):
        os.mkdir(tmp_path / "missing" / "folder")

    assert (
        str(caught.value) == f"{WHAT}: {tmp_path}/missing/folder: No such file or directory\n{remedy_for(errno.ENOENT)}"
    )
    assert (caught.value.errno, caught.value.layer) == (errno.ENOENT, LAYER.key)
    assert caught.value.path == f"{tmp_path}/missing/folder"


def test_a_call_on_a_descriptor_tells_of_no_path() -> None:
    with pytest.raises(KernelError) as caught, blamed("mine", "create", LAYER):
        os.chmod(999_999, 0)

    assert str(caught.value) == f"{WHAT}: Bad file descriptor\n{remedy_for(errno.EBADF)}"
    assert caught.value.path is None


@pytest.mark.parametrize(
    ("script", "said", "number"),
    [
        ("echo first >&2; echo it broke >&2; exit 3", "sh ended with 3: it broke", None),
        (
            "echo 'a: No space left on device' >&2; echo 'b: giving up' >&2; exit 1",
            f"sh ended with 1: a: No space left on device\n{remedy_for(errno.ENOSPC)}",
            errno.ENOSPC,
        ),
        ("echo only here; exit 1", "sh ended with 1: only here", None),
        ("exit 1", "sh ended with 1: it said nothing", None),
    ],
)
def test_a_program_that_failed_is_quoted(script: str, said: str, number: int | None) -> None:
    with pytest.raises(DriverFailed) as caught, blamed("mine", "create", LAYER):
        subprocess.run(["sh", "-c", script], check=True, capture_output=True)

    assert str(caught.value) == f"{WHAT}: {said}"
    assert (caught.value.errno, caught.value.layer) == (number, LAYER.key)


def test_anything_else_is_a_defect_of_the_driver() -> None:
    with pytest.raises(DriverFailed) as caught, blamed("mine", "list its layers"):
        [][1]

    assert str(caught.value) == (
        "the storage driver mine could not list its layers: IndexError: list index out of range\n"
        "This is a defect of the driver mine: tell those who make it."
    )


def test_an_error_of_this_library_passes_and_is_told_its_layer() -> None:
    raised = InUse("something is mounted in it", holders=("x",), remedy="Unmount it.")

    with pytest.raises(InUse) as caught, blamed("mine", "remove", LAYER):
        raise raised

    assert caught.value is raised
    assert caught.value.layer == LAYER.key


def test_a_refusal_of_the_kernel_is_told_the_driver_and_what_it_did_once() -> None:
    with pytest.raises(KernelError) as caught, blamed("outer", "mount"), blamed("mine", "create", LAYER):
        raise KernelError("copy_file_range", errno.ENOSPC, path="/x")

    assert caught.value.message == f"{WHAT}: copy_file_range /x: No space left on device"
    assert (caught.value.errno, caught.value.path, caught.value.layer) == (errno.ENOSPC, "/x", LAYER.key)
