"""Who a program runs as: `user[:group]` looked up in the image's own files, by docker's rules (moby/sys, user).

/etc/passwd and /etc/group are read beneath the tree's root, so that no symbolic link of an image leads to the host's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from layerstore import ConfigError, NotFound
from layerstore.runtime.bundle import beneath
from layerstore.values import frozen

__all__ = ["User", "find"]

_LARGEST_ID = 2**31 - 1


@frozen
class User:
    """Numbers for the kernel. `groups` are the further ones, `home` the directory that passwd names."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"
    name: str = ""


def find(tree: int, text: str, added: Iterable[str] = ()) -> User:
    """Who `text` means in a tree. "" is root. A number need not be in passwd; then its group is 0.

    Raises `NotFound` for a name that is not there, `ConfigError` for a number that is none of a user's.
    """
    asked, _, asked_group = text.partition(":")
    number, group_number = _number(asked), _number(asked_group)
    user = next((found for found in _accounts(tree) if _is(found, asked, number)), None)
    if user is None:
        if asked and number is None:
            raise _unknown("user", asked, "passwd")
        user = User(uid=number or 0)
    groups: tuple[int, ...] = ()
    gid = user.gid
    if asked_group:
        gid = _gid(tree, asked_group, group_number)
    elif user.name:
        lines = _lines(tree, "/etc/group", having=user.name)
        groups = tuple(_number(_at(line, 2)) or 0 for line in lines if user.name in _at(line, 3).split(","))
    groups += tuple(_gid(tree, name, _number(name)) for name in added)
    for value in (user.uid, gid, *groups):
        if not 0 <= value <= _LARGEST_ID:
            raise ConfigError(
                f"unable to find user {text}: uids and gids must be in range 0-{_LARGEST_ID}",
                remedy="Name another user with --user.",
            )
    # The group itself is among the further ones: else a program could shed it (moby, CVE-2022-36109).
    return User(user.uid, gid, tuple(dict.fromkeys((gid, *groups))), user.home or "/", user.name)


def _is(account: User, name: str, number: int | None) -> bool:
    if not name:
        return account.uid == 0
    return account.name == name if number is None else account.uid == number


def _gid(tree: int, name: str, number: int | None) -> int:
    for fields in _lines(tree, "/etc/group"):
        gid = _number(_at(fields, 2)) or 0
        if fields[0] == name if number is None else gid == number:
            return gid
    if number is None:
        raise _unknown("group", name, "group")
    return number


def _unknown(kind: str, name: str, file: str) -> NotFound:
    return NotFound(
        f"unable to find {kind} {name}: no matching entries in {file} file",
        remedy=f"Name one of the image's /etc/{file}, or a number.",
        path=f"/etc/{file}",
    )


def _number(text: str) -> int | None:
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None


def _accounts(tree: int) -> Iterator[User]:
    for fields in _lines(tree, "/etc/passwd"):
        uid, gid = _number(_at(fields, 2)), _number(_at(fields, 3))
        yield User(uid or 0, gid or 0, (), _at(fields, 5), fields[0])


def _at(fields: list[str], index: int) -> str:
    return fields[index] if index < len(fields) else ""


def _lines(tree: int, path: str, *, having: str = "") -> Iterator[list[str]]:
    """The lines of a file of the tree that have this text, in their fields; none if there is no such file."""
    for line in beneath.text(tree, path).split("\n"):
        if having in line and (stripped := line.strip()):
            yield stripped.split(":")
