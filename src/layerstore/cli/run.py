"""The commands `run` and `create`: a container made from an image, which is pulled if it is not there; and started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from layerstore import reference
from layerstore.cli import completion, output
from layerstore.cli.access import access_taken, platform_taken
from layerstore.cli.front import Arguments, Command
from layerstore.cli.run_options import run_options, run_options_of
from layerstore.cli.running import ProgramCommand, failed, require_terminal, streams
from layerstore.errors import ConfigError, InUse, LayerstoreError, NotFound, RegistryError

if TYPE_CHECKING:
    from layerstore import IdMap
    from layerstore.containers import Container
    from layerstore.images import Image
    from layerstore.reference import Reference
    from layerstore.runtime import RunOptions, Runtime
    from layerstore.store import Store

# -h is the host name, as in docker; and what comes after the image is the program's.
_SETTINGS = {"allow_interspersed_args": False, "help_option_names": ["--help"]}


@click.command(cls=Command, context_settings=_SETTINGS)
@click.argument("image", required=False, shell_complete=completion.images)
@click.argument("args", metavar="[COMMAND] [ARG...]", nargs=-1, type=click.UNPROCESSED)
@run_options
@click.pass_obj
@access_taken(of="image")
@platform_taken
def create_command(arguments: Arguments, /, *, image: str | None, args: tuple[str, ...], **given: Any) -> None:
    """Create a container on IMAGE, or an empty one to build an image from nothing, and print its ID."""
    options = _options(given, args)
    _require_new_file(given["cidfile"])
    with arguments.open() as store:
        container = _created(store, image, options, given)
        output.lines([container.id])


@click.command(cls=ProgramCommand, context_settings=_SETTINGS)
@click.argument("image", shell_complete=completion.images)
@click.argument("args", metavar="[COMMAND] [ARG...]", nargs=-1, type=click.UNPROCESSED)
@click.option("-d", "--detach", is_flag=True, help="Let it run in the background, and print the container's ID")
@click.option("--rmi", is_flag=True, help="Remove the image, too, when the container has gone, unless others need it")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to the program (the default)")
@click.option("--record-order", metavar="FILE", help="Write down in which order the run reads lazy layers")
@run_options
@click.pass_obj
@access_taken(of="image")
@platform_taken
def run_command(
    arguments: Arguments,
    /,
    *,
    image: str,
    args: tuple[str, ...],
    detach: bool,
    rmi: bool,
    sig_proxy: bool,
    record_order: str | None,
    **given: Any,
) -> int:
    """Create a container on IMAGE and run a program in it: COMMAND, or what the image says.

    The exit code is the program's; 125: it was not started, 126: it cannot be executed, 127: it is not there.
    """
    from layerstore.runtime import Runtime
    from layerstore.runtime.engine import find
    from layerstore.runtime.options import Isolation

    if ":" in given["userns"]:
        raise click.UsageError("no program is run in a container for other IDs; --userns with a range is for create")
    if detach and record_order is not None:
        raise click.UsageError("--record-order waits for the end of the run, and cannot be given with --detach/-d")
    if rmi and detach:
        raise click.UsageError("conflicting options: --rmi and --detach: who waits for the container removes its image")
    given["remove"] = given["remove"] or rmi
    options = _options({**given, "detach": detach}, args)
    attached = given["attach"] or ("stdout", "stderr", *(("stdin",) if options.interactive else ()))
    takes_input = "stdin" in attached and not detach
    try:
        require_terminal(tty=options.tty, stdin=takes_input)
        if detach:
            ours = None
        else:
            ours = streams(
                stdin=takes_input,
                stdout="stdout" in attached,
                stderr="stderr" in attached,
                detach_keys=given["detach_keys"],
                signals=sig_proxy,
            )
    except LayerstoreError as problem:
        return failed(problem)
    if detach:
        from layerstore.runtime.life.starting import require_kept

        require_kept(options)  # before anything is pulled or made
    _require_new_file(given["cidfile"])
    with arguments.open() as store:
        runtime = Runtime(store)
        if options.isolation is Isolation.FULL:
            find(store.config, options.runtime)  # before anything is pulled or made
        if record_order is not None:
            _require_lazy(store, image, given)
            _ensure(store, image, given)
        with nullcontext() if record_order is None else store.record_order(image, record_order):
            container = _created(store, image, options, given, runtime)
            if ours is not None:
                code = runtime.run(container, ours)
        if ours is not None:
            if rmi:
                with suppress(InUse, NotFound):
                    store.remove_image(image)
            return code
        try:
            runtime.start(container)
        except LayerstoreError:
            if options.remove:
                runtime.remove(container, force=True, volumes=True)
            raise
        output.lines([container.id])
    return 0


def _options(given: dict[str, Any], args: Sequence[str]) -> RunOptions:
    """What is asked for, checked before any store is opened."""
    _size(given["storage_opts"])
    try:
        options = run_options_of(given, args)
    except ValueError as wrong:
        raise click.UsageError(str(wrong), click.get_current_context()) from None
    if not options.tty:
        return options
    from layerstore.runtime.streams import terminal

    return evolve(options, console_size=terminal.size(1) or terminal.size(0))


def _created(
    store: Store, name: str | None, options: RunOptions, given: dict[str, Any], runtime: Runtime | None = None
) -> Container:
    """Make the container, and write its ID down where that is asked for."""
    from layerstore.runtime import Runtime, bundle

    size, ids = _size(given["storage_opts"]), _ids(given["userns"])
    if name is None:  # there is no program to be run in it
        _replace(store, given)
        return store.create_container(name=given["name"], size=size, idmap=ids)
    _warn(options)
    _ensure(store, name, given)
    if runtime is None:
        runtime = Runtime(store)
    else:
        bundle.command(store.image(name).config, options)  # there has to be something to run
    _replace(store, given)
    container = runtime.create(name, options, name=given["name"], size=size, idmap=ids)
    if given["cidfile"]:
        try:
            with open(given["cidfile"], "x", encoding="utf-8") as file:
                file.write(container.id)
        except OSError as problem:
            runtime.remove(container, force=False, volumes=True)
            raise _no_file(given["cidfile"], problem) from None
    return container


def _replace(store: Store, given: dict[str, Any]) -> None:
    """With --replace, let the name be free."""
    if given["replace"]:
        from layerstore.runtime import Runtime

        with suppress(NotFound):
            Runtime(store).remove(store.container(given["name"]), force=True, volumes=True)


def _warn(options: RunOptions) -> None:
    """Tell of what is asked for in vain."""
    if options.ports or options.publish_all:
        from layerstore.runtime.network import parse
        from layerstore.runtime.network.ports import notices

        output.warn(*(f"WARNING: {text}" for text in notices(options, parse(options.network))))


def _ids(userns: str) -> IdMap | None:
    """The map of `--userns INSIDE:OUTSIDE:COUNT`."""
    if ":" not in userns:
        return None
    from layerstore import IdMap, IdRange

    ranges = (IdRange(*map(int, userns.split(":"))),)
    return IdMap(ranges, ranges)


def _size(options: Sequence[str]) -> str | None:
    """The value of `--storage-opt size=…`."""
    size = None
    for option in options:
        key, equals, value = option.partition("=")
        if key != "size" or not equals:
            raise click.UsageError(f"storage-opt of a container is size=BYTES, not {option}")
        size = value
    return size


def _require_new_file(path: str | None) -> None:
    """The file for the container's ID must not be there. Raises `ConfigError`."""
    if path and os.path.lexists(path):
        raise ConfigError(
            f"container ID file found, make sure the other container isn't running or delete {path}",
            remedy="Name another file with --cidfile.",
        )
    if path and not Path(path).absolute().parent.is_dir():
        raise _no_file(path, FileNotFoundError(2, os.strerror(2)))


