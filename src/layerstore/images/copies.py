"""Files of images and containers to the host and back: which trees, whose files they become."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from layerstore.copying import Copied
    from layerstore.images.trees import HasTree

_ROOT = (0, 0)


def copy_out(
    subject: HasTree,
    title: str,
    path: str,
    target: str | os.PathLike[str] | BinaryIO,
    *,
    archive: bool,
    follow: bool,
) -> Copied:
    """`Image.copy_out`, of whatever has a tree."""
    from layerstore import copying  # here and below: few commands copy, and reading tars takes a while to import

    with subject.open_tree() as root:
        tree = copying.Tree(root, f"in {title}")
        if not isinstance(target, str | os.PathLike):
            return copying.copy_to_tar(tree, path, target, follow=follow)
        owner = os.geteuid(), os.getegid()
        with copying.host() as host:
            return copying.copy(tree, path, host, _absolute(target), owner=owner, archive=archive, follow=follow)


def copy_in(
    root: int, title: str, source: str | os.PathLike[str] | BinaryIO, path: str, *, archive: bool, follow: bool
) -> Copied:
    """`Container.copy_in`, into the tree of a mounted container: the descriptor of its root."""
    from layerstore import copying

    tree = copying.Tree(root, f"in {title}")
    if not isinstance(source, str | os.PathLike):
        return copying.copy_from_tar(source, tree, path, archive=archive)
    with copying.host() as host:
        return copying.copy(host, _absolute(source), tree, path, owner=_ROOT, archive=archive, follow=follow)


def _absolute(path: str | os.PathLike[str]) -> str:
    """A path of the host from its root; a slash or dot at its end, which means something, stays."""
    return os.path.join(os.getcwd(), os.fspath(path))
