"""Blobs by digest: what a registry's blobs and manifests are to a store.

`blobs` is the whole, `rows` its SQL and what keeps a blob, `kept` the files, `partials` what is not whole yet,
`outgoing` gives out what there is, `window` a range of it; `links` reads what a manifest names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.imports import on_demand

if TYPE_CHECKING:
    from layerstore.blobs.blobs import Blobs, Remains
    from layerstore.blobs.kept import Readable
    from layerstore.blobs.partials import Growing, Partial
    from layerstore.blobs.values import KnownBlob, Place

__all__ = ["Blobs", "Growing", "KnownBlob", "Partial", "Place", "Readable", "Remains"]

__getattr__ = on_demand(
    __name__,
    {
        "blobs": ("Blobs", "Remains"),
        "kept": ("Readable",),
        "partials": ("Growing", "Partial"),
        "values": ("KnownBlob", "Place"),
    },
)
