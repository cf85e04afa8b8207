"""The commands `push`, `copy`, `tags`, `manifest`, `search`; `load` and `save` with places."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tarfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from layerstore.cli.front import front
from layerstore.manifests.media_types import INDEX_TYPE
from support import images

from .servers import memory
from .servers.quirks import Quirks

LAYERS = [images.layer(images.file("hosts", "localhost\n")), images.layer(images.file("motd", "hello\n"))]
IDS = [images.digest(layer)[7:19] for layer in LAYERS]

Run = Callable[..., Result]


@pytest.fixture
def run(data_root: Path, tmp_path: Path) -> Run:
    """`run("push", "x")`: the command, on a store of the test's. It has to succeed."""
    settings = tmp_path / "daemon.json"
    content = {"data-root": str(data_root), "exec-root": str(tmp_path / "exec"), "storage-driver": "overlay2"}
    settings.write_text(json.dumps(content))

    def command(*args: object, code: int = 0) -> Result:
        result = CliRunner().invoke(front, ["--config", str(settings), *map(str, args)])
        assert result.exit_code == code, result.output
        return result

    return command


@pytest.fixture
def bare(tmp_path: Path) -> Run:
    """The same, without a store."""
    settings = tmp_path / "daemon.json"
    settings.write_text("{}")

    def command(*args: object, code: int = 0) -> Result:
        result = CliRunner().invoke(front, ["--config", str(settings), *map(str, args)])
        assert result.exit_code == code, result.output
        return result

    return command


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A docker-archive of test:latest."""
    return images.docker_archive(tmp_path / "x.tar", LAYERS)


@pytest.mark.root
def test_push_has_dockers_lines(run: Run, archive: Path, quirks: Quirks) -> None:
    run("load", "-q", "-i", archive)
    name = f"{quirks.host}/team/app"
    run("tag", "test", name)
    lines = run("push", name).output.splitlines()
    digest = quirks.tags["team/app", "latest"]
    size = len(quirks.manifests["team/app", digest][1])
    assert lines[:2] == ["Using default tag: latest", f"The push refers to repository [{name}]"]
    assert sorted(lines[2:4]) == sorted(f"{label}: Pushed" for label in IDS)
    assert lines[4:] == [f"latest: digest: {digest} size: {size}"]
    run("tag", "test", f"{name}:2")
    lines = run("image", "push", "-a", name).output.splitlines()
    assert lines[0] == f"The push refers to repository [{name}]"
    assert lines.count(f"{IDS[0]}: Layer already exists") == 2
    assert [line for line in lines if "digest: " in line] == [
        f"{tag}: digest: {digest} size: {size}" for tag in ("2", "latest")
    ]
    assert run("push", "-q", name).output == f"{name}:latest\n"
    assert run("push", "-q", "-a", name).output == f"{name}\n"
    assert (
        "Mounted from team/app"
        in run("tag", "test", f"{quirks.host}/b").output + run("push", f"{quirks.host}/b").output
    )
    assert f"{name}@{digest}" in run("inspect", "--format", "{{.RepoDigests}}", name).output


def test_lines_go_to_standard_output_whatever_bars_there_are(quirks: Quirks, elsewhere: Quirks) -> None:
    digest = quirks.put_image("app", "1", LAYERS)
    source, target = f"docker://{quirks.host}/app:1", f"docker://{elsewhere.host}/app:1"
    terminal, follower = pty.openpty()
    command = [sys.executable, "-m", "layerstore.cli", "copy", source, target]
    with os.fdopen(terminal, "rb", buffering=0):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, check=True)
        os.close(follower)
        assert b"Copying" in os.read(terminal, 1 << 16)
    lines = done.stdout.decode().splitlines()
    assert lines[-1] == f"Digest: {digest}"
    assert len(lines) == 4


@pytest.mark.root
def test_push_says_what_is_wrong(run: Run, archive: Path, quirks: Quirks) -> None:
    run("load", "-q", "-i", archive)
    assert "can't be used with --all-tags" in run("push", "-a", "test:latest", code=2).output
    assert "no image has the tag none:latest" in run("push", "none", code=1).output
    assert "`layerstore tag IMAGE none:latest`" in run("push", "none", code=1).output
    quirks.refuse("POST", "uploads", lambda _: memory.failure(403, "DENIED", "\x1b[31mno\x1b[0m"))
    run("tag", "test", f"{quirks.host}/app")
    failed = run("push", f"{quirks.host}/app", code=1).output
    assert "DENIED" in failed
    assert "\x1b" not in failed


@pytest.mark.root
def test_load_and_save_know_places(run: Run, archive: Path, quirks: Quirks, tmp_path: Path) -> None:
    run("load", "-q", f"docker-archive:{archive}:@0")
    run("save", "test", "-o", f"docker://{quirks.host}/saved:1")
    assert ("saved", "1") in quirks.tags
    assert quirks.host not in run("images", "-a").output
    run("save", "test", "-o", f"oci:{tmp_path / 'layout'}:any/word")
    run("save", "test", "-o", f"docker-archive:{tmp_path / 'y.tar'}:other/name:1")
    run("rmi", "test")
    assert "NotFound" not in run("load", "-q", f"docker-archive:{tmp_path / 'y.tar'}:@1", code=1).output
    assert "Loaded image: other/name:1" in run("load", "-q", f"docker-archive:{tmp_path / 'y.tar'}:other/name:1").output
    assert "Loaded image: any/word:latest" in run("load", "-q", f"oci:{tmp_path / 'layout'}:any/word").output
    assert "has no image none" in run("load", "-q", f"oci:{tmp_path / 'layout'}:none", code=1).output
    run("load", "-q", images.docker_archive(tmp_path / "second.tar", LAYERS[:1], ["second:1"]))
    wrong = run("save", "second:1", "any/word", "-o", f"oci:{tmp_path / 'z'}:x", code=1)
    assert "there is one name, x, for 2 images" in wrong.output
    wrong = run("save", "second:1", "any/word", "-o", f"docker://{quirks.host}/x", code=1)
    assert "one name for 2 images" in wrong.output
    assert "no name for" in run("save", "any/word", "-o", f"docker-archive:{tmp_path / 'z'}:@1", code=1).output
    assert not (tmp_path / "z").exists()
    wrong = run("save", "second:1", "-o", f"dir:{tmp_path / 'z'}", code=1)
    assert "no place that is known" in wrong.output
    assert "no place that is known" in run("load", "-i", f"dir:{tmp_path / 'layout'}", code=1).output
    assert "Leave out all up to ://" in run("pull", f"docker://{quirks.host}/saved:1", code=1).output


def test_copy_says_what_it_does(bare: Run, archive: Path, quirks: Quirks, tmp_path: Path) -> None:
    digest = quirks.put_image("app", "1", LAYERS)
    source = f"docker://{quirks.host}/app:1"
    lines = bare("copy", source, f"oci:{tmp_path / 'layout'}").output.splitlines()
    assert lines[-1] == f"Digest: {digest}"
    assert all(line.endswith(": Copied") for line in lines[:-1])
    assert bare("copy", "-q", "--all", source, f"docker://{quirks.host}/b:2").output == f"{digest}\n"
    assert quirks.tags["b", "2"] == digest
    assert "cannot both be given" in bare("copy", "--all", "--platform", "linux", source, "x", code=2).output
    assert "no place that is known" in bare("copy", source, "containers-storage:x", code=1).output


def test_copy_reads_and_writes_streams(archive: Path, quirks: Quirks, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "layerstore.cli", "copy"]
    name = f"docker://{quirks.host}/app:1"
    done = subprocess.run([*command, "-q", "-", name], input=archive.read_bytes(), stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode().strip() == quirks.tags["app", "1"]
    written = subprocess.run([*command, name, "-"], stdout=subprocess.PIPE, check=True).stdout
    (tmp_path / "y.tar").write_bytes(written)
    with tarfile.open(tmp_path / "y.tar") as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    assert index["manifests"][0]["digest"] == quirks.tags["app", "1"]


def test_tags_are_listed(bare: Run, quirks: Quirks) -> None:
    for tag in ("1", "2", "latest"):
        quirks.put_image("app", tag, LAYERS)
    quirks.page = 2
    assert bare("tags", f"{quirks.host}/app").output == "1\n2\nlatest\n"
    assert "404" in bare("tags", f"{quirks.host}/none", code=1).output
    name = f"{quirks.host}/app"
    for words in (["tags"], ["search", "--list-tags"]):
        assert bare(*words, name).output == "1\n2\nlatest\n"
        rows = [json.loads(line) for line in bare(*words, "--format", "json", f"{name}:1").output.splitlines()]
        assert rows == [{"Name": name, "Tag": tag} for tag in ("1", "2", "latest")]
        assert bare(*words, "--format", "{{.Name}}:{{.Tag}}", name).output.splitlines()[0] == f"{name}:1"
        table = bare(*words, "--format", "table", name).output.splitlines()
        assert [line.split() for line in table[:2]] == [["NAME", "TAG"], [name, "1"]]
    assert bare("search", "--list-tags", "--limit", "2", name).output == "1\n2\n"
    assert "--filter is of what is found" in bare("search", "--list-tags", "-f", "stars=1", name, code=2).output


def test_manifests_are_shown(bare: Run, quirks: Quirks) -> None:
    digest = quirks.put_image("app", "1", LAYERS)
    shown = json.loads(bare("manifest", "inspect", f"{quirks.host}/app:1").output)
    assert shown == json.loads(quirks.manifests["app", digest][1])
    shown = json.loads(bare("manifest", "inspect", "-v", f"{quirks.host}/app@{digest}").output)
    media_type, data = quirks.manifests["app", digest]
    assert shown == {
        "Ref": f"{quirks.host}/app@{digest}",
        "Descriptor": {"mediaType": media_type, "digest": digest, "size": len(data)},
        "Raw": b64encode(data).decode(),
        "SchemaV2Manifest" if "docker" in media_type else "OCIManifest": json.loads(data),
    }
    assert "404" in bare("manifest", "inspect", f"{quirks.host}/app:none", code=1).output


def test_all_of_a_list_is_shown_as_docker_shows_it(bare: Run, quirks: Quirks) -> None:
    digest = quirks.put_image("app", "1", LAYERS)
    media_type, data = quirks.manifests["app", digest]
    entry = {"mediaType": media_type, "digest": digest, "size": len(data)}
    platform = {"architecture": "arm64", "os": "linux"}
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [{**entry, "platform": platform}, entry]}
    quirks.put_manifest("app", "all", index, INDEX_TYPE)
    name = f"{quirks.host}/app:all"
    plain = bare("manifest", "inspect", name).output
    assert plain.startswith('{\n\t"schemaVersion": 2,\n')
    assert json.loads(plain) == index
    first, second = json.loads(bare("manifest", "inspect", "-v", name).output)
    assert first["Ref"] == second["Ref"] == f"{name}@{digest}"
    assert first["Descriptor"] == {**entry, "platform": platform}
    assert second["Descriptor"] == entry
    assert first["OCIManifest"] == second["OCIManifest"] == json.loads(data)


# --- search ---


class _Searched(Quirks):
    """A registry with docker's first search, as Docker Hub has it."""

    results: tuple[dict[str, object], ...] = (
        {"name": "debian", "description": "Debian is\na distribution. " * 9, "star_count": 5000, "is_official": True},
        {"name": "me/debian", "description": "mine \x1b[31m", "star_count": 2, "is_automated": True},
    )

    def answer(self, seen: memory.Seen) -> memory.Answer:
        if seen.path != "/v1/search":
            return super().answer(seen)
        content = {"num_results": len(self.results), "query": seen.first("q"), "results": self.results}
        return memory.Answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())


