"""Which user and group IDs there are in a user namespace, and which they are outside: values, and their sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from layerstore.errors import KernelError
from layerstore.kernel._shim import lib
from layerstore.values import frozen

__all__ = ["IdMap", "IdRange", "allotted", "current", "is_within", "one_id", "open_namespace"]


@frozen
class IdRange:
    """`count` IDs from `inside` on, which outside are those from `outside` on."""

    inside: int
    outside: int
    count: int

    def __str__(self) -> str:
        """A line of /proc/PID/uid_map."""
        return f"{self.inside} {self.outside} {self.count}\n"


@frozen
class IdMap:
    """The ranges of a user namespace, as in /proc/PID/uid_map and gid_map (user_namespaces(7))."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]

    @classmethod
    def parsed(cls, text: str) -> IdMap:
        """From what `str` makes of one. Raises `ValueError`."""
        ranges: dict[str, list[IdRange]] = {"uid": [], "gid": []}
        for line in text.splitlines():
            kind, *numbers = line.split()
            if kind not in ranges or len(numbers) != 3:
                raise ValueError(f"{line!r} is no range of IDs")
            ranges[kind].append(IdRange(*map(int, numbers)))
        return cls(tuple(ranges["uid"]), tuple(ranges["gid"]))

    def __str__(self) -> str:
        """A line for each range: `uid INSIDE OUTSIDE COUNT`, or `gid …`."""
        both = [("uid", one) for one in self.uids] + [("gid", one) for one in self.gids]
        return "".join(f"{kind} {one}" for kind, one in both)

    @property
    def has_root(self) -> bool:
        """Has it an ID for root, and for root's group?"""
        return all(any(one.inside == 0 for one in ranges) for ranges in (self.uids, self.gids))

    @property
    def root(self) -> tuple[int, int]:
        """Who root is outside, if the namespace has one."""
        (uid,), (gid,) = ([one.outside for one in ranges if one.inside == 0] for ranges in (self.uids, self.gids))
        return uid, gid

    def is_within(self, other: IdMap) -> bool:
        """Are all IDs outside also those of the other map? Who has a right to that one has it to this."""
        pairs = ((self.uids, other.uids), (self.gids, other.gids))
        return all(_covers(theirs, one) for ours, theirs in pairs for one in ours)


def is_within() -> bool:
    """Has this process fewer IDs than there are: is it in a user namespace that is not the machine's?"""
    return bool(lib.ls_within())


def current(process: int | str = "self") -> IdMap:
    """The map of the namespace that a process is in, as this process sees it."""
    folder = Path(f"/proc/{process}")
    return IdMap(_ranges((folder / "uid_map").read_text()), _ranges((folder / "gid_map").read_text()))


def one_id(uid: int, gid: int) -> IdMap:
    """Nobody but root, who is this user outside: what everybody may have."""
    return IdMap((IdRange(0, uid, 1),), (IdRange(0, gid, 1),))


def open_namespace(ids: IdMap) -> int:
    """A user namespace with these IDs and without processes: its descriptor. Needs root. Raises `KernelError`."""
    fd: int = lib.ls_namespace_of(*("".join(map(str, ranges)).encode() for ranges in (ids.uids, ids.gids)))
    if fd < 0:
        raise KernelError("clone", -fd, detail="a user namespace for the IDs of a mount")
    return fd


def allotted(uid: int, gid: int) -> IdMap:
    """This user as root, and after it what /etc/subuid and /etc/subgid allot (subuid(5)); else `one_id`.

    So for a user without an account, whom newuidmap(1) refuses.
    """
    import pwd

    try:
        names = (pwd.getpwuid(uid).pw_name, str(uid))
    except KeyError:
        return one_id(uid, gid)
    uids, gids = (_following(Path(file), names) for file in ("/etc/subuid", "/etc/subgid"))
    alone = one_id(uid, gid)
    return IdMap(alone.uids + uids, alone.gids + gids) if uids and gids else alone


def _following(file: Path, names: Sequence[str]) -> tuple[IdRange, ...]:
    made: list[IdRange] = []
    inside = 1
    for first, count in _entries(file, names):
        made.append(IdRange(inside, first, count))
        inside += count
    return tuple(made)


def _entries(file: Path, names: Sequence[str]) -> Iterator[tuple[int, int]]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        name, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if name in names and first.isdecimal() and count.isdecimal() and int(count):
            yield int(first), int(count)


def _ranges(text: str) -> tuple[IdRange, ...]:
    return tuple(IdRange(*map(int, line.split())) for line in text.splitlines())


def _covers(theirs: Iterable[IdRange], one: IdRange) -> bool:
    end = one.outside + one.count
    return any(other.outside <= one.outside and end <= other.outside + other.count for other in theirs)
