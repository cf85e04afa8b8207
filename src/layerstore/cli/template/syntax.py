"""How the text of a template becomes its tree.

Follows Go's text/template: actions between `{{` and `}}`, `{{-` and `-}}` trim white space, pipelines of commands, if,
with, range, break, continue, variables. Not: define, template and block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from layerstore.cli.template.errors import TemplateError
from layerstore.cli.template.tree import (
    Action,
    Branch,
    Command,
    Dot,
    Fields,
    Function,
    Leave,
    Literal,
    Node,
    Operand,
    Pipeline,
    Text,
    Variable,
)
from layerstore.values import frozen

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
    |(?P<close>\}\})
    |(?P<string>"(?:\\.|[^"\\\n])*")
    |(?P<raw>`[^`]*`)
    |(?P<char>'(?:\\.|[^'\\\n])+')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?))
    |(?P<variable>\$\w*)
    |(?P<field>\.[^\W\d]\w*)
    |(?P<dot>\.)
    |(?P<word>[^\W\d]\w*)
    |(?P<mark>:=|[=|(),])
    """,
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3}))")
_PLAIN_ESCAPES: Final = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True))
_BLOCKS: Final = ("if", "with", "range")


def parse(text: str, functions: frozenset[str], *, escapes: bool) -> tuple[Node, ...]:
    """The nodes of a template that may call `functions`. `escapes`: `\\t` and `\\n` between its actions count."""
    return _Parser(text, functions, escapes=escapes).template()


@frozen
class _Token:
    kind: str
    text: str
    start: int


def _pieces(text: str) -> Iterator[str | list[_Token]]:
    """Text, and the tokens of each action, in turn, with the trimming of `{{-` and `-}}` done."""
    position = 0
    trim = False
    while True:
        opening = text.find("{{", position)
        piece = text[position:] if opening < 0 else text[position:opening]
        if trim:
            piece = piece.lstrip()
        if opening < 0:
            yield piece
            return
        position = opening + 2
        if re.match(r"-\s", text[position:]):
            piece, position = piece.rstrip(), position + 2
        yield piece
        comment = re.compile(r"\s*/\*.*?\*/(\s+-)?\}\}", re.DOTALL).match(text, position)
        if comment is not None:
            position, trim = comment.end(), comment.group(1) is not None
            continue
        tokens, position, trim = _action(text, position)
        yield tokens


def _action(text: str, position: int) -> tuple[list[_Token], int, bool]:
    """The tokens of the action that begins at `position`, where it ends, and whether `-}}` ends it."""
    tokens: list[_Token] = []
    while True:
        trimming = re.compile(r"\s-\}\}").match(text, position)
        if trimming is not None:
            return tokens, trimming.end(), True
        match = _TOKEN.match(text, position)
        if match is None:
            rest = text[position:]
            if not rest:
                raise TemplateError("unclosed action: there is no }} to end it")
            if rest[0] in "\"`'":
                raise TemplateError(f"unterminated quoted string: {rest}")
            raise TemplateError(f"unexpected {rest[0]!r} in {{{{{_shown(tokens)}")
        kind = str(match.lastgroup)
        if kind == "close":
            return tokens, match.end(), False
        tokens.append(_Token(kind, match.group(), position))
        position = match.end()


def _shown(tokens: list[_Token]) -> str:
    return "".join(token.text for token in tokens)


def _unquoted(text: str, *, what: str) -> str:
    """The inside of a Go string literal."""

    def character(match: re.Match[str]) -> str:
        plain, *numbers, octal = match.groups()
        if plain is not None:
            return _PLAIN_ESCAPES[plain]
        return chr(int(octal, 8) if octal is not None else int(next(n for n in numbers if n is not None), 16))

    inside = text[1:-1]
    if "\\" in _ESCAPE.sub("", inside):
        raise TemplateError(f"{what} has an unknown escape: {text}")
    return _ESCAPE.sub(character, inside)


