"""Those who take part: stores, each with its driver, and the bare filesystem with the tools that everybody has.

Both offer the same few verbs, so a workload is written once. A store is used through the public interface of the
library alone, in a data-root of its own. What the bare filesystem does for each verb is what a person would do by hand:
`cp -a` for a container, `tar` for an image, `find` to see what changed, `rm -rf`.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import layerstore
from layerstore import plugins
from layerstore.bench import images
from layerstore.bench.results import BARE, Refused, Subject
from layerstore.config import Config, driver_options
from layerstore.driver import CopyOnWrite, Dialect
from layerstore.errors import ConfigError, LayerstoreError
from layerstore.kernel.files import remove_tree, syncfs
from layerstore.values import frozen

__all__ = ["Bare", "Box", "Contestant", "Driven", "Unavailable", "Wanted", "clean_stores", "parse_wanted", "probed"]

_ENGLISH: Final = {**os.environ, "LC_ALL": "C"}


class Unavailable(Exception):
    """A subject cannot do this, and that is no failure of the run."""


@frozen
class Wanted:
    """A driver that is to take part, with its options, and the name that tells it from the others."""

    name: str
    driver: str
    options: tuple[str, ...]


def parse_wanted(text: str, options: Sequence[str] = ()) -> list[Wanted]:
    """`overlay2,aufs:mode=copy,aufs:mode=fuse`: drivers by commas, each with its options by colons.

    `options` are storage-opts in full (`aufs.size=10G`), for every one of that driver. Raises `ConfigError`.
    """
    found: list[Wanted] = []
    for part in text.split(","):
        driver, *own = [piece.strip() for piece in part.split(":")]
        if not driver:
            raise ConfigError(f"--drivers {text!r} has an empty name", remedy="Write overlay2,btrfs or aufs:mode=copy.")
        for opt in own:
            if not opt.partition("=")[1] or not opt.partition("=")[0]:
                raise ConfigError(
                    f"--drivers: {opt!r} in {part.strip()!r} is no option", remedy=f"Write {driver}:OPTION=VALUE."
                )
        given = tuple(opt for opt in options if opt.partition(".")[0] == driver)
        wanted = Wanted(":".join([driver, *own]), driver, (*given, *(f"{driver}.{opt}" for opt in own)))
        if driver == BARE:
            raise ConfigError(f"{BARE} is the bare filesystem, which always takes part", remedy="Leave it out.")
        if wanted.name in [other.name for other in found]:
            raise ConfigError(f"--drivers has {wanted.name} twice", remedy="Name it once.")
        found.append(wanted)
    for opt in options:
        if opt.partition(".")[0] not in [wanted.driver for wanted in found]:
            raise ConfigError(f"--storage-opt {opt} is of a driver that does not take part")
    return found


@frozen(kw_only=True)
class Probed:
    """A driver that can work here, and what that takes."""

    wanted: Wanted
    copies: bool
    """Does it keep a full copy of what is below, for each layer and container?"""
    depth: int | None


def probed(wanted: Sequence[Wanted], folder: Path) -> tuple[list[Probed], list[Refused]]:
    """Which can work in a folder, and which cannot and why."""
    able: list[Probed] = []
    refused: list[Refused] = []
    for one in wanted:
        config = Config(data_root=folder, storage_driver=one.driver, storage_opts=one.options)
        # An option that is wrong is the user's mistake; a driver that cannot work is a fact about the disk.
        try:
            driver = plugins.find(one.driver)
        except LayerstoreError as error:
            refused.append(Refused(one.name, error.message, error.remedy or ""))
            continue
        driver_options(config, driver.name, driver.options)
        try:
            choice = plugins.choose(config, folder.joinpath, None)
        except LayerstoreError as error:
            refused.append(Refused(one.name, error.message, error.remedy or ""))
            continue
        capabilities = driver.capabilities
        shares = choice.backing.copy_on_write
        copies = shares is CopyOnWrite.NONE or (capabilities.dialect is Dialect.MERGED and shares is CopyOnWrite.FILE)
        able.append(Probed(wanted=one, copies=copies, depth=capabilities.max_depth))
    return able, refused


class Box(ABC):
    """A writable tree on an image, until `stop`. Leaving it as a context stops it, whatever state it is in."""

    root: Path

    @abstractmethod
    def stop(self) -> None:
        """End it: unmount and remove, and whatever was written is gone."""

    @abstractmethod
    def pause(self) -> None:
        """Unmount it; what was written is kept."""

    @abstractmethod
    def changes(self) -> int:
        """Find out what was changed, how much that is."""

    @abstractmethod
    def commit(self) -> None:
        """Make the changes a layer of its own, on disk."""

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Contestant(ABC):
    """One that takes part, with the images that it has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lacks: dict[str, str] = {}
        """Images that it could not take, and why."""

    def require(self, image: str) -> None:
        """Raise `Unavailable` if it does not have an image."""
        if image in self.lacks:
            raise Unavailable(self.lacks[image])

    @abstractmethod
    def describe(self) -> Subject:
        """For the results."""

    @abstractmethod
    def add(self, image: str, archive: Path) -> None:
        """Take in an image, for all rounds."""

    @abstractmethod
    def start(self, image: str) -> Box:
        """A new writable tree on an image: create and mount."""

    @abstractmethod
    def view(self, image: str) -> Box:
        """A tree to be read: nobody has looked at its names yet."""

    @abstractmethod
    def load(self, archive: Path) -> None:
        """Take in an image as if for the first time, on disk when this returns. The one of before has to be removed."""

    @abstractmethod
    def remove(self) -> None:
        """Remove what `load` took in; returns when the user of the store could go on."""

    @abstractmethod
    def drain(self) -> None:
        """Wait until what was removed is deleted, as far as the store does that itself."""

    @abstractmethod
    def save(self, target: Path) -> None:
        """Write the main image to an archive."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""


# ---- a store


class _StoreBox(Box):
    """A container of a store."""

    def __init__(self, store: layerstore.Store, image: str) -> None:
        self._store = store
        self._container: layerstore.Container | None = store.create_container(image)
        self._committed: layerstore.Image | None = None
        try:
            self._mounted = self._container.mount()
        except BaseException:
            self._container.remove()
            raise
        self.root = self._mounted.path

    def stop(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            # Forced, it would be found out first who else holds it.
            self._mounted.unmount()
            container.remove()
        image, self._committed = self._committed, None
        if image is not None:
            image.remove(force=True)

    def pause(self) -> None:
        self._mounted.unmount()

    def changes(self) -> int:
        assert self._container is not None
        return len(list(self._container.changes()))

    def commit(self) -> None:
        assert self._container is not None
        self._committed = self._container.commit("bench:committed")


class Driven(Contestant):
    """A driver, in stores of its own."""

    def __init__(self, wanted: Wanted, folder: Path) -> None:
        super().__init__(wanted.name)
        self.wanted = wanted
        self._folder = folder
        folder.mkdir()
        # For whoever has to clean up after this process is gone.
        options = {"driver": wanted.driver, "options": list(wanted.options)}
        (folder / "options.json").write_text(json.dumps(options))
        self._store = _opened(folder / "store", wanted.driver, wanted.options)
        self._status = self._store.info().driver_status
        self._loaded: layerstore.Store | None = None

    def describe(self) -> Subject:
        return Subject(self.name, self.wanted.driver, self.wanted.options, tuple(self._status))

    def add(self, image: str, archive: Path) -> None:
        try:
            [loaded] = self._store.load(archive)
            loaded.tag(f"bench:{image}")
        except layerstore.DepthExceeded as error:
            self.lacks[image] = error.message
        self.drain()

    def start(self, image: str) -> Box:
        return _StoreBox(self._store, f"bench:{image}")

    def view(self, image: str) -> Box:
        return self.start(image)

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The tree of an image."""
        with self._store.image(f"bench:{image}").mount() as root:
            yield root

    def make_plain(self, source: Path, target: Path) -> None:
        """Write whatever archive a user has as a docker-archive with plain layers."""
        try:
            found = self._store.load(source)
            if len(found) != 1:
                raise ConfigError(f"{source} has {len(found)} images", remedy="Name an archive of one image.")
            self._store.save(found[0], target, format="docker-archive", compression="none")
        finally:
            for image in self._store.images():
                image.remove(force=True)
            self.drain()

    def load(self, archive: Path) -> None:
        if self._loaded is None:
            self._loaded = _opened(self._folder / "loaded", self.wanted.driver, self.wanted.options)
        [image] = self._loaded.load(archive)
        image.tag("bench:loaded")

    def remove(self) -> None:
        if self._loaded is not None:
            for image in self._loaded.images():
                image.remove(force=True)

    def drain(self) -> None:
        self._store.wait()
        if self._loaded is not None:
            self._loaded.wait()

    def save(self, target: Path) -> None:
        self._store.save("bench:main", target)

    def close(self) -> None:
        for store in (self._loaded, self._store):
            if store is not None:
                _empty(store)


