"""Commands that remove what nobody needs: prune, image prune, container prune. `volume prune` is in `volumes`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

import click

from layerstore import reference
from layerstore.cli import filters, output, units
from layerstore.cli.filters import filter_option
from layerstore.cli.front import Arguments, Command
from layerstore.cli.images import labels_of

if TYPE_CHECKING:
    from layerstore.build.cache import PrunedCache
    from layerstore.containers import Container
    from layerstore.images import Image
    from layerstore.pruning import Pruned
    from layerstore.store import Store
    from layerstore.volumes import Volume

_Labels: TypeAlias = "Callable[[Container], Mapping[str, str]]"

_FILTERS: Final = ("label", "label!", "reference", "until")
_VOLUMES: Final = "all anonymous volumes that no container uses"
_CONTAINERS: Final = "all containers that neither run nor are mounted, and what was written into them"


def _images(*, all_images: bool) -> str:
    return f"all images without {'a container' if all_images else 'a name and without a container'}"


@click.command("prune", cls=Command)
@click.option("-a", "--all", "all_images", is_flag=True, help="Remove all unused images, not only those without a name")
@filter_option("--filter", known=_FILTERS, verb="Remove")
@click.option("-f", "--force", is_flag=True, help="Do not ask")
@click.option("--images", "images_only", is_flag=True, help="Remove images only, and no containers")
@click.option("--volumes", is_flag=True, help="Remove anonymous volumes that no container uses, too")
@click.pass_obj
def prune_command(
    arguments: Arguments,
    *,
    all_images: bool,
    given: tuple[tuple[str, str], ...],
    force: bool,
    images_only: bool,
    volumes: bool,
) -> int:
    """Remove containers that neither run nor are mounted, unused images, and layers that belong to neither.

    What builds remember goes, too: see `builder prune`.
    """
    if volumes and (odd := next((name for name, _ in given if name in ("until", "reference")), None)):
        raise click.UsageError(f'the filter "{odd}" is not supported with --volumes')
    # What builds remember has neither labels nor names.
    cache = not images_only and all(name == "until" for name, _ in given)
    doomed = [
        *([] if images_only else [_CONTAINERS]),
        *([_VOLUMES] if volumes else []),
        _images(all_images=all_images),
        *([] if not cache else ["all build cache" if all_images else "all build cache that no image has"]),
    ]
    return _prune(
        arguments,
        doomed,
        given,
        force=force,
        all_images=all_images,
        containers=not images_only,
        volumes=volumes,
        cache=cache,
    )


@click.command("prune", cls=Command)
@click.option("-a", "--all", "all_images", is_flag=True, help="Remove all unused images, not only those without a name")
@filter_option("--filter", known=(*_FILTERS, "dangling"), verb="Remove")
@click.option("-f", "--force", is_flag=True, help="Do not ask")
@click.pass_obj
def image_prune_command(
    arguments: Arguments, *, all_images: bool, given: tuple[tuple[str, str], ...], force: bool
) -> int:
    """Remove unused images, and layers that belong to none."""
    for name, value in given:
        if name == "dangling":
            all_images = not filters.truth(name, value)
    return _prune(arguments, [_images(all_images=all_images)], given, force=force, all_images=all_images)


@click.command("prune", cls=Command)
@filter_option("--filter", known=_FILTERS, verb="Remove")
@click.option("-f", "--force", is_flag=True, help="Do not ask")
@click.pass_obj
def container_prune_command(arguments: Arguments, *, given: tuple[tuple[str, str], ...], force: bool) -> int:
    """Remove all containers that neither run nor are mounted."""
    return _prune(arguments, [_CONTAINERS], given, force=force, containers=True, images=False)


def _prune(
    arguments: Arguments,
    doomed: list[str],
    given: tuple[tuple[str, str], ...],
    *,
    force: bool,
    all_images: bool = False,
    containers: bool = False,
    images: bool = True,
    volumes: bool = False,
    cache: bool = False,
) -> int:
    wanted = filters.grouped(given)
    fits = _predicate(wanted)
    if not force:
        output.warn("WARNING! This will remove:", *(f"  - {what}" for what in doomed))
        if given:
            output.warn("", "  Items to be pruned will be filtered with:", *(f"  - {'='.join(pair)}" for pair in given))
        output.warn("")
        if not output.asked("Are you sure you want to continue?"):
            output.error("nothing was removed")
            return 1
    with arguments.open() as store:
        own = _own_labels(store)
        pruned = store.prune(
            all_images=all_images,
            containers=containers,
            images=images,
            volumes=volumes,
            fits=(lambda subject: fits(subject, own)) if given else None,
        )
        cached = _prune_cache(store, wanted, all_images=all_images) if cache else None
        is_cached = cached is not None and bool(cached.records)
        advice = ""
        if not (pruned.containers or pruned.volumes or pruned.images or pruned.layers or is_cached):
            left = store.images() if images else []
            if left or (containers and store.containers()) or (volumes and store.volumes.all()):
                advice = _advice(filtered=bool(given), named_stay=not all_images and any(one.tags for one in left))
    output.lines(_pruned_lines(pruned, cached))
    if advice:
        output.warn(advice)
    return 0


def _prune_cache(store: Store, wanted: Mapping[str, list[str]], *, all_images: bool) -> PrunedCache:
    """Remove what builds remember, or what of it was not used since `until`."""
    from layerstore.build.cache import Cache, prune
    from layerstore.cli.builder import moment

    bounds = [filters.time("until", value) for value in wanted.get("until", ())]
    return prune(Cache(store), all=all_images, fits=lambda record: all(moment(record.used) < bound for bound in bounds))


def _advice(*, filtered: bool, named_stay: bool) -> str:
    """What can be done where there was nothing to remove."""
    if filtered:
        return "Nothing that is unused fits the filters: `layerstore system df --verbose` shows what there is."
    if named_stay:
        return "Images with a name were kept: --all removes those that no container needs."
    return "What is left is in use or kept: `layerstore system df --verbose` shows by what, and what takes the room."


def _own_labels(store: Store) -> _Labels:
    """A function that gives the labels that a container was made with."""

    def own(container: Container) -> Mapping[str, str]:
        from layerstore.runtime import Runtime

        return Runtime(store).options(container).labels

    return own


def _predicate(wanted: Mapping[str, list[str]]) -> Callable[[Image | Container | Volume, _Labels], bool]:
    """Whether an image or container may go. When in doubt it stays: what has no time is not older than any.

    A container has the labels of its image beneath those that it was made with, and `reference` fits it by the name of
    its image. An image of several names fits if all of them do.
    """
    bounds = [filters.time("until", value) for value in wanted.get("until", ())]

    def has_labels(labels: Mapping[str, str]) -> bool:
        return filters.has_labels(labels, wanted.get("label", ())) and not any(
            filters.has_labels(labels, [label]) for label in wanted.get("label!", ())
        )

    def fits(subject: Image | Container | Volume, own: _Labels) -> bool:
        from layerstore.images import Image
        from layerstore.volumes import Volume

        if isinstance(subject, Volume):
            return has_labels(subject.labels)
        image = subject if isinstance(subject, Image) else subject.state.image
        names = subject.tags if isinstance(subject, Image) else (subject.image_name,)
        created = subject.created_at
        labels = labels_of(image)
        if not isinstance(subject, Image) and {"label", "label!"} & wanted.keys():
            labels |= own(subject)
        return (
            all(created is not None and created < bound for bound in bounds)
            and has_labels(labels)
            and ("reference" not in wanted or _all_fit(names, wanted["reference"]))
        )

    return fits


def _all_fit(names: tuple[str, ...], patterns: list[str]) -> bool:
    return any(names) and all(
        any(filters.matches_reference(pattern, *reference.split(name)) for pattern in patterns) for name in names
    )


def _pruned_lines(pruned: Pruned, cached: PrunedCache | None) -> Iterator[str]:
    if pruned.containers:
        yield from ("Deleted Containers:", *pruned.containers, "")
    if pruned.volumes:
        yield from ("Deleted Volumes:", *pruned.volumes, "")
    if pruned.images:
        yield from ("Deleted Images:", *(f"{removal.kind.lower()}: {removal.what}" for removal in pruned.images), "")
    # Those of the images are among their lines, as in docker's output; these belonged to none.
    told = {removal.what for removal in pruned.images}
    others = [layer for layer in pruned.layers if layer not in told]
    if others:
        yield from ("Deleted Layers:", *others, "")
    if cached is not None and cached.records:
        yield from ("Deleted build cache objects:", *(record.short_id for record in cached.records), "")
    reclaimed = pruned.reclaimed + (0 if cached is None else cached.reclaimed)
    yield f"Total reclaimed space: {units.size(reclaimed, digits=4)}"
