"""A layer's tar form: taken apart into files and a skeleton, and put together again bit for bit.

Nothing else in layerstore knows what a tar is.
"""

from layerstore.tar.entries import EntryKind, LayerEntry, entries, laid_in
from layerstore.tar.implied import ImpliedFacts, adopt_implied, implied_digest
from layerstore.tar.pack import Damage, Level, Packed, export, pack, pack_tree, verify
from layerstore.tar.payloads import (
    Index,
    Payload,
    Place,
    index_of,
    link_shadowed,
    payload_beside,
    payload_place,
    write_payload,
)
from layerstore.tar.pieces import Folder, Piece, gathered
from layerstore.tar.places import ListedEntry, Lying, listed_in, lying_in
from layerstore.tar.skeleton import shadow_of
from layerstore.tar.unpack import Readable, Unpacked, take_listing, unpack

__all__ = [
    "Damage",
    "EntryKind",
    "Folder",
    "ImpliedFacts",
    "Index",
    "LayerEntry",
    "Level",
    "ListedEntry",
    "Lying",
    "Packed",
    "Payload",
    "Piece",
    "Place",
    "Readable",
    "Unpacked",
    "adopt_implied",
    "entries",
    "export",
    "gathered",
    "implied_digest",
    "index_of",
    "laid_in",
    "link_shadowed",
    "listed_in",
    "lying_in",
    "pack",
    "pack_tree",
    "payload_beside",
    "payload_place",
    "shadow_of",
    "take_listing",
    "unpack",
    "verify",
    "write_payload",
]
