"""What CONTRIBUTING.md and docs/claims.md name is there: tests, files, folders and commands; and the defaults that
SECURITY.md tells are those of the settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from layerstore.limits import SETTINGS, USUAL

PROJECT = Path(__file__).parent.parent.parent
PAGES = ("CONTRIBUTING.md", "docs/claims.md")
TARGETS = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
RESULT = re.compile(r"benchmarks/results/(\d{4}-\d\d-\d\d)-([a-z-]+)\.md")
PUBLIC = ("layerstore", "import-linter", "lint-imports", "pyreverse", "pydeps")


def said(page: str) -> list[str]:
    """What is written as code: of a block its lines, without their remarks."""
    text = (PROJECT / page).read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [*filter(None, lines), *re.findall(r"`([^`\n]+)`", prose)]


def is_there(name: str) -> bool:
    """Whether a file, a folder or `FILE::TEST` is there."""
    path, _, test = name.partition("::")
    file = PROJECT / path
    return file.exists() and (not test or re.search(rf"^ *def {test}\(", file.read_text(), re.MULTILINE) is not None)


@pytest.mark.parametrize("page", PAGES)
def test_files_and_tests_that_a_page_names_are_there(page: str) -> None:
    names = [name for name in said(page) if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?(::\w+)?", name) and "NAME" not in name]
    assert len(names) > 10
    assert [name for name in names if not is_there(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_a_page_names_are_there(page: str) -> None:
    lost = []
    for words in (name.split() for name in said(page)):
        match words:
            case ["make", target, *_] if target not in TARGETS:
                lost.append(words)
            case [_, "-m", module, *_] if not (PROJECT / f"{module.replace('.', '/')}.py").exists():
                lost.append(words)
            case [tool, *_] if tool.startswith("tools/") and not (PROJECT / tool).exists():
                lost.append(words)
            case [tool, *_] if tool.startswith(".venv/bin/") and tool.rpartition("/")[2] not in ("python", *PUBLIC):
                lost.append(words)
    assert lost == []


def test_figures_are_of_the_newest_results_of_their_kind() -> None:
    page = (PROJECT / "docs/claims.md").read_text()
    newest: dict[str, str] = {}
    for path in (PROJECT / "benchmarks/results").glob("*.md"):
        if found := RESULT.search(str(path)):
            newest[found[2]] = max(found[1], newest.get(found[2], ""))
    for date, kind in RESULT.findall(page):
        assert date == newest[kind], f"there is a newer {kind}"


def test_a_row_has_the_date_of_its_results() -> None:
    for line in (PROJECT / "docs/claims.md").read_text().splitlines():
        if found := RESULT.search(line):
            assert line.endswith(f"| {found[1]} |"), line


def test_each_row_has_a_figure_or_says_that_it_is_not_shown() -> None:
    rows = [line for line in (PROJECT / "docs/claims.md").read_text().splitlines() if line.startswith("| ")]
    for row in rows:
        cells = re.split(r"(?<!\\)\|", row)[1:-1]
        assert len(cells) == 4, row
        assert cells[2].strip(), row
        assert cells[3].strip() or "not shown" in cells[2], row


def test_the_limits_that_are_told_are_those_that_hold() -> None:
    units = {"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
    rows = re.findall(r"^\| `([a-z-]+)` \| ([\d,]+)(?: (\w+))? \|", (PROJECT / "SECURITY.md").read_text(), re.MULTILINE)
    told = {setting: int(number.replace(",", "")) * units.get(unit, 1) for setting, number, unit in rows}
    assert told == {setting: USUAL.of(setting) for setting in SETTINGS}
