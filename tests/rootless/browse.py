"""Loads an archive, and prints what is in its image, read without a mount: `browse.py DRIVER ARCHIVE [DATA_ROOT]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import layerstore


def main(driver: str, archive: str, data_root: str | None = None) -> None:
    layerstore.unshare(data_root)
    with layerstore.open(data_root, storage_driver=driver) as store:
        [image] = store.load(archive)
        mounts = Path("/proc/self/mountinfo").read_text()
        with image.browse() as tree:
            told = {
                entry.path: [
                    entry.mode,
                    entry.uid,
                    entry.gid,
                    entry.size,
                    entry.mtime_ns if entry.path else 0,  # no layer says when the root was made
                    entry.device,
                    entry.target(),
                    sorted((name, value.hex()) for name, value in entry.xattrs().items()),
                    entry.read().hex() if entry.is_file else "",
                ]
                for entry in tree.walk()
            }
        assert Path("/proc/self/mountinfo").read_text() == mounts
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
