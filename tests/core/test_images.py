"""Images: names, IDs, history, and what keeps them from being removed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from core.adding import Adder
from layerstore.database import Tables
from layerstore.digest import of_bytes
from layerstore.errors import Ambiguous, InUse, InvalidReference, KernelError, NotFound
from layerstore.images import Image
from layerstore.kernel.mounts import unmount
from layerstore.store import Store
from support import images as make

pytestmark = pytest.mark.root

Leftovers = Callable[[], Sequence[str]]


def test_image_is_found_by_name_and_id(store: Store, add: Adder, base: bytes) -> None:
    image = add(base, name="debian:12")
    for ref in ("debian:12", "docker.io/library/debian:12", image.id, image.id[7:], image.short_id, image.id[:12]):
        assert store.image(ref) == image
    for ref in ("debian", "debian:13", "0" * 64, "sha256:" + "0" * 64, "fedora"):
        with pytest.raises(NotFound):
            store.image(ref)
    with pytest.raises(InvalidReference):
        store.image("De bian")


def test_beginning_that_fits_several_is_ambiguous(store: Store, add: Adder) -> None:
    images = [add(make.layer(make.file(str(number)))) for number in range(20)]
    first = next(digit for digit in "0123456789abcdef" if sum(image.short_id[0] == digit for image in images) > 1)
    with pytest.raises(Ambiguous):
        store.image(first)


def test_name_goes_before_the_beginning_of_an_id(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    image = add(base)
    other = add(base, upper, name=image.id[7:13])
    assert store.image(image.id[7:13]) == store.image(other.id)


def test_facts_are_those_of_the_config(store: Store, add: Adder, base: bytes) -> None:
    lines = [{"created": "2024-01-01T00:00:00Z", "created_by": "ADD", "comment": "first"}]
    config = make.config(
        [base],
        created="2024-05-06T07:08:09.123456789Z",
        author="me",
        architecture="arm64",
        variant="v8",
        history=lines,
        config={"Env": ["A=b"], "Labels": {"x": "y"}},
        unknown={"kept": [1, 2]},
    )
    image = add(base, config=config, name="x")
    assert image.id == of_bytes(config)
    assert image.config_bytes == config
    assert (image.created, image.author, image.architecture, image.variant) == (
        "2024-05-06T07:08:09.123456789Z",
        "me",
        "arm64",
        "v8",
    )
    assert image.comment == "first"
    assert image.created_at is not None
    assert image.created_at.microsecond == 123456
    shown = json.loads(json.dumps(image.inspect()))
    assert shown["Id"] == image.id
    assert shown["RepoTags"] == ["x:latest"]
    assert shown["Config"] == {"Env": ["A=b"], "Labels": {"x": "y"}}
    assert shown["RootFS"] == {"Type": "layers", "Layers": [make.digest(base)]}
    assert shown["GraphDriver"]["Name"] == "overlay2"
    assert set(shown["GraphDriver"]["Data"]) == {"MergedDir", "UpperDir", "WorkDir"}
    assert Path(shown["GraphDriver"]["Data"]["UpperDir"]).is_dir()


def test_inspect_names_the_lower_layers_topmost_first(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    image = add(base, upper, make.layer(make.file("third")))
    keys = store._layers.stack(image.chain_id).layers
    data = image.inspect()["GraphDriver"]["Data"]
    assert [Path(path).parent.name for path in data["LowerDir"].split(":")] == [layer.key for layer in keys[1:]]


def test_history_has_sizes_and_known_images(store: Store, add: Adder, base: bytes) -> None:
    image = add(base, config=make.config([base], history=[{"created_by": "ADD"}]), name="x")
    with store.create_container(image) as box:
        box.commit("y", instructions=["ENV A=b"])
    steps = store.image("y").history
    assert [step.size for step in steps] == [len(base), 0]
    assert [step.empty_layer for step in steps] == [False, True]
    assert [step.tags for step in steps] == [("x:latest",), ("y:latest",)]


def test_images_are_listed_newest_first(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    old = add(base, config=make.config([base], created="2020-01-01T00:00:00Z"))
    new = add(base, upper, config=make.config([base, upper], created="2024-01-01T00:00:00Z"))
    assert store.images() == [new, old]
    assert [image.size for image in store.images()] == [len(base) + len(upper), len(base)]


def test_image_without_layers(store: Store, add: Adder) -> None:
    image = add(name="empty")
    assert (image.size, image.layers, image.chain_id) == (0, (), None)
    assert image.inspect()["GraphDriver"]["Data"] is None
    with image.mount() as root:
        assert os.listdir(root) == []
        with pytest.raises(OSError, match="Read-only"):
            (root / "x").touch()
    assert not root.exists()
    with store.create_container(image) as box, box.mount() as root:
        (root / "x").write_text("x")
        assert [str(change) for change in box.changes()] == ["A /x"]


def test_what_cannot_be_cleared_away_after_a_look_is_told(add: Adder, base: bytes) -> None:
    looking = add(base).mount()
    place = looking.__enter__()
    unmount(place)
    (place / "left").touch()
    with pytest.raises(KernelError, match=r"rmdir .*not empty"):
        looking.__exit__(None, None, None)
    (place / "left").unlink()
    place.rmdir()


# --- names


def test_tag_moves_to_the_last_image_that_got_it(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    old, new = add(base, name="x"), add(base, upper, name="x")
    assert store.image("x") == new
    assert store.image(old.id).tags == ()
    store.tag(old.id, "x")
    store.tag("x", "y:1")
    assert store.image(old.id).tags == ("x:latest", "y:1")


def test_one_of_several_names_is_only_untagged(store: Store, add: Adder, base: bytes) -> None:
    image = add(base, name="x")
    image.tag("y")
    assert [str(done) for done in store.remove_image("x")] == ["Untagged: x:latest"]
    assert [str(done) for done in store.remove_image("y")] == [
        "Untagged: y:latest",
        f"Deleted: {image.id}",
        f"Deleted: {image.chain_id}",
    ]


def test_id_of_an_image_with_several_names_needs_force(store: Store, add: Adder, base: bytes) -> None:
    image = add(base, name="x")
    image.tag("y")
    with pytest.raises(InUse) as caught:
        store.remove_image(image.short_id)
    assert caught.value.holders == ("x:latest", "y:latest")
    assert "rmi x:latest y:latest" in str(caught.value)
    assert [done.kind for done in store.remove_image(image.short_id, force=True)] == ["Untagged"] * 2 + ["Deleted"] * 2
    assert store.images() == []


# --- what holds an image


@pytest.mark.parametrize("force", [False, True])
def test_image_with_a_stopped_container_cannot_be_removed(
    store: Store, add: Adder, base: bytes, *, force: bool
) -> None:
    image = add(base, name="x")
    box = store.create_container(image, name="web")
    for ref in ("x", image.id):
        with pytest.raises(InUse) as caught:
            store.remove_image(ref, force=force)
        assert caught.value.holders == ("container web",)
        assert "layerstore rm web" in str(caught.value)
    assert store.image("x").tags == ("x:latest",)
    box.remove()
    store.remove_image("x", force=force)


def test_image_with_a_running_container_cannot_be_removed(
    store: Store, add: Adder, base: bytes, tmp_path: Path
) -> None:
    image = add(base, name="x")
    box = store.create_container(image, name="web")
    process = box.launch(["sleep", "100"], root=tmp_path)
    try:
        with pytest.raises(InUse) as caught:
            image.remove(force=True)
        assert caught.value.holders == ("container web (running)",)
        assert "To free it: layerstore stop web; layerstore rm web" in str(caught.value)
    finally:
        process.kill()
        process.wait()
    with pytest.raises(InUse) as caught:
        image.remove(force=True)
    assert caught.value.holders == ("container web",)


def test_image_with_a_mounted_container_cannot_be_removed(store: Store, add: Adder, base: bytes) -> None:
    image = add(base, name="x")
    box = store.create_container(image, name="web")
    with box.mount():
        with pytest.raises(InUse) as caught:
            image.remove(force=True)
        assert caught.value.holders == ("container web (mounted)",)
        assert "layerstore umount web; layerstore rm web" in str(caught.value)


def test_image_that_another_is_built_on_cannot_be_removed(store: Store, add: Adder, base: bytes) -> None:
    image = add(base, name="x")
    with store.create_container(image) as box:
        with box.mount() as root:
            (root / "new").touch()
        box.commit("y")
        box.remove()
    with pytest.raises(InUse) as caught:
        store.remove_image("x", force=True)
    assert caught.value.holders == ("image y:latest, which is built on it",)
    assert "layerstore rmi y:latest" in str(caught.value)
    store.remove_image("y")
    store.remove_image("x")
    assert store.check() == []


def test_what_frees_an_image_is_told_in_the_order_to_do_it(store: Store, add: Adder, base: bytes) -> None:
    add(base, name="a")
    for old, new in (("a", "b"), ("b", "c")):
        with store.create_container(old) as box:
            box.commit(new, instructions=[f"LABEL n={new}"])
            box.remove()
    store.create_container("c", name="box")
    with pytest.raises(InUse) as caught:
        store.remove_image("a")
    assert caught.value.remedy == "To free it: layerstore rm box; layerstore rmi c:latest; layerstore rmi b:latest"
    store.container("box").remove()
    for name in ("c", "b", "a"):
        store.remove_image(name)
    assert store.images() == []


def test_untagged_images_below_go_with_the_last_one_above(store: Store, add: Adder, base: bytes) -> None:
    add(base, name="a")
    with store.create_container("a") as box:
        for number in range(2):
            with box.mount() as root:
                (root / f"{number}").touch()
            box.commit("b")
        box.remove()
    assert len(store.images()) == 3
    done = store.remove_image("b")
    assert sum(removal.kind == "Deleted" and not removal.is_layer for removal in done) == 2
    assert [image.tags for image in store.images()] == [("a:latest",)]


def test_image_that_is_looked_at_cannot_be_removed(store: Store, add: Adder, base: bytes) -> None:
    image = add(base, name="x")
    with image.mount() as root:
        with pytest.raises(InUse, match="mounted at"):
            image.remove(force=True)
        assert (root / "etc/passwd").exists()
        with pytest.raises(OSError, match="Read-only"):
            (root / "new").touch()
    image.remove()


def test_saved_image_cannot_be_removed_meanwhile(store: Store, add: Adder, base: bytes) -> None:
    image = add(base, name="x")
    with add.images.lease([image]), pytest.raises(InUse, match="being saved"):
        image.remove()
    image.remove()
    with pytest.raises(NotFound), image.mount():
        pass


def test_images_of_the_same_layers_go_one_by_one(store: Store, add: Adder, base: bytes, leftovers: Leftovers) -> None:
    one: Image = add(base, name="one")
    two = add(base, config=make.config([base], author="other"), name="two")
    assert [done.is_layer for done in one.remove()] == [False, False]
    assert [done.is_layer for done in two.remove()] == [False, False, True]
    store.close()
    assert leftovers() == []


# --- prune


def test_prune_removes_what_has_no_name(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    add(base, name="kept")
    dangling = add(base, upper)
    pruned = store.prune()
    assert [done.what for done in pruned.images if not done.is_layer] == [dangling.id]
    assert pruned.layers == (dangling.chain_id,)
    assert pruned.reclaimed == len(upper)
    assert pruned.containers == ()
    assert [image.tags for image in store.images()] == [("kept:latest",)]


def test_prune_of_all_keeps_what_containers_need(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    add(base, name="used")
    add(base, upper, name="unused")
    box = store.create_container("used")
    store.prune(all_images=True)
    assert [image.tags for image in store.images()] == [("used:latest",)]
    pruned = store.prune(all_images=True, containers=True)
    assert pruned.containers == (box.id,)
    assert store.images() == []
    assert store.check() == []


def test_prune_keeps_mounted_containers(store: Store, add: Adder, base: bytes) -> None:
    add(base, name="x")
    with store.create_container("x") as box, box.mount() as root:
        assert store.prune(all_images=True, containers=True).containers == ()
        (root / "still").touch()


# --- changes


def test_changes_of_an_image_without_layers_or_with_one_that_hides_all(store: Store, add: Adder, base: bytes) -> None:
    nothing, bottom = add(), add(base)
    assert [str(change) for change in nothing.changes()] == []
    gone = [str(change) for change in nothing.changes(bottom)]
    assert [line for line in gone if line.startswith("D")] == ["D /etc", "D /usr"]
    hidden = add(base, make.layer(make.opaque(""), make.file("only")))
    assert [str(change) for change in hidden.changes() if change.path != "/"] == ["D /etc", "A /only", "D /usr"]
    twice = add(base, base)
    assert [str(change) for change in twice.changes()] == []


def test_an_image_that_is_compared_is_not_removed_meanwhile(store: Store, add: Adder, base: bytes) -> None:
    image = add(base, name="x")
    with image.open_tree() as root:
        assert sorted(os.listdir(root)) == ["etc", "usr"]
        with pytest.raises(InUse, match="it is being read"):
            image.remove()
    image.remove()


KEEPERS = {
    "boxes": "CREATE TABLE boxes_images (container TEXT REFERENCES containers, kept TEXT REFERENCES images);",
    "cache": "CREATE TABLE cache_steps (name TEXT, image TEXT REFERENCES images ON DELETE RESTRICT);",
    "notes": "CREATE TABLE notes_texts (container TEXT, image TEXT REFERENCES images ON DELETE CASCADE);",
}


@pytest.mark.parametrize("floor", KEEPERS)
def test_an_upper_floor_keeps_what_its_tables_refer_to(store: Store, add: Adder, base: bytes, floor: str) -> None:
    image, box = add(base, name="base"), store.create_container(name="box")  # on nothing
    database = store.tables(Tables(floor, (KEEPERS[floor],)))
    table, values = {
        "boxes": ("boxes_images", (box.id, image.id)),
        "cache": ("cache_steps", ("step", image.id)),
        "notes": ("notes_texts", (box.id, image.id)),
    }[floor]
    with database.write() as tx:
        tx.execute(f"INSERT INTO {table} VALUES (?, ?)", values)
    if floor == "notes":  # which go with it
        store.remove_image("base")
        return
    holder = {"boxes": "container box", "cache": "cache"}[floor]
    with pytest.raises(InUse, match=f"image base:latest is in use by {holder}") as caught:
        store.remove_image("base")
    assert caught.value.holders == (holder,)
    assert ("layerstore rm box" in str(caught.value)) == (floor == "boxes")
    assert store.prune(all_images=True).images == ()
    with database.write() as tx:
        tx.execute(f"DELETE FROM {table}")
    store.remove_image("base")
    assert store.images() == []