def test_search_shows_what_a_registry_finds(bare: Run) -> None:
    with _Searched() as server:
        lines = bare("search", f"{server.host}/deb").output.splitlines()
        assert lines[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
        assert lines[1].split()[0] == f"{server.host}/debian"
        assert lines[1].split()[-2:] == ["5000", "[OK]"]
        assert "…" in lines[1]
        assert len(lines) == 3
        only = bare("search", "--filter", "stars=3", "--format", "{{.Name}} {{.IsOfficial}}", f"{server.host}/deb")
        assert only.output == f"{server.host}/debian [OK]\n"
        automated = bare("search", "-f", "is-automated=true", "--format", "{{.Name}}", f"{server.host}/deb").output
        assert automated == f"{server.host}/me/debian\n"
        assert server.requests[0].first("n") == "25"


def test_a_registry_without_a_search_is_asked_for_its_list(bare: Run, quirks: Quirks) -> None:
    for name in ("team/app", "team/other", "app"):
        quirks.put_image(name, "1", LAYERS)
    found = bare("search", "--format", "{{.Name}}", f"{quirks.host}/app").output
    assert found == f"{quirks.host}/app\n{quirks.host}/team/app\n"
    quirks.spoil("GET", "_catalog", lambda seen, answer: memory.Answer(404))
    failed = bare("search", f"{quirks.host}/app", code=1).output
    assert "no search, and no list of its repositories" in failed


def test_what_is_no_list_is_told(bare: Run) -> None:
    with _Searched() as server:
        server.results = ("debian",)  # type: ignore[assignment]
        assert "is no JSON object" in bare("search", f"{server.host}/deb", code=1).output
