"""The front door of the command line: global options, the table of commands, and the way out.

Commands live in modules of their own, imported when they are called; here are only their names and one line on each.
Every error ends here as one or two lines and an exit code.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import click

from layerstore.cli import flags, interrupted, output
from layerstore.cli.flags import Flag, FlagError
from layerstore.errors import LayerstoreError

if TYPE_CHECKING:
    from layerstore.access import Access
    from layerstore.config import Config
    from layerstore.store import Store

PROGRAM: Final = "layerstore"
COMPLETE: Final = "_LAYERSTORE_COMPLETE"

Entry: TypeAlias = tuple[str, str, str]
"""The name of a command, where it is (`MODULE` or `MODULE:ATTRIBUTE`), what the list of commands says of it."""

# Command, module that has it, what `layerstore --help` says of it.
_COMMANDS: Final[tuple[Entry, ...]] = (
    ("run", "run", "Create a container and run a program in it"),
    ("exec", "exec", "Run one more program in a container that runs"),
    ("build", "build", "Build an image from a Dockerfile"),
    ("pull", "pull", "Get an image from a registry"),
    ("load", "archives", "Load images from an archive, a folder or standard input"),
    ("save", "archives", "Save one or more images to an archive or folder (by default to standard output)"),
    ("push", "push", "Give an image to a registry"),
    ("copy", "push", "Copy an image from a registry or archive to another"),
    ("images", "images", "List images"),
    ("adopt", "adopting", "Make images of attached stores this store's own"),
    ("history", "images", "Show the history of an image"),
    ("why", "looking", "Show which layer and line a path of an image or container is from"),
    ("explore", "explore", "Look into an image or container, in the terminal"),
    ("squash", "looking", "Make an image whose layers are one"),
    ("advise", "looking", "Show what each line of an image costs, and what could be saved"),
    ("tag", "images", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    ("untag", "images", "Take names from an image"),
    ("rmi", "images", "Remove one or more images"),
    ("inspect", "objects", "Show all that is known of images and containers"),
    ("create", "run", "Create a container"),
    ("start", "lives", "Start one or more containers"),
    ("restart", "lives", "Stop containers, and start them again"),
    ("stop", "lives", "Ask containers to stop, and kill those that do not"),
    ("kill", "lives", "Send containers a signal"),
    ("wait", "lives", "Wait until containers have ended, and print their exit codes"),
    ("pause", "lives", "Freeze all processes of containers"),
    ("unpause", "lives", "Let all processes of containers go on"),
    ("ps", "ps", "List containers"),
    ("attach", "watching", "Be the terminal, or the standard streams, of a container"),
    ("logs", "watching", "Show what a container wrote"),
    ("top", "watching", "Show the processes of a container"),
    ("stats", "watching", "Show what containers take of the machine"),
    ("port", "watching", "Show where the ports of a container are published"),
    ("mount", "containers", "Mount containers, or list what is mounted"),
    ("umount", "containers", "Unmount containers"),
    ("unmount", "containers:umount_command", "Unmount containers, as umount does"),
    ("cp", "copying", "Copy files and folders between a container and this machine"),
    ("ls", "browsing", "List what is in a folder of an image or container"),
    ("cat", "browsing", "Write files of images and containers to standard output"),
    ("find", "browsing", "Find files in an image or container"),
    ("du", "browsing", "Show what is in the files of an image or container, by folder"),
    ("diff", "containers", "Show what a container or image changed in its filesystem"),
    ("commit", "containers", "Create an image from a container's changes"),
    ("checkpoint", "checkpoints", "Keep what a container's filesystem is now, under a label"),
    ("rollback", "checkpoints", "Let a container be again what it was at a checkpoint"),
    ("fork", "checkpoints", "Create containers that begin where a container is now"),
    ("checkpoints", "checkpoints", "List or remove the checkpoints of a container"),
    ("rename", "containers", "Rename a container"),
    ("rm", "lives", "Remove one or more containers"),
    ("import", "archives", "Create an image from the tar of a filesystem"),
    ("export", "archives", "Write a container's filesystem as a tar"),
    ("login", "registry", "Log in to a registry"),
    ("logout", "registry", "Log out from a registry"),
    ("info", "storage", "Show facts about the store and its driver"),
    ("check", "checking", "Find what is missing, damaged or left over in the store, and repair it"),
    ("rescue", "rescue", "Make the database of a store anew that is gone or damaged"),
    ("migrate", "migrate", "Convert the store to another storage driver"),
    ("serve", "serve", "Serve the store's images as a registry"),
    ("ui", "ui", "Show the store in a browser"),
    ("expose", "exposing", "Let podman run images of the store where they lie"),
    ("snapshotter", "snapshotter", "Be a snapshotter of containerd, on a socket"),
    ("prune", "pruning", "Remove unmounted containers and unused images"),
    ("healthcheck", "health", "Check the health of a container (run)"),
    ("volume", "volumes", "Commands on volumes: create, inspect, ls, prune, rm"),
    ("builder", "builder", "Commands on what builds remember: ls, df, prune, cache"),
    ("system", "groups", "Show what takes the room (df); info, prune"),
    ("tags", "repositories", "List the tags that a repository has in its registry"),
    ("search", "repositories", "Search Docker Hub or another registry for images"),
    ("manifest", "repositories", "Show a manifest of a registry (inspect)"),
    ("image", "groups", "Commands on images, as docker groups them"),
    ("container", "groups", "Commands on containers, as docker groups them"),
    ("bench", "bench", "Measure the storage drivers against each other on your disk"),
    ("unshare", "unshare", "Run a command where an ordinary user's store can be opened and its mounts are seen"),
    ("completion", "completion", "Print the shell's completion script"),
    ("version", "storage", "Show the version"),
)


class Arguments:
    """The global options, and the store that they lead to."""

    def __init__(
        self,
        root: str | None = None,
        config: str | None = None,
        driver: str | None = None,
        options: Sequence[str] = (),
        attach: Sequence[str] = (),
    ) -> None:
        self.attach = attach
        self.root = root
        self.config = config
        self.driver = driver
        self.options = options
        self.access: Access | None = None
        """What the command itself says of registries."""

    def read_config(self) -> Config:
        """What daemon.json says, or the file in its place; without what the command line says instead."""
        from pathlib import Path

        from layerstore import config

        found = config.load(None if self.config is None else Path(self.config))
        if self.access is None:
            return found
        from attrs import evolve

        return evolve(found, access=self.access)

    def enter(self) -> None:
        """Go where the store can be opened: ordinary users have theirs in a user namespace."""
        from layerstore import rootless

        rootless.unshare(self.root, config=None if self.root else self.read_config())

    def open(self) -> Store:
        """The store: a context manager that closes it."""
        import layerstore

        self.enter()
        config = self.config if self.access is None else self.read_config()
        return layerstore.open(
            self.root,
            config=config,
            storage_driver=self.driver,
            storage_opts=self.options,
            attach=self.attach,
        )


def _parsed(command: click.Command, ctx: click.Context, args: list[str]) -> list[str]:
    """The words of a command line as click reads them as docker would. Raises `click.UsageError`."""
    options = {
        Flag(tuple(sorted(option.opts, key=len)), option.is_flag, tuple(option.secondary_opts)): option
        for option in command.get_params(ctx)
        if isinstance(option, click.Option)
    }
    try:
        given = flags.parse(args, tuple(options), interspersed=ctx.allow_interspersed_args)
    except FlagError as wrong:
        if ctx.resilient_parsing:
            return args
        raise click.UsageError(_refusal(ctx, wrong) or str(wrong), ctx) from None
    words: list[str] = []
    switches: dict[Flag, bool] = {}
    for flag, value in given.values:
        if isinstance(value, bool):
            switches[flag] = value  # the last one counts, whatever was said before
        else:
            words.append(f"{flag.names[-1]}={value}")
    for flag, value in switches.items():
        words += [flag.names[-1]] if value else flag.off[:1]
    return [*words, *(("--", *given.words) if given.words else ())]


def _refusal(ctx: click.Context, wrong: FlagError) -> str | None:
    """Why an option of docker's or podman's is not taken, if it is one."""
    if wrong.unknown is None:
        return None
    from layerstore.cli import words

    why = words.of_option(ctx.command_path.split()[1:] or ["."], wrong.unknown)
    return None if why is None else f"{wrong.unknown} is not taken here: {why}"


class Command(click.Command):
    """A command whose options are read as docker reads its own: `-f=x` is `-f x`, and `--quiet=false` is right, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _parsed(self, ctx, args))


