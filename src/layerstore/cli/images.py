"""Commands on images: images, history, tag, rmi."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import evolve

from layerstore.cli import completion, filters, output, units
from layerstore.cli.filters import filter_option
from layerstore.cli.front import Arguments, Command
from layerstore.cli.listing import Column, Form, format_option, heading_option, show_rows
from layerstore.errors import LayerstoreError, NotFound
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.attached import AttachedImage
    from layerstore.digest import DiffID
    from layerstore.images import History, Image
    from layerstore.store import Store

_NONE: Final = "<none>"
_ALL: Final = "all"
_NO_LAYER: Final = "(no layer)"


@frozen
class Listed:
    """One line of `images`: an image under one of its names."""

    image: Image | AttachedImage
    repository: str
    tag: str
    digest: str
    trunc: bool
    lacking: Mapping[DiffID, int]

    @property
    def fetched(self) -> str:
        """How much of its layers is there."""
        lacks = [self.lacking[layer] for layer in dict.fromkeys(self.image.layers) if layer in self.lacking]
        return units.fetched(self.image.size, sum(lacks)) if lacks else _ALL


def _all_names(names: Iterable[str]) -> list[str]:
    """Names with their registries, as podman shows them."""
    from layerstore import reference

    return [reference.parse(name).full for name in names]


_IMAGE_COLUMNS: Final[Mapping[str, Column[Listed]]] = {
    "ID": Column("IMAGE ID", lambda line: units.short(line.image.id) if line.trunc else line.image.id),
    "Repository": Column("REPOSITORY", lambda line: line.repository),
    "Tag": Column("TAG", lambda line: line.tag),
    "Digest": Column("DIGEST", lambda line: line.digest),
    "CreatedSince": Column("CREATED", lambda line: units.ago(line.image.created_at)),
    "CreatedAt": Column("CREATED AT", lambda line: units.local(line.image.created_at)),
    "Size": Column("SIZE", lambda line: units.size(line.image.size)),
    "VirtualSize": Column("SIZE", lambda line: units.size(line.image.size, digits=4), listed=False),
    "Containers": Column("CONTAINERS", lambda line: str(len(getattr(line.image, "containers", ())))),
    "Fetched": Column("FETCHED", lambda line: line.fetched, listed=False),
    "SharedSize": Column("SHARED SIZE", lambda _: "N/A", listed=False),
    "UniqueSize": Column("UNIQUE SIZE", lambda _: "N/A", listed=False),
    "Store": Column("STORE", lambda line: getattr(line.image, "store", ""), listed=False),
    # podman's names; docker has none of them
    "Id": Column("ID", lambda line: line.image.id.removeprefix("sha256:"), listed=False),
    "ParentId": Column(
        "PARENT ID", lambda line: (getattr(line.image, "parent", None) or "").removeprefix("sha256:"), listed=False
    ),
    "Created": Column("CREATED", lambda line: units.ago(line.image.created_at), listed=False),
    "CreatedTime": Column("CREATED TIME", lambda line: units.local(line.image.created_at), listed=False),
    "Names": Column("NAMES", lambda line: _all_names(line.image.tags), listed=False),
    "RepoTags": Column("REPO TAGS", lambda line: _all_names(line.image.tags), listed=False),
    "RepoDigests": Column("REPO DIGESTS", lambda line: _all_names(line.image.digests), listed=False),
    "Labels": Column("LABELS", lambda line: labels_of(line.image), listed=False),
    "Dangling": Column("DANGLING", lambda line: not line.image.tags, listed=False),
    "ReadOnly": Column("R/O", lambda line: hasattr(line.image, "store"), listed=False),
}


# podman's words. What was created last comes first in the store's own order; the others begin with what is least.
_ORDERS: Final[Mapping[str, Callable[[Listed], Any] | None]] = {
    "created": None,
    "id": lambda line: line.image.id,
    "repository": lambda line: (line.repository, line.tag),
    "size": lambda line: line.image.size,
    "tag": lambda line: (line.tag, line.repository),
}


@click.command(cls=Command)
@click.argument("repository", metavar="[REPOSITORY[:TAG]]", required=False, shell_complete=completion.images)
@click.option("-a", "--all", "all_images", is_flag=True, help="Show intermediate images, too")
@click.option("--digests", is_flag=True, help="Show digests")
@filter_option(
    "-f", "--filter", known=("before", "dangling", "label", "label!", "reference", "since", "until"), verb="Show"
)
@format_option(rows=True)
@heading_option("-n")
@click.option("--no-trunc", is_flag=True, help="Show whole IDs")
@click.option("-q", "--quiet", is_flag=True, help="Show only IDs")
@click.option("--sort", type=click.Choice([*_ORDERS]), default="created", help="Order of the list (created)")
@click.pass_obj
def images_command(
    arguments: Arguments,
    *,
    repository: str | None,
    all_images: bool,
    digests: bool,
    given: tuple[tuple[str, str], ...],
    form: Form,
    bare: bool,
    no_trunc: bool,
    quiet: bool,
    sort: str,
) -> None:
    """List images, newest first."""
    wanted = filters.grouped(given)
    names = [*wanted.pop("reference", ()), *([] if repository is None else [repository])]
    with arguments.open() as store:
        images = _all(store)
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
        lacking = store.lacking()
        usual = f"{{{{.Repository}}}}\t{{{{.Tag}}}}{digest}\t{{{{.ID}}}}\t{{{{.CreatedSince}}}}\t{{{{.Size}}}}"
        usual += "\t{{.Fetched}}" if lacking else ""
        each = digests or (form.template is not None and "Digest" in form.template.source)
        lines = (line for image in chosen for line in _lines(image, names, lacking, trunc=not no_trunc, digests=each))
        order = _ORDERS[sort]
        ordered = lines if order is None else sorted(lines, key=order)
        show_rows(ordered, _IMAGE_COLUMNS, form, usual, "{{.ID}}" if quiet else None, bare=bare)


def _all(store: Store) -> list[Image | AttachedImage]:
    """The images of the store, and those of attached stores under the names that no image of its own has.

    What is borrowed has no name of its own: then it is the other store's that is shown.
    """
    own = store.images()
    taken = {name for image in own for name in image.tags}
    known = {image.id for image in own}
    lent = []
    for image in store.attached_images():
        left = tuple(tag for tag in image.tags if tag not in taken)
        if left or image.id not in known:
            lent.append(evolve(image, tags=left))
    shown = {image.id for image in lent}
    kept = [image for image in own if image.tags or image.digests or image.id not in shown]
    return [*kept, *lent] if not lent else sorted([*kept, *lent], key=_age, reverse=True)


def _age(image: Image | AttachedImage) -> tuple[bool, datetime | None]:
    return image.created_at is not None, image.created_at


def _earlier(first: datetime | None, second: datetime | None) -> bool:
    """Whether the first of two moments is earlier; one that is not known is earlier than any."""
    if second is None:
        return False
    return first is None or first < second


def labels_of(image: Image | AttachedImage | None) -> dict[str, str]:
    """The labels that an image's config gives."""
    config = image.config.get("config") if image is not None else None
    labels = config.get("Labels") if isinstance(config, Mapping) else None
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, Mapping) else {}


