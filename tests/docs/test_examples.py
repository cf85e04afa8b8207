"""Every example of the README and of docs/ runs, and prints what it says.

In a page, ```python blocks are one program; ```console blocks are commands and their output, where … stands for
anything. Blocks with `file=NAME` are files. The paths of a real host are replaced by those of a folder of the test.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

import layerstore
from layerstore import config as settings
from layerstore.build.cache import Cache, prune
from layerstore.runtime import Runtime
from support import images, postgres, programs

pytestmark = pytest.mark.root

PROJECT = Path(__file__).parent.parent.parent
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
    for block in blocks(page):
        if block.language != "console":
            continue
        for step in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            line, _, expected = step.partition("\n")
            done = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"$ {line}\n{done.stderr}"
            pattern = re.escape(expected.rstrip("\n")).replace("…", ".*")
            assert re.fullmatch(pattern, done.stdout.rstrip("\n"), re.DOTALL), f"$ {line}\n{done.stdout}"


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md", "docs/serve.md"])
def test_python_examples_run(page: str, place: Path) -> None:
    run_python(page, place)


def test_commands_of_the_readme_print_what_it_says(place: Path) -> None:
    run_commands("README.md", place)


@pytest.mark.tools("skopeo")
def test_commands_of_the_page_on_serving_print_what_it_says(place: Path) -> None:
    run_commands("docs/serve.md", place)


def test_commands_of_the_page_on_repairs_print_what_it_says(place: Path) -> None:
    run_commands("docs/repair.md", place)


def test_commands_of_the_page_on_registries_print_what_it_says(place: Path) -> None:
    run_commands("docs/registries.md", place)


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
    (packages / "layerstore_copies.py").write_text(files["layerstore_copies.py"])
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: layerstore-copies\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[layerstore.drivers]\ncopies = layerstore_copies:Copies\n")
    monkeypatch.syspath_prepend(packages)

    exec(compile(here(files["use.py"], place), "docs/drivers.md", "exec", dont_inherit=True), {})

    with layerstore.open(place / "second") as other:
        [loaded] = other.load(place / "motd.tar")
        assert loaded.tags == ("debian:motd",)


@pytest.mark.tools("crun", "conmon")
@pytest.mark.parametrize("page", ["docs/run.md", "docs/branching.md", "docs/build.md"])
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
