"""What ADD does beyond COPY: archives of the context are taken apart, and files are fetched.

A tar is unpacked into layers of its own, which nobody but this build needs: no entry of it can lead anywhere. What is
fetched lies in a folder of the build.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from attrs import frozen

from layerstore import InvalidArchive, LayerSource, open_beneath, open_stream
from layerstore.build.context import Chosen
from layerstore.build.errors import BuildError, Place
from layerstore.build.steps.origins import Layers, Origin
from layerstore.build.steps.stopping import Stop
from layerstore.build.steps.work import Work

__all__ = ["Fetched", "fetched", "is_remote", "unpacked"]

_PIECE = 1 << 18
_HEAD = 512
_SECONDS = 60
_CHECKSUM = re.compile(r"sha(256|384|512):([0-9a-f]+)")


@frozen
class Fetched:
    """A file of somewhere else: the folder in which it lies alone, its name there, the digest of its bytes."""

    folder: Path
    name: str
    digest: str


def is_remote(source: str) -> bool:
    """Is it fetched over HTTP?"""
    return re.match(r"https?://", source, re.IGNORECASE) is not None


def fetched(url: str, checksum: str | None, folder: Path, stop: Stop, place: Place) -> Fetched:
    """What lies at a URL, put into an empty folder. Raises `BuildError` if it is not there, or not as `checksum` says.

    It is as BuildKit makes it: its owner's alone (0600), with the time at which it was altered there, or 1970.
    """
    import urllib.error
    import urllib.request

    name = posixpath.basename(unquote(urlsplit(url).path))
    arriving = folder / "arriving"
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "layerstore"})
        with urllib.request.urlopen(request, timeout=_SECONDS) as response, open(arriving, "xb") as file:
            name = posixpath.basename(response.headers.get_filename() or "") or name
            modified = response.headers.get("Last-Modified")
            while data := response.read(_PIECE):
                stop.check()
                file.write(data)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = f"{error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else error
        raise BuildError(
            f"failed to load {url}: {reason}", place=place, remedy="Look whether it can be reached from here."
        ) from None
    with open(arriving, "rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if checksum is not None:
            _verify(url, file, checksum, place)
    if name in ("", ".", "..") or "\0" in name:
        name = "download"
    path = arriving.rename(folder / name)
    path.chmod(0o600)
    os.utime(path, ns=(_moment(modified), _moment(modified)))
    return Fetched(folder, name, digest)


def _verify(url: str, file: BufferedReader, checksum: str, place: Place) -> None:
    match = _CHECKSUM.fullmatch(checksum)
    if match is None:
        raise BuildError(
            f"invalid checksum: {checksum}", place=place, remedy="Write --checksum=sha256: and 64 hex digits."
        )
    file.seek(0)
    found = hashlib.file_digest(file, f"sha{match[1]}").hexdigest()
    if found != match[2]:
        raise BuildError(
            f"digest mismatch for {url}: sha{match[1]}:{found} (expected: {checksum})",
            place=place,
            remedy="It is not the file that was meant: see whether it was altered, or the checksum is another's.",
        )


def _moment(text: str | None) -> int:
    if text is None:
        return 0
    try:
        return int(parsedate_to_datetime(text).timestamp()) * 10**9
    except (ValueError, OverflowError):
        return 0


def unpacked(work: Work, origin: Origin, one: Chosen) -> tuple[Origin, Sequence[Chosen]] | None:
    """What a file has that is a tar, compressed or not; None if it is none. Raises `BuildError` if it is damaged."""
    if one.is_folder:
        return None
    with origin.open_tree() as root:
        fd = open_beneath(root, "/" + os.fsdecode(one.path), os.O_RDONLY | os.O_NONBLOCK)
        with open(fd, "rb", buffering=0) as file:
            return unpacked_file(work, file, os.fsdecode(one.path))


def unpacked_file(work: Work, file: BinaryIO, name: str) -> tuple[Origin, Sequence[Chosen]] | None:
    """The same, of an open file."""
    if not _is_tar(file):
        return None
    file.seek(0)
    layer = work.store.add_layer(LayerSource(lambda: open_stream(file)), None, record=work.session.hold)
    origin = Layers(work.store, layer.chain_id, name)
    return origin, origin.choose(["/"], parents=False, exclude=(), place=Place(name, 0, 0, ""))


def _is_tar(file: BinaryIO) -> bool:
    """Does it begin with a tar's header (POSIX, ustar: the sum of its bytes stands in it), inflated if need be?"""
    head = bytearray(_HEAD)
    filled = 0
    try:
        with open_stream(file) as stream:
            while filled < _HEAD and (count := stream.readinto(memoryview(head)[filled:])):
                filled += count
    except InvalidArchive:
        return False
    if filled < _HEAD or not any(head):
        return False
    try:
        said = int(head[148:156].strip(b" \0") or b"-", 8)
    except ValueError:
        return False
    return said == sum(head) - sum(head[148:156]) + 8 * 0x20
