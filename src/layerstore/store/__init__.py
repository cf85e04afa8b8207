"""The front door: what can be done with a store, passed on to the parts that do it.

`store` is the door itself, `traffic` what goes in and out by it as images, `stacks` what is done with layers that no
image has, `doors` how it is opened and converted.
"""

from layerstore.store.doors import migrate_store, open_store, rescue_store
from layerstore.store.store import Store

__all__ = ["Store", "migrate_store", "open_store", "rescue_store"]
