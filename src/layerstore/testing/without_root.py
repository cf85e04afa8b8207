"""What the kit does as an ordinary user, who is root of a user namespace: what it writes otherwise, and leaves out.

There are no devices and no `trusted.*` there. layerstore keeps such xattrs under names of its own (docs/rootless.md),
and the kit does so with what it writes by itself; where a test needs more than that, it is skipped and says what for.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from layerstore.kernel.namespaces import is_within

__all__ = ["is_within", "marks", "shown", "skipping", "stored"]

_KEPT = b"user.layerstore."


def marks() -> bytes:
    """How overlay's own xattrs begin."""
    return b"user.overlay." if is_within() else b"trusted.overlay."


def stored(name: bytes) -> bytes:
    """The name under which an xattr of a layer lies on disk, without overlay's escapes."""
    return _KEPT + name if is_within() and name.startswith(b"trusted.") else name


def shown(name: bytes) -> bytes:
    """The name in a layer of an xattr on disk."""
    return name.removeprefix(_KEPT) if is_within() and name.startswith(_KEPT + b"trusted.") else name


@contextmanager
def skipping(what: str) -> Iterator[None]:
    """While inside, what the kernel refuses to an ordinary user skips the test."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL) or not is_within():
            raise
        import pytest

        pytest.skip(f"an ordinary user cannot make {what}")
