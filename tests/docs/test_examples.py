"""Every example of the README and of docs/ runs, and prints what it says.

In a page, ```python blocks are one program; ```console blocks are commands and their output, where … stands for
anything. Blocks with `file=NAME` are files. The paths of a real host are replaced by those of a folder of the test, and
the ports at which a page serves by ports that nobody has.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import click
import pytest
from attrs import frozen
from tools import interface

import layerstore
import layerstore.aio
from layerstore import config as settings
from layerstore.build.cache import Cache, prune
from layerstore.cli import words
from layerstore.cli.front import front
from layerstore.runtime import Runtime
from support import images, postgres, programs

pytestmark = pytest.mark.root

PROJECT = Path(__file__).parent.parent.parent
PATIENCE = 300
"""Seconds that a command of a page may take. One waits for what another prints, and would for ever if that fails."""
PLAIN = {
    "README.md": (),
    "docs/serve.md": ("skopeo",),
    "docs/podman.md": ("podman",),
    "docs/fs.md": (),
    "docs/repair.md": (),
    "docs/registries.md": (),
    "docs/lazy.md": (),
}
"""Pages whose commands are run, and what they need."""
ATTACHED = "docs/attach.md"
RUNNING = ("docs/run.md", "docs/branching.md", "docs/build.md", "docs/aio.md", "docs/commands.md")
"""Pages of containers that run."""
ROOTLESS = "docs/rootless.md"
"""It is run by an ordinary user, in rootless/test_page.py."""
_BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@frozen
class Block:
    """One fenced block of a page."""

    language: str
    file: str | None
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    text = (PROJECT / page).read_text()
    return [
        Block(match[1], match[2], match[3], text.count("\n", 0, match.start()) + 2) for match in _BLOCK.finditer(text)
    ]


@pytest.fixture
def place(backing: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `debian.tar`, and a host without settings but for where things lie."""
    folder = backing("ext4")
    base = images.layer(
        images.folder("etc"),
        images.file("etc/os-release", 'NAME="Debian"\n'),
        images.folder("usr"),
        images.folder("usr/bin"),
        images.file("usr/bin/true", b"\x7fELF", mode=0o755),
    )
    images.docker_archive(
        folder / "debian.tar", [base, images.layer(images.file("etc/issue", "hi"))], ["debian:latest"]
    )
    file = folder / "daemon.json"
    file.write_text(f'{{"data-root": "{folder}/store", "exec-root": "{folder}/run"}}')
    monkeypatch.setattr(settings, "DEFAULT_FILE", file)
    monkeypatch.chdir(folder)
    return folder


def here(text: str, place: Path) -> str:
    """`text` with the folders of a host replaced."""
    return text.replace("/var/lib/layerstore", f"{place}/store").replace("/var/lib/copies", f"{place}/copies")


def run_python(page: str, place: Path) -> None:
    program: dict[str, object] = {"__name__": "__example__"}
    for block in blocks(page):
        if block.language == "python" and block.file is None:
            # Blank lines before it, so that an error names the line of the page.
            code = compile("\n" * (block.line - 1) + here(block.text, place), page, "exec", dont_inherit=True)
            exec(code, program)


def run_commands(page: str, place: Path) -> None:
    programs = place / "bin"
    programs.mkdir()
    command = programs / "layerstore"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m layerstore.cli --config "{place}/daemon.json" "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    texts = with_free_ports([block.text for block in blocks(page) if block.language == "console"])
    with ending() as begun:
        for step in (step for text in texts for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]):
            line, _, expected = step.partition("\n")
            if " & " in line:  # what goes on has a process group by which it is known
                begun.append(subprocess.Popen(line, shell=True, env=environment, start_new_session=True))
                assert begun[-1].wait(PATIENCE) == 0, f"$ {line}"
                continue
            done = subprocess.run(
                line, shell=True, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
            )
            assert done.returncode == 0, f"$ {line}\n{done.stderr}"
            pattern = re.escape(expected.rstrip("\n")).replace("…", ".*")
            assert re.fullmatch(pattern, done.stdout.rstrip("\n"), re.DOTALL), f"$ {line}\n{done.stdout}"


