"""The whole life of an image, on real Debian packages. Read the output: it tells what layers are.

Everything lies in a temporary folder and is gone at the end. It needs root, because it mounts filesystems.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import layerstore
from demo.dockerfile import life_cycle
from demo.packages import Fetched, fetch
from demo.place import folder
from demo.show import Shell, code, heading, output, say
from layerstore.testing.trees import FACTS, differences, disk_usage, listing

LAYERS = "demo:git"
SLIM = "demo:slim"


FILESYSTEMS = {"btrfs": "btrfs"}
"""Drivers whose stores need one of their own."""


def main(driver: str) -> None:
    """The life cycle of an image by this driver; and by overlay2, what its layers are."""
    groups = fetch()
    with folder(FILESYSTEMS.get(driver)) as place:
        shell = Shell(place, Path(sys.executable).parent)
        settle(shell, driver)
        life_cycle(shell, groups[:3])
    if driver == "overlay2":
        with folder() as place:
            show_layers(Shell(place, Path(sys.executable).parent), groups)
    say("The stores are gone, and nothing stays mounted. The packages are kept for the next time.")


def show_layers(shell: Shell, groups: Sequence[Fetched]) -> None:
    """What layers are, one after another, in overlay2's folders."""
    settle(shell)
    build_first(shell, groups[0])
    with layerstore.open(config=shell.folder / "daemon.json") as store:
        build_rest(store, groups)
        remove_documentation(store, shell)
        look(store, shell)
        with second_store(shell.folder) as other:
            move(store, other, shell)
            load_again(other, shell)
        change(store, shell)
        refuse(shell)
        run_programs(shell)
        branch(store)
    heading("Is everything still there, and whole?")
    say(
        """
        check compares what the database says with what lies on the disk. It prints nothing when all is
        well; with --content it also reads every file, and makes every layer's tar again to compare the
        digest.
        """
    )
    shell.run("layerstore check --content")
    shell.run("layerstore info")


def settle(shell: Shell, driver: str = "overlay2") -> None:
    """The daemon.json, and `layerstore` for the store that it says."""
    heading("A store, chosen by daemon.json")
    say(
        """
        layerstore reads the same daemon.json as dockerd: where data lies, and which storage driver keeps it. It
        has no daemon; each command, and each Python program, works on the store directly.
        """
    )
    settings = {
        "data-root": str(shell.folder / "store"),
        "exec-root": str(shell.folder / "run"),
        "storage-driver": driver,
    }
    (shell.folder / "daemon.json").write_text(json.dumps(settings, indent=4) + "\n")
    shell.run("cat daemon.json")
    # From here on, `layerstore` stands for this, so that the commands can be read.
    programs = shell.folder / "bin"
    programs.mkdir()
    script = programs / "layerstore"
    script.write_text(
        f'#!/bin/sh\nexec "{shutil.which("layerstore", path=shell.environment["PATH"])}" '
        f'--config "{shell.folder}/daemon.json" "$@"\n'
    )
    script.chmod(0o755)
    shell.environment["PATH"] = f"{programs}:{shell.environment['PATH']}"
    say(f"In what follows, layerstore stands for: layerstore --config {shell.folder}/daemon.json")


def build_first(shell: Shell, group: Fetched) -> None:
    """The bottom layer, by command line."""
    heading("The first layer: a container from nothing")
    say(
        """
        A container is a writable layer. This one stands on no image, so it is empty. It is mounted, filled with
        a root filesystem of real packages, unmounted and committed: that freezes what was written into a read-
        only layer, and makes an image of it.
        """
    )
    shell.run("layerstore create --name base")
    [root] = shell.run("layerstore mount base")
    say(f"{len(group.files)} packages ({megabytes(group.size)} to download) are unpacked into it, as with:")
    output([f"$ dpkg-deb --extract {group.files[0].name} {root}"])
    extract(group, Path(root))
    shell.run("layerstore diff base", most=6)
    shell.run("layerstore umount base")
    shell.run(f"layerstore commit -m '{description(group)}' base demo:base")
    shell.run("layerstore rm base")


def build_rest(store: layerstore.Store, groups: Sequence[Fetched]) -> None:
    """A layer on the last for each group, with the library."""
    heading("Layers on layers, from Python")
    say(
        """
        The next layers are made by the library, which is what the commands use too. Each container stands on
        the image before, sees all of it, and keeps only what it adds itself.
        """
    )
    code("""
        with store.create_container("demo:base") as box:
            with box.mount() as root:                       # pathlib.Path of the merged tree
                extract(packages, root)
            image = box.commit("demo:zones", message=...)   # what was written is now a layer
            box.remove()
    """)
    rows = []
    for below, group in pairwise(groups):
        with store.create_container(f"demo:{below.name}") as box:
            with box.mount() as root:
                extract(group, root)
            changed = len(box.changes())
            image = box.commit(f"demo:{group.name}", message=description(group))
            box.remove()
        rows.append(
            f"demo:{group.name:8} {len(image.layers)} layers   + {changed:5,} paths   the image in all: "
            f"{megabytes(image.size):>7}   {image.short_id}"
        )
    output(rows)