class _Parser:
    """Recursive descent over the pieces. One action's tokens at a time are in `tokens`, from `at` on."""

    def __init__(self, text: str, functions: frozenset[str], *, escapes: bool) -> None:
        self.pieces = _pieces(text)
        self.escapes = escapes
        self.functions = functions
        self.variables = ["$"]
        self.tokens: list[_Token] = []
        self.at = 0
        self.loops = 0

    # blocks

    def template(self) -> tuple[Node, ...]:
        nodes, ending = self.block()
        if ending is not None:
            raise TemplateError(f"unexpected {{{{{ending}}}}}: no block is open")
        return nodes

    def block(self) -> tuple[tuple[Node, ...], str | None]:
        """Nodes up to `{{end}}`, `{{else…}}` or the end of the text, and which of them it was."""
        nodes: list[Node] = []
        for piece in self.pieces:
            if isinstance(piece, str):
                if self.escapes:
                    piece = piece.replace("\\t", "\t").replace("\\n", "\n")
                if piece:
                    nodes.append(Text(piece))
                continue
            self.tokens, self.at = piece, 0
            self.skip_space()
            word = self.peek().text if self.peek().kind == "word" else ""
            if word in ("end", "else"):
                self.at += 1
                return tuple(nodes), word
            nodes.append(self.action(word))
        return tuple(nodes), None

    def action(self, word: str) -> Node:
        if word in _BLOCKS:
            self.at += 1
            return self.branch(word)
        if word in ("break", "continue"):
            if not self.loops:
                raise TemplateError(f"{{{{{word}}}}} outside of {{{{range}}}}")
            self.at += 1
            self.expect_end(word)
            return Leave(word)
        if word in ("define", "template", "block"):
            raise TemplateError(f"{{{{{word}}}}} is not supported: a template here is one template")
        return Action(self.whole_pipeline("command"))

    def branch(self, word: str) -> Branch:
        known = len(self.variables)
        pipeline = self.whole_pipeline(word)
        self.loops += word == "range"
        body, ending = self.block()
        self.loops -= word == "range"
        otherwise: tuple[Node, ...] = ()
        if ending == "else":
            self.skip_space()
            chained = self.peek()
            if chained.kind == "end":
                otherwise, ending = self.block()
                if ending == "else":
                    raise TemplateError(f"a second {{{{else}}}} in {{{{{word}}}}}")
            elif chained.kind == "word" and chained.text in ("if", "with") and word != "range":
                # `{{else if}}` opens a block that the same `{{end}}` closes.
                self.at += 1
                otherwise, ending = (self.branch(chained.text),), "end"
            else:
                raise TemplateError(f"unexpected {chained.text} after {{{{else")
        if ending is None:
            raise TemplateError(f"{{{{{word}}}}} has no {{{{end}}}}")
        if ending == "end":
            self.expect_end("end")
        del self.variables[known:]
        return Branch(word, pipeline, body, otherwise)

    # tokens

    def peek(self) -> _Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else _Token("end", "}}", -1)

    def skip_space(self) -> None:
        while self.peek().kind == "space":
            self.at += 1

    def expect_end(self, after: str) -> None:
        self.skip_space()
        if self.peek().kind != "end":
            raise TemplateError(f"unexpected {self.peek().text} after {after}")

    # pipelines

    def whole_pipeline(self, what: str) -> Pipeline:
        self.skip_space()
        pipeline = self.pipeline(what, names=self.declared_names(in_range=what == "range"))
        self.expect_end(_shown(self.tokens[: self.at]).strip())
        return pipeline

    def declared_names(self, *, in_range: bool) -> tuple[tuple[str, ...], bool]:
        """The variables before `:=` or `=`, if that is how the action begins."""
        pattern = r"\s*(\$\w+)\s*(?:,\s*(\$\w+)\s*)?(:=|=)"
        match = re.match(pattern, _shown(self.tokens[self.at :]))
        if match is None:
            return (), True
        first, second, mark = match.groups()
        if second is not None and not in_range:
            raise TemplateError(f"two variables before {mark} are for range only")
        while self.tokens[self.at].text != mark:
            self.at += 1
        self.at += 1
        names = (first,) if second is None else (first, second)
        for name in names:
            if mark == "=" and name not in self.variables:
                raise TemplateError(f"undefined variable {name}")
        return names, mark == ":="

    def pipeline(self, what: str, names: tuple[tuple[str, ...], bool] = ((), True)) -> Pipeline:
        commands = [self.command(what)]
        while self.peek().text == "|":
            self.at += 1
            commands.append(self.command("command"))
        for command in commands[1:]:
            if not isinstance(command.words[0], Function | Fields | Variable | Dot):
                raise TemplateError("only a function can follow |")
        # A variable is known after its own pipeline, not within it.
        if names[1]:
            self.variables.extend(names[0])
        return Pipeline(tuple(commands), *names)

    def command(self, what: str) -> Command:
        words: list[Operand] = []
        while True:
            self.skip_space()
            token = self.peek()
            if token.kind == "end" or token.text in ("|", ")"):
                break
            words.append(self.operand())
            if self.peek().kind not in ("space", "end") and self.peek().text not in ("|", ")"):
                raise TemplateError(f"unexpected {self.peek().text} in {{{{{_shown(self.tokens)}}}}}")
        if not words:
            raise TemplateError(f"missing value for {what}")
        if isinstance(words[0], Literal) and (len(words) > 1 or words[0].value is None):
            raise TemplateError(f"{_shown(self.tokens).strip()}: a literal is no function")
        return Command(tuple(words))

    def operand(self) -> Operand:
        token = self.peek()
        self.at += 1
        base: Operand
        match token.kind:
            case "field":
                self.at -= 1
                base = Dot()
            case "dot":
                base = Dot()
            case "variable":
                if token.text not in self.variables:
                    raise TemplateError(f"undefined variable {token.text}")
                base = Variable(token.text)
            case "word":
                base = self.named(token.text)
            case "string":
                base = Literal(_unquoted(token.text, what="the string"))
            case "raw":
                base = Literal(token.text[1:-1])
            case "char":
                base = Literal(self.character(token.text))
            case "number":
                base = Literal(self.number(token.text))
            case _ if token.text == "(":
                base = self.pipeline("parenthesized pipeline")
                if self.peek().text != ")":
                    raise TemplateError("unclosed left parenthesis")
                self.at += 1
            case _:
                raise TemplateError(f"unexpected {token.text} in {{{{{_shown(self.tokens).strip()}}}}}")
        names = []
        while self.peek().kind == "field":
            names.append(self.peek().text[1:])
            self.at += 1
        if not names:
            return base
        if isinstance(base, Literal | Function):
            raise TemplateError(f"{token.text} has no fields")
        source = _shown(self.tokens[self.tokens.index(token) : self.at])
        return Fields(base, tuple(names), source)

    def named(self, word: str) -> Operand:
        if word in ("true", "false"):
            return Literal(word == "true")
        if word == "nil":
            return Literal(None)
        if word not in self.functions:
            raise TemplateError(f"function {word} is not defined; there are: {', '.join(sorted(self.functions))}")
        return Function(word)

    @staticmethod
    def character(text: str) -> int:
        inside = _unquoted(text, what="the character")
        if len(inside) != 1:
            raise TemplateError(f"not one character: {text}")
        return ord(inside)

    @staticmethod
    def number(text: str) -> int | float:
        try:
            return int(text, 0)
        except ValueError:
            pass
        if re.fullmatch(r"[+-]?0[0-7_]+", text):
            return int(text, 8)
        value = float(text)
        # As in Go, a constant such as 1e3 is a whole number where one is wanted; 1.50 is not.
        return int(value) if value.is_integer() and "e" in text.lower() else value
