"""A process that uses a store at random until it is killed: see test_crash.py. Its arguments: data-root, seed, rounds.

What must hold at any moment for a process that sees the store from outside: an image that is there can be mounted and
read, whoever is killed beside it.
"""

from __future__ import annotations

import errno
import io
import os
import random
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import layerstore
from layerstore import Attachment
from layerstore.build import building as dockerfile
from support import images as make

KINDS = (
    *("launch", "launch"),
    *("load", "load", "create", "create", "mount", "commit", "commit"),
    *("remove", "rmi", "look", "prune", "save", "tag", "attach", "unused"),
    *("checkpoint", "checkpoint", "rollback", "fork"),
    *("build", "build", "forget", "grow"),
    *("dockerfile", "check"),
)

LEFT_BY_THE_DEAD = ("garbage", "record")
"""What `check` may tell of while others are killed: the next open puts it in order."""

DOCKERFILE = """\
FROM scratch AS one
COPY folder /one/
FROM scratch
COPY folder /built/
COPY --from=one /one /built/{number}/
LABEL n={number}
"""


def stacks() -> list[list[bytes]]:
    """Images that share some layers, some of them under other parents."""
    parts = [
        make.layer(make.folder("etc/"), *(make.file(f"etc/{number}-{n}", str(n) * 50) for n in range(40)))
        for number in range(5)
    ]
    parts.append(make.layer(make.file("etc/implied", "no directory is listed")))
    return [parts[:3], [parts[3], *parts[:2]], [parts[0], parts[5], parts[4]], [parts[3], parts[5]]]


def archives(folder: Path) -> list[Path]:
    """The same as docker-archives."""
    made = []
    for number, layers in enumerate(stacks()):
        path = folder / f"image{number}.tar"
        make.docker_archive(path, layers, [f"image{number}:latest"])
        made.append(path)
    (folder / "folder").mkdir(exist_ok=True)
    (folder / "folder/mine").write_text("of the host")
    return made


def settings(data_root: Path, driver: str = "overlay2") -> layerstore.Config:
    """One store, wherever it is opened."""
    return layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver=driver)


def build(store: layerstore.Store, layers: list[bytes], name: str) -> None:
    """What a build does: layers one on the other, each leased as soon as it is there, steps, and an image of them."""

    def keep(tx: layerstore.Transaction, layer: layerstore.StoredLayer) -> None:
        store.lease(tx, layer.chain_id, owner="worker", name=layer.chain_id)

    top = None
    for tar in layers:
        top = store.add_layer(layerstore.LayerSource(partial(io.BytesIO, tar)), top and top.chain_id, record=keep)
    assert top is not None
    found = [make.digest(tar) for tar in layers]
    box = store.create_container(on=top.chain_id, lasts=False)
    for number in range(2):
        with box.mount() as root:
            (root / "mine").write_text(str(number))
        sealed = box.seal(latest=make.EPOCH * 10**9, record=keep)
        if sealed is None or sealed.parent != top.chain_id:
            box.remove()
            return  # another process has committed it, as it may with any container
        top = sealed
        found.append(top.diff_id)
    box.remove()
    config = make.config([], rootfs={"type": "layers", "diff_ids": found}, history=[])
    store.add_image(config, top.chain_id, [name])


