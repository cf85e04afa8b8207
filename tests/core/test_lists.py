"""Lists while what they list comes and goes: what a list shows came with it, and what has gone breaks none."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.adding import Adder
from layerstore.errors import NotFound
from layerstore.images import Image
from layerstore.store import Store

pytestmark = pytest.mark.root


@pytest.fixture
def image(add: Adder, base: bytes) -> Image:
    return add(base, name="base")


def test_a_list_of_containers_keeps_what_it_saw(store: Store, image: Image) -> None:
    store.create_container(image, name="first")
    second = store.create_container(image, name="second")
    mounted = second.mount(persistent=True)
    store.create_container(name="third")
    third, listed, first = store.containers()
    second.unmount()
    second.remove()
    store.container("first").remove()
    image.remove()
    assert (listed.state.status, listed.state.mountpoint, listed.state.mounts) == ("mounted", mounted.path, 1)
    assert (first.state.status, first.state.mountpoint, first.state.mounts) == ("created", None, 0)
    assert listed.state.image == first.state.image == image
    assert (third.state.status, third.state.image) == ("created", None)
    # What is asked for anew is what is true now, as far as there is anything to ask.
    assert (listed.status, listed.mountpoint, listed.mounts) == ("created", None, 0)
    assert (listed.name, listed.image_name) == ("second", "base:latest")
    with pytest.raises(NotFound):
        listed.usage()


def test_a_state_is_new_after_the_container_was_used(store: Store, image: Image) -> None:
    store.create_container(image, name="web")
    [box] = store.containers()
    with box.mount() as root:
        assert (box.state.status, box.state.mountpoint, box.state.mounts) == ("mounted", root, 1)
        (Path(root) / "new").touch()
    assert (box.state.status, box.state.mountpoint, box.state.mounts) == ("unmounted", None, 0)
    made = box.commit("made")
    assert box.state.image == made
    assert box.state.status == "created"


def test_the_state_of_one_that_was_looked_up_is_that_of_now(store: Store, image: Image) -> None:
    box = store.create_container(image, name="web")
    store.container("web").mount(persistent=True)
    assert (box.state.status, box.state.mounts, box.state.image) == ("mounted", 1, image)
    store.container("web").remove(force=True)
    assert box.state.status == "mounted"
    other = store.create_container(image, name="other")
    store.container("other").remove()
    with pytest.raises(NotFound):
        _ = other.state


def test_info_counts_what_is_mounted(store: Store, image: Image) -> None:
    box = store.create_container(image, name="web")
    mounted = box.mount(persistent=True)
    assert (store.info().containers, store.info().mounted) == (1, 1)
    assert [(one.name, place) for one, place in store.mounted()] == [("web", mounted.path)]
    box.unmount()
    assert (store.info().containers, store.info().mounted) == (1, 0)
