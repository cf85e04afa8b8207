"""containers/storage's storage.conf, which podman, buildah and CRI-O read: what a machine without a daemon.json says.

Taken is what is advice and means the same here: which driver a new store should have, and options of mounts. Folders
are never taken: podman's graphroot is no data-root of ours, and a store that is there keeps its driver. What is left is
told, with the reason (`layerstore info`). A file that is wrong is podman's trouble, and keeps no store from opening.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from layerstore.values import frozen

__all__ = ["Advice", "parsed", "read"]

_LARGEST: Final = 1 << 20
_LONGEST: Final = 200
_MOST: Final = 100
_DRIVERS: Final = {"overlay": "overlay2", "overlay2": "overlay2", "btrfs": "btrfs", "vfs": "vfs", "aufs": "aufs"}
_FLAGS: Final = ("nodev", "nosuid", "noexec", "noatime", "nodiratime", "relatime", "strictatime")
_SWITCHES: Final = {"metacopy": "overlay2.metacopy", "redirect_dir": "overlay2.redirect_dir"}

_FOLDER: Final = "it is podman's own: no other program's folder is taken for a store"
_LIMIT: Final = "a limit is asked for here by {0}.{1} of daemon.json: it needs quotas of the whole filesystem"
_STORES: Final = "say `--attach podman:{0}`, or `attach` in daemon.json, to use their images where they lie"
_REASONS: Final = {
    "mount_program": "the kernel's overlay is used, without root, too; `aufs.mode=fuse` mounts by fuse-overlayfs",
    "ignore_chown_errors": "owners that cannot be given are noted, and not lost",
    "force_mask": "files have the modes that their layers say",
    "skip_mount_home": "the data-root is not mounted on itself",
    "use_composefs": "the driver `erofs` is what comes near to it",
    "inodes": "inodes are not limited",
    "remap-uids": "`create --userns` mounts for other IDs",
    "remap-gids": "`create --userns` mounts for other IDs",
    "remap-user": "`create --userns` mounts for other IDs",
    "remap-group": "`create --userns` mounts for other IDs",
    "pull_options": "`pull --lazy` and remotes of daemon.json are what is here",
}
_UNKNOWN: Final = "it has no meaning here"


@frozen
class Advice:
    """What a storage.conf says: `driver` for a new store, `options` as daemon.json's `storage-opts`.

    `left`: its keys that are not taken, each with the reason.
    """

    source: Path | None = None
    driver: str | None = None
    options: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()

    def of(self, driver: str) -> tuple[str, ...]:
        """The options of one driver."""
        return tuple(option for option in self.options if option.startswith(f"{driver}."))

    def left_by(self, driver: str) -> tuple[tuple[str, str], ...]:
        """`left`, and what means nothing to a store of that driver, each with the reason."""
        own = self.of(driver)
        others = [option for option in self.options if option not in own]
        return *self.left, *((option, f"it is for another driver, and this store's is {driver}") for option in others)


def read(*, rootless: bool) -> Advice:
    """The storage.conf that podman would read as this user. `rootless`: not as the machine's root."""
    for file in _places(rootless=rootless):
        try:
            with file.open("rb") as stream:
                data = stream.read(_LARGEST + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return Advice(file, left=(("", f"the file cannot be read: {error.strerror}"),))
        return parsed(data, file, rootless=rootless)
    return Advice()


def _places(*, rootless: bool) -> Iterator[Path]:
    named = os.environ.get("CONTAINERS_STORAGE_CONF", "")
    if named:
        yield Path(named)
        return
    if rootless:
        config, home = os.environ.get("XDG_CONFIG_HOME", ""), os.environ.get("HOME", "")
        own = config if os.path.isabs(config) else f"{home}/.config" if os.path.isabs(home) else ""
        if own:
            yield Path(own, "containers/storage.conf")
    yield Path("/etc/containers/storage.conf")
    yield Path("/usr/share/containers/storage.conf")


def parsed(data: bytes, file: Path, *, rootless: bool = False) -> Advice:
    """What the text of such a file says (containers-storage.conf(5))."""
    import tomllib

    if len(data) > _LARGEST:
        return Advice(file, left=(("", f"the file is larger than {_LARGEST >> 20} MiB"),))
    try:
        storage = tomllib.loads(data.decode()).get("storage", {})
    except (ValueError, RecursionError) as error:
        return Advice(file, left=(("", f"the file is no TOML: {error}"),))
    if not isinstance(storage, dict):
        return Advice(file, left=(("storage", "it is no table"),))
    driver, left = None, []
    for key, value in storage.items():
        if key == "driver" and isinstance(value, str) and value in _DRIVERS:
            driver = _DRIVERS[value]
        elif key == "driver" and value != "":
            left.append((key, f"there is no driver {str(value)[:_LONGEST]!r} here"))
        elif key in ("graphroot", "runroot", "rootless_storage_path", "imagestore"):
            left.append((key, _FOLDER))
        elif key not in ("driver", "options"):
            left.append((key, _UNKNOWN))
    options: list[str] = []
    for key, value in _flattened(storage.get("options")):
        taken, reason = _option(key, value, rootless=rootless)
        options += taken
        if reason is not None:
            left.append((f"options.{key}", reason))
    return Advice(file, driver, tuple(options), tuple((key[:_LONGEST], reason) for key, reason in left[:_MOST]))


def _flattened(options: object) -> Iterator[tuple[str, object]]:
    """The options with the table that each is in: `overlay.mountopt`. Older files have them in no table."""
    for key, value in options.items() if isinstance(options, Mapping) else ():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{name}", one) for name, one in value.items())
        else:
            yield str(key), value


def _option(key: str, value: Any, *, rootless: bool) -> tuple[list[str], str | None]:
    """What one option comes to here, and why it, or a part of it, comes to nothing."""
    table, _, name = key.rpartition(".")
    driver = _DRIVERS.get(table or "overlay", table)
    if value in ("", [], {}, False):
        return [], None  # as if it were not there
    if name == "mountopt" and driver == "overlay2" and isinstance(value, str):
        return _mount_options(value, rootless=rootless)
    if name in ("size", "min_space"):
        return [], _LIMIT.format(driver, name)
    if name == "additionalimagestores":
        return [], _STORES.format(str(value[0])[:_LONGEST] if isinstance(value, list) else "DIR")
    return [], _REASONS.get(name, _UNKNOWN)


def _mount_options(text: str, *, rootless: bool) -> tuple[list[str], str | None]:
    flags, switches, left = [], [], []
    for word in (part.strip() for part in text.split(",")):
        name, _, value = word.partition("=")
        if word in _FLAGS:
            flags.append(word)
        elif name in _SWITCHES and value == "off":
            continue
        elif name in _SWITCHES and value == "on" and not rootless:
            switches.append(f"{_SWITCHES[name]}=true")
        elif name in _SWITCHES:
            left.append(f"{word} (not without root)")
        elif word == "volatile":
            left.append("volatile (what a container wrote is durable, unless daemon.json says otherwise)")
        elif word:
            left.append(word)
    taken = [*([f"overlay2.mountopt={','.join(flags)}"] if flags else []), *switches]
    return taken, f"not taken of it: {', '.join(left)[:_LONGEST]}" if left else None
