"""Repositories: what a registry has under each name, kept in the store and looked at in its words.

A repository is an image's name without the tag. It has the images of the store that are called so, and what was pushed
into it: manifests and indexes, whatever they describe, and blobs. `repositories` is the front; `manifests` says what a
manifest says, `intake` makes an image of one, `served` a manifest of an image.
"""

from layerstore.repositories.manifests import Document, Part, parse_digest
from layerstore.repositories.repositories import MissingParts, Pushed, Repositories, Served
from layerstore.repositories.rows import Kept

__all__ = ["Document", "Kept", "MissingParts", "Part", "Pushed", "Repositories", "Served", "parse_digest"]
