"""What a build has found or done, given to a cache that lies elsewhere, or into the config of its own image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from layerstore import ChainID, LayerstoreError, StoredLayer
from layerstore.build.cache import documents, folders, offers
from layerstore.build.cache.cache import Cache
from layerstore.build.cache.documents import Step
from layerstore.build.cache.offers import Offered, Progress
from layerstore.build.cache.specs import Spec

__all__ = ["give", "inline"]


def give(
    cache: Cache,
    spec: Spec,
    top: ChainID | None,
    *,
    platform: Mapping[str, str],
    warn: Callable[[str], object],
    progress: Progress | None = None,
) -> None:
    """Give what this build has found or done to a cache elsewhere; of `mode=min` what the image of `top` has of it.

    `platform` has `architecture` and `os`, as configs say them. What is inline lies in the image already: see `inline`.
    Raises `LayerstoreError`; of what may fail (`ignore-error`) only `warn` is told.
    """
    try:
        _give(cache, spec, cache.steps() if spec.is_max else _own(cache, top), platform, progress)
    except LayerstoreError as error:
        if not spec.is_optional:
            raise
        warn(f"{spec} was not given: {error.message}")


def _place(spec: Spec) -> AbstractContextManager[str | Path]:
    if spec.kind == "registry":
        return nullcontext(f"docker://{spec.place}")
    return folders.renewed(spec.place)


def inline(cache: Cache, top: ChainID | None) -> dict[str, Any]:
    """What is added to the config of the image of this layer, so that it is a cache of its own steps."""
    return documents.inline(_own(cache, top).values())


def _own(cache: Cache, top: ChainID | None) -> dict[str, Step]:
    return {} if top is None else cache.steps(top)


def _give(
    cache: Cache, spec: Spec, steps: Mapping[str, Step], platform: Mapping[str, str], progress: Progress | None
) -> None:
    if spec.kind == "inline":
        return
    store = cache.store
    if spec.kind == "store":
        with offers.other_store(store, spec.place) as other, Cache(other) as target:
            for step in steps.values():
                top = None if step.layer is None else store.layer(step.layer)
                target.take(Offered(step, offers.sources(store, top)))
        return
    layers: dict[ChainID, StoredLayer] = {}
    for key in sorted(steps):
        top_of = steps[key].layer
        if top_of is not None:
            layers |= offers.stack(store, store.layer(top_of))
    made = {step.layer for step in steps.values()}
    wanted = {layer.diff_id: chain for chain, layer in layers.items() if chain in made}
    config = documents.config_of(steps.values(), layers, list(wanted), platform)
    with _place(spec) as where:
        store.save_layers(config, list(wanted.values()), where, compression=spec.compression, progress=progress)