class Bare(Contestant):
    """The bare filesystem, and what a person would do on it by hand."""

    def __init__(self, folder: Path) -> None:
        super().__init__(BARE)
        self._folder = folder
        self._count = 0
        folder.mkdir()
        (folder / "plain").mkdir()

    def describe(self) -> Subject:
        return Subject(BARE, None)

    def add(self, image: str, archive: Path) -> None:
        raise AssertionError("the bare filesystem copies a tree that a store shows: `copy_in`")

    def copy_in(self, image: str, root: Path) -> None:
        """Have the tree of an image as a plain folder."""
        target = self._folder / "plain" / image
        target.mkdir()
        run("cp", "-a", f"{root}/.", os.fspath(target))

    def start(self, image: str) -> Box:
        return _Copy(self._folder / "plain" / image, self._new())

    def view(self, image: str) -> Box:
        return _Plain(self._folder / "plain" / image)

    def load(self, archive: Path) -> None:
        target = self._folder / "loaded"
        target.mkdir()
        for offset, size in images.members(archive):
            _untar(archive, offset, size, target)
        syncfs(target)

    def remove(self) -> None:
        target = self._folder / "loaded"
        if target.exists():
            run("rm", "-rf", os.fspath(target))

    def drain(self) -> None:
        pass

    def save(self, target: Path) -> None:
        run("tar", "-cf", os.fspath(target), "-C", os.fspath(self._folder / "plain" / "main"), ".")

    def close(self) -> None:
        pass

    def _new(self) -> Path:
        self._count += 1
        return self._folder / f"copy-{self._count}"


