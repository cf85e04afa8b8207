"""Commands that move images in and out: load, save, import, export."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from layerstore.cli import completion, output
from layerstore.cli.access import platform_taken
from layerstore.cli.front import Arguments, Command
from layerstore.cli.progress import bars
from layerstore.cli.waiting import tell_waits
from layerstore.errors import KernelError, LayerstoreError, remedy_for

if TYPE_CHECKING:
    from layerstore.containers import Container

_STANDARD = "-"


def _source(name: str | None) -> str:
    """Where an archive comes from: a path, or standard input, which has to be there. As in docker, "" is none."""
    if name not in (None, "", _STANDARD):
        return str(name)
    output.binary_input()
    return _STANDARD


def _target(name: str | None) -> str:
    """Where an archive goes to, in the same way."""
    if name not in (None, "", _STANDARD):
        return str(name)
    output.binary_output()
    return _STANDARD


@click.command(cls=Command)
@click.argument("given", metavar="[FILE] [IMAGE...]", nargs=-1)
@click.option(
    "-i", "--input", "input_file", metavar="FILE", type=click.Path(), help="Read FILE; then all arguments are images"
)
@click.option("--name", "names", metavar="NAME", multiple=True, help="Name the image so, and not as the archive does")
@click.option("--platform", metavar="OS[/ARCH[/VARIANT]]", help="Platform to take from an index (default: the host's)")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.pass_obj
def load_command(
    arguments: Arguments,
    *,
    given: tuple[str, ...],
    input_file: str | None,
    names: tuple[str, ...],
    platform: str | None,
    quiet: bool,
) -> None:
    """Load images from an archive, a folder, or standard input: all of them, or each IMAGE.

    FILE is a docker-archive or an OCI layout, as a tar, compressed or not, or as a folder; `-` is standard input.
    IMAGE is a name or an ID that the archive has.
    """
    file, only = (input_file, given) if input_file is not None or not given else (given[0], given[1:])
    source = _source(file)
    with arguments.open() as store, bars("Loading", quiet=quiet) as report:
        images = store.load(source, only=only, names=names, platform=platform or None, progress=report)
    for image in images:
        for name, other in image.taken.items():
            output.warn(f"The image {name} already exists, renaming the old one with ID {other} to empty string")
        output.lines(f"Loaded image: {name}" for name in image.names)
        if not image.names:
            output.lines([f"Loaded image ID: {image.id}"])


@click.command(cls=Command)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, shell_complete=completion.images)
@click.option(
    "-o",
    "--output",
    "target",
    metavar="FILE",
    type=click.Path(),
    help="Write FILE; it is a folder if it exists as one or ends with /",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["docker-archive", "oci", "oci-archive", "oci-dir"]),
    default="docker-archive",
    show_default=True,
    help="Kind of archive; oci-archive is a file, and oci-dir a folder, whatever the name",
)
@click.option("--compression", type=click.Choice(["none", "gzip", "zstd"]), help="Compression of the layers")
@click.option("-m", "--multi-image-archive", "several", is_flag=True, hidden=True, help="As it is anyway")
@click.option("--platform", hidden=True, help="docker's: an image of layerstore is of one platform")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.pass_obj
def save_command(
    arguments: Arguments,
    *,
    images: tuple[str, ...],
    target: str | None,
    form: str,
    compression: str | None,
    several: bool,
    platform: str | None,
    quiet: bool,
) -> None:
    """Save one or more images to an archive, a folder, or standard output."""
    if form == "oci-dir" and target in (None, "", _STANDARD):
        raise click.UsageError("--format oci-dir writes a folder: name it with -o")
    written = _target(target)
    folder = written.endswith("/") or os.path.isdir(written)
    if form.startswith("oci-"):
        form, folder = "oci", form == "oci-dir"
    with arguments.open() as store:
        if not quiet:
            tell_waits(store, lambda: (layer for image in images for layer in store.image(image).layers))
        with bars("Saving", quiet=quiet) as report:
            store.save(images, written, format=form, folder=folder, compression=compression, progress=report)


@click.command(cls=Command)
@click.argument("file", metavar="FILE|-")
@click.argument("reference", metavar="[REPOSITORY[:TAG]]", required=False)
@click.option(
    "-c",
    "--change",
    "changes",
    metavar="INSTRUCTION",
    multiple=True,
    help="A Dockerfile instruction for the image's config",
)
@click.option("-m", "--message", metavar="TEXT", default="", help="What this image is")
@click.option("--platform", metavar="OS[/ARCH[/VARIANT]]", help="Platform of the image (default: the host's)")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress")
@click.pass_obj
@platform_taken
def import_command(
    arguments: Arguments,
    *,
    file: str,
    reference: str | None,
    changes: tuple[str, ...],
    message: str,
    platform: str | None,
    quiet: bool,
) -> None:
    """Create an image of one layer from the tar of a filesystem, and print its ID."""
    if file.startswith(("http://", "https://")):
        raise click.UsageError("import reads a file or standard input: fetch the URL first, and pipe it in")
    source = _source(file)
    with arguments.open() as store, bars("Importing", quiet=quiet) as report:
        image = store.import_tar(
            source, reference, message=message, instructions=changes, platform=platform or None, progress=report
        )
    output.lines([image.id])


@click.command(cls=Command)
@click.argument("container", shell_complete=completion.containers)
@click.option(
    "-o", "--output", "target", metavar="FILE", type=click.Path(), help="Write FILE instead of standard output"
)
@click.pass_obj
def export_command(arguments: Arguments, *, container: str, target: str | None) -> None:
    """Write a container's filesystem as one tar."""
    written = _target(target)
    with arguments.open() as store:
        box = store.container(container)
        tell_waits(store, lambda: () if box.image is None else box.image.layers)
        if written == _STANDARD:
            box.export(output.write_bytes)
        else:
            _export_to(box, Path(os.path.realpath(written)))


def _export_to(container: Container, target: Path) -> None:
    """Write beside the target and rename, so that no half file bears its name. A device or pipe is written to."""
    with _called(target):
        is_folder, is_other = target.is_dir(), target.exists() and not target.is_file()
    if is_folder:
        raise LayerstoreError(f"{target} is a folder", remedy="Name a file with -o.", path=target)
    if is_other:
        with _called(target), target.open("wb") as stream:
            container.export(stream.write)
        return
    unfinished = target.with_name(f".{target.name[:60]}.{os.getpid()}.part")
    try:
        with _called(target), unfinished.open("xb") as stream:
            container.export(stream.write)
        with _called(target):
            unfinished.replace(target)
    except BaseException:
        with suppress(OSError):  # it may be what could not be made
            unfinished.unlink()
        raise


@contextmanager
def _called(target: Path) -> Iterator[None]:
    """While inside, an error tells of the target, and not of the file that takes its name at the end."""
    try:
        yield
    except OSError as error:
        remedy = remedy_for(error.errno, elsewhere=True)
        raise KernelError("write", error.errno or errno.EIO, path=target, remedy=remedy) from error
