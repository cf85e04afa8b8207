"""Volumes: folders of their own that containers mount and no layer holds.

`volumes` makes, fills and removes them and says who uses which; `volume` is what they are to their users, `backing`
what the options of docker's driver `local` mean, `filling` the copy of what an image has at the place of a new one,
`rows` what the database has of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.imports import on_demand

if TYPE_CHECKING:
    from layerstore.volumes.backing import VolumeMount
    from layerstore.volumes.volume import Attachment, Use, Volume
    from layerstore.volumes.volumes import PrunedVolumes, VolumeOwner, Volumes

__all__ = ["Attachment", "PrunedVolumes", "Use", "Volume", "VolumeMount", "VolumeOwner", "Volumes"]

__getattr__ = on_demand(
    __name__,
    {
        "backing": ("VolumeMount",),
        "volume": ("Attachment", "Use", "Volume"),
        "volumes": ("PrunedVolumes", "VolumeOwner", "Volumes"),
    },
)
