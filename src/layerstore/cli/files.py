"""Small files that a command writes beside what it does: IDs, digests, metadata."""

from __future__ import annotations

import os

from layerstore.errors import LayerstoreError, remedy_for


def require_file(path: str) -> None:
    """What takes long should not fail at its end for a file that cannot be written. Raises `LayerstoreError`."""
    from layerstore.build.steps.outputs import require_file as require

    require(path)


def write_file(path: str, text: str) -> None:
    """The whole file, or none: it is renamed into its place. Raises `LayerstoreError`."""
    partial = f"{path}.{os.getpid()}"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(partial, path)
    except OSError as problem:
        raise LayerstoreError(
            f"{path} cannot be written: {problem.strerror}",
            remedy=remedy_for(problem.errno, elsewhere=True),
            path=path,
            errno=problem.errno,
        ) from None
