"""Names of images as people write them, `[host[:port]/]path[:tag][@digest]`, and their full form.

docker's grammar and defaults (distribution/reference, regexp.go and normalize.go): `debian` is
docker.io/library/debian:latest. The database has full names only; what people are shown is the shortest form
(`familiar`) that reads back to the same name. A name has a tag, which means another image tomorrow, or the digest of a
manifest, which is the same for ever.
"""

from __future__ import annotations

import re

from layerstore.digest import Digest
from layerstore.digest import parse as parse_digest
from layerstore.errors import InvalidDigest, InvalidReference
from layerstore.values import frozen

__all__ = ["DEFAULT_TAG", "HUB", "Reference", "familiar", "normalise", "parse", "registry_at", "split", "split_host"]

_PATH = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_NAME = re.compile(rf"{_PATH}(?:/{_PATH})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ID = re.compile(r"[0-9a-f]{64}")

HUB = "docker.io"
"""Docker Hub, as names of images have it."""
_FORMER_HUB = "index.docker.io"
_HUB_HOSTS = (_FORMER_HUB, "registry-1.docker.io")
_OFFICIAL = "library/"
_LONGEST = 255
"""Characters of a name without its host (distribution/reference, RepositoryNameTotalLengthMax)."""
DEFAULT_TAG = "latest"


@frozen
class Reference:
    """A name in its parts. `domain` and `path` are complete; `tag` and `digest` are as written, or None."""

    domain: str
    path: str
    tag: str | None
    digest: Digest | None

    @property
    def name(self) -> str:
        """`docker.io/library/debian`."""
        return f"{self.domain}/{self.path}"

    @property
    def full(self) -> str:
        """`docker.io/library/debian:latest`: the form in which tags are stored."""
        return f"{self.name}:{self.tag or DEFAULT_TAG}"

    @property
    def pinned(self) -> str | None:
        """`docker.io/library/debian@sha256:…`, whatever the tag; None without a digest."""
        return None if self.digest is None else f"{self.name}@{self.digest}"

    @property
    def complete(self) -> str:
        """`docker.io/library/debian:12@sha256:…`: it reads back to the same, but that `latest` is written out."""
        tag = DEFAULT_TAG if self.tag is None and self.digest is None else self.tag
        return f"{self.name}{'' if tag is None else f':{tag}'}{'' if self.digest is None else f'@{self.digest}'}"

    @property
    def familiar_name(self) -> str:
        """`debian`; or the whole name, should the short one be read as another (docker.io/a.b/c), or as an ID."""
        short = self.path.removeprefix(_OFFICIAL) if self.path.count("/") == 1 else self.path
        reads_back = _split_domain(short) == (self.domain, self.path) and not _ID.fullmatch(short)
        return short if reads_back else self.name

    @property
    def familiar(self) -> str:
        """`debian:latest`, or `debian@sha256:…` if it is pinned."""
        if self.digest is not None:
            return f"{self.familiar_name}{'' if self.tag is None else f':{self.tag}'}@{self.digest}"
        return f"{self.familiar_name}:{self.tag or DEFAULT_TAG}"


def parse(text: str) -> Reference:
    """`text` in its parts. Raises `InvalidReference`, which says what is wrong with it."""
    if _ID.fullmatch(text):
        raise _invalid(text, "64 hexadecimal digits are an ID, not a name")
    rest, at, digest_text = text.partition("@")
    digest = None
    if at:
        try:
            digest = parse_digest(digest_text)
        except InvalidDigest as error:
            raise _invalid(text, f"{digest_text!r} is not a sha256 digest") from error
    rest, tag = _split_tag(rest)
    if tag is not None and not _TAG.fullmatch(tag):
        raise _invalid(
            text, "a tag has up to 128 letters, digits, '_', '.' and '-', and begins with none of the last two"
        )
    domain, path = _split_domain(rest)
    if not path:
        raise _invalid(text, "it has no name")
    if not _NAME.fullmatch(path):
        hint = "repository names are lower case" if path.lower() != path and _NAME.fullmatch(path.lower()) else None
        raise _invalid(text, hint or "a name is lower-case letters and digits, with '.', '_', '-' and '/' between them")
    if not _DOMAIN.fullmatch(domain):
        raise _invalid(text, f"{domain!r} is not a host name")
    if len(path) > _LONGEST:
        raise _invalid(text[:40] + "...", f"a name has at most {_LONGEST} characters")
    return Reference(domain, path, tag, digest)


def normalise(text: str) -> str:
    """The full form of `text`, as tags are stored."""
    reference = parse(text)
    if reference.digest is not None:
        raise _invalid(text, "a tag is wanted here, not a digest")
    if reference.familiar_name == "sha256":
        raise _invalid(text, "sha256:… is a digest, so no image can be called so")
    return reference.full


def familiar(full: str) -> str:
    """The short form of a stored name. One that a changed byte of the database has made none stays as it is."""
    try:
        return parse(full).familiar
    except InvalidReference:
        return full


def split(text: str) -> tuple[str, str]:
    """Repository and tag of a name as people are shown it: `debian:12` is ("debian", "12").

    One that is pinned by a digest has no tag: "".
    """
    name, at, _ = text.partition("@")
    name, tag = _split_tag(name)
    if at:
        return name, tag or ""
    return name, tag or DEFAULT_TAG


def split_host(text: str) -> tuple[str, str]:
    """The registry of a name, or of a word that is searched for, and the rest: Docker Hub's are those without a host.

    What is before the first slash is a host if it cannot be the beginning of a path: for a dot, a colon or a capital.
    """
    first, slash, rest = text.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    domain, path = (first, rest) if is_host else (HUB, text)
    return (HUB if domain == _FORMER_HUB else domain), path


def registry_at(host: str) -> str:
    """The registry that a host is, by the name under which credentials for it are kept: Docker Hub has several."""
    return HUB if host in _HUB_HOSTS else host


def _split_tag(text: str) -> tuple[str, str | None]:
    name, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:  # a colon before a slash belongs to a port
        return text, None
    return name, tag


def _split_domain(name: str) -> tuple[str, str]:
    domain, path = split_host(name)
    if domain == HUB and "/" not in path and path:
        path = _OFFICIAL + path
    return domain, path


def _invalid(text: str, why: str) -> InvalidReference:
    remedy = "A name looks like debian, debian:12 or host:5000/team/app:1.0."
    if "://" in text:
        remedy = "Leave out all up to ://, as the name alone says where it is."
    return InvalidReference(f"invalid image name {text!r}: {why}", remedy=remedy)
