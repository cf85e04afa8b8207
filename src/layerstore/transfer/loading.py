"""Loading: an archive is opened, understood, and its images are given to the store.

All of its images come in, or none, whatever goes wrong and however late. Every error names the archive.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import BufferedRandom, BufferedReader, FileIO, TextIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from attrs import evolve

from layerstore import platforms, reference
from layerstore.compression import HEAD, sniff
from layerstore.digest import DiffID, Digest
from layerstore.errors import Ambiguous, ConfigError, InvalidArchive, KernelError, LayerstoreError, NotFound, named
from layerstore.kernel.files.descriptors import file_of
from layerstore.layers import LayerSource
from layerstore.limits import Limits
from layerstore.platforms import Platform
from layerstore.transfer import docker_archive, oci
from layerstore.transfer.archive import Archive, FolderArchive, TarArchive
from layerstore.transfer.choosing import Offered, choose, titles
from layerstore.transfer.documents import Documents
from layerstore.transfer.incoming import Blob, Incoming, merged, platform_of
from layerstore.transfer.standard import STANDARD, standard_input
from layerstore.transfer.stream import reading

if TYPE_CHECKING:
    from layerstore.images import Images, Loaded
    from layerstore.layers import Layers, Progress

Elsewhere = Callable[[Blob], LayerSource]
"""Where a layer can be read that an archive lacks."""

_PIPE_SIZE: Final = 1 << 20


def load_images(
    source: str | Path | BinaryIO,
    *,
    images: Images,
    layers: Layers,
    only: Sequence[str],
    names: Sequence[str],
    platform: str | None,
    progress: Progress | None,
    elsewhere: Elsewhere | None = None,
) -> list[Loaded]:
    """See `layerstore.transfer.load`."""
    wanted = None if platform is None else platforms.parse(platform)
    tags = tuple(dict.fromkeys(reference.normalise(name) for name in names))
    with _opened(source, layers.limits) as (archive, origin):
        try:
            if isinstance(archive, Archive):
                found = describe(archive, wanted, only=only, names=tags, may_lack=elsewhere is not None)
                return _add_all(found, images, partial(_add, images, archive, progress, elsewhere))
            with reading(archive, layers, progress) as passed:
                found = describe(passed, wanted, only=only, names=tags)
                return _add_all(
                    found,
                    images,
                    lambda image, names: images.add_staged(image.config, passed.layers_of(image), names),
                )
        except (InvalidArchive, NotFound, Ambiguous) as error:
            if isinstance(archive, FileObject) and not archive.has_come:
                raise _empty(origin) from None
            error.message = f"{origin}: {error.message}"
            raise


@contextmanager
def looked_into(
    source: str | Path, limits: Limits, *, only: Sequence[str] = (), platform: str | None = None
) -> Iterator[tuple[bytes, list[LayerSource]]]:
    """While inside: the config of the one image of an archive, and its layers, each to be read when it is wanted.

    The archive is one that can be read in any order. Raises `InvalidArchive`, `NotFound`, `Ambiguous`.
    """
    wanted = None if platform is None else platforms.parse(platform)
    with _opened(source, limits) as (archive, origin):
        if not isinstance(archive, Archive):
            raise ConfigError(f"{origin} can be read from its beginning only", remedy="Unpack it into a folder.")
        try:
            found = describe(archive, wanted, only=only)
        except (InvalidArchive, NotFound, Ambiguous) as error:
            error.message = f"{origin}: {error.message}"
            raise
        if len(found) > 1:
            there = titles([Offered(image.id, image.names) for image in found])
            raise Ambiguous(f"{origin} has {len(found)} images", remedy=f"Say which is meant: {there}.")
        yield found[0].config, [_source(archive, blob) for blob in found[0].layers]


def describe(
    documents: Documents,
    platform: Platform | None,
    *,
    only: Sequence[str] = (),
    names: Sequence[str] = (),
    may_lack: bool = False,
) -> list[Incoming]:
    """The images that an archive holds for a platform, each once with all its names, and checked to be complete.

    Many archives say it twice, in manifest.json and in index.json. docker writes the first with more care (its index
    leaves out images, and had layers in the wrong order), the second alone knows platforms. `only` and `names` (in
    full) are those of `layerstore.transfer.load`.
    """
    listed = docker_archive.describe(documents)
    chosen = choose(only, _offered(documents, listed)) if only else None
    if chosen is not None:
        listed = [image for image in listed if image.id in chosen]
    try:
        layout = oci.describe(documents, platform, chosen)
    except InvalidArchive:
        if not listed or platform is not None:
            raise
        layout = oci.Layout()
    fitting = {image.id for image in layout.images}
    listed = [image for image in listed if image.id in fitting or image.id not in layout.configs]
    found = merged([*(image for image in listed if _fits(image, platform)), *layout.images])
    if not found:
        raise _nothing(documents, listed, platform)
    for image in found:
        for blob in image.layers:
            if not (may_lack and documents.size(blob.member) is None):
                _check_member(documents, blob)
    return _renamed([_restricted(image, chosen) for image in found], names)


def _offered(documents: Documents, listed: Sequence[Incoming]) -> list[Offered]:
    """All images of an archive, in both of its lists."""
    found = [Offered(image.id, image.names) for image in listed]
    try:
        return [*found, *oci.offered(documents)]
    except InvalidArchive:
        if not listed:
            raise
        return found


def _restricted(image: Incoming, chosen: Mapping[Digest, tuple[str, ...] | None] | None) -> Incoming:
    """The image under the names that it was asked for by."""
    names = None if chosen is None else chosen.get(image.id)
    return image if names is None else evolve(image, names=names)


def _renamed(found: Sequence[Incoming], names: Sequence[str]) -> list[Incoming]:
    """The images, a single one under other names than its own if there are such."""
    if not names:
        return list(found)
    if len(found) > 1:
        there = titles([Offered(image.id, image.names) for image in found])
        raise Ambiguous(
            f"there is a name for one image, but the archive has {len(found)}",
            remedy=f"Say which of them to load: {there}.",
        )
    return [evolve(found[0], names=tuple(names))]


def _fits(image: Incoming, platform: Platform | None) -> bool:
    return platform is None or platforms.rank(platform, platform_of(image.config, f"config {image.id}")) is not None


def _nothing(documents: Documents, listed: Sequence[Incoming], platform: Platform | None) -> InvalidArchive:
    if listed:
        there = sorted({str(platform_of(image.config, f"config {image.id}")) for image in listed})
        return InvalidArchive(f"there is no image for {platform}", remedy=f"It has {', '.join(there)}.")
    if documents.size(docker_archive.MANIFEST) is not None or documents.size(oci.INDEX) is not None:
        return InvalidArchive("the archive lists no image")
    if documents.size(docker_archive.LEGACY) is not None:
        return InvalidArchive(
            "the archive was saved by docker 1.9 or older, and names its layers in a way of that time",
            remedy="Load it into docker before 25 and save it again.",
        )
    return InvalidArchive(
        f"this is no archive of images: it has neither {docker_archive.MANIFEST} nor {oci.INDEX}",
        remedy="The tar of a root filesystem is for `import`.",
    )


def _check_member(documents: Documents, blob: Blob) -> None:
    size = documents.size(blob.member)
    if size is None:
        raise InvalidArchive(
            f"layer {blob.diff_id} ({blob.member}) is not in the archive",
            remedy="The archive is incomplete: get it again.",
            layer=blob.diff_id,
            path=blob.member,
        )
    if blob.size is not None and blob.size != size:
        raise InvalidArchive(
            f"layer {blob.diff_id} ({blob.member}) has {size} bytes, not {blob.size} as announced",
            remedy="The archive is damaged: get it again.",
            layer=blob.diff_id,
            path=blob.member,
        )


# --- into the store ---


def _add(
    images: Images,
    archive: Archive,
    progress: Progress | None,
    elsewhere: Elsewhere | None,
    image: Incoming,
    names: Sequence[str],
) -> Loaded:
    sources = [
        _source(archive, blob) if elsewhere is None or archive.size(blob.member) is not None else elsewhere(blob)
        for blob in image.layers
    ]
    return images.add(image.config, sources, names, progress=progress)


def _source(archive: Archive, blob: Blob) -> LayerSource:
    # A plain blob's digest is its DiffID, which is verified in any case: once is enough.
    expect = None if blob.digest is not None and DiffID(blob.digest) == blob.diff_id else blob.digest
    return LayerSource(
        open=partial(archive.layer, blob.member, expect), diff_id=blob.diff_id, size=archive.tar_size(blob.member)
    )


def _add_all(
    found: Sequence[Incoming], images: Images, add: Callable[[Incoming, Sequence[str]], Loaded]
) -> list[Loaded]:
    """Add one image, or several of which the first goes again if the last fails: names move only when all are there."""
    if len(found) == 1:
        return [add(found[0], found[0].names)]
    new: list[str] = []
    try:
        for image in found:
            is_new = not _is_known(images, image.id)
            add(image, ())
            if is_new:
                new.append(image.id)
    except BaseException:
        for name in reversed(new):
            try:
                images.remove(name)
            except LayerstoreError:
                pass  # somebody has found a use for it
        raise
    return [images.add_staged(image.config, {}, image.names, trust=True) for image in found]


def _is_known(images: Images, name: str) -> bool:
    try:
        images.get(name)
    except NotFound:
        return False
    return True


# --- what is given as the source ---


@contextmanager
def _opened(source: str | Path | BinaryIO, limits: Limits) -> Iterator[tuple[Archive | FileObject, str]]:
    """An archive that can be read in any order, or else a stream; and what to call it."""
    if isinstance(source, str | Path) and str(source) != STANDARD:
        with _opened_path(Path(source), limits) as archive:
            yield archive, str(source)
        return
    file: Any = standard_input() if isinstance(source, str | Path) else source
    if isinstance(file, TextIOBase):
        raise ConfigError("the archive is opened as text", remedy="Open it in binary mode.")
    name = getattr(file, "name", None)
    origin = "standard input" if isinstance(source, str | Path) else str(name) if name is not None else "the archive"
    # Only of Python's own file objects it is known that their descriptor has the bytes that reading them gives.
    raw = file.raw if isinstance(file, BufferedReader | BufferedRandom) else file
    if isinstance(raw, FileIO):
        with _opened_descriptor(raw.fileno(), file, origin, limits) as archive:
            yield archive, origin
    else:
        yield FileObject(file, origin), origin


@contextmanager
def _opened_path(path: Path, limits: Limits) -> Iterator[Archive | FileObject]:
    with named("open", path):
        is_folder = path.is_dir()
    if is_folder:
        with FolderArchive(path, limits=limits) as folder:
            yield folder
        return
    with named("open", path):
        file = file_of(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY))
    with file, _opened_descriptor(file.fileno(), file, str(path), limits) as archive:
        yield archive


@contextmanager
def _opened_descriptor(fd: int, file: Any, origin: str, limits: Limits) -> Iterator[Archive | FileObject]:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        except OSError:
            pass  # no pipe, or too many pages in pipes already: it works as it is
        yield FileObject(file, origin)
        return
    with named("read", origin):
        start = file.tell()
        head = os.pread(fd, HEAD, start)
    if not head:
        raise _empty(origin)
    if sniff(head) is not None:
        os.posix_fadvise(fd, start, 0, os.POSIX_FADV_SEQUENTIAL)
        yield FileObject(file, origin)
        return
    try:
        archive = TarArchive(fd, origin, start=start, limits=limits)
    except InvalidArchive as error:
        error.message = f"{origin}: {error.message}"
        raise
    with archive:
        yield archive


def _empty(origin: str) -> InvalidArchive:
    return InvalidArchive(f"{origin} is empty", remedy="Look whether what should have written it has failed.")


class FileObject:
    """A file object that can be read once. What it raises becomes an error of this library."""

    def __init__(self, file: Any, origin: str) -> None:
        self._file = file
        self._origin = origin
        self.has_come = False
        """Was there a byte at all?"""

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            if hasattr(self._file, "readinto"):
                count: int | None = self._file.readinto(buffer)
            else:
                data = self._file.read(len(buffer))
                buffer[: len(data)] = data
                count = len(data)
        except (OSError, EOFError) as error:
            if isinstance(error, OSError) and error.errno:
                raise KernelError("read", error.errno, path=self._origin) from error
            raise InvalidArchive(f"it cannot be read: {error}") from error
        if count is None:
            raise KernelError(
                "read", errno.EAGAIN, path=self._origin, remedy="Make it wait: it is set to non-blocking."
            )
        self.has_come = self.has_come or count > 0
        return count
