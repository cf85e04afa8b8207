"""A store: opened cheaply, by many, with the driver it was made with; in order again after whatever happened."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import layerstore
from core.adding import Adder
from layerstore import facts
from layerstore.driver import Layer
from layerstore.errors import ConfigError, Damaged, DriverMismatch, InUse, KernelError, NotFound, StoreClosed
from layerstore.store import Store
from support import images as make

Leftovers = Callable[[], Sequence[str]]


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_import_costs_nothing() -> None:
    program = "import sys; before = set(sys.modules); import layerstore; print(*sorted(set(sys.modules) - before))"
    assert run(program).stdout.split() == ["__future__", "layerstore"]


def test_every_public_name_is_there() -> None:
    assert {name for name in layerstore.__all__ if getattr(layerstore, name, None) is None} == set()
    assert set(layerstore.__all__) <= set(dir(layerstore))
    with pytest.raises(AttributeError):
        layerstore.nothing  # noqa: B018


@pytest.mark.root
def test_new_store_is_for_its_owner_alone(store: Store, data_root: Path) -> None:
    store.create_container()
    assert data_root.stat().st_mode & 0o777 == 0o711
    modes = {path.name: path.stat().st_mode & 0o777 for path in data_root.iterdir()}
    assert {name for name, mode in modes.items() if mode & 0o077} == set()
    assert set(modes) >= {"layerstore.db", "overlay2", "skeletons", "staging"}


@pytest.mark.root
@pytest.mark.parametrize("how", ["open", "migrate"])
def test_where_none_is_made_a_store_that_is_lost_is_told_from_none(store: Store, data_root: Path, how: str) -> None:
    def ask(root: Path) -> object:
        return layerstore.open(root, make=False) if how == "open" else layerstore.migrate("vfs", root)

    store.close()
    with pytest.raises(NotFound, match="there is no store in"):
        ask(data_root.parent / "misspelt")
    (data_root / "skeletons/layer").mkdir()
    for path in data_root.glob("layerstore.db*"):
        path.unlink()
    with pytest.raises(Damaged, match=r"layerstore\.db is gone, and there are layers beside it") as lost:
        ask(data_root)
    assert "rescue" in str(lost.value.remedy)
    with pytest.raises(KernelError, match="File name too long"):
        ask(data_root / ("x" * 300))


@pytest.mark.root
def test_store_remembers_its_driver(store: Store, settings: layerstore.Config, data_root: Path) -> None:
    from attrs import evolve

    with layerstore.open(config=evolve(settings, storage_driver=None)) as again:
        assert (again.driver_name, again.id) == ("overlay2", store.id)
    with pytest.raises(DriverMismatch, match="overlay2"):
        layerstore.open(config=settings, storage_driver="vfs")
    with pytest.raises(ConfigError, match="no option"):
        layerstore.open(config=settings, storage_opts=["overlay2.nonsense=1"])


@pytest.mark.root
def test_config_file_is_read(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text(f'{{"data-root": "{data_root}", "storage-driver": "overlay2"}}')
    with layerstore.open(config=tmp_path / "daemon.json") as store:
        assert store.data_root == data_root
    with layerstore.open(data_root.with_name("other"), config=str(tmp_path / "daemon.json")) as store:
        assert store.data_root == data_root.with_name("other")


@pytest.mark.root
def test_many_processes_may_found_it_at_once(settings: layerstore.Config) -> None:
    program = (
        "import sys, layerstore\n"
        "with layerstore.open(config=layerstore.Config(data_root=sys.argv[1], exec_root=sys.argv[2])) as store:\n"
        "    store.create_container(); print(store.id)\n"
    )
    others = [
        subprocess.Popen(
            [sys.executable, "-c", program, settings.data_root, settings.exec_root], stdout=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    ids = {other.communicate()[0].strip() for other in others}
    assert [other.returncode for other in others] == [0] * 5
    with layerstore.open(config=settings) as store:
        assert ids == {store.id}
        assert len(store.containers()) == 5
        assert store.check() == []


@pytest.mark.root
def test_ordinary_user_is_told_to_be_root(settings: layerstore.Config, store: Store) -> None:
    program = (
        "import os, sys, layerstore\n"
        "settings = layerstore.Config(data_root=sys.argv[1], exec_root=sys.argv[2])\n"
        "from layerstore import plugins, store; layerstore.errors\n"
        "os.setuid(12345)\n"
        "try:\n    layerstore.open(config=settings)\n"
        "except layerstore.KernelError as error:\n    print(error.errno, error)\n"
    )
    for data_root in (settings.data_root, settings.data_root.with_name("other")):
        done = run(program, data_root, settings.exec_root)
        assert done.stdout.startswith("13 "), done.stderr
        assert "root" in done.stdout


@pytest.mark.root
def test_closed_store_is_refused(store: Store) -> None:
    store.close()
    store.close()
    for use in (store.images, store.containers, store.create_container, store.check):
        with pytest.raises(StoreClosed):
            use()


@pytest.mark.root
def test_child_of_a_fork_is_refused(store: Store, add: Adder, base: bytes) -> None:
    image = add(base)
    with layerstore.open(config=store.config) as gone:
        gone.create_container()
    with store.create_container(image) as box, box.mount() as root:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with store, box, box.mount():
                    pass
            except StoreClosed:
                status = 0
            finally:
                os._exit(status)  # whatever was raised: the child must not go on with the tests
        assert os.waitpid(child, 0)[1] == 0
        (root / "still").touch()
        assert box.mounts == 1
    assert gone.driver_name == "overlay2"
    assert store.images() == [image]
    store.create_container().remove()


@pytest.mark.root
def test_info_counts(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    image = add(base, upper, name="x")
    with store.create_container(image) as box, box.mount():
        info = store.info()
    assert (info.containers, info.mounted, info.images, info.layers) == (1, 1, 1, 2)
    assert (info.driver, info.version, info.os) == ("overlay2", layerstore.__version__, "linux")
    assert "Backing Filesystem" in dict(info.driver_status)
    assert info.memory > 0


@pytest.mark.root
def test_saved_image_loads_elsewhere_the_same(
    store: Store, add: Adder, base: bytes, upper: bytes, tmp_path: Path
) -> None:
    image = add(base, upper, name="x:1")
    image.tag("y:2")
    store.save("x:1", tmp_path / "one.tar")
    store.save(image, tmp_path / "all.tar")
    other = layerstore.Config(data_root=store.data_root.with_name("second"), exec_root=store.config.exec_root)
    with layerstore.open(config=other) as second:
        [loaded] = second.load(tmp_path / "one.tar")
        assert (loaded.id, loaded.layers, loaded.tags) == (image.id, image.layers, ("x:1",))
        [loaded] = second.load(tmp_path / "all.tar")
        assert loaded.tags == ("x:1", "y:2")
        assert second.check(content=True) == []
    with pytest.raises(NotFound):
        store.save("nothing", tmp_path / "none.tar")
    assert not (tmp_path / "none.tar").exists()


@pytest.mark.root
def test_imported_tar_is_an_image_of_one_layer(store: Store, base: bytes, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(base)
    image = store.import_tar(tmp_path / "root.tar", "fresh", instructions=["CMD /tool"], platform="linux/arm64/v8")
    assert image.layers == (make.digest(base),)
    assert (image.architecture, image.variant, image.tags) == ("arm64", "v8", ("fresh:latest",))
    assert image.config["config"]["Cmd"] == ["/bin/sh", "-c", "/tool"]
    assert "root.tar" in image.comment
    for written, stated in [("arm64", ("arm64", "")), ("linux/x86_64", ("amd64", "")), ("armel", ("arm", "v6"))]:
        other = store.import_tar(tmp_path / "root.tar", platform=written)
        assert (other.os, other.architecture, other.variant) == ("linux", *stated)
    again = store.import_tar(io.BytesIO(base), message="mine")
    assert again.comment == "mine"
    with pytest.raises(KernelError, match="missing"):
        store.import_tar(tmp_path / "missing.tar")
    with pytest.raises(ConfigError):
        store.import_tar(tmp_path / "root.tar", instructions=["RUN x"])
    assert store.check() == []


# --- what the dead leave


@pytest.fixture
def killed(settings: layerstore.Config) -> Callable[[str], None]:
    """Run a program on the store up to the line that kills it."""

    def until(body: str) -> None:
        program = (
            "import io, os, signal, sys, layerstore; sys.path.insert(0, sys.argv[3])\n"
            "from support import images as make\n"
            "die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
            "settings = layerstore.Config(data_root=sys.argv[1], exec_root=sys.argv[2])\n"
            f"store = layerstore.open(config=settings)\n{body}\n"
        )
        done = run(program, settings.data_root, settings.exec_root, Path(__file__).parents[1])
        assert done.returncode == -9, done.stderr

    return until


@pytest.mark.root
def test_open_that_fails_gives_back_what_the_driver_holds(
    store: Store, settings: layerstore.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    facts.ask_for_recovery(store._parts.database, store._parts.session.stay)
    monkeypatch.setattr("layerstore_overlay2.Overlay2.close", lambda driver: closed.append(driver.name))
    monkeypatch.setattr("layerstore.layers.garbage.sweep", lambda layers, _: (layers.files.driver.keys(), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        layerstore.open(config=settings)
    assert closed == ["overlay2"]


@pytest.mark.root
def test_what_no_memory_keeps_from_being_asked_for_is_left_to_a_session_that_stays(
    settings: layerstore.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise MemoryError

    with layerstore.open(config=settings) as store:
        session = store._parts.session
        with monkeypatch.context() as patched:
            patched.setattr(type(store._parts.database), "write", none)
            patched.setattr(type(session), "begin", none)
            facts.ask_for_recovery(store._parts.database, session.stay)
        assert session._stays


@pytest.mark.root
def test_staged_layers_of_the_dead_are_swept(
    store: Store, killed: Callable[[str], None], settings: layerstore.Config, data_root: Path
) -> None:
    killed("store._layers.stage(io.BytesIO(make.layer(make.file('x', b'y' * 100000)))); die()")
    assert len(list((data_root / "staging").iterdir())) == 2
    layerstore.open(config=settings).close()
    assert [path.name for path in (data_root / "staging").iterdir() if path.name != ".spare"] == [
        store._parts.session.name
    ]
    assert store.check() == []


@pytest.mark.root
def test_trials_of_the_dead_are_swept(
    store: Store, killed: Callable[[str], None], settings: layerstore.Config, data_root: Path
) -> None:
    left = [folder / ".layerstore-probe-x" for folder in (data_root, store._parts.storage.driver.home)]
    for folder in left:
        folder.mkdir(mode=0o700)
        (folder / "lower").mkdir()
    killed("store._parts.session.folder; die()")
    layerstore.open(config=settings).close()
    assert not any(folder.exists() for folder in left)


@pytest.mark.root
@pytest.mark.parametrize("moment", ["insert_diff", "branch_off"])
def test_sealed_layers_without_a_row_are_swept(
    store: Store, add: Adder, base: bytes, killed: Callable[[str], None], settings: layerstore.Config, moment: str
) -> None:
    image = add(base, name="x")
    room = {"insert_diff": "layers", "branch_off": "containers"}[moment]
    body = {
        "insert_diff": "store.import_tar(io.BytesIO(make.layer(make.file('x'))), 'y')",
        "branch_off": "box = store.create_container('x', name='web')\n"
        "with box.mount() as root: (root / 'new').write_text('n')\n"
        "box.commit('y')",
    }[moment]
    killed(f"import layerstore.{room}.rows as rows; rows.{moment} = die\n{body}")
    with layerstore.open(config=settings) as again:
        assert again.check() == []
        assert again.images() == [image]
        for box in again.containers():
            assert [str(change) for change in box.changes()] == ["A /new"]
            box.commit("y")
        assert again.check(content=True) == []


@pytest.mark.root
def test_removed_rows_whose_files_stayed_are_swept(
    store: Store,
    add: Adder,
    base: bytes,
    killed: Callable[[str], None],
    settings: layerstore.Config,
    leftovers: Leftovers,
) -> None:
    add(base, name="x")
    killed("store._parts.storage.files.drop = die; store.remove_image('x')")
    store.close()
    assert len(leftovers()) > 1
    layerstore.open(config=settings).close()
    assert leftovers() == []


@pytest.mark.root
def test_garbage_that_cannot_be_removed_stops_nobody(
    store: Store,
    add: Adder,
    base: bytes,
    killed: Callable[[str], None],
    settings: layerstore.Config,
    leftovers: Leftovers,
) -> None:
    add(base, name="x")
    killed("store._parts.storage.files.drop = die; store.remove_image('x')")
    store.close()

    def refused(_: object, layer: Layer) -> None:
        raise KernelError("rename", errno.EIO, path=layer.key)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("layerstore_overlay2.Overlay2.remove", refused)
        with layerstore.open(config=settings) as again:
            assert again.images() == []
            assert [problem.kind for problem in again.check()] == ["garbage"]
    layerstore.open(config=settings).close()
    assert leftovers() == []


@pytest.mark.root
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_what_an_interrupt_left_goes_with_the_next_open(
    store: Store,
    add: Adder,
    base: bytes,
    settings: layerstore.Config,
    leftovers: Leftovers,
    monkeypatch: pytest.MonkeyPatch,
    interrupt: type[BaseException],
) -> None:
    add(base, name="x")
    store.close()

    def interrupted(_: object, layer: Layer) -> None:
        raise interrupt(layer.key)

    with monkeypatch.context() as patched:
        patched.setattr("layerstore_overlay2.Overlay2.remove", interrupted)
        with pytest.raises(interrupt), layerstore.open(config=settings) as other:
            other.remove_image("x")
    assert len(leftovers()) > 1
    layerstore.open(config=settings).close()
    assert leftovers() == []


@pytest.mark.root
def test_leases_and_looks_of_the_dead_end(
    store: Store, add: Adder, base: bytes, killed: Callable[[str], None], settings: layerstore.Config
) -> None:
    image = add(base, name="x")
    killed("with store.image('x').mount(): die()")
    assert len(list((settings.exec_root / "images").iterdir())) == 1
    with layerstore.open(config=settings):
        assert list((settings.exec_root / "images").iterdir()) == []
    image.remove()


@pytest.mark.root
def test_lease_of_the_dead_holds_nothing_even_before_a_sweep(
    store: Store, add: Adder, base: bytes, killed: Callable[[str], None]
) -> None:
    image = add(base, name="x")
    killed("images = store._images; images.lease([images.get('x')]).__enter__(); die()")
    image.remove()
    assert store.images() == []


@pytest.mark.root
def test_busy_look_is_kept_and_told(store: Store, add: Adder, base: bytes, settings: layerstore.Config) -> None:
    image = add(base, name="x")
    sleeper: list[subprocess.Popen[bytes]] = []
    with pytest.raises(KernelError, match="sleep"), image.mount() as root:
        sleeper.append(subprocess.Popen(["sleep", "60"], cwd=root))
    with pytest.raises(InUse):
        image.remove()
    sleeper[0].kill()
    sleeper[0].wait()
    store.close()
    with layerstore.open(config=settings) as again:
        again.remove_image("x")
        assert again.check() == []


@pytest.mark.root
def test_garbage_is_reported_by_check(store: Store, add: Adder, base: bytes, data_root: Path) -> None:
    add(base)
    (data_root / "overlay2" / ("0" * 32) / "diff").mkdir(parents=True)
    (data_root / "skeletons" / ("1" * 32)).touch()
    assert [problem.kind for problem in store.check()] == ["garbage", "garbage"]
    store.prune()
    assert store.check() == []


@pytest.mark.root
def test_mount_without_a_row_is_ended(
    store: Store, killed: Callable[[str], None], settings: layerstore.Config, add: Adder, base: bytes
) -> None:
    """Its maker died between mounting and writing it down."""
    box = store.create_container(add(base), name="web")
    killed("import layerstore.containers.rows as rows; rows.add_hold = die; store.container('web').mount()")
    with pytest.raises(InUse):
        box.remove()
    with layerstore.open(config=settings):
        box.remove()
    assert store.check() == []


@pytest.mark.root
def test_mount_without_a_row_is_used_by_the_next(
    store: Store, killed: Callable[[str], None], add: Adder, base: bytes
) -> None:
    box = store.create_container(add(base), name="web")
    killed("import layerstore.containers.rows as rows; rows.add_hold = die; store.container('web').mount()")
    with box.mount() as root:
        assert (root / "etc/passwd").exists()
        assert box.mounts == 1
    box.remove()


def test_a_lock_of_a_program_is_had_by_one_or_shared_by_several(store: Store) -> None:
    with (
        store.lock("mine") as first,
        store.lock("mine", wait=False) as second,
        store.lock("other", wait=False) as other,
    ):
        assert (first, second, other) == (True, False, True)
    with store.lock("mine", shared=True), store.lock("mine", shared=True, wait=False) as shared:
        assert shared
        with store.lock("mine", wait=False) as alone:
            assert not alone
    with store.lock("mine", wait=False) as again:
        assert again
