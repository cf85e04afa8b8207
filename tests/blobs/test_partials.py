"""Broken downloads and uploads in progress: who has one, what is believed of it, and how it goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from blobs.conftest import GZIPPED, LAYER, name_of
from core.adding import Adder
from layerstore.blobs import Blobs, Partial, partials
from layerstore.blobs.partials import AGE, Partials
from layerstore.store import Store
from layerstore.testing.filesystems import FILESYSTEMS

NAME = name_of(GZIPPED).removeprefix("sha256:")
OTHER = "ab" * 16


@pytest.fixture
def all_of(tmp_path: Path) -> Partials:
    return Partials(tmp_path / "partial")


def opened(all_of: Partials, name: str = NAME, *, bounded: bool = True) -> Partial:
    found = all_of.open(name, bounded=bounded)
    assert found is not None
    return found


def content(partial: Partial, start: int = 0) -> bytes:
    return b"".join(bytes(piece) for piece in partial.pieces(start))


def put(all_of: Partials, name: str, size: int, *, age: float = 0) -> Path:
    with opened(all_of, name, bounded=False) as partial:
        partial.append(b"x" * size)
    path = all_of.folder / name
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_the_next_goes_on_with_it(all_of: Partials) -> None:
    with opened(all_of) as partial:
        assert partial.size == 0
        assert partial.append(b"hello ")
    with opened(all_of) as partial:
        assert partial.size == 6
        assert partial.append(memoryview(b"world"))
        assert content(partial) == b"hello world"
        assert content(partial, 6) == b"world"
        buffer = memoryview(bytearray(4))
        assert (partial.readinto(buffer, 9), bytes(buffer[:2])) == (2, b"ld")
        assert partial.readinto(buffer, 11) == 0
        partial.truncate(5)
        assert partial.append(b"!")
        assert content(partial) == b"hello!"


def test_an_empty_one_is_not_kept(all_of: Partials) -> None:
    with opened(all_of):
        assert all_of.names() == [NAME]
    assert all_of.names() == []


def test_discarded(all_of: Partials) -> None:
    with opened(all_of) as partial:
        partial.append(b"x")
        partial.discard()
        partial.discard()
    assert all_of.names() == []


def test_destroyed_it_takes_no_room_though_others_have_it_open(all_of: Partials) -> None:
    with opened(all_of) as partial:
        partial.append(b"x" * 10_000)
        growing = all_of.watch(NAME)
        assert growing is not None
        with growing:
            partial.destroy()
            partial.destroy()
            assert (growing.size, growing.is_given_up) == (0, True)
    assert all_of.names() == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 65, "a" * 15, "g" * 32, "a" * 32 + "\n"])
def test_names_are_digits(all_of: Partials, name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        all_of.open(name)


def test_no_link_is_followed(all_of: Partials, tmp_path: Path) -> None:
    all_of.folder.mkdir()
    (all_of.folder / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(layerstore.KernelError):
        all_of.open(NAME)
    assert not (tmp_path / "elsewhere").exists()


class TestOneAtATime:
    HOLDER = """
