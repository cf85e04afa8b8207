"""By night: stores that docker and podman make here, by whatever version of them there is, while dockerd runs."""

from __future__ import annotations

import os
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from attached import record
from layerstore import Store
from layerstore.errors import Damaged
from support import images as make

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "nightly", reason="dockerd takes seconds to start"),
]


def tars_of(store: Store, name: str) -> list[bytes]:
    found = []
    for chain in store.image(name).chain_ids:
        out = bytearray()
        store.write_layer(chain, out.extend)
        found.append(bytes(out))
    return found


@pytest.mark.tools("dockerd", "docker")
@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_dockerd_runs_on_and_knows_nothing_of_it(driver: str, place: Path, attached: Callable[..., Store]) -> None:
    folder = place / "docker"
    folder.mkdir()
    with record.dockerd(folder, driver=driver) as client:
        store = attached(f"docker:{folder / 'data-root'}")
        ids = {image.id for image in store.attached_images()}
        assert ids == set(client("images", "-aq", "--no-trunc").split())
        assert tars_of(store, record.NAME) == list(record.LAYERS)
        client("save", "-o", place / "built.tar", record.BUILT)
        with tarfile.open(place / "built.tar") as saved:
            theirs = {make.digest(saved.extractfile(one).read()) for one in saved if one.isfile()}  # type: ignore[union-attr]
        assert {make.digest(tar) for tar in tars_of(store, record.BUILT)} <= theirs
        with store.create_container(record.BUILT, name="web") as box:
            with box.mount() as root:
                (root / "srv/mine").write_text("mine")
                client("build", "-q", "-t", "other", folder / "context")
                assert (root / "srv/added").read_text() == "added\n"
            mine = box.commit("mine:1")
        store.save("mine:1", place / "mine.tar")
        client("load", "-q", "-i", place / "mine.tar")
        assert mine.id in client("images", "-aq", "--no-trunc").split()

        stop, failures = threading.Event(), []

        def look() -> None:
            while not stop.is_set():
                try:
                    list(store.attached_images())
                except Damaged as error:
                    failures.append(error)

        thread = threading.Thread(target=look)
        thread.start()
        for number in range(5):
            (folder / "context/added").write_text(f"{number}\n")
            client.build(folder / "context", "churn")
            client("rmi", "churn")
        stop.set()
        thread.join()
        assert failures == []

        client("rmi", "-f", "mine:1", "other", record.BUILT, record.NAME)
        with pytest.raises(Damaged, match="has removed it meanwhile"):
            tars_of(store, mine.id)
        client("load", "-q", "-i", place / "mine.tar")
        assert len(tars_of(store, mine.id)) == len(mine.layers)
        store.adopt(mine.id)
        client("rmi", "mine:1")
    assert store.check(content=True) == []


@pytest.mark.tools("skopeo")
@pytest.mark.parametrize("kind", ["podman", "vfs"])
def test_what_skopeo_keeps_for_podman(kind: str, place: Path, attached: Callable[..., Store]) -> None:
    with record.made(kind, place) as root:
        store = attached(f"podman:{root}")
        assert tars_of(store, record.NAME) == list(record.LAYERS)
        with store.image(record.NAME).mount() as seen:
            assert (seen / "etc/motd").read_text() == "hello\n"


@pytest.mark.tools("containerd", "ctr")
def test_containerd_runs_on_with_its_databases_locked(place: Path, attached: Callable[..., Store]) -> None:
    with record.containerds(place) as root:
        store = attached(f"containerd:{root}")
        assert tars_of(store, record.NAME) == list(record.LAYERS)
        client = ["ctr", "--address", str(place / "c.sock"), "images"]
        failures: list[Exception] = []
        stop = threading.Event()

        def look() -> None:
            while not stop.is_set():
                try:
                    assert record.NAME in {name for image in store.attached_images() for name in image.tags}
                except (Damaged, AssertionError) as error:
                    failures.append(error)

        thread = threading.Thread(target=look)
        thread.start()
        for number in range(60):
            name = f"example.org/churn/app:{number}"
            subprocess.run([*client, "tag", record.NAME, name], check=True, capture_output=True)
            subprocess.run([*client, "rm", name], check=True, capture_output=True)
        stop.set()
        thread.join()
        assert failures == []
        with store.create_container(record.NAME, name="web") as box, box.mount() as seen:
            assert (seen / "etc/motd").read_text() == "hello\n"
            assert sorted(path.name for path in (seen / "bin").iterdir()) == ["new"]
