"""Blobs by digest: what a registry's blobs and manifests are to a store.

`blobs` is the whole, `rows` its SQL and what keeps a blob, `kept` the files, `partials` what is not whole yet,
`outgoing` gives out what there is, `window` a range of it; `links` reads what a manifest names.
"""

from layerstore.blobs.blobs import Blobs, Remains
from layerstore.blobs.partials import Growing, Partial
from layerstore.blobs.values import KnownBlob, Place

__all__ = ["Blobs", "Growing", "KnownBlob", "Partial", "Place", "Remains"]
