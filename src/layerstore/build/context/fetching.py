"""Files from elsewhere, over HTTP: fetched into a folder of the build, and held against a checksum."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from io import BufferedReader
from pathlib import Path
from urllib.parse import unquote, urlsplit

from layerstore.build.errors import BuildError, Place
from layerstore.values import frozen

__all__ = ["Fetched", "fetched", "is_remote"]

_PIECE = 1 << 18
_SECONDS = 60
_CHECKSUM = re.compile(r"sha(256|384|512):([0-9a-f]+)")


@frozen
class Fetched:
    """A file of somewhere else: the folder in which it lies alone, its name there, the digest of its bytes."""

    folder: Path
    name: str
    digest: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.folder / self.name


def is_remote(source: str) -> bool:
    """Is it fetched over HTTP?"""
    return re.match(r"https?://", source, re.IGNORECASE) is not None


def fetched(
    url: str, checksum: str | None, folder: Path, *, check: Callable[[], object], place: Place | None
) -> Fetched:
    """What lies at a URL, put into an empty folder. Raises `BuildError` if it is not there, or not as `checksum` says.

    `check` is called now and then, and ends it by an error. The file is as BuildKit makes it: its owner's alone (0600),
    with the time at which it was altered there, or 1970.
    """
    import http.client
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
                check()
                file.write(data)
            if response.length:  # of what its Content-Length has promised; read(n) does not say so
                raise ConnectionError(f"it ended {response.length} bytes before its end")
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
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


def _verify(url: str, file: BufferedReader, checksum: str, place: Place | None) -> None:
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
