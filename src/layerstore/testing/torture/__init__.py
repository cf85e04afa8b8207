"""Whether a store loses anything: each operation, with a driver, broken off at each of its points.

`operations` is the table, `faults` what can go wrong, `grounds` where it is tried, `walking` goes from point to point
and judges, by `pictures` of what a store shows. See docs/testing.md. Nothing here knows which driver it tries.
"""

from layerstore.testing.torture.faults import KINDS, Point
from layerstore.testing.torture.grounds import Ground, Subject
from layerstore.testing.torture.operations import OPERATIONS, Operation, Place, migration_to
from layerstore.testing.torture.walking import Loss, Walk, Walked

__all__ = [
    "KINDS", "OPERATIONS", "Ground", "Loss", "Operation", "Place", "Point", "Subject", "Walk", "Walked",
    "migration_to",
]  # fmt: skip
