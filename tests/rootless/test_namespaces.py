"""Where stores of ordinary users are opened: by whom, with whose IDs, and what is said to those who cannot."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import layerstore
from layerstore import rootless
from layerstore.config import INSIDE, Config
from layerstore.errors import ConfigError
from layerstore.kernel import namespaces
from layerstore.kernel.namespaces import IdMap, IdRange, allotted, keeping, one_id, open_namespace
from layerstore.testing.calls import Call, Death, run_watched
from rootless import outside
from rootless.conftest import NewUser, User
from support import images
from support.images import file, folder

LAYER = images.layer(folder("etc"), file("etc/name", "box", uid=33, gid=33), file("open", "", mode=0o666))

root = pytest.mark.root


BEGIN = """
import layerstore
layerstore.unshare()
with layerstore.open(config=layerstore.Config(storage_driver="overlay2")) as store:
    store.load("image.tar")
    container = store.create_container("test", name="box")
    print(container.mount(persistent=True).path)
"""

END = """
import layerstore
layerstore.unshare()
with layerstore.open() as store:
    container = store.container("box")
    print(*container.changes(), container.unmount())
"""


def with_container(user: User) -> Path:
    """Let the user have a mounted container, and tell where."""
    images.docker_archive(user.home / "image.tar", [LAYER])
    return Path(user.run("-c", BEGIN).stdout.strip())


# --- maps


def test_a_map_is_read_as_it_is_written() -> None:
    ids = IdMap((IdRange(0, 1000, 1), IdRange(1, 100_000, 65_536)), (IdRange(0, 100, 1),))
    assert IdMap.parsed(str(ids)) == ids
    with pytest.raises(ValueError, match="no range"):
        IdMap.parsed("uid 0 1000\n")


def test_a_map_is_within_another_if_all_its_ids_are() -> None:
    mine = IdMap((IdRange(0, 1000, 1), IdRange(1, 100_000, 65_536)), (IdRange(0, 1000, 1),))
    assert IdMap((IdRange(0, 1000, 1), IdRange(9, 100_010, 10)), ()).is_within(mine)
    assert not IdMap((IdRange(0, 0, 1),), ()).is_within(mine)
    assert not IdMap((), (IdRange(0, 1000, 2),)).is_within(mine)


def test_who_has_no_account_or_no_subordinate_ids_has_one_id() -> None:
    assert allotted(3_999_999, 7) == one_id(3_999_999, 7)


@root
@pytest.mark.parametrize("make", [open_namespace, lambda ids: keeping.start(ids, outside.UID, outside.UID)])
def test_whoever_dies_while_he_makes_a_namespace_leaves_nobody_in_it(make: Callable[[IdMap], object]) -> None:
    """A process that was left would have all his locks."""
    made: list[int] = []

    def answer(_: int, call: Call) -> Death | None:
        if not call.path.endswith("/uid_map"):
            return None
        made.append(int(call.path.split("/")[2]))
        return Death()

    assert run_watched(partial(make, one_id(outside.UID, outside.UID)), answer, names=["write"]).died
    deadline = time.monotonic() + 30
    while not has_ended(made[0]) and time.monotonic() < deadline:
        time.sleep(0.01)
    is_left = not has_ended(made[0])
    if is_left:
        os.kill(made[0], signal.SIGKILL)
    assert not is_left


def has_ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


# --- commands


@root
def test_what_one_command_mounts_the_next_one_sees(new_user: NewUser) -> None:
    user = new_user("ext4", "one")
    place = with_container(user)

    user.layerstore("unshare", "sh", "-c", f"cat {place}/etc/name > seen && echo more > {place}/more")

    assert (user.home / "seen").read_text() == "box"
    assert user.run("-c", END).stdout == "A /more True\n"
    assert user.layerstore("unshare", "--end") == "Ended\n"


@root
def test_root_opens_a_users_store_as_that_user(new_user: NewUser) -> None:
    user = new_user("ext4", "one")
    place = with_container(user)

    user.root.layerstore("--root", ".local/share/layerstore", "unshare", "sh", "-c", f"echo root > {place}/more")

    assert user.root.layerstore("--root", ".local/share/layerstore", "commit", "box", "test:2")
    assert {path.lstat().st_uid for path in user.data_root.glob("**/*")} == {outside.UID}
    assert user.run("-c", END).stdout == "A /more True\n"


@root
def test_roots_store_is_refused_to_others(new_user: NewUser) -> None:
    user = new_user("ext4", "one")
    user.root.layerstore("--root", "roots", "-s", "vfs", "images")

    said = user.run("-c", "import layerstore; layerstore.unshare('roots')", code=1).stderr

    assert f"the store in {outside.HOME}/roots was made by root" in said
    assert "Open it as root, or choose a data-root of your own." in said


@root
def test_a_store_of_other_ids_is_refused(new_user: NewUser) -> None:
    user = new_user("ext4", "one")
    with_container(user)
    with pytest.raises(ConfigError, match="an ordinary user's") as refused:
        layerstore.open(user.data_root)
    assert "layerstore.unshare(data_root)" in str(refused.value)

    (user.data_root / "ids").write_text("uid 0 0 1\ngid 0 0 1\n")

    assert "do not allot to user 4321" in user.layerstore("images", code=1)
    with pytest.raises(ConfigError, match="do not allot to user 4321"):
        layerstore.unshare(user.data_root)


@root
@pytest.mark.parametrize(
    ("ids", "said"),
    [(None, "has lost its file 'ids'"), ("", "it says nothing of root"), ("uid 0", "is no range of IDs")],
)
def test_a_store_whose_ids_are_damaged_says_so(ids: str | None, said: str, new_user: NewUser) -> None:
    user = new_user("ext4", "one")
    with_container(user)
    path = user.data_root / "ids"
    before = path.read_text()
    if ids is None:
        path.unlink()
    else:
        path.write_text(ids)

    answer = user.layerstore("images", code=1)

    assert said in answer
    assert "Its user writes the file anew" in answer
    path.write_text(before)
    path.chmod(0o644)
    assert user.layerstore("images")


@root
@pytest.mark.parametrize("what", ["fifo", "link", "endless"])
def test_root_waits_for_nothing_that_a_user_put_there(tmp_path: Path, what: str) -> None:
    ids = tmp_path / "ids"
    os.chown(tmp_path, outside.UID, outside.UID)
    if what == "fifo":
        os.mkfifo(ids)
    else:
        ids.symlink_to("/etc/passwd" if what == "link" else "/dev/zero")

    with pytest.raises(ConfigError, match="cannot be read") as refused:
        layerstore.unshare(tmp_path)
    assert "root:" not in str(refused.value)


@root
def test_a_folder_in_the_place_of_a_users_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="put in another's place"), rootless._locked(tmp_path, outside.UID):
        pass


def test_the_ids_of_a_store_are_durable_before_it_is_founded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "is_within", lambda: True)
    noted = partial(rootless.note_ids, tmp_path)
    names = ["fsync", "rename", "renameat", "renameat2"]
    done = run_watched(noted, lambda number, call: None, names=names)
    assert [call.name.removesuffix("at2").removesuffix("at") for call in done.calls] == ["fsync", "rename", "fsync"]
    (tmp_path / "ids").unlink()

    failed = run_watched(noted, lambda number, call: errno.EIO if number == 0 else None, names=names)

    assert failed.failure is not None
    assert "KernelError" in failed.failure.kinds
    assert list(tmp_path.iterdir()) == []


@root
def test_options_that_overlay_refuses_here_are_refused_in_words(new_user: NewUser) -> None:
    user = new_user("ext4", "one")
    said = user.layerstore("-s", "overlay2", "--storage-opt", "overlay2.metacopy=true", "images", code=1)
    assert "overlay2.metacopy is not possible without root" in said


def test_a_process_of_several_threads_is_told_when_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        with pytest.raises(ConfigError, match="several threads"):
            rootless.unshare(tmp_path)
    finally:
        over.set()
        other.join()


def test_ordinary_users_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INSIDE, "4321")
    monkeypatch.setenv("HOME", "/home/amy")
    for variable in ("XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(variable, raising=False)
    assert Config().data_root == Path("/home/amy/.local/share/layerstore")
    assert Config().exec_root == Path("/home/amy/.cache/layerstore")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/4321")
    assert Config().data_root == Path("/data/layerstore")
    assert Config().exec_root == Path("/run/user/4321/layerstore")


# --- notes that somebody else has written

FORGE = """
import os, sys
import layerstore
layerstore.unshare()
with layerstore.open() as store:
    store.load("image.tar")
    container = store.create_container("test", name="box")
    with container.mount() as tree:
        os.chdir(tree)
        open("own", "w").close()
        os.chown("own", 33, 33)
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setresgid(33, 33, 33)
            os.setresuid(33, 33, 33)
            os.setxattr("own", "user.containers.override_stat", b"0:0:04755:file")
            os.setxattr("open", "user.containers.override_stat", NOTE)
            os.setxattr("open", "user.layerstore.security.capability", bytes(20))
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        os.chdir("/")
    image = container.commit("test:2")
    for entry in store.layer_entries(image.layers[-1]):
        print(entry.path.decode(), oct(entry.mode), entry.uid, entry.kind.name)
"""


@root
@pytest.mark.tools("newuidmap")
@pytest.mark.parametrize("note", ["0:0:04666:file", "33:33:04666:file", "0:0:0666:block-8-0"])
def test_a_program_cannot_note_what_it_may_not_do(note: str, new_user: NewUser) -> None:
    user = new_user("ext4", "many")
    images.docker_archive(user.home / "image.tar", [LAYER])
    (user.home / "forge.py").write_text(FORGE.replace("NOTE", repr(note.encode())))

    found = user.run(outside.HOME / "forge.py").stdout

    assert found.splitlines() == [" 0o755 0 FOLDER", "open 0o666 0 FILE", "own 0o644 33 FILE"]
