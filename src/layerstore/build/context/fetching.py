"""Files from elsewhere, over HTTP: fetched into a folder of the build, and held against a checksum."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from layerstore.build.errors import BuildError, Place
from layerstore.values import frozen

if TYPE_CHECKING:
    from email.message import Message

    from layerstore import Limits

__all__ = ["Fetched", "Validators", "fetched", "fetched_unless", "is_remote"]

_PIECE = 1 << 18
_LONGEST = 255
"""Bytes of a file's name (linux/limits.h)."""
_SECONDS = 60
_OLD = 60 * 10**9
"""Nanoseconds after which a time of whole seconds tells one content from another (RFC 9110, section 8.8.2.2)."""
_CHECKSUM = re.compile(r"sha(256|384|512):([0-9a-f]+)")


@frozen
class Validators:
    """By what a server tells whether a file is still what it was (RFC 9110, section 8.8); "" where it said nothing."""

    etag: str = ""
    modified: str = ""

    def __bool__(self) -> bool:
        return bool(self.etag or self.modified)

    @property
    def condition(self) -> dict[str, str]:
        """The header of a request that is to be answered only if it is not."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.modified} if self.modified else {}


@frozen
class Fetched:
    """A file of somewhere else: the folder in which it lies alone, its name there, the digest of its bytes."""

    folder: Path
    name: str
    digest: str
    validators: Validators = Validators()

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.folder / self.name


def is_remote(source: str) -> bool:
    """Is it fetched over HTTP?"""
    return re.match(r"https?://", source, re.IGNORECASE) is not None


def fetched(
    url: str, checksum: str | None, folder: Path, limits: Limits, *, check: Callable[[], object], place: Place | None
) -> Fetched:
    """What lies at a URL, put into an empty folder. Raises `BuildError` if it is not there, or not as `checksum` says.

    It may be as large as a layer: else `LimitExceeded`. `check` is called now and then, and ends it by an error. The
    file is as BuildKit makes it: its owner's alone (0600), with the time at which it was altered there, or 1970.
    """
    found = fetched_unless(url, Validators(), checksum, folder, limits, check=check, place=place)
    assert found is not None  # nobody was told of a condition
    return found


def fetched_unless(
    url: str,
    seen: Validators,
    checksum: str | None,
    folder: Path,
    limits: Limits,
    *,
    check: Callable[[], object],
    place: Place | None,
) -> Fetched | None:
    """The same; None if its server says that it is still what it was when it was told of by `seen`."""
    import http
    import http.client
    import urllib.error
    import urllib.request

    called = posixpath.basename(unquote(urlsplit(url).path).rstrip("/"))
    name = called if _can_be_name(called) else "__unnamed__"  # BuildKit's
    arriving = folder / "arriving"
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "layerstore", **seen.condition})
        with urllib.request.urlopen(request, timeout=_SECONDS) as response, open(arriving, "xb") as file:
            modified = response.headers.get("Last-Modified")
            validators = _validators(response.headers)
            while data := response.read(_PIECE):
                check()
                file.write(data)
                limits.check("max-layer-size", file.tell(), f"what {url} gives")
            if response.length:  # of what its Content-Length has promised; read(n) does not say so
                raise ConnectionError(f"it ended {response.length} bytes before its end")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.NOT_MODIFIED and seen:
            return None
        raise _not_loaded(url, f"{error.code} {error.reason}", place) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise _not_loaded(url, error, place) from None
    with open(arriving, "rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if checksum is not None:
            _verify(url, file, checksum, place)
    path = arriving.rename(folder / name)
    path.chmod(0o600)
    os.utime(path, ns=(_moment(modified), _moment(modified)))
    return Fetched(folder, name, digest, validators)


def _can_be_name(text: str) -> bool:
    """Can a file be called so, as its URL would have it?"""
    try:
        length = len(os.fsencode(text))
    except UnicodeEncodeError:  # half of a character
        return False
    return 0 < length <= _LONGEST and text not in (".", "..") and "\0" not in text


def _validators(headers: Message) -> Validators:
    """A time alone says enough only if it is older than the file could be altered in twice within a second."""
    modified = headers.get("Last-Modified") or ""
    is_old = _moment(modified) + _OLD <= _moment(headers.get("Date") or "")
    return Validators(headers.get("ETag") or "", modified if is_old and _moment(modified) else "")


def _not_loaded(url: str, reason: object, place: Place | None) -> BuildError:
    """`reason` is words, or an error: that of the kernel, where one of urllib is about such a one."""
    cause = getattr(reason, "reason", reason)
    words = getattr(cause, "strerror", None) or cause
    remedy = "Look whether it can be reached from here."
    return BuildError(f"failed to load {url}: {words}", place=place, remedy=remedy)


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
    if not text:
        return 0
    from email.utils import parsedate_to_datetime  # with it comes all of `socket`

    try:
        return int(parsedate_to_datetime(text).timestamp()) * 10**9
    except (ValueError, OverflowError):
        return 0
