"""What is public: each name says what it is, what it may raise and in which unit, and speaks of public types alone."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest
from tools import interface

import layerstore
from api import user
from layerstore.database.schema import VERSION
from layerstore.errors import LayerstoreError
from support.properties import NIGHTLY

PROJECT = Path(__file__).parent.parent.parent

UNITS = {
    "age": ("second",),
    "created": ("ns since", "nanosecond", "when", "made"),
    "interval": ("second",),
    "latest": ("ns since", "source_date_epoch"),
    "memory": ("byte",),
    "mtime_ns": ("nanosecond",),
    "rate": ("bytes a second",),
    "since": ("nanosecond", "image"),
    "size": ("byte", "written in it", "may be written", "too large"),
    "timeout": ("second",),
    "until": ("nanosecond",),
}
"""What an argument or property is measured in, by its name: one of these words is in what is said of it."""


@pytest.fixture(scope="module")
def members() -> list[interface.Member]:
    return list(interface.members())


def test_each_public_name_says_what_it_is(members: list[interface.Member]) -> None:
    assert len(members) > 400
    silent = [one.name for one in members if not (one.function or one.thing).__doc__]
    assert silent == []


def test_signatures_speak_of_public_types_alone(members: list[interface.Member]) -> None:
    public = [thing for _, _, thing in interface.names()]
    leaks = []
    for one in members:
        for what, text, module in interface.types_in(one.function or one.thing):
            for name in interface.mentioned(text):
                meant = interface.meaning(name, module)
                home = interface.imports(module).get(name, (module.__name__, name))[0]
                is_ours = home.startswith("layerstore") and not hasattr(builtins, name)
                if is_ours and not isinstance(meant, TypeVar | ModuleType) and not is_among(meant, public):
                    leaks.append(f"{one.name}: {what} is a {home}.{name}")
    assert leaks == []


def is_among(meant: object, public: list[object]) -> bool:
    """Is it one of these, or, if it is no class but a shape of such, equal to one?"""
    shaped = [] if isinstance(meant, type) else [one for one in public if type(one) is type(meant)]
    return any(meant is one for one in public) or meant in shaped


def test_what_is_raised_is_public(members: list[interface.Member]) -> None:
    known = {name for _, name, _ in interface.names()} | vars(builtins).keys()
    known |= {"subprocess.TimeoutExpired", "subprocess.CalledProcessError"}
    for one in members:
        for name in raised(one.function or one.thing):
            assert name in known, f"{one.name} raises {name}, which is not public"


def test_what_is_raised_is_said(members: list[interface.Member]) -> None:
    """What a public function raises itself is in its docstring; what may be raised anywhere is in docs/promises.md."""
    anywhere = {"KernelError", "LayerstoreError", "StoreClosed"}
    assert all(f"`{name}`" in (PROJECT / "docs" / "promises.md").read_text() for name in anywhere)
    errors = {name for _, name, thing in interface.names() if isinstance(thing, type) and issubclass(thing, Exception)}
    unsaid = []
    for one in members:
        if one.function is not None and not isinstance(one.thing, property):
            own = raises(one.function) & errors - anywhere
            unsaid += [f"{one.name} raises {name}" for name in own if f"`{name}`" not in (one.function.__doc__ or "")]
    assert unsaid == []


def raises(function: Callable[..., object]) -> set[str]:
    """The classes of the errors that a function itself raises."""
    nodes = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))
    calls = [node.exc for node in nodes if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    return {call.func.id for call in calls if isinstance(call.func, ast.Name)}


def raised(thing: object) -> Iterator[str]:
    """The names that a docstring has after `Raises`, to the end of that sentence."""
    for sentence in re.findall(r"[Rr]aises ((?:`[\w.]+`|[^`.])*?)(?:\.(?:\s|$)|$)", thing.__doc__ or ""):
        for name in re.findall(r"`([\w.]+)`", sentence):
            if re.fullmatch(r"(subprocess\.)?[A-Z]\w+", name):
                yield name


def test_every_error_is_public_and_says_what_it_means() -> None:
    def below(kind: type) -> Iterator[type]:
        for one in kind.__subclasses__():
            yield one
            yield from below(one)

    errors = {kind for kind in below(LayerstoreError) if kind.__module__ == "layerstore.errors"}
    assert {kind.__name__ for kind in errors if not kind.__name__.startswith("_")} <= set(layerstore.__all__)
    assert all(kind.__doc__ for kind in errors)


def test_numbers_have_their_unit(members: list[interface.Member]) -> None:
    unsaid = []
    for one in members:
        if one.function is None:
            continue
        said = " ".join((one.function.__doc__ or "").lower().split())
        own = one.name.rpartition(".")[2]
        for what, text, _ in interface.types_in(one.function):
            name = own if what == "return" and own in UNITS else what
            if name in UNITS and re.search(r"\b(int|float)\b", text) and not any(word in said for word in UNITS[name]):
                unsaid.append(f"{one.name}: {name}")
    assert unsaid == []


USER = PROJECT / "tests" / "api" / "user.py"


@pytest.mark.root
def test_a_program_of_somebody_else_runs(backing: Callable[[str], Path]) -> None:
    """The one that mypy checks with all else (`make lint`), and by night against what is installed."""
    folder = backing("ext4")
    config = layerstore.Config(data_root=folder / "store", exec_root=folder / "run")
    assert user.main(config) == (["C /hello"], "goodbye\n")


@pytest.mark.skipif(not NIGHTLY, reason="by night: a wheel is built, and mypy reads all of it")
def test_types_are_installed_with_the_library(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, PROJECT]
    subprocess.run(build, check=True)
    [wheel] = tmp_path.glob("layerstore-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    [packages] = (tmp_path / "venv/lib").glob("python*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", packages, wheel]
    subprocess.run(pip, check=True)
    [ours] = [path for path in sys.path if path.endswith("site-packages")][:1]
    (packages / "others.pth").write_text(f"{ours}\n")
    (tmp_path / "user.py").write_text(USER.read_text())
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", tmp_path / "venv/bin/python", "user.py"]
    done = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_is_promised_is_said_of_what_there_is() -> None:
    page = (PROJECT / "docs" / "promises.md").read_text()
    table = page.partition("| module | what |")[2].partition("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines()[2:]]
    modules = {name for cell in first for name in re.findall(r"`([\w.]+)`", cell) if name[0] in "l."}
    named = {f"layerstore{name}" if name.startswith(".") else name for name in modules}
    assert named - {"layerstore.testing"} == set(interface.MODULES)
    assert f"the schema is at version {VERSION}." in page
    warned = [
        path for path in (PROJECT / "src").rglob("*.py") if re.search(r"warn\(.*DeprecationWarning", path.read_text())
    ]
    assert ("Today nothing is deprecated." in page) == (not warned)
