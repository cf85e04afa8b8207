"""The commands `manifest`, `tags` and `search`: what registries have, without a store."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

import click
from attrs import evolve

from layerstore.cli import filters, output
from layerstore.cli.access import access_taken
from layerstore.cli.filters import filter_option
from layerstore.cli.front import Arguments, Command, Group
from layerstore.cli.listing import Column, Form, format_option, show_rows
from layerstore.cli.units import one_line
from layerstore.errors import NotFound

if TYPE_CHECKING:
    from layerstore.manifests import Manifest
    from layerstore.registry import Hit

manifest_command = Group(
    (
        ("exists", "repositories:exists_command", "Whether a registry has such a manifest: the exit code says it"),
        ("inspect", "repositories:inspect_command", "Show a manifest, or a list of manifests, of a registry"),
    ),
    name="manifest",
    help="Commands on the manifests of registries",
)


@click.command(cls=Command)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("--insecure", is_flag=True, help="Check no certificate, and speak plain HTTP if need be")
@click.option("-v", "--verbose", is_flag=True, help="Show of each manifest digest, media type, size and platform, too")
@click.pass_obj
@access_taken(of="name")
def inspect_command(arguments: Arguments, *, name: str, insecure: bool, verbose: bool) -> None:
    """Show the manifest, or the list of manifests, that a name in a registry leads to."""
    from layerstore import reference, registry
    from layerstore.manifests import read

    config = arguments.read_config()
    if insecure:
        config = evolve(config, access=evolve(config.access, verify=False))
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


@click.command(cls=Command)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.pass_obj
@access_taken(of="name")
def exists_command(arguments: Arguments, *, name: str) -> int:
    """Whether a registry has what a name means: the exit code is 0, or 1."""
    from layerstore import registry

    try:
        registry.manifest(name, config=arguments.read_config())
    except NotFound:
        return 1
    return 0


def _detailed(name: str, found: Manifest, platform: Mapping[str, object] | None) -> dict[str, object]:
    """As docker has it (docker/cli, cli/manifest/types.ImageManifest). A platform is told where a list tells it."""
    from layerstore.manifests.media_types import DOCKER_MANIFEST_TYPE

    descriptor: dict[str, object] = {"mediaType": found.media_type, "digest": found.digest, "size": found.size}
    if platform is not None:
        descriptor["platform"] = platform
    kind = "SchemaV2Manifest" if found.media_type == DOCKER_MANIFEST_TYPE else "OCIManifest"
    raw = b64encode(found.data).decode()
    return {"Ref": name, "Descriptor": descriptor, "Raw": raw, kind: json.loads(found.data)}


_TAGS: Final[Mapping[str, Column[tuple[str, str]]]] = {
    "Name": Column("NAME", lambda found: found[0]),
    "Tag": Column("TAG", lambda found: found[1]),
}


@click.command(cls=Command)
@click.argument("name")
@format_option(rows=True)
@click.pass_obj
@access_taken(of="name")
def tags_command(arguments: Arguments, *, name: str, form: Form) -> None:
    """List the tags that a repository has in its registry."""
    _show_tags(arguments, name, form, None)


def _show_tags(arguments: Arguments, name: str, form: Form, limit: int | None) -> None:
    """The tags, one a line, unless another form is asked for; at most so many."""
    from layerstore import reference, registry

    shown = reference.parse(name).familiar_name
    found = islice(registry.tags(name, config=arguments.read_config()), limit)
    quiet = None if form.is_table else "{{.Tag}}"
    show_rows(((shown, tag) for tag in found), _TAGS, form, "{{.Name}}\t{{.Tag}}", quiet)


_LONGEST: Final = 45
_RESULTS: Final = 25
_USUAL: Final = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
_COLUMNS: Final[Mapping[str, Column[Hit]]] = {
    "Name": Column("NAME", lambda hit: hit.name),
    "Description": Column("DESCRIPTION", lambda hit: hit.description),
    "StarCount": Column("STARS", lambda hit: str(hit.stars)),
    "IsOfficial": Column("OFFICIAL", lambda hit: "[OK]" if hit.is_official else ""),
    "IsAutomated": Column("AUTOMATED", lambda hit: "[OK]" if hit.is_automated else ""),
    # podman's names
    "Stars": Column("STARS", lambda hit: str(hit.stars), listed=False),
    "Official": Column("OFFICIAL", lambda hit: "[OK]" if hit.is_official else "", listed=False),
    "Automated": Column("AUTOMATED", lambda hit: "[OK]" if hit.is_automated else "", listed=False),
}


@click.command(cls=Command)
@click.argument("term")
@filter_option("-f", "--filter", known=("is-official", "is-automated", "stars"), verb="Show")
@format_option(rows=True)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, 100), help=f"The most results ({_RESULTS}; of --list-tags all)"
)
@click.option("--list-tags", is_flag=True, help="List the tags of the repository TERM, as `tags` does")
@click.option("--compatible", is_flag=True, hidden=True, help="As it is anyway")
@click.option("--no-trunc", is_flag=True, help="Show whole descriptions")
@click.pass_obj
@access_taken(of="term")
def search_command(
    arguments: Arguments,
    *,
    term: str,
    list_tags: bool,
    compatible: bool,
    given: tuple[tuple[str, str], ...],
    form: Form,
    limit: int | None,
    no_trunc: bool,
) -> None:
    """Search Docker Hub for images, or another registry: HOST/WORD.

    A registry without a search is asked for the list of its repositories.
    """
    from layerstore import registry

    if list_tags:
        if given:
            raise click.UsageError(
                "--filter is of what is found by a word: --list-tags shows the tags of one repository"
            )
        _show_tags(arguments, term, form, limit)
        return
    wanted = filters.grouped(given)
    found = registry.search(term, limit=limit or _RESULTS, config=arguments.read_config())
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
