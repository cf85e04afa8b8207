"""What `check` finds is repaired: a way for each kind of problem, and for each layer the places that may have it.

`repairing` decides what is done about which problem, `layers` has damaged layers taken in anew, `archives` are files
that somebody names as a place to have them from, `dropping` removes what cannot be repaired, by word.
"""

from layerstore.mending.dropping import Doomed, doomed, drop
from layerstore.mending.layers import Mended, mend
from layerstore.mending.repairing import Repair, repair

__all__ = ["Doomed", "Mended", "Repair", "doomed", "drop", "mend", "repair"]
