"""Commands on images: images, history, tag, rmi."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from layerstore.cli import completion, filters, output, units
from layerstore.cli.filters import filter_option
from layerstore.cli.front import Arguments, Command
from layerstore.cli.listing import Column, Form, format_option, show_rows
from layerstore.errors import LayerstoreError
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.images import History, Image
    from layerstore.store import Store

_NONE: Final = "<none>"
_NO_LAYER: Final = "(no layer)"


@frozen
class Listed:
    """One line of `images`: an image under one of its names."""

    image: Image
    repository: str
    tag: str
    digest: str
    trunc: bool


_IMAGE_COLUMNS: Final[Mapping[str, Column[Listed]]] = {
    "ID": Column("IMAGE ID", lambda line: units.short(line.image.id) if line.trunc else line.image.id),
    "Repository": Column("REPOSITORY", lambda line: line.repository),
    "Tag": Column("TAG", lambda line: line.tag),
    "Digest": Column("DIGEST", lambda line: line.digest),
    "CreatedSince": Column("CREATED", lambda line: units.ago(line.image.created_at)),
    "CreatedAt": Column("CREATED AT", lambda line: units.local(line.image.created_at)),
    "Size": Column("SIZE", lambda line: units.size(line.image.size)),
    "VirtualSize": Column("SIZE", lambda line: units.size(line.image.size, digits=4), listed=False),
    "Containers": Column("CONTAINERS", lambda line: str(len(line.image.containers))),
    "SharedSize": Column("SHARED SIZE", lambda _: "N/A", listed=False),
    "UniqueSize": Column("UNIQUE SIZE", lambda _: "N/A", listed=False),
}


@click.command(cls=Command)
@click.argument("repository", metavar="[REPOSITORY[:TAG]]", required=False, shell_complete=completion.images)
@click.option("-a", "--all", "all_images", is_flag=True, help="Show intermediate images, too")
@click.option("--digests", is_flag=True, help="Show digests")
@filter_option(
    "-f", "--filter", known=("before", "dangling", "label", "label!", "reference", "since", "until"), verb="Show"
)
@format_option(rows=True)
@click.option("--no-trunc", is_flag=True, help="Show whole IDs")
@click.option("-q", "--quiet", is_flag=True, help="Show only IDs")
@click.pass_obj
def images_command(
    arguments: Arguments,
    *,
    repository: str | None,
    all_images: bool,
    digests: bool,
    given: tuple[tuple[str, str], ...],
    form: Form,
    no_trunc: bool,
    quiet: bool,
) -> None:
    """List images, newest first."""
    wanted = filters.grouped(given)
    names = [*wanted.pop("reference", ()), *([] if repository is None else [repository])]
    with arguments.open() as store:
        images = store.images()
        bounds = {
            name: [store.image(value).created_at for value in wanted.pop(name, ())] for name in ("before", "since")
        }
        parents = {image.parent for image in images}
        chosen = [
            image
            for image in images
            if _fits(image, wanted, is_parent=image.id in parents)
            and all(_earlier(image.created_at, bound) for bound in bounds["before"])
            and all(_earlier(bound, image.created_at) for bound in bounds["since"])
            and (all_images or image.tags or image.digests or image.id not in parents)
        ]
        digest = "\t{{.Digest}}" if digests else ""
        usual = f"{{{{.Repository}}}}\t{{{{.Tag}}}}{digest}\t{{{{.ID}}}}\t{{{{.CreatedSince}}}}\t{{{{.Size}}}}"
        each = digests or (form.template is not None and "Digest" in form.template.source)
        lines = (line for image in chosen for line in _lines(image, names, trunc=not no_trunc, digests=each))
        show_rows(lines, _IMAGE_COLUMNS, form, usual, "{{.ID}}" if quiet else None)


def _earlier(first: datetime | None, second: datetime | None) -> bool:
    """Whether the first of two moments is earlier; one that is not known is earlier than any."""
    if second is None:
        return False
    return first is None or first < second


def labels_of(image: Image | None) -> dict[str, str]:
    """The labels that an image's config gives."""
    config = image.config.get("config") if image is not None else None
    labels = config.get("Labels") if isinstance(config, Mapping) else None
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, Mapping) else {}


def _fits(image: Image, wanted: Mapping[str, list[str]], *, is_parent: bool) -> bool:
    """Whether an image passes the filters that look at nothing but itself."""
    labels = labels_of(image)
    dangling = not image.tags and (bool(image.digests) or not is_parent)
    return (
        filters.any_of(
            wanted.get("dangling", ()),
            # docker shows what has but digests on either side.
            lambda value: dangling if filters.truth("dangling", value) else not dangling or bool(image.digests),
        )
        and filters.has_labels(labels, wanted.get("label", ()))
        and not any(filters.has_labels(labels, [label]) for label in wanted.get("label!", ()))
        and all(_earlier(image.created_at, filters.time("until", value)) for value in wanted.get("until", ()))
    )


