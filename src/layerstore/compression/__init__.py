"""Compressed streams, in and out. `streams` inflates and compresses, `frames` knows where zstd's frames end.

`recipes` finds out who wrote a stream, and writes it again by `coders`, of which `goflate` (in C) and `pigz` are two.
"""

from layerstore.compression.streams import COMPRESSIONS, HEAD, Stream, compressing, open_stream, open_tasted, sniff

__all__ = ["COMPRESSIONS", "HEAD", "Stream", "compressing", "open_stream", "open_tasted", "sniff"]
