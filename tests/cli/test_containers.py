"""create, ps, mount, umount, diff, commit, rename and rm, on a real store."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from support import images as made

Run = Callable[..., Result]

pytestmark = pytest.mark.root

BASE = made.layer(made.folder("etc"), made.file("etc/hostname", "base\n"), made.file("gone", "x"))


@pytest.fixture
def boxes(run: Run, tmp_path: Path) -> Iterator[Run]:
    """A store with the image base:1."""
    settings = made.config(
        [BASE], config={"Entrypoint": ["/bin/sh"], "Cmd": ["-c", 'echo "hi" to everybody'], "Labels": {"a.b-c": "d"}}
    )
    run("load", str(made.docker_archive(tmp_path / "base.tar", [BASE], ["base:1"], image_config=settings)))
    yield run
    run("umount", "--all")


def lines(result: Result) -> list[str]:
    return result.stdout.splitlines()


def test_the_main_job(boxes: Run) -> None:
    [box] = lines(boxes("create", "--name", "web", "base:1"))
    assert len(box) == 64
    [root] = lines(boxes("mount", "web"))
    (Path(root) / "etc/motd").write_text("hello\n")
    (Path(root) / "etc/hostname").write_text("web\n")
    (Path(root) / "gone").unlink()
    assert lines(boxes("umount", "web")) == ["web"]
    assert not os.path.ismount(root)
    assert lines(boxes("diff", "web")) == ["C /etc", "C /etc/hostname", "A /etc/motd", "D /gone"]
    [image] = lines(boxes("commit", "-m", "greet", "-a", "Ada", "-c", "ENV X=1", "web", "hello:1"))
    assert image.startswith("sha256:")
    assert lines(boxes("diff", "web")) == []
    made_of = json.loads(boxes("inspect", "hello:1").stdout)[0]
    assert made_of["Id"] == image
    assert made_of["Author"] == "Ada"
    assert "X=1" in made_of["Config"]["Env"]
    first, second = [line.split() for line in lines(boxes("history", "hello:1"))[1:]]
    assert (first[0], first[-1]) == (image[7:19], "greet")
    assert second[0] == lines(boxes("images", "-q", "base"))[0]
    assert lines(boxes("rm", "web")) == ["web"]
    assert lines(boxes("check")) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["base:1", "apt-get", "install", "it"], "apt-get install it"),
        (["--entrypoint", "/run", "base:1"], "/run"),
        (["base:1"], '-c echo "hi" to everybody'),
    ],
)
def test_a_commit_says_in_the_history_which_command_made_it(boxes: Run, given: list[str], expected: str) -> None:
    boxes("create", "--name", "made", *given)
    boxes("commit", "-c", "ENV X=1", "made", "made:1")
    shown = lines(boxes("history", "--format", "{{.CreatedBy}}", "made:1"))
    assert shown[0] == expected


def test_what_a_container_was_made_with_is_said_by_its_image(boxes: Run) -> None:
    given = ("-e", "A=1", "--label", "team=red", "-p", "8080:80", "-u", "ada", "-w", "/srv", "--stop-signal", "INT")
    health = ("--health-cmd", "true", "--health-interval", "3s")
    boxes("create", "--name", "web", *given, *health, "--net", "none", "base:1", "serve", "it")
    boxes("commit", "-c", "ENV B=2", "web", "web:1")
    image, base = (json.loads(boxes("inspect", name).stdout)[0]["Config"] for name in ("web:1", "base:1"))
    env = [entry for entry in image.pop("Env") if entry not in (base.pop("Env", None) or ())]
    assert env == ["A=1", "B=2"]
    made = {
        "Cmd": ["serve", "it"],
        "Labels": {**(base.get("Labels") or {}), "team": "red"},
        "ExposedPorts": {**(base.get("ExposedPorts") or {}), "80/tcp": {}},
        "User": "ada",
        "WorkingDir": "/srv",
        "StopSignal": "INT",
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 3_000_000_000},
    }
    assert image == {**base, **made}
    boxes("create", "--name", "plain", "web:1")
    boxes("commit", "plain", "again:1")
    assert json.loads(boxes("inspect", "again:1").stdout)[0]["Config"] == {**image, "Env": [*_env(boxes, "web:1")]}


def _env(boxes: Run, image: str) -> list[str]:
    found: list[str] = json.loads(boxes("inspect", image).stdout)[0]["Config"]["Env"]
    return found


def test_a_commit_empties_what_is_given_as_empty(boxes: Run, tmp_path: Path) -> None:
    boxes("create", "--name", "web", "base:1")
    boxes("commit", "-c", "ENTRYPOINT []", "-c", "CMD []", "web", "empty:1")
    config = json.loads(boxes("inspect", "empty:1").stdout)[0]["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (None, [])
    assert boxes("inspect", "-f", "{{.Config.Entrypoint}}{{len .Config.Cmd}}", "empty:1").stdout == "[]0\n"
    boxes("create", "--name", "idle", "empty:1")
    assert boxes("ps", "-a", "-f", "name=idle", "--format", "{{.Command}}").stdout == '""\n'
    (tmp_path / "root.tar").write_bytes(BASE)
    boxes("import", "-c", "CMD x", "-c=CMD []", str(tmp_path / "root.tar"), "made:1")
    assert json.loads(boxes("inspect", "made:1").stdout)[0]["Config"] == {"Cmd": []}
    for change, words in [("VOLUME []", "VOLUME requires at least"), ("HEALTHCHECK CMD []", "Missing command after")]:
        assert boxes("commit", "-c", change, "web", code=1).stderr.startswith(f"layerstore: {words}")
        assert boxes("import", "-c", change, str(tmp_path / "root.tar"), code=1).stderr.startswith(
            f"layerstore: {words}"
        )


def test_ps_shows_the_mounted_ones_and_with_all_every_one(boxes: Run) -> None:
    [first] = lines(boxes("create", "--name", "first", "base:1"))
    [second] = lines(boxes("create", "--name", "second"))
    assert len(lines(boxes("ps"))) == 1
    boxes("mount", "first")
    assert [line.split()[0] for line in lines(boxes("ps"))[1:]] == [first[:12]]
    head, *rows = lines(boxes("ps", "-a"))
    assert head.split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert [row.split()[0] for row in rows] == [second[:12], first[:12]]
    assert [cell.strip() for cell in rows[1].split("   ")[1:3]] == ["base:1", r'"/bin/sh -c echo \"hi…"']
    assert [" Created " in rows[0], " Mounted " in rows[1]] == [True, True]
    assert [row.split()[-1] for row in rows] == ["second", "first"]


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["-a"], ["third", "second", "first"]),
        ([], ["second"]),
        (["-n", "2"], ["third", "second"]),
        (["-l"], ["third"]),
        (["-f", "status=created"], ["third", "first"]),
        (["-f", "status=mounted"], ["second"]),
        (["-f", "status=running"], []),
        (["-a", "-f", "status=exited"], []),
        (["-a", "-f", "name=ir"], ["third", "first"]),
        (["-a", "-f", "name=^/first$"], ["first"]),
        (["-a", "-f", "ancestor=base:1"], ["second", "first"]),
        (["-a", "-f", "label=a.b-c=d"], ["second", "first"]),
        (["-a", "-f", "label=nope"], []),
        (["-a", "-f", "before=second"], ["first"]),
        (["-a", "-f", "since=first"], ["third", "second"]),
        (["-a", "-f", "until=1h"], []),
        (["-a", "-f", "id=zz"], []),
    ],
)
def test_ps_filters(boxes: Run, args: list[str], names: list[str]) -> None:
    for name, image in (("first", ["base:1"]), ("second", ["base:1"]), ("third", [])):
        boxes("create", "--name", name, *image)
    boxes("mount", "second")
    assert lines(boxes("ps", *args, "--format", "{{.Names}}")) == names


def test_ps_in_other_forms(boxes: Run) -> None:
    [box] = lines(boxes("create", "--name", "web", "base:1"))
    assert lines(boxes("ps", "-aq")) == [box[:12]]
    assert lines(boxes("ps", "-aq", "--no-trunc")) == [box]
    facts = json.loads(boxes("ps", "-a", "--format", "json").stdout)
    assert {"ID", "Names", "Image", "Command", "CreatedAt", "RunningFor", "State", "Status", "Labels"} <= set(facts)
    assert "Size" not in facts
    assert facts["Labels"] == "a.b-c=d"
    assert "Size" in json.loads(boxes("ps", "-as", "--format", "json").stdout)
    table = lines(boxes("ps", "-a", "--format", r'table {{.Label "a.b-c"}}\t{{.State}}'))
    assert table == ["b c       STATE", "d         created"]
    assert lines(boxes("ps", "-as"))[1].endswith("(virtual 10.2kB)")


def test_mount_counts_and_lists(boxes: Run) -> None:
    boxes("create", "--name", "web", "base:1")
    [root] = lines(boxes("mount", "web"))
    assert lines(boxes("mount", "web")) == [root]
    [head, row] = lines(boxes("mount"))
    assert head.split() == ["CONTAINER", "ID", "NAMES", "MOUNTPOINT"]
    assert row.split()[1:] == ["web", root]
    assert lines(boxes("mount", "--format", "{{.Names}} {{.Mounts}}")) == ["web 2"]
    assert json.loads(boxes("inspect", "web").stdout)[0]["State"]["Status"] == "mounted"
    boxes("umount", "web")
    assert os.path.ismount(root)
    boxes("umount", "web")
    assert not os.path.ismount(root)
    assert boxes("umount", "web", code=1).stderr.startswith("layerstore: ")


def test_umount_by_force_undoes_every_mount(boxes: Run) -> None:
    boxes("create", "--name", "web", "base:1")
    boxes("mount", "web", "web")
    assert lines(boxes("umount", "-f", "web")) == ["web"]
    assert len(lines(boxes("mount"))) == 1


def test_a_command_on_many_goes_on_after_a_failure(boxes: Run) -> None:
    boxes("create", "--name", "web", "base:1")
    for command in ("mount", "umount", "rm"):
        result = boxes(command, "nope", "web", "nix", code=1)
        assert len(lines(result)) == 1
        assert sum(line.startswith("layerstore: ") for line in result.stderr.splitlines()) == 2


def test_a_mounted_container_is_removed_by_force_only(boxes: Run) -> None:
    boxes("create", "--name", "web", "base:1")
    boxes("mount", "web")
    refused = boxes("rm", "web", code=1)
    assert len(refused.stderr.splitlines()) == 2
    assert lines(boxes("rm", "-f", "web")) == ["web"]
    assert lines(boxes("ps", "-aq")) == []


def test_an_image_with_containers_is_not_removed(boxes: Run) -> None:
    boxes("create", "--name", "web", "base:1")
    for args in (["base:1"], ["-f", "base:1"]):
        refused = boxes("rmi", *args, code=1)
        assert "web" in refused.stderr
        assert len(refused.stderr.splitlines()) == 2


def test_a_name_that_is_taken_is_an_error(boxes: Run) -> None:
    boxes("create", "--name", "web")
    refused = boxes("create", "--name", "web", code=1)
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) <= 2


def test_diff_in_other_forms_and_with_names_that_are_no_text(boxes: Run, shell: Callable[..., object]) -> None:
    boxes("create", "--name", "web")
    [root] = lines(boxes("mount", "web"))
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).write_bytes(b"")
    boxes("umount", "web")
    done = shell("diff", "web")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"A /caf\xe9\n", b"")
    assert json.loads(boxes("diff", "--format", "json", "web").stdout) == {"Kind": "A", "Path": "/caf\udce9"}
    assert lines(boxes("diff", "--format", "table {{.Kind}}", "web")) == ["KIND", "A"]


def test_diff_of_images_and_of_one_with_another(boxes: Run) -> None:
    boxes("create", "--name", "web", "base:1")
    [root] = lines(boxes("mount", "web"))
    (Path(root) / "etc/motd").write_text("hello\n")
    boxes("umount", "web")
    boxes("commit", "web", "hello:1")
    assert lines(boxes("diff", "base:1")) == ["A /etc", "A /etc/hostname", "A /gone"]
    assert lines(boxes("diff", "hello:1")) == ["C /etc", "A /etc/motd"]
    assert lines(boxes("diff", "web")) == []
    assert lines(boxes("diff", "web", "base:1")) == ["C /etc", "A /etc/motd"]
    assert lines(boxes("diff", "base:1", "web")) == ["C /etc", "D /etc/motd"]
    assert lines(boxes("diff", "web", "hello:1")) == []
    boxes("create", "--name", "other", "base:1")
    assert lines(boxes("diff", "web", "other")) == ["C /etc", "A /etc/motd"]
    assert lines(boxes("diff", "web", "web")) == []
    assert boxes("diff", "nobody", code=1).stderr.startswith("layerstore: no such object: nobody\n")
    assert boxes("diff", "web", "Nobody", code=1).stderr.startswith("layerstore: no such object: Nobody\n")


def test_a_container_is_renamed(boxes: Run) -> None:
    [box] = lines(boxes("create", "--name", "web"))
    boxes("create", "--name", "other")
    assert boxes("rename", "web", "/site").output == ""
    assert lines(boxes("ps", "-a", "--format", "{{.Names}}")) == ["other", "site"]
    boxes("mount", "site")
    assert boxes("rename", box[:12], "back").output == ""
    assert "is in use by container" in boxes("rename", "back", "other", code=1).stderr
    assert "cannot be the name" in boxes("rename", "back", "no/name", code=1).stderr
    assert "no such container: web" in boxes("rename", "web", "x1", code=1).stderr
    assert lines(boxes("ps", "-q", "--no-trunc", "--filter", "name=back")) == [box]


def test_a_container_from_nothing_becomes_an_image(boxes: Run) -> None:
    boxes("create", "--name", "scratch")
    [root] = lines(boxes("mount", "scratch"))
    (Path(root) / "hello").write_text("hi\n")
    boxes("umount", "scratch")
    boxes("commit", "scratch", "scratch:1")
    [facts] = json.loads(boxes("inspect", "scratch:1").stdout)
    assert len(facts["RootFS"]["Layers"]) == 1
