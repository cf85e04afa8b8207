"""The flags of each instruction (`COPY --from=build`), checked against what it knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import field

from layerstore.build.language.likeness import nearest
from layerstore.values import frozen

__all__ = ["FlagError", "Flags", "flags_of"]

_Kind = Literal["text", "switch", "texts"]

_TRANSFER: dict[str, _Kind] = {"chown": "text", "chmod": "text", "link": "switch", "exclude": "texts"}
_KNOWN: dict[str, dict[str, _Kind]] = {
    "ADD": {**_TRANSFER, "keep-git-dir": "switch", "checksum": "text", "unpack": "switch"},
    "COPY": {**_TRANSFER, "from": "text", "parents": "switch"},
    "FROM": {"platform": "text"},
    "HEALTHCHECK": {
        "interval": "text",
        "timeout": "text",
        "start-period": "text",
        "start-interval": "text",
        "retries": "text",
    },
    "RUN": {"mount": "texts", "network": "text", "security": "text"},
}


class FlagError(ValueError):
    """A flag that cannot be. `remedy` is what to write instead, if anything is like it."""

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


@frozen
class Flags:
    """What the flags of one instruction say."""

    texts: dict[str, str] = field(factory=dict)
    switches: dict[str, bool] = field(factory=dict)
    lists: dict[str, tuple[str, ...]] = field(factory=dict)


def flags_of(instruction: str, words: Sequence[str]) -> Flags:
    """The flags of an instruction. Raises `FlagError` for those that it does not have, and for impossible values."""
    known = _KNOWN.get(instruction, {})
    flags = Flags()
    lists: dict[str, list[str]] = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if (kind := known.get(name)) is None:
            raise FlagError(f"unknown flag: --{name}", _meant(instruction, name, known))
        if kind == "texts":
            if not equals:
                raise FlagError(f"missing a value on flag: --{name}", f"Write --{name}=…")
            lists.setdefault(name, []).append(value)
            continue
        if name in flags.texts or name in flags.switches:
            raise FlagError(f"duplicate flag specified: --{name}", "Write it once.")
        if kind == "text":
            if not equals:
                raise FlagError(f"missing a value on flag: --{name}", f"Write --{name}=…")
            flags.texts[name] = value
        else:
            flags.switches[name] = _switch(name, value, given=bool(equals))
    flags.lists.update((name, tuple(values)) for name, values in lists.items())
    return flags


def _meant(instruction: str, name: str, known: dict[str, _Kind]) -> str:
    if not known:
        return f"{instruction} has no flags."
    if (like := nearest(name, known)) is not None:
        return f"Did you mean --{like}?"
    return f"{instruction} has {', '.join(f'--{other}' for other in sorted(known))}."


def _switch(name: str, value: str, *, given: bool) -> bool:
    if given and not value:
        raise FlagError(f"missing a value on flag: --{name}", f"Write --{name}, or --{name}=false.")
    if value.lower() not in ("", "true", "false"):
        raise FlagError(
            f"expecting boolean value for flag --{name}, not: {value}", f"Write --{name}, or --{name}=false."
        )
    return value.lower() != "false"
