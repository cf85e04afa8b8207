"""Some images of an archive, under the archive's names or others; and what a load did to names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from layerstore.digest import Digest
from layerstore.errors import Ambiguous, InvalidReference, NotFound
from layerstore.transfer.choosing import Offered, choose
from support import images

from .archives import OCI_CONFIG, OCI_LAYER, Layout, encoded, platform, tar

if TYPE_CHECKING:
    from layerstore import Store

BASE = images.layer(images.folder("etc"), images.file("etc/hosts", "localhost\n"))
TOP = images.layer(images.folder("etc"), images.file("etc/motd", "hello\n"))
ONE, TWO = images.config([BASE]), images.config([BASE, TOP])
FIRST, SECOND = images.digest(ONE), images.digest(TWO)

pytestmark = pytest.mark.root


def docker_archive(one: Sequence[str] = ("one:latest", "uno:1"), two: Sequence[str] = ("two:latest",)) -> bytes:
    """An archive of two images that share a layer."""
    configs = {images.digest(config)[7:] + ".json": config for config in (ONE, TWO)}
    layers = {images.digest(layer)[7:] + ".tar": layer for layer in (BASE, TOP)}
    listed = [
        {"Config": config, "RepoTags": list(tags), "Layers": list(layers)[:count]}
        for config, tags, count in zip(configs, (one, two), (1, 2), strict=True)
    ]
    return tar([*layers.items(), *configs.items(), ("manifest.json", encoded(listed))])


@pytest.fixture(params=["file", "stream"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], str | BytesIO]:
    """An archive that can be read anywhere, or from beginning to end only."""

    def made(content: bytes) -> str | BytesIO:
        if request.param == "stream":
            return BytesIO(content)
        (tmp_path / "in.tar").write_bytes(content)
        return str(tmp_path / "in.tar")

    return made


def test_a_load_tells_the_names_of_the_archive_alone(store: Store, archive: Callable[[bytes], str | BytesIO]) -> None:
    for image in store.load(archive(docker_archive())):
        image.tag("mine/" + image.names[0])
    one, two = store.load(archive(docker_archive(one=["one:latest"])))
    assert (one.names, two.names) == (("one:latest",), ("two:latest",))
    assert one.tags == ("mine/one:latest", "one:latest", "uno:1")
    nameless, _ = store.load(archive(docker_archive(one=[])))
    assert nameless.names == ()
    assert nameless == store.image("one")
    assert store.image("one") == nameless
    assert hash(nameless) == hash(store.image("one"))
    assert nameless != two


def test_a_load_tells_which_names_it_took_from_others(store: Store, archive: Callable[[bytes], str | BytesIO]) -> None:
    first = store.load(archive(docker_archive()))
    assert all(not image.taken for image in first)
    again = store.load(archive(docker_archive()))
    assert all(not image.taken for image in again)
    one, two = store.load(archive(docker_archive(one=["two:latest"], two=["uno:1", "new:1"])))
    assert dict(one.taken) == {"two:latest": SECOND}
    assert dict(two.taken) == {"uno:1": FIRST}
    assert store.image("two").id == FIRST


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (["two"], {SECOND: ("two:latest",)}),
        (["docker.io/library/two:latest"], {SECOND: ("two:latest",)}),
        (["uno:1"], {FIRST: ("uno:1",)}),
        (["one", "uno:1"], {FIRST: ("one:latest", "uno:1")}),
        ([FIRST], {FIRST: ("one:latest", "uno:1")}),
        ([FIRST[7:19], "uno:1"], {FIRST: ("one:latest", "uno:1")}),
        (["uno:1", SECOND[7:]], {FIRST: ("uno:1",), SECOND: ("two:latest",)}),
    ],
)
def test_some_images_of_an_archive(
    store: Store, archive: Callable[[bytes], str | BytesIO], only: list[str], names: dict[str, tuple[str, ...]]
) -> None:
    found = store.load(archive(docker_archive()), only=only)
    assert {image.id: image.names for image in found} == names
    assert {image.id: image.tags for image in store.images()} == names


def test_what_the_archive_does_not_have_is_an_error_that_says_what_it_has(
    store: Store, archive: Callable[[bytes], str | BytesIO], content: Callable[[], list[str]]
) -> None:
    before = content()
    with pytest.raises(NotFound, match="the archive has no image three") as caught:
        store.load(archive(docker_archive(one=[])), only=["two", "three"])
    assert caught.value.remedy == f"It has {FIRST[7:19]}, two:latest."
    with pytest.raises(NotFound):
        store.load(archive(docker_archive()), only=["uno"])  # which is uno:latest
    assert content() == before


def test_an_image_gets_other_names_than_the_archive_gives(
    store: Store, archive: Callable[[bytes], str | BytesIO], content: Callable[[], list[str]]
) -> None:
    before = content()
    with pytest.raises(Ambiguous, match="the archive has 2") as caught:
        store.load(archive(docker_archive()), names=["mine"])
    assert "one:latest, uno:1" in str(caught.value.remedy)
    with pytest.raises(InvalidReference):
        store.load(archive(docker_archive()), only=["two"], names=["NOT"])
    assert content() == before
    [image] = store.load(archive(docker_archive()), only=["two"], names=["mine", "host:5000/mine:2", "mine:latest"])
    assert image.names == ("mine:latest", "host:5000/mine:2")
    assert store.image("mine").tags == ("host:5000/mine:2", "mine:latest")


def test_a_layout_is_asked_by_name_by_the_tag_alone_and_by_either_digest(store: Store) -> None:
    layout = Layout()
    plain, named = layout.image([BASE]), layout.image([BASE, TOP])
    layout.add(plain, "3.20")  # as skopeo writes `oci:layout:3.20`
    layout.add(named, "docker.io/library/two:latest")
    for asked, expected in (
        ("3.20", FIRST),
        (plain["digest"], FIRST),
        (FIRST[7:], FIRST),
        ("two", SECOND),
        (named["digest"], SECOND),
    ):
        [image] = store.load(BytesIO(layout.tar()), only=[asked])
        assert image.id == expected
    with pytest.raises(NotFound) as caught:
        store.load(BytesIO(layout.tar()), only=["3.21"])
    assert caught.value.remedy == "It has 3.20, two:latest."


def test_an_image_for_other_machines_is_no_hindrance_to_the_one_that_is_chosen(store: Store) -> None:
    layout = Layout()
    foreign = layout.image([TOP], images.config([TOP], architecture="s390x"), platform=platform("s390x"))
    other = layout.image([TOP], images.config([TOP], architecture="riscv64"), platform=platform("riscv64"))
    layout.add(layout.index([foreign, other]), "docker.io/library/foreign:latest")
    layout.add(layout.image([BASE]), "docker.io/library/one:latest")
    [image] = store.load(BytesIO(layout.tar()), only=["one"])
    assert image.id == FIRST
    [image] = store.load(BytesIO(layout.tar()), only=["foreign"], platform="linux/riscv64")
    assert image.architecture == "riscv64"
    [image] = store.load(BytesIO(layout.tar()), only=[images.digest(images.config([TOP], architecture="s390x"))])
    assert image.architecture == "s390x"


def test_a_layer_that_is_missing_matters_to_the_image_that_has_it_alone(store: Store, tmp_path: Path) -> None:
    layout = Layout()
    broken = layout.manifest(
        layout.put(TWO, OCI_CONFIG),
        [layout.put(BASE, OCI_LAYER), {"mediaType": OCI_LAYER, "digest": images.digest(TOP), "size": len(TOP)}],
    )
    layout.add(broken, "docker.io/library/two:latest")
    layout.add(layout.image([BASE]), "docker.io/library/one:latest")
    (tmp_path / "in.tar").write_bytes(layout.tar())
    [image] = store.load(tmp_path / "in.tar", only=["one"])
    assert image.names == ("one:latest",)


def test_the_beginning_of_an_id_fits_one_image_only() -> None:
    offered = [Offered(Digest("sha256:" + "a" * 63 + last)) for last in "ab"]
    with pytest.raises(Ambiguous):
        choose(["aaa"], offered)
    assert list(choose(["a" * 63 + "b"], offered)) == [offered[1].id]
