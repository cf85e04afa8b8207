"""The order in which a first run reads the parts of lazy layers, recorded into a file while something runs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore.errors import LayerstoreError, named
from layerstore.kernel.files.descriptors import file_of
from layerstore.seekable.order import Order, Read

if TYPE_CHECKING:
    from layerstore.digest import DiffID
    from layerstore.layers.diffs import Diff
    from layerstore.layers.files import LayerFiles

__all__ = ["recording"]


@contextmanager
def recording(files: LayerFiles, stored: Sequence[Diff], path: Path) -> Iterator[None]:
    """While inside; the file `path` is there, whole, when that has ended without an error."""
    with named("open", path):
        fd, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with BufferedWriter(file_of(fd, "wb")) as out, tempfile.TemporaryFile() as lines:
            with files.recorded(stored, lines.fileno()) as (layers, is_whole):
                yield
                whole = is_whole()
            if not whole:
                raise LayerstoreError(
                    "what watches lazy layers was killed meanwhile: the order of the run is not known",
                    remedy="Record a first run once more.",
                )
            lines.seek(0)
            order = _order(lines, layers)
            with named("write", path):
                out.write(order.packed())
                out.flush()
                os.fsync(out.fileno())
        with named("rename", path):
            os.chmod(draft, 0o644)
            os.rename(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def _order(lines: Iterable[bytes], layers: Sequence[DiffID]) -> Order:
    """What was written down. Raises `LayerstoreError` for a line of which there is a part: the disk was full."""
    try:
        numbers = (tuple(map(int, line.split())) for line in lines)
        return Order.of(Read(layers[number], offset, size) for number, offset, size in numbers)
    except (ValueError, IndexError):
        raise LayerstoreError(
            "not all that was read could be written down: the order of the run is not known",
            remedy=f"See that there is room in {tempfile.gettempdir()}, and record a first run once more.",
        ) from None
