"""The pytest plugin: `layer_store`, `container`, `rootfs` and `backing`, for tests that need layers or filesystems.

It is found by its entry point in every run of pytest where layerstore is installed, so it imports nothing until one of
its fixtures is asked for. Where something cannot be had (no root, no mkfs), the test is skipped and told why. What was
mounted is unmounted when its test ends, and the filesystems at the end of the session, after failures too; what could
not be taken away is named in the last lines of the run.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Protocol

    from layerstore import Container, Store
    from layerstore.testing.filesystems import Filesystems
    from layerstore.testing.roots import Roots, Source

    class _Worker(Protocol):
        """A worker of pytest-xdist, which has no types."""

        config: pytest.Config


_filesystems: pytest.StashKey[Filesystems] = pytest.StashKey()
_leftovers: pytest.StashKey[list[str]] = pytest.StashKey()

pytest.register_assert_rewrite("layerstore.testing.conformance")


def filesystems_of(config: pytest.Config) -> Filesystems | None:
    """Those that this session has made, if any."""
    return config.stash.get(_filesystems, None)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Give back all filesystems, and see whether anything of them is left."""
    filesystems = filesystems_of(session.config)
    if filesystems is None:
        return
    left = filesystems.close()
    if left:
        session.config.stash[_leftovers] = left
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        output = getattr(session.config, "workeroutput", None)  # of pytest-xdist
        if output is not None:
            output["layerstore_leftovers"] = left


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: _Worker) -> None:
    """Take over what a worker of pytest-xdist could not take away."""
    left = getattr(node, "workeroutput", {}).get("layerstore_leftovers", [])
    node.config.stash.setdefault(_leftovers, []).extend(left)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left = config.stash.get(_leftovers, [])
    if left:
        terminalreporter.write_line(f"left behind by the tests: {', '.join(left)}", red=True)


@pytest.fixture(scope="session")
def filesystems(request: pytest.FixtureRequest) -> Filesystems:
    """The session's filesystems. Most tests want `backing` instead."""
    import os

    from layerstore.testing.without_root import is_within

    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    if is_within():
        pytest.skip("mounting a disk needs the machine's root")
    from layerstore.testing.filesystems import Filesystems

    if _filesystems not in request.config.stash:
        request.config.stash[_filesystems] = Filesystems()
    return request.config.stash[_filesystems]


@pytest.fixture
def backing(filesystems: Filesystems) -> Iterator[Callable[[str], Path]]:
    """`backing("xfs")`: an empty folder on a filesystem of this kind (ext4, xfs, btrfs, tmpfs), deleted afterwards."""
    from layerstore.kernel.files import remove_tree
    from layerstore.testing.filesystems import mountpoints, refusal, unmount

    made: list[Path] = []

    def folder(kind: str) -> Path:
        reason = refusal(kind)
        if reason is not None:
            pytest.skip(reason)
        made.append(filesystems.folder_on(kind))
        return made[-1]

    yield folder
    from pathlib import Path

    left = [name for path in made for name in mountpoints() if Path(name).is_relative_to(path)]
    for name in reversed(left):
        unmount(name)
    for path in made:
        remove_tree(path)
    assert not left, f"still mounted after the test: {', '.join(left)}"


@pytest.fixture
def layer_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An open, empty store in a folder of the test, removed with all that is in it.

    It is in `tmp_path` where a storage driver works there, else on an ext4 of its own.
    """
    with _store(tmp_path / "layer_store", lambda: request.getfixturevalue("backing")("ext4")) as store:
        yield store


@pytest.fixture(scope="session")
def session_layer_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The same for the whole session: what a test leaves in it, the next finds there."""

    def filesystem() -> Path:
        made: Filesystems = request.getfixturevalue("filesystems")
        return made.folder_on("ext4")

    with _store(tmp_path_factory.mktemp("layer_store") / "store", filesystem) as store:
        yield store


@contextmanager
def _store(folder: Path, filesystem: Callable[[], Path]) -> Iterator[Store]:
    """A store in `folder`, or, where no storage driver works there, in that of a filesystem."""
    import os

    import layerstore
    from layerstore.kernel.files import remove_tree

    if os.geteuid() != 0:
        pytest.skip("a store needs root")

    def opened(folder: Path) -> Store:
        return layerstore.open(config=layerstore.Config(data_root=folder / "store", exec_root=folder / "run"))

    try:
        store = opened(folder)
    except layerstore.DriverNotSupported:
        folder = filesystem()
        store = opened(folder)
    try:
        yield store
    finally:
        with store:
            for container in store.containers():
                container.remove(force=True)
            store.prune(all_images=True)
        remove_tree(folder)


@pytest.fixture
def container(layer_store: Store) -> Callable[[Source], Container]:
    """`container(...)`: a container of `layer_store`, not mounted, to run programs in or to mount.

    From an image of `layer_store`, from files (`{"etc/motd": "hello", "run": None}`; None is a folder), or from a tar,
    its bytes or its path. What the test changes in it is seen by nobody else, and goes with it.
    """
    from layerstore.testing.roots import Containers

    return Containers(layer_store)


@pytest.fixture
def rootfs(layer_store: Store) -> Roots:
    """`rootfs(...)`: a root filesystem to do anything with, mounted for the time of the test; from what `container`
    takes. `rootfs.checkpoint()` keeps how all of them are, `rootfs.rollback()` goes back to that."""
    from layerstore.testing.roots import Containers, Roots

    return Roots(Containers(layer_store))


@pytest.fixture(scope="session")
def session_rootfs(session_layer_store: Store) -> Roots:
    """The same for the whole session: made once, and rolled back between tests."""
    from layerstore.testing.roots import Containers, Roots

    return Roots(Containers(session_layer_store))
