"""The lines that made an image, as its history has them, and which layer is whose. Pure.

Every builder writes history in a form of its own; here it becomes an instruction as a Dockerfile has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from layerstore import ChainID, DiffID, History, Image, ImageID
from layerstore.build.lines import Written
from layerstore.values import frozen

__all__ = ["Line", "bases", "instruction_of", "lines_of"]

_ARGUMENTS = re.compile(r"^(RUN )?\|(\d+) ")
_SHELL = re.compile(r"^(?:RUN )?/bin/(?:ba)?sh -c ")
_SILENT = re.compile(r"^#\(nop\)\s+")
_INSTRUCTION = re.compile(
    r"(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER|VOLUME"
    r"|WORKDIR)(?: |$)"
)


@frozen
class Line:
    """One line of an image's history."""

    number: int
    """From 1, the oldest."""
    text: str
    """As a Dockerfile has it; else its comment, "" where the history says nothing of a layer."""
    created: str
    """When it was done, as the history says it."""
    chain_id: ChainID | None
    """The layer that it made; None if it made none."""
    diff_id: DiffID | None
    size: int
    """Bytes of that layer's tar."""
    level: int | None
    """The place of that layer in the stack: 0 is the lowest."""
    base: str = ""
    """The name of the image that it came with, if that is another one that the store knows."""
    file: str = ""
    """The Dockerfile that says so, if a build of this store has made the image, or its base."""
    place: tuple[int, int] | None = None
    """The first and the last line of it."""

    @property
    def instruction(self) -> str:
        """`RUN`, `COPY`; "" for what is none."""
        found = _INSTRUCTION.match(self.text)
        return found[1] if found else ""

    @property
    def where(self) -> str:
        """`FILE:LINE`; "" if nobody knows."""
        return f"{self.file}:{self.place[0]}" if self.place is not None else ""

    def __str__(self) -> str:
        return self.text or "(a layer without a line)"


def instruction_of(created_by: str) -> str:
    """What a line of a history says, in the words of a Dockerfile: docker's, BuildKit's and buildah's forms."""
    text = " ".join(created_by.split()).removesuffix(" # buildkit")
    arguments = _ARGUMENTS.match(text)
    if arguments:  # |2 A=1 B=two words /bin/sh -c …: where values end is known by the shell alone
        shell = re.search(r" (/bin/(?:ba)?sh -c .*)$", text)
        text = shell[1] if shell else text[arguments.end() :]
    shell_form = _SHELL.match(text)
    if shell_form:
        rest = text[shell_form.end() :]
        silent = _SILENT.match(rest)
        text = rest[silent.end() :] if silent else f"RUN {rest}"
    return text.rstrip()


def lines_of(
    image: Image, bases: Sequence[Image] = (), written: Mapping[ImageID, Written] | None = None
) -> tuple[Line, ...]:
    """The lines of an image, the oldest first. `bases` are images that it begins with, as `bases` finds them.

    `written` says which lines of which Dockerfile are the last ones of an image or a base.
    """
    ends: dict[int, str] = {}
    places: dict[int, tuple[str, tuple[int, int]]] = {}
    for one in (*bases, image):
        count = len(one.history)
        if one is not image:
            for number in range(count):
                ends.setdefault(number, one.tags[0] if one.tags else one.short_id)
        found = (written or {}).get(one.id)
        while count and not one.history[count - 1].created_by:
            count -= 1  # what a squash says of itself is no line of a file
        if found is not None and len(found.lines) <= count:
            places.update((count - back, (found.file, place)) for back, place in enumerate(reversed(found.lines), 1))
    return tuple(_lines(image.history, ends, places))


def _lines(
    history: Sequence[History], ends: Mapping[int, str], places: Mapping[int, tuple[str, tuple[int, int]]]
) -> Iterator[Line]:
    level = 0
    for number, step in enumerate(history):
        place = None
        if step.chain_id is not None:
            place, level = level, level + 1
        file, lines = places.get(number, ("", None))
        yield Line(
            number + 1,
            instruction_of(step.created_by) or " ".join(step.comment.split()),
            step.created,
            step.chain_id,
            step.diff_id,
            step.size,
            place,
            ends.get(number, ""),
            file,
            lines,
        )


def bases(image: Image, others: Sequence[Image]) -> list[Image]:
    """The images with names that this one begins with, line by line and layer by layer; the shortest first."""
    own = _script(image)
    found = []
    for other in others:
        script = _script(other)
        if other.tags and len(script) < len(own) and other.layers and own[: len(script)] == script:
            found.append((len(script), other))
    return [other for _, other in sorted(found, key=lambda pair: pair[0])]


def _script(image: Image) -> list[tuple[str, DiffID | None]]:
    return [(step.created_by, step.diff_id) for step in image.history]
