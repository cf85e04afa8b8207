"""The benchmark against the peers: what it says of figures that never were, and a run of its own on a tiny image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.peers import page
from benchmarks.peers.comparing import OURS, Behind, behind, cell, share
from benchmarks.peers.measuring import Found
from benchmarks.peers.rows import DISK, DURABLE, RETURNS, ROWS, START

PROJECT = Path(__file__).parent.parent.parent
HOSTILE = "<b>peer</b> | one"


def figures() -> dict[tuple[str, str, str, str], list[float]]:
    """layerstore is behind in create and in disk used, and nowhere else."""
    return {
        ("load", RETURNS, "x", OURS): [1.0, 1.1, 1.2],
        ("load", RETURNS, "x", HOSTILE): [2.0, 2.2, 2.1],
        ("load", DISK, "x", OURS): [5e6, 5e6, 5e6],
        ("load", DISK, "x", HOSTILE): [4e6, 4e6, 4e6],
        (START, RETURNS, "x", OURS): [0.1, 0.1, 0.1],
        (START, RETURNS, "x", HOSTILE): [0.2, 0.2, 0.2],
        ("create", RETURNS, "x", OURS): [0.4, 0.3, 0.5],
        ("create", RETURNS, "x", HOSTILE): [0.1, 0.1, 0.1],
        ("create", RETURNS, "x", "other"): [0.3, 0.1, 0.35],
        ("create", DURABLE, "x", OURS): [0.4, 0.3, 0.5],
        ("create", DURABLE, "x", HOSTILE): [0.6, 0.7, 0.8],
    }


def report(found: Found) -> page.Report:
    return page.Report(
        {"date": "2026-11-29", "versions": HOSTILE}, found, ROWS, ["x"], [OURS, HOSTILE, "other"], {"umoci": "gone"}, []
    )


def test_where_a_peer_is_better_the_farthest_comes_first() -> None:
    create, load = behind(figures())

    assert (create.work, load.work) == ("create", "load")
    assert list(create.figures) == [RETURNS], "until on disk layerstore is first"
    assert [(one.peer, round(one.ratio, 2), one.overlaps) for one in create.figures[RETURNS]] == [
        (HOSTILE, 4.0, False),
        ("other", 1.33, True),
    ]
    assert "Until on disk nobody is better." in create.why
    assert list(load.figures) == [DISK]
    assert load.ratio == 1.25


def test_nobody_is_behind_who_is_alone_or_first() -> None:
    ours = {key: amounts for key, amounts in figures().items() if key[3] == OURS}
    first = {key: amounts for key, amounts in figures().items() if key[:2] == ("load", RETURNS)}

    assert behind(ours) == behind(first) == list[Behind]()
    assert share(ours, "load", RETURNS, "x") == ""
    assert share(first, "load", RETURNS, "x") == "0.52"
    assert cell(first, "load", RETURNS, "x", HOSTILE) == "2.10 s (1.9×)"


def test_the_page_says_first_where_a_peer_is_better_and_escapes_names() -> None:
    found = Found(figures(), failures={("push", "x", "other"): "no <line>"}, rounds=3)

    text, html = page.top(report(found)) + page.markdown(report(found)), page.page(report(found))

    assert text.index("create, x: until it returns 400 ms") < text.index("## x")
    assert html.index("create, x: until it returns 400 ms") < html.index("<table>")
    assert html.count("<svg") == len({key[:2] for key in figures()})
    assert "<b>" not in html
    assert "no &lt;line&gt;" in html
    assert "umoci: gone" in text
    assert "| load, until it returns | 1.10 s | 2.10 s (1.9×) | - | 0.52 |" in text.replace(r"\|", "|").replace(
        HOSTILE, "peer"
    )


@pytest.mark.root
@pytest.mark.tools("busybox", "skopeo", "umoci", "runc", "conmon", "mkfs.ext4", "losetup")
def test_a_run_measures_and_writes_a_page(tmp_path: Path) -> None:
    results = tmp_path / "results"
    asked = ["--made", "40", "--rounds", "1", "--size", "1", "--cache", "warm", "--changed", "5"]
    asked += ["--rows", "load;changes", "--only", "umoci", "--work", str(tmp_path), "--results", str(results)]

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", *asked], cwd=PROJECT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    written = sorted(results.iterdir())
    assert [file.suffix for file in written] == [".html", ".json", ".md"]
    raw = json.loads(written[1].read_text())
    assert raw["failures"] == []
    assert {one["input"].partition(": ")[2] for one in raw["measured"] if one["subject"] == OURS} == {
        f"{work}, {figure}"
        for work in ("load", "load, OCI", "changes")
        for figure in ([RETURNS] if work == "changes" else [RETURNS, DURABLE])
    }
    assert {one["input"] for one in raw["measured"] if one["subject"] == "umoci"} == {
        f"made-40: load, OCI, {figure}" for figure in (RETURNS, DURABLE)
    }
    assert all(seconds > 0 for one in raw["measured"] for seconds in one["seconds"])
    assert all(size > 0 for one in raw["used"] for size in one["bytes"])
    assert raw["absent"]["podman"] == "not asked for"
    assert "<svg" in written[0].read_text()
    assert written[2].read_text().startswith("# Against the peers\n\n## Where a peer is better\n")
    assert list(tmp_path.iterdir()) == [results], "the filesystem and the inputs are gone"
