"""Targets of `RUN --mount` at which nothing, or something else, can be mounted."""

from __future__ import annotations

import shutil

import pytest

from layerstore.build import BuildError, Secret
from support.building import Builder

pytestmark = [pytest.mark.root, pytest.mark.tools("crun")]

CASES = {
    "type=tmpfs,target=/proc/new": "nothing can be mounted at /proc/new: /proc is the kernel's",
    "type=cache,target=/sys/new": "nothing can be mounted at /sys/new: /sys is the kernel's",
    "type=tmpfs,target=/etc/passwd": "a folder cannot be mounted at /etc/passwd: there is a file",
    "type=cache,target=/etc/passwd": "a folder cannot be mounted at /etc/passwd: there is a file",
    "type=bind,source=.,target=/etc/passwd": "a folder cannot be mounted at /etc/passwd: there is a file",
    "type=bind,source=f,target=/etc": "a file cannot be mounted at /etc: there is a folder",
    "type=secret,id=key,target=/etc": "a file cannot be mounted at /etc: there is a folder",
    "type=tmpfs,target=/etc/passwd/x": "not a directory: /etc/passwd",
}


@pytest.mark.parametrize("engine", ["crun", "runc"])
def test_what_cannot_be_mounted_is_told_in_words_with_its_line(engine: str, make: Builder) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"there is no {engine}")
    for mount, said in CASES.items():
        with pytest.raises(BuildError) as caught:
            make(
                f"FROM base\n\nRUN --mount={mount} true\n",
                {"f": "f"},
                secrets=[Secret("key", value=b"k")],
                runtime=engine,
            )
        assert said in caught.value.message, mount
        assert "crun" not in str(caught.value)
        assert caught.value.place is not None
        assert caught.value.place.line == 3