def _lines(image: Image, names: Iterable[str], *, trunc: bool, digests: bool) -> Iterator[Listed]:
    """One line a name that fits `names`; one without a name for an image that has none.

    `digests`: one for each digest that the image has in the repository of the name. A repository in which it has
    digests alone has a line without a tag.
    """
    from layerstore import reference

    wanted = list(names)

    def fits(repository: str, tag: str) -> bool:
        return not wanted or any(filters.matches_reference(name, repository, tag) for name in wanted)

    known: dict[str, list[str]] = {}
    for text in image.digests:
        name, _, digest = text.partition("@")
        known.setdefault(name, []).append(digest)
    tagged = [reference.split(tag) for tag in image.tags]
    others = [(name, _NONE) for name in known if name not in {name for name, _ in tagged}]
    for repository, tag in (*tagged, *others):
        if fits(repository, tag):
            for digest in (digests and known.get(repository)) or [_NONE]:
                yield Listed(image, repository, tag, digest, trunc)
    if not tagged and not others and not wanted:
        yield Listed(image, _NONE, _NONE, _NONE, trunc)


@frozen
class Step:
    """One line of `history`. `folder`: where the files of its layer lie; `source`: the line of which Dockerfile."""

    entry: History
    folder: str
    source: str
    trunc: bool
    human: bool

    @property
    def image(self) -> str:
        """The image that ended with this line, if the store has it."""
        if self.entry.image is None:
            return "<missing>"
        return units.short(self.entry.image) if self.trunc else self.entry.image

    @property
    def created_by(self) -> str:
        text = units.one_line(self.entry.created_by)
        return units.ellipsis(text, 45) if self.trunc else text

    @property
    def layer(self) -> str:
        if self.entry.diff_id is None:
            return _NO_LAYER
        return units.short(self.entry.diff_id) if self.trunc else self.entry.diff_id


_HISTORY_COLUMNS: Final[Mapping[str, Column[Step]]] = {
    "ID": Column("IMAGE", lambda step: step.image),
    "CreatedSince": Column("CREATED", lambda step: units.ago(step.entry.created_at)),
    "CreatedAt": Column("CREATED AT", lambda step: units.rfc3339(step.entry.created_at)),
    "CreatedBy": Column("CREATED BY", lambda step: step.created_by),
    "Size": Column("SIZE", lambda step: units.size(step.entry.size) if step.human else str(step.entry.size)),
    "Comment": Column("COMMENT", lambda step: units.one_line(step.entry.comment)),
    "Layer": Column("LAYER", lambda step: step.layer),
    "Folder": Column("FOLDER", lambda step: step.folder),
    "Source": Column("FROM", lambda step: step.source or "-", listed=False),
}


@click.command(cls=Command)
@click.argument("image", shell_complete=completion.images)
@format_option(rows=True)
@click.option("-H", "--human/--no-human", default=True, help="Print sizes and times for people (the default)")
@click.option("--layers", is_flag=True, help="Show which layer and folder each line has made")
@click.option("--no-trunc", is_flag=True, help="Show whole texts and IDs")
@click.option("-q", "--quiet", is_flag=True, help="Show only IDs")
@click.pass_obj
def history_command(
    arguments: Arguments, *, image: str, form: Form, human: bool, layers: bool, no_trunc: bool, quiet: bool
) -> None:
    """Show the history of an image, newest line first.

    With --layers, lines that were built in this store are told with their place in the Dockerfile, too.
    """
    created = "{{.CreatedSince}}" if human else "{{.CreatedAt}}"
    with arguments.open() as store:
        found = store.image(image)
        sources = _sources(store, found) if layers or form.template is not None else {}
        last = "{{.Layer}}\t{{.Folder}}" if layers else "{{.Comment}}"
        last = f"{{{{.Source}}}}\t{last}" if layers and any(sources.values()) else last
        usual = f"{{{{.ID}}}}\t{created}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{last}"
        steps = (
            Step(entry, folder, sources.get(number, ""), not no_trunc, human)
            for number, entry, folder in _with_folders(found)
        )
        show_rows(steps, _HISTORY_COLUMNS, form, usual, "{{.ID}}" if quiet else None)


def _sources(store: Store, image: Image) -> dict[int, str]:
    """The place in a Dockerfile of each step of an image, by its number from 1; "" if nobody knows."""
    from layerstore.looking.stacks import stack_of

    return {line.number: line.where for line in stack_of(store, image).lines}


def _with_folders(image: Image) -> Iterator[tuple[int, History, str]]:
    """The steps of an image, newest first, with their numbers and the folder of each one's layer."""
    folders = image.folders
    history = image.history
    for number, entry in zip(range(len(history), 0, -1), reversed(history), strict=True):
        yield number, entry, _NO_LAYER if entry.chain_id is None else str(folders[entry.chain_id])


@click.command(cls=Command)
@click.argument("source", metavar="SOURCE_IMAGE[:TAG]", shell_complete=completion.images)
@click.argument("target", metavar="TARGET_IMAGE[:TAG]")
@click.pass_obj
def tag_command(arguments: Arguments, *, source: str, target: str) -> None:
    """Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE."""
    with arguments.open() as store:
        store.tag(source, target)


@click.command(cls=Command)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, shell_complete=completion.images)
@click.option("-f", "--force", is_flag=True, help="Remove an image by its ID although it has several names")
@click.pass_obj
def rmi_command(arguments: Arguments, *, images: tuple[str, ...], force: bool) -> int:
    """Remove one or more images, or names of them."""
    failed = 0
    with arguments.open() as store:
        for image in images:
            try:
                output.lines(map(str, store.remove_image(image, force=force)))
            except LayerstoreError as problem:
                output.error(problem)
                failed = 1
    return failed
