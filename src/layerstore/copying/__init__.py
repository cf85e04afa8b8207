"""Files between a tree and the host: `docker cp`, and its rules.

`places` finds what a path means within a tree, and decides where a copy lands. `entries` are what is copied, read from
a tree or from a tar; `writing` puts them into a tree, `tarring` into a tar. A tree is a directory descriptor that
nothing leads out of: no path, symbolic link or race of a hostile container reaches the host's files, either way.
"""

from layerstore.copying.copies import Copied, copy, copy_from_tar, copy_to_tar
from layerstore.copying.places import Tree, host

__all__ = ["Copied", "Tree", "copy", "copy_from_tar", "copy_to_tar", "host"]
