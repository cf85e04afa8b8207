"""Odd tars in the hands of other tools: where the trees differ, docs/hostile-layers.md says why.

The table of that document is held to what is found here, with the tools that there are; by night many random tars more.
"""

from __future__ import annotations

import io
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks import odd
from attacks.conftest import Opened
from layerstore import InvalidArchive, Store
from layerstore.testing.tars import Kind, archive
from support.properties import NIGHTLY

pytestmark = [pytest.mark.root, pytest.mark.tools("umoci")]

DOCUMENT = Path(__file__).parents[2] / "docs" / "hostile-layers.md"

REFUSED = {
    "a hard link to nothing",
    ".. that leads out",
    "PAX: a record of length 0",
    "PAX: a NUL in the path",
    "a wrong sum",
    "a block of zeros in the middle",
    "a type nobody knows",
    "a link that leads nowhere",
    "cut short within a file",
    "a name of 300 bytes",
}
"""What is refused here."""

ELSEWHERE: dict[str, dict[str, str]] = {
    "a link where a folder with something in it was": {"tar": "refuses", "bsdtar": "refuses"},
    "a file where a folder with something in it was": {"tar": "refuses", "bsdtar": "refuses"},
    "a hard link to a later entry": {"tar": "refuses", "bsdtar": "refuses", "umoci": "refuses"},
    ".. within": {"tar": "refuses", "bsdtar": "refuses"},
    ".. that leads out": {"umoci": "takes"},
    "a file through a link to a folder": {"bsdtar": "refuses"},
    "a file through an absolute link": {"tar": "refuses", "bsdtar": "refuses"},
    "a whiteout, and the name itself": {"tar": "differs", "bsdtar": "differs"},
    "the name itself, and a whiteout": {"tar": "differs", "bsdtar": "differs"},
    "an opaque mark after what it does not hide": {"tar": "differs", "bsdtar": "differs"},
    "PAX: path and linkpath": {"bsdtar": "differs"},
    "PAX: a NUL in the path": {"tar": "takes", "bsdtar": "takes"},
    "PAX, global: path and uid": {"tar": "differs", "umoci": "refuses"},
    "GNU's long name and PAX's path": {"tar": "differs"},
    "a sparse file, old GNU": {"tar": "differs", "umoci": "refuses"},
    "a sparse file, PAX 0.0": {"tar": "differs"},
    "a sparse file, PAX 0.1": {"tar": "differs"},
    "a sparse file, PAX 1.0": {"tar": "differs"},
    "a time after 2446": {"umoci": "differs"},
    "the device 0/0": {"tar": "differs", "bsdtar": "differs", "umoci": "differs"},
    "a block of zeros in the middle": {"tar": "takes", "bsdtar": "takes"},
    "a type nobody knows": {"tar": "takes", "bsdtar": "takes"},
    "a volume's label": {"umoci": "refuses"},
    "a link that leads nowhere": {"bsdtar": "takes"},
    "a file whose name ends in a slash": {"tar": "differs", "bsdtar": "differs"},
}
"""What others do differently: they refuse what is taken here, take what is refused, or make another tree."""

TIMES = ("a time before 1970", "a time after 2446")
"""Of which each filesystem keeps its own."""


@pytest.fixture
def target(limited: Opened) -> Store:
    return limited()


def ours(store: Store, tar: bytes, place: Path) -> odd.Listing | None:
    """What the tar is here, seen as others' trees are: as a copy."""
    try:
        image = store.import_tar(io.BytesIO(tar), "odd")
    except InvalidArchive:
        return None
    place.mkdir()
    with image.mount() as root:
        subprocess.run(["cp", "-a", f"{root}/.", place], check=True)
    return odd.listing(place)


def theirs(unpack: odd.Unpack, tar: bytes, place: Path) -> odd.Listing | None:
    tree = unpack(tar, place)
    return None if tree is None else odd.listing(tree)


def verdict(mine: odd.Listing | None, other: odd.Listing | None) -> str:
    if mine == other:
        return "same"
    if other is None:
        return "refuses"
    return "takes" if mine is None else "differs"


@pytest.fixture
def place(limited: Opened, data_root: Path) -> Iterator[Path]:
    """A folder on the filesystem of the store."""
    folder = data_root.with_name("trees")
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def test_each_odd_thing_is_taken_as_the_document_says(target: Store, place: Path) -> None:
    wrong = []
    tools = odd.present()
    for number, (name, tar) in enumerate(odd.ODD.items()):
        here = place / str(number)
        here.mkdir()
        mine = ours(target, tar, here / "ours")
        if (mine is None) != (name in REFUSED):
            wrong.append(f"{name}: here it is {'refused' if mine is None else 'taken'}")
        for tool, unpack in tools.items():
            found = verdict(mine, theirs(unpack, tar, here / tool))
            if found != ELSEWHERE.get(name, {}).get(tool, "same") and not (name in TIMES and found == "differs"):
                wrong.append(f"{name}: {tool}: {found}")
    assert wrong == []


def test_the_document_has_a_line_for_each() -> None:
    rows = [line.split("|")[1].strip() for line in DOCUMENT.read_text().splitlines() if line.startswith("| ")]
    assert [name for name in odd.ODD if name not in rows] == []


def test_random_layers_are_to_umoci_what_they_are_here(target: Store, place: Path) -> None:
    """But for hard links to what comes later, or is no file, which it refuses: no tree differs."""
    for seed in range(2000 if NIGHTLY else 25):
        layer = odd.random_layer(random.Random(seed))
        tar, here = archive(*layer), place / str(seed)
        here.mkdir()
        mine, other = ours(target, tar, here / "ours"), theirs(odd.umoci, tar, here / "umoci")
        found = verdict(mine, other)
        has_link = any(entry.kind is Kind.HARDLINK for entry in layer)
        assert found == "same" or (found == "refuses" and has_link), (seed, layer, mine, other)
        subprocess.run(["rm", "-rf", here], check=True)
