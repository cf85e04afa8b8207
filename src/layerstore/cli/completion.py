"""Shell completion: the script for a shell, and the names of images and containers that it offers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from layerstore.cli import output
from layerstore.cli.front import COMPLETE, PROGRAM, Arguments, Command, front

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from layerstore.store import Store


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the shell's completion script.

    \b
    bash: layerstore completion bash > /etc/bash_completion.d/layerstore
    zsh:  layerstore completion zsh > "${fpath[1]}/_layerstore"
    fish: layerstore completion fish > ~/.config/fish/completions/layerstore.fish
    """
    from click.shell_completion import get_completion_class

    known = get_completion_class(shell)
    assert known is not None
    output.lines([known(front, {}, PROGRAM, COMPLETE).source()])


def _offered(ctx: click.Context, incomplete: str, names: Callable[[Store], Iterable[str]]) -> list[CompletionItem[str]]:
    """The names that begin with `incomplete`; none when the store cannot be had, for TAB must not complain."""
    from click.shell_completion import CompletionItem

    given = ctx.find_root().params
    arguments = Arguments(
        given.get("root"), given.get("config"), given.get("storage_driver"), given.get("storage_opts") or ()
    )
    try:
        with arguments.open() as store:
            return [CompletionItem(name) for name in sorted(set(names(store))) if name.startswith(incomplete)]
    except Exception:
        return []


def images(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names of images; IDs where digits are typed."""
    return _offered(ctx, incomplete, _image_names)


def drivers(_ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names of the storage drivers that are installed."""
    from click.shell_completion import CompletionItem

    from layerstore import plugins

    return [CompletionItem(name) for name in plugins.names() if name.startswith(incomplete)]


def containers(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names of containers, and IDs."""
    return _offered(ctx, incomplete, _container_names)


def volumes(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names of volumes."""
    return _offered(ctx, incomplete, lambda store: (volume.name for volume in store.volumes.all()))


def caches(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """IDs of the folders that steps of builds share."""
    return _offered(ctx, incomplete, _cache_names)


def anything(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names of images and containers."""
    return _offered(ctx, incomplete, lambda store: [*_image_names(store), *_container_names(store)])


def places(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names of containers and images before a colon; else paths, which the shell itself completes."""
    from click.shell_completion import CompletionItem

    names = _offered(
        ctx, incomplete, lambda store: [f"{name}:" for name in (*_container_names(store), *_image_names(store))]
    )
    return [*names, CompletionItem(incomplete, type="file")]


def _cache_names(store: Store) -> Iterable[str]:
    from layerstore.build.cache import CacheMounts

    return (mount.id for mount in CacheMounts(store).all())


def _image_names(store: Store) -> Iterable[str]:
    for image in store.images():
        yield from image.tags or (image.short_id,)


def _container_names(store: Store) -> Iterable[str]:
    for container in store.containers():
        yield container.name