def _no_file(path: str, problem: OSError) -> ConfigError:
    reason = (problem.strerror or "cannot be written").lower()
    return ConfigError(
        f"failed to create the container ID file: open {path}: {reason}",
        remedy="Name another with --cidfile: in a folder that is there, and can be written to.",
    )


def _ensure(store: Store, name: str, given: dict[str, Any]) -> None:
    """See that the image is there, pulled as `--pull` and `--platform` say. Raises `NotFound`, `RegistryError`."""
    when, platform, quiet = given["pull"], given["platform"] or None, given["quiet"]
    image = None
    if when != "always":
        try:
            image = store.image(name)
        except NotFound as problem:
            if when == "never":
                raise
            if not quiet:
                output.warn(f"Unable to find image '{reference.parse(name).familiar}' locally")
                if problem.remedy != NotFound.usual_remedy:
                    output.warn(str(problem.remedy))
        else:
            if platform is not None and when != "never" and not _is_for(image, platform):
                image = None
            elif when != "newer":
                return
    from layerstore.cli.progress import bars

    def begun(image: Reference) -> None:
        if not quiet:
            output.warn(f"{image.tag or image.digest or reference.DEFAULT_TAG}: Pulling from {image.path}")

    try:
        with bars("Pulling", quiet=quiet) as report:
            pulled = store.pull(
                name,
                platform=platform,
                progress=report,
                begun=begun,
                told=output.warn,
                lazy=given["lazy"],
                prefetch_from=given["prefetch_from"],
            )
    except (RegistryError, NotFound) as problem:
        if image is None:
            raise
        # As podman: what cannot be asked whether it has a newer one is no reason not to run what is there.
        output.warn(f"WARNING: {output.described(problem)}; the image that is here is taken")
        return
    if not quiet:
        is_newer = "Downloaded newer image" if pulled.is_newer else "Image is up to date"
        output.warn(f"Digest: {pulled.digest}", f"Status: {is_newer} for {reference.parse(name).familiar}")


def _require_lazy(store: Store, name: str, given: dict[str, Any]) -> None:
    """Refuse what would be pulled whole: nobody could see then what is read of it."""
    if given["lazy"] or given["pull"] == "never":
        return
    with suppress(NotFound):
        image = store.image(name)
        if given["pull"] == "missing" and (not given["platform"] or _is_for(image, given["platform"])):
            return
    words = f"--record-order is about layers that come when they are read, and {name} would be pulled whole"
    raise click.UsageError(f"{words}: give --lazy, too")


def _is_for(image: Image, platform: str) -> bool:
    """May it be run where that platform is asked for?"""
    from layerstore import platforms

    return platforms.rank(platforms.parse(platform), platforms.of(image.config)) is not None
