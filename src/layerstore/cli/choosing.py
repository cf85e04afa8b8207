"""Which containers a command is about: names, or podman's words for them: --latest, --all, --cidfile, --filter.

docker has names alone. What podman says beside them contradicts none of docker's options, so all of it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

import click

from layerstore.cli import completion, filters
from layerstore.errors import NotFound, named
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.containers import Container
    from layerstore.store import Store

F = TypeVar("F", bound=Callable[..., Any])

All = Literal["alive", "running", "paused", "still", "any"]
"""Which ones --all means: with processes; with processes that go on, or are frozen; without any; whatever they do."""

_WORDS: Final = {
    "alive": "All containers that run",
    "running": "All containers that run",
    "paused": "All containers that are frozen",
    "still": "All containers that do not run",
    "any": "All containers",
}


@frozen
class Choice:
    """What was said of containers. `of_all`: what --all means to the command."""

    names: tuple[str, ...] = ()
    latest: bool = False
    all: bool = False
    of_all: All = "any"
    files: tuple[str, ...] = ()
    given: tuple[tuple[str, str], ...] = ()
    ignore: bool = False

    @property
    def is_said(self) -> bool:
        """Whether anything was said at all."""
        return bool(self.names or self.latest or self.all or self.files or self.given)

    def of(self, store: Store) -> tuple[str, ...]:
        """The names of the containers that are meant, each once. Raises `NotFound`, `KernelError`.

        A name stays as it was given: whether there is such a container is found out by who looks for it, unless those
        that are not there are to be passed over.
        """
        found = [*self.names, *self._from_files()]
        if self.ignore:
            found = [name for name in found if _is_there(store, name)]
        if self.latest:
            found.append(latest(store).name)
        if self.all or self.given:
            found += [container.name for container in self._fitting(store)]
        return tuple(dict.fromkeys(found))

    def _from_files(self) -> list[str]:
        names = []
        for file in self.files:
            with named("open", Path(file)):
                try:
                    names += Path(file).read_text(errors="replace").split()[:1]
                except FileNotFoundError:
                    if not self.ignore:
                        raise
        return names

    def _fitting(self, store: Store) -> list[Container]:
        from layerstore.cli.ps import listed

        lines = listed(store, filters.grouped(self.given))
        of_all = self.of_all if self.all else "any"
        return [line.container for line in lines if _is_meant(of_all, line.run.status if line.run is not None else "")]


def _is_meant(of_all: All, status: str) -> bool:
    match of_all:
        case "any":
            return True
        case "alive":
            return status in ("running", "paused")
        case "still":
            return status not in ("running", "paused")
    return status == of_all


def latest(store: Store) -> Container:
    """The container that was created last, of people's own. Raises `NotFound`."""
    claims = store.claims()
    for container in store.containers():
        if container.id not in claims:
            return container
    raise NotFound("there is no container, so none is the latest", remedy="`layerstore create IMAGE` makes one.")


def _is_there(store: Store, name: str) -> bool:
    try:
        store.container(name)
    except NotFound:
        return False
    return True


def containers_chosen(
    *,
    latest_names: Sequence[str] = ("-l", "--latest"),
    of_all: All | None = None,
    all_names: Sequence[str] = ("-a", "--all"),
    files: bool = False,
    filter_names: Sequence[str] = (),
    ignore: bool = False,
    needed: bool = True,
) -> Callable[[F], F]:
    """Give a command the argument CONTAINER... with --latest, and what else is asked for: it gets a `Choice`.

    `needed`: it is wrong usage to say nothing.
    """

    def decorate(function: F) -> F:
        @wraps(function)
        def called(
            *args: Any,
            containers: tuple[str, ...],
            latest: bool,
            all_containers: bool = False,
            cidfiles: tuple[str, ...] = (),
            given: tuple[tuple[str, str], ...] = (),
            ignore: bool = False,
            **named: Any,
        ) -> Any:
            choice = Choice(containers, latest, all_containers, of_all or "any", cidfiles, given, ignore)
            if needed and not choice.is_said:
                raise click.UsageError("missing argument 'CONTAINER...'", click.get_current_context())
            if all_containers and (containers or latest):
                raise click.UsageError("--all needs no container beside it", click.get_current_context())
            return function(*args, containers=choice, **named)

        shown = "CONTAINER..." if needed else "[CONTAINER...]"
        options = [click.argument("containers", metavar=shown, nargs=-1, shell_complete=completion.containers)]
        options.append(_latest_option(latest_names))
        if of_all is not None:
            options.append(click.option(*all_names, "all_containers", is_flag=True, help=_WORDS[of_all]))
        if files:
            options.append(
                click.option(
                    "--cidfile", "cidfiles", metavar="FILE", multiple=True, help="The container whose ID is in the file"
                )
            )
        if filter_names:
            options.append(filters.filter_option(*filter_names, known=filters.OF_CONTAINERS, verb="Take"))
        if ignore:
            options.append(click.option("-i", "--ignore", is_flag=True, help="Pass over those that are not there"))
        decorated: Any = called
        for option in reversed(options):
            decorated = option(decorated)
        return cast(F, decorated)

    return decorate


def _latest_option(names: Sequence[str]) -> Callable[[F], F]:
    return click.option(*names, "latest", is_flag=True, help="The container that was created last")


latest_option: Final = _latest_option(("-l", "--latest"))


@frozen
class Chosen:
    """One container: that of a name, or (None) the one that was created last."""

    name: str | None

    def of(self, store: Store) -> Container:
        """The container. Raises `NotFound`."""
        return latest(store) if self.name is None else store.container(self.name)


def container_chosen(rest: str | None = None) -> Callable[[F], F]:
    """Give a command the argument CONTAINER, and --latest in its place: it gets a `Chosen`.

    `rest`: the argument behind it, which moves up where --latest leaves none for the container.
    """

    def decorate(function: F) -> F:
        @wraps(function)
        def called(*args: Any, container: str | None, latest: bool, **named: Any) -> Any:
            if latest and container is not None:
                after = None if rest is None else named[rest]
                if rest is None or isinstance(after, str):
                    raise click.UsageError("--latest needs no container beside it", click.get_current_context())
                named[rest] = container if after is None else (container, *after)
            elif not latest and container is None:
                raise click.UsageError("missing argument 'CONTAINER'", click.get_current_context())
            return function(*args, container=Chosen(None if latest else container), **named)

        argument = click.argument(
            "container", metavar="CONTAINER", required=False, shell_complete=completion.containers
        )
        return cast(F, argument(latest_option(called)))

    return decorate
