"""A token service as docker's (distribution, docs/spec/auth): GET with Basic, OAuth POST, refresh tokens, short expiry.

Its tokens are JWTs signed with ES256, which Debian's docker-registry accepts: `certificate` is its rootcertbundle.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from .listening import Answer, Seen, Server

USER, PASSWORD = "anna", "open sesame"


class TokenService(Server):
    """Gives tokens to `users` and, for `anonymous` actions, to everybody. The switches may be changed at any time."""

    service = "the tests' registry"
    issuer = "the tests' token service"

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.users = {USER: PASSWORD}
        self.refresh_tokens: dict[str, str] = {}
        """Refresh token → whose it is."""
        self.anonymous: tuple[str, ...] = ("pull",)
        self.lifetime = 300
        """Seconds that a token is good for."""
        self.tells_lifetime = True
        self.field = "token"
        """The field that has the token; by OAuth it is always access_token."""
        self.oauth = True
        """Is there a POST at all?"""
        self.gives_refresh_tokens = True
        self.refused: set[str] = set()
        """Repositories for which there is no token, nor for what is asked for together with them."""
        self.issued: dict[str, tuple[float, list[dict[str, Any]]]] = {}
        """Token → until when, and what it is for."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._self_signed()

    @property
    def certificate(self) -> bytes:
        """The certificate by which the tokens can be checked, as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def allows(self, token: str, repository: str | None, action: str) -> bool:
        """Is it a token that is good now, and for that?"""
        until, access = self.issued.get(token, (0.0, []))
        if until <= time.time():
            return False
        return repository is None or any(entry["name"] == repository and action in entry["actions"] for entry in access)

    def revoke(self) -> None:
        """Let no token that was given out so far be good any more."""
        self.issued.clear()

    def answer(self, seen: Seen) -> Answer:
        if seen.path != "/token":
            return Answer(404)
        if seen.method == "POST":
            return self._by_post(seen)
        if seen.method != "GET":
            return Answer(405)
        if any(f":{name}:" in scope for name in self.refused for scope in seen.query.get("scope", [])):
            return _refusal("DENIED", "requested access to the resource is denied")
        user = None
        if seen.authorization is not None:
            scheme, _, value = seen.authorization.partition(" ")
            user, _, password = base64.b64decode(value).decode().partition(":")
            if scheme != "Basic" or self.users.get(user) != password:
                return _refusal("UNAUTHORIZED", "incorrect username or password")
        content = self._grant(user, seen.query.get("scope", []), self.field)
        if seen.first("offline_token") == "true" and user is not None:
            content["refresh_token"] = self._refresh_token(user)
        return _json(content)

    def _by_post(self, seen: Seen) -> Answer:
        if not self.oauth:
            return Answer(405)
        form = {key: values[0] for key, values in parse_qs(seen.body.decode()).items()}
        if "client_id" not in form or "service" not in form:
            return _json({"error": "invalid_request"}, 400)
        user: str | None = None
        if form.get("grant_type") == "refresh_token":
            user = self.refresh_tokens.get(form.get("refresh_token", ""))
        elif form.get("grant_type") == "password" and self.users.get(form.get("username", "")) == form.get("password"):
            user = form["username"]
        if user is None:
            return _refusal("UNAUTHORIZED", "authentication failed")
        content = self._grant(user, form.get("scope", "").split(), "access_token")
        if form.get("access_type") == "offline":
            content["refresh_token"] = self._refresh_token(user)
        return _json(content)

    def _refresh_token(self, user: str) -> str:
        token = secrets.token_urlsafe(12)
        self.refresh_tokens[token] = user
        return token

    def _grant(self, user: str | None, scopes: list[str], field: str) -> dict[str, Any]:
        access = []
        for scope in " ".join(scopes).split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            wanted = actions.split(",")
            allowed = wanted if user is not None else [action for action in wanted if action in self.anonymous]
            if allowed:
                access.append({"type": kind, "name": name, "actions": allowed})
        now = time.time()
        claims = {
            "iss": self.issuer,
            "sub": user or "",
            "aud": self.service,
            "exp": int(now + self.lifetime) + 1,
            "nbf": int(now) - 10,
            "iat": int(now),
            "jti": secrets.token_hex(8),
            "access": access,
        }
        token = self._signed(claims)
        self.issued[token] = (now + self.lifetime, access)
        issued = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {field: token} | ({"expires_in": self.lifetime, "issued_at": issued} if self.tells_lifetime else {})

    def _signed(self, claims: dict[str, Any]) -> str:
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        text = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def _self_signed(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.issuer)])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(content: dict[str, Any], status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(content).encode())


def _refusal(code: str, message: str) -> Answer:
    return _json({"errors": [{"code": code, "message": message, "detail": None}]}, 401)
