"""A life of a store, for whoever watches it from outside. Its arguments: data-root, driver, an archive with two layers.

It ends in the midst of things: images, a container with a checkpoint that is mounted, a volume, a kept blob.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import layerstore


def run(data_root: Path, driver: str, archive: Path) -> None:
    config = layerstore.Config(
        data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver=driver, keep_blobs=True
    )
    with layerstore.open(config=config) as store:
        store.load(archive)
        store.load(io.BytesIO(archive.read_bytes()))
        blob = store.blobs.partial("sha256:" + "0" * 64)
        assert blob is not None
        blob.append(b"some")
        blob.close()
        box = store.create_container("test:latest", name="box")
        with box.mount() as root:
            (root / "new").write_text("new")
            (root / "d" / "b").unlink()
        assert {str(change.path) for change in box.changes()} >= {"/new", "/d/b"}
        box.checkpoint("point")
        box.commit("made:1")
        box.copy_out("/new", data_root.with_name("out"))
        store.save("made:1", data_root.with_name("saved.tar"))
        with store.image("made:1").mount() as root:
            assert (root / "new").read_text() == "new"
        store.volumes.create("data")
        store.create_container("made:1", name="gone").remove()
        assert store.check() == []
        store.prune()
        for path in (data_root.with_name("out"), data_root.with_name("saved.tar")):
            path.unlink()


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
