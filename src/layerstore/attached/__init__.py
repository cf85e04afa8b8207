"""Stores of other programs, attached read-only: their images are there, and not a byte of them is copied or written.

`root` is the folder of one, read without belief. `docker`, `storage` (podman and its kin) and `containerd` (with
`bolt`) know one form of store each, and answer as `values.AttachedStore`; `splits` puts tars together of what two of
them keep. `attached` lends their images, which get rows in this store and layers that are folders over there
(`elsewhere`); `adopting` takes them over.
"""

from layerstore.attached.attached import Attached
from layerstore.attached.values import AttachedImage

__all__ = ["Attached", "AttachedImage"]
