"""Processes: programs started with a container's tree (`spawning`), and who is alive (`identity`).

A program has what the host has, and the tree at a place of it; or the tree alone, as its root (`housing`).

What a program is given is made in its own mount namespace, by the child itself, in C: nothing of it is ever seen in the
host's, and all of it goes with the last process.
"""

from layerstore.kernel.processes.housing import Bind, House, Tmpfs
from layerstore.kernel.processes.identity import Identity, identity_of, strays
from layerstore.kernel.processes.inside import tree_of
from layerstore.kernel.processes.spawning import DEVNULL, Child, Program, launch

__all__ = [
    "DEVNULL",
    "Bind",
    "Child",
    "House",
    "Identity",
    "Program",
    "Tmpfs",
    "identity_of",
    "launch",
    "strays",
    "tree_of",
]
