"""The commands `push` and `copy`: images to registries, and from one place to another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from layerstore.cli import completion, output
from layerstore.cli.access import access_taken
from layerstore.cli.files import require_file, write_file
from layerstore.cli.front import Arguments, Command
from layerstore.cli.progress import bars

if TYPE_CHECKING:
    from layerstore.registry.pushed import Pushed, PushOptions


def _line(label: str, words: str) -> None:
    output.lines([f"{label}: {words}"])
    output.flush()


@click.command(cls=Command)
@click.argument("name", metavar="NAME[:TAG]", shell_complete=completion.images)
@click.option("-a", "--all-tags", is_flag=True, help="Push all tags of the repository")
@click.option(
    "--compression",
    "--compression-format",
    type=click.Choice(["gzip", "zstd"]),
    help="Compress all layers so (default: as they came, or gzip)",
)
@click.option("--digestfile", metavar="FILE", type=click.Path(dir_okay=False), help="Write the digest to a file")
@click.option("-q", "--quiet", is_flag=True, help="Print only the name")
@click.option("--with-index", is_flag=True, help="Attach what `pull --lazy` needs to be ready before the layers are")
@click.option("--order", metavar="FILE", help="Attach the order of a first run, too (`run --lazy --record-order`)")
@click.pass_obj
@access_taken(of="name")
def push_command(
    arguments: Arguments,
    *,
    name: str,
    all_tags: bool,
    compression: str | None,
    digestfile: str | None,
    quiet: bool,
    with_index: bool,
    order: str | None,
) -> None:
    """Give an image to the registry that its name says.

    What the registry has is not sent. What was pulled goes back as it came, as far as its blobs can be had.
    """
    from layerstore import reference

    wanted = reference.parse(name)
    if all_tags and order is not None:
        raise click.UsageError("--order is that of one image, and cannot be given with --all-tags/-a")
    if all_tags and wanted.tag is not None:
        raise click.UsageError("tag can't be used with --all-tags/-a")
    if digestfile is not None:
        if all_tags:
            raise click.UsageError("--digestfile is for one digest, and --all-tags pushes several")
        require_file(digestfile)
    if not (wanted.tag or wanted.digest or all_tags or quiet):
        output.lines([f"Using default tag: {reference.DEFAULT_TAG}"])
    with arguments.open() as store, bars("Pushing", quiet=quiet) as report:
        if not quiet:
            output.lines([f"The push refers to repository [{wanted.name}]"])
            output.flush()
        done = None if quiet else _line
        made: Iterable[Pushed]
        if all_tags:
            options: PushOptions = {
                "compression": compression,
                "progress": report,
                "done": done,
                "told": output.warn,
                "with_index": with_index,
            }
            made = store.push_all(name, **options)
        else:
            pushed = store.push(
                name,
                compression=compression,
                progress=report,
                done=done,
                told=output.warn,
                with_index=with_index,
                order=order,
            )
            made = [pushed]
        for pushed in made:
            if digestfile is not None:
                write_file(digestfile, str(pushed.digest))
            if not quiet:
                output.lines([f"{pushed.tag}: digest: {pushed.digest} size: {pushed.size}"])
                output.flush()
    if quiet:
        output.lines([wanted.name if all_tags else wanted.full])


@click.command(cls=Command)
@click.argument("source")
@click.argument("target")
@click.option("-a", "--all", "all_platforms", is_flag=True, help="Copy the images for all platforms")
@click.option("--platform", metavar="OS[/ARCH[/VARIANT]]", help="Platform to take from an index (default: the host's)")
@click.option("--referrers", is_flag=True, help="Copy what is about the image, too: signatures, SBOMs")
@click.option("-q", "--quiet", is_flag=True, help="Print only the digest")
@click.pass_obj
def copy_command(
    arguments: Arguments,
    *,
    source: str,
    target: str,
    all_platforms: bool,
    platform: str | None,
    referrers: bool,
    quiet: bool,
) -> None:
    """Copy an image from a registry or an archive to another, with its digest and without a store.

    SOURCE and TARGET are docker://NAME[:TAG|@DIGEST], oci:FOLDER[:NAME], oci-archive:FILE[:NAME],
    docker-archive:FILE[:NAME], or a path. A path that is written is an OCI layout: a folder if it ends with / or is
    one, else a tar.
    """
    from layerstore import registry

    if all_platforms and platform:
        raise click.UsageError("--all and --platform cannot both be given")
    if source == "-":
        output.binary_input()
    is_stream = target == "-"
    if is_stream:
        output.binary_output()
    with bars("Copying", quiet=quiet) as report:
        copied = registry.copy(
            source,
            target,
            platform=platform or None,
            all_platforms=all_platforms,
            referrers=referrers,
            config=arguments.read_config(),
            progress=report,
            done=None if quiet or is_stream else _line,
            told=output.warn,
        )
    if not is_stream:
        output.lines([copied.digest if quiet else f"Digest: {copied.digest}"])
