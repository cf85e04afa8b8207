"""From the text of a Dockerfile to its stages.

Lines, continuations, quotes, JSON and heredocs are the parser's (a port of BuildKit's, held to its data by a test);
what the instructions mean is in `forms`. Here the two meet, and errors get their place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from layerstore.build.errors import BuildError, Place
from layerstore.build.language.flags import FlagError
from layerstore.build.language.forms import NAMES, Words, instruction_of
from layerstore.build.language.instructions import Arg, Dockerfile, From, Heredoc, Instruction, OnBuild, Stage
from layerstore.build.language.likeness import nearest
from layerstore.build.language.parser import (
    DockerfileAst,
    DockerfileInstruction,
    DockerfileSyntaxError,
    parse_dockerfile_ast,
)

__all__ = ["parse", "with_triggers"]

_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_DIRECTIVES = ("syntax", "escape", "check")
_ONBUILD = re.compile(r"\s*ONBUILD(?:\s+|$)", re.IGNORECASE)
_ONBUILD_HEREDOC = re.compile(r"^([ \t]*)ONBUILD(?=[ \t]+(?:RUN|COPY|ADD)[ \t].*<<)", re.IGNORECASE | re.MULTILINE)
_FRONTENDS = ("dockerfile", "dockerfile-upstream")
_REASON = re.compile(r"Dockerfile parse error(?: on line \d+)?: (.*)", re.DOTALL)
_UNKNOWN = "unknown instruction: "
_SURROGATE = re.compile("[\ud800-\udfff]")
_FIRST_STAGE = "Begin with FROM: FROM scratch for an image on nothing."


def parse(text: str | bytes, file: str = "Dockerfile") -> Dockerfile:
    """What a Dockerfile says. Raises `BuildError` with the line for what it cannot say.

    `file` is its name in errors. Bytes that are no UTF-8 (surrogates, in a text) become U+FFFD, as in what BuildKit
    writes.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = _SURROGATE.sub("\ufffd", text.removeprefix("\ufeff"))
    lines = _Lines(file, text)
    _refuse_frontend(lines)
    ast, wrapped = _ast(text, lines)
    global_args: list[Arg] = []
    stages: list[Stage] = []
    pending: list[Instruction] = []

    def close() -> None:
        if stages:
            stages[-1] = attrs.evolve(stages[-1], instructions=tuple(pending))
            pending.clear()

    for node in ast.instructions:
        instruction = _instruction(node, lines, trigger_of=node.start_line in wrapped)
        if isinstance(instruction, From):
            close()
            stages.append(Stage(len(stages), instruction.alias, instruction, ()))
        elif stages:
            pending.append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            raise BuildError("no build stage in current context", place=instruction.place, remedy=_FIRST_STAGE)
    close()
    if not stages:
        where = global_args[-1].place if global_args else None
        said = "dockerfile contains no stages to build" if ast.instructions else f"{file}: file with no instructions"
        raise BuildError(said, place=where, remedy=_FIRST_STAGE)
    return Dockerfile(
        file=file,
        directives=lines.directives,
        global_args=tuple(global_args),
        stages=tuple(stages),
        empty_continuations=tuple(lines.place(warning.line, warning.line) for warning in ast.warnings),
    )


def with_triggers(stage: Stage, triggers: Sequence[str]) -> Stage:
    """A stage that begins with what ONBUILD of its base says. Errors are told at its FROM, where the base is named."""
    found = tuple(_trigger(text, stage.base.place) for text in triggers)
    return attrs.evolve(stage, instructions=(*found, *stage.instructions))


def _trigger(text: str, place: Place) -> Instruction:
    """One instruction of an ONBUILD, as if it stood at `place`."""
    lines = _Lines(place.file, text)
    try:
        ast, _ = _ast(text, lines)
        if len(ast.instructions) != 1:
            raise BuildError("onbuild trigger should be a single expression", place=place)
        instruction = _instruction(ast.instructions[0], lines)
    except BuildError as error:
        raise BuildError(f"ONBUILD {text}: {error.message}", place=place, remedy=error.remedy) from None
    return attrs.evolve(instruction, place=place, trigger=True)


