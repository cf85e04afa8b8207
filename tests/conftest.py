"""Fixtures that every test may use: filesystems, a data-root on one, a store. `backing` is that of our own plugin.

And the guard: a test that leaves something mounted fails, and so does a run that leaves a loop device.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from layerstore.testing import plugin
from layerstore.testing.filesystems import (
    FILESYSTEMS,
    Filesystems,
    enter_private_namespace,
    mountpoints,
    refusal,
    unmount,
)
from support.rewriting import rewrite_our_share

if TYPE_CHECKING:
    from layerstore import Store

IS_ROOT = os.geteuid() == 0
SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

# The same examples every time, so that a change is judged by itself; `nightly` looks for new ones.
settings.register_profile("steady", derandomize=True, database=None, deadline=None)
settings.register_profile("nightly", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


LONG = (
    "test_sanitizers.py",
    "test_driver_example.py",
    "test_faults.py",
    "test_run.py",
    "test_mutants.py",
    "test_examples.py",
)
"""Modules of which a single test takes ten seconds and more."""


OWN_STORE = Path("/var/lib/layerstore")
"""What is opened where nobody says which store: no test may."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "root: mounts or makes devices, and is skipped for an ordinary user")
    config.addinivalue_line("markers", "tools(*commands): needs these programs; skipped without, in CI an error")
    config.addinivalue_line("markers", "hasty: its registry falls silent, and the client does not wait for long")
    os.environ["PATH"] = SEARCH
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell: programs would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.pluginmanager.hasplugin("layerstore"):
        # As where the sources are only on the path, and not installed.
        config.pluginmanager.register(plugin, "layerstore")
    missing = [reason for kind in FILESYSTEMS if (reason := refusal(kind)) is not None]
    if missing and os.environ.get("CI"):
        raise pytest.UsageError(f"`tools/prepare test` should have seen to this: {'; '.join(missing)}")
    if IS_ROOT:
        enter_private_namespace()
    _remember_drivers()
    rewrite_our_share(config)


def _remember_drivers() -> None:
    """Read what is installed once, and not with each new store: that took a twentieth of all the time."""
    from layerstore import plugins

    read = plugins._entries
    known: dict[object, dict[str, str]] = {}

    def entries() -> dict[str, str]:
        where = (importlib.metadata.entry_points, *sys.path)
        if where not in known:
            known[where] = read()
        return dict(known[where])

    plugins._entries = entries


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Twice as many workers as cores: tests wait a good part of their time, for disks and for other processes."""
    return 2 * len(os.sched_getaffinity(0))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that several workers end together."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and not IS_ROOT:
        pytest.skip("needs root")
    for mark in item.iter_markers("tools"):
        for tool in mark.args:
            if shutil.which(tool) is None:
                if os.environ.get("CI"):
                    pytest.fail(f"{tool} is not installed: `tools/prepare test` should have done so")
                pytest.skip(f"needs {tool}, which is not installed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a failure that shows a name of any bytes travel from pytest-xdist's workers, which send UTF-8 only."""
    report = yield
    if report.failed and hasattr(item.config, "workerinput"):
        report.longrepr = _printable(str(report.longrepr))
        report.sections = [(title, _printable(text)) for title, text in report.sections]
    return report


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


@pytest.fixture(autouse=True)
def host_stays_as_it_is(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test that leaves a mount, another umask or another root directory behind, or opens this machine's own
    store; mend it for the next."""
    before, root, mask = set(mountpoints()), os.stat("/"), os.umask(0o022)
    had_a_store = OWN_STORE.exists()
    os.umask(mask)
    yield
    _await_monitors()
    left = os.umask(mask)
    filesystems = plugin.filesystems_of(request.config)
    expected = before | (filesystems.mounted if filesystems else frozenset())
    _refuse_mounts([name for name in mountpoints() if name not in expected])
    after = os.stat("/")
    if (after.st_mode, after.st_uid, after.st_gid) != (root.st_mode, root.st_uid, root.st_gid):
        os.chown("/", root.st_uid, root.st_gid)
        os.chmod("/", root.st_mode & 0o7777)
        pytest.fail(f"the root directory of this machine was changed: mode {after.st_mode & 0o7777:o}")
    assert left == mask, f"the umask of the tests is {left:03o} now"
    assert had_a_store or not OWN_STORE.exists(), f"{OWN_STORE} has been made"


def _await_monitors() -> None:
    """Wait for the processes that stay with containers of the test, and have its store open."""
    for thread in threading.enumerate():
        if thread.name == "layerstore-monitor":  # which waits for one
            thread.join(60)
            assert not thread.is_alive(), "a process stays with a container of the test"


def _refuse_mounts(left: list[str]) -> None:
    for name in reversed(left):
        unmount(name)
    assert not left, f"still mounted after the test: {', '.join(left)}"


def _mounted_in(folder: Path) -> list[str]:
    return [name for name in mountpoints() if folder in Path(name).parents]


@pytest.fixture
def own_filesystem(filesystems: Filesystems) -> Iterator[Callable[..., Path]]:
    """`own_filesystem("ext4", size=16 << 20, mkfs=("-N", "64"), options="noatime")`: for a test to fill or break."""
    made: list[Path] = []

    def make(kind: str, *, size: int = 512 << 20, mkfs: tuple[str, ...] = (), options: str = "") -> Path:
        made.append(filesystems.make(kind, size=size, mkfs=mkfs, options=options))
        return made[-1]

    yield make
    try:
        _refuse_mounts([name for path in made for name in _mounted_in(path)])
    finally:
        for path in made:
            filesystems.drop(path)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A device that takes nothing, as /dev/full: one of the test's own, lest what is tested replaces the machine's."""
    device = tmp_path / "full"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        device.open("wb").close()
    except PermissionError:  # an ordinary user, who cannot replace the machine's, or a folder without devices
        device.unlink(missing_ok=True)
        device.symlink_to("/dev/full")
    return device


@pytest.fixture(params=FILESYSTEMS)
def filesystem(request: pytest.FixtureRequest) -> str:
    """Each kind of filesystem in turn: for tests that have to hold on all."""
    return str(request.param)


@pytest.fixture
def data_root(backing: Callable[[str], Path]) -> Path:
    """A data-root that does not exist yet, on ext4."""
    return backing("ext4") / "store"


@pytest.fixture
def store(data_root: Path) -> Iterator[Store]:
    """An open, empty store on ext4, with the driver overlay2."""
    import layerstore

    settings = layerstore.Config(
        data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2", storage_opts=()
    )
    with layerstore.open(config=settings) as opened:
        yield opened
    _await_monitors()  # before the folder goes in which they write
