"""Between programs and people: terminals, signals, attached streams, logs, who runs and what it takes.

`foreground` is for a program that is run in the foreground, `attaching` for one that conmon holds; `logs` reads what it
kept. `top` and `stats` ask the kernel.
"""

from layerstore.runtime.streams.attaching import Attachment, resize
from layerstore.runtime.streams.foreground import Foreground
from layerstore.runtime.streams.pump import End
from layerstore.runtime.streams.streams import DETACH_KEYS, Streams

__all__ = ["DETACH_KEYS", "Attachment", "End", "Foreground", "Streams", "resize"]
