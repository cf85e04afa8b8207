"""The commands `manifest`, `tags` and `search`: what registries have, without a store."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import click
from attrs import evolve

from layerstore.cli import filters, output
from layerstore.cli.filters import filter_option
from layerstore.cli.front import Arguments, Command, Group
from layerstore.cli.listing import Column, Form, format_option, show_rows
from layerstore.cli.units import one_line

if TYPE_CHECKING:
    from layerstore.manifests import Manifest
    from layerstore.registry import Hit

manifest_command = Group(
    (("inspect", "repositories:inspect_command", "Show a manifest, or a list of manifests, of a registry"),),
    name="manifest",
    help="Commands on the manifests of registries",
)


@click.command(cls=Command)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("-v", "--verbose", is_flag=True, help="Show of each manifest digest, media type, size and platform, too")
@click.pass_obj
def inspect_command(arguments: Arguments, *, name: str, verbose: bool) -> None:
    """Show the manifest, or the list of manifests, that a name in a registry leads to."""
    from layerstore import reference, registry
    from layerstore.manifests import read

    config = arguments.read_config()
    found = registry.manifest(name, config=config)
    content: object = json.loads(found.data)
    if verbose:
        wanted = reference.parse(name)
        shown = wanted.full if wanted.digest is None else f"{wanted.name}@{wanted.digest}"
        if found.is_index:
            content = [
                _detailed(
                    f"{shown}@{entry.digest}",
                    registry.manifest(f"{wanted.name}@{entry.digest}", config=config),
                    entry.platform,
                )
                for entry in read(found).manifests
            ]
        else:
            content = _detailed(shown, found, None)
    output.lines([json.dumps(content, indent="\t", ensure_ascii=False)])


def _detailed(name: str, found: Manifest, platform: Mapping[str, object] | None) -> dict[str, object]:
    """As docker has it (docker/cli, cli/manifest/types.ImageManifest). A platform is told where a list tells it."""
    from layerstore.manifests.media_types import DOCKER_MANIFEST_TYPE

    descriptor: dict[str, object] = {"mediaType": found.media_type, "digest": found.digest, "size": found.size}
    if platform is not None:
        descriptor["platform"] = platform
    kind = "SchemaV2Manifest" if found.media_type == DOCKER_MANIFEST_TYPE else "OCIManifest"
    raw = b64encode(found.data).decode()
    return {"Ref": name, "Descriptor": descriptor, "Raw": raw, kind: json.loads(found.data)}


@click.command(cls=Command)
@click.argument("name")
@click.pass_obj
def tags_command(arguments: Arguments, *, name: str) -> None:
    """List the tags that a repository has in its registry."""
    from layerstore import registry

    output.lines(registry.tags(name, config=arguments.read_config()))


_LONGEST: Final = 45
_USUAL: Final = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
_COLUMNS: Final[Mapping[str, Column[Hit]]] = {
    "Name": Column("NAME", lambda hit: hit.name),
    "Description": Column("DESCRIPTION", lambda hit: hit.description),
    "StarCount": Column("STARS", lambda hit: str(hit.stars)),
    "IsOfficial": Column("OFFICIAL", lambda hit: "[OK]" if hit.is_official else ""),
    "IsAutomated": Column("AUTOMATED", lambda hit: "[OK]" if hit.is_automated else ""),
}


@click.command(cls=Command)
@click.argument("term")
@filter_option("-f", "--filter", known=("is-official", "is-automated", "stars"), verb="Show")
@format_option(rows=True)
@click.option("--limit", type=click.IntRange(1, 100), default=25, show_default=True, help="The most results")
@click.option("--no-trunc", is_flag=True, help="Show whole descriptions")
@click.pass_obj
def search_command(
    arguments: Arguments,
    *,
    term: str,
    given: tuple[tuple[str, str], ...],
    form: Form,
    limit: int,
    no_trunc: bool,
) -> None:
    """Search Docker Hub for images, or another registry: HOST/WORD.

    A registry without a search is asked for the list of its repositories.
    """
    from layerstore import registry

    wanted = filters.grouped(given)
    found = registry.search(term, limit=limit, config=arguments.read_config())
    for value in wanted.get("is-official", ()):
        found = [hit for hit in found if hit.is_official == filters.truth("is-official", value)]
    for value in wanted.get("is-automated", ()):
        found = [hit for hit in found if hit.is_automated == filters.truth("is-automated", value)]
    for value in wanted.get("stars", ()):
        found = [hit for hit in found if hit.stars >= _stars(value)]
    shown = found if no_trunc else [evolve(hit, description=_short(hit.description)) for hit in found]
    show_rows(shown, _COLUMNS, form, _USUAL)


def _stars(value: str) -> int:
    if not (value.isascii() and value.isdecimal()):
        raise click.UsageError(f"filter stars is a number, not {value!r}")
    return int(value)


def _short(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