def remove_documentation(store: layerstore.Store, shell: Shell) -> None:
    """A layer that only removes."""
    heading("A layer that removes: whiteouts")
    say(
        """
        Layers are never changed. To remove a file of a lower layer, a layer marks it as gone. In the overlay2
        driver such a whiteout is a character device 0/0 with the name of what is hidden; in a layer's tar it is
        an empty file .wh.NAME.
        """
    )
    with store.create_container(LAYERS, name="slim") as box:
        with box.mount() as root:
            for name in ("doc", "man", "locale"):
                shutil.rmtree(root / "usr/share" / name)
        shell.run("layerstore diff slim")
        upper = box.inspect()["GraphDriver"]["Data"]["UpperDir"]
        shell.run(f"ls -l {upper}/usr/share")
        slim = box.commit(SLIM, message="without documentation")
        box.remove()
    with slim.mount() as root:
        say(
            f"""
            Seen through the stack, they are gone; {megabytes(slim.size)} of layers are there all the same, for
            the lower layers still hold them. And it is a system that runs:
            """
        )
        shell.run(f"chroot {root} /usr/bin/python3 -c 'import sys; print(\"Python\", sys.version)'")
        shell.run(f"chroot {root} /bin/bash --version", most=1)


def look(store: layerstore.Store, shell: Shell) -> None:
    """images, history, inspect."""
    heading("What is there now")
    shell.run("layerstore images")
    say(
        """
        The images share layers: each is one more on the last. The history tells where each came from, and in which
        folder it lies: as many lines with files, so many folders.
        """
    )
    shell.run(f"layerstore history --layers {SLIM}")
    say(
        """
        inspect shows docker's JSON. For the four directories of an overlay mount, take a container on the
        image: LowerDir are the layers, topmost first; UpperDir takes the writes; WorkDir is the kernel's
        scratch; MergedDir is where the whole can be seen.
        """
    )
    shell.run(f"layerstore create --name web {SLIM}")
    data = json.loads("\n".join(shell.run("layerstore inspect web", quiet=True)))[0]["GraphDriver"]["Data"]
    output(["$ layerstore inspect web      (GraphDriver.Data)"])
    for name in ("LowerDir", "UpperDir", "WorkDir", "MergedDir"):
        output([f"{name}:", *(f"  {path}" for path in data[name].split(":"))])
    say(f"The same as JSON for programs; {len(store.image(SLIM).layers)} layers, known by the digests of their tars:")
    shell.run(f"layerstore inspect --format '{{{{json .RootFS.Layers}}}}' {SLIM}")


def move(store: layerstore.Store, other: layerstore.Store, shell: Shell) -> None:
    """save, load elsewhere, compare."""
    heading("Out, and into another store")
    say(
        """
        save writes an archive that docker, podman, skopeo and umoci read. Its layers' tars are rebuilt from the
        stored files, bit for bit, so the digests are those of before. Here are both forms, loaded into a second
        store.
        """
    )
    shell.run(f"layerstore save {SLIM} -o slim.tar")
    shell.run(f"layerstore save {SLIM} --format oci -o slim-oci.tar")
    shell.run("ls -l --block-size=M slim.tar slim-oci.tar")
    for archive in ("slim.tar", "slim-oci.tar"):
        shell.run(f"layerstore --root second load -i {archive}")
    ours, theirs = store.image(SLIM), other.image(SLIM)
    if (ours.id, ours.layers) != (theirs.id, theirs.layers):
        raise SystemExit("the image is another after the journey")
    output([f"{ours.id}  the image", *(f"{diff_id}  layer {number}" for number, diff_id in enumerate(ours.layers, 1))])
    say("Digest by digest: equal. Now file by file, both images mounted read-only:")
    with ours.mount() as here, theirs.mount() as there:
        expected, actual = listing(here), listing(there)
    found = differences(expected, actual)
    if found:
        raise SystemExit("\n".join(["the trees differ:", *found[:20]]))
    types = [entry.type for entry in expected.values()]
    counts = ", ".join(f"{types.count(kind):,} {kind}s" for kind in sorted(set(types), key=types.count, reverse=True))
    say(f"{len(expected):,} paths ({counts}): equal in {', '.join(FACTS)}.")


def load_again(other: layerstore.Store, shell: Shell) -> None:
    """Dedup."""
    heading("The same again: nothing new on disk")
    say("Equal content is kept once. Loading what is there already, in whichever form, adds not a byte:")

    def count() -> str:
        home = other.data_root / "overlay2"
        folders = [entry for entry in home.iterdir() if (entry / "diff").is_dir()]
        return f"{len(folders)} layers, {megabytes(disk_usage(other.data_root))} on disk"

    before = count()
    shell.run("layerstore --root second load -i slim.tar")
    after = count()
    output([f"before: {before}", f"after:  {after}"])
    if before != after:
        raise SystemExit("loading the same image again left something behind")


