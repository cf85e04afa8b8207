"""What kernels and people call an architecture, in Go's words, which images use.

This module imports nothing: `layerstore version` asks it, and is to cost nothing.
"""

from __future__ import annotations

_WORDS = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv5tel": ("arm", "v5"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
    "mips64el": ("mips64le", ""),
}


def in_go(word: str) -> tuple[str, str | None]:
    """An architecture in Go's words, and the variant that its name implies: None where it implies nothing."""
    return _WORDS.get(word, (word, None))