class _Lines:
    """The lines of a file, of which places are cut, and its directives."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self._lines = text.split("\n")
        self._count = len(self._lines) - (not self._lines[-1])
        self.directives, self._head = _directives(self._lines)

    def place(self, line: int, end: int) -> Place:
        end = max(line, end)
        around = 2 if line == end else 1  # as BuildKit has it
        before, found, after = (
            [text.removesuffix("\r") for text in self._lines[max(0, start) : stop]]
            for start, stop in ((line - 1 - around, line - 1), (line - 1, end), (end, min(end + around, self._count)))
        )
        return Place(self.file, line, end, "\n".join(found), tuple(before), tuple(after))

    def comments(self, line: int) -> tuple[str, ...]:
        """The comments right above a line; an empty comment parts them, an empty line does not."""
        found: list[str] = []
        for number in range(line - 2, self._head - 1, -1):
            text = self._lines[number].strip()
            if text and not text.startswith("#"):
                break
            if text and not (text := text[1:].strip()):
                break
            if text:
                found.append(text)
        return tuple(reversed(found))


def _ast(text: str, lines: _Lines) -> tuple[DockerfileAst, frozenset[int]]:
    """The parser's tree, and the lines of those ONBUILD that it takes for their inner instruction.

    The parser knows no heredoc behind ONBUILD. So that word is blanked where one may follow, and put back by whoever
    asks. Where the line turns out to be within an instruction or a heredoc, it stays: where those begin and end does
    not depend on it.
    """
    candidates = {text.count("\n", 0, match.start()) + 1: match for match in _ONBUILD_HEREDOC.finditer(text)}
    if not candidates:
        return _parsed(text, lines), frozenset()
    ast = _parsed(_without_onbuild(text, candidates.values()), lines)
    begun = {node.start_line for node in ast.instructions} & candidates.keys()
    if begun != candidates.keys():
        ast = _parsed(_without_onbuild(text, [candidates[line] for line in sorted(begun)]), lines)
    return ast, frozenset(begun)


def _without_onbuild(text: str, matches: Iterable[re.Match[str]]) -> str:
    """The text with that word blanked at these places, which are in their order."""
    parts, end = [], 0
    for match in matches:
        parts += [text[end : match.end(1)], " " * len("ONBUILD")]
        end = match.end()
    return "".join((*parts, text[end:]))


def _parsed(text: str, lines: _Lines) -> DockerfileAst:
    try:
        return parse_dockerfile_ast(text)
    except DockerfileSyntaxError as error:
        match = _REASON.fullmatch(str(error))
        reason = match[1] if match else str(error)
        remedy = None
        if reason.startswith(_UNKNOWN):
            like = nearest(reason.removeprefix(_UNKNOWN), NAMES)
            remedy = f"Did you mean {like}?" if like else f"There are {', '.join(sorted(NAMES))}."
        place = None if error.line is None else lines.place(error.line, error.line)
        raise BuildError(reason, place=place, remedy=remedy) from None
    except RecursionError:
        raise BuildError(f"{lines.file}: a JSON array is nested too deeply") from None


def _instruction(node: DockerfileInstruction, lines: _Lines, *, trigger_of: bool = False) -> Instruction:
    place = lines.place(node.start_line, node.end_line)
    common: dict[str, Any] = {
        "place": place,
        "original": node.original.strip(),
        "comments": lines.comments(node.start_line),
    }
    if "\0" in place.text:
        raise BuildError(f"{node.name} has a zero byte", place=place, remedy="Take it out: no argument can have one.")
    if node.name == "ONBUILD":
        return _onbuild(_ONBUILD.sub("", common["original"], count=1), common)
    heredocs = tuple(Heredoc(doc.name, doc.content, doc.expand, doc.chomp) for doc in node.heredocs)
    words = Words(node.name, node.flags, [_SURROGATE.sub("\ufffd", word) for word in node.args], node.json, heredocs)
    try:
        instruction = instruction_of(words, common)
    except FlagError as error:
        raise BuildError(str(error), place=place, remedy=error.remedy) from None
    if not trigger_of:
        return instruction
    text = "".join((common["original"], *(f"\n{doc.content}{doc.name}" for doc in heredocs)))
    return _onbuild(text, {**common, "original": f"{place.text.split(None, 1)[0]} {common['original']}"})


def _onbuild(expression: str, common: Mapping[str, Any]) -> OnBuild:
    """What ONBUILD keeps; it is read now as well, so that its errors are told where it is written."""
    place: Place = common["place"]
    name = (expression.split(None, 1) or [""])[0].upper()
    if not name:
        raise BuildError("ONBUILD requires at least one argument", place=place)
    if name == "ONBUILD":
        raise BuildError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", place=place)
    if name in ("FROM", "MAINTAINER"):
        raise BuildError(f"{name} isn't allowed as an ONBUILD trigger", place=place)
    _trigger(expression, place)
    return OnBuild(expression=expression, **common)


def _refuse_frontend(lines: _Lines) -> None:
    """Raise `BuildError` for a file that says that it is in another language (`# syntax=`).

    A Dockerfile's own frontend, of whatever version and from whatever mirror, is a repository of the name `dockerfile`.
    """
    syntax = lines.directives.get("syntax", "")
    repository = syntax.partition(" ")[0].partition("@")[0].rpartition("/")[2].partition(":")[0]
    if syntax and repository not in _FRONTENDS:
        raise BuildError(
            f"the frontend {syntax} cannot be fetched here: Dockerfiles alone are understood",
            place=lines.place(1, 1),
            remedy="Take # syntax= out if it is an ordinary Dockerfile.",
        )


def _directives(lines: Sequence[str]) -> tuple[dict[str, str], int]:
    """The first comment lines, as far as each is a directive, and how many they are.

    Those that cannot be are the parser's to refuse.
    """
    found: dict[str, str] = {}
    for count, line in enumerate(lines):
        match = _DIRECTIVE.match(line.strip())
        if match is None or match[1].lower() not in _DIRECTIVES:
            return found, count
        found[match[1].lower()] = match[2]
    return found, len(lines)
