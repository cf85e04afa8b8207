"""Who may come in: users and bcrypt hashes of their passwords, in a file that `htpasswd -B` writes.

The file is read again when it changes. bcrypt takes a while on purpose, so what was right once is remembered, by a
keyed hash that is worth nothing outside of this process; and no more than two passwords are tried at one time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from layerstore.errors import ConfigError, LayerstoreError, named

_LINE: Final = re.compile(r"([^:\x00-\x1f]{1,255}):(\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53})\s*")
_LONGEST: Final = 72
"""Bytes of a password that bcrypt looks at."""
_SIZE_LIMIT: Final = 1 << 20
_REMEMBERED: Final = 1000


class Passwords:
    """The users of a file. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Read them. Raises `ConfigError`, `KernelError`."""
        try:
            import bcrypt
        except ModuleNotFoundError:
            raise LayerstoreError(
                "passwords need the package bcrypt, which is not installed",
                remedy="Install it with: pip install 'layerstore[serve]'",
            ) from None
        self._bcrypt = bcrypt
        self._path = path
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(2)
        self._key = secrets.token_bytes(32)
        self._right: set[bytes] = set()
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16).hex().encode(), bcrypt.gensalt(10))
        self._stamp = self._stamp_now()
        self._users = self._read()

    def admit(self, authorization: str) -> bool:
        """Does a header `Authorization` say the name and the password of a user?"""
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except binascii.Error:
            return False
        user, colon, password = given.partition(b":")
        if not colon or b"\0" in password:
            return False
        self._refresh()
        proof = hmac.digest(self._key, given, hashlib.sha256)
        with self._lock:
            if proof in self._right:
                return True
            users = self._users
        known = users.get(user.decode(errors="replace"))
        with self._turns:
            # Somebody who is not known takes as long as somebody who is.
            is_right = self._bcrypt.checkpw(password[:_LONGEST], self._nobody if known is None else known)
        if not is_right or known is None:
            return False
        with self._lock:
            if users is self._users:
                if len(self._right) >= _REMEMBERED:
                    self._right.clear()
                self._right.add(proof)
        return True

    def _refresh(self) -> None:
        """Read the file again if it is another one. If it cannot be read, those who were known stay so."""
        try:
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return
            users = self._read()
        except LayerstoreError:
            return
        with self._lock:
            self._stamp, self._users = stamp, users
            self._right = set()

    def _stamp_now(self) -> tuple[int, ...]:
        with named("stat", self._path):
            facts = os.stat(self._path)
        return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns

    def _read(self) -> Mapping[str, bytes]:
        with named("read", self._path), open(self._path, "rb") as file:
            data = file.read(_SIZE_LIMIT + 1)
        users: dict[str, bytes] = {}
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            if len(data) > _SIZE_LIMIT or (match := _LINE.fullmatch(line)) is None:
                raise ConfigError(
                    f"line {number} of {self._path} is no user with a bcrypt hash",
                    remedy="Write the file with `htpasswd -B`: other hashes than bcrypt's are not taken.",
                    path=self._path,
                )
            users[match[1]] = match[2].encode()
        if not users:
            raise ConfigError(f"there is no user in {self._path}", remedy="Add one with `htpasswd -B`.")
        return users
