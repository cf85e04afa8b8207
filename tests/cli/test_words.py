"""docker's and podman's words: all that their `--help` lists is taken, or refused with a reason."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

from layerstore.cli import words
from layerstore.cli.front import front
from layerstore.cli.words.options import OPTIONS

Run = Callable[..., Result]

LISTS = Path(__file__).with_name("words")
OTHERS = {("checkpoint", "create"), ("checkpoint", "ls"), ("checkpoint", "rm")}
"""What is an argument of a command here: `layerstore checkpoint create` is about a container of that name."""


def listed(program: str) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Each command of a program, with the names of its options."""
    for line in (LISTS / f"{program}.txt").read_text().splitlines():
        if not line.startswith("#"):
            command, _, options = line.partition(":")
            yield tuple(command.replace(".", "").split()), tuple(options.split())


def found(path: tuple[str, ...]) -> tuple[click.Command, click.Context] | None:
    """The command here that these words lead to."""
    command: click.Command = front
    ctx = click.Context(front, info_name="layerstore", **front.context_settings)
    for name in path:
        if not isinstance(command, click.Group):
            return None
        after = command.get_command(ctx, name)
        if after is None:
            return None
        command, ctx = after, click.Context(after, info_name=name, parent=ctx)
    return command, ctx


def names_of(command: click.Command, ctx: click.Context) -> set[str]:
    options = [param for param in command.get_params(ctx) if isinstance(param, click.Option)]
    return {name for option in options for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("program", ["podman", "docker"])
def test_every_command_and_option_is_taken_or_has_a_reason(program: str) -> None:
    lost = []
    for path, options in listed(program):
        here = found(path)
        if here is None:
            if words.of_command(path) is None and path not in OTHERS:
                lost.append(" ".join(path))
            continue
        known = names_of(*here)
        for option in options:
            why = words.of_option(path or (".",), option)
            assert why is None or option not in known, f"{path} {option} is taken, and there is a reason why not"
            if option not in known and why is None:
                lost.append(f"{' '.join(path)} {option}")
    assert lost == []


def test_every_reason_is_for_something_that_one_of_them_has() -> None:
    theirs: dict[str, set[str]] = {}
    commands = set()
    for program in ("podman", "docker"):
        for path, options in listed(program):
            theirs.setdefault(words.canonical(path or (".",)), set()).update(options)
            commands.add(" ".join(path))
    assert {command: sorted(set(names) - theirs[command]) for command, names in OPTIONS.items()} == {
        command: [] for command in OPTIONS
    }
    # These are plugins, or commands of later versions.
    assert {name for name in words.REFUSED if name not in commands} <= {"buildx", "compose", "play"}


def test_the_page_of_words_is_what_the_tool_makes() -> None:
    root = Path(__file__).parents[2]
    made = runpy.run_path(str(root / "tools/words"))
    assert (root / "docs/words.md").read_text() == made["page"](), "tools/words >docs/words.md makes it anew"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("run", "--pod", "x", "debian"), "--pod is not taken here: there are no pods; containers share a network by "),
        (("container", "ls", "-p"), "-p is not taken here: there are no pods; "),
        (("rm", "-l"), "-l is not taken here: -l is --link to docker and --latest to podman: say which by "),
        (("--log-level=debug", "images"), "--log-level is not taken here: there is no journal: errors are told in "),
        (("kube", "play", "x"), "kube is not done here: Kubernetes's documents are neither read nor written; "),
        (("generate", "systemd", "x"), "generate is not done here: units are not made: write one whose ExecStart is "),
        (("container", "checkpoint", "x"), "container checkpoint is not done here: processes are not written down "),
        (("manifest", "push", "x"), "manifest push is not done here: lists of manifests are not made; "),
        (("system", "service"), "system service is not done here: there is no daemon, "),
    ],
)
def test_a_refusal_says_why_in_one_sentence(bare: Run, args: tuple[str, ...], sentence: str) -> None:
    result = bare(*args)
    assert result.exit_code in (2, 125)
    assert result.stderr.startswith(f"layerstore: {sentence}")
    assert len(result.stderr.splitlines()) == 2