class Group(click.Group):
    """A group of commands that are imported when they are called."""

    def __init__(self, table: Sequence[Entry] = (), **named: Any) -> None:
        super().__init__(**named)
        self.table = table

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _parsed(self, ctx, args))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, _, _ in self.table]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for name, place, _ in self.table:
            if name == cmd_name:
                module, _, attribute = place.partition(":")
                command = getattr(importlib.import_module(f"layerstore.cli.{module}"), attribute or f"{name}_command")
                assert isinstance(command, click.Command)
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not ctx.resilient_parsing and not args[0].startswith("-"):
            import difflib

            from layerstore.cli import words

            path = [*ctx.command_path.split()[1:], args[0]]
            why = words.of_command([*path, *args[1:2]])
            if why is not None:
                raise click.UsageError(f"{' '.join(path)} is not done here: {why}", ctx)
            near = difflib.get_close_matches(args[0], known, 1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"there is no command {args[0]}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, _, line in self.table])


class _Front(Group):
    """The group of all commands, and the place where errors become exit codes."""

    def main(self, *args: Any, **named: Any) -> Any:
        """In the place of click's, whose way out is another. `args` and `standalone_mode` are as there."""
        given = args[0] if args else named.get("args")
        output.prepare()
        code = exit_code(lambda: self._called(sys.argv[1:] if given is None else list(given)))
        if named.get("standalone_mode", True):
            sys.exit(code)
        return code

    def _called(self, args: list[str]) -> object:
        instruction = os.environ.get(COMPLETE)
        if instruction:
            from click.shell_completion import shell_complete

            return shell_complete(self, {}, PROGRAM, COMPLETE, instruction)
        try:
            with self.make_context(PROGRAM, args) as ctx:
                return self.invoke(ctx)
        except click.exceptions.Exit as leave:
            return leave.exit_code


def exit_code(work: Callable[[], object]) -> int:
    """Do the work; the exit code that it means, with what went wrong told on standard error."""
    try:
        result = work()
        output.flush()
    except click.exceptions.NoArgsIsHelpError as wrong:
        output.warn(wrong.format_message())
        return wrong.exit_code
    except click.UsageError as wrong:
        output.warn(f"{PROGRAM}: {_sentence(wrong)}", f"See '{_path(wrong.ctx)} --help'.")
        return wrong.exit_code
    except click.ClickException as wrong:
        output.error(wrong.format_message())
        return wrong.exit_code
    except KeyboardInterrupt:
        return interrupted()
    except (LayerstoreError, OSError) as problem:
        if problem.errno == errno.EPIPE:
            # Who read our output has had enough, and needs no word about it.
            output.abandon()
            return 128 + signal.SIGPIPE
        try:
            output.flush()
        except LayerstoreError:
            output.abandon()
        output.error(problem)
        return 1
    except Exception as problem:
        # A defect of ours. Its place is of no use to a user, and of much to us.
        if os.environ.get("LAYERSTORE_TRACEBACK"):
            raise
        output.error(f"unexpected {output.described(problem)}")
        output.warn("This is a defect of layerstore: LAYERSTORE_TRACEBACK=1 in the environment shows where it is.")
        return 1
    return result if isinstance(result, int) else 0


def _sentence(wrong: click.UsageError) -> str:
    """click's message in the manner of ours: no capital, no stop."""
    text = " ".join(wrong.format_message().split()).removesuffix(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _path(ctx: click.Context | None) -> str:
    return PROGRAM if ctx is None else ctx.command_path


def _version(ctx: click.Context, _: click.Parameter, asked: object) -> None:
    if asked and not ctx.resilient_parsing:
        from layerstore.cli.facts import version_line

        output.lines([version_line()])
        ctx.exit()


@click.group(
    cls=_Front, table=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}
)
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(),
    help="Folder of the store (default: /var/lib/layerstore, without root ~/.local/share/layerstore)",
)
@click.option(
    "--config", metavar="FILE", type=click.Path(dir_okay=False), help="Settings (default: /etc/layerstore/daemon.json)"
)
@click.option(
    "-s", "--storage-driver", metavar="NAME", help="Storage driver (default: what the store has, or the best here)"
)
@click.option(
    "--storage-opt", "storage_opts", metavar="KEY=VALUE", multiple=True, help="An option of the storage driver"
)
@click.option(
    "--attach",
    metavar="KIND:DIR",
    multiple=True,
    help="Use the images of another program's store where they lie (docker:/var/lib/docker)",
)
@click.option(
    "-v",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit",
)
@click.pass_context
def front(
    ctx: click.Context,
    root: str | None,
    config: str | None,
    storage_driver: str | None,
    storage_opts: tuple[str, ...],
    attach: tuple[str, ...],
) -> None:
    """Keep container images in layers; mount, change and commit them."""
    ctx.obj = Arguments(root, config, storage_driver, storage_opts, attach)


def _leave(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def run() -> int:
    """The command, in a process of its own: signals that end it unwind it first, so that nothing is left behind."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)
    try:
        code = front.main(standalone_mode=False)
        assert isinstance(code, int)
        return code
    except KeyboardInterrupt:
        return interrupted()


__all__ = ["PROGRAM", "Arguments", "Command", "Entry", "Group", "exit_code", "front", "run"]
