"""Images: a config, the layers it names, and tags.

`images` is the front, `image` one of them; `config` reads and makes configurations, `instructions` changes them,
`removal` says what keeps an image from being removed. Images are made of others: `growing` adds a layer or alters the
configuration, `squashing` makes one layer of several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.imports import on_demand

if TYPE_CHECKING:
    from layerstore.images.bases import Scratch
    from layerstore.images.config import History
    from layerstore.images.image import Image, Loose
    from layerstore.images.images import Images
    from layerstore.images.loaded import Loaded
    from layerstore.images.removal import Removal

__all__ = ["History", "Image", "Images", "Loaded", "Loose", "Removal", "Scratch"]

__getattr__ = on_demand(
    __name__,
    {
        "bases": ("Scratch",),
        "config": ("History",),
        "image": ("Image", "Loose"),
        "images": ("Images",),
        "loaded": ("Loaded",),
        "removal": ("Removal",),
    },
)