def step(store: layerstore.Store, dice: random.Random, sources: list[Path]) -> None:
    """One thing that a user may do."""
    kind = dice.choice(KINDS)
    boxes = store.containers()
    if kind == "load":
        store.load(dice.choice(sources))
    elif kind == "create":
        found = store.images()
        with store.create_container(dice.choice(found) if found else None) as box, box.mount() as root:
            (root / "mine").write_text(box.id)
    elif kind == "build":
        build(store, dice.choice(stacks()), f"built{dice.randrange(2)}")
    elif kind == "dockerfile":
        file = sources[0].with_name(f"Dockerfile-{os.getpid()}-{threading.get_ident()}")
        file.write_text(DOCKERFILE.format(number=dice.randrange(3)))
        dockerfile.build(store, file.parent, file=str(file), tags=[f"steps{dice.randrange(2)}"])
    elif kind == "check":
        found = store.check(content=dice.random() < 0.2)
        wrong = [f"{problem.kind}: {problem}" for problem in found if problem.kind not in LEFT_BY_THE_DEAD]
        assert wrong == [], wrong
    elif kind == "grow":
        for image in store.images()[:1]:
            made = image.append(sources[0].parent / "folder", tags=[f"grown{dice.randrange(2)}"])
            store.squash(made, since=image if dice.random() < 0.5 else None, tags=[f"flat{dice.randrange(2)}"])
    elif kind == "forget":
        leases = list(store.leases("worker"))
        store.end_leases("worker", dice.sample(leases, len(leases) // 2))
    elif kind == "unused":
        for volume in store.volumes.all()[:2]:
            volume.remove()
    elif kind == "look":
        for image in store.images()[:2]:
            with image.mount() as root:
                for path in sorted(root.rglob("*"))[:20]:
                    if path.is_file():
                        path.read_bytes()
    elif kind == "prune":
        store.prune(containers=dice.random() < 0.1, all_images=dice.random() < 0.1)
    elif kind == "save":
        for image in store.images()[:1]:
            for chain in image.chain_ids:
                store.write_layer(chain, len)
    elif kind == "tag":
        for image in store.images()[:1]:
            store.tag(image.id, f"tagged{dice.randrange(3)}")
    elif kind == "rmi":
        found = store.images()
        if found:
            store.remove_image(dice.choice(found).id, force=dice.random() < 0.5)
    elif boxes:
        box = dice.choice(boxes)
        if kind == "remove":
            box.remove(force=dice.random() < 0.5, volumes=dice.random() < 0.5)
        elif kind == "attach":
            place, name = f"/v{dice.random()}", dice.choice([None, "shared", f"own{dice.randrange(3)}"])
            store.volumes.attach(box, [Attachment("/etc", name), Attachment(place)])
        elif kind == "mount":
            with box.mount() as root:
                (root / f"file{dice.randrange(5)}").write_text(box.id)
                if dice.random() < 0.5:
                    box.commit()
        elif kind == "launch":
            launch(store, box, dice)
        elif kind in ("checkpoint", "rollback", "fork"):
            branch(kind, box, dice)
        elif kind == "commit":
            image = box.commit(f"made{dice.randrange(4)}", instructions=[f"LABEL n={dice.random()}"])
            with image.mount() as root:
                assert all(path.read_bytes() is not None for path in root.iterdir() if path.is_file())


def launch(store: layerstore.Store, box: layerstore.Container, dice: random.Random) -> None:
    """Run a program that writes in it for a moment, and wait for it or not."""
    place = store.config.exec_root / "place"
    place.mkdir(parents=True, exist_ok=True)
    line = f"echo {box.id} >{place}/file{dice.randrange(5)}; exec sleep 0.0{dice.randrange(5)}"
    process = box.launch(["sh", "-c", line], root=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if dice.random() < 0.7:
        assert process.wait() in (0, -9)  # removed by force


def branch(kind: str, box: layerstore.Container, dice: random.Random) -> None:
    """Go on from what a container is, or was."""
    points = box.checkpoints()
    if kind == "checkpoint" or not points:
        with box.mount() as root:
            (root / f"file{dice.randrange(5)}").write_text(box.id)
            box.checkpoint()
    elif kind == "rollback":
        point = dice.choice(points)
        with box.mount() as root:
            box.rollback(point)
            os.listdir(root)
        if dice.random() < 0.5:
            point.remove()
    else:
        for made in box.fork(2):
            assert list(made.changes()) is not None


def tried(store: layerstore.Store, dice: random.Random, sources: list[Path]) -> None:
    """A step, which may meet what others have done meanwhile."""
    try:
        step(store, dice, sources)
    except (layerstore.NotFound, layerstore.InUse, layerstore.NameInUse):
        pass
    except layerstore.ConfigError as error:
        if "duplicate mount point" not in error.message:
            raise
    except layerstore.KernelError as error:
        if error.errno != errno.EBUSY:  # somebody is in it
            raise


def main() -> None:
    data_root, seed, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dice = random.Random(seed)
    sources = sorted(data_root.parent.glob("image*.tar"))
    with layerstore.open(config=settings(data_root)) as store:
        for _ in range(rounds):
            tried(store, dice, sources)


if __name__ == "__main__":
    main()
