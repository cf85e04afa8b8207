"""From which layer and line a path is, of images and containers, whatever the layers do to it."""

from __future__ import annotations

import os

import pytest

from layerstore import EntryKind, LayerstoreError, NotFound, Store
from layerstore.looking import Deed, Why, why
from looking.conftest import Build
from support import images as make

pytestmark = pytest.mark.root

BASE = make.layer(
    make.folder("./"),
    make.folder("etc/"),
    make.file("etc/conf", "one"),
    make.file("etc/kept", "kept"),
    make.folder("usr/"),
    make.folder("usr/bin/"),
    make.file("usr/bin/tool", "tool", mode=0o755),
    make.symlink("bin", "usr/bin"),
    make.folder("data/"),
    make.file("data/a", b"a" * 100),
    make.file("data/b", b"b" * 200),
)


def told(result: Why) -> list[tuple[str, Deed]]:
    return [(step.line.text, step.deed) for step in result.steps]


def test_the_topmost_layer_that_has_a_path_comes_first(store: Store, build: Build) -> None:
    build(
        ("FROM-like base", BASE),
        ("ENV A=b", None),
        ("RUN |1 V=2 /bin/sh -c echo two > /etc/conf # buildkit", make.layer(make.file("etc/conf", "two"))),
        ("COPY other /etc/ # buildkit", make.layer(make.file("etc/other", "x"))),
        name="app",
    )
    found = why(store, "app", "/etc/conf")
    assert found.exists
    assert told(found) == [("RUN echo two > /etc/conf", Deed.CONTENT), ("FROM-like base", Deed.ADDED)]
    top, bottom = found.steps
    assert (top.line.number, top.line.level) == (3, 1)
    assert (top.hides, top.hides_bytes) == (1, 3)
    assert bottom.entry is not None
    assert (bottom.entry.kind, bottom.entry.size, bottom.hides) == (EntryKind.FILE, 3, 0)


def test_links_on_the_way_are_followed_and_the_last_is_not(store: Store, build: Build) -> None:
    build(("RUN base", BASE), name="app")
    through = why(store, "app", "bin/../bin//tool")
    assert through.path == "/usr/bin/tool"
    assert set(through.found.links) == {(b"bin", b"usr/bin")}
    assert told(through) == [("RUN base", Deed.ADDED)]
    link = why(store, "app", "/bin")
    assert link.path == "/bin"
    assert link.steps[0].entry is not None
    assert link.steps[0].entry.kind is EntryKind.SYMLINK


def test_links_that_lead_in_a_circle_or_out_of_the_tree_lead_nowhere(store: Store, build: Build) -> None:
    wild = make.layer(
        make.symlink("a", "b"),
        make.symlink("b", "a"),
        make.symlink("up", "../../../../../.."),
        make.symlink("host", "/proc/self/root"),
        make.folder("etc/"),
        make.file("etc/own", "own"),
    )
    build(("RUN wild", wild), name="wild")
    with pytest.raises(LayerstoreError, match="circle"):
        why(store, "wild", "/a/x")
    assert why(store, "wild", "/up/etc/own").path == "/etc/own"
    assert not why(store, "wild", "/host/etc/passwd").exists


def test_only_attributes_that_differ_are_named(store: Store, build: Build) -> None:
    again = make.layer(make.file("etc/conf", "one", mode=0o600, uid=5))
    same = make.layer(make.file("etc/conf", "one", mode=0o600, uid=5))
    build(("RUN base", BASE), ("RUN chmod", again), ("RUN touch", same + b"\0" * 512), name="app")
    found = why(store, "app", "/etc/conf")
    assert told(found)[:2] == [("RUN touch", Deed.AGAIN), ("RUN chmod", Deed.ATTRIBUTES)]
    assert found.steps[1].differs == ("mode 0644 -> 0600", "owner 0:0 -> 5:0")


