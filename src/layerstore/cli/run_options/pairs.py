"""Files of `NAME=value` lines, `--env-file` and `--label-file`, and where variables without a value get theirs. Pure,
but for `read`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from layerstore.errors import ConfigError

_BOM = b"\xef\xbb\xbf"


def read(path: str, what: str) -> list[str]:
    """The lines of such a file that say something. Raises `ConfigError`, in which it is called `what`."""
    try:
        data = Path(path).read_bytes()
    except OSError as problem:
        reason = (problem.strerror or "cannot be read").lower()
        raise ConfigError(
            f"open {what} {path}: {reason}", remedy="Look whether the path is right, and the file can be read."
        ) from None
    try:
        return list(lines(data))
    except ValueError as wrong:
        raise ConfigError(
            f"invalid {what} ({path}): {wrong}", remedy="Each of its lines is NAME=value, or NAME alone."
        ) from None


def lines(data: bytes) -> Iterator[str]:
    """Each line that is neither empty nor a comment, as docker's client reads them. Raises `ValueError`."""
    for number, raw in enumerate(data.removeprefix(_BOM).split(b"\n"), 1):
        try:
            line = raw.removesuffix(b"\r").decode().lstrip()
        except UnicodeDecodeError:
            raise ValueError(f"invalid utf8 bytes at line {number}: {list(raw)}") from None
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if any(character.isspace() for character in name):
            raise ValueError(f"variable '{name}' contains whitespaces")
        if not name:
            raise ValueError(f"no variable name on line '{line}'")
        yield line


def environment(files: Iterable[str], given: Iterable[str], own: Mapping[str, str]) -> tuple[str, ...]:
    """What a container's environment gets: first what files say, then each `-e`; the last that names one counts.

    A name alone has the value that it has in `own`. Without one there, a file's is left out, and one of `-e` is told
    without a value: it takes the image's away.
    """
    chosen: dict[str, str] = {}
    for line in files:
        name, equals, _ = line.partition("=")
        if equals or name in own:
            chosen.pop(name, None)
            chosen[name] = line if equals else f"{name}={own[name]}"
    for line in given:
        name, equals, _ = line.partition("=")
        chosen.pop(name, None)
        chosen[name] = line if equals or name not in own else f"{name}={own[name]}"
    return tuple(chosen.values())


def labels(files: Iterable[str], given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The labels of files, and over them those of `-l`."""
    found = {}
    for line in files:
        name, _, value = line.partition("=")
        found[name] = value
    return {**found, **dict(given)}
