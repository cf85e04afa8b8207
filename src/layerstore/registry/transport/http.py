"""One request to a registry, and all that it takes: who we are, where to, again, and not for ever.

The invariant: what proves who we are goes to the registry's own host (scheme, name and port), and to the token service
that it names; never along a redirect, and never to an upload's `Location` elsewhere.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Lock
from types import TracebackType
from typing import Final, Protocol
from urllib.parse import urlsplit

from attrs import evolve, field

import layerstore
from layerstore.errors import RegistryError, Unreachable
from layerstore.registry.transport import challenges, retries
from layerstore.registry.transport.challenges import Challenge
from layerstore.registry.transport.connections import Connections
from layerstore.registry.transport.credentials import Credentials, find
from layerstore.registry.transport.hosts import Endpoint, is_insecure
from layerstore.registry.transport.lines import Lines
from layerstore.registry.transport.replies import Reply
from layerstore.registry.transport.settings import Settings
from layerstore.registry.transport.tokens import Rights, Sender, Tokens, merged
from layerstore.registry.transport.troubles import CAUSES, Trouble, explained
from layerstore.registry.transport.urls import absolute, check_realm, is_loopback, origin, redirected
from layerstore.registry.transport.words import printable
from layerstore.values import define, frozen

__all__ = ["Body", "Http", "Readable", "Reply", "Rights"]

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MOST_REDIRECTS: Final = 10
_REPEATABLE: Final = ("GET", "HEAD", "DELETE")
_WRONG_SCHEME: Final = (400, 497)
"""What servers of HTTPS answer to HTTP: Go's 400, nginx' 400 or 497."""
_AGENT: Final = f"layerstore/{layerstore.__version__} (Linux; {os.uname().machine})"


class Readable(Protocol):
    """What a body is read from: an error that it raises is whoever's who gave it, and passed on as it is."""

    def read(self, size: int = ..., /) -> bytes: ...

    def close(self) -> None: ...


@frozen
class Body:
    """What is sent. `open` gives it from its beginning, each time anew; `size` None: it is sent in chunks."""

    size: int | None
    open: Callable[[], Readable]

    @classmethod
    def of(cls, data: bytes) -> Body:
        """A body that is in memory."""
        return cls(len(data), lambda: io.BytesIO(data))


@frozen
class Question:
    """A request without its URL."""

    method: str
    headers: Mapping[str, str]
    body: Body | None
    registry: str = field(kw_only=True)
    shown: str | None = field(default=None, repr=False, kw_only=True)
    """The `Authorization`."""
    account: str | None = field(default=None, kw_only=True)
    is_secret: bool = field(default=False, kw_only=True)
    """The body proves who we are."""

    def by(self, shown: str | None, account: str | None) -> Question:
        """The same, asked by somebody."""
        return evolve(self, shown=shown, account=None if shown is None else account)


@frozen
class _Wish:
    """Where a request goes, and what it needs to be allowed."""

    target: str
    access: Sequence[Rights]
    credentials: Credentials | None = field(repr=False)

    @property
    def scopes(self) -> tuple[str, ...]:
        return merged(entry.scope for entry in self.access)


@define(eq=False)
class _Way:
    """What was learnt of an endpoint: how it is spoken to, and what it wants to know of us."""

    endpoint: Endpoint
    base: str
    is_settled: bool
    """Whether it is known that `base` has the right scheme."""
    was_reached: bool = False
    challenge: Challenge | None = None
    scopes: dict[tuple[str, ...], tuple[str, ...]] = field(factory=dict)
    """What it asked for beyond what we had thought of."""
    credentials: dict[str, Credentials | None] = field(factory=dict)
    lock: Lock = field(factory=Lock)

    def settle(self, base: str, reply: Reply) -> Reply:
        """It has answered, and that is how it is reached."""
        self.base, self.is_settled, self.was_reached = base, True, True
        return reply

    def learn(self, wanted: Challenge, ours: tuple[str, ...]) -> None:
        """What it wants to know, and for what: some name no scope, and some others than we would."""
        with self.lock:
            self.challenge = wanted
            asked = wanted.parameters.get("scope", "").split()
            if asked:
                self.scopes[ours] = merged([*self.scopes.get(ours, ours), *asked])


