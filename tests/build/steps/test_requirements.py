"""What cannot be is refused before anything is done, and what fails at the end says what became of the image."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from build.steps.apart import awaited, building
from layerstore import ConfigError, Container, InUse, KernelError, LayerstoreError, Store
from layerstore.build import BuildError, Export, Secret, Ssh, build
from layerstore.build.events import Warned
from layerstore.build.steps.session import sweep
from support.building import Builder

pytestmark = [pytest.mark.root]

TEXT = "FROM scratch\nCOPY f /d/\n"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory with room for little."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "layerstore", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def wrong(folder: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Options, and what is said of them."""
    return {
        "tag": ({"tags": ["Upper:1"]}, "lower case"),
        "secret": ({"secrets": [Secret("s", file=folder / "gone")]}, "No such file"),
        "secret of a folder": ({"secrets": [Secret("s", file=folder)]}, "Is a directory"),
        "secret of a variable": ({"secrets": [Secret("s", env="NOT_SET")]}, "no variable NOT_SET"),
        "agent": ({"ssh": [Ssh()]}, "SSH_AUTH_SOCK is not set"),
        "key": ({"ssh": [Ssh("k", (f"{folder}/gone",))]}, "there is no .*gone"),
        "folder of an archive": ({"outputs": [Export("oci", folder / "no" / "x.tar")]}, "there is no folder .*/no"),
        "folder of a tar": ({"outputs": [Export("tar", folder / "no" / "x.tar")]}, "there is no folder .*/no"),
        "folder in place of a file": ({"outputs": [Export("docker", folder)]}, "it is a folder"),
        "file in place of a folder": ({"outputs": [Export("local", folder / "file" / "x")]}, "file is no folder"),
        "layout": ({"outputs": [Export("oci", f"{folder}/")]}, "no empty folder"),
        "name": ({"outputs": [Export("oci", folder / "x", names=("a:b:c",))]}, "a:b:c"),
        "push": ({"outputs": [Export(push=True)]}, "nothing to push"),
        "context": ({"contexts": {"c": f"{folder}/gone"}}, "context c cannot be read: there is no .*/gone"),
        "right": ({"allow": ["network.hots"]}, "nothing that RUN can ask for"),
        "folder of others": ({"cache_to": [f"type=local,dest={folder}"]}, "no cache of layerstore"),
        "cache": ({"cache_to": [f"type=local,dest={folder}/file/x"]}, "file is no folder"),
    }


@pytest.mark.parametrize("case", wrong(Path("/")))
def test_what_cannot_be_is_refused_at_the_beginning(
    case: str, make: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "file").touch()
    options, said = wrong(tmp_path)[case]
    with pytest.raises(LayerstoreError, match=said):
        make(TEXT, {"f": "f"}, **options)
    assert make.begun == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("EXPOSE 70000", "invalid containerPort"),
        ("STOPSIGNAL SIGTREM", "Invalid signal"),
        ("WORKDIR ${a:^}", "unsupported modifier"),
        ("ENV a=${missing:?}", "missing"),
        ("COPY --chmod=79x f /x", "invalid mode: 79x"),
        ("COPY f f /x", "must be a directory and end with a /"),
        ("RUN --security=insecure true", "security.insecure is not allowed"),
    ],
)
def test_a_line_that_cannot_be_built_is_refused_before_those_above_it_are_done(
    line: str, said: str, make: Builder
) -> None:
    with pytest.raises(BuildError, match=said) as caught:
        make(f"FROM base\nARG TARGETARCH\nRUN echo ${{TARGETARCH:?}} > /done\n{line}\n", {"f": "f"})
    assert caught.value.place is not None
    assert caught.value.place.line == 4
    assert not [title for title in make.begun if title.startswith("[") and not title.startswith("[internal]")]


def test_there_is_no_other_output() -> None:
    kind: Any = "zip"
    with pytest.raises(ConfigError, match="no output of type 'zip'"):
        Export(kind)


def test_a_place_that_can_only_be_read_is_refused_at_the_beginning(make: Builder, small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    for output in (Export("oci", small / "x.tar"), Export("local", small / "new" / "x"), Export("oci", f"{small}/l/")):
        with pytest.raises(ConfigError, match="Read-only file system"):
            make(TEXT, {"f": "f"}, outputs=[output])
        assert make.begun == []


@pytest.mark.parametrize("kind", ["oci", "docker", "tar", "local"])
def test_an_output_that_fails_leaves_nothing_half_written(make: Builder, small: Path, kind: Any) -> None:
    outputs = [Export(kind, small / "x")]
    with pytest.raises(KernelError, match="No space left") as caught:
        make(TEXT, {"f": os.urandom(100_000)}, outputs=outputs)
    assert "Free some space there, or write elsewhere." in str(caught.value)
    assert "The steps are done, and are remembered." in str(caught.value)
    assert [image.tags for image in make.store.images()] == [("base:latest",)]
    with pytest.raises(KernelError, match="The image is in the store: mine:1"):
        make(TEXT, outputs=outputs, tags=["mine:1"])
    assert os.listdir(small) == []


def test_a_container_of_an_output_that_was_killed_goes_with_the_next_build(based: Store, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text("FROM base\n")
    os.mkfifo(tmp_path / "nobody-reads")
    with building(based.config, tmp_path / "context", outputs=[["tar", str(tmp_path / "nobody-reads")]]) as process:
        awaited(based.containers, process)
        process.kill()
    assert sweep(based) == 1
    assert based.containers() == []


@pytest.mark.tools("crun")
def test_what_cannot_be_removed_hides_no_error(make: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Container.remove

    def refuse(container: Container, **options: Any) -> object:
        if container.name.startswith("build-"):
            raise InUse("somebody has it", holders=["somebody"], remedy="Wait.")
        return plain(container, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Container, "remove", refuse)
        with pytest.raises(BuildError, match="exit code: 1") as caught:
            make("FROM base\nRUN false\n")
        assert "somebody has it" in caught.value.__notes__[0]
        built = make("FROM base\nRUN echo > /x\n")
    assert built.image.id in {image.id for image in make.store.images()}
    assert "somebody has it" in next(event.message for event in make.events if isinstance(event, Warned))
    build(make.store, make.folder)
    assert make.store.containers() == [], "the next has removed them"
