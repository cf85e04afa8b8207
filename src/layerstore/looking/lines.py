"""The lines that made an image, as its history has them, and which layer is whose. Pure.

Every builder writes history in a form of its own; here it becomes an instruction as a Dockerfile has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from layerstore import ChainID, DiffID, History, Image

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
    """As a Dockerfile has it; "" where the history says nothing of a layer."""
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

    @property
    def instruction(self) -> str:
        """`RUN`, `COPY`; "" for what is none."""
        found = _INSTRUCTION.match(self.text)
        return found[1] if found else ""

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


def lines_of(image: Image, bases: Sequence[Image] = ()) -> tuple[Line, ...]:
    """The lines of an image, the oldest first. `bases` are images that it begins with, as `bases` finds them."""
    ends: dict[int, str] = {}
    for base in bases:
        for number in range(len(base.history)):
            ends.setdefault(number, base.tags[0] if base.tags else base.short_id)
    return tuple(_lines(image.history, ends))


def _lines(history: Sequence[History], ends: Mapping[int, str]) -> Iterator[Line]:
    level = 0
    for number, step in enumerate(history):
        place = None
        if step.chain_id is not None:
            place, level = level, level + 1
        yield Line(
            number + 1,
            instruction_of(step.created_by),
            step.created,
            step.chain_id,
            step.diff_id,
            step.size,
            place,
            ends.get(number, ""),
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
