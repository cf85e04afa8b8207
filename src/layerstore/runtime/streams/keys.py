"""Keys that let go of a program: how they are written, and how they are found in what is typed."""

from __future__ import annotations

from layerstore import ConfigError

__all__ = ["Detach", "parse"]

_MARKS = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse(text: str) -> bytes:
    """The bytes of docker's `--detach-keys`: keys with commas between them, each a character or `ctrl-` and one.

    After `ctrl-` come a letter or one of `@ [ \\ ] ^ _`. Raises `ConfigError`.
    """
    found = bytearray()
    for key in text.split(",") if text else []:
        name = key.removeprefix("ctrl-")
        if key == name and len(key.encode()) == 1:
            found += key.encode()
        elif key != name and len(name) == 1 and name.isascii() and name.isalpha():
            found.append(ord(name.lower()) - ord("a") + 1)
        elif key != name and name in _MARKS:
            found.append(_MARKS[name])
        else:
            raise ConfigError(
                f"{key!r} is no key to detach with",
                remedy="Name them as in ctrl-p,ctrl-q: a character, or ctrl- with a letter or one of @ [ \\ ] ^ _.",
            )
    return bytes(found)


class Detach:
    """Looks for the keys in what is typed. What may be their beginning is kept back until that is clear."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._met = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What of it goes on to the program, and whether all keys have been typed now (what follows is dropped)."""
        keys = self._keys
        if not keys:
            return typed, False
        out = bytearray()
        for byte in typed:
            while self._met and byte != keys[self._met]:
                self._met = self._step_back(out)
            if byte == keys[self._met]:
                self._met += 1
                if self._met == len(keys):
                    self._met = 0
                    return bytes(out), True
            else:
                out.append(byte)
        return bytes(out), False

    def _step_back(self, out: bytearray) -> int:
        """Let go of as little as possible of what was kept back: what remains must be a beginning of the keys still."""
        kept = self._keys[: self._met]
        for size in range(self._met - 1, -1, -1):
            if kept[self._met - size :] == self._keys[:size]:
                out += kept[: self._met - size]
                return size
        raise AssertionError("nothing is the beginning of anything")
