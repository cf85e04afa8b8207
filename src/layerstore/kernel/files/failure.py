"""What the C parts tell of a failure (failure.h), as an error."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from layerstore.errors import KernelError
from layerstore.kernel._shim import ffi

__all__ = ["kernel_error", "new_failure"]


def new_failure() -> Any:
    """Where a function of C tells of its failure: valid as long as what is returned here is kept."""
    return ffi.new("struct ls_failure *")


def kernel_error(
    failure: Any, root: Path | bytes = b"", *, detail: str | None = None, remedy: str | None = None
) -> KernelError:
    """The error that `failure` tells of. Its path is one below `root`; without a root it begins with a slash."""
    path, inner = os.fsencode(root), ffi.string(failure.path)
    if inner or not path:
        path += b"/" + inner
    return KernelError(ffi.string(failure.what).decode(), failure.code, path=path, detail=detail, remedy=remedy)
