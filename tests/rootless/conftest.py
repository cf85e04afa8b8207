"""An ordinary user, with a home on a filesystem of the test's, and what that user runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import evolve, frozen

from rootless import outside

LIFE = Path(outside.__file__).with_name("life.py")


@frozen
class User:
    """`home` is the host's name of what the user sees as `outside.HOME`. `ids`: "one", or "many" by /etc/subuid."""

    home: Path
    ids: str

    @property
    def data_root(self) -> Path:
        """The user's store, by the host's name."""
        return self.home / ".local/share/layerstore"

    @property
    def root(self) -> User:
        """Root, who sees the user's home."""
        return evolve(self, ids="root")

    def run(self, *command: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Python with these arguments. It has to end with `code`."""
        words = [sys.executable, outside.__file__, str(self.home), self.ids, sys.executable, *map(str, command)]
        done = subprocess.run(["unshare", "-m", *words], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done

    def layerstore(self, *words: str, code: int = 0) -> str:
        """The command: what it prints, errors too."""
        done = self.run("-m", "layerstore.cli", *words, code=code)
        return done.stdout + done.stderr

    def end(self) -> None:
        """End what keeps the user's namespaces, whatever store it is of."""
        for keeper in self.home.glob("**/keeper"):
            os.kill(int(keeper.read_text().split()[0]), signal.SIGKILL)


NewUser = Callable[[str, str], User]


@pytest.fixture
def new_user(backing: Callable[[str], Path]) -> Iterator[NewUser]:
    """`new_user("ext4", "one")`: a user whose home is on such a filesystem."""
    made: list[User] = []

    def make(filesystem: str, ids: str) -> User:
        home = backing(filesystem) / f"home{len(made)}"
        home.mkdir()
        os.chown(home, outside.UID, outside.UID)
        made.append(User(home, ids))
        return made[-1]

    yield make
    for user in made:
        user.end()
