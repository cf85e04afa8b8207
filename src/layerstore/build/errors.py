"""What can go wrong in a build: one error, which knows the line of the file that it is about."""

from __future__ import annotations

from attrs import field

from layerstore import LayerstoreError
from layerstore.values import frozen

__all__ = ["BuildError", "Place"]

_RULER = "-" * 20
_MOST = 40
"""How many lines of a place are shown."""
_WIDEST = 400
"""How many letters of each."""


@frozen
class Place:
    """Lines of a Dockerfile. `line` and `end` count from 1, and both belong to it; `text` is what they say.

    `before` and `after` are a few lines around them, for who is shown the place.
    """

    file: str
    line: int
    end: int
    text: str
    before: tuple[str, ...] = field(default=(), eq=False, repr=False)
    after: tuple[str, ...] = field(default=(), eq=False, repr=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def shown(self) -> str:
        """The lines under their numbers, marked among those around them, as BuildKit shows them.

        Of many lines, the first and the last ones; of a long line, its beginning.
        """
        marked = self.text.split("\n")
        first = self.line - len(self.before)
        lines = [*(("   ", text) for text in self.before), *((">>>", text) for text in marked)]
        lines += [("   ", text) for text in self.after]
        numbered = [f"{first + count:4} | {mark} {_cut(text)}" for count, (mark, text) in enumerate(lines)]
        if len(numbered) > _MOST:
            numbered[_MOST // 2 : -_MOST // 2] = [f"     | {len(numbered) - _MOST} more lines"]
        return "\n".join((str(self), _RULER, *numbered, _RULER))


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"


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
