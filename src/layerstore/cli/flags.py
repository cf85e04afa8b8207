"""How the words of a command line become options: the rules of pflag, which docker and podman parse theirs with. Pure.

click has rules of its own: to it, the `=` of `-f=VALUE` belongs to the value. So the words are parsed here, and click
is given nothing but `--name=value`, switches without a value, and arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

# What Go's strconv.ParseBool takes.
_TRUTHS: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


class Flag(NamedTuple):
    """An option by all its names (`-q`, `--quiet`), short ones first. `off`: the names that turn a switch off."""

    names: tuple[str, ...]
    is_switch: bool = False
    off: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What errors call it: `-q, --quiet`."""
        return ", ".join(self.names)


class Given(NamedTuple):
    """What a command line says: the options with their values, in order, and the other words."""

    values: tuple[tuple[Flag, str | bool], ...]
    words: tuple[str, ...]


class FlagError(ValueError):
    """A command line that pflag refuses, in its words. `unknown`: the option that there is not, if it is that."""

    def __init__(self, words: str, unknown: str | None = None) -> None:
        super().__init__(words)
        self.unknown = unknown


def parse(args: Sequence[str], flags: Sequence[Flag], *, interspersed: bool = True) -> Given:
    """The options among `args`. `interspersed`: they may stand after other words, too. Raises `FlagError`."""
    return _Parser(args, flags).all(interspersed=interspersed)


class _Parser:
    """The words that are still to be read, and what was found in those before."""

    def __init__(self, args: Sequence[str], flags: Sequence[Flag]) -> None:
        self.rest = list(reversed(args))
        self.known = {name: flag for flag in flags for name in (*flag.names, *flag.off)}
        self.values: list[tuple[Flag, str | bool]] = []

    def all(self, *, interspersed: bool) -> Given:
        words: list[str] = []
        while self.rest:
            word = self.rest.pop()
            if word == "--":
                break
            if not word.startswith("-") or word == "-":
                words.append(word)
                if not interspersed:
                    break
            elif word.startswith("--"):
                self.long(word)
            else:
                self.cluster(word[1:])
        return Given(tuple(self.values), (*words, *reversed(self.rest)))

    def long(self, word: str) -> None:
        """`--name`, `--name=value` or, unless it is a switch, `--name value`."""
        name, equals, value = word.partition("=")
        if word[2:3] in ("-", "="):
            raise FlagError(f"bad flag syntax: {word}")
        flag = self.known.get(name)
        if flag is None:
            raise FlagError(f"unknown flag: {name}{_hint(name, self.known)}", name)
        if equals:
            self.add(flag, name, value)
        elif flag.is_switch:
            self.add(flag, name, "true")
        elif self.rest:
            self.add(flag, name, self.rest.pop())
        else:
            raise FlagError(f"flag needs an argument: {name}")

    def cluster(self, letters: str) -> None:
        """`-q`, `-qf value`, `-qfvalue` or `-qf=value`: switches, and at the end an option with its value."""
        whole = letters
        while letters:
            letter, left = letters[0], letters[1:]
            name = f"-{letter}"
            flag = self.known.get(name)
            if flag is None:
                # find(1) and the like write whole words behind one dash.
                is_word = letters == whole and f"--{letters}" in self.known
                hint = f", did you mean --{letters}?" if is_word else ""
                raise FlagError(f"unknown shorthand flag: '{letter}' in -{letters}{hint}", name)
            if len(left) > 1 and left[0] == "=":
                return self.add(flag, name, left[1:])
            if flag.is_switch:
                self.add(flag, name, "true")
            elif left:
                # So `-f=`, with nothing behind it, is the value `=`.
                return self.add(flag, name, left)
            elif self.rest:
                return self.add(flag, name, self.rest.pop())
            else:
                raise FlagError(f"flag needs an argument: '{letter}' in -{letters}")
            letters = left
        return None

    def add(self, flag: Flag, name: str, value: str) -> None:
        if not flag.is_switch:
            self.values.append((flag, value))
        elif (truth := _TRUTHS.get(value)) is None:
            raise FlagError(f'invalid argument "{value}" for "{flag.title}" flag: must be true or false')
        else:
            self.values.append((flag, truth != (name in flag.off)))


def _hint(name: str, known: dict[str, Flag]) -> str:
    import difflib

    # Without the dashes, which they all have: --foo is nearer to nothing than to --os.
    words = [other[2:] for other in known if other.startswith("--")]
    near = difflib.get_close_matches(name[2:], words, 1)
    return f", did you mean --{near[0]}?" if near else ""
