"""Between programs and people: terminals, signals, attached streams, logs, who runs and what it takes.

`foreground` is for a program that is run in the foreground, `attaching` for one that conmon holds; `logs` reads what it
kept. `top` and `stats` ask the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerstore.runtime.streams.attaching import Attachment, resize
    from layerstore.runtime.streams.foreground import Foreground
    from layerstore.runtime.streams.pump import End
    from layerstore.runtime.streams.streams import DETACH_KEYS, Streams

__all__ = ["DETACH_KEYS", "Attachment", "End", "Foreground", "Streams", "resize"]

_HOMES = {
    "DETACH_KEYS": "streams",
    "Attachment": "attaching",
    "End": "pump",
    "Foreground": "foreground",
    "Streams": "streams",
    "resize": "attaching",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"layerstore.runtime.streams.{_HOMES[name]}"), name)
