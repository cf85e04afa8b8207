"""What is copied, told by its content: one digest of names, kinds, modes, targets, xattrs and bytes, without times.

A file that was read once is not read again as long as its device, inode, size and times are the same; and where a whole
selection is as it was, by the digest of what the walk found, nothing is looked up at all. Of one that is large, parts
are remembered by the same. ctime is among the times, and no program can set it; what was altered so lately that another
write could have the same ctime is never remembered.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from attrs import field

from layerstore import KernelError, Store, Transaction, open_beneath
from layerstore.build.context import rows
from layerstore.build.context.fetching import Validators
from layerstore.build.context.tree import Chosen
from layerstore.build.errors import BuildError
from layerstore.values import define

if TYPE_CHECKING:
    from layerstore.gathering import Found

__all__ = ["Digests"]

_Answer = TypeVar("_Answer")

_BLOCK = 512
"""Files whose digest is remembered together. It decides what digests are: another number makes all keys others."""
_TICK = 50_000_000
"""Longer than the clock of a kernel's timestamps ever stands still, in nanoseconds."""
_SECONDS = 2_000_000_000
"""The same for filesystems that keep no fractions."""


_OWN = frozenset({"security.selinux", "system.nfs4_acl"})


@define
class _New:
    """What was found out, and is to be remembered. `settled`: nothing of it may be another thing by now.

    `read` is told the bytes of each file that was read for it.
    """

    files: list[tuple[rows.Identity, bytes]] = field(factory=list)
    blocks: list[tuple[str, str]] = field(factory=list)
    settled: bool = True
    read: Callable[[int], object] = lambda size: None


class Digests:
    """The digests of one store, which remembers them. Any thread may ask; without a store nothing is remembered."""

    def __init__(self, store: Store | None = None) -> None:
        self._database = None if store is None else store.tables(rows.TABLES)

    def of(
        self,
        root: int,
        chosen: Sequence[Chosen],
        *,
        owners: bool = False,
        identity: str | None = None,
        read: Callable[[int], object] = lambda size: None,
    ) -> str:
        """The digest of what was chosen in the tree `root`. With `owners`, user and group count, too.

        `identity` is what the tree is known by if its files never alter (a ChainID): then nothing of them is looked up
        but that and their paths. `read` is told the bytes of each file that has to be read. Raises `BuildError` when a
        file cannot be read.
        """
        shortcut = self._shortcut(root, chosen, owners=owners, identity=identity)
        known = self._ask(lambda tx: rows.selection(tx, shortcut))
        if known is not None:
            return known
        new = _New(read=read)
        found, settled = self._worked_out(root, chosen, new, owners=owners, remembers=identity is None)
        if settled or identity is not None:
            self._tell(lambda tx: rows.add_selections(tx, [(shortcut, found)], _today()))
        return found

    def of_download(self, source: str) -> tuple[Validators, str] | None:
        """What is remembered of what lay at `source`: by what its server tells it from another, and its digest."""
        found = self._ask(lambda tx: rows.download(tx, source))
        return None if found is None else (Validators(found[0], found[1]), found[2])

    def remember_download(self, source: str, validators: Validators, digest: str) -> None:
        """Remember what lies at `source`."""
        seen = (validators.etag, validators.modified, digest)
        self._tell(lambda tx: rows.add_download(tx, source, seen, _today()))

    def _shortcut(self, root: int, chosen: Sequence[Chosen], *, owners: bool, identity: str | None) -> str:
        known = (b"-", b"") if identity is None else (b"+", identity.encode())
        whole = hashlib.sha256(_framed(*known, b"%d" % owners))
        for one in chosen:
            whole.update(_framed(one.path, *_kept(one), one.named, *sorted(one.left_out)))
            if identity is None:
                whole.update(_framed(one.listing.digest.encode(), _above(root, one, owners=owners)))
        return whole.hexdigest()

    def _worked_out(
        self, root: int, chosen: Sequence[Chosen], new: _New, *, owners: bool, remembers: bool
    ) -> tuple[str, bool]:
        whole = hashlib.sha256()
        for one in chosen:
            whole.update(_framed(*_kept(one), one.named if one.keeps is None and not one.is_folder else b""))
            whole.update(_above(root, one, owners=owners))
            whole.update(_framed(*self._blocks(root, one, new, owners=owners, remembers=remembers)))
        if remembers and (new.files or new.blocks):
            self._tell(partial(rows.add_files, new=new.files, day=_today()))
            self._tell(partial(rows.add_selections, new=new.blocks, day=_today()))
        return whole.hexdigest(), new.settled

    def _blocks(self, root: int, one: Chosen, new: _New, *, owners: bool, remembers: bool) -> Iterator[bytes]:
        """The digests of what was chosen, some of it at a time: one file that has altered does not cost all others."""
        if one.left_out:
            kept = (found for found in one.listing if found.path not in one.left_out)
            while some := list(islice(kept, _BLOCK)):
                yield self._block(root, one, some, new, owners=owners, remembers=remembers)
            return
        if not remembers or len(one.listing) <= _BLOCK:
            for block in one.listing.blocks(_BLOCK):
                yield self._block(root, one, block, new, owners=owners, remembers=remembers)
            return
        mark = (b"block", one.path, *_kept(one), b"%d%d" % (one.is_folder, owners))
        blocks = list(one.listing.blocks(_BLOCK))
        names = [hashlib.sha256(_framed(*mark, block.records, block.strings)).hexdigest() for block in blocks]
        known = self._ask(lambda tx: rows.selections(tx, names)) or {}
        for name, block in zip(names, blocks, strict=True):
            if (digest := known.get(name)) is not None:
                yield bytes.fromhex(digest)
                continue
            before, new.settled = new.settled, True
            found = self._block(root, one, block, new, owners=owners, remembers=True)
            if new.settled:
                new.blocks.append((name, found.hex()))
            new.settled &= before
            yield found

    def _block(
        self, root: int, one: Chosen, some: Iterable[Found], new: _New, *, owners: bool, remembers: bool
    ) -> bytes:
        known = self._known(some) if remembers else {}
        whole = hashlib.sha256()
        for found in some:
            identity = _identity(found)
            content = known.get(identity)
            if content is None:
                content, same = _content(root, found)
                new.read(found.size if stat.S_ISREG(found.mode) else 0)
                trusted = same and not _is_young(found, one.listing.began)
                new.settled &= trusted
                if trusted:
                    new.files.append((identity, content))
            if found.path == one.path and one.is_folder and one.keeps is None:
                continue  # what a folder has is copied, not the folder
            name = found.path[len(one.path) :]
            owner = b"%d:%d" % (found.uid, found.gid) if owners else b""
            whole.update(_framed(name, b"%o" % found.mode, owner, content))
        return whole.digest()

    def _known(self, some: Iterable[Found]) -> Mapping[rows.Identity, bytes]:
        places = [_identity(found)[0] for found in some]
        return self._ask(lambda tx: rows.files(tx, places)) or {}

    def _ask(self, question: Callable[[Transaction], _Answer]) -> _Answer | None:
        if self._database is None:
            return None
        with self._database.read() as tx:
            return question(tx)

    def _tell(self, change: Callable[[Transaction], object]) -> None:
        if self._database is not None:
            with self._database.write(durable=False) as tx:
                change(tx)


