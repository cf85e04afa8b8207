"""Processes: programs started with a container's tree (`spawning`), and who is alive (`identity`).

A program has what the host has, and the tree at a place of it; or the tree alone, as its root (`housing`).

What a program is given is made in its own mount namespace, by the child itself, in C: nothing of it is ever seen in the
host's, and all of it goes with the last process.

Who is alive, every command asks; the rest is imported when something is started.
"""
