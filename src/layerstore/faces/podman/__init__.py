"""Images of a store for podman, buildah and CRI-O, as an additional image store: nothing is copied.

`expose` writes what containers/storage wants to read beside layers; the layers themselves are symbolic links to those
of the store, which are in overlay's form as they lie. Leases keep them for as long as they are exposed.
"""

from layerstore.faces.podman.exposing import Exposed, expose, withdraw

__all__ = ["Exposed", "expose", "withdraw"]
