"""Pruning: what nobody needs goes, containers first, then volumes, then images, then layers."""

from __future__ import annotations

from collections.abc import Callable

from layerstore.blobs import Blobs
from layerstore.containers import Container, Containers
from layerstore.digest import ChainID
from layerstore.images import Image, Images, Removal
from layerstore.layers import Layers, garbage
from layerstore.layers.lasting.rows import RESCUED
from layerstore.repositories import Repositories
from layerstore.session import Session
from layerstore.values import frozen
from layerstore.volumes import PrunedVolumes, Volume, Volumes

__all__ = ["Pruned", "prune"]


@frozen
class Pruned:
    """What `prune` removed: IDs of containers, images and their tags, layers, names of volumes, and what that took.

    Its bytes are the tars of the layers, what containers and volumes occupied, kept blobs, and what was left of broken
    downloads.
    """

    containers: tuple[str, ...]
    images: tuple[Removal, ...]
    layers: tuple[ChainID, ...]
    reclaimed: int
    volumes: tuple[str, ...] = ()


def prune(
    session: Session,
    layers: Layers,
    blobs: Blobs,
    images: Images,
    containers: Containers,
    repositories: Repositories,
    volumes: Volumes | None,
    *,
    all_images: bool,
    prune_containers: bool,
    prune_images: bool,
    fits: Callable[[Image | Container | Volume], bool] | None,
) -> Pruned:
    """See `Store.prune`."""
    before = layers.total_size()
    gone, occupied = containers.prune(fits) if prune_containers else ([], 0)
    emptied = PrunedVolumes((), 0) if volumes is None else volumes.prune(fits=fits)
    chosen = None if fits is None else {image.id for image in images.all() if fits(image)}
    removals = images.prune(even_tagged=all_images, among=chosen) if prune_images else []
    chains = [ChainID(done.what) for done in removals if done.kind == "Deleted" and done.is_layer]
    chains += layers.end_lasting_leases(RESCUED, layers.lasting_leases(RESCUED))
    chains += layers.prune()
    garbage.sweep(layers, session.staging)
    if prune_images and fits is None:
        repositories.prune()
    reclaimed = max(before - layers.total_size(), 0) + blobs.prune(everything=all_images)
    reclaimed += occupied + emptied.reclaimed
    return Pruned(tuple(gone), tuple(removals), tuple(chains), reclaimed, emptied.names)
