"""One repository of a registry: its manifests, blobs, tags and referrers, read and written (distribution-spec 1.1).

What is read may come from a mirror, what is written goes to the registry itself. Nothing that a server says of a digest
is believed: bytes are hashed here, or by whoever reads a blob to its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote, urlencode, urlsplit
from weakref import WeakKeyDictionary

from layerstore import digest as digests
from layerstore.digest import Digest
from layerstore.errors import (
    DigestMismatch,
    InvalidArchive,
    InvalidDigest,
    LayerstoreError,
    NotFound,
    RegistryError,
    Unreachable,
)
from layerstore.manifests import (
    DOCUMENT_LIMIT,
    Contents,
    Descriptor,
    Manifest,
    as_list,
    media_type_of,
    parse_object,
    read,
)
from layerstore.manifests.media_types import INDEX_TYPE, INDEXES, MANIFESTS
from layerstore.reference import Reference
from layerstore.registry.client import lanes
from layerstore.registry.client.blobs import Asking, BlobReader
from layerstore.registry.client.endpoints import Endpoints
from layerstore.registry.client.manifests import ALTERED, told_of, written
from layerstore.registry.client.uploads import Progress, Sent, Uploads
from layerstore.registry.transport import hosts, policies
from layerstore.registry.transport.hosts import Endpoint, Source
from layerstore.registry.transport.http import Body, Http, Reply, Rights
from layerstore.registry.transport.settings import Settings
from layerstore.registry.transport.words import printable
from layerstore.values import frozen

__all__ = ["Found", "Reader", "Repository", "catalog"]

Reader = BlobReader | lanes.WideReader
"""The bytes of a blob, in order, by one connection or by several."""

_ACCEPT: Final = {"Accept": ", ".join((*MANIFESTS, *INDEXES))}
"""For manifests only: Artifactory answers 406 to blobs with it, and without it every registry 404 to what is of OCI."""

_NO_LIMIT: Final = 1 << 40
_PAGE: Final = 1000
_PAGES: Final = 10_000
_LINK: Final = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NAME: Final = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*")


@frozen
class Found:
    """What a name means now, by the word of the registry: to be compared, and to be fetched and verified by digest."""

    digest: Digest
    media_type: str
    size: int


class Repository:
    """A repository of a registry, for what `actions` say: `pull`, `push`, `delete`. Thread-safe, as its `http` is.

    Who may push reads from the registry itself; else mirrors are asked first, and it is read from where registries.conf
    says (`hosts.sources`). `Http.request` says what all methods raise; beside that, `NotFound` for what is not there,
    `Denied` and `Unauthorized` for who may not.
    """

    def __init__(
        self,
        http: Http,
        settings: Settings,
        reference: Reference,
        *,
        actions: Sequence[str] = ("pull",),
        is_image: bool = True,
    ) -> None:
        """`is_image`: see `of_blobs`."""
        self.registry = reference.domain
        self.path = reference.path
        """The name within the registry: `library/debian`."""
        self.name = reference.name
        self.wanted = reference
        """What of it is wanted, as it was named."""
        self.limits = settings.limits
        self._http = http
        self._settings = settings
        self._access = (Rights(reference.path, tuple(actions)),)
        if tuple(actions) == ("pull",):
            sources = hosts.sources(settings, reference, is_image=is_image)
        else:
            sources = (Source(hosts.endpoints(settings, reference.domain)[-1], reference.path),)
        self._own = sources[-1].endpoint
        self._endpoints = Endpoints(http, sources, actions)
        self._of_mirrors: set[Digest] = set()
        """Blobs that came from a mirror: who asks again was not content."""

    @classmethod
    def of_images(cls, http: Http, settings: Settings, wanted: Reference) -> Repository:
        """One from which an image is taken to be used: raises `Denied` where a policy of the machine forbids that."""
        if settings.heeds_policy:
            policies.require_allowed(wanted)
        return cls(http, settings, wanted)

    @classmethod
    def of_blobs(cls, http: Http, settings: Settings, where: Reference) -> Repository:
        """One of which blobs alone are read: without tag or digest, `where` says not by which name their image came."""
        return cls(http, settings, where, is_image=False)

    # --- manifests ---

    def resolve(self, ref: str) -> Found | None:
        """What the tag or digest `ref` means; None if there is no such manifest.

        By HEAD, which Docker Hub does not count; by reading the manifest where that is not answered in full.
        """
        with self._read("HEAD", f"manifests/{ref}", _ACCEPT) as reply:
            if reply.status == 404:
                return None
            if reply.status == 200 and (found := _found(reply)) is not None:
                return found
        try:
            manifest = self.manifest(ref)
        except NotFound:
            return None
        return Found(manifest.digest, manifest.media_type, manifest.size)

    def manifest(self, ref: str, *, expected: Digest | None = None) -> Manifest:
        """The manifest or index of a tag or digest, verified if `ref` or `expected` is a digest.

        Raises `NotFound`, `DigestMismatch`, `LimitExceeded`; `RegistryError` for a web page or another thing that is
        none; `UnsupportedMediaType` for schema 1.
        """
        if expected is None and ref.startswith("sha256:"):
            expected = Digest(ref)
        title = f"manifest {ref} of {self.name}" if expected == ref else f"manifest of {self.name}:{ref}"
        attempt = 1
        while True:
            reply, mirror = self._ask("GET", f"manifests/{ref}", _ACCEPT)
            try:
                with reply:
                    return self._manifest(reply, expected, title)
            except LayerstoreError as error:
                is_cut = isinstance(error, Unreachable) and reply.status == 200
                if mirror is not None:
                    self._endpoints.drop(mirror)
                elif not is_cut or attempt == self._settings.attempts:
                    raise
            self._http.pause_before(attempt)
            attempt += 1

    def _manifest(self, reply: Reply, expected: Digest | None, title: str) -> Manifest:
        if reply.status != 200:
            raise reply.failure(f"reading the {title}")
        announced = reply.headers.get("Content-Type")
        if announced is not None and "html" in announced.lower():
            raise RegistryError(
                f"reading the {title}: {printable(self.registry)} answered with a web page",
                remedy="Look whether it is a registry; a proxy or a login page may stand in between.",
            )
        limit = self.limits.manifest_size
        data = reply.document(limit or _NO_LIMIT, setting="max-manifest-size")
        actual = digests.of_bytes(data)
        if expected is not None and actual != expected:
            raise DigestMismatch(f"the {title}", expected=expected, actual=actual, remedy=ALTERED)
        with told_of(self.registry):
            manifest = Manifest(actual, media_type_of(data, announced, f"the {title}"), data)
            read(manifest, f"the {title}")
        return manifest

    def put_manifest(self, ref: str, manifest: Manifest) -> Digest:
        """Write a manifest or index under a tag, or under its digest; the digest is given back.

        What is about another manifest is found by that, also where the registry has no referrers API.
        """
        if manifest.size > DOCUMENT_LIMIT:
            raise RegistryError(
                f"the manifest {manifest.digest} has {manifest.size} bytes: registries take {DOCUMENT_LIMIT}",
                remedy="Has the image annotations or embedded data that it can do without?",
            )
        headers = {"Content-Type": manifest.media_type}
        body = Body.of(manifest.data)
        # It may be made again: the same bytes under the same name are the same.
        reply = self._write("PUT", f"manifests/{ref}", headers, body=body, repeat=True)
        with reply:
            if reply.status not in (200, 201, 202):
                raise reply.failure(f"writing the manifest of {self.name}:{ref}")
            knows_subjects = "OCI-Subject" in reply.headers
        subject = read(manifest).subject
        if subject is not None and not knows_subjects:
            self._refer(read(manifest), subject)
        return manifest.digest

    def delete(self, ref: str) -> None:
        """Remove a manifest by digest, or a tag, where the registry can."""
        with self._write("DELETE", f"manifests/{ref}", {}, repeat=True) as reply:
            if reply.status not in (200, 202, 204):
                raise reply.failure(f"removing {ref} from {self.name}")

    # --- blobs ---

    def blob(
        self,
        digest: Digest,
        size: int,
        *,
        start: int = 0,
        end: int | None = None,
        is_narrow: bool = False,
        urls: Sequence[str] = (),
        spare: lanes.Spare | None = None,
    ) -> Reader:
        """The bytes of a blob from `start`. They are not verified: whoever has them all compares the digest.

        `end`: nothing behind it is asked for, and `NoRanges` raised where a server does not give a part alone.
        `is_narrow`: by one connection, and nothing ahead of the reader, who may not want it all.

        `urls` are those of a foreign layer's descriptor, asked if the registry has not got it. A large blob that comes
        slowly is read by several connections, if there are idle ones; `spare` gives files for what comes early.
        """

        is_own = digest in self._of_mirrors
        mirrors: WeakKeyDictionary[Reply, Source] = WeakKeyDictionary()

        def request(headers: Mapping[str, str]) -> Reply:
            reply, mirror = self._ask("GET", f"blobs/{digest}", headers, is_own=is_own)
            if mirror is not None:
                mirrors[reply] = mirror
                self._of_mirrors.add(digest)
            for url in urls if reply.status == 404 else ():
                if not _is_safe(url, self._own):
                    continue
                reply.close()
                reply = self._http.request(self._own, "GET", url, headers=headers)
                if reply.status < 400:
                    break
            return reply

        def doubt(reply: Reply) -> bool:
            if reply in mirrors:
                self._endpoints.drop(mirrors[reply])
            return reply in mirrors

        asking = Asking(
            self.registry,
            digest,
            size,
            self._settings.attempts,
            request=request,
            wait=self._http.pause_before,
            lines=self._http.lines,
            doubt=doubt,
        )
        if is_narrow or end is not None or size < 2 * lanes.PIECE or self._settings.downloads < 2:
            return BlobReader(asking, start=start, end=end, is_part=end is not None)
        return lanes.WideReader(asking, self._http.lines, start=start, spare=spare)

    def small_blob(self, descriptor: Descriptor, what: str = "config") -> bytes:
        """A config or another small blob, verified; what the descriptor has embedded is not asked for.

        Raises `LimitExceeded` if it claims more than that, `DigestMismatch`.
        """
        if descriptor.data is not None:
            return descriptor.data
        title = f"the {what} {descriptor.digest} of {self.name}"
        self.limits.check_document(what, descriptor.size, title)
        data = bytearray(descriptor.size)
        at = 0
        with self.blob(descriptor.digest, descriptor.size, urls=descriptor.urls) as reader:
            while count := reader.readinto(memoryview(data)[at:]):
                at += count
        actual = digests.of_bytes(bytes(data))
        if actual != descriptor.digest:
            raise DigestMismatch(title, expected=descriptor.digest, actual=actual, remedy=ALTERED)
        return bytes(data)

    def has_blob(self, digest: Digest) -> int | None:
        """The size of a blob that is there; None if it is not, or if the registry does not tell."""
        with self._read("HEAD", f"blobs/{digest}", {}) as reply:
            return reply.size if reply.status == 200 else None

    def upload(
        self,
        digest: Digest,
        body: Body,
        *,
        mount_from: Sequence[str] = (),
        progress: Progress | None = None,
        is_asked: bool = False,
        tried: Callable[[str], object] | None = None,
    ) -> Sent:
        """Have the registry have a blob: it is there, or mounted from one of `mount_from` (paths there), or is sent.

        `progress` is told how many bytes of it have been sent so far; the number may go back. `is_asked`: `has_blob`
        was, and said no. `tried` is told each repository from which a mount is tried: the last is the one that it is
        mounted from.
        """
        if not is_asked and self.has_blob(digest) is not None:
            return Sent.PRESENT
        uploads = Uploads(self._http, self._settings, self._own, self.path, self._access, self.has_blob)
        return uploads.bring(digest, body, mount_from=mount_from, progress=progress, tried=tried)

    # --- lists ---

    def tags(self) -> Iterator[str]:
        """All tags, in the registry's order. Raises `NotFound` if there is no such repository."""
        doing = f"listing the tags of {self.name}"
        for page in self._pages("tags/list", doing, {"n": str(_PAGE)}):
            yield from _names(page, "tags", _TAG, doing)

    def referrers(self, digest: Digest, artifact_type: str | None = None) -> list[Descriptor]:
        """The manifests that are about `digest`: signatures, SBOMs. By the referrers API, else by the tag schema."""
        query = {} if artifact_type is None else {"artifactType": artifact_type}
        doing = f"listing what refers to {digest} in {self.name}"
        try:
            pages = list(self._pages(f"referrers/{digest}", doing, query, content_type=INDEX_TYPE))
        except (NotFound, _OtherContent):
            pages = []
            index = self._referrers_index(digest)
            listed = () if index is None else index.manifests
        else:
            with told_of(self.registry):
                indexes = [Manifest(digests.of_bytes(data), INDEX_TYPE, data) for data in pages]
                listed = tuple(entry for index in indexes for entry in read(index).manifests)
        return [entry for entry in listed if artifact_type in (None, entry.artifact_type)]

    def _referrers_index(self, digest: Digest) -> Contents | None:
        """The index by which referrers are found without an API (distribution-spec, "Referrers Tag Schema")."""
        try:
            manifest = self.manifest(_referrers_tag(digest))
        except NotFound:
            return None
        return read(manifest) if manifest.is_index else None

    def _refer(self, referrer: Contents, subject: Descriptor) -> None:
        """Add a manifest to the index of those that refer to its subject (the same section)."""
        index = self._referrers_index(subject.digest)
        listed = [] if index is None else list(index.manifests)
        if referrer.manifest.digest in (entry.digest for entry in listed):
            return
        kind = referrer.artifact_type or (None if referrer.config is None else referrer.config.media_type)
        own = referrer.manifest
        listed.append(Descriptor(own.media_type, own.digest, own.size, referrer.annotations, artifact_type=kind))
        self.put_manifest(_referrers_tag(subject.digest), written(listed))

    def _pages(
        self, target: str, doing: str, query: Mapping[str, str], *, content_type: str | None = None
    ) -> Iterator[bytes]:
        """The documents of a list, page by page. Of a `Link` only the query counts: it leads nowhere else."""
        yield from _pages(
            lambda parameters: self._read("GET", f"{target}{parameters}", {}), doing, query, content_type=content_type
        )

    # --- requests ---

    def _read(self, method: str, target: str, headers: Mapping[str, str]) -> Reply:
        return self._ask(method, target, headers)[0]

    def _ask(
        self, method: str, target: str, headers: Mapping[str, str], *, is_own: bool = False
    ) -> tuple[Reply, Source | None]:
        return self._endpoints.ask(method, target, headers, is_own=is_own)

    def _write(
        self, method: str, target: str, headers: Mapping[str, str], *, body: Body | None = None, repeat: bool = False
    ) -> Reply:
        path = f"/v2/{quote(self.path)}/{target}"
        return self._http.request(
            self._own, method, path, access=self._access, headers=headers, body=body, repeat=repeat
        )


