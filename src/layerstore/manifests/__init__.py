"""What manifests and indexes of images say, checked, wherever they come from. Pure.

`fields` reads JSON that others wrote, `media_types` names what there is, `reading` knows what the fields mean. `tables`
reads what a layer says of itself (eStargz, zstd:chunked).
"""

from layerstore.manifests.fields import (
    DOCUMENT_LIMIT,
    as_digest,
    as_list,
    as_object,
    as_text,
    parse,
    parse_object,
    verify,
)
from layerstore.manifests.reading import (
    Contents,
    Descriptor,
    Manifest,
    as_descriptor,
    best,
    check_layers,
    media_type_of,
    read,
)

__all__ = [
    "DOCUMENT_LIMIT",
    "Contents",
    "Descriptor",
    "Manifest",
    "as_descriptor",
    "as_digest",
    "as_list",
    "as_object",
    "as_text",
    "best",
    "check_layers",
    "media_type_of",
    "parse",
    "parse_object",
    "read",
    "verify",
]
