"""The driver of docs/drivers.md, as an outsider has it: a package of its own, in an environment of its own."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from support.properties import NIGHTLY

pytestmark = pytest.mark.root

PROJECT = Path(__file__).parent.parent.parent
EXAMPLE = PROJECT / "docs" / "examples" / "layerstore-copies"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment that has the example installed, and sees what this one has."""
    folder = tmp_path_factory.mktemp("outsider")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    [packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    seen = [path for path in map(os.path.abspath, sys.path) if os.path.isdir(path) and path != str(PROJECT / "tests")]
    (packages / "ours.pth").write_text("\n".join(seen) + "\n")
    shutil.copytree(EXAMPLE, folder / "example")
    subprocess.run(
        [python, "-m", "pip", "-qq", "install", "--no-build-isolation", "--no-deps", "--no-index", folder / "example"],
        env=_environment(),
        check=True,
    )
    # Not from its sources: what is installed is what is tested.
    (folder / "example" / "layerstore_copies.py").unlink()
    return folder


def _environment() -> dict[str, str]:
    mine = {"PYTHONPATH", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"}
    settings = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    return {name: value for name, value in os.environ.items() if name not in mine} | settings


def test_it_is_found_by_its_entry_point(environment: Path) -> None:
    code = (
        "from layerstore import plugins\n"
        "driver = plugins.find('copies')\n"
        "import sys; print(sys.modules[driver.__module__].__file__)\n"
    )
    done = subprocess.run(
        [environment / "venv/bin/python", "-c", code],
        cwd=environment,
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(str(environment / "venv")), "the installed one"


def test_it_passes_the_kit(environment: Path) -> None:
    """By day without the longest, which the kit finds in our own drivers: work that is broken off, and 128 layers."""
    chosen = [] if NIGHTLY else ["-k", "not a_call_that_fails and not a_death_leaves and not many_layers_are_one_tree"]
    done = subprocess.run(
        [environment / "venv/bin/python", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *chosen],
        cwd=environment / "example",
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 80, "all of it"
    assert "failed" not in done.stdout
    # Nothing was left out but what the driver says that it cannot.
    skipped = re.findall(r"^SKIPPED .*?: (.*)$", done.stdout, re.MULTILINE)
    assert {*skipped} == {
        "it cannot limit a container's size here",
        "it has no limit",
        "it leaves that to the base class, which walks the tree",
        "its layers depend on their parents",
        "it leaves segments to the core",
        "no mount of it has a work directory",
        "nothing of the kind can be made there",
    }


def test_it_is_short() -> None:
    text = (EXAMPLE / "layerstore_copies.py").read_text()
    assert len(code_lines(text)) <= 55


def code_lines(text: str) -> set[int]:
    """The lines that hold more than comments and docstrings."""
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    begins = True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_docstring = token.type == tokenize.STRING and begins
        if token.type not in nothing and not is_docstring:
            lines.update(range(token.start[0], token.end[0] + 1))
        begins = token.type in nothing or is_docstring
    return lines


def test_the_page_shows_the_driver_as_it_is() -> None:
    page = (PROJECT / "docs" / "drivers.md").read_text()
    for name in ("layerstore_copies.py", "pyproject.toml", "test_copies.py"):
        assert (EXAMPLE / name).read_text() in page, f"{name} in docs/drivers.md is another"
