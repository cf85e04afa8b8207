"""The commands on volumes, in docker's words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import layerstore
from layerstore import Attachment
from support import images as made

Run = Callable[..., Result]

pytestmark = pytest.mark.root

BASE = made.layer(made.folder("data"), made.file("data/seed", "42\n"))


@pytest.fixture
def used(run: Run, settings: Path, tmp_path: Path) -> Run:
    """A container `box` of an image, with the volume `pg` at /data and one without a name at /cache."""
    run("load", str(made.docker_archive(tmp_path / "in.tar", [BASE], ["base:1"])))
    run("create", "--name", "box", "base:1")
    with layerstore.open(config=settings) as store:
        store.volumes.attach(store.container("box"), [Attachment("/data", "pg"), Attachment("/cache", read_only=True)])
    return run


def names(run: Run, *more: str) -> list[str]:
    return run("volume", "ls", "-q", *more).stdout.split()


def test_create_prints_the_name(run: Run) -> None:
    assert run("volume", "create", "pg").stdout == "pg\n"
    assert len(run("volume", "create").stdout.strip()) == 64
    assert run("volume", "create", "--name", "other", "--label", "a=b").stdout == "other\n"


def test_ls_is_dockers_table(run: Run) -> None:
    run("volume", "create", "pg")
    run("volume", "create", "cache", "--label", "a=b")
    assert run("volume", "ls").stdout == "DRIVER    VOLUME NAME\nlocal     cache\nlocal     pg\n"
    assert names(run) == ["cache", "pg"]
    assert run("volume", "ls", "--format", '{{.Name}} {{.Labels}} {{.Label "a"}}').stdout == "cache a=b b\npg  \n"


def test_ls_filters(used: Run) -> None:
    used("volume", "create", "loose", "--label", "a=b")
    assert names(used, "-f", "dangling=true") == ["loose"]
    assert "pg" in names(used, "-f", "dangling=false")
    assert names(used, "-f", "label=a") == ["loose"]
    assert names(used, "-f", "name=oo") == ["loose"]
    assert names(used, "-f", "driver=other") == []


def test_inspect_is_dockers_json(run: Run, settings: Path) -> None:
    run("volume", "create", "pg", "--label", "a=b", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m")
    (told,) = json.loads(run("volume", "inspect", "pg").stdout)
    assert told.pop("CreatedAt")
    assert told == {
        "Driver": "local",
        "Labels": {"a": "b"},
        "Mountpoint": str(settings.with_name("store") / "volumes" / "pg" / "_data"),
        "Name": "pg",
        "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"},
        "Scope": "local",
    }
    assert run("volume", "inspect", "-f", "{{.Name}} {{.Status}}", "pg").stdout == "pg map[]\n"
    assert json.loads(run("inspect", "pg").stdout)[0]["Name"] == "pg"
    assert run("inspect", "--type", "volume", "-f", "{{.Driver}}", "pg").stdout == "local\n"
    told = run("volume", "inspect", "pg", "none", code=1)
    assert json.loads(told.stdout)[0]["Name"] == "pg"
    assert "layerstore: no such volume: none" in told.stderr


def test_one_in_use_stays_and_says_by_whom(used: Run) -> None:
    told = used("volume", "rm", "pg", code=1)
    assert told.stderr == "layerstore: volume pg is in use by container box\nRemove first: layerstore rm box\n"
    used("rm", "box")
    assert used("volume", "rm", "pg").stdout == "pg\n"
    assert "no such volume: pg" in used("volume", "rm", "pg", code=1).stderr
    assert used("volume", "rm", "-f", "pg").stdout == "pg\n"


def test_rm_v_takes_the_anonymous_ones(used: Run) -> None:
    assert len(names(used)) == 2
    used("rm", "-v", "box")
    assert names(used) == ["pg"]


def test_a_container_shows_what_it_has(used: Run) -> None:
    mounts = json.loads(used("inspect", "box").stdout)[0]["Mounts"]
    assert [(mount["Type"], mount["Destination"], mount["RW"], mount["Mode"]) for mount in mounts] == [
        ("volume", "/cache", False, "ro"),
        ("volume", "/data", True, ""),
    ]
    assert mounts[1]["Name"] == "pg"
    assert (Path(mounts[1]["Source"]) / "seed").read_text() == "42\n"


def test_prune_asks_and_takes_what_nobody_uses(used: Run) -> None:
    used("volume", "create", "named")
    loose = used("volume", "create").stdout.strip()
    told = used("volume", "prune", stdin=b"n\n", code=1)
    assert "WARNING! This will remove anonymous local volumes not used by at least one container." in told.stderr
    assert used("volume", "prune", "-f").stdout == f"Deleted Volumes:\n{loose}\n\nTotal reclaimed space: 0B\n"
    assert used("volume", "prune", "-af").stdout == "Deleted Volumes:\nnamed\n\nTotal reclaimed space: 0B\n"
    assert len(names(used)) == 2


def test_prune_goes_by_labels(run: Run) -> None:
    run("volume", "create", "aa", "--label", "keep")
    run("volume", "create", "bb")
    run("volume", "prune", "-af", "--filter", "label!=keep")
    assert names(run) == ["aa"]
    run("volume", "prune", "-f", "--filter", "all=true", "--filter", "label=keep")
    assert names(run) == []


def test_system_prune_takes_them_if_asked(used: Run) -> None:
    anonymous = next(name for name in names(used) if name != "pg")
    assert "Volumes" not in used("prune", "-f").stdout
    told = used("system", "prune", "-f", "--volumes")
    assert f"Deleted Volumes:\n{anonymous}\n" in told.stdout
    assert names(used) == ["pg"]
    assert (
        'the filter "until" is not supported with --volumes'
        in used("prune", "-f", "--volumes", "--filter", "until=1h", code=2).stderr
    )


def test_df_counts_them(used: Run) -> None:
    (lines,) = [line.split() for line in used("system", "df").stdout.splitlines() if line.startswith("Local")]
    assert lines[:4] == ["Local", "Volumes", "2", "2"]
    told = used("system", "df", "-v").stdout
    assert "Local Volumes space usage:\n\nVOLUME NAME" in told
    assert any(line.split()[:2] == ["pg", "1"] for line in told.splitlines())


def test_bad_words_are_told(run: Run) -> None:
    assert "opt is KEY=VALUE, not 'size'" in run("volume", "create", "-o", "size", code=2).stderr
    assert "cannot be the name of a volume" in run("volume", "create", "a/b", code=1).stderr
    assert "there is no volume driver 'nfs'" in run("volume", "create", "-d", "nfs", code=1).stderr
