"""The life cycle of an image, from a Dockerfile to the registry and back, by commands alone."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from demo.packages import Fetched
from demo.show import Shell, heading, output, say

DOCKERFILE = """\
FROM demo/python AS compile
SHELL ["/bin/bash", "-c"]
WORKDIR /app
COPY . .
RUN ["/usr/bin/python3", "-m", "compileall", "-q", "-b", "."]

FROM demo/python
LABEL org.opencontainers.image.title="counter"
ENV COUNT_TO=3
WORKDIR /app
COPY --from=compile /app/counter.pyc .
RUN ["/bin/bash", "-c", "echo built on $(uname -s) > /etc/built"]
EXPOSE 8000
USER daemon
ENTRYPOINT ["/usr/bin/python3", "/app/counter.pyc"]
CMD ["again"]
"""

PROGRAM = """\
import os, sys

for number in range(1, int(os.environ["COUNT_TO"]) + 1):
    print(number, *sys.argv[1:])
"""


def life_cycle(shell: Shell, groups: Sequence[Fetched]) -> None:
    """All of it."""
    base(shell, groups)
    build(shell)
    use(shell)
    with registry(shell) as address:
        travel(shell, address)
    look(shell)
    branch(shell)
    refuse(shell)


def base(shell: Shell, groups: Sequence[Fetched]) -> None:
    """What FROM needs: an image of packages."""
    heading("From a Dockerfile: what it stands on")
    names = ", ".join(group.name for group in groups)
    say(
        f"""
        FROM names an image. This one is the tar of a root filesystem, made of real packages (the groups {names}) and
        imported: one layer.
        """
    )
    with tempfile.TemporaryDirectory(dir=shell.folder) as name:
        root = Path(name)
        for group in groups:
            for package in group.files:
                subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
        for kind in ("passwd", "group"):
            (root / "etc" / kind).write_bytes((root / "usr/share/base-passwd" / f"{kind}.master").read_bytes())
        subprocess.run(["tar", "-C", root, "--numeric-owner", "-cf", shell.folder / "root.tar", "."], check=True)
    shell.run("layerstore import root.tar demo/python")


def build(shell: Shell) -> None:
    """build; what is cached; what a line costs in folders."""
    heading("build")
    app = shell.folder / "app"
    app.mkdir()
    (app / "Dockerfile").write_text(DOCKERFILE)
    (app / ".dockerignore").write_text("Dockerfile\n.dockerignore\n*.log\n")
    (app / "counter.py").write_text(PROGRAM)
    (app / "debug.log").write_text("nobody needs this\n")
    shell.run("cat app/Dockerfile")
    say(
        """
        Two stages: the first compiles, and of it only a file comes into the image. What .dockerignore names is not in
        the context.
        """
    )
    shell.run("layerstore build --progress plain -t counter:1 app")
    say("Again: every step is found by what it is made of, so nothing is executed.")
    start = time.perf_counter()
    shell.run("layerstore build --progress plain -t counter:1 app", most=14)
    output([f"{(time.perf_counter() - start) * 1e3:.0f} ms"])
    say(
        """
        Fifteen lines: are there fifteen folders? Only what changes files has a layer; FROM brings its own, and LABEL,
        ENV, EXPOSE, USER, ENTRYPOINT and CMD are words in the image's config:
        """
    )
    shell.run("layerstore history --layers counter:1")


def use(shell: Shell) -> None:
    """run, change, commit, tag."""
    heading("run, change, commit, tag")
    say("ENTRYPOINT makes the image an executable: what stands after its name are arguments, instead of CMD's.")
    shell.run("layerstore run --rm counter:1")
    shell.run("layerstore run --rm -e COUNT_TO=2 counter:1 times")
    shell.run(
        "layerstore run --name changed --user root --entrypoint /bin/bash counter:1 -c 'echo changed > /etc/built'"
    )
    shell.run("layerstore diff changed")
    shell.run("layerstore commit -m 'another word' changed counter:2")
    shell.run("layerstore tag counter:2 counter:latest")
    shell.run("layerstore images")
    shell.run("layerstore rm changed")


def travel(shell: Shell, address: str) -> None:
    """push, pull, save, load."""
    heading("push and pull, save and load")
    say(f"The second store is served as a registry, on {address}. What is pushed to it is pulled back by a third:")
    shell.run(f"layerstore tag counter:2 {address}/team/counter:2")
    shell.run(f"layerstore push {address}/team/counter:2", most=12)
    shell.run(f"layerstore --root third pull {address}/team/counter:2", most=12)
    shell.run("layerstore save counter:2 -o counter.tar")
    shell.run("layerstore --root fourth load -i counter.tar")
    ids = [
        shell.run(f"layerstore {root} inspect --format '{{{{.Id}}}}' {name}", quiet=True)
        for root, name in (
            ("", "counter:2"),
            ("--root third", f"{address}/team/counter:2"),
            ("--root fourth", "counter:2"),
        )
    ]
    if ids[0] != ids[1] or ids[0] != ids[2]:
        raise SystemExit(f"the image is another after its journeys: {ids}")
    output([f"{ids[0][0]}  in all three stores"])
    shell.run(f"layerstore rmi {address}/team/counter:2")


def look(shell: Shell) -> None:
    """why."""
    heading("Which layer is it from?")
    say("A file is that of the topmost layer that has it. why says which that is, from which line, and what it hides:")
    shell.run("layerstore why counter:2 /etc/built")
    shell.run("layerstore why counter:2 /usr/bin/python3.11")
    shell.run("layerstore advise counter:2", most=16)


def branch(shell: Shell) -> None:
    """checkpoint, rollback."""
    heading("checkpoint and rollback")
    shell.run(
        "layerstore create --name box --user root --entrypoint /bin/bash counter:2 -c 'rm -r /usr/bin; echo gone'"
    )
    shell.run("layerstore checkpoint box whole")
    shell.run("layerstore start --attach box")
    shell.run("layerstore diff box", most=4)
    shell.run("layerstore rollback box whole")
    shell.run("layerstore diff box")


def refuse(shell: Shell) -> None:
    """What is in use stays."""
    heading("It cannot be removed while it is in use")
    shell.run("layerstore rmi counter:latest counter:2", fails=True)
    shell.run("layerstore rm box")
    shell.run("layerstore rmi counter:2")
    shell.run("layerstore check --content")


@contextmanager
def registry(shell: Shell) -> Iterator[str]:
    """The second store, served on this machine; its address."""
    command = ["layerstore", "--root", "second", "serve", "--address", "127.0.0.1:0"]
    with subprocess.Popen(
        command, cwd=shell.folder, env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as served:
        assert served.stdout is not None
        try:
            line = served.stdout.readline()
            port = line.rsplit(":", 1)[-1].split()[0].strip("/.")
            yield f"127.0.0.1:{int(port)}"
        finally:
            served.terminate()