def catalog(http: Http, settings: Settings, registry: str) -> Iterator[str]:
    """The repositories of a registry (`_catalog`), where it lists them: Docker Hub does not."""
    endpoint = hosts.endpoints(settings, registry)[-1]
    access = (Rights("catalog", ("*",), kind="registry"),)

    def ask(parameters: str) -> Reply:
        return http.request(endpoint, "GET", f"/v2/_catalog{parameters}", access=access)

    doing = f"listing the repositories of {registry}"
    for page in _pages(ask, doing, {"n": str(_PAGE)}):
        yield from _names(page, "repositories", _NAME, doing)


class _OtherContent(Exception):
    """A list has another media type than what was asked for: whatever answers does not know the question."""


def _pages(
    ask: Callable[[str], Reply], doing: str, query: Mapping[str, str], *, content_type: str | None = None
) -> Iterator[bytes]:
    parameters = f"?{urlencode(query)}" if query else ""
    seen = set()
    while parameters not in seen:
        seen.add(parameters)
        with ask(parameters) as reply:
            if reply.status != 200:
                raise reply.failure(doing)
            announced = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if content_type is not None and announced != content_type:
                raise _OtherContent
            data = reply.document(DOCUMENT_LIMIT)
            link = _LINK.search(reply.headers.get("Link", "")[: 16 << 10])
        yield data
        if link is None:
            return
        if len(seen) == _PAGES:
            raise RegistryError(f"{doing}: there are more than {_PAGES} pages", remedy="Tell those who run it.")
        parameters = f"?{urlsplit(link[1]).query}"
    raise RegistryError(f"{doing}: its pages lead in a circle", remedy="Tell those who run it.")


def _names(page: bytes, key: str, form: re.Pattern[str], doing: str) -> Iterator[str]:
    """The names on a page. What cannot be a name is left out: nobody could ask for it."""
    try:
        listed = as_list(parse_object(page, "the answer").get(key), f"{key} in the answer")
    except InvalidArchive as error:
        raise RegistryError(f"{doing}: {error.message}", remedy="Tell those who run the registry.") from error
    return (name for name in listed if isinstance(name, str) and form.fullmatch(name))


def _found(reply: Reply) -> Found | None:
    """What a HEAD says, if it says all of it."""
    media_type = reply.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in (*MANIFESTS, *INDEXES) or not reply.size:
        return None
    try:
        return Found(digests.parse(reply.headers.get("Docker-Content-Digest", "").strip()), media_type, reply.size)
    except InvalidDigest:
        return None


def _is_safe(url: str, endpoint: Endpoint) -> bool:
    """May a manifest lead us there? Where the registry itself need not be HTTPS, what it names need not."""
    parts = urlsplit(url)
    return bool(parts.hostname) and parts.scheme in (("https", "http") if endpoint.plain else ("https",))


def _referrers_tag(subject: Digest) -> str:
    return subject.replace(":", "-")
