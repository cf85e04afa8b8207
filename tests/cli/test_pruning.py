"""prune and system df, of images and containers with labels and times."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from support import images as made

Run = Callable[..., Result]

pytestmark = pytest.mark.root

BASE = made.layer(made.folder("etc"), made.file("etc/hostname", "base\n"))


@pytest.fixture
def filled(run: Run, tmp_path: Path) -> Run:
    """The images old:1 of 2020, with the label age=old, new:1 of 2030, and timeless:1; a container on each."""
    for name, created, labels in (
        ("old", "2020-01-01T00:00:00Z", {"age": "old", "team": "a"}),
        ("new", "2030-01-01T00:00:00Z", {"team": "b"}),
        ("timeless", None, None),
    ):
        more = {"created": created} if created else {"created": None}
        config = made.config([BASE], config={"Labels": labels}, **more)
        run("load", str(made.docker_archive(tmp_path / "in.tar", [BASE], [f"{name}:1"], image_config=config)))
    return run


def left(run: Run) -> list[str]:
    return sorted(run("images", "--format", "{{.Repository}}").stdout.split())


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["until=2025-01-01"], ["new", "timeless"]),
        (["until=2025-01-01T00:00:00Z"], ["new", "timeless"]),
        (["until=1735689600"], ["new", "timeless"]),
        (["until=24h"], ["new", "timeless"]),
        (["until=2035-01-01"], ["timeless"]),
        (["label=age"], ["new", "timeless"]),
        (["label=team=b"], ["old", "timeless"]),
        (["label=team", "label=age=old"], ["new", "timeless"]),
        (["label!=team"], ["new", "old"]),
        (["label!=team=a"], ["old"]),
        (["reference=old"], ["new", "timeless"]),
        (["reference=*e*"], ["old"]),
        (["reference=old:1", "reference=new:*"], ["timeless"]),
        (["reference=old", "until=2000-01-01"], ["new", "old", "timeless"]),
    ],
)
def test_images_go_if_they_fit_each_filter(filled: Run, filters: list[str], expected: list[str]) -> None:
    given = [word for text in filters for word in ("--filter", text)]
    filled("image", "prune", "-af", *given)
    assert left(filled) == expected


def test_an_image_goes_only_if_all_its_names_fit(filled: Run) -> None:
    filled("tag", "old:1", "kept:1")
    filled("prune", "-af", "--filter", "reference=old")
    assert left(filled) == ["kept", "new", "old", "timeless"]


def test_images_that_are_dangling_go_without_all(filled: Run) -> None:
    assert filled("image", "prune", "-f", "--filter", "until=2035-01-01").stdout == "Total reclaimed space: 0B\n"
    filled("image", "prune", "-f", "--filter", "dangling=false", "--filter", "label=age")
    assert left(filled) == ["new", "timeless"]


def test_containers_go_by_the_labels_of_their_images(filled: Run) -> None:
    for name in ("old", "new"):
        filled("create", "--name", f"on-{name}", f"{name}:1")
    assert filled("container", "prune", "-f", "--filter", "until=1h").stdout == "Total reclaimed space: 0B\n"
    assert "Deleted Containers:\n" in filled("container", "prune", "-f", "--filter", "label=age=old").stdout
    assert filled("container", "ls", "-a", "--format", "{{.Names}}").stdout == "on-new\n"
    assert left(filled) == ["new", "old", "timeless"]
    filled("system", "prune", "-f", "--filter", "reference=new")
    assert filled("ps", "-aq").stdout == ""
    assert left(filled) == ["new", "old", "timeless"]


def test_filters_are_told_before_the_question(filled: Run) -> None:
    refused = filled("image", "prune", "--filter", "until=24h", "--filter", "label!=x", stdin=b"n\n", code=1)
    assert refused.stderr.startswith(
        "WARNING! This will remove:\n"
        "  - all images without a name and without a container\n"
        "\n"
        "  Items to be pruned will be filtered with:\n"
        "  - until=24h\n"
        "  - label!=x\n"
        "\n"
    )
    assert "filter until is a time" in filled("prune", "-f", "--filter", "until=soon", code=2).stderr
    assert (
        "there is no filter 'dangling'" in filled("container", "prune", "-f", "--filter", "dangling=1", code=2).stderr
    )


# --- docker's groups


def test_nothing_is_said_of_what_is_left_where_nothing_is(filled: Run) -> None:
    assert filled("container", "prune", "-f").stderr == ""
    filled("prune", "-af")
    for words in (["container", "prune"], ["image", "prune"], ["image", "prune", "-a"], ["prune", "-a", "--volumes"]):
        done = filled(*words, "-f")
        assert (done.exit_code, done.stdout, done.stderr) == (0, "Total reclaimed space: 0B\n", "")


def test_groups_have_the_same_commands(filled: Run) -> None:
    filled("container", "create", "--name", "new", "old:1")
    assert filled("image", "ls").stdout == filled("images").stdout
    assert filled("container", "ls", "-a").stdout == filled("ps", "-a").stdout
    assert json.loads(filled("image", "inspect", "new:1").stdout)[0]["RepoTags"] == ["new:1"]
    assert json.loads(filled("container", "inspect", "new").stdout)[0]["Name"] == "/new"
    assert "no such container: old:1" in filled("container", "inspect", "old:1", code=1).stderr
    filled("create", "--name", "timeless")
    assert json.loads(filled("image", "inspect", "timeless:1").stdout)[0]["RepoTags"] == ["timeless:1"]
    assert "no such image: timeless" in filled("image", "inspect", "timeless", code=1).stderr
    assert filled("image", "rm", "new:1").stdout.startswith("Untagged: new:1\n")
    wrong = filled("system", "dff", code=2)
    assert wrong.stderr == "layerstore: there is no command dff, did you mean df?\nSee 'layerstore system --help'.\n"
    assert "Commands on images" in filled("image", "--help").stdout
    usage = filled("image", "rm", code=2)
    assert usage.stderr.endswith("See 'layerstore image rm --help'.\n")


# --- system df


def test_df_is_dockers_table(filled: Run) -> None:
    filled("create", "--name", "web", "old:1")
    size = f"{len(BASE) / 1000:.4g}kB"
    lines = [line.split(maxsplit=4) for line in filled("system", "df").stdout.splitlines()]
    assert lines[0] == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert lines[1] == ["Images", "3", "1", size, "0B (0%)"]
    assert lines[2][:3] == ["Containers", "1", "0"]
    filled("rm", "web")
    rows = [json.loads(line) for line in filled("system", "df", "--format", "json").stdout.splitlines()]
    assert rows == [
        {"Type": "Images", "TotalCount": "3", "Active": "0", "Size": size, "Reclaimable": f"{size} (100%)"},
        {"Type": "Containers", "TotalCount": "0", "Active": "0", "Size": "0B", "Reclaimable": "0B"},
        {"Type": "Local Volumes", "TotalCount": "0", "Active": "0", "Size": "0B", "Reclaimable": "0B"},
        {"Type": "Build Cache", "TotalCount": "0", "Active": "0", "Size": "0B", "Reclaimable": "0B"},
    ]
    kinds = filled("system", "df", "--format", "table {{.Type}}").stdout.splitlines()
    assert kinds == ["TYPE", "Images", "Containers", "Local Volumes", "Build Cache"]


def test_df_shows_each_image_container_and_layer(filled: Run) -> None:
    filled("create", "--name", "web", "old:1")
    text = filled("system", "df", "-v").stdout
    parts = [part.strip() for part in text.split(" space usage:\n")]
    assert [part.splitlines()[-1] for part in parts[:-1]] == ["Images", "Containers", "Local Volumes", "Layers"]
    assert "IMAGE ID       CREATED   " in parts[1]
    assert [line.split()[0] for line in parts[1].splitlines()[1:4]] == ["new", "old", "timeless"]
    assert parts[2].splitlines()[1].endswith("   web")
    assert parts[4].split()[-3:] == ["3", "1", "0"]
    found = json.loads(filled("system", "df", "-v", "--format", "json").stdout)
    assert [row["UniqueSize"] for row in found["Images"]] == ["0B", "0B", "0B"]
    assert [row["Names"] for row in found["Containers"]] == ["web"]
    assert len(found["Layers"]) == 1
    template = "{{range .Images}}{{.Repository}} {{end}}"
    assert filled("system", "df", "-v", "--format", template).stdout == "new old timeless \n"