def _fits(image: Image | AttachedImage, wanted: Mapping[str, list[str]], *, is_parent: bool) -> bool:
    """Whether an image passes the filters that look at nothing but itself."""
    # Most lists ask for no labels, and reading each config would cost more than all the rest.
    labels = labels_of(image) if wanted.get("label") or wanted.get("label!") else {}
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


def _lines(
    image: Image | AttachedImage, names: Iterable[str], lacking: Mapping[DiffID, int], *, trunc: bool, digests: bool
) -> Iterator[Listed]:
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
                yield Listed(image, repository, tag, digest, trunc, lacking)
    if not tagged and not others and not wanted:
        yield Listed(image, _NONE, _NONE, _NONE, trunc, lacking)


@frozen
class Step:
    """One line of `history`. `folder`: where the files of its layer lie; `source`: the line of which Dockerfile."""

    entry: History
    folder: str
    source: str
    trunc: bool
    human: bool
    lacking: Mapping[DiffID, int]

    @property
    def fetched(self) -> str:
        """How much of its layer is there."""
        lacks = None if self.entry.diff_id is None else self.lacking.get(self.entry.diff_id)
        return _ALL if lacks is None else units.fetched(self.entry.size, lacks)

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
    "Created": Column("CREATED", lambda step: units.ago(step.entry.created_at), listed=False),
    "CreatedBy": Column("CREATED BY", lambda step: step.created_by),
    "Size": Column("SIZE", lambda step: units.size(step.entry.size) if step.human else str(step.entry.size)),
    "Comment": Column("COMMENT", lambda step: units.one_line(step.entry.comment)),
    "Layer": Column("LAYER", lambda step: step.layer),
    "Folder": Column("FOLDER", lambda step: step.folder),
    "Fetched": Column("FETCHED", lambda step: step.fetched, listed=False),
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
        lacking = store.lacking()
        last = f"{{{{.Fetched}}}}\t{last}" if layers and lacking.keys() & set(found.layers) else last
        last = f"{{{{.Source}}}}\t{last}" if layers and any(sources.values()) else last
        usual = f"{{{{.ID}}}}\t{created}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{last}"
        steps = (
            Step(entry, folder, sources.get(number, ""), not no_trunc, human, lacking)
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
@click.argument("images", metavar="IMAGE...", nargs=-1, shell_complete=completion.images)
@click.option("-a", "--all", "all_images", is_flag=True, help="Remove all images that no container stands on")
@click.option(
    "-f", "--force", is_flag=True, help="Remove by its ID what has several names; what is not there is no failure"
)
@click.option("-i", "--ignore", is_flag=True, help="An image that is not there is no failure")
@click.pass_obj
def rmi_command(arguments: Arguments, *, images: tuple[str, ...], all_images: bool, force: bool, ignore: bool) -> int:
    """Remove one or more images, or names of them."""
    if not images and not all_images:
        raise click.UsageError("missing argument 'IMAGE...'")
    if images and all_images:
        raise click.UsageError("--all needs no image beside it")
    failed = 0
    with arguments.open() as store:
        # Newest first: what stands on another goes before it.
        for image in images or [image.id for image in store.images()]:
            try:
                output.lines(map(str, store.remove_image(image, force=force or all_images)))
            except NotFound as problem:
                if not (ignore or all_images):  # one may have gone with another
                    output.error(problem)
                    # As in docker, with --force it is no failure that what is to be gone is not there.
                    failed = failed or int(not force)
            except LayerstoreError as problem:
                output.error(problem)
                failed = 1
    return failed


@click.command(cls=Command)
@click.argument("image", shell_complete=completion.images)
@click.argument("names", metavar="[NAME[:TAG]...]", nargs=-1)
@click.pass_obj
def untag_command(arguments: Arguments, *, image: str, names: tuple[str, ...]) -> None:
    """Take names from an image, or all that it has. The image stays until it is removed, or pruned."""
    with arguments.open() as store:
        found = store.image(image)
        for name in names or found.tags:
            if store.image(name).id != found.id:
                raise NotFound(f"{name} is no name of {image}", remedy="`layerstore images` shows the names of images.")
            store.untag(name)


@click.command(cls=Command)
@click.argument("image", shell_complete=completion.images)
@click.pass_obj
def exists_command(arguments: Arguments, *, image: str) -> int:
    """Whether there is such an image: the exit code is 0, or 1."""
    with arguments.open() as store:
        return _exists(store, image)


def _exists(store: Store, image: str) -> int:
    try:
        store.image(image)
    except NotFound:
        return 1
    return 0


@click.command(cls=Command)
@click.argument("image", shell_complete=completion.images)
@click.option("--no-trunc", is_flag=True, help="Show whole IDs")
@click.option("--whatrequires", "above", is_flag=True, help="Show the images that stand on it instead")
@click.pass_obj
def tree_command(arguments: Arguments, *, image: str, no_trunc: bool, above: bool) -> None:
    """Show the layers of an image, lowest first, with their sizes and the images that end with each."""
    with arguments.open() as store:
        found = store.image(image)
        if above:
            count = len(found.chain_ids)
            upper = [one for one in store.images() if one.id != found.id and one.chain_ids[:count] == found.chain_ids]
            names = (" ".join(one.tags) or "<none>" for one in upper)
            output.lines(
                f"{one.id if no_trunc else units.short(one.id)} {name}" for one, name in zip(upper, names, strict=True)
            )
            return
        others: dict[str, list[str]] = {}
        for other in store.images():
            if other.layers:
                others.setdefault(other.layers[-1], []).extend(other.tags)
        lines = [f"Image ID: {found.id if no_trunc else units.short(found.id)}", f"Tags:     {' '.join(found.tags)}"]
        lines += [f"Size:     {units.size(found.size)}", "Image Layers"]
        sizes = {entry.diff_id: entry.size for entry in found.history if entry.diff_id is not None}
        for number, layer in enumerate(found.layers, 1):
            branch = "└── " if number == len(found.layers) else "├── "
            tops = f" Top Layer of: {' '.join(others[layer])}" if others.get(layer) else ""
            name = layer if no_trunc else units.short(layer)
            lines.append(f"{branch}ID: {name} Size: {units.size(sizes.get(layer, 0))}{tops}")
        output.lines(lines)
