"""Our ends of a program's streams, where memory for them is wanting: no descriptor is left."""

from __future__ import annotations

import io
import os
import subprocess

import pytest

from layerstore.runtime.boxes.piping import Pipes, Text
from support.faults import descriptors


def test_a_descriptor_that_makes_no_file_is_closed() -> None:
    folder = os.open("/", os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        Text().opened(folder, "rb")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(folder)


@pytest.mark.parametrize("kind", ["FileIO", "BufferedReader", "BufferedWriter", "TextIOWrapper"])
def test_pipes_that_make_no_files_are_closed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    before = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(io, kind, fails)
        with pytest.raises(MemoryError):
            Pipes(subprocess.PIPE, subprocess.PIPE, subprocess.PIPE, Text("utf-8"))
    assert descriptors() == before
