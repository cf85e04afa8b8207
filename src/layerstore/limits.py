"""How much of what comes from elsewhere is taken in: limits that a hostile image meets before the machine's own.

They hold for images, layers and documents on their way in. What the store has already is never measured again, so a
lower limit leaves it readable.
"""

from __future__ import annotations

from attrs import fields_dict

from layerstore.errors import LimitExceeded
from layerstore.values import frozen

__all__ = ["RATIO_FLOOR", "SETTINGS", "SIZES", "UNLIMITED", "USUAL", "Limits"]


@frozen
class Limits:
    """daemon.json's `max-layer-size` and so on. Sizes in bytes; 0 is no limit."""

    layer_size: int = 1 << 40
    """Of a layer's tar, inflated."""
    layer_entries: int = 4_000_000
    """Of a layer's tar; or names that it makes, with the directories that it does not list, if these are more."""
    layer_memory: int = 2 << 30
    """What has to be remembered of a layer while it is unpacked: names, links, extended attributes, sparse maps."""
    pax_header: int = 8 << 20
    """All extension headers of one entry (PAX, GNU's long names) together, or a sparse map."""
    compression_ratio: int = 200
    """How many times as large as its compressed bytes a stream may become. See `compression_floor`."""
    compression_floor: int = 4 << 30
    """How much a stream may become whatever its ratio. deflate makes 1,032 bytes of one where there are zeros only
    (zlib's technical details), and an honest layer may hold an empty disk."""
    zstd_window: int = 128 << 20
    """What a zstd frame may ask its reader to remember (RFC 8878, "Window Descriptor"): memory."""
    xz_memory: int = 256 << 20
    """What xz may take for its dictionary and tables."""
    config_size: int = 4 << 20
    manifest_size: int = 4 << 20
    """Of a manifest, or an index of such: registries take 4 MiB (distribution-spec, "Pushing Manifests")."""

    def check(self, setting: str, met: int, what: str, unit: str = "bytes") -> None:
        """Raise `LimitExceeded` if `what` has more than the setting allows; its name is a key of `SETTINGS`."""
        limit = self.of(setting)
        if limit and met > limit:
            raise LimitExceeded(what, setting=setting, limit=limit, met=met, unit=unit)

    def check_document(self, kind: str, met: int, what: str) -> None:
        """The same for a document: `kind` is "config", or what is read as a manifest is."""
        self.check("max-config-size" if kind == "config" else "max-manifest-size", met, what)

    def of(self, setting: str) -> int:
        """The value that a setting has."""
        value: int = getattr(self, SETTINGS[setting])
        return value

    def may_be_document(self, size: int) -> bool:
        """Is this not too large for a document whose kind is not known yet?"""
        sizes = (self.config_size, self.manifest_size)
        return not all(sizes) or size <= max(sizes)


RATIO_FLOOR = "compression-ratio-floor"
SETTINGS = {
    RATIO_FLOOR if name == "compression_floor" else f"max-{name.replace('_', '-')}": name
    for name in fields_dict(Limits)
}
"""The keys of daemon.json, and the names that they have here."""

SIZES = frozenset(SETTINGS) - {"max-layer-entries", "max-compression-ratio"}
"""Those that are bytes, and may be written as docker writes sizes."""

USUAL = Limits()
"""For whoever names none."""

UNLIMITED = Limits(**dict.fromkeys(fields_dict(Limits), 0))
"""For what was taken in before."""
