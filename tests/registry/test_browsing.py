"""Images that are read in their registry: what they show, how much is fetched for it, and what is believed."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import zstandard
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from attacks import odd
from attacks.cases import ATTACKS
from core.adding import Adder
from drivers.test_alike import LOWER, UPPER
from layerstore import DigestMismatch, InvalidArchive, LayerstoreError, NotFound, RegistryError, Store
from layerstore.digest import Digest
from layerstore.manifests import Descriptor
from layerstore.manifests.tables import Piece, TableEntry
from layerstore.registry import browse, browsing
from layerstore.registry.browsing import tabled as reading_tables
from layerstore.registry.browsing.blobs import Counter, Parts
from layerstore.registry.browsing.tabled import _Headers
from layerstore.testing import strategies, tars, trees
from support import images as make
from support import tabled
from support.properties import NIGHTLY, by_day

from .servers.memory import LAYER, MANIFEST
from .servers.quirks import Quirks

Form = Callable[[bytes], tuple[bytes, dict[str, str]]]

FORMS: dict[str, tuple[str, Form]] = {
    "plain": ("", lambda tar: (tar, {})),
    "gzip": ("+gzip", lambda tar: (gzip.compress(tar, 1, mtime=0), {})),
    "zstd": ("+zstd", lambda tar: (zstandard.ZstdCompressor().compress(tar), {})),
    "eStargz": ("+gzip", tabled.estargz),
    "zstd:chunked": ("+zstd", tabled.chunked),
}
TABLED = ("eStargz", "zstd:chunked")


def put(server: Quirks, form: str, *tars: bytes, alter: Callable[[bytes], bytes] = bytes) -> str:
    """The image in a form. `alter` is done to blobs once their descriptors are made."""
    suffix, write = FORMS[form]
    layers = []
    for tar in tars:
        blob, notes = write(tar)
        layers.append({**server.describe("a/b", blob, LAYER + suffix), "annotations": notes})
        server.blobs["a/b", str(layers[-1]["digest"])] = alter(blob)
    config = server.describe("a/b", make.config(tars), "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    server.put_manifest("a/b", "1", manifest)
    return f"{server.host}/a/b:1"


def seeded(count: int) -> bytes:
    return random.Random(count).randbytes(count)


@pytest.mark.root
@pytest.mark.parametrize("form", FORMS)
def test_it_shows_what_a_mount_of_it_would(form: str, quirks: Quirks, store: Store) -> None:
    image = Adder(store)(LOWER, UPPER)
    with image.open_tree() as root:
        expected = trees.listing(f"/proc/self/fd/{root}")
    with browse(put(quirks, form, LOWER, UPPER)) as tree:
        found = trees.browsed(tree)
    trees.assert_same(expected, found)


BASE = tars.archive(
    tars.folder(b"d", mode=0o700, uid=5),
    tars.file(b"d/f", b"base"),
    tars.symlink(b"l", b"d"),
    tars.symlink(b"a", b"/d", uid=7),
    tars.file(b"f", b"below"),
    tars.fifo(b"p", mode=0o600),
    tars.folder(b"x"),
    tars.file(b"x/y"),
)
"""What odd layers get in the way of, and what gets in theirs."""

MORE = {
    "through a link of the layer below": tars.archive(tars.file(b"a/new", b"n"), tars.file(b"l/more")),
    "hard links to the layer below": tars.archive(
        tars.hardlink(b"h", b"f"), tars.hardlink(b"k", b"a/f"), tars.hardlink(b"q", b"p"), tars.hardlink(b"m", b"l")
    ),
    "a hard link to what is replaced": tars.archive(tars.hardlink(b"h", b"f"), tars.file(b"f", b"own")),
    "marks alone": tars.archive(tars.whiteout(b"no/such"), tars.whiteout(b"f/x"), tars.whiteout(b"x/y")),
    "opaque, and not listed": tars.archive(tars.opaque(b"d"), tars.file(b"d/g"), tars.opaque(b"x")),
    "the root opaque": tars.archive(tars.opaque(b""), tars.file(b"d/g"), tars.hardlink(b"h", b"d/g")),
    "removed, and there again": tars.archive(tars.whiteout(b"d"), tars.file(b"d/g")),
}


OF_FILESYSTEMS = ("a time after 2446", "CVE-2021-23177")
"""What a filesystem cuts or refuses: a time, and an extended attribute of a symbolic link."""


def the_same(store: Store, name: str, *layers: bytes) -> str | None:
    """What is wrong with an image that is read in the registry, against the store's."""
    try:
        image = Adder(store)(*layers)
    except LayerstoreError as error:
        refused = type(error)
    else:
        refused = None
        with image.open_tree() as root:
            expected = trees.listing(f"/proc/self/fd/{root}")
    try:
        with browse(name) as tree:
            found = trees.browsed(tree)
    except LayerstoreError as error:
        return None if isinstance(error, refused or ()) else f"refused: {error}"
    return "; ".join(trees.differences(expected, found)) or None if refused is None else "taken, as nowhere else"