@pytest.mark.parametrize(
    "upper",
    [make.layer(make.whiteout("data")), make.layer(make.folder("data/"), make.opaque("data"))],
    ids=["removed", "opaque"],
)
def test_a_path_hidden_by_a_folder_above_says_which(store: Store, build: Build, upper: bytes) -> None:
    build(("RUN base", BASE), ("RUN clean", upper), name="app")
    found = why(store, "app", "/data/a")
    assert not found.exists
    assert told(found) == [("RUN clean", Deed.REMOVED), ("RUN base", Deed.ADDED)]
    assert found.steps[0].by == b"data"
    assert found.steps[0].hides_bytes == 100


def test_a_folder_that_is_removed_tells_all_that_goes_with_it(store: Store, build: Build) -> None:
    build(("RUN base", BASE), ("RUN rm -r /data", make.layer(make.whiteout("data"))), name="app")
    step = why(store, "app", "/data").steps[0]
    assert (step.deed, step.hides, step.hides_bytes, step.by) == (Deed.REMOVED, 3, 300, None)


def test_a_folder_that_is_emptied_says_so(store: Store, build: Build) -> None:
    opaque = make.layer(make.folder("data/"), make.opaque("data"), make.file("data/new", "new"))
    build(("RUN base", BASE), ("RUN clean", opaque), name="app")
    step = why(store, "app", "/data").steps[0]
    assert (step.deed, step.hides, step.hides_bytes) == (Deed.EMPTIED, 2, 300)


def test_a_file_in_the_place_of_a_folder_hides_what_was_in_it(store: Store, build: Build) -> None:
    build(("RUN base", BASE), ("RUN replace", make.layer(make.file("data", "now a file"))), name="app")
    step = why(store, "app", "/data").steps[0]
    assert (step.deed, step.hides, step.hides_bytes) == (Deed.REPLACED, 3, 300)
    inside = why(store, "app", "/data/a").steps[0]
    assert (inside.deed, inside.by) == (Deed.REMOVED, b"data")


def test_what_is_removed_and_made_again_is_added_again(store: Store, build: Build) -> None:
    build(
        ("RUN base", BASE),
        ("RUN rm", make.layer(make.whiteout("etc/conf"))),
        ("RUN echo", make.layer(make.file("etc/conf", "three"))),
        name="app",
    )
    assert told(why(store, "app", "/etc/conf")) == [
        ("RUN echo", Deed.ADDED),
        ("RUN rm", Deed.REMOVED),
        ("RUN base", Deed.ADDED),
    ]


def test_a_hard_link_is_a_file_of_its_layer(store: Store, build: Build) -> None:
    linked = make.layer(make.file("etc/new", "new!"), make.hard_link("etc/conf", "etc/new"))
    build(("RUN base", BASE), ("RUN ln -f", linked), name="app")
    step = why(store, "app", "/etc/conf").steps[0]
    assert step.deed is Deed.CONTENT
    assert step.entry is not None
    assert (step.entry.kind, step.entry.target, step.entry.size) == (EntryKind.HARD_LINK, b"etc/new", 4)


def test_a_folder_that_is_listed_for_what_is_in_it_is_no_step(store: Store, build: Build) -> None:
    more = make.layer(make.folder("etc/"), make.file("etc/other", "x"))
    build(("RUN base", BASE), ("RUN more", more), name="app")
    assert told(why(store, "app", "/etc")) == [("RUN base", Deed.ADDED)]


def test_names_of_any_bytes_are_found(store: Store, build: Build) -> None:
    name = b"d/\xff\xfe\n\x1b[31m"
    build(("RUN odd", make.layer(make.folder("d/"), make.file(os.fsdecode(name), "odd"))), name="odd")
    found = why(store, "odd", b"/" + name)
    assert found.exists
    assert told(found) == [("RUN odd", Deed.ADDED)]


