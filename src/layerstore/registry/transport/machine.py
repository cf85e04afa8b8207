"""The files of a machine that say how images are read: where an ordinary user has his own, and how they are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from layerstore.errors import ConfigError, remedy_for

__all__ = ["IGNORE", "own_folder", "read", "stamp"]

IGNORE: Final = '"ignore-policy": true in daemon.json lets layerstore heed neither registries.conf nor policy.json.'
_LARGEST: Final = 4 << 20


def own_folder() -> Path | None:
    """Ordinary users' own files; root has the machine's."""
    home = os.environ.get("HOME", "")
    config = os.environ.get("XDG_CONFIG_HOME", "") or f"{home}/.config"
    return Path(config, "containers") if os.geteuid() != 0 and os.path.isabs(config) else None


def stamp(file: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None where there is none."""
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(file, error) from None
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def read(file: Path) -> bytes:
    """All that is in it. Raises `ConfigError`."""
    try:
        with file.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise _unreadable(file, error) from None
    if len(data) > _LARGEST:
        raise ConfigError(f"{file}: larger than {_LARGEST >> 20} MiB", remedy=IGNORE, path=file)
    return data


def _unreadable(file: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{file}: {error.strerror}", remedy=remedy_for(error.errno), path=file, errno=error.errno)
