"""Trees that have everything a filesystem can hold, and edits of them; all drawn from a `random.Random`."""

from __future__ import annotations

import os
import random
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

NAMES = (b"a", b"b", b"c", b"d e", b"\xff\xfe", b"new\nline", b".hidden", "ä".encode(), b"x" * 255)
CONTENTS = (b"", b"x", b"text\n" * 50, bytes(5000), os.urandom(70_000))
TIMES = (0, 1, -(10**9), 1_600_000_000_123_456_789, 1_700_000_000_000_000_001, 86_400 * 10**9)
OWNERS = ((0, 0), (0, 0), (1000, 1000), (0, 5), (70_000, 3))
KINDS = ("file",) * 4 + ("folder",) * 4 + ("link", "link", "symlink", "fifo", "device", "socket")
MODES = (0o644, 0o755, 0o4755, 0o2711, 0o1777, 0o600, 0o000, 0o7777)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)


def acl(*, mask: int = 7) -> bytes:
    """A POSIX ACL that gives a second user something."""
    entries = ((1, 7, -1), (2, 5, 1234), (4, 5, -1), (16, mask, -1), (32, 1, -1))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def below(root: bytes) -> list[bytes]:
    """All paths of a tree, without the root."""
    return sorted(os.path.join(folder, name) for folder, folders, files in os.walk(root) for name in [*folders, *files])


class Wild:
    """Makes and alters the tree at `root`, as `dice` falls."""

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.root = os.fsencode(root)
        self.dice = dice

    def grow(self, size: int) -> None:
        """Make the tree, with about so many names. Its root may be there."""
        with suppress(FileExistsError):
            os.mkdir(self.root)
        for _ in range(size):
            self.add()
        for path in below(self.root):
            self.adorn(path)
        self.adorn(self.root)

    def edit(self, times: int) -> None:
        """Do something to it, so often."""
        for _ in range(times):
            deed = self.dice.choice(self.deeds())
            with suppress(OSError):  # as a folder moved into itself
                deed()

    def deeds(self) -> tuple[Callable[[], None], ...]:
        return (self.add, self.remove, self.rename, self.swap, self.write, self.touch_up, self.there_and_back)

    def aside(self) -> bytes:
        """A name that is free, on the same filesystem."""
        return self.root + b".aside"

    # --- deeds

    def add(self) -> None:
        """One new name."""
        path = os.path.join(self._folder(), self.dice.choice(NAMES))
        if os.path.lexists(path):
            return
        kind = self.dice.choice(KINDS)
        if kind == "file":
            self._write_new(path)
        elif kind == "folder":
            os.mkdir(path)
        elif kind == "link":
            linkable = [one for one in below(self.root) if not stat.S_ISDIR(os.lstat(one).st_mode)]
            if linkable:
                os.link(self.dice.choice(linkable), path, follow_symlinks=False)
        elif kind == "symlink":
            os.symlink(self.dice.choice((b"nowhere", b"/etc", b"../..", b"a/b", b"\xff")), path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(path, stat.S_IFCHR | 0o600, self.dice.choice((os.makedev(0, 0), os.makedev(1, 3))))
        else:
            os.mknod(path, stat.S_IFSOCK | 0o600)

    def remove(self) -> None:
        """One name less, if it is a file or an empty folder."""
        path = self._any()
        os.rmdir(path) if stat.S_ISDIR(os.lstat(path).st_mode) else os.unlink(path)

    def rename(self) -> None:
        """To another folder or another name, perhaps in place of what is there."""
        os.rename(self._any(), os.path.join(self._folder(), self.dice.choice(NAMES)))

    def swap(self) -> None:
        """Two names change places."""
        one, other = self._any(), self._any()
        aside = self.aside()
        os.rename(one, aside)
        try:
            os.rename(other, one)
            os.rename(aside, other)
        except OSError:
            os.rename(aside, one if not os.path.lexists(one) else other)
            raise

    def write(self) -> None:
        """Other bytes, of the same length perhaps, and the time put back as if nothing had been."""
        path = self._any()
        facts = os.lstat(path)
        if not stat.S_ISREG(facts.st_mode):
            return
        content = self.dice.choice((os.urandom(facts.st_size), b"short", None))
        if content is not None:
            with open(path, "r+b") as file:
                file.write(content)
        else:
            os.truncate(path, self.dice.choice((0, facts.st_size, facts.st_size + 10_000)))
        if self.dice.random() < 0.8:
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    def touch_up(self) -> None:
        """Other attributes."""
        self.adorn(self._any())

    def there_and_back(self) -> None:
        """Attributes and names changed and put back: nothing differs, and the times of change do."""
        path = self._any()
        facts = os.lstat(path)
        aside = self.aside()
        os.rename(path, aside)
        os.rename(aside, path)
        if stat.S_ISLNK(facts.st_mode):
            return
        os.chmod(path, 0o700)
        os.chmod(path, stat.S_IMODE(facts.st_mode))
        if self.dice.random() < 0.5:
            os.utime(os.path.dirname(path), ns=(0, 1_600_000_000_123_456_789))

    def adorn(self, path: bytes) -> None:
        """Owner, mode, xattrs and times, of any kind."""
        dice = self.dice
        kind = stat.S_IFMT(os.lstat(path).st_mode)
        os.chown(path, *dice.choice(OWNERS), follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(path, dice.choice(MODES))
        if dice.random() < 0.3:
            os.setxattr(path, "trusted.mark", dice.choice((b"", b"\0\xff", b"y" * 300)), follow_symlinks=False)
        if kind == stat.S_IFREG and dice.random() < 0.2:
            os.setxattr(path, "security.capability", CAPABILITY)
        if kind in (stat.S_IFREG, stat.S_IFDIR) and dice.random() < 0.2:
            os.setxattr(path, "user.note", b"n")
            os.setxattr(path, "system.posix_acl_access", acl(mask=dice.choice((5, 7))))
        if kind == stat.S_IFDIR and dice.random() < 0.2:
            os.setxattr(path, "system.posix_acl_default", acl())
        os.utime(path, ns=(dice.choice(TIMES), dice.choice(TIMES)), follow_symlinks=False)

    # --- choices

    def _any(self) -> bytes:
        names = below(self.root)
        if not names:
            raise FileNotFoundError
        return self.dice.choice(names)

    def _folder(self) -> bytes:
        folders = [path for path in below(self.root) if stat.S_ISDIR(os.lstat(path).st_mode)]
        return self.dice.choice([self.root, *folders])

    def _write_new(self, path: bytes) -> None:
        with open(path, "xb") as file:
            if self.dice.random() < 0.2:
                file.truncate(3 << 20)
                file.seek(1 << 20)
            file.write(self.dice.choice(CONTENTS))