def with_free_ports(texts: list[str]) -> list[str]:
    """What a page says, with other ports where it serves: those that it names may be somebody's on this machine."""
    ports = sorted({port for text in texts for port in re.findall(r"serve --address 127\.0\.0\.1:(\d+)", text)})
    held = [socket.create_server(("127.0.0.1", 0)) for _ in ports]
    for port, free in zip(ports, held, strict=True):
        number = str(free.getsockname()[1])
        texts = [text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{number}") for text in texts]
        free.close()
    return texts


@contextmanager
def ending() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Afterwards all has ended that these shells, each with a process group of its own, have left behind: by itself, if
    the page came to its end, which tells it to."""
    shells: list[subprocess.Popen[bytes]] = []
    try:
        yield shells
        deadline = time.monotonic() + PATIENCE
        while any(members(shell.pid) for shell in shells):
            assert time.monotonic() < deadline, "a program goes on that the page has begun"
            time.sleep(0.01)
    finally:
        for process in [process for shell in shells for process in members(shell.pid)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def members(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, its_group = os.fsdecode((place / "stat").read_bytes()).rpartition(") ")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(int(place.name))
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md", "docs/serve.md", "docs/containerd.md", "docs/fs.md"])
def test_python_examples_run(page: str, place: Path) -> None:
    run_python(page, place)


@pytest.mark.tools("crun", "conmon")
def test_examples_in_docstrings_run(place: Path) -> None:
    """Each indented piece of what a public name says; `box` is a container, and `store` is open."""
    programs.archive(place / "debian.tar")
    said = {name: import_module(name).__doc__ for name in interface.MODULES if name != "layerstore.driver"}
    said |= {one.name: (one.function or one.thing).__doc__ for one in interface.members()}
    found = {name: example for name, text in said.items() for example in examples_in(text or "")}
    assert found.keys() >= {"layerstore", "layerstore.aio", "layerstore.Store.browse", "layerstore.Container.fork"}
    with layerstore.open(config=place / "daemon.json") as store:
        store.load("debian.tar")
        store.tag("debian", "debian:12")
        for name, example in found.items():
            with store.create_container("debian", name="box") as box:
                (box.mount().path / "etc/os-release").write_text("NAME=Debian\n")
                box.commit("debian:12")
            known = {"layerstore": layerstore, "aio": layerstore.aio, "store": store, "box": box}
            code = compile(here(example, place), name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            waiting = eval(code, known)
            if waiting is not None:
                asyncio.run(waiting)
            for made in store.containers():
                made.remove(force=True)


def examples_in(text: str) -> list[str]:
    """The pieces of a docstring that are set in by four more than the rest."""
    pieces = re.findall(r"(?m)(?:^ {4}\S.*\n(?:(?: {4}.*)?\n)*)", inspect.cleandoc(text) + "\n")
    return [textwrap.dedent(piece) for piece in pieces if "(" in piece and ": " not in piece.partition("\n")[0]]


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.tools(*tools)) for page, tools in PLAIN.items()])
def test_commands_of_pages_print_what_they_say(page: str, place: Path) -> None:
    run_commands(page, place)


@pytest.mark.tools("skopeo")
def test_examples_of_the_page_on_attached_stores_run(place: Path) -> None:
    run_commands(ATTACHED, place)
    run_python(ATTACHED, place)


def test_settings_of_the_readme_are_right(tmp_path: Path) -> None:
    [block] = [block for block in blocks("README.md") if block.language == "json"]
    file = tmp_path / "daemon.json"
    file.write_text(block.text)
    config = settings.load(file)
    assert config.storage_driver == "overlay2"
    from layerstore_overlay2 import Settings

    assert settings.driver_options(config, "overlay2", Settings).metacopy


def test_settings_of_the_page_on_fleets_are_right(tmp_path: Path) -> None:
    from layerstore.registry.remotes.remote import Address

    [block] = [block for block in blocks("docs/fleet.md") if block.language == "json"]
    file = tmp_path / "daemon.json"
    file.write_text(block.text)
    config = settings.load(file)
    assert [Address.parse(text).scheme for text in config.remotes] == ["http", "http", "s3"]
    assert config.push_through


def test_the_driver_of_the_guide_for_drivers_works(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As pip would install it: the module, and metadata that has the entry point.
    packages = place / "packages"
    metadata = packages / "layerstore_copies-1.0.dist-info"
    metadata.mkdir(parents=True)
    files = {block.file: block.text for block in blocks("docs/drivers.md") if block.file}
    for name in ("layerstore_copies.py", "layerstore_reflinks.py"):
        (packages / name).write_text(files[name])
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: layerstore-copies\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[layerstore.drivers]\ncopies = layerstore_copies:Copies\nreflinks = layerstore_reflinks:Reflinks\n"
    )
    monkeypatch.syspath_prepend(packages)

    exec(compile(here(files["use.py"], place), "docs/drivers.md", "exec", dont_inherit=True), {})

    with layerstore.open(place / "second") as other:
        [loaded] = other.load(place / "motd.tar")
        assert loaded.tags == ("debian:motd",)

    opts = ["reflinks.share=false"]  # on ext4 they cannot be shared anyway
    with layerstore.open(place / "third", storage_driver="reflinks", storage_opts=opts) as store:
        [image] = store.load("motd.tar")
        box = store.create_container(image)
        with box.mount() as root:
            file = root / "etc/issue"
            facts = file.stat()
            file.write_text("by")  # as long as it was, and by the same time
            os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        notes = list((place / "third/reflinks").glob("*/copied"))
        assert notes
        assert all(note.stat().st_size for note in notes)
        assert list(map(str, box.changes())) == ["C /etc", "C /etc/issue"]
        box.commit("debian:by")
        assert not store.check(content=True)


@pytest.mark.tools("crun", "conmon")
@pytest.mark.parametrize("page", RUNNING)
def test_examples_of_the_pages_on_containers_that_run(page: str, place: Path) -> None:
    programs.archive(place / "debian.tar")
    try:
        run_python(page, place)
        run_commands(page, place)
    finally:
        with layerstore.open(config=place / "daemon.json") as store:
            runtime = Runtime(store)
            prune(Cache(store))
            for box in store.containers():
                runtime.remove(box, force=True)


def test_each_command_has_an_example_that_is_run() -> None:
    pages = [*PLAIN, ATTACHED, *RUNNING, ROOTLESS]
    lines = [block.text for page in pages for block in blocks(page) if block.language == "console"]
    shown = "\n".join(lines).replace("\n", " \n")
    lost = [
        name
        for name in sorted({words.canonical(path) for path in commands(front, click.Context(front))})
        if not re.search(rf"\blayerstore (-\S+ (?!{name} )\S+ )*((image|container) )?{name} ", shown)
    ]
    assert not lost, "docs/commands.md is the page for commands that no other page shows"


def commands(group: click.Group, ctx: click.Context, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command."""
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from commands(command, click.Context(command, parent=ctx, info_name=name), (*above, name))
        else:
            yield *above, name


@pytest.mark.tools("pg_ctlcluster", "psql")
def test_the_examples_of_the_page_on_tests_pass(tmp_path: Path) -> None:
    postgres.archive(tmp_path / "postgres.tar")
    for block in blocks("docs/testing.md"):
        if block.file:
            (tmp_path / block.file).write_text(block.text)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "19 passed" in done.stdout


def test_links_between_the_pages_lead_somewhere() -> None:
    pages = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("benchmarks/*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
