"""The report: valid, whole, and with nothing from elsewhere, whatever the names in it."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from attrs import evolve

from layerstore.bench.comparison import compare
from layerstore.bench.page import page
from layerstore.bench.results import Results
from layerstore.bench.workloads import WORKLOADS
from layerstore.cli.bench import bench_command

VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"))
LOADING = frozenset(("script", "link", "iframe", "img", "object", "embed", "audio", "video", "base", "form", "image"))


class Checked(HTMLParser):
    """Collects what a page has, and insists that its elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.values: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        assert len({name for name, _ in attrs}) == len(attrs)
        for name, value in attrs:
            assert not name.startswith("on"), name
            self.values.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    """Pages are drawn once: it takes a while."""
    return {}


@pytest.fixture
def html(results: Results, drawn: dict[str, str]) -> str:
    if not drawn:
        slower = evolve(
            results,
            figures=tuple(evolve(one, seconds=tuple(second * 3 for second in one.seconds)) for one in results.figures),
        )
        drawn["page"] = page(slower, compare(results, slower))
    return drawn["page"]


@pytest.mark.parametrize(
    ("rounds", "before", "words"),
    [(3, 0, "Too few rounds to tell of any change"), (7, 1, "No figure is in both.")],
)
def test_a_comparison_that_can_tell_nothing_says_so(results: Results, rounds: int, before: int, words: str) -> None:
    one, *_ = cut = [evolve(figure, seconds=figure.seconds[:rounds]) for figure in results.figures[:2]]
    now, then = evolve(results, figures=(one,)), evolve(results, figures=(cut[before],))

    shown = page(now, compare(then, now))

    assert words in shown
    assert "Nothing changed by more than noise" not in shown


def test_it_is_well_formed_and_names_nothing_twice(html: str) -> None:
    found = Checked(html)
    assert html.startswith("<!DOCTYPE html>\n")
    assert len(found.ids) == len(set(found.ids))
    assert {link for link in found.links if not link.startswith("#")} == set()
    assert {link[1:] for link in found.links} <= set(found.ids)


def test_it_loads_nothing_and_runs_nothing(html: str) -> None:
    found = Checked(html)
    assert not LOADING & set(found.tags)
    for value in found.values:
        assert "//" not in value or value.startswith(("no <script", "too deep")), value
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(style) == 1
    assert not re.search(r"url\(|@import|@font-face|//", style[0])
    assert {match for value in found.values for match in re.findall(r"url\((.)", value)} <= {"#"}


def test_it_tells_of_every_workload_with_a_plot(html: str) -> None:
    found = Checked(html)
    for workload in WORKLOADS:
        assert workload.name in found.ids
        assert workload.title in "".join(found.text)
        assert f'aria-label="{workload.title}: time"' in html
        assert (f'aria-label="{workload.title}: space"' in html) == bool(workload.space)


def test_it_tells_of_drivers_that_took_no_part_and_of_failures(html: str) -> None:
    text = " ".join("".join(Checked(html).text).split())
    assert "gamma" in text
    assert "too deep" in text
    assert "slower" in text
    assert "The bare filesystem itself changed" in text


def test_both_colour_schemes_have_every_colour(html: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    names = [set(re.findall(r"(--[\w]+):", block)) for block in (light, dark)]
    assert names[0] == names[1]
    assert set(re.findall(r"var\((--\w+)\)", html)) <= names[0]
    assert not re.search(r"#0[0-9a-f]0[0-9a-f]{3}\b", html), "a stand-in colour was left in a plot"


def test_a_run_without_figures_makes_a_page(results: Results) -> None:
    Checked(page(evolve(results, figures=())))


def test_plots_are_drawn_only_when_they_are_wanted() -> None:
    code = (
        "import sys, layerstore.cli.bench, layerstore.bench.running, layerstore.bench.comparison;"
        "print(*{'matplotlib', 'jinja2', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_the_docs_name_every_workload_and_option() -> None:
    text = (Path(__file__).parents[2] / "docs" / "bench.md").read_text()
    for workload in WORKLOADS:
        assert f"| `{workload.name}` |" in text
        for variant in workload.variants:
            assert f"`{variant}`" in text
    for option in bench_command.params:
        for name in option.opts:
            assert name in text or name in ("folder", "-q", "--quiet")