def _identity(found: Found) -> rows.Identity:
    return (
        struct.pack("=QQ", found.device, found.inode),
        struct.pack("=Iqqq", found.mode, found.size, found.mtime_ns, found.ctime_ns),
    )


def _is_young(found: Found, began: int) -> bool:
    """Could it be altered after it was looked at, and have the ctime that it has?"""
    return found.ctime_ns + (_TICK if found.ctime_ns % 10**9 else _SECONDS) > began


def _content(root: int, found: Found) -> tuple[bytes, bool]:
    """The digest of xattrs and bytes, target or number; and whether it is the file that the walk has found."""
    path = os.fsdecode(found.path)
    try:
        if not stat.S_ISREG(found.mode):
            place = f"/proc/self/fd/{root}/{path}"
            xattrs = _xattrs(os.listxattr(place, follow_symlinks=False), lambda name: _value(place, name))
            return hashlib.sha256(_framed(found.target, b"%d" % found.rdev, xattrs)).digest(), True
        descriptor = open_beneath(root, "/" + path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb", buffering=0) as file:
            before = os.fstat(descriptor)
            xattrs = _xattrs(os.listxattr(descriptor), lambda name: os.getxattr(descriptor, name))
            content = hashlib.file_digest(file, "sha256").digest()
            after = os.fstat(descriptor)
    except KernelError as error:
        raise BuildError(f"/{path} cannot be read: {error.message}", path=found.path) from error
    except OSError as error:
        raise BuildError(f"/{path} cannot be read: {error.strerror}", path=found.path) from error
    same = all(
        (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        == (found.inode, found.size, found.mtime_ns, found.ctime_ns)
        for facts in (before, after)
    )
    return hashlib.sha256(_framed(content, xattrs)).digest(), same


def _value(place: str, name: str) -> bytes:
    return os.getxattr(place, name, follow_symlinks=False)


def _xattrs(names: Sequence[str], value: Callable[[str], bytes]) -> bytes:
    """Those that go into a layer: the label of SELinux and what the filesystem says for itself do not."""
    kept = sorted(name for name in names if name not in _OWN and not name.startswith("trusted.SGI_ACL_"))
    return b"".join(_framed(os.fsencode(name), value(name)) for name in kept)


def _framed(*parts: bytes) -> bytes:
    """The parts, each with its length before it, so that no two lists of them look the same."""
    return b"".join(b"%d:%b" % (len(part), part) for part in parts) + b"\n"


def _kept(one: Chosen) -> tuple[bytes, ...]:
    """The part of the path that is kept, so that none is not the same as an empty one."""
    return (b"-",) if one.keeps is None else (b"+", one.keeps)


def _above(root: int, one: Chosen, *, owners: bool) -> bytes:
    """The folders that come along with a path that is kept, each with its mode and xattrs."""
    whole = b""
    for path in one.above:
        place = f"/proc/self/fd/{root}/{os.fsdecode(path)}"
        try:
            facts = os.stat(place, follow_symlinks=False)
            xattrs = _xattrs(os.listxattr(place, follow_symlinks=False), partial(_value, place))
        except OSError as error:
            raise BuildError(f"/{os.fsdecode(path)} cannot be read: {error.strerror}", path=path) from error
        owner = b"%d:%d" % (facts.st_uid, facts.st_gid) if owners else b""
        whole += _framed(b"%o" % facts.st_mode, owner, xattrs)
    return whole


def _today() -> int:
    return int(time.time() // 86_400)
