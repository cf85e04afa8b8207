"""A store's life in its user's hands, run in a process of its own: prints as JSON what the test wants to know.

Also run by root, for what root's store says is what the user's has to say.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import layerstore
from layerstore.kernel import namespaces

LATER = (1_700_000_100, 1_700_000_100)


def edit(tree: Path) -> None:
    """Nothing that only some owners may do."""
    (tree / "new").write_bytes(b"new")
    (tree / "etc/shadow").chmod(0o600)
    with (tree / "var/far").open("ab") as far:
        far.write(b"more")
    os.setxattr(tree / "trusted", "user.more", b"1")
    shutil.rmtree(tree / "opaque")
    (tree / "opaque").mkdir(mode=0o755)
    (tree / "hard").unlink()
    (tree / "dev/null").rename(tree / "dev/nul")
    (tree / "var/www").chmod(0o700)
    for name in (
        "",
        "new",
        "etc/shadow",
        "etc",
        "var/far",
        "trusted",
        "opaque",
        "dev",
        "dev/nul",
        "var/www",
        "var",
        "hard2",
    ):
        os.utime(tree / name, LATER)


def hashes(store: layerstore.Store, image: layerstore.Image) -> list[str]:
    """What the layers are exported as."""
    found = []
    for diff in image.layers:
        tar = hashlib.sha256()
        store.write_layer(diff, tar.update)
        found.append(f"sha256:{tar.hexdigest()}")
    return found


def main(driver: str, archive: str, data_root: str | None = None) -> None:
    os.umask(0o022)
    layerstore.unshare(data_root)
    config = layerstore.Config(storage_driver=driver)
    with layerstore.open(data_root, config=config) as store:
        store.load(Path(archive))
        container = store.create_container("test", name="box")
        with container.mount() as tree:
            edit(tree)
        changes = [str(change) for change in container.changes()]
        committed = container.commit("test:2")
        answer = {
            "exported": hashes(store, store.image("test")),
            "changes": changes,
            "committed": list(map(str, committed.layers)),
            "again": hashes(store, committed),
            "problems": [str(problem) for problem in store.check(content=True)],
            "ids": str(namespaces.current()),
        }
        container.remove()
        store.remove_image("test:2")
        store.remove_image("test")
        answer["left"] = sum(len(files) for _, _, files in os.walk(store.data_root / driver))
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
