"""Compressed streams, in and out. `streams` inflates and compresses, `frames` knows where zstd's frames end."""

from layerstore.compression.streams import COMPRESSIONS, HEAD, Stream, compressing, open_stream, sniff

__all__ = ["COMPRESSIONS", "HEAD", "Stream", "compressing", "open_stream", "sniff"]
