"""Mount points that a tree lacks: made for a run, and gone after it, on every driver, as if they had never been."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import layerstore
from layerstore.runtime import bundle
from layerstore.runtime.bundle.traces import Trace
from layerstore.runtime.options import RunOptions
from support import images as make
from support.properties import by_day

from .conftest import HOST

IMAGE = make.layer(
    make.folder("./"),
    make.folder("etc/"),
    make.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    make.symlink("etc/resolv.conf", "../run/resolve/stub.conf"),
    make.folder("var/", mode=0o2775, gid=50),
    make.symlink("var/run", "/run"),
    make.folder("data/"),
)
DRIVERS = {"overlay2": "ext4", "btrfs": "btrfs", "vfs": "xfs", "aufs": "ext4", "erofs": "ext4"}


@pytest.fixture(params=DRIVERS)
def box(request: pytest.FixtureRequest, backing: Callable[[str], Path]) -> Iterator[layerstore.Container]:
    driver = str(request.param)
    folder = backing(DRIVERS[driver])
    settings = layerstore.Config(data_root=folder / "store", exec_root=folder / "exec", storage_driver=driver)
    with layerstore.open(config=settings) as store:
        image = store.import_tar(io.BytesIO(IMAGE))
        yield store.create_container(image, name="box")


def tree_of(root: Path) -> dict[str, tuple[int, ...]]:
    """All that a tar would have of a tree's files."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        facts = path.lstat()
        size = 0 if path.is_dir() else facts.st_size
        found[str(path.relative_to(root))] = (facts.st_mode, facts.st_uid, facts.st_gid, size, facts.st_mtime_ns)
    return found


def config_of(root: Path, tree: int, *targets: str, working_dir: str = "/") -> dict[str, object]:
    place = bundle.Place(id="ab" * 32, root=str(root), tree=tree, files="/there")
    binds = [bundle.Bind("/dev/null" if target.endswith(".txt") else "/tmp", target) for target in targets]
    options = RunOptions(args=("true",), working_dir=working_dir, init=True)
    return bundle.make({}, options, HOST, place, binds)


@pytest.mark.root
def test_a_run_leaves_no_trace_in_the_container(box: layerstore.Container) -> None:
    with box.mount() as root:
        before = tree_of(root)
        tree = os.open(root, os.O_PATH | os.O_DIRECTORY)
        try:
            config = config_of(root, tree, "/data/in/there.txt", "/var/lib/x", "/var/run/y", working_dir="/work/here")
            planned = bundle.plan_traces(tree, config)
            assert tree_of(root) == before  # a plan is a plan
            bundle.make_traces(tree, planned)
            assert {trace.path for trace in planned} <= {f"/{name}" for name in tree_of(root)}
            assert bundle.plan_traces(tree, config) == ()  # nothing is missing now
            bundle.erase_traces(tree, planned)
            assert tree_of(root) == before
        finally:
            os.close(tree)
        assert [str(change) for change in box.changes()] == []
    assert [str(change) for change in box.changes()] == []


@pytest.mark.root
def test_what_a_program_made_stays(box: layerstore.Container) -> None:
    with box.mount() as root:
        tree = os.open(root, os.O_PATH | os.O_DIRECTORY)
        try:
            planned = bundle.plan_traces(tree, config_of(root, tree, "/srv/data", working_dir="/work"))
            bundle.make_traces(tree, planned)
            (root / "srv/mine").write_text("")
            (root / "work").chmod(0o700)
            bundle.erase_traces(tree, planned)
        finally:
            os.close(tree)
    assert [str(change) for change in box.changes()] == ["A /srv", "A /srv/mine", "A /work"]


def test_a_plan_follows_symbolic_links_as_the_runtime_will(root: Path, tree: int) -> None:
    (root / "etc/hosts").symlink_to("/../../run/../lib/hosts")
    planned = bundle.plan_traces(tree, config_of(root, tree))
    assert planned == (
        Trace("/lib", folder=True),
        Trace("/lib/hosts", folder=True),
        Trace("/etc/hostname", folder=True),
        Trace("/etc/resolv.conf", folder=True),
    )


def test_what_lies_in_another_mount_is_no_trace(root: Path, tree: int) -> None:
    (root / "v").symlink_to("data")
    planned = bundle.plan_traces(tree, config_of(root, tree, "/data", "/v/inner", "/data/more", working_dir="/v/in"))
    assert [trace.path for trace in planned if not trace.path.startswith("/etc")] == ["/data"]


def test_a_file_on_the_way_is_refused(root: Path, tree: int) -> None:
    with pytest.raises(layerstore.CannotRun, match="not a directory: /etc/passwd, on the way to /etc/passwd/x"):
        bundle.plan_traces(tree, config_of(root, tree, "/etc/passwd/x"))


def test_a_link_that_leads_to_itself_is_refused(root: Path, tree: int) -> None:
    (root / "round").symlink_to("round")
    with pytest.raises(layerstore.KernelError, match="Too many levels of symbolic links"):
        bundle.plan_traces(tree, config_of(root, tree, "/round/x"))


NAMES = st.sampled_from(["a", "b", "link", "out", "..", "deep"])


@by_day(40)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), max_size=4), st.data())
def test_any_plan_is_taken_back(
    tmp_path_factory: pytest.TempPathFactory, targets: list[str], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("tree")
    (root / "a/deep").mkdir(parents=True)
    (root / "link").symlink_to("/a/../b")
    (root / "out").symlink_to("../../../a")
    (root / "etc").mkdir()
    before = tree_of(root)
    outside = set(root.parent.iterdir())
    tree = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        planned = bundle.plan_traces(tree, config_of(root, tree, *(f"/{target}/m" for target in targets)))
        done = data.draw(st.integers(0, len(planned)))  # whoever made them may have died on the way
        bundle.make_traces(tree, planned[:done])
        bundle.make_traces(tree, planned[:done])
        bundle.erase_traces(tree, planned)
        bundle.erase_traces(tree, planned)
    finally:
        os.close(tree)
    assert tree_of(root) == before
    assert set(root.parent.iterdir()) == outside
