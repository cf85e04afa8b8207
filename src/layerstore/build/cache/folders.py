"""A cache in a folder: an OCI layout that is given anew again and again, as builds of one project do.

What is in it is ours to replace only if a file says so. Blobs come first, then `index.json` in one step, and then what
it does not name goes: whoever is killed between leaves the cache of before, or that of now.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerstore import ConfigError, KernelError

__all__ = ["renewed", "require"]

_MARK = "layerstore-cache"
_DRAFT = ".draft-"
_BLOBS = "blobs/sha256"


def require(place: str) -> None:
    """Raises `ConfigError` for a folder that has something in it that is no cache of ours."""
    folder = Path(place)
    if folder.is_dir() and not (folder / _MARK).exists() and any(folder.iterdir()):
        raise ConfigError(
            f"{place} has something in it that is no cache of layerstore",
            remedy="Name a folder that does not exist, is empty, or was given a cache before.",
            path=place,
        )


@contextmanager
def renewed(place: str) -> Iterator[Path]:
    """While inside: where a layout is to be made, which becomes what is in the folder. One at a time does so.

    Raises `ConfigError` as `require` does, `KernelError`.
    """
    folder = Path(place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            require(place)
            (folder / _MARK).touch()
            for left in folder.glob(f"{_DRAFT}*"):  # by who was killed
                shutil.rmtree(left)
            draft = folder / f"{_DRAFT}{secrets.token_hex(4)}"
            try:
                yield draft
                _take(draft, folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError("open", error.errno or errno.EIO, path=error.filename or place) from error


def _take(draft: Path, folder: Path) -> None:
    (folder / _BLOBS).mkdir(parents=True, exist_ok=True)
    names = set(os.listdir(draft / _BLOBS))
    for name in (*(f"{_BLOBS}/{name}" for name in sorted(names)), "oci-layout", "index.json"):
        (draft / name).replace(folder / name)
    for name in set(os.listdir(folder / _BLOBS)) - names:
        (folder / _BLOBS / name).unlink()
