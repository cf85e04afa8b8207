"""Where mounts come from: other containers' volumes, paths within volumes, files that are given to the user."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from layerstore import ConfigError, Container, InUse, NotFound
from layerstore.runtime import Runtime
from layerstore.runtime.options import MountOption
from layerstore.runtime.streams import Streams
from runtime.life.conftest import Make
from support import images

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "conmon")]


def test_another_container_s_volumes_and_binds_are_mounted(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "told").write_text("told\n")
    mounts = (
        MountOption("volume", "/named", "keep"),
        MountOption("volume", "/own"),
        MountOption("bind", "/host", str(tmp_path), read_only=True),
        MountOption("tmpfs", "/scratch"),
    )
    first = make("sh", "-c", "echo 1 > /named/x; echo 2 > /own/x", mounts=mounts, name="first")
    assert runtime.run(first, Streams(None, None, None)) == 0
    script = "cat /named/x /own/x /host/told; echo 3 > /named/y; test ! -e /scratch"
    second = make("sh", "-c", script, volumes_from=("first",), name="second")
    third = make("sh", "-ec", "cat /named/y /own/x; ! touch /own/z", volumes_from=("second:ro",))
    assert _output(runtime, second) == "1\n2\ntold\n"
    assert _output(runtime, third).startswith("3\n2\n")
    uses = {use.target: use for use in runtime.store.volumes.of(third.id)}
    assert {target: use.read_only for target, use in uses.items()} == {"/named": True, "/own": True}
    assert uses["/own"].volume.name == runtime.store.volumes.of(first.id)[1].volume.name


def test_what_is_mounted_otherwise_comes_first(make: Make, runtime: Runtime) -> None:
    make("true", mounts=(MountOption("volume", "/a/", "old"), MountOption("volume", "/b", "old")), name="first")
    make("true", mounts=(MountOption("volume", "/b", "new"),), name="second")
    own = MountOption("volume", "/a", "mine")
    third = make("true", mounts=(own,), volumes_from=("first", "second"))
    assert [(use.target, use.volume.name) for use in runtime.store.volumes.of(third.id)] == [
        ("/a", "mine"),
        ("/b", "new"),
    ]


def test_what_other_containers_are_asked_for_has_to_be(make: Make, runtime: Runtime) -> None:
    make("true", name="first")
    with pytest.raises(NotFound, match="nobody"):
        make("true", volumes_from=("nobody",))
    with pytest.raises(ConfigError, match="invalid mode: rx"):
        make("true", volumes_from=("first:rx",))
    with pytest.raises(NotFound, match="none"):
        make("true", mounts=(MountOption("image", "/i", "none"),))
    with pytest.raises(ConfigError, match="cannot mount etc of image debian: an image is mounted as a whole"):
        make("true", mounts=(MountOption("image", "/i", "debian", subpath="etc"),))
    assert [container.name for container in runtime.store.containers()] == ["first"]


def test_a_path_within_a_volume_stays_within_it(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    volume = runtime.store.volumes.create("keep")
    (volume.mountpoint / "in/there").mkdir(parents=True)
    (volume.mountpoint / "in/there/x").write_text("inner\n")
    (volume.mountpoint / "link").symlink_to("/in/there")
    (volume.mountpoint / "out").symlink_to(f"../../../../../../../../../..{tmp_path}")
    for subpath in ("in/there", "link"):
        box = make("cat", "/v/x", mounts=(MountOption("volume", "/v", "keep", subpath=subpath),))
        assert _output(runtime, box) == "inner\n"
    for subpath in ("out", "none"):
        with pytest.raises(NotFound, match="cannot access path"):
            runtime.run(make("true", mounts=(MountOption("volume", "/v", "keep", subpath=subpath),)))
    for subpath in ("/in", "in/../.."):
        with pytest.raises(ConfigError, match="invalid subpath"):
            runtime.run(make("true", mounts=(MountOption("volume", "/v", "keep", subpath=subpath),)))


def test_files_are_given_to_the_user(make: Make, runtime: Runtime, tmp_path: Path) -> None:
    inner = tmp_path / "data/inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("")
    secret = tmp_path / "secret"
    secret.write_text("")
    (inner / "link").symlink_to(secret)
    mounts = (
        MountOption("bind", "/data", str(tmp_path / "data"), chown=True),
        MountOption("volume", "/v", "keep", chown=True),
    )
    box = make("touch", "/data/inner/file", "/v/x", user="someone", mounts=mounts)
    assert runtime.run(box, Streams(None, None, None)) == 0
    for path in (inner.parent, inner, inner / "file", inner / "link", runtime.store.volumes.get("keep").mountpoint):
        facts = path.lstat()
        assert (facts.st_uid, facts.st_gid) == (1000, 1000), path
    assert secret.stat().st_uid == 0


def test_who_joins_a_network_has_the_other_s_name_and_files(make: Make, runtime: Runtime) -> None:
    first = make("sleep", "60", network="none", hostname="first", add_hosts=("there:10.0.0.9",), name="first")
    runtime.start(first)
    second = make("cat", "/etc/hostname", "/etc/hosts", "/proc/sys/kernel/hostname", network="container:first")
    seen = _output(runtime, second).splitlines()
    assert (seen[0], seen[-1]) == ("first", "first")
    assert {"10.0.0.9\tthere", "127.0.1.1\tfirst"} <= set(seen)


TOOLS = images.layer(images.folder("./", mode=0o755), images.file("tool", "a tool\n"), images.file("two", "2\n"))


@pytest.mark.parametrize("how", ["directly", "held"])
def test_an_image_is_mounted_and_stays_while_it_is(make: Make, runtime: Runtime, how: str) -> None:
    import_tools(runtime)
    mounts = (MountOption("image", "/opt/tools", "tools"), MountOption("image", "/again", "tools"))
    script = "cat /opt/tools/tool /again/two; ! touch /opt/tools/new 2>/dev/null"
    box = make("sh", "-c", script, mounts=mounts, remove=how == "directly", name="box")
    assert _output(runtime, box) == "a tool\n2\n"
    if how == "directly":
        runtime.store.remove_image("tools")
        return
    assert list(box.changes()) == []
    with pytest.raises(InUse, match="image tools:latest is in use by container box") as held:
        runtime.store.remove_image("tools")
    assert "layerstore rm box" in str(held.value.remedy)
    assert runtime.store.prune(all_images=True).images == ()
    other = make("cat", "/opt/tools/tool", volumes_from=("box",))
    runtime.remove(box)
    assert _output(runtime, other) == "a tool\n"
    runtime.remove(other)
    runtime.store.remove_image("tools")


def test_an_image_s_tree_goes_on_in_what_is_held(make: Make, runtime: Runtime) -> None:
    import_tools(runtime)
    line = "until test -e /tmp/seen; do sleep 0.02; done; cat /opt/tools/tool"
    box = make("sh", "-c", line, mounts=(MountOption("image", "/opt/tools", "tools"),), name="box")
    runtime.start(box)
    with pytest.raises(InUse, match=r"container box \(running\)") as held:
        runtime.store.remove_image("tools")
    assert "layerstore stop box; layerstore rm box" in str(held.value.remedy)
    Path(f"/proc/{runtime.state(box).pid}/root/tmp/seen").touch()
    assert runtime.wait(box) == 0
    assert [entry.data for entry in runtime.logs(box)] == [b"a tool\n"]


def import_tools(runtime: Runtime) -> None:
    runtime.store.import_tar(io.BytesIO(TOOLS), "tools")


def _output(runtime: Runtime, box: Container) -> str:
    fd = os.memfd_create("written")
    try:
        code = runtime.run(box, Streams(stdin=None, stdout=fd, stderr=fd))
        text = Path(f"/proc/self/fd/{fd}").read_text()
    finally:
        os.close(fd)
    assert code == 0, text
    return text
