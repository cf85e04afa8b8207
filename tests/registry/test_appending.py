"""A layer appended to an image where that lies: without a store, and without root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from layerstore import registry
from layerstore.errors import ConfigError, KernelError, NotFound
from support import images

from .servers.quirks import Quirks

if TYPE_CHECKING:
    from layerstore import Store

LAYERS = [
    images.layer(images.folder("etc", mode=0o750), images.file("etc/hosts", "localhost\n")),
    images.layer(images.file("etc/motd", "hello\n")),
]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/run").write_text("#!/bin/sh\n")
    (folder / "bin/run").chmod(0o755)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> str:
    return f"oci:{images.oci_layout(tmp_path / 'base', LAYERS)}"


def content(store: Store, archive: str | Path) -> dict[str, str]:
    """The files of an image, and that its layers are what its config says."""
    [loaded] = store.load(archive)
    with store.image(loaded.id).mount() as root:
        return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.mark.root
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_folder_is_appended_to_a_layout(base: str, app: Path, tmp_path: Path, store: Store, compression: str) -> None:
    made = registry.append(
        base,
        app,
        f"oci:{tmp_path / 'made'}:app",
        "/opt/app",
        created_by="our script",
        author="me",
        instructions=['ENTRYPOINT ["/opt/app/bin/run"]'],
        compression=compression,
    )
    assert content(store, tmp_path / "made") == {
        "etc/hosts": "localhost\n",
        "etc/motd": "hello\n",
        "opt/app/bin/run": "#!/bin/sh\n",
    }
    [image] = store.images()
    assert image.layers[:2] == tuple(map(images.digest, LAYERS))
    assert image.config["config"]["Entrypoint"] == ["/opt/app/bin/run"]
    assert (image.history[-1].created_by, image.history[-1].author) == ("our script", "me")
    assert store.squash(image).size > 0
    with image.mount() as root:
        assert os.stat(root / "etc").st_mode & 0o7777 == 0o750
        assert os.stat(root / "opt/app/bin").st_uid == 0
    assert made.digest == json.loads((tmp_path / "made/index.json").read_text())["manifests"][0]["digest"]


@pytest.mark.root
def test_on_nothing_and_to_docker_archives_and_back(app: Path, tmp_path: Path, store: Store) -> None:
    registry.append(None, app, f"docker-archive:{tmp_path / 'one.tar'}:first", platform="linux/arm64")
    tar = tmp_path / "layer.tar"
    tar.write_bytes(images.layer(images.file("second", "2")))
    registry.append(f"docker-archive:{tmp_path / 'one.tar'}", tar, f"oci-archive:{tmp_path / 'two.tar'}:second")
    assert content(store, tmp_path / "two.tar") == {"bin/run": "#!/bin/sh\n", "second": "2"}
    assert {image.architecture for image in store.images()} == {"arm64"}


@pytest.mark.root
def test_from_a_registry_to_another(quirks: Quirks, elsewhere: Quirks, app: Path, store: Store) -> None:
    quirks.put_image("team/app", "1", LAYERS)
    here, there = f"docker://{quirks.host}/team/app:1", f"docker://{elsewhere.host}/x:2"
    words: list[str] = []
    made = registry.append(here, app, there, done=lambda _, word: words.append(word))
    assert elsewhere.tags == {("x", "2"): made.digest}
    assert len(words) == 4
    words.clear()
    registry.append(here, app, there, created_by="again", done=lambda _, word: words.append(word))
    assert words.count("Already exists") == 3  # all but the config
    store.pull(f"{elsewhere.host}/x:2")
    with store.image(f"{elsewhere.host}/x:2").mount() as root:
        assert (root / "bin/run").read_text() == "#!/bin/sh\n"
        assert (root / "etc/motd").read_text() == "hello\n"


def test_the_same_folder_is_the_same_image(
    base: str, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(images.EPOCH))
    first = registry.append(base, app, f"oci:{tmp_path / 'first'}", "/opt")
    for path in app.rglob("*"):
        os.utime(path)
    assert registry.append(base, app, f"oci:{tmp_path / 'second'}", "/opt") == first


def test_what_cannot_be_is_told(base: str, app: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="for folders"):
        registry.append(base, app / "bin/run", f"oci:{tmp_path / 'made'}", "/opt")
    with pytest.raises(KernelError, match="nowhere"):
        registry.append(base, tmp_path / "nowhere", f"oci:{tmp_path / 'made'}")
    with pytest.raises(NotFound):
        registry.append(str(tmp_path / "nowhere"), app, f"oci:{tmp_path / 'made'}")
    assert not (tmp_path / "made").exists()


@pytest.mark.root
def test_it_needs_no_root(base: str, app: Path, tmp_path: Path, store: Store) -> None:
    program = """
import os, sys
from layerstore import registry
base, app, before, made = sys.argv[1:]
registry.append(base, app, before)  # all is imported then: root's Python may be closed to others
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
registry.append(base, app, made, "/opt/app")
"""
    out = tmp_path / "out"
    out.mkdir()
    os.chown(out, 65534, 65534)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path("/tmp") and folder != Path("/"):
            folder.chmod(0o755)
    targets = [f"oci:{tmp_path / 'before'}", f"oci:{out / 'made'}"]
    done = subprocess.run(
        [sys.executable, "-c", program, base, app, *targets], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert os.stat(out / "made").st_uid == 65534
    assert content(store, out / "made")["opt/app/bin/run"] == "#!/bin/sh\n"
