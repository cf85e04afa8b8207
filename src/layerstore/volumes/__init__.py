"""Volumes: folders of their own that containers mount and no layer holds.

`volumes` makes, fills and removes them and says who uses which; `volume` is what they are to their users, `backing`
what the options of docker's driver `local` mean, `filling` the copy of what an image has at the place of a new one,
`rows` what the database has of them.
"""

from layerstore.volumes.backing import VolumeMount
from layerstore.volumes.volume import Attachment, Use, Volume
from layerstore.volumes.volumes import PrunedVolumes, Volumes

__all__ = ["Attachment", "PrunedVolumes", "Use", "Volume", "VolumeMount", "Volumes"]
