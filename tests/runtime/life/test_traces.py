"""Mount points that are made for a run are made in the container's tree, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layerstore import Container, Mounted, Store
from layerstore.runtime import Runtime
from layerstore.runtime.bundle import Trace
from layerstore.runtime.life import traces
from layerstore.runtime.life.places import Folder
from layerstore.runtime.options import MountOption
from runtime.life.conftest import Make, eventually

pytestmark = pytest.mark.root


def test_none_is_made_where_the_tree_was_taken_away(
    loaded: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint or rollback by another process unmounts a container for a moment: its path is the host's then."""
    box = loaded.create_container("debian")
    mount, bare = Container.mount, []

    def taken_away_once(container: Container) -> Mounted:
        mounted = mount(container)
        if not bare:
            container.unmount(all=True)
            bare.append(mounted.path)
        return mounted

    monkeypatch.setattr(Container, "mount", taken_away_once)
    folder = Folder(tmp_path / "place", tmp_path / "kept", "box")
    with traces.made(box, folder, [Trace("made", True)]):
        pass
    [path] = bare
    assert not list(path.iterdir())
    assert [str(change) for change in box.changes()] == ["A /made"]
    assert json.loads((tmp_path / "kept" / "traces.json").read_text()) == [["made", True]]
    traces.erase(box, folder)
    assert not list(box.changes())


@pytest.mark.tools("crun", "conmon")
def test_none_comes_back_with_a_checkpoint_of_what_ran(runtime: Runtime, make: Make) -> None:
    volume = MountOption("volume", "/made/vol")
    box = make("sh", "-c", "echo 1 > /written; exec sleep 100", mounts=(volume,))
    runtime.start(box)
    eventually(lambda: "A /written" in [str(change) for change in box.changes()], True)
    point = runtime.checkpoint(box, "one")
    assert point.consistent
    runtime.stop(box, 0)
    assert [str(change) for change in box.changes()] == ["A /written"]

    runtime.rollback(box, point)
    [twin] = runtime.fork(box, 1, checkpoint=point)

    assert [str(change) for change in box.changes()] == ["A /written"]
    assert [str(change) for change in twin.changes()] == ["A /written"]
    twin.remove(volumes=True)
