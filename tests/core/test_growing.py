"""Images made from Python: a folder or a tar appended, a configuration altered, several layers made one."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from layerstore.errors import CannotCopy, ConfigError, InvalidArchive, KernelError, NotFound
from layerstore.images import Image
from layerstore.store import Store
from layerstore.testing import trees
from support import images as make

pytestmark = pytest.mark.root

Content = Callable[[Image], dict[str, str]]

WHEN = make.EPOCH * 10**9


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder of the host."""
    folder = tmp_path / "app"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc").chmod(0o700)
    (folder / "etc/motd").write_text("hello\n")
    (folder / "bin").mkdir()
    (folder / "bin/run").write_text("#!/bin/sh\n")
    (folder / "bin/run").chmod(0o4755)
    os.link(folder / "bin/run", folder / "bin/go")
    (folder / "bin/link").symlink_to("run")
    for path in (*folder.rglob("*"), folder):
        os.chown(path, 1000, 1000, follow_symlinks=False)
    os.chmod(folder / "bin/run", 0o4755)
    return folder


@pytest.fixture
def image(add: Adder, base: bytes) -> Image:
    return add(base, name="base")


def seen(image: Image) -> dict[str, trees.Entry]:
    with image.mount() as root:
        return trees.listing(root)


def test_a_folder_is_appended_as_a_layer(store: Store, image: Image, app: Path, read_back: Content) -> None:
    made = image.append(app, created_by="COPY app /", message="the app", author="me", tags=["made", "made:2"])
    assert made.tags == ("made:2", "made:latest")
    assert made.layers[:-1] == image.layers
    assert made.parent == image.id
    step = made.history[-1]
    assert (step.created_by, step.comment, step.author) == ("COPY app /", "the app", "me")
    assert step.diff_id == made.layers[-1]
    assert read_back(made)["etc/motd"] == "hello\n"
    assert read_back(made)["usr/tool"] == "#!/bin/sh\n"
    with made.mount() as root:
        facts = os.stat(root / "bin/run")
        assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777, facts.st_nlink) == (0, 0, 0o4755, 2)
        assert os.readlink(root / "bin/link") == "run"
        kept = os.stat(root / "etc")  # which the image has
        assert (kept.st_uid, kept.st_mode & 0o7777) == (3, 0o750)
    assert store.check(content=True) == []


def test_the_layer_lists_the_folders_of_the_image_that_it_adds_to(store: Store, image: Image, app: Path) -> None:
    made = image.append(app / "etc", "etc/conf.d/mine")
    entries = {entry.path: entry for entry in store.layer_entries(made.layers[-1])}
    assert list(entries) == [b"", b"etc", b"etc/conf.d", b"etc/conf.d/mine", b"etc/conf.d/mine/motd"]
    assert [(entry.mode & 0o7777, entry.uid) for entry in entries.values()] == [
        (0o755, 0),
        (0o750, 3),
        (0o755, 0),
        (0o755, 0),
        (0o644, 0),
    ]
    assert not any(entry.implied for entry in entries.values())


def test_owners_stay_if_that_is_wanted(image: Image, app: Path) -> None:
    with image.append(app, "/srv", owner=None).mount() as root:
        assert {os.stat(root / "srv" / name).st_uid for name in ("etc", "bin/run")} == {1000}
    with image.append(app, "/srv", owner=(7, 8)).mount() as root:
        assert os.stat(root / "srv/bin").st_gid == 8


def test_an_image_begins_with_nothing(store: Store, app: Path, read_back: Content) -> None:
    made = store.scratch().append(app, tags=["first"])
    assert len(made.layers) == 1
    assert made.parent is None
    script = "#!/bin/sh\n"
    assert read_back(made) == {"bin/go": script, "bin/run": script, "bin/link": script, "etc/motd": "hello\n"}
    other = store.scratch("linux/arm64").append(app)
    assert (other.os, other.architecture) == ("linux", "arm64")
    assert other.layers == made.layers
    empty = store.scratch().with_config(cmd=["/run"])
    assert (empty.layers, empty.config["config"]) == ((), {"Cmd": ["/run"]})


@pytest.mark.parametrize("form", ["file", "compressed", "open"])
def test_a_tar_is_the_layer_as_it_is(
    store: Store, image: Image, upper: bytes, tmp_path: Path, form: str, read_back: Content
) -> None:
    path = tmp_path / "layer.tar"
    path.write_bytes(gzip.compress(upper) if form == "compressed" else upper)
    made = image.append(io.BytesIO(upper) if form == "open" else path, tags=["x"])
    assert made.layers == (*image.layers, make.digest(upper))
    assert read_back(made) == {"etc/passwd": "root:x:0:0\nme:x:1:1\n", "etc/new": "new", "usr/tool": "#!/bin/sh\n"}
    assert store.image("x") == made


