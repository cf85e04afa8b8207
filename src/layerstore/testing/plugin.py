"""The pytest plugin: `layer_store`, `rootfs` and `backing`, for tests that need layers or filesystems.

It is found by its entry point in every run of pytest where layerstore is installed, so it imports nothing until one of
its fixtures is asked for. Where something cannot be had (no root, no mkfs), the test is skipped and told why. What was
mounted is unmounted when its test ends, and the filesystems at the end of the session, after failures too; what could
not be taken away is named in the last lines of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import Protocol

    from layerstore import Image, Store
    from layerstore.testing.filesystems import Filesystems

    Files = Mapping[str, str | bytes | None]

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

    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    from layerstore.testing.filesystems import Filesystems

    return request.config.stash.setdefault(_filesystems, Filesystems())


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
    import os

    import layerstore
    from layerstore.kernel.files import remove_tree

    if os.geteuid() != 0:
        pytest.skip("a store needs root")

    def opened(folder: Path) -> Store:
        return layerstore.open(config=layerstore.Config(data_root=folder / "store", exec_root=folder / "run"))

    folder = tmp_path / "layer_store"
    try:
        store = opened(folder)
    except layerstore.DriverNotSupported:
        folder = request.getfixturevalue("backing")("ext4")
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
def rootfs(layer_store: Store) -> Callable[[Image | Files | bytes | str | Path], Path]:
    """`rootfs(...)`: a root filesystem to do anything with, mounted for the time of the test.

    From an image of `layer_store`, from files (`{"etc/motd": "hello", "run": None}`; None is a folder), or from a tar,
    its bytes or its path. What the test changes in it is seen by nobody else: it is a container, and goes with it.
    """
    from pathlib import Path

    def mounted(source: Image | Files | bytes | str | Path) -> Path:
        from layerstore import Image

        image = source if isinstance(source, Image) else _imported(layer_store, source)
        return layer_store.create_container(image).mount().path

    def _imported(store: Store, source: Files | bytes | str | Path) -> Image:
        import io

        if isinstance(source, str | Path):
            return store.import_tar(source)
        return store.import_tar(io.BytesIO(source if isinstance(source, bytes) else _tar(source)))

    return mounted


def _tar(files: Files) -> bytes:
    import os

    from layerstore.testing import tars

    entries = []
    for path, content in files.items():
        name = os.fsencode(path.strip("/"))
        data = content.encode() if isinstance(content, str) else content
        entries.append(tars.folder(name) if data is None else tars.file(name, data))
    return tars.archive(*entries)
