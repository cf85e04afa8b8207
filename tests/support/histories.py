"""What the histories of images say, in a form in which those of different builders can be held against each other.

BuildKit writes `RUN /bin/sh -c x # buildkit` and expands variables; docker's classic builder writes `/bin/sh -c x` and,
for what makes no container, `/bin/sh -c #(nop)  ENV A=b`; buildah the same, but as the Dockerfile has it, unexpanded.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

__all__ = ["Line", "as_written", "brief", "lines", "texts"]

_NOP = re.compile(r".* #\(nop\) (.*)", re.DOTALL)
_BUILDKIT = " # buildkit"
_KEYWORDS = (
    "ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|RUN|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR"
)
_WRITTEN = re.compile(rf"(ONBUILD|{_KEYWORDS})(?: (.*))?", re.DOTALL)
_ARGS = re.compile(r"\|(\d+) (.*)", re.DOTALL)
_MOUNT = re.compile(r"(?:--(?:mount|network|security)=\S+ )+")
_OF_BASES = ("", "/bin/sh")
"""What `docker import` and buildah say of the bases of the corpus."""


@frozen
class Line:
    """One line: its instruction, what that says, and whether it made no layer."""

    keyword: str
    text: str
    empty: bool


def as_written(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A history without times and bases, as it is."""
    lines = [{name: line[name] for name in line if name != "created"} for line in config.get("history") or ()]
    return [line for line in lines if (line.get("created_by") or "") not in _OF_BASES]


def lines(config: Mapping[str, Any]) -> list[Line]:
    """The lines of a history, but for those of ONBUILD, of which BuildKit writes none."""
    found = [_line(str(line["created_by"]), empty=bool(line.get("empty_layer"))) for line in as_written(config)]
    return [line for line in found if line.keyword != "ONBUILD"]


def texts(found: Sequence[Line]) -> list[tuple[str, str]]:
    """What two builders that expand variables should both have written, by instruction."""
    return [(line.keyword, _text(line)) for line in found]


def brief(found: Sequence[Line]) -> list[tuple[str, str]]:
    """The same, where one of them does not expand them: what RUN ran, and which instructions there were."""
    return [(line.keyword, _plain(_run(line.text)) if line.keyword == "RUN" else "") for line in found]


def _line(created_by: str, *, empty: bool) -> Line:
    text = created_by.removesuffix(_BUILDKIT)
    if (made_nothing := _NOP.fullmatch(text)) is not None:
        text = made_nothing[1].strip()
    match = _WRITTEN.fullmatch(text)
    if match is None:
        return Line("RUN", text, empty)
    return Line(match[1], match[2] or "", empty)


def _text(line: Line) -> str:
    match line.keyword:
        case "RUN":
            return _run(line.text)
        case "COPY" | "ADD":
            return line.text.split(" ")[-1]
        case "ARG":
            return " ".join(word.partition("=")[0] for word in line.text.split(" "))
        case "WORKDIR":
            return posixpath.normpath(line.text)
        case "EXPOSE" | "HEALTHCHECK":  # which each writes in a form of its own
            return ""
        case _:
            return line.text


def _plain(text: str) -> str:
    """As the program is given it, which buildah leaves as words in JSON, and without doubled blanks."""
    _, _, words = text.partition(" -c ")
    try:
        text = " ".join(json.loads(words)) if words.strip().startswith("[") else text
    except ValueError:
        pass
    return " ".join(text.split())


def _run(text: str) -> str:
    """With the arguments in the order of their names, and without flags."""
    match = _ARGS.fullmatch(text)
    if match is not None:
        words = match[2].split(" ")
        count = int(match[1])
        text = " ".join([*sorted(words[:count]), *words[count:]])
    return _MOUNT.sub("", text)