def test_the_same_folder_is_the_same_image_with_a_fixed_time(
    image: Image, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(make.EPOCH))
    first = image.append(app, "opt/app")
    for path in (*app.rglob("*"), app):
        os.utime(path, follow_symlinks=False)
    assert image.append(app, "opt/app") == first
    with first.mount() as root:
        times = {path.lstat().st_mtime_ns for path in (root / "opt").rglob("*")}
    assert times == {WHEN}
    assert image.append(app, "opt/app", latest=5).layers != first.layers


def test_what_cannot_be_appended_leaves_nothing(
    store: Store, add: Adder, image: Image, app: Path, tmp_path: Path
) -> None:
    linked = add(make.layer(make.folder("usr/bin"), make.symlink("bin", "usr/bin"), make.file("file", "f")))
    with pytest.raises(CannotCopy, match="/bin is a symbolic link in the image"):
        linked.append(app)
    with pytest.raises(CannotCopy, match="/bin is a symbolic link in the image"):
        linked.append(app, "bin/sub")
    with pytest.raises(CannotCopy, match="/file is a file in the image"):
        linked.append(app, "file")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/usr").write_text("no folder")
    with pytest.raises(CannotCopy, match="/usr is a folder in the image, and no folder in what is appended"):
        linked.append(tmp_path / "flat")
    with pytest.raises(ConfigError, match=r"\.\."):
        image.append(app, "../x")
    with pytest.raises(ConfigError, match="for folders"):
        image.append(io.BytesIO(b""), "/opt")
    with pytest.raises(KernelError, match="No such file"):
        image.append(tmp_path / "nowhere")
    with pytest.raises(InvalidArchive):
        image.append(app / "etc/motd")
    with pytest.raises(ConfigError):
        image.append(app, instructions=["RUN true"])
    assert {found.id for found in store.images()} == {image.id, linked.id}
    assert store.prune(images=False).layers == ()


def test_a_configuration_is_altered(store: Store, image: Image) -> None:
    made = image.with_config(
        instructions=["ENV A=1 B=2", "LABEL x=y"],
        env={"B": "3", "PATH": None, "C": "a b"},
        labels={"n": "1"},
        entrypoint=["/entry", "-v"],
        user="app",
        working_dir="/srv",
        stop_signal="SIGINT",
        ports=["80", "53/udp"],
        volumes=["/data"],
        created_by="by hand",
        tags=["made"],
    )
    assert made.config["config"] == {
        "Env": ["A=1", "B=3", "C=a b"],
        "Labels": {"x": "y", "n": "1"},
        "Entrypoint": ["/entry", "-v"],
        "User": "app",
        "WorkingDir": "/srv",
        "StopSignal": "SIGINT",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Volumes": {"/data": {}},
    }
    assert made.layers == image.layers
    assert made.parent == image.id
    assert (made.history[-1].created_by, made.history[-1].empty_layer) == ("by hand", True)
    assert made.with_config(labels={"x": None}, cmd=["-q"]).config["config"]["Labels"] == {"n": "1"}
    assert image.with_config(cmd=["/bin/ls"], entrypoint=["/e"]).config["config"]["Cmd"] == ["/bin/ls"]
    assert image.with_config(instructions=['CMD ["x"]'], entrypoint=["/e"]).config["config"]["Cmd"] == ["x"]
    with pytest.raises(ConfigError):
        image.with_config(env={"A=B": "1"})
    assert store.check() == []


def test_steps_follow_each_other(store: Store, app: Path) -> None:
    made = store.scratch().append(app).with_config(cmd=["/bin/run"]).append(app, "/again", tags=["all"])
    assert [step.empty_layer for step in made.history] == [False, True, False]
    assert made.config["config"] == {"Cmd": ["/bin/run"]}
    store.remove_image("all")
    assert store.images() == []


def test_of_an_image_that_is_gone_nothing_is_made(store: Store, image: Image, app: Path, upper: bytes) -> None:
    image.remove()
    for attempt in (lambda: image.append(app), lambda: image.append(io.BytesIO(upper)), image.with_config):
        with pytest.raises(NotFound):
            attempt()
    assert (store.images(), store.prune().layers) == ([], ())


# --- several layers become one


