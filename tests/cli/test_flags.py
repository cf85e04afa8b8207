"""The rules by which words become options: those of pflag, tried on docker 28 and podman 4.3."""

from __future__ import annotations

import pytest

from layerstore.cli import flags
from layerstore.cli.flags import Flag, FlagError

ALL = Flag(("-a", "--all"), is_switch=True)
QUIET = Flag(("-q", "--quiet"), is_switch=True)
HUMAN = Flag(("-H", "--human"), is_switch=True, off=("--no-human",))
FILTER = Flag(("-f", "--filter"))
FORMAT = Flag(("--format",))
KNOWN = (ALL, QUIET, HUMAN, FILTER, FORMAT)


@pytest.mark.parametrize(
    ("line", "values", "words"),
    [
        ("", [], []),
        # An option's value: the = is no part of it, but once.
        ("-f x", [(FILTER, "x")], []),
        ("-fx", [(FILTER, "x")], []),
        ("-f=x", [(FILTER, "x")], []),
        ("-f==x", [(FILTER, "=x")], []),
        ("-f=x=y", [(FILTER, "x=y")], []),
        ("-fx=y", [(FILTER, "x=y")], []),
        ("-f=", [(FILTER, "=")], []),
        ("-f =x", [(FILTER, "=x")], []),
        ("--filter x", [(FILTER, "x")], []),
        ("--filter=x", [(FILTER, "x")], []),
        ("--filter==x", [(FILTER, "=x")], []),
        ("--filter=", [(FILTER, "")], []),
        ("--format={{.ID}}", [(FORMAT, "{{.ID}}")], []),
        # Whatever follows is the value, an option or -- as well.
        ("-f -q", [(FILTER, "-q")], []),
        ("--filter --quiet", [(FILTER, "--quiet")], []),
        ("-f --", [(FILTER, "--")], []),
        ("-f - x", [(FILTER, "-")], ["x"]),
        # Clusters: switches, and the last may have a value.
        ("-aq", [(ALL, True), (QUIET, True)], []),
        ("-qf x", [(QUIET, True), (FILTER, "x")], []),
        ("-qfx", [(QUIET, True), (FILTER, "x")], []),
        ("-qf=x=y", [(QUIET, True), (FILTER, "x=y")], []),
        ("-fq", [(FILTER, "q")], []),
        ("-aq=false", [(ALL, True), (QUIET, False)], []),
        # Switches take a value behind = only, and ParseBool's words.
        ("-q true", [(QUIET, True)], ["true"]),
        ("--quiet false", [(QUIET, True)], ["false"]),
        *((f"-q={yes}", [(QUIET, True)], []) for yes in ("1", "t", "T", "true", "TRUE", "True")),
        *((f"--quiet={no}", [(QUIET, False)], []) for no in ("0", "f", "F", "false", "FALSE", "False")),
        ("--human --no-human", [(HUMAN, True), (HUMAN, False)], []),
        ("--human=f --no-human=f", [(HUMAN, False), (HUMAN, True)], []),
        # Other words, and the end of the options.
        ("x -q y", [(QUIET, True)], ["x", "y"]),
        ("- -q", [(QUIET, True)], ["-"]),
        ("-q -- -f --", [(QUIET, True)], ["-f", "--"]),
    ],
)
def test_options_are_read_as_docker_reads_them(
    line: str, values: list[tuple[Flag, str | bool]], words: list[str]
) -> None:
    given = flags.parse(line.split(), KNOWN)
    assert (list(given.values), list(given.words)) == (values, words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--nope", "unknown flag: --nope"),
        ("--nope=x", "unknown flag: --nope"),
        ("--fliter=x", "unknown flag: --fliter, did you mean --filter?"),
        ("--Quiet", "unknown flag: --Quiet, did you mean --quiet?"),
        ("--foo", "unknown flag: --foo"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        # As find(1) has it.
        ("-human x", "unknown shorthand flag: 'h' in -human, did you mean --human?"),
        ("-qhuman", "unknown shorthand flag: 'h' in -human"),
        ("-qxa", "unknown shorthand flag: 'x' in -xa"),
        ("-=x", "unknown shorthand flag: '=' in -=x"),
        ("-q=", "unknown shorthand flag: '=' in -="),
        ("--=x", "bad flag syntax: --=x"),
        ("---quiet", "bad flag syntax: ---quiet"),
        ("-f", "flag needs an argument: 'f' in -f"),
        ("-qf", "flag needs an argument: 'f' in -f"),
        ("--filter", "flag needs an argument: --filter"),
        ("-q=maybe", 'invalid argument "maybe" for "-q, --quiet" flag: must be true or false'),
        ("-aq=false=x", 'invalid argument "false=x" for "-q, --quiet" flag: must be true or false'),
        ("-q=tRUE", 'invalid argument "tRUE" for "-q, --quiet" flag: must be true or false'),
        ("--quiet=", 'invalid argument "" for "-q, --quiet" flag: must be true or false'),
        ("--no-human=yes", 'invalid argument "yes" for "-H, --human" flag: must be true or false'),
    ],
)
def test_what_docker_refuses_is_refused_in_its_words(line: str, words: str) -> None:
    with pytest.raises(FlagError) as caught:
        flags.parse(line.split(), KNOWN)
    assert str(caught.value) == words


def test_before_a_command_options_end_at_the_first_other_word() -> None:
    given = flags.parse(["-f=x", "images", "-q", "--", "-x"], KNOWN, interspersed=False)
    assert given == (((FILTER, "x"),), ("images", "-q", "--", "-x"))


def test_an_empty_word_is_an_argument_and_an_empty_value_a_value() -> None:
    assert flags.parse(["", "-f", ""], KNOWN) == (((FILTER, ""),), ("",))
