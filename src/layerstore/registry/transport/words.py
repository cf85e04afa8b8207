"""What a registry sends, made fit for people: no control characters, no endless lines, no HTML. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from layerstore.values import frozen

__all__ = ["Complaint", "complaints", "listed", "printable"]

_LONGEST: Final = 300


@frozen
class Complaint:
    """An entry of an error body (distribution-spec, "Error Codes"). Both may be empty, and both are printable."""

    code: str
    message: str


def printable(text: object, longest: int = _LONGEST) -> str:
    """`text` on one line, fit for a terminal, and cut where it is too long to be read."""
    line = " ".join(str(text)[: 4 * longest].split())
    # That leaves out control characters, and those that turn the direction of what follows.
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def complaints(body: bytes) -> list[Complaint]:
    """What an error body says: `errors` as the specification has it, or what token services send instead."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    errors = document.get("errors")
    if isinstance(errors, list):
        entries = [entry for entry in errors[:5] if isinstance(entry, dict)]
        return [Complaint(_text(entry.get("code")), _told(entry)) for entry in entries]
    # OAuth's (RFC 6749, 5.2), Hub's, and what else there is.
    message = next(
        (_text(document[key]) for key in ("error_description", "details", "message") if document.get(key)), ""
    )
    code = _text(document.get("error") or document.get("code"))
    return [Complaint(code, message)] if code or message else []


def listed(words: Sequence[str], joint: str = "and") -> str:
    """`a, b and c`."""
    return " ".join([", ".join(words[:-1]), joint, words[-1]]) if len(words) > 1 else "".join(words)


def _told(entry: dict[str, object]) -> str:
    message, detail = _text(entry.get("message")), entry.get("detail")
    if isinstance(detail, str) and detail and detail not in message:
        return printable(f"{message}: {detail}" if message else detail)
    return message


def _text(value: object) -> str:
    return printable(value) if isinstance(value, str | int | float) else ""