@pytest.fixture
def tall(store: Store, image: Image, upper: bytes, app: Path) -> Image:
    """An image of four layers on the base."""
    made = image.append(io.BytesIO(upper), created_by="one").append(app, created_by="two")
    made = made.with_config(env={"A": "1"}, created_by="three")
    gone = make.layer(make.whiteout("bin"), make.file("usr/tool", "other"))
    made = made.append(io.BytesIO(gone), created_by="four")
    return made.append(io.BytesIO(make.layer(make.hard_link("etc/again", "etc/new"))), tags=["tall"], created_by="five")


def test_all_layers_become_one(store: Store, tall: Image) -> None:
    made = store.squash("tall", tags=["flat"])
    assert len(made.layers) == 1
    assert seen(made) == seen(tall)
    assert made.tags == ("flat:latest",)
    assert made.config["config"] == tall.config["config"]
    assert made.created == tall.created
    assert [step.created_by for step in made.history] == ["layer 0", "one", "two", "three", "four", "five", ""]
    assert [step.empty_layer for step in made.history] == [True] * 6 + [False]
    assert made.history[-1].comment == f"merge {tall.short_id} to scratch"
    assert b"bin" not in {entry.path for entry in store.layer_entries(made.layers[0])}
    assert made.parent is None
    assert store.squash(tall) == made
    assert store.check(content=True) == []


def test_layers_above_an_image_become_one(store: Store, image: Image, tall: Image) -> None:
    made = store.squash(tall, since="base")
    assert made.layers[0] == image.layers[0]
    assert len(made.layers) == 2
    assert made.parent == image.id
    assert seen(made) == seen(tall)
    assert [step.empty_layer for step in made.history] == [False] + [True] * 5 + [False]
    changed = {entry.path for entry in store.layer_entries(made.layers[1])}
    assert b"usr/tool" in changed
    assert b"bin" not in changed
    assert made.history[-1].comment == f"merge {tall.short_id} to {image.short_id}"
    store.remove_image("tall")
    assert store.check(content=True) == []


@pytest.mark.parametrize("kind", ["chain_ids", "layers"])
def test_layers_above_a_layer_become_one(store: Store, tall: Image, kind: str) -> None:
    made = store.squash(tall, since=getattr(tall, kind)[1])
    assert made.layers[:2] == tall.layers[:2]
    assert len(made.layers) == 3
    assert seen(made) == seen(tall)


def test_an_image_without_two_layers_to_make_one_of_is_itself(store: Store, image: Image, tall: Image) -> None:
    assert store.squash(image, tags=["again"]).id == image.id
    assert store.image("again").id == image.id
    assert store.squash(tall, since=tall.chain_ids[-2]).id == tall.id
    assert store.squash(tall, since=tall).id == tall.id


def test_layers_that_come_to_nothing_leave_none(store: Store, image: Image) -> None:
    there = image.append(io.BytesIO(make.layer(make.file("usr/tool", "x"))))
    whole = make.layer(
        make.folder("usr/"),
        make.file("usr/tool", b"#!/bin/sh\n", mode=0o4755),
    )
    made = store.squash(there.append(io.BytesIO(whole)), since=image)
    assert made.layers == image.layers
    assert [step.empty_layer for step in made.history] == [False, True, True, True]


def test_squash_since_what_is_not_below_is_refused(store: Store, add: Adder, tall: Image, upper: bytes) -> None:
    other = add(upper, name="other")
    with pytest.raises(ConfigError, match="its layers are not below"):
        store.squash(tall, since="other")
    with pytest.raises(NotFound):
        store.squash(tall, since="nothing")
    with pytest.raises(NotFound):
        store.squash(tall, since=make.digest(b"no layer"))
    assert store.image("other") == other


def test_the_same_images_under_every_driver(
    backing: Callable[[str], Path], base: bytes, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = backing("btrfs")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(make.EPOCH))
    found = {}
    for driver, options in {"overlay2": (), "btrfs": (), "aufs": ("aufs.mode=copy",), "vfs": ()}.items():
        settings = layerstore.Config(
            data_root=folder / driver, exec_root=folder / "exec", storage_driver=driver, storage_opts=options
        )
        with layerstore.open(config=settings) as store:
            image = Adder(store)(base, name="base")
            made = image.append(app).append(io.BytesIO(make.layer(make.whiteout("bin/go")))).append(app, "opt/x")
            found[driver] = [made.id, store.squash(made).id, store.squash(made, since="base").id]
            assert store.check(content=True) == []
    assert all(images == found["overlay2"] for images in found.values())
