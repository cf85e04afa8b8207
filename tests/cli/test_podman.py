"""podman's own words, on a real store: which containers, images by other names, lists, credentials, archives."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from support import images as made
from support import programs

Run = Callable[..., Result]

pytestmark = pytest.mark.root


@pytest.fixture
def store(run: Run, tmp_path: Path) -> Run:
    """A store with the images one:1, and two:1 on it, whose containers are aa and bb, in this order."""
    lower, upper = made.layer(made.folder("etc")), made.layer(made.file("etc/motd", "hello\n"))
    run("load", str(made.docker_archive(tmp_path / "one.tar", [lower], ["one:1"])))
    run("load", str(made.docker_archive(tmp_path / "two.tar", [lower, upper], ["two:1"])))
    run("create", "--name", "aa", "one:1")
    run("create", "--name", "bb", "two:1")
    return run


def lines(result: Result) -> list[str]:
    return result.stdout.splitlines()


def names(run: Run) -> list[str]:
    return lines(run("ps", "-a", "--format", "{{.Names}}", "--sort", "names"))


def test_the_latest_all_and_those_of_files(store: Run, tmp_path: Path) -> None:
    assert json.loads(store("inspect", "-l").stdout)[0]["Name"] in ("bb", "/bb")
    assert lines(store("diff", "--latest")) == []
    store("create", "--name", "cc", "--cidfile", str(tmp_path / "id"), "one:1")
    store("rm", "--cidfile", str(tmp_path / "id"))
    assert names(store) == ["aa", "bb"]
    assert len(lines(store("mount", "--all"))) == 2
    store("umount", "-l")
    assert lines(store("mount", "--format", "{{.Names}}")) == ["aa"]
    store("unmount", "aa")
    assert "missing argument" in store("rm", code=2).stderr
    assert "--all needs no container beside it" in store("rm", "-a", "aa", code=2).stderr
    store("rm", "-i", "nobody", "aa")
    assert lines(store("rm", "--filter", "name=bb")) == ["bb"]
    assert "there is no container, so none is the latest" in store("rm", "--latest", code=1).stderr
    assert "No such file" in store("rm", "--cidfile", str(tmp_path / "none"), code=1).stderr
    (tmp_path / "bytes").write_bytes(b"\xff\n")
    assert "no such container" in store("rm", "--cidfile", str(tmp_path / "bytes"), code=1).stderr
    assert store("rm", "-i", "--cidfile", str(tmp_path / "none")).output == ""


def test_whether_something_is_there(store: Run) -> None:
    store("image", "exists", "one:1")
    store("container", "exists", "aa")
    store("image", "exists", "nobody", code=1)
    store("container", "exists", "nobody", code=1)
    store("volume", "create", "-l", "x=y", "kept")
    store("volume", "exists", "kept")
    store("volume", "exists", "nobody", code=1)
    [folder] = lines(store("volume", "mount", "kept"))
    assert Path(folder).is_dir()
    assert [found["Name"] for found in json.loads(store("volume", "inspect", "-a").stdout)] == ["kept"]
    assert lines(store("volume", "ls", "--noheading")) == ["local     kept"]
    assert lines(store("volume", "rm", "-a")) == ["kept"]


def test_lists_have_an_order_and_no_headings(store: Run) -> None:
    assert [line.split()[0] for line in lines(store("images", "-n", "--sort", "repository"))] == ["one", "two"]
    assert lines(store("images", "--format", "table {{.Repository}}", "--noheading", "--sort", "tag")) == ["one", "two"]
    assert len(lines(store("ps", "-a", "--noheading", "--sync"))) == 2
    assert lines(store("image", "list", "-q", "--sort", "id")) == sorted(lines(store("images", "-q")))


def test_formats_have_podman_s_fields_beside_docker_s(store: Run) -> None:
    form = "{{range .}}{{.Names}} {{.Dangling}} {{len .Id}}\\n{{end}}"
    assert lines(store("images", "--sort", "tag", "--format", form))[0] == "[docker.io/library/one:1] false 64"
    form = "{{ range . }}{{.Names}} {{.Pid}} {{.ExitCode}} {{.Restarts}} {{if .Exited}}x{{end}}{{ end -}}"
    assert lines(store("ps", "-a", "--sort", "names", "--format", form)) == ["aa 0 0 0 ", "bb 0 0 0 "]
    assert "Dangling" not in json.loads(lines(store("images", "--format", "json"))[0])
    told = store("info", "-f", "{{.Store.GraphDriverName}} {{.Store.ContainerStore.Number}} {{.Host.OS}}").stdout
    assert told == "overlay2 2 linux\n"
    assert store("info", "-f", "{{.Version.Version}}").stdout == store("version", "-f", "{{.Version}}").stdout
    assert store("image", "inspect", "-f", "{{.Labels}} {{.Digest}}", "one:1").stdout.startswith("map[]")


def test_images_lose_names_and_are_shown_by_layers(store: Run) -> None:
    text = store("image", "tree", "two:1").stdout
    assert "Tags:     two:1" in text
    assert text.count("── ID: ") == 2
    assert "Top Layer of: one:1" in text
    assert lines(store("image", "tree", "--whatrequires", "one:1"))[0].endswith(" two:1")
    assert "one:1 is no name of two:1" in store("untag", "two:1", "one:1", code=1).stderr
    store("tag", "two:1", "two:2")
    store("untag", "two:2", "two:1")
    assert lines(store("images", "--format", "{{.Repository}}:{{.Tag}}", "two")) == ["two:2"]
    store("image", "untag", "two:2")
    assert lines(store("images", "--filter", "dangling=true", "--format", "{{.Repository}}")) == ["<none>"]
    store("rmi", "-i", "nobody")
    store("rm", "-a")
    store("rmi", "-a")
    assert store("images", "-q").stdout == ""


def test_archives_by_their_names_in_podman(store: Run, tmp_path: Path) -> None:
    store("save", "--format", "oci-archive", "-m", "-o", str(tmp_path / "oci.tar"), "one:1", "two:1")
    with tarfile.open(tmp_path / "oci.tar") as tar:
        assert "oci-layout" in tar.getnames()
    store("save", "--format", "oci-dir", "-o", str(tmp_path / "folder"), "one:1")
    assert (tmp_path / "folder" / "oci-layout").is_file()
    assert "name it with -o" in store("save", "--format", "oci-dir", "one:1", code=2).stderr
    assert len(lines(store("load", "-q", "-i", str(tmp_path / "oci.tar")))) == 2


def test_commit_writes_the_id_and_import_has_a_platform(store: Run, tmp_path: Path) -> None:
    [made_id] = lines(store("commit", "-q", "-f", "oci", "--iidfile", str(tmp_path / "iid"), "aa", "new"))
    assert (tmp_path / "iid").read_text() == made_id
    assert "always stand still" in store("commit", "--pause=false", "aa", code=2).stderr
    store("export", "-o", str(tmp_path / "root.tar"), "bb")
    store("import", "--arch", "arm64", "--variant", "v8", str(tmp_path / "root.tar"), "arm")
    said = lines(store("inspect", "--type", "image", "--format", "{{.Os}}/{{.Architecture}}/{{.Variant}}", "arm"))
    assert said == ["linux/arm64/v8"]


def test_a_name_is_taken_over(store: Run) -> None:
    before = lines(store("inspect", "-f", "{{.Id}}", "aa"))
    store("create", "--replace", "--name", "aa", "one:1")
    assert lines(store("inspect", "-f", "{{.Id}}", "aa")) != before
    assert "--replace needs --name" in store("create", "--replace", "one:1", code=2).stderr


@pytest.fixture
def boxes(run: Run, tmp_path: Path) -> Iterator[Run]:
    """A store with the image debian, in which programs run."""
    run("load", str(programs.archive(tmp_path / "debian.tar", config={"Env": ["PATH=/bin", "IMAGE=1"], "Cmd": ["sh"]})))
    yield run
    run("rm", "-fa")


@pytest.mark.tools("crun", "conmon")
def test_what_runs_is_restarted_and_removed_in_its_time(boxes: Run, shell: Callable[..., object]) -> None:
    for name in ("aa", "bb"):
        boxes("run", "-d", "--name", name, "debian", "sh", "-c", "trap exit TERM; while :; do sleep 0.05; done")
    before = boxes("inspect", "-f", "{{.State.Pid}}", "aa").stdout
    assert sorted(lines(boxes("restart", "-a", "-t", "20"))) == ["aa", "bb"]
    assert boxes("inspect", "-f", "{{.State.Pid}}", "aa").stdout != before
    assert lines(boxes("pause", "-l")) == ["bb"]
    assert lines(boxes("unpause", "-a")) == ["bb"]
    assert lines(boxes("kill", "-l")) == ["bb"]
    assert lines(boxes("stop", "-a", "-t", "20")) == ["aa"]
    assert lines(boxes("start", "--all", "--filter", "name=aa")) == ["aa"]
    assert sorted(lines(boxes("rm", "-f", "-t", "20", "aa", "bb"))) == ["aa", "bb"]
    assert "--time needs --force" in boxes("rm", "-t", "1", "aa", code=2).stderr
    done = boxes("run", "--rm", "--rmi", "--unsetenv", "IMAGE", "debian", "sh", "-c", "echo ${IMAGE-unset} >&2")
    assert done.exit_code == 0
    assert boxes("images", "-q").stdout == ""
