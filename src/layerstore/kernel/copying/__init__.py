"""Copying a whole tree, and knowing afterwards what of the copy was altered."""

from layerstore.kernel.copying.copying import Copied, copy_tree, fill_tree, listed
from layerstore.kernel.copying.epoch import epoch_of

__all__ = ["Copied", "copy_tree", "epoch_of", "fill_tree", "listed"]