@pytest.mark.root
def test_an_odd_tar_is_what_it_is_in_a_store(quirks: Quirks, store: Store) -> None:
    forms = ("plain", "gzip", "zstd")
    cases = {name: (tar,) for name, tar in odd.ODD.items()}
    cases |= {f"{name}, on another": (BASE, tar) for name, tar in (odd.ODD | MORE).items()}
    cases |= {attack.number: tuple(attack.layers(b"/tmp/canary")) for attack in ATTACKS}
    wrong = {}
    for number, (name, layers) in enumerate(cases.items()):
        if name.removesuffix(", on another") in OF_FILESYSTEMS:
            continue
        if NIGHTLY or name.removesuffix(", on another") in MORE or number % 8 == 0:
            for form in forms if NIGHTLY else forms[number % 3 :][:1]:
                if said := the_same(store, put(quirks, form, *layers), *layers):
                    wrong[name, form] = said
    assert wrong == {}


@pytest.mark.root
def test_any_tars_are_what_they_are_in_a_store(quirks: Quirks, store: Store) -> None:
    @by_day(8, deadline=None)
    @given(layers=strategies.stacks(max_layers=3, acls=False), form=st.sampled_from(("plain", "gzip", "zstd")))
    def told(layers: list[strategies.Layer], form: str) -> None:
        stack = [layer.tar for layer in layers]
        assert the_same(store, put(quirks, form, *stack), *stack) is None
        store.prune(all_images=True)

    told()


@pytest.mark.root
def test_what_tables_say_is_what_tars_say(quirks: Quirks, store: Store) -> None:
    for seed in range(1000 if NIGHTLY else 5):
        chance = random.Random(seed)
        marks = [tars.whiteout(b"a"), tars.whiteout(b"a/a"), tars.opaque(b"a"), tars.opaque(b""), tars.whiteout(b"b/a")]
        stack = [tars.archive(*odd.random_layer(chance), chance.choice(marks)) for _ in range(chance.randrange(1, 4))]
        assert the_same(store, put(quirks, TABLED[seed % 2], *stack), *stack) is None, seed


LARGE = make.layer(
    make.folder("etc"),
    make.file("etc/first", "first"),
    make.symlink("etc/link", "../opt/wanted"),
    make.file("large", seeded(3_000_000)),
    make.folder("opt"),
    make.file("opt/wanted", "wanted" * 5000),
    make.file("rest", seeded(3_000_000)),
)
ABOVE = make.layer(make.folder("etc"), make.file("etc/new", "new"), make.whiteout("etc/first"))


@pytest.mark.parametrize(
    ("form", "most"), [("plain", 0.15), ("gzip", 1), ("zstd", 1), ("eStargz", 0.05), ("zstd:chunked", 0.01)]
)
def test_one_file_costs_a_part_of_the_image(form: str, most: float, quirks: Quirks) -> None:
    name = put(quirks, form, LARGE, ABOVE)
    size = sum(map(len, quirks.blobs.values()))
    with browse(name) as tree:
        assert tree.read("etc/link") == b"wanted" * 5000
        assert 0 < tree.fetched < size * most
        before = tree.fetched
        assert tree.read("etc/new") == b"new"
        with pytest.raises(NotFound):
            tree.find("etc/first")
        if form in TABLED:
            assert tree.fetched - before < 200
            with tree.open("large") as file:
                file.seek(1_500_000)
                assert file.read(10) == seeded(3_000_000)[1_500_000:1_500_010]
            assert tree.fetched - before < 25_000
        with tree.open("large") as file:
            assert file.read() == seeded(3_000_000)
        assert tree.fetched < size  # nothing came twice


def test_a_tar_that_is_too_large_to_be_kept_is_read_again(quirks: Quirks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsing, "_KEPT", 1 << 20)
    name = put(quirks, "gzip", LARGE, ABOVE)
    size = sum(map(len, quirks.blobs.values()))
    with browse(name) as tree:
        assert tree.read("opt/wanted") == b"wanted" * 5000
        assert tree.read("rest") == seeded(3_000_000)  # later in the tar: the same reading goes on
        assert tree.fetched < 2 * size
        assert tree.read("large") == seeded(3_000_000)
        assert tree.fetched > 2 * size


@pytest.mark.parametrize("form", TABLED)
@pytest.mark.parametrize("place", [0.3, 0.7, -80, -200])
def test_what_is_altered_is_given_out_nowhere(form: str, place: float, quirks: Quirks) -> None:
    def alter(blob: bytes) -> bytes:
        at = int(len(blob) * place) if isinstance(place, float) else place % len(blob)
        return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]

    with browse(put(quirks, form, LARGE, alter=alter)) as tree:
        try:
            large, rest = tree.read("large"), tree.read("rest")
        except (DigestMismatch, InvalidArchive):
            return
        assert (large, rest) == (seeded(3_000_000), seeded(3_000_000))
        assert place == -80  # nobody looks at zstd:chunked's footer