class _Plain(Box):
    """The plain folder itself."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def stop(self) -> None:
        pass

    def pause(self) -> None:
        pass

    def changes(self) -> int:
        return 0

    def commit(self) -> None:
        raise AssertionError("a plain folder is only looked at")


class _Copy(Box):
    """A copy of the plain folder."""

    def __init__(self, original: Path, root: Path) -> None:
        self._original = original
        self.root = root
        try:
            run("cp", "-a", "--reflink=auto", os.fspath(original), os.fspath(root))
        except BaseException:
            remove_tree(root)
            raise

    def stop(self) -> None:
        run("rm", "-rf", os.fspath(self.root), os.fspath(self._archive))

    def pause(self) -> None:
        pass

    def changes(self) -> int:
        return len(_listing(self._original).symmetric_difference(_listing(self.root)))

    def commit(self) -> None:
        changed = [line.split(b"\t", 1)[0] for line in _listing(self.root) - _listing(self._original)]
        names = b"".join(b"./" + name + b"\0" for name in changed)
        run("tar", "-cf", os.fspath(self._archive), "-C", os.fspath(self.root), "--no-recursion", "--null", "-T", "-",
            stdin=names)  # fmt: skip
        with self._archive.open("rb") as file:
            os.fsync(file.fileno())

    @property
    def _archive(self) -> Path:
        return self.root.with_name(f"{self.root.name}.tar")


def _listing(root: Path) -> set[bytes]:
    """Every name below a folder with what tells a changed file from an unchanged one."""
    # A folder's own times change with what is in it, its size with its history.
    what = r"%P\t%y %m %U %G %s %T@ %l\0"
    folders = ("(", "-type", "d", "-printf", r"%P\t%y %m %U %G\0", ")")
    shown = run("find", os.fspath(root), "-mindepth", "1", *folders, "-o", "-printf", what)
    return set(shown.split(b"\0")) - {b""}


def run(*command: str, stdin: bytes = b"") -> bytes:
    """What a command writes. What it says when it fails becomes the error."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, check=False, env=_ENGLISH)
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is not installed") from None
    _require_success(command[0], done)
    return done.stdout


def _untar(archive: Path, offset: int, size: int, target: Path) -> None:
    """tar -x, of a tar that lies within a file."""
    command = ["tar", "-xp", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", os.fspath(target), "-f", "-"]
    with archive.open("rb") as file:
        os.lseek(file.fileno(), offset, os.SEEK_SET)
        try:
            with subprocess.Popen(["head", "-c", str(size)], stdin=file, stdout=subprocess.PIPE) as cut:
                assert cut.stdout is not None
                done = subprocess.run(command, stdin=cut.stdout, capture_output=True, check=False, env=_ENGLISH)
        except FileNotFoundError as error:
            raise Unavailable(f"{error.filename} is not installed") from None
    _require_success("tar", done)


def _require_success(name: str, done: subprocess.CompletedProcess[bytes]) -> None:
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        reason = words[-1] if words else f"{name}: exit code {done.returncode}"
        # A full disk is told from all else: it ends the run.
        is_full = any(os.strerror(errno.ENOSPC) in line for line in words)
        raise OSError(errno.ENOSPC if is_full else errno.EIO, reason)


# ---- stores, opened and emptied


def _opened(data_root: Path, driver: str | None, options: Sequence[str]) -> layerstore.Store:
    exec_root = data_root.with_name("exec")
    config = Config(data_root=data_root, exec_root=exec_root, storage_driver=driver, storage_opts=tuple(options))
    return layerstore.open(config=config)


def _empty(store: layerstore.Store) -> None:
    """Remove all that is in a store, and close it."""
    with store:
        for container in store.containers():
            container.remove(force=True)
        while left := store.images():
            removed = 0
            for image in left:
                with suppress(layerstore.NotFound, layerstore.InUse):  # others are built on it: they go first
                    image.remove(force=True)
                    removed += 1
            if not removed:
                break
        store.prune(all_images=True, containers=True)


def clean_stores(work: Path) -> None:
    """Empty the stores that a dead run left: some layers, like subvolumes, only their driver can remove."""
    problem: LayerstoreError | None = None
    for note in sorted(work.glob("*/options.json")):
        try:
            content = json.loads(note.read_text())
            driver, options = str(content["driver"]), [str(opt) for opt in content["options"]]
        except (ValueError, KeyError, TypeError):
            continue  # cut off by the kill, before there was a store
        for root in (note.parent / "store", note.parent / "loaded"):
            if (root / "layerstore.db").exists():
                try:
                    _empty(_opened(root, driver, options))
                except LayerstoreError as error:
                    problem = error
    if problem is not None:
        raise problem