class Http:
    """Talks to registries. Thread-safe; a context manager.

    `told` is given a line for a person, printable, when there is something to know: a wait, a registry's warning.
    """

    def __init__(self, settings: Settings, *, told: Callable[[str], None] | None = None) -> None:
        self.settings = settings
        self.lines = Lines(settings.downloads)
        """The connections that read blobs."""
        self._told = told
        self._connections = Connections(settings)
        self._tokens = Tokens()
        self._ways: dict[Endpoint, _Way] = {}
        self._lock = Lock()
        self._closed = Event()
        self._said: set[str] = set()
        self._trusted: dict[str, bool] = {}

    def __enter__(self) -> Http:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all waits, and close the connections that are not in use."""
        self._closed.set()
        self._connections.close()

    def request(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        *,
        access: Sequence[Rights] = (),
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        repeat: bool | None = None,
        credentials: Credentials | None = None,
    ) -> Reply:
        """Ask `endpoint`, and give back its reply, whatever the status that is left after all has been tried.

        `target` is a path (`/v2/…`) or a whole URL (a `Location`). `access` is what the request needs, should tokens be
        wanted. `repeat`: whether it may be made again when its fate is not known; by default GET, HEAD and DELETE are.
        `credentials` are shown in the place of those that the user's files have.

        Raises `Unreachable`, `CertificateError`, `RateLimited` (where the wait would be longer than the settings allow)
        and `Unauthorized` (of the token service).
        """
        way = self._way(endpoint)
        question = Question(method, headers or {}, body, registry=endpoint.name)
        wish = _Wish(target, access, credentials)
        again = method in _REPEATABLE if repeat is None else repeat
        return self._persistent(lambda: self._admitted(way, question, wish), way, repeat=again)

    def identity_of(self, credentials: Credentials) -> str | None:
        """The identity token that a token service gave for `credentials`, if they asked for one and it did."""
        return self._tokens.identity_of(credentials)

    # ---- again and again

    def _persistent(self, ask: Callable[[], Reply], way: _Way | None, *, repeat: bool) -> Reply:
        """Ask until there is a reply that another try would not better."""
        for attempt in range(1, self.settings.attempts + 1):
            is_last = attempt == self.settings.attempts
            try:
                reply = ask()
            except Failed as failed:
                trouble = failed.trouble
                # What never answered is rather a wrong name than a moment's trouble.
                is_known = way is None or way.was_reached or not trouble.is_of_connecting
                if is_last or not trouble.passes or not is_known or not (repeat or trouble.is_of_connecting):
                    raise trouble.error from failed.__cause__
                self._wait(retries.pause(attempt, self.settings.pause))
                continue
            self._note(reply)
            wait = None if is_last else self._before_next(reply, attempt, repeat=repeat)
            if wait is None:
                return reply
            reply.close()
            self._wait(wait)
        raise AssertionError("there is at least one attempt")

    def _before_next(self, reply: Reply, attempt: int, *, repeat: bool) -> float | None:
        """The seconds before it is worth while to ask again; None: it is not. Raises `RateLimited`."""
        if reply.status not in retries.PASSING and reply.status not in retries.LIMITING:
            return None
        after = retries.retry_after(reply.headers) if reply.status in retries.LIMITING else None
        if after is None:
            limit = retries.limit_of(reply.headers)
            # Docker Hub says no more of a limit that is used up, and which lasts for hours.
            is_used_up = (
                limit is not None and limit.remaining == 0 and (limit.window or 0) > self.settings.longest_pause
            )
            if is_used_up or not (repeat or reply.status == 429):
                return None
            return retries.pause(attempt, self.settings.pause)
        if after > self.settings.longest_pause:
            with reply:
                raise reply.limited(None, after)
        if after >= 1:
            self._tell(f"{printable(reply.registry)} asks to wait for {after:.0f} s")
        return retries.spread(after)

    def _note(self, reply: Reply) -> None:
        """What a person should know of a reply."""
        for text in retries.warnings(reply.headers):
            self._tell(f"{printable(reply.registry)} warns: {text}")
        limit = retries.limit_of(reply.headers)
        if limit is not None and limit.total and limit.window and 0 < limit.remaining <= limit.total // 20:
            hours = f"{limit.window / 3600:g} hours"
            text = f"{printable(reply.registry)} allows {limit.remaining} more requests of {limit.total} in {hours}"
            self._tell(text, key=f"limit of {reply.registry}")

    def pause_before(self, attempt: int) -> None:
        """Wait as before a repetition, after `attempt` (from 1) of what is more than one request. Raises `Unreachable`
        if this is closed meanwhile."""
        self._wait(retries.pause(attempt, self.settings.pause))

    def _wait(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise Unreachable("the transfer was given up", remedy="Start it again.")

    def _tell(self, text: str, *, key: str | None = None) -> None:
        """Once, however often it is said."""
        with self._lock:
            is_new = (key or text) not in self._said
            self._said.add(key or text)
        if is_new and self._told is not None:
            self._told(text)

    # ---- who we are

    def _admitted(self, way: _Way, question: Question, wish: _Wish) -> Reply:
        """Ask, and once more when the registry says what it wants to know."""
        refused = None
        while True:
            shown, account = self._authorization(way, wish, refused)
            reply = self._settled(way, question.by(shown, account), wish.target)
            if reply.status != 401 or origin(reply.url) != origin(way.base):
                return reply
            wanted = _chosen(challenges.parse(reply.values("WWW-Authenticate")))
            if wanted is None or refused is not None or (shown is not None and wanted.scheme == "basic"):
                return reply  # it has seen what we have, twice where it was a token: that may have been an old one
            if wanted.scheme == "basic" and ((known := self._credentials(way, wish)) is None or known.basic is None):
                return reply
            reply.close()
            way.learn(wanted, wish.scopes)
            refused = shown or ""

    def _authorization(self, way: _Way, wish: _Wish, refused: str | None) -> tuple[str | None, str | None]:
        """The `Authorization` to send, if any, and where the credentials in it are from."""
        challenge = way.challenge
        if challenge is None:
            return None, None
        credentials = self._credentials(way, wish)
        account = None if credentials is None else credentials.source
        if challenge.scheme == "basic":
            return (None if credentials is None else credentials.basic), account
        token = self._tokens.get(
            challenge,
            way.scopes.get(wish.scopes, wish.scopes),
            credentials,
            self._sender(way, challenge, account),
            registry=way.endpoint.name,
            refused=None if refused is None else refused.removeprefix("Bearer "),
        )
        return f"Bearer {token}", account

    def _credentials(self, way: _Way, wish: _Wish) -> Credentials | None:
        if wish.credentials is not None:
            return wish.credentials
        repository = wish.access[0].repository if wish.access else ""
        with way.lock:
            if repository not in way.credentials:
                way.credentials[repository] = find(way.endpoint.name, repository, self.settings.access)
            return way.credentials[repository]

    def _sender(self, way: _Way, challenge: Challenge, account: str | None) -> Sender:
        """How this registry's token service is asked."""
        registry = way.endpoint.name
        check_realm(challenge.parameters.get("realm", ""), way.base, registry)

        def send(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
            others = {name: value for name, value in headers.items() if name != "Authorization"}
            content = None if body is None else Body.of(body)
            question = Question(method, others, content, registry=registry, is_secret=body is not None)
            question = question.by(headers.get("Authorization"), account)
            return self._persistent(lambda: self._followed(question, url, way), None, repeat=True)

        return send

    # ---- where to

    def _way(self, endpoint: Endpoint) -> _Way:
        with self._lock:
            way = self._ways.get(endpoint)
            if way is None:
                is_settled = not endpoint.plain or endpoint.base.startswith("http://")
                way = self._ways[endpoint] = _Way(endpoint, endpoint.base, is_settled)
            return way

    def _settled(self, way: _Way, question: Question, target: str) -> Reply:
        """Ask by HTTPS, or by HTTP where that is allowed and the server knows no other."""

        def ask(base: str) -> Reply:
            url = absolute(base, target)
            return self._followed(question if origin(url) == origin(base) else question.by(None, None), url, way)

        if way.is_settled:
            return way.settle(way.base, ask(way.base))
        secure = way.endpoint.base
        plain = secure.replace("https://", "http://", 1)
        # To the machine itself HTTP is as safe, and a server of HTTPS says at once that it is none of HTTP.
        order = (plain, secure) if is_loopback(secure) else (secure, plain)
        first: Reply | Failed
        try:
            first = ask(order[0])
        except Failed as failed:
            if not failed.trouble.is_of_scheme and urlsplit(secure).port is not None:
                raise
            first = failed
        if isinstance(first, Reply) and not (order[0] == plain and first.status in _WRONG_SCHEME):
            return way.settle(order[0], first)
        try:
            second = ask(order[1])
        except Failed:
            if isinstance(first, Reply):
                return way.settle(order[0], first)
            raise first from first.__cause__
        if isinstance(first, Reply):
            first.close()
        elif order[1] == plain and second.status in _WRONG_SCHEME:
            second.close()  # it does speak HTTPS, and had a bad moment
            raise first from first.__cause__
        return way.settle(order[1], second)

    def _verify(self, way: _Way, url: str) -> bool:
        """Whether whoever has this URL has to prove who it is. What an insecure registry names need not, as in docker:
        whoever can be it can name what he likes."""
        if not way.endpoint.verify or origin(url)[1:] == origin(way.endpoint.base)[1:]:
            return way.endpoint.verify
        host = urlsplit(url).netloc
        if host not in self._trusted:  # to find out may need a name service
            self._trusted[host] = not is_insecure(self.settings, host)
        return self._trusted[host]

    def _followed(self, question: Question, url: str, way: _Way) -> Reply:
        """Ask, and go where the reply sends us: at most ten times."""
        for _ in range(_MOST_REDIRECTS + 1):
            reply = self._once(question, url, way)
            location = reply.headers.get("Location")
            if reply.status not in _REDIRECTS or not location:
                return reply
            reply.close()
            following = redirected(url, location, question.registry)
            if origin(following) != origin(url):
                if question.is_secret:
                    raise RegistryError(
                        f"{printable(question.registry)} sends us with our credentials to another host, "
                        f"{printable(origin(following)[1])}",
                        remedy="Nothing was sent there. Tell those who run the registry.",
                    )
                # Once away, nobody is shown who we are, not even the registry itself.
                question = question.by(None, None)
            if reply.status == 303 and question.method != "HEAD":
                question = evolve(question, method="GET", body=None)
            url = following
        raise RegistryError(
            f"{printable(question.registry)} sends us from one place to the next, more than {_MOST_REDIRECTS} times",
            remedy="Tell those who run it.",
        )

    def _once(self, question: Question, url: str, way: _Way) -> Reply:
        headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **question.headers}
        if question.shown is not None:
            headers["Authorization"] = question.shown
        body = None
        if question.body is not None:
            body = _Sent(question.body.open())
            if question.body.size is not None:
                headers["Content-Length"] = str(question.body.size)
        try:
            response = self._connections.send(
                question.method,
                url,
                headers,
                body,
                registry_host=way.endpoint.host,
                verify=self._verify(way, url),
            )
        except CAUSES as cause:
            if body is not None and body.failure is not None:
                raise body.failure from None
            raise Failed(explained(cause, url, self.settings)) from cause
        finally:
            if body is not None:
                body.close()
        return Reply(response, url, self.settings, registry=question.registry, account=question.account)


class _Sent(io.RawIOBase):
    """A body on its way: an error of what it comes from is told apart from one of the network."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except Exception as failure:
            self.failure = failure
            raise

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class Failed(Exception):
    """There was no reply; `trouble` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(str(trouble.error))
        self.trouble = trouble


def _chosen(found: Sequence[Challenge]) -> Challenge | None:
    """The way in that we take: tokens before passwords."""
    for scheme in ("bearer", "basic"):
        for challenge in found:
            if challenge.scheme == scheme:
                return challenge
    return None
