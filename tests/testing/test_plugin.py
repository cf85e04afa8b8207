"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layerstore.testing.filesystems import mountpoints

USES_ALL = """
import pytest

@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_backing(backing, kind):
    folder = backing(kind)
    (folder / "file").write_text("x")
    assert backing(kind) != folder

def test_layer_store(layer_store, rootfs):
    root = rootfs({"etc": None, "etc/motd": "hello"})
    (root / "new").write_text("x")
    other = rootfs({"etc/motd": "hello"})
    assert (other / "etc/motd").read_text() == "hello" and not (other / "new").exists()
    [first, second] = layer_store.containers()
    assert list(map(str, second.changes())) == ["A /new"]
    assert rootfs(second.commit("made")).joinpath("new").read_text() == "x"

def test_rootfs_of_a_tar(rootfs, tmp_path):
    import tarfile
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.add(__file__, "here.py")
    assert (rootfs(tmp_path / "root.tar") / "here.py").exists()
    assert (rootfs(str(tmp_path / "root.tar")) / "here.py").exists()
    assert (rootfs((tmp_path / "root.tar").read_bytes()) / "here.py").exists()

def test_the_last_checkpoint_is_gone_back_to(rootfs):
    first, second = rootfs({"file": "0"}), rootfs({"file": "0"})
    for text in ("1", "2"):
        (first / "file").write_text(text)
        (second / "file").write_text(text)
        rootfs.checkpoint()
    later = rootfs({"file": "later"})
    for _ in range(2):
        (first / "file").unlink()
        (second / "new").mkdir()
        (later / "file").write_text("later still")
        rootfs.rollback()
        assert (first / "file").read_text() == (second / "file").read_text() == "2"
        assert not (second / "new").exists()
        assert (later / "file").read_text() == "later still"
    assert [len(rootfs.container(root).checkpoints()) for root in (first, second, later)] == [1, 1, 0]

@pytest.fixture(scope="session")
def made_once(session_rootfs):
    root = session_rootfs({"file": "0"})
    session_rootfs.checkpoint()
    return root

@pytest.fixture
def shared(made_once, session_rootfs):
    yield made_once
    session_rootfs.rollback()

@pytest.mark.parametrize("time", range(2))
def test_one_root_for_several_tests(shared, session_layer_store, time):
    assert [path.name for path in shared.iterdir()] == ["file"]
    (shared / "file").rename(shared / "other")
    assert len(session_layer_store.containers()) == 1

def test_a_container(container, layer_store):
    box = container({"file": "0"})
    assert box.mountpoint is None
    [other] = box.fork(1)
    with other.mount() as root:
        (root / "file").unlink()
    assert list(map(str, other.changes(since=box))) == ["D /file"]
"""


def run(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, *arguments, folder],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    return path


@pytest.mark.root
@pytest.mark.parametrize(
    ("workers", "passed"), [((), 10), (("-n", "2", "-k", "ext4 or tmpfs or tar or several"), 5)], ids=["alone", "xdist"]
)
def test_fixtures_give_what_they_promise_and_clean_up(folder: Path, workers: tuple[str, ...], passed: int) -> None:
    before = mountpoints()

    done = run(folder, USES_ALL, *workers)

    assert done.returncode == 0, done.stdout
    assert f"{passed} passed" in done.stdout
    assert mountpoints() == before
    assert list(folder.glob("layerstore-test-*")) == []


@pytest.mark.root
def test_what_a_failing_test_leaves_is_taken_away(folder: Path) -> None:
    before = mountpoints()

    done = run(
        folder,
        "import subprocess\n"
        "def test_fails(backing, rootfs):\n"
        "    assert not rootfs({'file': ''}), backing('ext4')\n"
        "def test_leaves_a_mount(backing):\n"
        "    folder = backing('ext4')\n"
        "    subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', folder], check=True)\n",
    )

    assert "1 failed, 1 passed, 1 error" in done.stdout
    assert "still mounted after the test" in done.stdout
    assert mountpoints() == before
    assert list(folder.glob("layerstore-test-*")) == []


@pytest.mark.root
def test_what_cannot_be_taken_away_is_named(folder: Path) -> None:
    """A process still works in the filesystem when the session ends."""
    done = run(
        folder,
        "import subprocess, pathlib\n"
        "def test_holds(filesystems):\n"
        "    root = filesystems.shared('ext4')\n"
        "    process = subprocess.Popen(['sleep', '60'], cwd=root)\n"
        "    pathlib.Path(__file__).with_name('pid').write_text(str(process.pid))\n",
    )
    process = int((folder / "pid").read_text())
    os.kill(process, 9)

    assert done.returncode == 1
    assert "left behind by the tests: /dev/loop" in done.stdout
    assert f"in process {process} (sleep)" in done.stdout


def test_without_root_tests_are_skipped_with_a_reason(folder: Path) -> None:
    (folder / "conftest.py").write_text("import os\nos.geteuid = lambda: 1000\n")

    done = run(folder, "def test_a(backing): ...\ndef test_b(layer_store): ...\ndef test_c(rootfs): ...\n", "-rs")

    assert "3 skipped" in done.stdout
    assert "mounting needs root" in done.stdout
    assert "a store needs root" in done.stdout


@pytest.mark.root
def test_without_mkfs_tests_are_skipped_with_a_reason(folder: Path) -> None:
    (folder / "conftest.py").write_text(
        "from layerstore.testing import filesystems\nfilesystems._MKFS['xfs'] = ['mkfs.missing']\n"
    )

    done = run(folder, "def test_a(backing):\n    backing('xfs')\n", "-rs")

    assert "needs mkfs.missing, which is not installed" in done.stdout


def test_a_run_that_uses_none_of_it_imports_nothing(folder: Path) -> None:
    done = run(
        folder,
        "import sys\n"
        "def test_imports():\n"
        "    ours = sorted(name for name in sys.modules if name.startswith('layerstore'))\n"
        "    assert ours == ['layerstore', 'layerstore.testing', 'layerstore.testing.plugin']\n",
    )

    assert done.returncode == 0, done.stdout


def test_it_can_be_turned_off(folder: Path) -> None:
    done = run(folder, "def test_a(rootfs): ...\ndef test_b(): ...\n", "-p", "no:layerstore")

    assert "fixture 'rootfs' not found" in done.stdout
    assert "1 passed, 1 error" in done.stdout


def test_the_model_needs_neither_pytest_nor_hypothesis() -> None:
    code = (
        "import sys\n"
        "import layerstore\n"
        "assert 'layerstore.testing' not in sys.modules\n"
        "from layerstore.testing import ModelTree\n"
        "from layerstore.testing import tars, edits\n"
        "tree = ModelTree(); tree.apply([tars.file(b'a')])\n"
        "assert not {'pytest', 'hypothesis'} & {*sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
