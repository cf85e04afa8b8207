"""Digests by which registries know an image: names that mean the same for ever, used and removed as docker does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.adding import Adder
from layerstore import reference
from layerstore.digest import of_bytes
from layerstore.errors import InUse, InvalidReference, NotFound
from layerstore.images import Image, rows
from layerstore.store import Store
from support import images as make

pytestmark = pytest.mark.root

FIRST, SECOND = of_bytes(b"first"), of_bytes(b"second")
Known = Callable[..., Image]


@pytest.fixture
def known(store: Store) -> Known:
    """`known("x:1", "x@sha256:…", layers=[…])`: an image under these names, as a pull brings it in."""

    def add(*names: str, layers: tuple[bytes, ...] = ()) -> Image:
        given = [reference.parse(name) for name in names]
        adder = Adder(store)
        tags = [name.full for name in given if name.digest is None]

        def record(tx: Any, image: Any) -> None:
            for name in given:
                if name.digest is not None:
                    rows.set_digest(tx, image, name.name, name.digest)

        sources = adder.sources(*layers)
        return store._images.add(make.config(layers), sources, tags, record=record)

    return add


def removed(store: Store, ref: str, **how: bool) -> list[str]:
    return [str(done) for done in store.remove_image(ref, **how)]


def test_name_with_a_digest_means_the_image_wherever_a_name_does(store: Store, known: Known, base: bytes) -> None:
    image = known("x:1", f"x@{FIRST}", layers=(base,))
    assert image.digests == (f"x@{FIRST}",)
    assert image.inspect()["RepoDigests"] == [f"x@{FIRST}"]
    assert store.images()[0].digests == image.digests
    # docker's rule: the digest counts, whatever tag stands before it.
    for ref in (f"x@{FIRST}", f"x:2@{FIRST}", f"docker.io/library/x@{FIRST}"):
        assert store.image(ref) == image
    for ref in (f"y@{FIRST}", f"x@{SECOND}", f"x:1@{SECOND}"):
        with pytest.raises(NotFound):
            store.image(ref)
    box = store.create_container(f"x@{FIRST}", name="box")
    assert store.container("box").image_name == box.image_name == f"x@{FIRST}"
    box.remove()
    store.tag(f"x@{FIRST}", "y")
    assert store.image("y") == store.image("x:1")
    with pytest.raises(InvalidReference, match="not a digest"):
        store.tag("x:1", f"y@{FIRST}")


def test_container_is_called_by_the_id_when_the_digest_means_it_no_more(store: Store, known: Known) -> None:
    image = known("x:1", f"x@{FIRST}", f"y@{FIRST}")
    store.create_container(f"y@{FIRST}", name="box")
    store.remove_image(f"y@{FIRST}")
    assert store.container("box").image_name == image.short_id


def test_digest_of_an_index_moves_to_the_image_that_was_chosen_last(store: Store, known: Known, base: bytes) -> None:
    first, second = known(f"x@{FIRST}"), known(f"x@{FIRST}", layers=(base,))
    assert store.image(f"x@{FIRST}") == second
    assert store.image(first.id).digests == ()


def test_removing_the_digest_leaves_the_tag(store: Store, known: Known) -> None:
    known("x:1", f"x@{FIRST}")
    assert removed(store, f"x@{FIRST}") == [f"Untagged: x@{FIRST}"]
    assert (store.image("x:1").tags, store.image("x:1").digests) == (("x:1",), ())


def test_removing_the_last_tag_of_a_repository_takes_its_digests(store: Store, known: Known) -> None:
    image = known("x:1", "x:2", "y:1", f"x@{FIRST}", f"x@{SECOND}", f"y@{FIRST}")
    assert removed(store, "x:1") == ["Untagged: x:1"]
    assert removed(store, "x:2") == ["Untagged: x:2", *sorted(f"Untagged: x@{digest}" for digest in (FIRST, SECOND))]
    assert removed(store, "y:1") == ["Untagged: y:1", f"Untagged: y@{FIRST}", f"Deleted: {image.id}"]


def test_removing_the_last_digest_removes_the_image(store: Store, known: Known) -> None:
    image = known(f"x@{FIRST}", f"x@{SECOND}")
    assert removed(store, f"x@{FIRST}") == [f"Untagged: x@{FIRST}"]
    assert removed(store, f"x@{SECOND}") == [f"Untagged: x@{SECOND}", f"Deleted: {image.id}"]


def test_id_removes_an_image_of_one_tag_with_its_digests(store: Store, known: Known) -> None:
    image = known("x:1", f"x@{FIRST}")
    assert removed(store, image.id) == ["Untagged: x:1", f"Untagged: x@{FIRST}", f"Deleted: {image.id}"]


def test_id_of_an_image_that_two_repositories_have_needs_force(store: Store, known: Known) -> None:
    image = known(f"x@{FIRST}", f"y@{FIRST}")
    with pytest.raises(InUse) as caught:
        store.remove_image(image.id)
    assert f"rmi x@{FIRST} y@{FIRST}" in str(caught.value)
    assert removed(store, image.id, force=True)[-1] == f"Deleted: {image.id}"


def test_prune_takes_what_has_digests_alone(store: Store, known: Known) -> None:
    known(f"x@{FIRST}")
    assert str(store.prune().images[0]) == f"Untagged: x@{FIRST}"
    assert store.images() == []


def test_image_with_a_digest_stays_when_what_was_built_on_it_goes(store: Store, known: Known, base: bytes) -> None:
    image = known(f"x@{FIRST}", layers=(base,))
    with store.create_container(image, name="box") as box:
        with box.mount() as root:
            (root / "new").touch()
        box.commit("made")
        box.remove()
    store.remove_image("made")
    assert store.images() == [image]