def change(store: layerstore.Store, shell: Shell) -> None:
    """Copy-on-write, and commit."""
    heading("Change a container: copy-on-write")
    say(
        """
        The container web was made above. Its files are those of the image until it writes: then, and only then,
        the file is copied up into its own layer. The image, and every other container on it, stay as they are.
        """
    )
    [root] = shell.run("layerstore mount web")
    tree = Path(root)
    with (tree / "etc/debian_version").open("a") as file:
        file.write("changed in a container\n")
    (tree / "srv/www").mkdir(parents=True, exist_ok=True)
    (tree / "srv/www/index.html").write_text("<h1>hello from a layer</h1>\n")
    (tree / "usr/bin/python3").unlink()
    shell.run("layerstore diff web")
    box = store.container("web")
    usage = box.usage()
    say(
        f"""
        The image has {megabytes(store.image(SLIM).size)}; the container's own layer has {usage.size >> 10} KiB
        in {usage.inodes} inodes. In the image, python3 is still there:
        """
    )
    with store.image(SLIM).mount() as image_root:
        shell.run(f"ls -l {image_root}/usr/bin/python3")
    shell.run("layerstore umount web")
    shell.run("layerstore commit -m 'a page, and no python3' -c 'CMD [\"/bin/bash\"]' web demo:web")
    shell.run("layerstore history demo:web")
    shell.run("layerstore ps --all")


def refuse(shell: Shell) -> None:
    """What is in use."""
    heading("What is in use cannot be removed")
    say("The container web stands on these layers. So the image goes only after it; the error says so:")
    shell.run("layerstore rmi demo:web", fails=True)
    shell.run("layerstore rm web")
    shell.run("layerstore rmi demo:web")


def run_programs(shell: Shell) -> None:
    """run, exec, and what stays of them."""
    heading("A program in a container")
    say(
        """
        run makes a container and runs a program in it, by an OCI runtime of this machine: it sees its own
        processes alone, and its own filesystem. Here it counts the processes that it sees.
        """
    )
    count = 'import os; print(sum(name.isdigit() for name in os.listdir("/proc")), "process")'
    shell.run(f"layerstore run --rm {SLIM} /usr/bin/python3 -c '{count}'")
    say("Another stays, and keeps something in a volume, which is a folder that outlives containers:")
    line = "echo kept > /data/file; echo written > /etc/motd; echo I run; sleep 1000"
    shell.run(f"layerstore run -d --name server -v kept:/data {SLIM} /bin/bash -c '{line}'")
    shell.run("layerstore ps")
    shell.run("layerstore exec server /bin/cat /data/file")
    shell.run("layerstore logs server")
    shell.run("layerstore stop -t 0 server")
    say("What it wrote is in its own layer; hosts and resolv.conf, which it was given, are in none:")
    shell.run("layerstore diff server")
    shell.run("layerstore rm server")
    shell.run("layerstore volume rm kept")


def branch(store: layerstore.Store) -> None:
    """checkpoint, rollback, fork."""
    heading("A container that branches")
    say(
        """
        A checkpoint keeps what a container is, in milliseconds and without copying anything; a rollback makes
        it that again; and a fork begins other containers there.
        """
    )
    code("""
        box.checkpoint("clean")
        shutil.rmtree(root / "usr")                         # with all of its packages
        box.rollback("clean")
        left, right = box.fork(2)
    """)
    rows = []

    def timed(what: str, act: Callable[[], object]) -> None:
        start = time.perf_counter()
        act()
        rows.append(f"{what:42} {(time.perf_counter() - start) * 1e3:6.1f} ms")

    with store.create_container(SLIM) as box:
        timed("checkpoint", lambda: box.checkpoint("clean"))
        with box.mount() as root:
            timed("usr removed", lambda: shutil.rmtree(root / "usr"))
        timed("rollback", lambda: box.rollback("clean"))
        if list(box.changes()):
            raise SystemExit("after the rollback something is not as it was")
        forks: list[layerstore.Container] = []
        timed("fork, two containers", lambda: forks.extend(box.fork(2)))
        timed(
            "a program in one of them, without a runtime",
            lambda: forks[0].run(["/bin/true"], isolation="process", check=True),
        )
        for one in forks:
            one.remove()
        box.remove()
    output(rows)


@contextmanager
def second_store(place: Path) -> Iterator[layerstore.Store]:
    """Another store, with the same settings but for its place."""
    settings = layerstore.Config(
        data_root=place / "second", exec_root=place / "run", storage_driver="overlay2", storage_opts=()
    )
    with layerstore.open(config=settings) as store:
        yield store


def extract(group: Fetched, root: Path) -> None:
    """Unpack the packages of a group."""
    for package in group.files:
        subprocess.run(["dpkg-deb", "--extract", package, root], check=True)


def description(group: Fetched) -> str:
    """What `history` will show."""
    names = [file.name.partition("_")[0] for file in group.files]
    return f"{len(names)} packages: {' '.join(names[:4])}{' ...' if len(names) > 4 else ''}"


def megabytes(size: int) -> str:
    """As docker counts."""
    return f"{size / 1e6:.1f} MB"


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("The demo mounts filesystems, which needs root: run `make demo`, or this as root.")
    main(*sys.argv[1:] or ["overlay2"])
