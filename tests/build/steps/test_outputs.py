"""What becomes of an image beside the store, and contexts that have names."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from layerstore import ConfigError
from layerstore.build import BuildError, Export
from support.building import Builder, Look, names_in

TEXT = "FROM scratch\nCOPY f /d/\n"


def test_archives_are_read_by_others(make: Builder, tmp_path: Path) -> None:
    outputs = [
        Export("oci", tmp_path / "oci.tar", names=("named:1",)),
        Export("docker", tmp_path / "docker.tar"),
        Export("oci", f"{tmp_path}/deep/layout/"),
    ]
    built = make(TEXT, {"f": "f"}, tags=["mine:2"], outputs=outputs)
    for place, name in (("oci-archive", "oci.tar"), ("docker-archive", "docker.tar"), ("oci", "deep/layout")):
        said = subprocess.run(
            ["skopeo", "inspect", "--config", "--raw", f"{place}:{tmp_path / name}"], capture_output=True, check=True
        )
        assert json.loads(said.stdout)["rootfs"]["diff_ids"] == list(built.image.layers)
    with tarfile.open(tmp_path / "oci.tar") as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        [named] = json.loads(index.read())["manifests"]
    assert "named:1" in named["annotations"]["io.containerd.image.name"]
    assert built.metadata["containerimage.digest"] == named["digest"]
    assert "containerimage.digest" not in make(TEXT).metadata, "what is in the store has no manifest"
    assert {tag for image in make.store.images() for tag in image.tags} == {"base:latest", "mine:2"}


def test_annotations_are_the_manifest_s(make: Builder, tmp_path: Path) -> None:
    told = {"org.example.b": "2", "org.example.a": "1"}
    outputs = [Export("oci", f"{tmp_path}/layout/"), Export("docker", tmp_path / "docker.tar")]
    built = make(TEXT, {"f": "f"}, outputs=outputs, annotations=told)
    name = built.metadata["containerimage.digest"].removeprefix("sha256:")
    manifest = json.loads((tmp_path / "layout" / "blobs" / "sha256" / name).read_bytes())
    assert manifest["annotations"] == told
    with pytest.raises(ConfigError, match="annotations are a manifest's"):
        make(TEXT, outputs=[Export("docker", tmp_path / "docker.tar")], annotations=told)


def test_an_image_of_the_store_has_the_names_of_its_output(make: Builder) -> None:
    built = make(TEXT, {"f": "f"}, tags=["mine:1"], outputs=[Export(names=("mine:2", "other:1"))])
    assert set(built.image.tags) == {"mine:1", "mine:2", "other:1"}


def test_a_name_in_an_archive_that_another_image_has_stays_that_one_s(make: Builder, tmp_path: Path) -> None:
    base = make.store.image("base").id
    make("FROM base\nCOPY f /d/\n", {"f": "f"}, outputs=[Export("oci", tmp_path / "oci.tar", names=("base:latest",))])
    assert make.store.image("base:latest").id == base


def test_a_tree_is_a_tar_or_a_folder_and_no_image_is_left(make: Builder, tmp_path: Path) -> None:
    outputs = [Export("tar", tmp_path / "tree.tar"), Export("local", tmp_path / "tree")]
    make(TEXT, {"f": "f"}, outputs=outputs)
    assert (tmp_path / "tree" / "d" / "f").read_text() == "f"
    with tarfile.open(tmp_path / "tree.tar") as tar:
        assert "d/f" in [name.removeprefix("./") for name in tar.getnames()]
    assert [image.tags for image in make.store.images()] == [("base:latest",)]
    make(TEXT)
    assert make.done == [], "its layers are remembered"


def test_an_output_needs_a_place(make: Builder) -> None:
    with pytest.raises(ConfigError, match="needs a place"):
        make(TEXT, {"f": "f"}, outputs=[Export("tar")])


def test_contexts_have_names(make: Builder, tmp_path: Path, look: Look) -> None:
    other = tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    (other / "deep" / "file").write_text("other")
    built = make(
        "FROM base\nCOPY --from=more deep /d\nRUN --mount=type=bind,from=more,target=/m cat /m/deep/file > /said\n"
        "COPY --from=alias /etc/group /g\n",
        {},
        contexts={"more": str(other), "alias": "docker-image://base"},
    )
    assert look(built, "/d/file") == look(built, "/said") == "other"
    assert "staff" in look(built, "/g")


def test_a_context_takes_the_place_of_a_base_or_a_stage(make: Builder, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("other")
    built = make(
        "FROM nowhere/image AS one\nCOPY f /\nFROM base AS two\nRUN exit 1\nFROM one\nCOPY --from=two file /two\n",
        {"f": "f"},
        contexts={"nowhere/image": str(other), "two": str(other)},
    )
    assert names_in(built) == {"file", "f", "two"}
    assert make.store.leases("building") == {}


def test_the_epoch_is_said_in_many_ways(make: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    def created(text: str = TEXT, **options: object) -> str:
        return make(text, **options).image.created

    make.context({"f": "f"})
    assert created(source_date_epoch=86400) == "1970-01-02T00:00:00Z"
    assert created(build_args={"SOURCE_DATE_EPOCH": "172800"}) == "1970-01-03T00:00:00Z"
    assert created("ARG SOURCE_DATE_EPOCH=259200\n" + TEXT) == "1970-01-04T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "345600")
    assert created() == "1970-01-05T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ConfigError, match="no time"):
        created()
    with pytest.raises(ConfigError, match="no git commit"):
        created(source_date_epoch="context")
    git = ["git", "-C", str(make.folder), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "init", "-q", str(make.folder)], check=True)
    subprocess.run([*git, "add", "f"], check=True)
    when = {"GIT_AUTHOR_DATE": "@432000 +0000", "GIT_COMMITTER_DATE": "@432000 +0000", "PATH": "/usr/bin:/bin"}
    subprocess.run([*git, "commit", "-q", "-m", "m"], check=True, env=when)
    assert created(source_date_epoch="context") == "1970-01-06T00:00:00Z"


def test_a_context_may_be_an_image_in_a_folder(make: Builder, tmp_path: Path, look: Look) -> None:
    make("FROM base\nRUN echo inside > /x\n", {}, tags=["other"], outputs=[Export("oci", f"{tmp_path}/layout/")])
    make.store.remove_image("other")
    built = make(
        "FROM elsewhere\nCOPY --from=again /x /y\n",
        contexts={
            "elsewhere": f"oci-layout://{tmp_path}/layout:latest",
            "again": f"oci-layout://{tmp_path}/layout",
        },
    )
    assert look(built, "/y") == look(built, "/x") == "inside\n"


def test_a_folder_of_several_images_wants_to_be_told_which(make: Builder, tmp_path: Path, look: Look) -> None:
    layout = tmp_path / "layout"
    for word in ("one", "two"):
        make("FROM scratch\nCOPY f /x\n", {"f": word}, tags=[f"image:{word}"])
    make.store.save(["image:one", "image:two"], layout, format="oci", folder=True)
    index = json.loads((layout / "index.json").read_text())
    digests = [manifest["digest"] for manifest in index["manifests"]]

    def built(place: str) -> str:
        return look(make("FROM elsewhere\n", {}, contexts={"elsewhere": f"oci-layout://{layout}{place}"}), "/x")

    assert [built(":two"), built(f"@{digests[0]}"), built(f":one@{digests[1]}")] == ["two", "one", "two"]
    with pytest.raises(BuildError, match="has 2 images") as caught:
        built("")
    assert "image:one, image:two" in (caught.value.remedy or "")
    with pytest.raises(BuildError, match="no image three"):
        built(":three")
    nested = (layout / "index.json").read_bytes()
    digest = hashlib.sha256(nested).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(nested)
    about = {"mediaType": index["mediaType"], "digest": f"sha256:{digest}", "size": len(nested)}
    (layout / "index.json").write_text(json.dumps({**index, "manifests": [about]}))
    with pytest.raises(BuildError, match="has 2 images"):
        built(f"@sha256:{digest}")
    for each, name in zip(index["manifests"], ("other", "amd64"), strict=True):
        each["platform"] = {
            "os": "linux",
            "architecture": name if name == "other" else make.store.image("base").architecture,
        }
        del each["annotations"]
    nested = json.dumps(index).encode()
    digest = hashlib.sha256(nested).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(nested)
    about = {"mediaType": index["mediaType"], "digest": f"sha256:{digest}", "size": len(nested)}
    (layout / "index.json").write_text(json.dumps({**index, "manifests": [about]}))
    assert built(f"@sha256:{digest}") == "two"
