"""One manner: what an option is called, takes and says is the same in every command, or the difference has a reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import click
import pytest

from layerstore.cli.front import front

DIFFERENT = {
    "--address": "a snapshotter listens on a socket, the others on a port",
    "--attach": "docker's: `start -a` says that, `run -a` says what",
    "--cidfile": "podman's: one is written, several are read",
    "--format": "`save` and `bench` have forms of files",
    "--from": "each says what it is from",
    "--interval": "podman's: a span for `wait`, seconds for `stats`",
    "--name": "`find` takes a pattern, as find(1); `ui` hosts",
    "--network": "`build` has a mode of RUN, `run` a network",
    "--output": "`build` has places, the others a file",
    "--prefetch-from": "a pull may say that nothing comes ahead",
    "--pull": "docker's: `build --pull` says that, `run --pull` says when",
    "--storage-opt": "docker's: a container has a size; `bench` has what drivers have",
}
"""Options that take another thing in another command, and why."""

NOT_SHORT = {
    "--all": "docker's: `start -a` attaches",
    "--driver": "docker's: `volume create -d`",
    "--filter": "docker's: `prune -f` and `rm -f` force",
    "--format": "docker's: -f is the filter of lists",
    "--label": "docker's: `build` has none",
    "--latest": "docker's: `rm -l` is of links",
    "--noheading": "podman's: `ps -n` is of the last",
    "--type": "`find` has no short words, as find(1)",
    "--volumes": "docker's: `rm -v`",
}
"""Options whose short form not every command has, and why."""

WITHOUT_FORM = {"image tree": "podman's: a picture, not a list"}


def commands(
    group: click.Command = front, path: tuple[str, ...] = (), above: click.Context | None = None
) -> Iterator[tuple[str, list[click.Option]]]:
    """Each command by its whole name, with the options that `--help` shows."""
    if isinstance(group, click.Group):
        ctx = click.Context(group, parent=above, info_name=path[-1] if path else "layerstore")
        for name in group.list_commands(ctx):
            found = group.get_command(ctx, name)
            assert found is not None
            yield from commands(found, (*path, name), ctx)
    else:
        yield " ".join(path), [one for one in group.params if isinstance(one, click.Option) and not one.hidden]


ALL = dict(commands())


def long_name(option: click.Option) -> str:
    return next(name for name in option.opts if name.startswith("--"))


def test_every_option_says_what_it_is_for_and_what_it_takes() -> None:
    assert len(ALL) > 100
    for path, options in ALL.items():
        for option in options:
            assert option.help, (path, option.opts)
            assert not option.help.endswith("."), (path, option.opts)
            if not (option.is_flag or option.count or isinstance(option.type, click.Choice)):
                assert option.metavar, (path, option.opts)


@pytest.mark.parametrize("of", ["what it takes", "its short form"])
def test_an_option_is_the_same_in_every_command(of: str) -> None:
    kinds: dict[str, set[object]] = defaultdict(set)
    for options in ALL.values():
        for option in options:
            name = long_name(option)
            takes = (option.is_flag, option.is_flag or option.metavar, option.multiple and name == "--cidfile")
            short = tuple(word for word in option.opts if not word.startswith("--"))
            kinds[name].add(takes if of == "what it takes" else short)
    reasons = DIFFERENT if of == "what it takes" else NOT_SHORT
    assert {name for name, found in kinds.items() if len(found) > 1} == set(reasons)


def test_what_shows_a_list_has_a_form() -> None:
    for path, options in ALL.items():
        names = {long_name(option) for option in options}
        if names & {"--no-trunc", "--noheading", "--filter"} and not names & {"--force", "--cidfile", "--running"}:
            is_a_list = path not in WITHOUT_FORM and not path.endswith(("start", "pause"))
            assert ("--format" in names) == is_a_list, path


def test_what_names_an_image_of_a_registry_can_say_who_one_is() -> None:
    """`login` is told by its own; of builds, which may ask several: log in first."""
    words = {"--tls-verify", "--authfile", "--creds", "--cert-dir"}
    for path, options in ALL.items():
        names = {long_name(option) for option in options}
        if "--tls-verify" in names and path.split()[-1] not in ("login", "build"):
            assert words <= names, path