def test_a_path_that_never_was_has_no_steps(store: Store, build: Build) -> None:
    build(("RUN base", BASE), name="app")
    found = why(store, "app", "/no/such/thing")
    assert not found.exists
    assert found.steps == ()
    assert not why(store, "app", "/" + "n" * 300).exists
    with pytest.raises(NotFound, match="no container or image"):
        why(store, "nothing", "/etc")


def test_the_base_of_a_line_is_an_image_that_the_store_knows(store: Store, build: Build) -> None:
    more = make.layer(make.file("etc/conf", "two"))
    build(("RUN base", BASE), name="base:1")
    build(("RUN base", BASE), ("RUN more", more), name="app")
    found = why(store, "app", "/etc/conf")
    assert [step.line.base for step in found.steps] == ["", "base:1"]


# --- containers ---


def test_a_container_tells_what_it_wrote_above_the_layers(store: Store, build: Build) -> None:
    container = store.create_container(build(("RUN base", BASE), name="app"), name="box")
    with container.mount() as root:
        (root / "etc/conf").write_text("changed here")
        (root / "etc/kept").chmod(0o600)
        (root / "etc/new").write_text("new")
        (root / "data/a").unlink()
    changed = why(store, "box", "/etc/conf")
    assert changed.of == "box"
    assert changed.written is not None
    assert changed.written.deed is Deed.CONTENT
    assert told(changed) == [("RUN base", Deed.ADDED)]
    chmod = why(store, "box", "/etc/kept").written
    assert chmod is not None
    assert (chmod.deed, chmod.differs) == (Deed.ATTRIBUTES, ("mode 0644 -> 0600",))
    new, removed = why(store, "box", "/etc/new"), why(store, "box", "/data/a")
    assert new.written is not None
    assert new.written.deed is Deed.ADDED
    assert removed.written is not None
    assert removed.written.deed is Deed.REMOVED
    assert not removed.exists
    assert why(store, "box", "/data/b").written is None
    folder = why(store, "box", "/etc").written
    assert folder is not None
    assert (folder.deed, folder.differs) == (Deed.ATTRIBUTES, ("time",))


def test_a_folder_removed_in_a_container_takes_what_was_in_it(store: Store, build: Build) -> None:
    container = store.create_container(build(("RUN base", BASE), name="app"), name="box")
    with container.mount() as root:
        for name in ("a", "b"):
            (root / "data" / name).unlink()
        (root / "data").rmdir()
    written = why(store, container, "/data/a").written
    assert written is not None
    assert written.deed is Deed.REMOVED


def test_the_checkpoints_around_the_last_writing_are_named(store: Store, build: Build) -> None:
    container = store.create_container(build(("RUN base", BASE), name="app"), name="box")

    def write(name: str, text: str) -> None:
        with container.mount() as root:
            (root / "etc" / name).write_text(text)

    write("first", "1")
    container.checkpoint("one")
    write("second", "2")
    container.checkpoint("two")
    write("third", "3")
    between = {name: why(store, "box", f"/etc/{name}").written for name in ("first", "second", "third")}
    assert {name: (w.after, w.checkpoint) for name, w in between.items() if w} == {
        "first": (None, "one"),
        "second": ("one", "two"),
        "third": ("two", None),
    }
    container.rollback("one")
    write("fourth", "4")
    written = why(store, "box", "/etc/fourth").written
    assert written is not None
    assert (written.after, written.checkpoint) == ("one", None)
    assert why(store, "box", "/etc/second").written is None


def test_a_container_on_nothing_has_only_what_it_wrote(store: Store) -> None:
    container = store.create_container(name="bare")
    with container.mount() as root:
        (root / "f").write_text("x")
    found = why(store, "bare", "/f")
    assert found.steps == ()
    assert found.written is not None
    assert found.written.deed is Deed.ADDED


def test_a_container_on_layers_that_no_image_has_tells_them(store: Store, build: Build) -> None:
    image = build(("RUN base", BASE), name="app")
    container = store.create_container(None, on=image.chain_id, name="stage")
    assert told(why(store, container, "/etc/conf")) == [("", Deed.ADDED)]
