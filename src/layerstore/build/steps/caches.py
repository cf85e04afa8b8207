"""The caches elsewhere that a build was told of: asked from its beginning, and given what it has done at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layerstore import CachePolicy, ChainID, LayerstoreError, Store
from layerstore.build.cache import Cache, folders, give, inline, parse_spec
from layerstore.build.cache.retaining import retain
from layerstore.build.events import Teller, Warned
from layerstore.build.options import BuildOptions
from layerstore.build.steps.outputs import require_folder

__all__ = ["Caches", "keep_within"]

_INLINE = "BUILDKIT_INLINE_CACHE"
"""The argument by which Dockerfiles' users asked for an inline cache before there was an option."""


def keep_within(store: Store, teller: Teller) -> None:
    """Remove what its settings say: by policies, or what was used longest ago, if builds remember too many bytes.

    What goes wrong is told, and fails no build.
    """
    config = store.config
    limits = () if config.build_cache is None else (CachePolicy(config.build_cache),)
    policies = config.build_policies or limits
    if policies:
        try:
            retain(Cache(store), policies)
        except LayerstoreError as error:
            teller.tell(Warned(f"the cache of builds was not pruned: {error.message}"))


class Caches:
    """See the module's text. Raises `ConfigError` for what is no cache, before anything is done."""

    def __init__(self, cache: Cache, options: BuildOptions, teller: Teller) -> None:
        self._cache = cache
        self._teller = teller
        self._from = [parse_spec(text, to=False) for text in options.cache_from]
        self._to = [parse_spec(text, to=True) for text in options.cache_to]
        for spec in self._to:
            if spec.kind in ("local", "store") and not spec.is_optional:
                require_folder(spec.place)
                if spec.kind == "local":
                    folders.require(spec.place)
        asked = options.build_args.get(_INLINE, "").lower() in ("1", "true")
        self._is_inline = asked or any(spec.kind == "inline" for spec in self._to)

    def use(self) -> None:
        """Ask them for steps that nobody did here. One that is of no use is told, and is no error."""
        for spec in self._from:
            with self._teller.doing(f"importing cache manifest from {spec.place}"):
                self._cache.use(spec, warn=self._warn)

    def inline(self, top: ChainID | None) -> Mapping[str, Any]:
        """What the image's config has of its own steps, if that was asked for."""
        return inline(self._cache, top) if self._is_inline else {}

    def give(self, top: ChainID | None, platform: Mapping[str, str]) -> None:
        """Give them what was found and done. `platform` has architecture and system, as configs say them."""
        for spec in self._to:
            if spec.kind != "inline":
                with self._teller.doing(f"exporting cache to {spec.place}") as doing:
                    give(self._cache, spec, top, platform=platform, warn=self._warn, progress=doing.progress)

    def _warn(self, text: str) -> None:
        self._teller.tell(Warned(text))
