"""Volumes: made, given to containers, filled with what the image has there, removed when nobody uses them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from layerstore import Attachment, ConfigError, Container, InUse, NotFound, Store, Transaction

pytestmark = pytest.mark.root

Made = Callable[[], Container]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_volume_is_a_folder_as_docker_makes_it(store: Store) -> None:
    volume = store.volumes.create("pg", labels={"for": "tests"})
    assert volume.mountpoint == store.data_root / "volumes" / "pg" / "_data"
    assert [_mode(volume.mountpoint), _mode(volume.mountpoint.parent)] == [0o755, 0o711]
    told = volume.inspect()
    assert told.pop("CreatedAt").endswith("Z")
    assert told == {
        "Driver": "local",
        "Labels": {"for": "tests"},
        "Mountpoint": str(volume.mountpoint),
        "Name": "pg",
        "Options": None,
        "Scope": "local",
    }


def test_a_volume_of_no_name_has_64_digits_and_dockers_label(store: Store) -> None:
    volume = store.volumes.create()
    assert len(volume.name) == 64
    assert volume.is_anonymous
    assert volume.labels == {"com.docker.volume.anonymous": ""}


def test_one_that_is_there_is_made_no_second_time(store: Store) -> None:
    first = store.volumes.create("pg", labels={"a": "1"})
    (first.mountpoint / "file").write_text("kept")
    again = store.volumes.create("pg", labels={"a": "2"})
    assert again.labels == {"a": "1"}
    assert (again.mountpoint / "file").read_text() == "kept"
    assert [volume.name for volume in store.volumes.all()] == ["pg"]


@pytest.mark.parametrize("name", ["", "a", ".hidden", "a/b", "../up", "with space", "x" * 256, "ä1"])
def test_a_name_that_cannot_be_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a volume"):
        store.volumes.create(name)
    assert not (store.data_root / "volumes").exists()


def test_a_folder_that_is_no_volume_is_not_touched(store: Store) -> None:
    stranger = store.data_root / "volumes" / "theirs"
    (stranger / "_data").mkdir(parents=True)
    (stranger / "_data" / "precious").write_text("!")
    with pytest.raises(ConfigError, match="is no volume of this store"):
        store.volumes.create("theirs")
    assert (stranger / "_data" / "precious").read_text() == "!"
    assert store.volumes.all() == []


# --- given to containers


def test_a_new_volume_is_given_what_the_image_has_there(store: Store, box: Made) -> None:
    (use,) = store.volumes.attach(box(), [Attachment("/var/db", "pg")])
    data = use.volume.mountpoint
    assert use.target == "/var/db"
    assert sorted(os.listdir(data)) == ["deep", "seed"]
    assert (data / "seed").read_text() == "42\n"
    assert (data / "deep" / "file").stat().st_size == 5000
    assert [data.stat().st_uid, _mode(data), (data / "seed").stat().st_uid] == [26, 0o700, 26]


def test_an_empty_folder_of_the_image_gives_its_mode(store: Store, box: Made) -> None:
    (use,) = store.volumes.attach(box(), [Attachment("/srv/empty")])
    assert use.volume.is_anonymous
    assert _mode(use.volume.mountpoint) == 0o1777


def test_nocopy_gives_nothing(store: Store, box: Made) -> None:
    (use,) = store.volumes.attach(box(), [Attachment("/srv/db", "pg", no_copy=True)])
    assert [os.listdir(use.volume.mountpoint), use.volume.mountpoint.stat().st_uid] == [[], 0]


def test_one_that_is_there_and_empty_is_filled_in_its_own_folder(store: Store, box: Made) -> None:
    volume = store.volumes.create("pg")
    before = volume.mountpoint.stat().st_ino
    store.volumes.attach(box(), [Attachment("/srv/db", "pg")])
    assert volume.mountpoint.stat().st_ino == before
    assert sorted(os.listdir(volume.mountpoint)) == ["deep", "seed"]
    assert [volume.mountpoint.stat().st_uid, _mode(volume.mountpoint)] == [26, 0o700]
    assert os.listdir(volume.mountpoint.parent) == ["_data"]


def test_one_with_something_in_it_stays_as_it_is(store: Store, box: Made) -> None:
    volume = store.volumes.create("pg")
    (volume.mountpoint / "mine").write_text("1")
    store.volumes.attach(box(), [Attachment("/srv/db", "pg")])
    assert os.listdir(volume.mountpoint) == ["mine"]
    assert volume.mountpoint.stat().st_uid == 0


def test_a_place_that_the_image_has_not_is_an_empty_volume(store: Store, box: Made) -> None:
    (use,) = store.volumes.attach(box(), [Attachment("/no/such/place")])
    assert os.listdir(use.volume.mountpoint) == []


def test_what_is_attached_is_known(store: Store, box: Made) -> None:
    first, second = box(), box()
    store.volumes.attach(first, [Attachment("/a", "pg"), Attachment("/b//c/./d/", read_only=True)])
    store.volumes.attach(second, [Attachment("/a", "pg")])
    assert [(use.target, use.read_only) for use in store.volumes.of(first.id)] == [("/a", False), ("/b/c/d", True)]
    assert store.volumes.get("pg").containers == [first.name, second.name]


@pytest.mark.parametrize("target", ["relative", "", "/", "//", "/a/..", "/."])
def test_a_place_that_cannot_be_is_refused(store: Store, box: Made, target: str) -> None:
    with pytest.raises(ConfigError):
        store.volumes.attach(box(), [Attachment(target, "pg")])
    assert store.volumes.all() == []


def test_a_place_that_is_named_twice_is_refused(store: Store, box: Made) -> None:
    with pytest.raises(ConfigError, match="duplicate mount point: /a"):
        store.volumes.attach(box(), [Attachment("/a", "pg"), Attachment("/a/", "other")])
    assert store.volumes.all() == []


def test_what_belongs_to_it_is_written_in_the_same_transaction(store: Store, box: Made) -> None:
    container = box()

    def also(tx: Transaction) -> None:
        assert tx.in_transaction
        raise RuntimeError("the runtime has failed")

    with pytest.raises(RuntimeError):
        store.volumes.attach(container, [Attachment("/srv/db", "pg"), Attachment("/b")], also=also)
    assert [store.volumes.all(), store.volumes.of(container.id)] == [[], []]
    assert os.listdir(store.data_root / "volumes") == []


def test_a_failure_leaves_a_volume_that_was_empty_empty(store: Store, box: Made) -> None:
    volume = store.volumes.create("pg")

    def also(tx: Transaction) -> None:
        raise RuntimeError("the runtime has failed")

    with pytest.raises(RuntimeError):
        store.volumes.attach(box(), [Attachment("/srv/db", "pg")], also=also)
    assert os.listdir(volume.mountpoint) == []
    assert os.listdir(volume.mountpoint.parent) == ["_data"]


def test_a_container_that_is_gone_gets_none(store: Store, box: Made) -> None:
    container = box()
    container.remove()
    with pytest.raises(NotFound):
        store.volumes.attach(container, [Attachment("/srv/db", "pg", no_copy=True)])
    assert store.volumes.all() == []


def test_a_volume_whose_folder_is_gone_is_told(store: Store, box: Made) -> None:
    store.volumes.create("pg").mountpoint.rmdir()
    with pytest.raises(layerstore.Damaged, match="the folder of volume pg is gone"):
        store.volumes.attach(box(), [Attachment("/srv/db", "pg")])


# --- removed


def test_one_in_use_is_not_removed_and_says_by_whom(store: Store, box: Made) -> None:
    container = box()
    store.volumes.attach(container, [Attachment("/a", "pg")])
    with pytest.raises(InUse, match=f"volume pg is in use by container {container.name}") as caught:
        store.volumes.remove("pg")
    assert caught.value.holders == (container.name,)
    container.remove()
    store.volumes.remove("pg")
    assert os.listdir(store.data_root / "volumes") == []
    with pytest.raises(NotFound, match="no such volume: pg"):
        store.volumes.get("pg")


def test_anonymous_ones_go_with_their_container_if_asked(store: Store, box: Made) -> None:
    first, second = box(), box()
    (shared,) = store.volumes.attach(first, [Attachment("/shared")])
    store.volumes.attach(first, [Attachment("/named", "pg"), Attachment("/alone")])
    store.volumes.attach(second, [Attachment("/shared", shared.volume.name)])
    first.remove(volumes=True)
    assert {volume.name for volume in store.volumes.all()} == {"pg", shared.volume.name}
    assert sorted(os.listdir(store.data_root / "volumes")) == sorted(["pg", shared.volume.name])
    second.remove()
    assert len(store.volumes.all()) == 2


def test_prune_takes_anonymous_ones_and_with_all_every_one(store: Store, box: Made) -> None:
    container = box()
    (used,) = store.volumes.attach(container, [Attachment("/srv/db")])
    loose = store.volumes.create()
    (loose.mountpoint / "file").write_bytes(b"x" * 10_000)
    store.volumes.create("pg", labels={"keep": "1"})
    store.volumes.create("other")
    pruned = store.volumes.prune()
    assert pruned.names == (loose.name,)
    assert pruned.reclaimed >= 10_000
    assert store.volumes.prune(all=True, fits=lambda volume: "keep" not in volume.labels).names == ("other",)
    assert {volume.name for volume in store.volumes.all()} == {used.volume.name, "pg"}


# --- options


def test_a_device_is_mounted_by_the_container_for_itself(store: Store) -> None:
    volume = store.volumes.create("shared", options={"type": "nfs", "o": "addr=127.0.0.1,rw", "device": ":/path"})
    assert volume.mount == layerstore.VolumeMount("nfs", ":/path", ("addr=127.0.0.1", "rw"))
    bound = store.volumes.create("bound", options={"type": "none", "o": "bind", "device": "/srv"})
    assert bound.mount == layerstore.VolumeMount("bind", "/srv", ("bind",))
    own = store.volumes.create("own")
    assert own.mount == layerstore.VolumeMount("bind", str(own.mountpoint), ("rbind",))


def test_a_server_is_looked_up_by_its_name(store: Store) -> None:
    volume = store.volumes.create("shared", options={"type": "nfs", "o": "addr=localhost", "device": ":/path"})
    assert volume.mount.options in (("addr=127.0.0.1",), ("addr=::1",))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "red"}, "volumes have no option 'colour'"),
        ({"type": "tmpfs"}, "the option type of a volume needs the option device"),
        ({"device": "/x"}, "the option device of a volume needs the option type"),
        ({"o": "ro"}, "the option o of a volume needs the option device"),
        ({"size": "much"}, "'much' is not a size"),
        ({"size": "0"}, "could hold nothing"),
        ({"size": "1g", "type": "tmpfs", "device": "tmpfs"}, "the size of a device cannot be limited"),
    ],
)
def test_options_that_cannot_be_are_refused(store: Store, options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        store.volumes.create("pg", options=options)


def test_other_drivers_are_not_invented(store: Store) -> None:
    with pytest.raises(ConfigError, match="there is no volume driver 'rexray'"):
        store.volumes.create("pg", driver="rexray")


def test_other_options_than_it_has_are_an_error(store: Store) -> None:
    store.volumes.create("pg", options={"type": "tmpfs", "device": "tmpfs"})
    store.volumes.create("pg")
    with pytest.raises(ConfigError, match="with other options"):
        store.volumes.create("pg", options={"type": "ext4", "device": "/dev/sdb"})


def test_a_copy_whose_note_a_power_cut_has_taken_goes(store: Store) -> None:
    """The note is written without a sync."""
    folder = store.volumes.create("pg").mountpoint.parent
    (folder / "_data.new" / "deep").mkdir(parents=True)
    (folder / "_data" / "kept").write_text("k")
    store._parts.containers.volumes.recover()
    assert [sorted(os.listdir(folder)), os.listdir(folder / "_data")] == [["_data"], ["kept"]]
