"""Adds images to a store straight from the tars of their layers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import layerstore
from layerstore.images import Image
from layerstore.store import Store
from support import images as make


class Adder:
    """Adds images to a store from the tars of their layers, and notes what it was asked to read."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.images = store._images
        self.read: list[str] = []

    def __call__(self, *layers: bytes, name: str | None = None, config: bytes | None = None) -> Image:
        return self.store.add(config or make.config(layers), self.sources(*layers), [name] if name else [])

    def sources(self, *layers: bytes) -> list[layerstore.LayerSource]:
        """Where the tars can be read."""
        return [layerstore.LayerSource(open=self._opener(layer)) for layer in layers]

    def _opener(self, layer: bytes) -> Callable[[], AbstractContextManager[io.BytesIO]]:
        @contextmanager
        def opened() -> Iterator[io.BytesIO]:
            self.read.append(make.digest(layer))
            yield io.BytesIO(layer)

        return opened