@pytest.mark.parametrize("form", TABLED)
def test_what_a_table_says_is_no_measure_of_memory(form: str, quirks: Quirks, monkeypatch: pytest.MonkeyPatch) -> None:
    name = put(quirks, form, LARGE)
    monkeypatch.setattr(reading_tables, "_LARGEST_PIECE", 1000)
    with browse(name) as tree, pytest.raises(InvalidArchive, match=r"large in .* a piece of it has more than"):
        tree.read("large")
    monkeypatch.setattr(reading_tables, "_TAIL", 60)
    monkeypatch.setattr(reading_tables, "_LARGEST", 100)
    with browse(name) as tree, pytest.raises(InvalidArchive, match="it is none"):
        tree.read("large")


def test_what_is_asked_for_takes_no_memory_before_it_comes() -> None:
    class Short:
        name = "a/b"

        def blob(self, *asked: object, **how: object) -> Any:
            return nullcontext(io.BytesIO(b"short"))

    layer = Descriptor("application/vnd.oci.image.layer.v1.tar", Digest(f"sha256:{0:064}"), 1 << 60)
    with pytest.raises(RegistryError, match="ends early"):
        Parts(Short(), layer, Counter()).read(0, 1 << 60)  # type: ignore[arg-type]


def test_a_hole_of_any_size_is_read_as_far_as_it_is_wanted() -> None:
    hole = Piece(0, 1 << 60, 0, 0, None, is_zeros=True)
    entry = TableEntry("hole", "reg", 0o644, 0, 0, 1 << 60, 0, "", (0, 0), {}, (hole,))
    with io.BufferedReader(reading_tables._File(None, "gzip", entry)) as file:  # type: ignore[arg-type]  # it asks nobody
        assert file.read(10) == bytes(10)
        file.seek((1 << 60) - 3)
        assert file.read() == bytes(3)


def test_a_layer_that_was_read_to_its_end_is_proved(quirks: Quirks) -> None:
    name = put(quirks, "gzip", LARGE, alter=lambda blob: gzip.compress(ABOVE, 1, mtime=1).ljust(len(blob), b"\0"))
    with browse(name) as tree, pytest.raises((DigestMismatch, InvalidArchive)):
        list(tree.children(tree.root))


@pytest.mark.parametrize("form", [*TABLED, "plain"])
def test_a_registry_that_gives_no_parts_is_told_of(form: str, quirks: Quirks) -> None:
    quirks.ranges = False
    with browse(put(quirks, form, LARGE)) as tree, pytest.raises(RegistryError, match="does not give out parts"):
        tree.read("etc/new")


@pytest.mark.parametrize("form", FORMS)
def test_names_that_lead_out_are_refused(form: str, quirks: Quirks) -> None:
    with browse(put(quirks, form, make.layer(make.file("a/../../b", "x")))) as tree, pytest.raises(InvalidArchive):
        list(tree.walk())


def test_a_file_that_was_passed_is_read_once_more(quirks: Quirks) -> None:
    with browse(put(quirks, "gzip", LARGE)) as tree:
        assert [entry.name for entry in tree.children(tree.root)] == ["etc", "large", "opt", "rest"]
        assert (tree.read("etc/first"), tree.read("opt/wanted")[:6], tree.read("etc/first")) == (
            b"first",
            b"wanted",
            b"first",
        )


@pytest.mark.tools("skopeo")
def test_what_skopeo_makes_chunked_is_read_by_ranges(quirks: Quirks, tmp_path: Path) -> None:
    make.docker_archive(tmp_path / "image.tar", [LARGE], ["large:1"])
    options = ("--dest-tls-verify=false", "--format", "oci", "--dest-compress-format", "zstd:chunked")
    source, target = f"docker-archive:{tmp_path}/image.tar", f"docker://{quirks.host}/a/b:1"
    subprocess.run(["skopeo", "copy", "-q", *options, source, target], check=True)
    size = sum(map(len, quirks.blobs.values()))
    with browse(f"{quirks.host}/a/b:1") as tree:
        assert tree.read("opt/wanted") == b"wanted" * 5000
        assert 0 < tree.fetched < size / 100


@pytest.mark.parametrize("wrong", [{"name": "\ud800"}, {"target": "\ud800"}, {"xattrs": {"user.\ud800": b""}}])
def test_names_of_a_table_that_are_no_text_are_refused(wrong: dict[str, Any]) -> None:
    entry = TableEntry("a", "symlink", 0o777, 0, 0, 0, 0, "b", (0, 0), {}, ())
    with pytest.raises(InvalidArchive, match="no text at"):
        _Headers([evolve(entry, **wrong)], "it").readinto(memoryview(bytearray(512)))


def test_a_device_of_a_table_may_have_any_number() -> None:
    entry = TableEntry("a", "char", 0o600, 0, 0, 0, 0, "", (1 << 61, 8**7), {}, ())
    assert 0 < _Headers([entry], "it").readinto(memoryview(bytearray(4096))) <= 2048
