"""`-v`, `--mount` and `--tmpfs`: what is mounted where in a container. Pure.

The rules are those of docker's client and of moby's parser of mounts (volume/mounts), with podman's `U` besides. Each
function takes the text as it was given and raises `ValueError` where it means nothing.
"""

from __future__ import annotations

import os.path
import posixpath
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from layerstore.cli.run_options import values
from layerstore.runtime.options import MountOption

_PROPAGATIONS: Final = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
# Each group of words: at most one of it may be among the modes of one -v.
_MODES: Final = (("rw", "ro"), ("z", "Z"), _PROPAGATIONS, ("nocopy",), ("U",), ("consistent", "cached", "delegated"))
_TMPFS_WORDS: Final = (
    "defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime "
    "nodiratime bind rbind unbindable runbindable private rprivate shared rshared slave rslave relatime norelatime "
    "strictatime nostrictatime"
)
_TMPFS_KEYS: Final = ("mode", "uid", "gid", "size", "nr_blocks", "nr_inodes", "mpol")
_TRUTHS: Final = {**dict.fromkeys(("true", "1"), True), **dict.fromkeys(("false", "0"), False)}
_RECURSIVE: Final = ("enabled", "disabled", "writable", "readonly")


def volume(text: str, *, here: str | None = None) -> MountOption:
    """The value of `-v`: `TARGET`, or `SOURCE:TARGET[:MODES]`, where a source that is no path names a volume.

    `here`: the folder that a source which begins with `.` is relative to; by default the working directory.
    """
    parts = text.split(":")
    if not text:
        raise ValueError("invalid empty volume spec")
    if len(parts) > 3:
        raise ValueError(f"invalid spec: {text}: too many colons")
    invalid = f"invalid volume specification: '{text}'"
    if not parts[0] or (len(parts) == 2 and _is_mode(parts[1])):
        raise ValueError(invalid)
    mode = parts[2] if len(parts) == 3 else ""
    if mode and not _is_mode(mode):
        raise ValueError(f"invalid mode: {mode}")
    words = mode.split(",")
    source = parts[0] if len(parts) > 1 else None
    if source is not None and source.startswith("."):
        source = posixpath.normpath(posixpath.join(here or os.path.abspath("."), source))
    is_bind = source is not None and source.startswith("/")
    kind = "bind" if is_bind else "volume"
    target = _target(parts[1] if len(parts) > 1 else parts[0], f'{invalid}: invalid mount config for type "{kind}"')
    return MountOption(
        "bind" if is_bind else "volume",
        target,
        posixpath.normpath(source) if is_bind and source else source,
        read_only="ro" in words,
        no_copy="nocopy" in words,
        chown="U" in words,
        make_source=is_bind,
        propagation=next((word for word in words if word in _PROPAGATIONS), ""),
    )


def _is_mode(text: str) -> bool:
    words = text.split(",")
    return all(any(word in group for group in _MODES) for word in words) and all(
        sum(word in group for word in words) <= 1 for group in _MODES
    )


def _target(path: str, prefix: str) -> str:
    """A place in a container, checked."""
    if not path.startswith("/"):
        raise ValueError(f"{prefix}: invalid mount path: '{path}' mount path must be absolute")
    clean = posixpath.normpath(path)
    clean = clean[1:] if clean.startswith("//") else clean  # POSIX lets two slashes be; Linux does not
    if clean == "/":
        raise ValueError(f"{prefix}: invalid specification: destination can't be '/'")
    return clean


def tmpfs(text: str) -> MountOption:
    """The value of `--tmpfs`: `TARGET[:OPTIONS]`, with options of mount(8)."""
    path, _, options = text.partition(":")
    words = tuple(filter(None, options.split(",")))
    for word in words:
        key, equals, _ = word.partition("=")
        if not (key in _TMPFS_KEYS if equals else word in _TMPFS_WORDS.split()):
            raise ValueError(f'invalid tmpfs option ["{word}"]')
    return MountOption("tmpfs", _target(path, "invalid tmpfs"), options=words, read_only="ro" in words)


class _Fields:
    """The fields of one `--mount`, read one by one."""

    def __init__(self) -> None:
        self.kind = "volume"
        self.found: dict[str, Any] = {}
        self.groups: set[str] = set()
        self.tmpfs: list[str] = []

    def read(self, field: str, here: str) -> None:
        key, equals, value = field.partition("=")
        key = key.lower()
        if key in ("readonly", "ro", "volume-nocopy", "u", "chown"):
            truth = _truth(key, value if equals else "true")
            self.groups.add("volume" if key == "volume-nocopy" else "")
            name = {"volume-nocopy": "no_copy", "u": "chown", "chown": "chown"}.get(key, "read_only")
            self.found[name] = truth
            return
        if not equals:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        known = _KEYS.get(key)
        if known is None:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
        group = key.partition("-")[0] if "-" in key else ""
        self.groups.add(group)
        known(self, value, here)


