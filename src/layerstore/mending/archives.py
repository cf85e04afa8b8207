"""Archives that somebody names to repair from: docker-archives, OCI archives and layouts, or the tar of a single layer.

Each may be compressed. What is in them is found out when the first layer is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from io import FileIO
from pathlib import Path

from attrs import field

from layerstore.compression import HEAD, open_stream, sniff
from layerstore.digest import DiffID, Digest, hex_of
from layerstore.errors import InvalidArchive, LayerstoreError, NotFound, named
from layerstore.limits import Limits
from layerstore.registry.ways import Way
from layerstore.tar import Readable
from layerstore.transfer.archive import Archive, FolderArchive, TarArchive
from layerstore.transfer.loading import describe
from layerstore.values import define, frozen

__all__ = ["Archives", "archives"]

_PIECE = 1 << 20


@define(slots=False)
class _Given:
    """One path as it was given. `spool` names a file that is ours to write, and goes in the end."""

    path: Path
    spool: Callable[[], Path]
    stack: ExitStack
    limits: Limits
    opened: list[Archive] = field(factory=list)

    @cached_property
    def layers(self) -> dict[DiffID, Way]:
        """What is in it. Raises `InvalidArchive`, `KernelError`."""
        if self.path.is_dir():
            return self._listed(self.stack.enter_context(FolderArchive(self.path, limits=self.limits)))
        with named("open", self.path):
            file = self.stack.enter_context(FileIO(self.path))
        with named("read", self.path):
            head = file.read(HEAD)
            file.seek(0)
        if sniff(head) is None:
            try:
                return self._listed(self._tar(file))
            except InvalidArchive:
                file.seek(0)
                return {_digest(file, None): Way(str(self.path), self._alone)}
        spool = self.spool()
        self.stack.callback(partial(spool.unlink, missing_ok=True))
        with open_stream(file, limits=self.limits) as stream, named("write", spool), spool.open("wb") as target:
            diff_id = _digest(stream, target.write)
        try:
            return self._listed(self._tar(self.stack.enter_context(FileIO(spool))))
        except InvalidArchive:
            return {diff_id: Way(str(self.path), self._alone)}

    @contextmanager
    def blob(self, member: str) -> Iterator[Readable]:
        """The bytes of a member, as they are."""
        for archive in self.opened:
            if (region := archive.region(member)) is not None:
                try:
                    yield region
                finally:
                    region.close()
                return
        raise NotFound(f"{self.path} has no {member}")

    def _tar(self, file: FileIO) -> Archive:
        return self.stack.enter_context(TarArchive(file.fileno(), str(self.path), limits=self.limits))

    def _listed(self, archive: Archive) -> dict[DiffID, Way]:
        self.opened.append(archive)
        found: dict[DiffID, Way] = {}
        for image in describe(archive, None, may_lack=True):
            for blob in image.layers:
                if archive.size(blob.member) is not None:
                    expect = None if blob.digest is None or DiffID(blob.digest) == blob.diff_id else blob.digest
                    found[blob.diff_id] = Way(str(self.path), partial(archive.layer, blob.member, expect))
        return found

    @contextmanager
    def _alone(self) -> Iterator[Readable]:
        with named("open", self.path), FileIO(self.path) as file, open_stream(file, limits=self.limits) as stream:
            yield stream


@frozen
class Archives:
    """All that were given, in their order."""

    given: Sequence[_Given]

    def of(self, diff_id: DiffID) -> Iterator[Way]:
        """The ways to a layer."""
        for one in self.given:
            if (way := one.layers.get(diff_id)) is not None:
                yield way

    def raw(self, digest: Digest) -> Iterator[Way]:
        """The ways to a blob, as an OCI layout has it."""
        for one in self.given:
            yield Way(str(one.path), partial(one.blob, f"blobs/sha256/{hex_of(digest)}"))


@contextmanager
def archives(paths: Sequence[Path], spool: Callable[[], Path], limits: Limits) -> Iterator[Archives]:
    """While inside, these can be read. Raises `NotFound` for one that is not there, `InvalidArchive`."""
    for path in paths:
        if not path.exists():
            raise NotFound(f"{path} is not there", remedy="Name a file, a folder, or a remote with its scheme.")
    with ExitStack() as stack:
        given = [_Given(path, spool, stack, limits) for path in paths]
        for one in given:
            try:
                _ = one.layers
            except LayerstoreError as error:
                error.message = f"{one.path}: {error.message}"
                raise
        yield Archives(given)


def _digest(stream: Readable, write: Callable[[memoryview], object] | None) -> DiffID:
    """The digest of all of a stream, which is passed on."""
    hashed, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
    while count := stream.readinto(buffer):
        hashed.update(buffer[:count])
        if write is not None:
            write(buffer[:count])
    return DiffID(Digest(f"sha256:{hashed.hexdigest()}"))
