"""Other places that may have layers: stores that serve theirs, registries, buckets. Asked before the upstream.

`remotes` is the whole, `hunt` one pull's way to its layers. `remote` is the seam: `bucket`, `mirror`, `peer` are such.
`health` knows who is left alone, `turns` who fetches a blob for whom, `answering` what a store says to its peers.
"""

from layerstore.registry.remotes.answering import Answering, BadQuestion
from layerstore.registry.remotes.hunt import Chase, Hunt, Sought, Wanted
from layerstore.registry.remotes.remote import RemoteFailed
from layerstore.registry.remotes.remotes import Remotes

__all__ = ["Answering", "BadQuestion", "Chase", "Hunt", "RemoteFailed", "Remotes", "Sought", "Wanted"]
