"""Did what a step reads stay as it was? If not, its key tells of other bytes than its layer has.

A context is read where it lies, and others may write to it meanwhile. So it is looked at once more when all was read;
of a step whose input was altered nothing is remembered, and its layer is kept for this build alone.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from attrs import evolve

from layerstore import KernelError, LayerSource
from layerstore.build.context import Chosen
from layerstore.build.errors import BuildError, Place
from layerstore.build.events import Doing, Teller, Warned
from layerstore.build.steps.origins import Origin
from layerstore.gathering import Readable
from layerstore.values import frozen

__all__ = ["Steady"]

_SHOWN = 3
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EBUSY)
"""What a file tells that was there: it is gone, is something else by now, or became shorter."""
_REMEDY = "Build again when nothing writes to it, or leave what is written to out by .dockerignore."


@frozen
class Steady:
    """Of one step at `place`, which does `what` with its inputs: `copied`, `used`. What is found goes to `doing`."""

    teller: Teller
    doing: Doing
    place: Place
    what: str

    def look(self, origin: Origin, chosen: Sequence[Chosen]) -> None:
        """All of this was read: look whether it is what it was when it was chosen, and tell if it is not."""
        found = [os.fsdecode(path) or "." for path in origin.altered(chosen)]
        if found and not self.doing.altered:
            self.doing.altered = True
            more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            self.teller.tell(
                Warned(
                    f"{', '.join(found[:_SHOWN])}{more} was altered while it was {self.what}, so this step is not "
                    f"remembered, and what it made may be of both. {_REMEDY}",
                    self.place,
                )
            )

    def watched(self, source: LayerSource, inputs: Sequence[tuple[Origin, Sequence[Chosen]]]) -> LayerSource:
        """The same source, whose inputs are looked at when it was read. What is gone by then is told as such."""

        @contextmanager
        def opened() -> Iterator[Readable]:
            with self.reading(), source.open() as stream:
                yield stream
            for origin, chosen in inputs:
                self.look(origin, chosen)

        return evolve(source, open=opened)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While inside: files that vanish, or become others, are an error that says so."""
        try:
            yield
        except KernelError as error:
            if error.errno not in _GONE or error.path is None:
                raise
            raise BuildError(
                f"{os.fsdecode(error.path)} was altered while it was {self.what}: {error.message}",
                place=self.place,
                remedy=_REMEDY,
                path=error.path,
            ) from error
