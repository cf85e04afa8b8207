"""Blobs by digest: what a registry's blobs and manifests are to a store.

`blobs` is the whole, `rows` its SQL and what keeps a blob, `kept` the files, `partials` what is not whole yet, `links`
what a manifest names, `window` a range of what is made from its beginning.
"""

from layerstore.blobs.blobs import Blobs, Remains
from layerstore.blobs.partials import Growing, Partial
from layerstore.blobs.values import KnownBlob, Manifest, Place

__all__ = ["Blobs", "Growing", "KnownBlob", "Manifest", "Partial", "Place", "Remains"]
