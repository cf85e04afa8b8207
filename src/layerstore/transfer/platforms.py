"""Which of an image's platforms is meant: names as docker writes them, and what runs where.

A platform is `os/architecture[/variant]` in Go's words (OCI image spec, image-index.md, "platform"). A machine runs the
older variants of arm, too; nothing else is taken for compatible here, emulation least of all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from layerstore.errors import ConfigError

_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm/v7",
    "armel": "arm/v6",
    "armv8l": "arm/v7",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "armv5l": "arm/v5",
    "armv5tel": "arm/v5",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "loongarch64": "loong64",
    "mips": "mips",
    "mips64el": "mips64le",
}
"""What uname and people say, where it is not Go's word."""

_SYSTEMS: Final = ("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "wasi")
"""What, alone, is an operating system; any other word is an architecture."""

_WORD: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_USUAL_VARIANT: Final = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
"""What no variant means, as in containerd/platforms."""


@frozen
class Platform:
    """An operating system and an architecture. `variant` is "" where it is the usual one."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        variant = self.variant or ("v7" if self.architecture == "arm" else "")
        return "/".join(filter(None, (self.os, self.architecture, variant)))

    @property
    def is_unknown(self) -> bool:
        """Does it say nothing? So are attestations marked, which lie beside images."""
        return "unknown" in (self.os, self.architecture) or not self.architecture


def make(system: str, architecture: str, variant: str = "") -> Platform:
    """A platform, in the words in which platforms are compared."""
    system, architecture, variant = system.lower(), architecture.lower(), variant.lower()
    name, _, implied = _ARCHITECTURES.get(architecture, architecture).partition("/")
    variant = variant or implied
    if variant.isdigit():
        variant = f"v{variant}"
    return Platform(system, name, "" if variant == _USUAL_VARIANT.get(name) else variant)


def of(fields: Mapping[str, Any]) -> Platform:
    """The platform in a descriptor, or in an image's config: both use the same names."""
    system, architecture, variant = (fields.get(key) for key in ("os", "architecture", "variant"))
    return make(*(value if isinstance(value, str) else "" for value in (system, architecture, variant)))


def host() -> Platform:
    """What this machine runs."""
    uname = os.uname()
    return make(uname.sysname, uname.machine)


def parse(text: str) -> Platform:
    """`linux/arm64`, `linux/arm/v6`, or one of the two words alone. Raises `ConfigError`."""
    parts = text.lower().split("/")
    here = host()
    if all(_WORD.fullmatch(part) for part in parts):
        match parts:
            case [system] if system in _SYSTEMS:
                return make(system, here.architecture, here.variant)
            case [architecture]:
                return make(here.os, architecture)
            case [system, architecture]:
                return make(system, architecture)
            case [system, architecture, variant]:
                return make(system, architecture, variant)
    raise ConfigError(
        f"{text!r} is no platform",
        remedy="A platform is OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as in linux/arm64.",
    )


def rank(wanted: Platform, offered: Platform) -> int | None:
    """How well `offered` runs where `wanted` is asked for: 0 is best, None is not at all."""
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return None
    if offered.variant == wanted.variant:
        return 0
    if wanted.architecture == "arm" and 5 <= (there := _arm(offered)) < (here := _arm(wanted)):
        return here - there
    return None


def _arm(platform: Platform) -> int:
    digits = (platform.variant or "v7")[1:]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 3 else 0
