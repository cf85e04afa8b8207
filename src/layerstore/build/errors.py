"""What can go wrong in a build: one error, which knows the line of the file that it is about."""

from __future__ import annotations

from attrs import frozen

from layerstore import LayerstoreError

__all__ = ["BuildError", "Place"]

_RULER = "-" * 20


@frozen
class Place:
    """Lines of a Dockerfile. `line` and `end` count from 1, and both belong to it; `text` is what they say."""

    file: str
    line: int
    end: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def shown(self) -> str:
        """The lines under their numbers, each marked, as BuildKit shows them."""
        lines = self.text.split("\n")
        numbered = (f"{self.line + count:4} | >>> {text}" for count, text in enumerate(lines))
        return "\n".join((str(self), _RULER, *numbered, _RULER))


class BuildError(LayerstoreError):
    """A Dockerfile that says something that cannot be, or a step that failed.

    `place` is where the file says it, None where no line does (a secret that was not given, a target without a stage).
    `exit_code` is that of the program which failed, `output` what it wrote last, `container` the name of the one that
    is left at that point, if one was to be.
    """

    def __init__(
        self,
        message: str,
        *,
        place: Place | None = None,
        remedy: str | None = None,
        path: str | bytes | None = None,
        exit_code: int | None = None,
        output: bytes = b"",
        container: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, path=path)
        self.place = place
        self.exit_code = exit_code
        self.output = output
        self.container = container

    def __str__(self) -> str:
        said = super().__str__()
        return said if self.place is None else f"{self.place.shown}\n{said}"
