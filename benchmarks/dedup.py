"""Would it pay to keep file content once across layers? Bytes that a series of tars would take, in several ways.

    python -m benchmarks.dedup [--share FOLDER] TAR...

Told are: each different layer once, which is how it is; each file's content once; that as far as a filesystem can share
blocks between tars as they are (FICLONERANGE: whole blocks of 4 KiB, at places that lie alike in their blocks; a tar's
files lie at multiples of 512); and chunks whose borders the content gives, which no tar can be made of in place (needs
`pip install fastcdc`). And what looking for it costs a load, in processor time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import sys
import tarfile
import time
from argparse import ArgumentParser, RawTextHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks.bench import table

BLOCK = 4096
_FIDEDUPERANGE = 0xC0189436
AVERAGES = (16 << 10, 64 << 10)
"""Of chunks, in bytes."""


@frozen
class Payload:
    """The content of a file in a tar."""

    digest: bytes
    place: int
    size: int


def payloads(path: Path) -> Iterator[Payload]:
    """All of a tar that have content."""
    with path.open("rb") as raw, tarfile.open(fileobj=raw) as tar:
        for member in tar:
            if member.isreg() and member.size:
                data = os.pread(raw.fileno(), member.size, member.offset_data)
                yield Payload(hashlib.sha256(data).digest(), member.offset_data, member.size)


def by_file(layers: Sequence[Sequence[Payload]], sizes: Sequence[int]) -> int:
    """What is left if each content is kept once."""
    seen: set[bytes] = set()
    left = sum(sizes)
    for layer in layers:
        for one in layer:
            left -= one.size if one.digest in seen else 0
            seen.add(one.digest)
    return left


def by_blocks(layers: Sequence[Sequence[Payload]], sizes: Sequence[int]) -> int:
    """The same, as far as blocks of tars that stay as they are can be shared."""
    seen: set[tuple[bytes, int]] = set()
    left = sum(sizes)
    for layer in layers:
        for one in layer:
            key = one.digest, one.place % BLOCK
            if key in seen:
                first, last = -(-one.place // BLOCK), (one.place + one.size) // BLOCK
                left -= max(last - first, 0) * BLOCK
            seen.add(key)
    return left


def by_chunks(paths: Sequence[Path], average: int, split: Callable[..., Any]) -> int:
    """What is left if each chunk is kept once, with 40 bytes to name each."""
    seen: set[bytes] = set()
    left = 0
    for path in paths:
        with path.open("rb") as file:
            for chunk in split(os.fspath(path), average // 4, average, average * 8):
                digest = hashlib.sha256(os.pread(file.fileno(), chunk.length, chunk.offset)).digest()
                left += 40 + (0 if digest in seen else chunk.length)
                seen.add(digest)
    return left


def share(folder: Path, paths: Sequence[Path], layers: Sequence[Sequence[Payload]]) -> tuple[int, float, float]:
    """Have the kernel share blocks of copies in a folder: bytes that it shared, seconds of copying them, and of that.

    It compares before it shares (FIDEDUPERANGE, linux/fs.h), so a hash of ours need not be believed.
    """
    start = time.perf_counter()
    copies = [shutil.copyfile(path, folder / path.name) for path in paths]
    os.sync()
    copied = time.perf_counter() - start
    known: dict[tuple[bytes, int], tuple[int, int]] = {}
    done = 0
    start = time.perf_counter()
    files = [os.open(copy, os.O_RDWR) for copy in copies]
    for file, layer in zip(files, layers, strict=True):
        for one in layer:
            skipped = -one.place % BLOCK
            length = (one.size - skipped) // BLOCK * BLOCK
            key = one.digest, one.place % BLOCK
            if length <= 0 or known.setdefault(key, (file, one.place)) == (file, one.place):
                continue
            from_file, from_place = known[key]
            ask = bytearray(
                struct.pack("=QQHHI", from_place + skipped, length, 1, 0, 0)
                + struct.pack("=qQQiI", file, one.place + skipped, 0, 0, 0)
            )
            fcntl.ioctl(from_file, _FIDEDUPERANGE, ask)
            done += struct.unpack_from("=qQQi", ask, 24)[2]
    os.sync()
    took = time.perf_counter() - start
    for file in files:
        os.close(file)
    return done, copied, took


def unlike(paths: Sequence[Path]) -> list[Path]:
    """Those with the same bytes once."""
    found: dict[str, Path] = {}
    for path in paths:
        with path.open("rb") as file:
            found.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), path)
    return list(found.values())


def main() -> None:
    """Look, and print a table."""
    parser = ArgumentParser(prog="benchmarks.dedup", description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("tars", type=Path, nargs="+")
    parser.add_argument("--share", type=Path, help="an empty folder on xfs or btrfs: blocks of copies there are shared")
    options = parser.parse_args()
    given: list[Path] = options.tars
    paths = unlike(given)
    sizes = [path.stat().st_size for path in paths]
    every = sum(path.stat().st_size for path in given)
    start = time.process_time()
    layers = [list(payloads(path)) for path in paths]
    took = time.process_time() - start
    rows: list[tuple[str, int, float]] = [
        ("all layers", every, 0.0),
        ("each layer once", sum(sizes), 0.0),
        ("each file's content once", by_file(layers, sizes), took),
        ("the same, by blocks of tars as they are", by_blocks(layers, sizes), took),
    ]
    if find_spec("fastcdc") is None:
        print("fastcdc is not installed: chunks are left out", file=sys.stderr)
    else:
        split = import_module("fastcdc").fastcdc
        for average in AVERAGES:
            start = time.process_time()
            left = by_chunks(paths, average, split)
            rows.append((f"chunks of {average >> 10} KiB", left, time.process_time() - start))
    whole = sum(sizes)
    print(f"{len(given)} layers, {sum(map(len, layers)):,} files")
    lines = [
        [title, f"{left / 1e6:,.0f}", f"{left / whole:.0%}", f"{took / (whole / 1e9):.2f}" if took else "-"]
        for title, left, took in rows
    ]
    print(table(["kept", "MB", "of each layer once", "s of a processor for a GB"], lines))
    if options.share is not None:
        done, copied, took = share(options.share, paths, layers)
        print(f"\nshared {done / 1e6:,.0f} MB in {took:.1f} s; to copy and sync them took {copied:.1f} s")


if __name__ == "__main__":
    main()
