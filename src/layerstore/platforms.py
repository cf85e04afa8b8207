"""Platforms as docker and containerd write them, and what runs where.

A platform is `os/architecture[/variant]` in Go's words (OCI image spec, image-index.md, "platform"); how other words
are taken is containerd's rule. A machine runs the older variants of arm, too; nothing else is taken for compatible
here, emulation least of all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve

from layerstore.architectures import in_go
from layerstore.errors import ConfigError
from layerstore.values import frozen

__all__ = ["Platform", "host", "make", "of", "parse", "rank"]

_SYSTEM: Final = re.compile(
    "aix|android|darwin|dragonfly|freebsd|hurd|illumos|ios|js|linux|nacl|netbsd|openbsd|plan9|solaris|wasip1|windows|zos"
)
_ARCHITECTURE: Final = re.compile(
    "386|amd64(p32)?|arm(be)?|arm64(be)?|loong64|mips(le)?|mips64(p32)?(le)?|ppc|ppc64(le)?|riscv(64)?|s390x?|sparc(64)?"
    "|wasm"
)
"""Go's words (go/build/syslist.go): what a word is that stands alone."""

_WORD: Final = re.compile(r"[a-z0-9_][a-z0-9_.-]*")
_USUAL: Final = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
"""What no variant means."""

_VARIANTS: Final = {
    "arm": {"5": "v5", "6": "v6", "7": "v7", "8": "v8"},
    "arm64": {"8": "v8", "v8.0": "v8", "9": "v9", "9.0": "v9", "v9.0": "v9"},
}
"""What people write for a variant, where it is not the usual word."""


@frozen
class Platform:
    """An operating system and an architecture, in Go's words. `variant` is "" where none is stated.

    Two platforms may mean one, as linux/arm64 and linux/arm64/v8 do: see `rank`, and `usual`.
    """

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        variant = self.variant
        if self.architecture == "arm":
            variant = variant or _USUAL["arm"]
        elif variant == _USUAL.get(self.architecture):
            variant = ""
        return "/".join(filter(None, (self.os, self.architecture, variant)))

    @property
    def usual(self) -> Platform:
        """The same without a variant that means no more than none: one form for platforms that mean one."""
        is_usual = self.variant == _USUAL.get(self.architecture)
        return Platform(self.os, self.architecture) if is_usual else self

    @property
    def is_unknown(self) -> bool:
        """Does it say nothing? So are attestations marked, which lie beside images."""
        return "unknown" in (self.os, self.architecture) or not self.architecture

    @property
    def fields(self) -> Mapping[str, str]:
        """The fields of an image's config that say it."""
        stated = {"architecture": self.architecture, "os": self.os}
        return stated | {"variant": self.variant} if self.variant else stated


def make(system: str, architecture: str, variant: str = "") -> Platform:
    """A platform from words that people and kernels use for its parts: x86_64 is amd64, armhf is arm/v7."""
    system, variant = system.lower(), variant.lower()
    name, implied = in_go(architecture.lower())
    if implied is not None and name in ("386", "arm"):
        variant = implied  # armhf, armel and i386 say it themselves
    variant = _VARIANTS.get(name, {}).get(variant, variant)
    return Platform("darwin" if system == "macos" else system, name, variant)


def of(fields: Mapping[str, Any]) -> Platform:
    """The platform in a descriptor, or in an image's config: both use the same names. In its `usual` form."""
    system, architecture, variant = (fields.get(key) for key in ("os", "architecture", "variant"))
    return make(*(value if isinstance(value, str) else "" for value in (system, architecture, variant))).usual


def host() -> Platform:
    """What this machine runs, the variant of an arm stated."""
    uname = os.uname()
    here = make(uname.sysname, uname.machine)
    return evolve(here, variant="v8") if here.architecture == "arm64" else here


def parse(text: str) -> Platform:
    """`linux/arm64`, `linux/arm/v6`, or one of the two words alone. Raises `ConfigError`.

    A word alone is an operating system for this machine's architecture, or an architecture for its operating system. A
    variant is kept if it was written, except that of amd64/v1, which containerd drops.
    """
    wrong = "is no platform"
    parts = text.lower().split("/")
    if all(_WORD.fullmatch(part) for part in parts):
        match parts:
            case [word] if _SYSTEM.fullmatch(system := make(word, "").os):
                return evolve(host().usual, os=system)
            case [word] if _ARCHITECTURE.fullmatch((found := make(host().os, word).usual).architecture):
                return found
            case [_]:
                wrong = "is no operating system or architecture that is known"
            case [system, architecture]:
                return make(system, architecture).usual
            case [system, architecture, variant]:
                found = make(system, architecture, variant)
                return found.usual if found.architecture == "amd64" else found
    raise ConfigError(
        f"{text!r} {wrong}",
        remedy="A platform is OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as in linux/arm64.",
    )


def rank(wanted: Platform, offered: Platform) -> int | None:
    """How well `offered` runs where `wanted` is asked for: 0 is best, None is not at all."""
    wanted, offered = wanted.usual, offered.usual
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return None
    if offered.variant == wanted.variant:
        return 0
    if wanted.architecture == "arm" and 5 <= (there := _arm(offered)) < (here := _arm(wanted)):
        return here - there
    return None


def _arm(platform: Platform) -> int:
    digits = (platform.variant or _USUAL["arm"])[1:]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 3 else 0
