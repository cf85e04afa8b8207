"""Images go between a store and Debian's containerd without a copy: to it by CRI, as Kubernetes pulls; and out of it,
whichever snapshotter has unpacked them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

import layerstore
from containerd.daemon import KUBERNETES, Daemon
from containerd.test_containerd import IMAGE, LAYERS, require_nothing
from layerstore import Store
from layerstore.errors import Damaged
from layerstore.faces.serve import Registry
from layerstore.faces.serve.server import Server, Timing
from support import images

pytestmark = [pytest.mark.root, pytest.mark.tools("containerd", "ctr", "runc", "busybox")]

BLOBS = "io.containerd.content.v1.content/blobs/sha256"


def pulled_by_cri(daemon: Daemon, name: str) -> None:
    """As the kubelet has it pulled: a PullImageRequest with an ImageSpec with the name, which are one field each."""
    text = name.encode()
    spec = bytes((0x0A, len(text))) + text
    with grpc.insecure_channel(f"unix:{daemon.folder}/c.sock") as channel:
        pull = channel.unary_unary(
            "/runtime.v1.ImageService/PullImage", request_serializer=bytes, response_deserializer=bytes
        )
        assert pull(bytes((0x0A, len(spec))) + spec, wait_for_ready=True, timeout=60)


def test_what_the_store_has_is_pulled_by_cri_without_its_layers_and_runs(
    open_store: Callable[..., Store], tmp_path: Path
) -> None:
    store = open_store("overlay2")
    images.docker_archive(tmp_path / "small.tar", LAYERS, ["team/small:1"])
    [loaded] = store.load(tmp_path / "small.tar")
    timing = Timing(tick=0.02)
    with (
        Daemon(store.config, cri=True) as daemon,
        Server("127.0.0.1", 0, Registry(store, read_only=True), timing=timing, threads=4) as server,
    ):
        name = f"127.0.0.1:{server.port}/team/small:1"
        there = ("--namespace", KUBERNETES)

        pulled_by_cri(daemon, name)

        came = daemon(*there, "content", "ls", "--quiet").split()
        assert loaded.id in came
        assert len(came) == 2, "the config and the manifest, and no layer"
        assert all(snapshot.is_layer for snapshot in store.snapshots.all()), "nothing was unpacked"
        # Of its own, for what is asked of CRI is known by one name to all of a machine.
        own = ("--runc-root", daemon.folder / "runc", "--cgroup", f"/{daemon.namespace}/one")
        words = ("run", "--snapshotter", "layerstore", "--env", "PATH=/bin", "--rm", *own)
        assert daemon(*there, *words, name, daemon.namespace, "cat", "/etc/issue") == "hello\n"
        daemon(*there, "images", "rm", "--sync", *daemon(*there, "images", "ls", "--quiet").split())
        require_nothing(daemon, store)


def test_what_another_snapshotter_has_unpacked_is_told_so_and_can_be_adopted(
    open_store: Callable[..., Store], backing: Callable[[str], Path], tmp_path: Path
) -> None:
    place = backing("ext4")
    own = layerstore.Config(data_root=place / "own", exec_root=place / "run", storage_driver="overlay2")
    images.docker_archive(tmp_path / "small.tar", LAYERS, ["small:1"])
    with Daemon(open_store("overlay2").config) as daemon:
        daemon("images", "import", "--snapshotter", "layerstore", tmp_path / "small.tar")
        with layerstore.open(config=own, attach=[f"containerd:{daemon.root}"]) as store:
            with pytest.raises(Damaged, match="the snapshotter layerstore has unpacked it, and not overlayfs") as told:
                store.image(IMAGE)
            assert "layerstore adopt" in told.value.remedy

            done = store.adopt(IMAGE)

            assert (list(done.image.layers), done.notices) == ([images.digest(layer) for layer in LAYERS], ())
            with done.image.mount() as root:
                assert (root / "etc/issue").read_text() == "hello\n"
            store.remove_image(IMAGE)
            for blob in done.image.layers:  # an archive's layers are not compressed
                (daemon.root / BLOBS / blob[7:]).unlink()
            with pytest.raises(Damaged, match="and not overlayfs") as told:
                store.image(IMAGE)
            assert "Neither is there a blob of it" in told.value.remedy
