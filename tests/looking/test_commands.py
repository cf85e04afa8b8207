"""The commands, as people and programs read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import layerstore
from layerstore.cli.front import front
from looking.conftest import sources
from support import images as make

pytestmark = pytest.mark.root

Run = Callable[..., Result]


@pytest.fixture
def settings(data_root: Path) -> Path:
    """A daemon.json that leads to a store with an image `app` and a container `box` on it."""
    path = data_root.with_name("daemon.json")
    roots = {"data-root": str(data_root), "exec-root": str(data_root.with_name("exec")), "storage-driver": "overlay2"}
    path.write_text(json.dumps(roots))
    base = make.layer(
        make.folder("./"),
        make.folder("etc/"),
        make.file("etc/conf", b"x" * 5000),
        make.folder("usr/"),
        make.folder("usr/bin/"),
        make.file("usr/bin/tool", "tool"),
        make.symlink("bin", "usr/bin"),
        make.folder("var/"),
        make.folder("var/lib/"),
        make.folder("var/lib/dpkg/"),
        make.file("var/lib/dpkg/status", "Package: tool\nVersion: 1.0\nArchitecture: all\n"),
        make.folder("var/lib/dpkg/info/"),
        make.file("var/lib/dpkg/info/tool.list", "/.\n/bin\n/bin/tool\n"),
    )
    change = make.layer(make.file("etc/conf", b"x" * 5000, mode=0o600))
    history = [
        {"created": "2024-01-02T03:04:05Z", "created_by": "ADD base / # buildkit"},
        {"created": "2024-01-02T03:04:06Z", "created_by": "ENV A=b", "empty_layer": True},
        {"created": "2024-01-02T03:04:07Z", "created_by": "RUN /bin/sh -c chmod 600 /etc/conf # buildkit"},
    ]
    with layerstore.open(config=path) as store:
        store.add(make.config([base, change], history=history), list(sources([base, change])), ["app"])
        with store.create_container("app", name="box").mount() as root:
            (root / "etc/conf").write_text("mine")
    return path


@pytest.fixture
def run(settings: Path) -> Run:
    """`run("why", "app", "/etc/conf")`: it has to end with `code`."""

    def called(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(front, ["--config", str(settings), *args])
        assert result.exit_code == code, result.output
        return result

    return called


def test_why_tells_the_layers_from_the_top(run: Run) -> None:
    text = run("why", "app", "/etc/conf").stdout.splitlines()
    assert text[0].startswith("/etc/conf of app:latest: file, 5kB, mode 0600, owner 0:0, changed 2023-11-14T")
    rows = [line.split("   ") for line in text[2:5]]
    assert [row[0].strip() for row in rows] == ["LAYER", "2", "1"]
    assert "changed but for its content: mode 0644 -> 0600" in text[3]
    assert text[3].endswith("RUN chmod 600 /etc/conf")
    assert text[4].endswith("ADD base /")
    assert text[-1] == "Of no package that dpkg knows"


def test_why_tells_the_package_and_the_way_to_it(run: Run) -> None:
    text = run("why", "app", "/bin/tool").stdout
    assert "by way of /bin -> usr/bin" in text
    assert text.splitlines()[-1] == "Of the package tool 1.0 all (dpkg)"


def test_why_tells_what_a_container_wrote(run: Run) -> None:
    text = run("why", "box", "/etc/conf").stdout.splitlines()
    assert text[0].startswith("/etc/conf of box: file, 4B")
    assert text[1].startswith("  changed in the container box")


def test_why_as_json_has_all_of_it(run: Run) -> None:
    found = json.loads(run("why", "--format", "json", "app", "/etc/conf").stdout)
    assert found["Exists"] is True
    assert [(layer["Number"], layer["LineNumber"], layer["What"]) for layer in found["Layers"]] == [
        (2, 3, "attributes"),
        (1, 1, "added"),
    ]
    assert found["Layers"][0]["HidesBytes"] == 5000
    assert found["Written"] is None


def test_a_path_that_no_layer_has_is_an_error(run: Run) -> None:
    assert "no layer of app:latest has /no" in run("why", "app", "/no", code=1).stderr


def test_advise_tells_each_line_and_what_could_be_saved(run: Run) -> None:
    text = run("advise", "app").stdout.splitlines()
    assert text[0].split() == ["#", "BYTES", "FILES", "LOST", "LINE"]
    assert text[2].split() == ["2", "-", "-", "-", "ENV", "A=b"]
    assert text[3].split()[:4] == ["3", "5kB", "1", "-"]
    assert "5kB: /etc/conf (1 file) is there once more, the same but for mode" in text
    assert "    ADD --chmod makes it right at once." in text


def test_advise_as_json_has_all_of_it(run: Run) -> None:
    found = json.loads(run("advise", "--format", "json", "app").stdout)
    assert [line["Lost"] for line in found["Lines"]] == [5000, 0, 0]
    [finding] = found["Findings"]
    assert (finding["Subject"], finding["Bytes"], finding["Lines"]) == ("rewritten", 5000, [1, 3])
    assert found["Saved"] == 5000
    assert json.loads(run("advise", "--least", "1m", "--format", "json", "app").stdout)["Findings"] == []


def test_a_report_is_one_page(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "costs.html"
    assert run("advise", "--report", str(target), "app").stdout.splitlines()[-1] == f"Report: {target}"
    assert target.read_text().startswith("<!DOCTYPE html>")
    refused = run("advise", "--report", str(tmp_path / "no" / "x.html"), "app", code=1)
    assert "x.html" in refused.stderr
    assert refused.stdout == ""


def test_squash_makes_one_layer_of_all_or_of_those_above(run: Run, settings: Path) -> None:
    one = run("squash", "-t", "small", "app").stdout.strip()
    with layerstore.open(config=settings) as store:
        small, app = store.image("small"), store.image("app")
        assert (small.id, len(small.layers)) == (one, 1)
        assert [step.created_by for step in small.history][:3] == [step.created_by for step in app.history]
        lowest = app.layers[0]
    with layerstore.open(config=settings) as store:
        store.remove_image("small")
    # What is above is one layer already.
    same = run("squash", "--from", lowest.partition(":")[2][:12], "app").stdout.strip()
    assert same == app.id
    assert "layer" in run("squash", "--from", "feedfeed", "app", code=1).stderr


def test_saved_by_squashing_is_what_was_told(run: Run) -> None:
    told = json.loads(run("advise", "--format", "json", "app").stdout)
    run("squash", "-t", "small", "app")
    small = json.loads(run("advise", "--format", "json", "small").stdout)
    assert small["Bytes"] == told["Shown"]
    assert small["Findings"] == []


@pytest.mark.tools("crun")
def test_advise_builds_a_folder_or_a_dockerfile(run: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM app\nCOPY --chmod=755 tool /tool\n")
    (tmp_path / "tool").write_bytes(b"x" * 6000)
    (tmp_path / "unused").write_bytes(b"x" * 7000)
    for path in (tmp_path, tmp_path / "Dockerfile"):
        result = run("advise", str(path))
        assert f"COPY --chmod=755 tool /tool [{tmp_path}/Dockerfile:2]" in result.stdout
        assert "7kB: /unused (1 file) of the context: no line uses it" in result.stdout
    (tmp_path / "Dockerfile").write_text("FROM app\nCOPY nothing /\n")
    assert "Dockerfile:2" in run("advise", str(tmp_path), code=1).stderr


def test_a_size_that_is_none_is_refused(run: Run) -> None:
    assert "a size such as 10G" in run("advise", "--least", "much", "app", code=2).stderr


@pytest.mark.tools("crun")
def test_history_with_layers_tells_the_lines_that_were_built_here(run: Run, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM app\n\nENV B=c\nCOPY tool /tool\n")
    (tmp_path / "tool").write_text("x")
    assert " FROM " not in run("history", "--layers", "app").stdout
    run("build", "-q", "-t", "built", str(tmp_path))
    rows = [line.split() for line in run("history", "--layers", "built").stdout.splitlines()]
    assert "FROM" in rows[0]
    file = str(tmp_path / "Dockerfile")
    sources = run("history", "--format", "{{.Source}}", "built").stdout.split()
    assert sources == [f"{file}:4", f"{file}:3", "-", "-", "-"]
    assert [f"{file}:4" in rows[1], "(no" in rows[2]] == [True, True]
    assert "Source" not in run("history", "--format", "json", "built").stdout