def _truth(key: str, text: str) -> bool:
    if text.lower() not in _TRUTHS:
        raise ValueError(f"invalid value for {key}: {text}")
    return _TRUTHS[text.lower()]


def _kind(fields: _Fields, value: str, _: str) -> None:
    fields.kind = value.lower()


def _source(fields: _Fields, value: str, here: str) -> None:
    fields.found["source"] = posixpath.normpath(posixpath.join(here, value)) if value.startswith(".") else value


def _put(name: str) -> Callable[[_Fields, str, str], None]:
    def put(fields: _Fields, value: str, _: str) -> None:
        fields.found[name] = value

    return put


def _propagation(fields: _Fields, value: str, _: str) -> None:
    if value not in _PROPAGATIONS:
        raise ValueError(f"invalid value for bind-propagation: {value}")
    fields.found["propagation"] = value


def _recursive(fields: _Fields, value: str, _: str) -> None:
    if value not in _RECURSIVE:
        raise ValueError(
            f'invalid value for bind-recursive: {value} (must be "enabled", "disabled", "writable", or "readonly")'
        )
    fields.found["recursive"] = value != "disabled"


def _tmpfs_size(fields: _Fields, value: str, _: str) -> None:
    try:
        fields.tmpfs.append(f"size={values.size(value)}")
    except ValueError:
        raise ValueError(f"invalid value for tmpfs-size: {value}") from None


def _tmpfs_mode(fields: _Fields, value: str, _: str) -> None:
    try:
        fields.tmpfs.append(f"mode={int(value, 8):o}")
    except ValueError:
        raise ValueError(f"invalid value for tmpfs-mode: {value}") from None


def _ignored(_: _Fields, __: str, ___: str) -> None:
    """`consistency` means something on macOS alone, and the driver of a volume is always the local one."""


def _volume_driver(_: _Fields, value: str, __: str) -> None:
    if value not in ("", "local"):
        raise ValueError(f"there is no volume driver {value}, but the driver local")


_KEYS: Final[dict[str, Callable[[_Fields, str, str], None]]] = {
    "type": _kind,
    **dict.fromkeys(("source", "src"), _source),
    **dict.fromkeys(("target", "dst", "destination"), _put("target")),
    "consistency": _ignored,
    "bind-propagation": _propagation,
    "bind-recursive": _recursive,
    "volume-subpath": _put("subpath"),
    "volume-driver": _volume_driver,
    "image-subpath": _put("subpath"),
    "tmpfs-size": _tmpfs_size,
    "tmpfs-mode": _tmpfs_mode,
}


def mount(text: str, *, here: str | None = None) -> MountOption:
    """The value of `--mount`: fields of CSV, `type=bind,src=/a,dst=/b,readonly`. `here`: as with `volume`."""
    import csv

    if not text:
        raise ValueError("value is empty")
    try:
        [row] = csv.reader([text], strict=True)
    except (csv.Error, ValueError) as wrong:
        raise ValueError(f"not a list of fields: {wrong}") from None
    fields = _Fields()
    for field in row:
        fields.read(field, here or os.path.abspath("."))
    if not fields.found.get("target"):
        raise ValueError("target is required")
    for group in sorted(fields.groups - {"", fields.kind}):
        raise ValueError(f"cannot mix '{group}-*' options with mount type '{fields.kind}'")
    prefix = f'invalid mount config for type "{fields.kind}"'
    found = {**fields.found, "target": _target(fields.found["target"], prefix)}
    source = found.get("source")
    match fields.kind:
        case "bind":
            if not source:
                raise ValueError(f"{prefix}: field Source must not be empty")
            if not source.startswith("/"):
                raise ValueError(f"{prefix}: invalid mount path: '{source}' mount path must be absolute")
            return MountOption("bind", **{**found, "source": posixpath.normpath(source)})
        case "volume":
            return MountOption("volume", **{**found, "source": source or None})
        case "image":
            if not source:
                raise ValueError(f"{prefix}: field Source must not be empty")
            return MountOption("image", **found)
        case "tmpfs":
            if source:
                raise ValueError(f"{prefix}: field Source must not be specified")
            return MountOption("tmpfs", options=tuple(fields.tmpfs), **found)
    raise ValueError(f"{prefix}: mount type unknown")


def together(
    volumes: Sequence[MountOption], mounts: Iterable[MountOption], tmpfs: Iterable[MountOption]
) -> tuple[MountOption, ...]:
    """All that is mounted, each place once. As in docker, an anonymous volume gives way to what else is put there."""
    anonymous = [option for option in volumes if option.source is None]
    chosen = [*(option for option in volumes if option.source is not None), *mounts, *tmpfs]
    taken: set[str] = set()
    for option in chosen:
        if option.target in taken:
            raise ValueError(f"duplicate mount point: {option.target}")
        taken.add(option.target)
    for option in anonymous:
        if option.target not in taken:
            chosen.append(option)
            taken.add(option.target)
    return tuple(chosen)
