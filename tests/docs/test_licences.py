"""The page of licences, and what is installed: none may oblige who gives layerstore away to more than notices."""

from __future__ import annotations

import re
import runpy
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools/licences"))


def test_every_licence_asks_for_notices_alone() -> None:
    told = {name: TOOL["licence_of"](distribution(name)) for name in TOOL["brought"]()}
    assert {name: said for name, said in told.items() if not TOOL["parts"](said) <= TOOL["ALLOWED"]} == {}


def test_the_page_has_what_layerstore_names_itself_and_its_licence() -> None:
    """What these need in turn may be another set tomorrow: the page has it as of when it was made."""
    page = (ROOT / "docs/licences.md").read_text()
    rows = dict(re.findall(r"^\| (\S+) \| ([^|]*) \|", page, re.MULTILINE))
    named = {canonicalize_name(Requirement(text).name) for text in distribution("layerstore").requires or ()}
    expected = {name: TOOL["licence_of"](distribution(name)) for name in named - {"layerstore"}}
    assert {name: rows.get(name) for name in expected} == expected, "tools/licences >docs/licences.md makes it anew"
