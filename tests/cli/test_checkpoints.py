"""checkpoint, rollback, fork, checkpoints, and diff of these, on a real store."""

from __future__ import annotations

import json
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
    """A store with the image base:1 and the container web."""
    run("load", str(made.docker_archive(tmp_path / "base.tar", [BASE], ["base:1"])))
    run("create", "--name", "web", "base:1")
    yield run
    run("umount", "--all")


def lines(result: Result) -> list[str]:
    return result.stdout.splitlines()


def test_a_container_is_rolled_back_while_it_is_mounted(boxes: Run) -> None:
    [root] = lines(boxes("mount", "web"))
    motd = Path(root) / "etc/motd"
    motd.write_text("one\n")
    assert lines(boxes("checkpoint", "web", "one")) == ["one"]
    motd.write_text("two\n")
    (Path(root) / "gone").unlink()
    assert lines(boxes("checkpoint", "web")) == ["1"]
    assert lines(boxes("diff", "web", "web@one")) == ["C /etc", "C /etc/motd", "D /gone"]
    assert lines(boxes("diff", "web@1", "web@one")) == ["C /etc", "C /etc/motd", "D /gone"]
    assert lines(boxes("diff", "web@one")) == ["C /etc", "A /etc/motd"]
    assert lines(boxes("rollback", "web", "one")) == ["web"]
    assert motd.read_text() == "one\n"
    assert (Path(root) / "gone").is_file()
    assert lines(boxes("rollback", "web", "1")) == ["web"]
    assert motd.read_text() == "two\n"
    assert lines(boxes("checkpoints", "-q", "web")) == ["one", "1"]


def test_checkpoints_are_listed_and_removed(boxes: Run) -> None:
    boxes("checkpoint", "web", "a")
    assert lines(boxes("checkpoints", "web"))[0].split() == ["LABEL", "IMAGE", "CREATED", "CONSISTENT"]
    [point] = map(json.loads, lines(boxes("checkpoints", "web", "--format", "json")))
    assert (point["Label"], point["Consistent"]) == ("a", "yes")
    assert lines(boxes("checkpoints", "--rm", "web", "a")) == ["a"]
    assert lines(boxes("checkpoints", "-q", "web")) == []
    assert "container web has no checkpoint 'a'" in boxes("rollback", "web", "a", code=1).stderr
    assert "needs the label" in boxes("checkpoints", "--rm", "web", code=2).stderr


def test_a_label_is_taken_once(boxes: Run) -> None:
    boxes("checkpoint", "web", "a")
    assert "container web has a checkpoint 'a'" in boxes("checkpoint", "web", "a", code=1).stderr
    assert "cannot be the label" in boxes("checkpoint", "web", "../a", code=1).stderr


def test_forks_begin_where_the_container_is(boxes: Run) -> None:
    [root] = lines(boxes("mount", "web"))
    (Path(root) / "new").write_text("x")
    boxes("checkpoint", "web", "a")
    (Path(root) / "new").write_text("y")
    assert len(lines(boxes("fork", "web", "-n", "3"))) == 3
    [named] = lines(boxes("fork", "web", "--name", "side"))
    assert lines(boxes("fork", "web", "--name", "past", "--checkpoint", "a"))
    for name, text in (("side", "y"), ("past", "x")):
        [other] = lines(boxes("mount", name))
        assert (Path(other) / "new").read_text() == text
    assert lines(boxes("ps", "-aq", "--no-trunc", "--filter", "name=side")) == [named]
    assert lines(boxes("fork", "web@a", "--name", "again"))
    assert not lines(boxes("diff", "again", "past"))
    assert "has no checkpoint 'none'" in boxes("fork", "web@none", code=1).stderr
    assert "is in use" in boxes("fork", "web", "--name", "side", code=1).stderr
    assert "names for 2 containers" in boxes("fork", "web", "-n", "2", "--name", "z1", code=1).stderr


def test_the_image_of_a_checkpoint_stays(boxes: Run) -> None:
    boxes("checkpoint", "web", "clean")
    [root] = lines(boxes("mount", "web"))
    (Path(root) / "new").write_text("x")
    boxes("umount", "web")
    boxes("commit", "web", "next:1")
    boxes("rmi", "next:1", code=1)
    boxes("rollback", "web", "clean")
    refused = boxes("rmi", "base:1", code=1).stderr
    assert "container web" in refused
    assert lines(boxes("rmi", "next:1"))[0] == "Untagged: next:1"
    boxes("rm", "web")
    boxes("rmi", "base:1")
    assert lines(boxes("check")) == []


def test_processes_are_not_kept(boxes: Run) -> None:
    refused = boxes("checkpoint", "--live", "web", "clean", code=1)
    assert refused.stderr.startswith("layerstore: the processes of container web cannot be kept: ")
    assert len(refused.stderr.splitlines()) == 2
    assert boxes("checkpoints", "-q", "web").stdout == ""
