"""All of daemon.json's `remotes` together: who is alive, who is we ourselves, whose turn it is, where to keep things.

The same list may be on every machine: a store knows itself by its ID. Nothing here fails a pull.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, Self

from layerstore.digest import Digest, of_bytes
from layerstore.errors import ConfigError
from layerstore.registry.remotes.health import HEALTH
from layerstore.registry.remotes.hunt import Hunt, Sought
from layerstore.registry.remotes.peer import Peer
from layerstore.registry.remotes.remote import BUCKETS, STORES, Address, Keeper, Name, Remote, RemoteFailed
from layerstore.registry.remotes.turns import first_of

if TYPE_CHECKING:
    from layerstore.registry.transport.settings import Settings

__all__ = ["Remotes"]

MOST: Final = 64
"""So many remotes may be named: each is asked about every image. The stores of a rack are fewer."""

_ARBITERS: Final = 2
"""So many stores are asked whose turn it is, if the first does not answer."""


class Remotes:
    """The remotes of a store. A context manager: closing it closes their connections. Any thread may use it."""

    def __init__(self, texts: Sequence[str], *, settings: Settings, store_id: str) -> None:
        if len(texts) > MOST:
            raise ConfigError(
                f"remotes: {len(texts)} are named, and at most {MOST} are asked",
                remedy="Name the stores of the same rack, and a registry or a bucket for all.",
            )
        self.store_id = store_id
        self.all: list[Remote] = [_opened(Address.parse(text), settings) for text in dict.fromkeys(texts)]
        self._peers = [remote for remote in self.all if isinstance(remote, Peer)]

    def hunt(self, wanted: Sequence[Sought]) -> Hunt:
        """Begin to find out who has these layers. Whoever begins closes it."""
        return Hunt(self, wanted)

    @property
    def keeper(self) -> Keeper | None:
        """The first that can be written to."""
        return next((remote for remote in self.all if isinstance(remote, Keeper)), None)

    def meaning(self, name: str) -> tuple[Remote, Name, bytes] | None:
        """What a full name means in the first remote that keeps names and has it: where, what, and the manifest.

        A name is believed, as no digest proves it: only of what its owner has given (buckets, registries).
        """
        for remote in self.all:
            if isinstance(remote, Keeper) and not HEALTH.is_paused(remote.name):
                try:
                    found = remote.resolve(name)
                    data = None if found is None else remote.manifest(found.digest)
                except RemoteFailed:
                    HEALTH.failed(remote.name)
                    continue
                if found is not None and data is not None and of_bytes(data) == found.digest:
                    return remote, found, data
        return None

    def manifest(self, digest: Digest) -> bytes | None:
        """A manifest by its digest, which is verified, from any that has it."""
        for remote in self.all:
            if not HEALTH.is_paused(remote.name):
                try:
                    data = remote.manifest(digest)
                except RemoteFailed:
                    HEALTH.failed(remote.name)
                    continue
                if data is not None and of_bytes(data) == digest:
                    return data
        return None

    def small_blob(self, digest: Digest, size: int) -> bytes | None:
        """A config by its digest, which is verified, from any that has it. `size` is small."""
        for remote in self.all:
            if HEALTH.is_paused(remote.name) or self.is_me(remote):
                continue
            buffer, at = bytearray(size), 0
            try:
                reading = remote.read(digest, 0, size)
                while at < size and (count := reading.readinto(memoryview(buffer)[at:])):
                    at += count
                reading.close()
            except RemoteFailed as error:
                if not error.is_absent:
                    HEALTH.failed(remote.name)
                continue
            if of_bytes(bytes(buffer)) == digest:
                return bytes(buffer)
        return None

    def is_me(self, remote: Remote) -> bool:
        """Is it this store, that is served?"""
        return isinstance(remote, Peer) and remote.id == self.store_id

    def whose_turn(self, digest: Digest, lost: Collection[str] = ()) -> Peer | None:
        """The store that has a blob before us, or will have; None: it is our turn, or nobody knows.

        `lost`: the IDs of those that had nothing to give.
        """
        alive: dict[str, Peer] = {}
        for peer in self._peers:
            if peer.id and not HEALTH.is_paused(peer.name):
                alive.setdefault(peer.id, peer)
        gives = self.store_id in alive
        if not set(alive) - {self.store_id}:
            return None
        for name in first_of(digest, alive)[:_ARBITERS]:
            try:
                found = alive[name].turn(digest, self.store_id, lost, gives=gives)
            except RemoteFailed:
                HEALTH.failed(alive[name].name)
                continue
            return alive.get(found) if found is not None and found not in {self.store_id, *lost} else None
        return None

    def close(self) -> None:
        """Close all connections."""
        for remote in self.all:
            remote.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(address: Address, settings: Settings) -> Remote:
    if address.scheme in STORES:
        return Peer(address, settings)
    if address.scheme in BUCKETS:
        from layerstore.registry.remotes.bucket import Bucket

        return Bucket(address)
    from layerstore.registry.remotes.mirror import RegistryMirror

    return RegistryMirror(address, settings)
