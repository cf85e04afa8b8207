"""One place besides the registry of an image that may have its layers: what is asked of it, and how it fails.

Nothing that a remote gives is believed: whoever reads a blob verifies its digest. So a remote can be slow, dead or
hostile and cost time, never a pull. Every failure is a `RemoteFailed`, which nobody but `Remotes` has to know.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final, Protocol, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit

from layerstore.digest import Digest
from layerstore.errors import ConfigError, LayerstoreError
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.registry.transport.http import Body

__all__ = ["ASK", "SILENCE", "SLOWEST", "Address", "Keeper", "Name", "Reading", "Remote", "RemoteFailed"]

ASK: Final = 1.0
"""Seconds that a remote has to answer a question, and to accept a connection."""

SILENCE: Final = 5.0
"""Seconds for which a blob that is being read may not go on."""

SLOWEST: Final = 64 << 10
"""Bytes a second below which a remote is left, looked at every `SILENCE` seconds."""

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SECRET: Final = re.compile(r"key|secret|token|password|sas|credential", re.IGNORECASE)
_FORMS: Final = "http://HOST:PORT, https://HOST:PORT, registry://HOST/NAME, s3://BUCKET/PREFIX, gs://, az:// or file://"


class RemoteFailed(LayerstoreError):
    """A remote did not do what it was asked: `remote` is its name, the message says what it said or did not say.

    `is_absent`: it answers, and has not, or not yet, or no more, what was wanted.
    """

    usual_remedy = "Look whether it runs and can be reached, or take it out of the remotes in daemon.json."

    def __init__(self, remote: str, what: str, *, is_absent: bool = False) -> None:
        super().__init__(f"remote {remote}: {_CONTROLS.sub('?', what)[:300]}")
        self.remote = remote
        self.is_absent = is_absent


class Reading(Protocol):
    """A blob, or a part of it, on its way here."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the beginning of `buffer`; 0 at the end. Raises `RemoteFailed`."""

    def close(self) -> None:
        """Let go of it, wherever it is."""


@frozen
class Name:
    """What a remote knows by a name: the manifest `digest`. `written`: when, as RFC 3339 has it, if it is known."""

    digest: Digest
    media_type: str
    size: int
    written: str = ""


@frozen
class Address:
    """One of daemon.json's `remotes`, taken apart. `options`: what stands after `?`, never a secret."""

    scheme: str
    place: str
    path: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises `ConfigError`, without repeating a password that may stand in `text`."""
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError:
            raise _bad(text) from None
        if "@" in parts.netloc:
            raise ConfigError(
                f"the remote {parts.scheme}://…@{parts.hostname} has a user or password in it",
                remedy="`layerstore login` keeps those of a registry; a bucket's come from the environment "
                "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …).",
            )
        options = dict(parse_qsl(parts.query))
        for key in options:
            if _SECRET.search(key):
                raise ConfigError(
                    f"the remote {parts.scheme}://{parts.netloc} has a secret in it ({key})",
                    remedy="Leave it to the environment, where others do not read it.",
                )
        if parts.scheme not in KINDS or not _is_well_formed(parts):
            raise _bad(text)
        return cls(parts.scheme, parts.netloc, parts.path.strip("/"), options)

    @property
    def url(self) -> str:
        """Without options."""
        if self.scheme == "file":
            return f"file:///{self.path}"
        return f"{self.scheme}://{self.place}" + (f"/{self.path}" if self.path else "")


STORES: Final = ("http", "https")
_WEB: Final = (*STORES, "registry")
BUCKETS: Final = ("s3", "gs", "az", "file")
KINDS: Final = (*_WEB, *BUCKETS)


def _is_well_formed(parts: SplitResult) -> bool:
    path = parts.path.strip("/")
    if parts.fragment or (parts.query and parts.scheme in _WEB):
        return False
    if parts.scheme == "file":
        return bool(path) and not parts.netloc
    return bool(parts.netloc) and not (path and parts.scheme in STORES)


def _bad(text: str) -> ConfigError:
    return ConfigError(f"remotes: {text.partition('?')[0]!r} is no remote", remedy=f"A remote is {_FORMS}.")


class Remote(ABC):
    """A place that may have blobs. Any thread may ask it; each method raises `RemoteFailed`."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def has(self, digests: Collection[Digest]) -> dict[Digest, int]:
        """Those of `digests` that it says it has, with their sizes."""

    @abstractmethod
    def read(self, digest: Digest, start: int, end: int) -> Reading:
        """The bytes of a blob from `start` up to, and without, `end`."""

    def manifest(self, digest: Digest) -> bytes | None:
        """The bytes of a manifest, which may be wrong; None if it is not there."""
        return None

    def close(self) -> None:
        """Close its connections."""


class Keeper(Remote):
    """One that can be written to, and knows manifests by names that its owner, not a stranger, has given."""

    @abstractmethod
    def write(self, digest: Digest, body: Body) -> None:
        """Keep a blob. What does not have this digest and size is not kept, and an error."""

    @abstractmethod
    def put_manifest(self, manifest: bytes, media_type: str) -> None:
        """Keep a manifest that has no name of its own; the blobs that it names are there."""

    @abstractmethod
    def resolve(self, name: str) -> Name | None:
        """What a full name means there."""

    @abstractmethod
    def publish(self, name: str, manifest: bytes, media_type: str) -> None:
        """Give a full name to a manifest, the blobs of which are there."""
