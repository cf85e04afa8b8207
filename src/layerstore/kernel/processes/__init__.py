"""Processes: programs started with a container's tree (`spawning`), and who is alive (`identity`).

What a program is given is made in its own mount namespace, by the child itself, in C: nothing of it is ever seen in the
host's, and all of it goes with the last process.
"""

from layerstore.kernel.processes.identity import Identity, identity_of, strays
from layerstore.kernel.processes.inside import tree_of
from layerstore.kernel.processes.spawning import DEVNULL, Child, Program, launch

__all__ = ["DEVNULL", "Child", "Identity", "Program", "identity_of", "launch", "strays", "tree_of"]
