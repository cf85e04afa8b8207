"""The command `pull`: an image, or all of a repository, out of a registry; with docker's lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from layerstore.cli import output
from layerstore.cli.access import access_taken, platform_taken
from layerstore.cli.front import Arguments, Command
from layerstore.cli.progress import bars

if TYPE_CHECKING:
    from layerstore.reference import Reference
    from layerstore.registry.pull import Pulled, PullWishes


@click.command(cls=Command)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("-a", "--all-tags", is_flag=True, help="Get all tags of the repository")
@click.option("--platform", metavar="OS[/ARCH[/VARIANT]]", help="Platform to take from an index (default: the host's)")
@click.option("-q", "--quiet", is_flag=True, help="Print only the name")
@click.option("--lazy", is_flag=True, help="Be ready at once: layers with an index come when they are read (erofs)")
@click.option(
    "--prefetch-from",
    metavar="FILE|recorded|nothing",
    default="recorded",
    help="Have first what a first run read, as FILE or who pushed recorded it",
)
@click.pass_obj
@access_taken(of="name")
@platform_taken
def pull_command(
    arguments: Arguments,
    *,
    name: str,
    all_tags: bool,
    platform: str | None,
    quiet: bool,
    lazy: bool,
    prefetch_from: str,
) -> None:
    """Get an image from a registry.

    What has come of a pull that broke off is not fetched again, and neither are layers that the store has.
    """
    from layerstore import reference

    if prefetch_from != "recorded" and not lazy:
        raise click.UsageError("--prefetch-from is about layers that come when they are read: give --lazy, too")
    wanted = reference.parse(name)
    has_version = wanted.tag is not None or wanted.digest is not None
    if all_tags and has_version:
        raise click.UsageError("tag can't be used with --all-tags/-a")
    if not (has_version or all_tags or quiet):
        output.lines([f"Using default tag: {reference.DEFAULT_TAG}"])

    def begun(image: Reference) -> None:
        if not quiet:
            version = (image.tag or reference.DEFAULT_TAG) if image.digest is None else _full(image)
            output.lines([f"{version}: Pulling from {image.path}"])
            output.flush()

    is_newer = False
    with arguments.open() as store, bars("Pulling", quiet=quiet) as report:
        options: PullWishes = {
            "platform": platform or None,
            "progress": report,
            "begun": begun,
            "told": output.warn,
            "lazy": lazy,
            "prefetch_from": prefetch_from,
        }
        pulled: Iterable[Pulled] = store.pull_all(name, **options) if all_tags else [store.pull(name, **options)]
        for image in pulled:
            is_newer = is_newer or image.is_newer
            if not quiet:
                output.lines([f"Digest: {image.digest}"])
    title = wanted.familiar_name if all_tags else wanted.familiar
    status = f"Downloaded newer image for {title}" if is_newer else f"Image is up to date for {title}"
    output.lines([*([] if quiet else [f"Status: {status}"]), wanted.name if all_tags else _full(wanted)])


def _full(name: Reference) -> str:
    """The name with its host, as it was meant: docker.io/library/debian:12, docker.io/library/debian@sha256:…"""
    return name.name + name.familiar.removeprefix(name.familiar_name)
