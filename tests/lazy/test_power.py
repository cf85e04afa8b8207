"""The power fails while a lazy layer is half there: it goes on afterwards, and nobody reads what is not there.

The filesystem is shut down without a flush of its log, all processes die, and the next life is in another boot.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.test_power import FS_IOC_SHUTDOWN, NO_LOG_FLUSH, Disk, held_device
from layerstore.errors import DriverNotSupported
from layerstore.kernel import watching
from layerstore.kernel.mounts import boot_id
from layerstore.testing.filesystems import Filesystems
from lazy.conftest import LARGE, NIGHTLY, Lazies, bytes_of, gone, until
from lazy.gate import Gate
from registry.servers.quirks import Quirks

pytestmark = [pytest.mark.root, pytest.mark.skipif(not NIGHTLY, reason="by night")]

LIFE = """
import os, sys, layerstore
from layerstore.config import Config
root, exec_root, name, *read = sys.argv[1:]
store = layerstore.open(config=Config(data_root=root, exec_root=exec_root, storage_driver="erofs"))
image = store.pull(name, lazy=True)
tree = store.create_container(image, name="box").mount(persistent=True).path
for path in read:
    print(len((tree / path).read_bytes()))
if "synced" in os.environ:
    os.sync()
os._exit(0)
"""


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, filesystems: Filesystems) -> Iterator[Disk]:
    place = filesystems.make(request.param, size=1 << 30)
    try:
        watching.require(place)
    except DriverNotSupported as refused:
        pytest.skip(refused.message)
    yield Disk(place)
    filesystems.drop(place)


@pytest.fixture
def another_boot(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """From when it is called on, the machine is said to have begun anew."""
    name = "/proc/sys/kernel/random/boot_id"
    done = []

    def begin() -> None:
        (tmp_path / "boot").write_text("0f9c7d0e-0000-4000-8000-000000000000\n")
        subprocess.run(["mount", "--bind", tmp_path / "boot", name], check=True)
        done.append(name)
        getattr(boot_id, "cache_clear", lambda: None)()

    yield begin
    for one in done:
        subprocess.run(["umount", one], check=True)
    getattr(boot_id, "cache_clear", lambda: None)()


def cut(disk: Disk, lazies: Lazies) -> None:
    """All that runs and is mounted is gone, and what was not on the disk."""
    with held_device(disk.mountpoint) as device:
        folder = os.open(disk.mountpoint, os.O_RDONLY)
        fcntl.ioctl(folder, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        os.close(folder)
        found = list(lazies.processes().values())
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                os.kill(pid, number)
        for pid in found:
            until(lambda pid=pid: gone(pid))
        inner = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for path in reversed([path for path in inner if path.startswith(f"{disk.mountpoint}/")]):
            subprocess.run(["umount", path.replace("\\040", " ")], check=True)
        until(lambda: subprocess.run(["umount", disk.mountpoint], check=False).returncode == 0)
        subprocess.run(["mount", device, disk.mountpoint], check=True)


@pytest.mark.parametrize("read", [["etc/motd"], ["data/3", "large"], ["data/3", "large", "second"]])
@pytest.mark.parametrize("synced", [False, True])
def test_a_lazy_layer_goes_on_after_a_power_cut(
    disk: Disk,
    pushed: str,
    quirks: Quirks,
    another_boot: Callable[[], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    read: list[str],
    synced: bool,
) -> None:
    gate = Gate(quirks)
    gate.is_open = True
    lazies = Lazies(disk.mountpoint / "store", tmp_path / "exec")
    if synced:
        monkeypatch.setenv("synced", "1")
    words = [sys.executable, "-c", LIFE, str(lazies.root), str(lazies.exec_root), pushed, *read]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    cut(disk, lazies)
    another_boot()
    gate.is_open = False

    with lazies.open() as store:
        was_lazy = bool(store.lacking())
        with store.container("box").mount() as tree:
            reader = subprocess.Popen([sys.executable, "-c", READ, str(tree / "data/5")], stdout=subprocess.PIPE)
            gate.is_open = True
            assert reader.communicate(timeout=120)[0] == bytes_of(300_000, 5)
            assert (tree / "large").read_bytes() == LARGE
            assert (tree / "data/3").read_bytes() == bytes_of(300_000, 3)
            assert (tree / "second").read_bytes() == bytes_of(2 << 20, 3)
        until(lambda: not store.lacking())
        assert list(store.check(content=True)) == []
    assert was_lazy or read != ["etc/motd"]
    until(lambda: not lazies.processes())


READ = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
