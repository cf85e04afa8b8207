"""Fixtures for lazy layers: an image with indexes in a registry, a store by erofs, and the processes behind it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import layerstore
from layerstore.access import Access
from layerstore.config import Config
from layerstore.errors import DriverNotSupported
from layerstore.kernel import watching
from layerstore.kernel.mounts import processes_with
from layerstore.limits import Limits
from layerstore.store import Store
from registry.conftest import conf, credential_files, quirks
from registry.servers.quirks import Quirks
from support import images

__all__ = ["conf", "credential_files", "quirks"]


_DIGITS = bytes(48 + byte % 10 for byte in range(256))


def bytes_of(size: int, seed: int) -> bytes:
    """Digits, of which deflate makes less than a half."""
    return random.Random(seed).randbytes(size).translate(_DIGITS)


LARGE = bytes_of(6 << 20, 7)
SECOND = images.file("second", bytes_of(2 << 20, 3))
LAYERS = [
    images.layer(
        images.folder("etc"),
        images.file("etc/hosts", "localhost\n"),
        *(images.file(f"data/{number}", bytes_of(300_000, number)) for number in range(20)),
        images.file("large", LARGE),
    ),
    images.layer(images.file("etc/motd", "hello\n"), SECOND),
]


NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


@pytest.fixture(params=["ext4", "xfs", "btrfs"] if NIGHTLY else ["ext4"])
def root(request: pytest.FixtureRequest, backing: Callable[[str], Path]) -> Path:
    """The data-root of a store whose layers can be lazy."""
    place = backing(request.param)
    try:
        watching.require(place)
    except DriverNotSupported as refused:
        pytest.skip(refused.message)
    return place / "lazy store"


class Lazies:
    """A store by erofs, opened as often as is wanted, and its holder and fetcher."""

    def __init__(self, root: Path, exec_root: Path) -> None:
        self.root = root
        self.exec_root = exec_root
        self.patience = "20"
        self.limits = Limits()

    def open(self, access: Access | None = None) -> Store:
        options = (f"erofs.patience={self.patience}",)
        config = Config(
            data_root=self.root,
            exec_root=self.exec_root,
            storage_driver="erofs",
            storage_opts=options,
            limits=self.limits,
            access=access or Access(),
        )
        return layerstore.open(config=config)

    def processes(self) -> dict[str, int]:
        """The holder, the fetcher and the warden that live, by these words."""
        found = {}
        for pid in processes_with(self.root / "erofs" / ".lazy" / "lock"):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if b"layerstore-warden" in words:
                found["warden"] = pid
            elif b"layerstore.holding.fetcher" in words:
                found["fetcher"] = pid
            elif b"layerstore.holding" in words:
                found["holder"] = pid
        return found

    def all(self) -> dict[str, int]:
        """The same, when all are there."""
        found: dict[str, int] = until(lambda: found if len(found := self.processes()) == 3 else None)
        return found

    def kill(self, *names: str) -> None:
        """End them at once, and see that they are gone: none can act on the end of another."""
        found = self.all()
        for name in names:
            os.kill(found[name], signal.SIGSTOP)
        for name in names:
            os.kill(found[name], signal.SIGKILL)
        for name in names:
            until(lambda pid=found[name]: gone(pid))

    def log(self) -> str:
        return (self.root / "erofs" / ".lazy" / "log").read_text()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def until(found, patience: float = 60.0):  # type: ignore[no-untyped-def]
    """What is found at last."""
    deadline = time.monotonic() + patience
    while not (what := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return what


@pytest.fixture
def lazies(root: Path, tmp_path: Path) -> Iterator[Lazies]:
    made = Lazies(root, tmp_path / "exec")
    yield made
    for pid in made.processes().values():
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: gone(pid))


@pytest.fixture
def pushed(quirks: Quirks, store: Store, tmp_path: Path) -> str:
    """The name of an image that has indexes, in a registry."""
    [image] = store.load(images.docker_archive(tmp_path / "image.tar", LAYERS))
    name = f"{quirks.host}/team/app:1"
    image.tag(name)
    store.push(name, with_index=True)
    return name
