"""ARCHITECTURE.md is the newcomer's map: its table of rooms is the contract, what it names is there, and each of its
words means one thing."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src/layerstore"
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = PYPROJECT["tool"]["importlinter"]["contracts"]

OTHERS_WORDS = {
    "build/language/instructions.py": {"Volume"},  # the instruction: each class there has the name of one
    "config.py": {"Engine"},  # docker's `runtimes`: the same thing, as daemon.json says it
}
"""Classes that have their names from another language than ours."""

CONTRACTS_OF_ALL_ROOMS = [
    (
        "A driver knows",
        "forbidden_modules",
        {"driver", "indexes", "changes", "kernel", "options", "errors", "values"},
    ),
    (
        "The test kit has",
        "forbidden_modules",
        {"testing", "driver", "trees", "changes", "kernel", "errors", "values"},
    ),
    ("Nothing below the command line", "source_modules", {"cli", "explore", "testing"}),
]
"""How a contract begins, where it lists rooms, and those that it leaves out."""


BEGINNING = re.compile(r'(?:\s|#[^\n]*\n)*(?:"""|/\*)\s*[^\s"*]')
"""Of a source: its first paragraph, behind what is for the machine."""


def rows_of(title: str) -> Iterator[list[str]]:
    """The rows of the table below a title, without its head."""
    section = TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def floors() -> list[set[str]]:
    """The rooms from top to bottom, those on one floor together, as the contract has them."""
    [house] = [one for one in CONTRACTS if one["name"].startswith("The house")]
    return [set(re.findall(r"\w+", floor)) for floor in house["layers"]]


def rooms_in_the_table() -> list[str]:
    return [name for row in rows_of("The house") for name in re.findall(r"`(\w+)(?:/|\.py)`", row[0])]


def test_each_room_is_in_the_table_once() -> None:
    there = {path.stem for path in SOURCES.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}

    assert sorted(rooms_in_the_table()) == sorted(there - {"__init__"})


def test_the_table_goes_from_the_roof_down() -> None:
    floor_of = {room: number for number, floor in enumerate(floors()) for room in floor}

    numbers = [floor_of[room] for room in rooms_in_the_table()]

    assert numbers == sorted(numbers)


def test_each_file_and_folder_that_it_names_is_there() -> None:
    named = set(re.findall(r"`([\w./-]+(?:\.(?:py|c|h|md)|/))`", TEXT)) - {"partial/", "blobs/"}  # of the data-root
    places = (ROOT, SOURCES, ROOT / "tests", *(path for path in SOURCES.rglob("*") if path.is_dir()))

    assert named
    assert not [name for name in sorted(named) if not any((place / name).exists() for place in places)]


def test_each_page_that_it_links_is_there() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", TEXT)

    assert linked
    assert not [name for name in linked if not (ROOT / name).exists()]


def test_each_dependency_is_there_with_its_reason() -> None:
    project = PYPROJECT["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *PYPROJECT["dependency-groups"].values(),
    ]
    texts = [
        text for group in [*groups, PYPROJECT["build-system"]["requires"]] for text in group if isinstance(text, str)
    ]
    needed = {Requirement(text).name for text in texts} - {"layerstore"}
    reasons = {name: row[1] for row in rows_of("Dependencies") for name in re.findall(r"[\w-]+", row[0])}

    assert sorted(name for name in needed if not name.startswith("types-") and not reasons.get(name)) == []


def test_it_can_be_read_in_half_an_hour() -> None:
    """At 250 words a minute."""
    assert len(TEXT.split()) < 30 * 250
    assert len(TEXT.splitlines()) <= 600


def test_no_two_rooms_have_a_class_of_the_same_word() -> None:
    words = {word.strip() for row in rows_of("Words") for word in row[0].split(",")}
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for path in SOURCES.rglob("*.py"):
        place = path.relative_to(SOURCES).as_posix()
        if not place.startswith("testing/"):  # the kit's are named by what they test
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and node.name not in OTHERS_WORDS.get(place, ()):
                    homes[node.name].append(place)
    names = {word[:1].upper() + word[1:] for word in words}
    names |= {f"{name}s" for name in names}

    assert {"Layer", "Layers", "Stack", "Volume"} <= names & homes.keys()
    assert not {name: places for name, places in homes.items() if name in names and len(places) > 1}


@pytest.mark.parametrize(("contract", "rooms", "but"), CONTRACTS_OF_ALL_ROOMS)
def test_what_a_contract_says_of_all_rooms_it_says_of_each(contract: str, rooms: str, but: set[str]) -> None:
    [said] = [one for one in CONTRACTS if one["name"].startswith(contract)]

    assert sorted(said[rooms]) == sorted(f"layerstore.{room}" for room in set().union(*floors()) - but)


def test_each_module_that_it_names_is_there_with_what_is_named_of_it() -> None:
    named = set(re.findall(r"`((?:\w+\.)+\w+)`", TEXT))
    named = {
        name for name in named if name[0].islower() and name.rsplit(".", 1)[1] not in {"py", "c", "h", "json", "md"}
    }

    assert named
    for name in named:
        resolve_name(name if name.startswith("layerstore.") else f"layerstore.{name}")


def test_each_source_says_first_what_it_is_for() -> None:
    files = [path for folder in ("src", "drivers") for path in (ROOT / folder).rglob("*")]
    sources = [path for path in files if path.suffix in (".py", ".c", ".h")]

    assert {"src", "drivers"} <= {path.relative_to(ROOT).parts[0] for path in sources}
    assert [str(path) for path in sources if not BEGINNING.match(path.read_text())] == []