import sys, time
from pathlib import Path
from layerstore.blobs.partials import Partials
partial = Partials(Path(sys.argv[1])).open(sys.argv[2])
partial.append(b"theirs")
print("open", flush=True)
time.sleep(60)
"""

    def test_the_second_goes_without(self, all_of: Partials) -> None:
        with opened(all_of):
            assert all_of.open(NAME) is None
            with opened(all_of, OTHER):
                pass
        opened(all_of).close()

    def test_not_while_the_disk_is_still_at_it(self, all_of: Partials, monkeypatch: pytest.MonkeyPatch) -> None:
        """A call that is under way keeps the file open, as a second descriptor does."""
        held: list[int] = []
        monkeypatch.setattr(os, "fdatasync", lambda fd: held.append(os.dup(fd)))
        with opened(all_of) as partial:
            partial.append(b"x")
            partial.flush()
        assert held
        with opened(all_of) as again:
            assert again.size == 1
        for fd in held:
            os.close(fd)

    def test_in_another_process_which_dies(self, all_of: Partials) -> None:
        command = [sys.executable, "-c", self.HOLDER, all_of.folder, NAME]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "open\n"
            assert all_of.open(NAME) is None
            assert all_of.sweep(everything=True) == 0
        finally:
            holder.kill()
            holder.communicate()
        with opened(all_of) as partial:
            assert content(partial) == b"theirs"

    def test_the_child_of_a_fork_does_not_hold_it(self, all_of: Partials) -> None:
        reading, writing = os.pipe()
        told, telling = os.pipe()
        with opened(all_of) as partial:
            partial.append(b"x")
            child = os.fork()
            if child == 0:
                os.close(writing)
                os.write(telling, b"x")
                os.read(reading, 1)
                os._exit(0)
            os.read(told, 1)
        with opened(all_of) as again:
            assert again.size == 1
        for fd in (writing, reading, told, telling):
            os.close(fd)
        assert os.waitpid(child, 0)[1] == 0


class TestWhatIsBelieved:
    """After a power cut a file may have its size, and zeros where its data were to be."""

    def test_the_few_with_which_gzip_ends(self, all_of: Partials) -> None:
        with opened(all_of) as partial:
            partial.append(b"x" * 5000 + bytes(3))
        with opened(all_of) as partial:
            assert partial.size == 5003

    @pytest.mark.parametrize("kept", [0, 1, 4095, 4096, 4097, 1_500_000])
    @pytest.mark.parametrize("zeros", [4, 4096, 3_000_000])
    def test_not_zeros_at_the_end(self, all_of: Partials, kept: int, zeros: int) -> None:
        with opened(all_of, bounded=False) as partial:
            partial.append(b"x" * kept + bytes(zeros))
        with opened(all_of) as partial:
            assert partial.size == kept // 4096 * 4096
            assert content(partial) == b"x" * partial.size
            partial.append(b"y")
            assert content(partial) == b"x" * (partial.size - 1) + b"y"

    def test_not_what_follows_a_hole(self, all_of: Partials) -> None:
        with opened(all_of) as partial:
            partial.append(b"x" * 8192)
        with open(all_of.folder / NAME, "r+b") as file:
            file.seek(1 << 20)
            file.write(b"later")
        with opened(all_of) as partial:
            assert partial.size == 8192


class TestBounds:
    def test_no_more_than_the_limit(self, all_of: Partials, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(partials, "MOST", 3 << 20)
        put(all_of, OTHER, 1 << 20)
        with opened(all_of) as partial:
            taken = 0
            while partial.append(b"x" * 100_000):
                taken += 100_000
            assert 1_500_000 < taken <= 2 << 20
            assert not partial.append(b"x")
            assert partial.size == taken

    def test_an_upload_is_not_limited(self, all_of: Partials, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(partials, "MOST", 1 << 20)
        with opened(all_of, bounded=False) as partial:
            assert partial.append(b"x" * (3 << 20))

    def test_the_old_go(self, all_of: Partials) -> None:
        old, new = put(all_of, OTHER, 10_000, age=AGE + 60), put(all_of, NAME, 10_000, age=AGE - 60)
        assert all_of.sweep() > 0
        assert (old.exists(), new.exists()) == (False, True)

    def test_too_many_go_the_oldest_first(self, all_of: Partials, monkeypatch: pytest.MonkeyPatch) -> None:
        paths = [put(all_of, f"{number:032x}", 1 << 20, age=100 - number) for number in range(5)]
        monkeypatch.setattr(partials, "MOST", (3 << 20) + 50_000)
        all_of.sweep()
        assert [path.exists() for path in paths] == [False, False, True, True, True]

    def test_never_one_that_is_open(self, all_of: Partials) -> None:
        with opened(all_of) as partial:
            partial.append(b"x" * 10_000)
            os.utime(partial.path, (0, 0))
            assert all_of.sweep(everything=True) == 0
            assert all_of.names() == [NAME]

    def test_nothing_of_somebody_else(self, all_of: Partials) -> None:
        all_of.folder.mkdir()
        (all_of.folder / "README").write_text("mine")
        (all_of.folder / ("c" * 32)).mkdir()
        all_of.sweep(everything=True)
        assert sorted(os.listdir(all_of.folder)) == sorted(["README", "c" * 32])


@pytest.mark.root
class TestFullDisk:
    def fill(self, root: Path, left: int = 0) -> None:
        fd = os.open(root / "hog", os.O_CREAT | os.O_WRONLY)
        try:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        os.write(fd, b"x" * size)
                except OSError:
                    pass
            os.ftruncate(fd, os.fstat(fd).st_size - left)
        finally:
            os.close(fd)

    def test_a_download_goes_on_without(self, own_filesystem: Callable[..., Path]) -> None:
        root = own_filesystem("ext4", size=64 << 20)
        all_of = Partials(root / "partial")
        with opened(all_of, bounded=False) as partial:
            self.fill(root, left=2 << 20)
            while partial.append(b"x" * 100_000):
                pass
            assert 1_000_000 < partial.size < 3_000_000
            assert content(partial) == b"x" * partial.size
        self.fill(root)
        assert all_of.open(OTHER) is None or all_of.sweep(everything=True)

    @pytest.mark.parametrize("kind", FILESYSTEMS)
    def test_they_are_the_first_to_go(self, own_filesystem: Callable[..., Path], tmp_path: Path, kind: str) -> None:
        """Removing an image finds room, and the reserve is still there afterwards."""
        size = 320 << 20 if kind == "xfs" else 128 << 20
        root = own_filesystem(kind, size=size)
        config = layerstore.Config(data_root=root / "store", exec_root=tmp_path / "exec", storage_driver="vfs")
        with layerstore.open(config=config) as store:
            Adder(store)(LAYER, name="x")
            partial = store.blobs.partial(NAME, bounded=False)
            assert partial is not None
            with partial:
                partial.append(os.urandom(8 << 20))
            self.fill(root)
            store.remove_image("x")
            store.wait()
            assert store.images() == []
            assert not (config.data_root / "partial" / NAME).exists()


@pytest.mark.root
class TestInAStore:
    def test_swept_by_open(self, blobs: Blobs, store: Store, data_root: Path) -> None:
        partial = blobs.partial(name_of(GZIPPED))
        assert partial is not None
        with partial:
            partial.append(b"x" * 5000)
        os.utime(partial.path, (0, 0))
        layerstore.open(config=store.config).close()
        assert not partial.path.exists()

    def test_swept_by_prune(self, blobs: Blobs, store: Store) -> None:
        partial = blobs.partial(name_of(GZIPPED))
        assert partial is not None
        with partial:
            partial.append(b"x" * 5000)
        assert store.prune().reclaimed == 0
        assert partial.path.exists()
        assert store.prune(all_images=True).reclaimed >= 5000
        assert not partial.path.exists()

    def test_it_is_nothing_that_check_complains_of(self, blobs: Blobs, store: Store) -> None:
        partial = blobs.partial(name_of(GZIPPED))
        assert partial is not None
        with partial:
            partial.append(b"x" * 5000)
        assert store.check(content=True) == []

    def test_where_nothing_can_be_written(self, store: Store, blobs: Blobs, data_root: Path) -> None:
        import io

        blobs.put(io.BytesIO(GZIPPED))
        kept = blobs.put_manifest("application/json", b"{}")
        store.close()
        subprocess.run(["mount", "--bind", data_root, data_root], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", data_root], check=True)
            with layerstore.open(config=store.config) as seen:
                assert seen.blobs.size(name_of(GZIPPED)) == len(GZIPPED)
                assert seen.blobs.manifest(kept.digest) == kept
                assert seen.check(content=True) == []
                assert seen.blobs.partial(NAME) is None
                with pytest.raises(layerstore.ReadOnlyStore):
                    seen.blobs.put(io.BytesIO(b"x"))
                with pytest.raises(layerstore.ReadOnlyStore):
                    seen.blobs.put_manifest("application/json", b"{ }")
        finally:
            subprocess.run(["umount", data_root], check=True)
