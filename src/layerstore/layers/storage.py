"""The storage of one store: its driver, and the files of layers that it keeps. Both are made when first needed.

The driver that the core uses is an `Answering`: the store's own, whose failures all come as errors of this library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from layerstore.driver import Backing, Layer, LayerKey, Mount, Slice, StorageDriver, Usage, blamed
from layerstore.errors import DriverNotFound

if TYPE_CHECKING:
    from layerstore.changes import Changes
    from layerstore.layers.elsewhere import Elsewhere
    from layerstore.layers.files import LayerFiles
    from layerstore.layers.holder import Holder
    from layerstore.session import Session

__all__ = ["Storage"]


@runtime_checkable
class Watched(Protocol):
    """A driver whose layers may be lazy."""

    def watch_by(self, watch: Callable[[Sequence[Path]], None]) -> None:
        """Have `watch` see to it, before they are read, that folders of layers are watched whose tars have holes."""


class Storage:
    """See the module's text. `beside` is the folder for what is kept of layers outside of the driver's home."""

    def __init__(
        self,
        open_driver: Callable[[], StorageDriver],
        session: Session,
        beside: Path,
        on_garbage: Callable[[], None],
        holder: Callable[[StorageDriver], Holder] | None = None,
        elsewhere: Callable[[], Elsewhere] | None = None,
    ) -> None:
        """`holder` makes what watches lazy layers, for a driver that has some; `elsewhere` what knows borrowed ones."""
        self._holder = holder
        self._elsewhere = elsewhere
        self._open_driver = open_driver
        self._session = session
        self._beside = beside
        self.on_garbage = on_garbage
        """Called when something could not be removed."""

    @cached_property
    def _own(self) -> StorageDriver:
        try:
            return self._open_driver()
        except BaseException:
            self.on_garbage()  # it may have been needed to remove what has no row any more
            raise

    @cached_property
    def driver(self) -> StorageDriver:
        """The store's driver; it needs this process's staging folder."""
        if (elsewhere := self._elsewhere) is not None and self._own.capabilities.borrows:
            self._own.elsewhere = lambda key: elsewhere().folder(key)
        if isinstance(self._own, Watched) and (holder := self._watching) is not None:
            self._own.watch_by(holder.watch)
        return answering(self._own)

    @cached_property
    def _watching(self) -> Holder | None:
        """What watches lazy layers, if the driver may have some."""
        return self._holder(self._own) if self._holder is not None and isinstance(self._own, Watched) else None

    @cached_property
    def files(self) -> LayerFiles:
        """The files of the layers."""
        kind = _way_of(self._own)
        files = kind(self.driver, self._session, self._beside, self.on_garbage)
        files.holder = self._watching
        files.elsewhere = self._elsewhere
        return files

    def close(self) -> None:
        """Give back what the driver holds, if there is one."""
        if "driver" in self.__dict__:
            self.driver.close()


def _way_of(driver: StorageDriver) -> type[LayerFiles]:
    """The way in which layers are kept with a driver (`StorageDriver.layer_files`). Raises `DriverNotFound`."""
    module, _, name = driver.layer_files.partition(":")
    try:
        kind: type[LayerFiles] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise DriverNotFound(
            f"the way in which {driver.name} keeps layers cannot be imported: {driver.layer_files}: {error}",
            remedy="Install the package that it is in, or mend it.",
        ) from error
    return kind


def answering(driver: StorageDriver) -> StorageDriver:
    """A driver that answers for another."""

    class For(Answering):
        """For this one alone: `probe` is a method of the class, since a driver is probed before there is one."""

        @classmethod
        def probe(cls, home: Path, options: Any) -> Backing:
            with blamed(driver.name, "look at its home"):
                return driver.probe(home, options)

    return For(driver)


class Answering(StorageDriver):
    """A driver that answers for another: what that raises becomes what the interface says (`driver.blamed`)."""

    def __init__(self, driver: StorageDriver) -> None:
        super().__init__(driver.home, driver.staging, driver.settings)
        self._driver = driver
        self._name = driver.name

    def __getattr__(self, name: str) -> Any:
        # `name`, `capabilities` and `options` are the driver's own; and what it has beyond the interface is for the way
        # of keeping layers that comes with it.
        if name == "_driver":
            raise AttributeError(name)
        return getattr(self._driver, name)

    def create(self, layer: Layer, parents: Sequence[Layer], *, size: int | None = None) -> None:
        with blamed(self._name, "create", layer):
            self._driver.create(layer, parents, size=size)

    def tree(self, layer: Layer) -> Path:
        with blamed(self._name, "find", layer):
            return self._driver.tree(layer)

    def prepare(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> None:
        with blamed(self._name, "prepare", layer):
            self._driver.prepare(layer, parents, read_only=read_only)

    def leave_unsynced(self, layer: Layer) -> None:
        with blamed(self._name, "take note of", layer):
            self._driver.leave_unsynced(layer)

    def mounts(self, layer: Layer, parents: Sequence[Layer], *, read_only: bool) -> Sequence[Mount]:
        with blamed(self._name, "say how to mount", layer):
            return self._driver.mounts(layer, parents, read_only=read_only)

    def seal(self, layer: Layer, parents: Sequence[Layer]) -> LayerKey:
        with blamed(self._name, "commit", layer):
            return self._driver.seal(layer, parents)

    def remove(self, layer: Layer) -> None:
        with blamed(self._name, "remove", layer):
            self._driver.remove(layer)

    def keys(self) -> Iterable[LayerKey]:
        with blamed(self._name, "list its home"):
            return list(self._driver.keys())

    def changes(self, layer: Layer, parents: Sequence[Layer]) -> Changes:
        with blamed(self._name, "find what was changed in", layer):
            return self._driver.changes(layer, parents)

    def changes_since(
        self, layer: Layer, parents: Sequence[Layer], between: Sequence[Layer], base: Sequence[Layer]
    ) -> Changes:
        with blamed(self._name, "find what was changed in", layer):
            return self._driver.changes_since(layer, parents, between, base)

    def segment(self, layer: Layer, parents: Sequence[Layer], key: LayerKey, *, in_use: bool) -> LayerKey | None:
        with blamed(self._name, "make a segment of", layer):
            return self._driver.segment(layer, parents, key, in_use=in_use)

    def merge(self, layers: Sequence[Layer], key: LayerKey) -> bool:
        with blamed(self._name, "merge segments into", Layer(key)):
            return self._driver.merge(layers, key)

    def slices(self, layer: Layer, parents: Sequence[Layer]) -> Sequence[Slice]:
        with blamed(self._name, "say where to read", layer):
            return self._driver.slices(layer, parents)

    def usage(self, layer: Layer, parents: Sequence[Layer]) -> Usage:
        with blamed(self._name, "measure", layer):
            return self._driver.usage(layer, parents)

    def graph_data(self, layer: Layer, parents: Sequence[Layer]) -> Mapping[str, str]:
        with blamed(self._name, "describe", layer):
            return self._driver.graph_data(layer, parents)

    def mountpoint(self, layer: Layer) -> Path:
        return self._driver.mountpoint(layer)

    def close(self) -> None:
        with blamed(self._name, "close its home"):
            self._driver.close()
