"""Blobs by digest: what is known of them, what can be given out, what keeps them, and how they go."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve

import layerstore
from blobs.conftest import GZIP_TYPE, GZIPPED, INDEX_TYPE, LAYER, MANIFEST_TYPE, manifest, name_of, read
from core.adding import Adder
from layerstore.blobs import Blobs, KnownBlob, Place
from layerstore.digest import DiffID, Digest, ImageID
from layerstore.store import Store

pytestmark = pytest.mark.root

KNOWN = KnownBlob(name_of(GZIPPED), DiffID(name_of(LAYER)), len(GZIPPED), GZIP_TYPE)


def files(data_root: Path) -> list[str]:
    return sorted(path.name for path in (data_root / "blobs" / "sha256").glob("*"))


@pytest.fixture
def a_day_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was put before is not leased any more."""
    import time

    now = time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: now() + 25 * 60 * 60 * 10**9)


def test_a_store_without_blobs_knows_nothing(store: Store, blobs: Blobs, data_root: Path) -> None:
    strange = name_of(b"strange")
    assert blobs.known([strange]) == {}
    assert blobs.forms_of(DiffID(strange)) == []
    assert blobs.size(strange) is None
    assert blobs.manifest(strange) is None
    assert blobs.places(strange, "docker.io") == []
    assert blobs.collect() == 0
    with pytest.raises(layerstore.NotFound):
        read(blobs, strange)
    assert not (data_root / "blobs").exists()
    assert not (data_root / "partial").exists()


class TestLayers:
    def test_which_blob_holds_which_layer(self, blobs: Blobs) -> None:
        blobs.remember(None, KNOWN, [("docker.io", "library/debian"), Place("ghcr.io", "a/b")])
        assert blobs.known([KNOWN.digest, name_of(b"other")]) == {KNOWN.digest: KNOWN.diff_id}
        assert blobs.forms_of(KNOWN.diff_id) == [KNOWN]
        assert blobs.places(KNOWN.digest, "docker.io") == ["library/debian"]
        assert set(blobs.all_places(KNOWN.digest)) == {Place("docker.io", "library/debian"), Place("ghcr.io", "a/b")}

    def test_in_the_transaction_of_the_image(self, blobs: Blobs, store: Store) -> None:
        def give_up() -> None:
            with store._parts.database.write() as tx:
                blobs.remember(tx, KNOWN)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            give_up()
        assert blobs.known([KNOWN.digest]) == {}
        with store._parts.database.write() as tx:
            blobs.remember(tx, KNOWN)
            blobs.saw(tx, [KNOWN.digest], "docker.io", "me/mine")
        assert blobs.known([KNOWN.digest])
        assert blobs.places(KNOWN.digest, "docker.io") == ["me/mine"]

    def test_a_recipe_stays_known(self, blobs: Blobs) -> None:
        from attrs import evolve

        blobs.remember(None, evolve(KNOWN, recipe="some"))
        blobs.remember(None, KNOWN)
        assert blobs.forms_of(KNOWN.diff_id) == [evolve(KNOWN, recipe="some")]

    def test_of_very_many_places_the_last_ones(self, blobs: Blobs) -> None:
        for number in range(40):
            blobs.saw(None, [KNOWN.digest], "docker.io", f"team/{number}")
        found = blobs.places(KNOWN.digest, "docker.io")
        assert found == [f"team/{number}" for number in range(39, 39 - len(found), -1)]
        assert 8 <= len(found) < 40

    @pytest.mark.usefixtures("a_day_later")
    def test_goes_with_the_layer(self, blobs: Blobs, store: Store, add: Adder, monkeypatch: pytest.MonkeyPatch) -> None:
        add(LAYER, name="x")
        blobs.remember(None, KNOWN, [("docker.io", "a/b")])
        store.prune()
        assert blobs.known([KNOWN.digest])
        store.remove_image("x")
        monkeypatch.undo()
        monkeypatch.setattr("time.time_ns", lambda: 1 << 62)
        store.prune()
        assert blobs.known([KNOWN.digest]) == {}
        assert blobs.all_places(KNOWN.digest) == []


class TestGivenOut:
    def test_a_plain_layer(self, blobs: Blobs, add: Adder) -> None:
        add(LAYER)
        assert blobs.size(name_of(LAYER)) == len(LAYER)
        assert read(blobs, name_of(LAYER)) == LAYER

    @pytest.mark.parametrize(("start", "end"), [(0, 10), (511, 513), (700, None), (5, 5), (0, 10**9), (10**9, None)])
    def test_a_range_of_a_plain_layer(self, blobs: Blobs, add: Adder, start: int, end: int | None) -> None:
        add(LAYER)
        assert read(blobs, name_of(LAYER), start, end) == LAYER[start:end]

    def test_a_config(self, blobs: Blobs, add: Adder) -> None:
        image = add(LAYER)
        assert blobs.size(Digest(image.id)) == len(image.config_bytes)
        assert read(blobs, image.id) == image.config_bytes
        assert read(blobs, image.id, 3, 9) == image.config_bytes[3:9]

    def test_a_manifest(self, blobs: Blobs) -> None:
        data = manifest(b"{}", GZIPPED)
        kept = blobs.put_manifest(MANIFEST_TYPE, data)
        assert (kept.digest, kept.media_type, kept.data) == (name_of(data), MANIFEST_TYPE, data)
        assert blobs.manifest(kept.digest) == kept
        assert blobs.size(kept.digest) == len(data)
        assert read(blobs, kept.digest) == data

    def test_a_kept_file(self, blobs: Blobs, data_root: Path) -> None:
        assert blobs.put(io.BytesIO(GZIPPED), expected=name_of(GZIPPED)) == (name_of(GZIPPED), len(GZIPPED))
        assert blobs.size(name_of(GZIPPED)) == len(GZIPPED)
        assert read(blobs, name_of(GZIPPED)) == GZIPPED
        assert read(blobs, name_of(GZIPPED), 100, 200) == GZIPPED[100:200]
        place = data_root / "blobs/sha256" / name_of(GZIPPED).removeprefix("sha256:")
        assert place.read_bytes() == GZIPPED
        assert place.stat().st_mode & 0o777 == 0o600

    def test_inflated(self, blobs: Blobs) -> None:
        blobs.put(io.BytesIO(GZIPPED))
        with blobs.opened(name_of(GZIPPED)) as stream:
            buffer = memoryview(bytearray(1 << 20))
            found = b""
            while count := stream.readinto(buffer):
                found += bytes(buffer[:count])
        assert found == LAYER

    def test_a_layer_that_is_known_to_be_damaged_is_not_promised(self, blobs: Blobs, add: Adder, store: Store) -> None:
        image = add(LAYER)
        folder = store._images.folders_of(image)[image.chain_ids[0]]
        (folder / "etc/7").write_text("something else")
        with pytest.raises(layerstore.Damaged):
            read(blobs, name_of(LAYER))
        assert blobs.size(name_of(LAYER)) is None


class TestPut:
    def test_wrong_digest_keeps_nothing(self, blobs: Blobs, store: Store, data_root: Path) -> None:
        with pytest.raises(layerstore.DigestMismatch):
            blobs.put(io.BytesIO(b"x"), expected=name_of(b"y"))
        assert files(data_root) == []
        assert store.check() == []

    def test_twice_is_once(self, blobs: Blobs, data_root: Path) -> None:
        blobs.put(io.BytesIO(b"x"))
        blobs.put(io.BytesIO(b"x"))
        assert len(files(data_root)) == 1
        assert read(blobs, name_of(b"x")) == b"x"

    def test_from_a_partial(self, blobs: Blobs, data_root: Path) -> None:
        partial = blobs.partial(name_of(GZIPPED))
        assert partial is not None
        with partial:
            partial.append(GZIPPED)
            assert blobs.put_partial(partial, name_of(GZIPPED)) == len(GZIPPED)
        assert read(blobs, name_of(GZIPPED)) == GZIPPED
        assert list((data_root / "partial").iterdir()) == []

    def test_from_a_partial_with_a_wrong_digest(self, blobs: Blobs, data_root: Path) -> None:
        partial = blobs.partial("0" * 32)
        assert partial is not None
        with partial:
            partial.append(b"something")
            with pytest.raises(layerstore.DigestMismatch):
                blobs.put_partial(partial, name_of(GZIPPED))
            assert partial.size == 9
        assert files(data_root) == []

    def test_a_manifest_that_is_none(self, blobs: Blobs) -> None:
        for wrong in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b" " * (4 << 20) + b"{}"):
            with pytest.raises(layerstore.InvalidArchive):
                blobs.put_manifest(MANIFEST_TYPE, wrong)
        with pytest.raises(layerstore.DigestMismatch):
            blobs.put_manifest(MANIFEST_TYPE, b"{}", expected=name_of(b"{ }"))

    def test_a_malformed_manifest_names_what_it_can(self, blobs: Blobs) -> None:
        wrong = {"config": 3, "layers": [None, {"digest": "sha256:x"}, {}], "manifests": {}, "subject": []}
        blobs.put_manifest(MANIFEST_TYPE, json.dumps(wrong).encode())


@pytest.mark.usefixtures("a_day_later")
class TestNeeds:
    """What is old enough goes, unless something needs it."""

    def put(self, blobs: Blobs, data: bytes, monkeypatch: pytest.MonkeyPatch) -> Digest:
        with monkeypatch.context() as then:
            then.setattr("time.time_ns", lambda: 0)
            return blobs.put(io.BytesIO(data))[0]

    def put_manifest(
        self, blobs: Blobs, data: bytes, monkeypatch: pytest.MonkeyPatch, *images: ImageID, kind: str = MANIFEST_TYPE
    ) -> Digest:
        with monkeypatch.context() as then:
            then.setattr("time.time_ns", lambda: 0)
            return blobs.put_manifest(kind, data, images=images).digest

    def test_for_a_day(self, blobs: Blobs, store: Store, data_root: Path) -> None:
        blobs.put(io.BytesIO(b"x"))
        kept = blobs.put_manifest(MANIFEST_TYPE, b"{}")
        store.prune()
        assert blobs.size(name_of(b"x")) == 1
        assert blobs.manifest(kept.digest)

    def test_not_for_longer(self, blobs: Blobs, store: Store, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.put(blobs, b"x" * 1000, monkeypatch)
        digest = self.put_manifest(blobs, b"{}", monkeypatch)
        assert store.prune().reclaimed == 1000
        assert files(data_root) == []
        assert blobs.size(name_of(b"x" * 1000)) is None
        assert blobs.manifest(digest) is None

    def test_with_the_layer_that_it_holds(
        self, blobs: Blobs, store: Store, add: Adder, data_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add(LAYER, name="x")
        self.put(blobs, GZIPPED, monkeypatch)
        blobs.remember(None, KNOWN)
        store.prune()
        assert blobs.size(name_of(GZIPPED))
        store.remove_image("x")
        assert files(data_root) == []

    def test_with_the_image(
        self, blobs: Blobs, store: Store, add: Adder, data_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image = add(LAYER, name="x")
        self.put(blobs, GZIPPED, monkeypatch)
        inner = manifest(image.config_bytes, GZIPPED)
        digest = self.put_manifest(blobs, inner, monkeypatch)
        index = json.dumps({"manifests": [{"digest": digest}]}).encode()
        outer = self.put_manifest(blobs, index, monkeypatch, image.id, kind=INDEX_TYPE)
        about = self.put(blobs, b"a signature", monkeypatch)
        signed = json.dumps({"layers": [{"digest": about}], "subject": {"digest": digest}}).encode()
        signature = self.put_manifest(blobs, signed, monkeypatch)
        store.prune()
        assert all(blobs.size(one) for one in (name_of(GZIPPED), digest, outer, about, signature))
        assert [found.digest for found in blobs.manifests_of(image.id)] == [outer]
        assert [found.digest for found in blobs.referrers(digest)] == [signature]
        store.remove_image("x")
        assert not any(blobs.size(one) for one in (name_of(GZIPPED), digest, outer, about, signature))
        assert files(data_root) == []

    def test_goes_when_the_image_removes_itself(
        self, blobs: Blobs, add: Adder, data_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image = add(LAYER, name="x")
        self.put(blobs, GZIPPED, monkeypatch)
        blobs.remember(None, KNOWN)
        image.remove()
        assert files(data_root) == []

    def test_by_whoever_holds_it(self, blobs: Blobs, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        part = self.put(blobs, b"part", monkeypatch)
        data = json.dumps({"layers": [{"digest": part}]}).encode()
        digest = self.put_manifest(blobs, data, monkeypatch)
        blobs.hold("serve a/b:1", digest)
        assert blobs.holds("serve ") == {"serve a/b:1": digest}
        assert blobs.holds("other ") == {}
        store.prune()
        assert blobs.size(part)
        assert blobs.let_go("serve a/b:1")
        assert not blobs.let_go("serve a/b:1")
        store.prune()
        assert blobs.size(part) is None

    def test_not_what_is_kept_anyway(
        self, blobs: Blobs, store: Store, add: Adder, data_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A plain layer and a config can be given out without a file."""
        image = add(LAYER, name="x")
        self.put(blobs, LAYER, monkeypatch)
        self.put(blobs, image.config_bytes, monkeypatch)
        self.put_manifest(blobs, manifest(image.config_bytes, LAYER), monkeypatch, image.id)
        store.prune()
        assert files(data_root) == []
        assert read(blobs, name_of(LAYER)) == LAYER
        assert read(blobs, image.id) == image.config_bytes

    def test_deleted_by_hand(self, blobs: Blobs, data_root: Path) -> None:
        digest, _ = blobs.put(io.BytesIO(b"x"))
        kept = blobs.put_manifest(MANIFEST_TYPE, b"{}")
        assert blobs.delete(digest)
        assert blobs.delete(kept.digest)
        assert not blobs.delete(digest)
        assert files(data_root) == []
        assert blobs.manifest(kept.digest) is None


class TestCheck:
    def kinds(self, store: Store, *, content: bool = False) -> list[str]:
        return [problem.kind for problem in store.check(content=content)]

    def place(self, blobs: Blobs, data_root: Path) -> Path:
        digest, _ = blobs.put(io.BytesIO(GZIPPED))
        return data_root / "blobs/sha256" / digest.removeprefix("sha256:")

    def test_missing(self, blobs: Blobs, store: Store, data_root: Path) -> None:
        self.place(blobs, data_root).unlink()
        assert self.kinds(store) == ["missing blob"]
        assert blobs.size(name_of(GZIPPED)) is None
        blobs.put(io.BytesIO(GZIPPED))
        assert self.kinds(store) == []
        assert read(blobs, name_of(GZIPPED)) == GZIPPED

    def test_missing_when_it_is_read(self, blobs: Blobs, store: Store, data_root: Path) -> None:
        self.place(blobs, data_root).unlink()
        with pytest.raises(layerstore.NotFound):
            read(blobs, name_of(GZIPPED))
        assert blobs.size(name_of(GZIPPED)) is None

    def test_shorter(self, blobs: Blobs, store: Store, data_root: Path) -> None:
        place = self.place(blobs, data_root)
        place.write_bytes(GZIPPED[:-1])
        assert self.kinds(store) == ["damaged blob"]

    def test_altered(self, blobs: Blobs, store: Store, data_root: Path) -> None:
        place = self.place(blobs, data_root)
        place.write_bytes(GZIPPED[:-1] + b"x")
        assert self.kinds(store) == []
        assert self.kinds(store, content=True) == ["damaged blob"]
        assert blobs.size(name_of(GZIPPED)) is None

    def test_found_while_it_is_read(self, blobs: Blobs, store: Store, data_root: Path) -> None:
        self.place(blobs, data_root).write_bytes(GZIPPED[:-1] + b"x")
        with pytest.raises(layerstore.Damaged, match="has another digest"):
            read(blobs, name_of(GZIPPED))
        assert blobs.size(name_of(GZIPPED)) is None

    def test_too_much(self, blobs: Blobs, store: Store, data_root: Path) -> None:
        place = self.place(blobs, data_root)
        (place.parent / ("0" * 64)).write_bytes(b"x")
        (place.parent / "README").write_bytes(b"somebody's own")
        assert self.kinds(store) == ["garbage", "foreign"]
        store.prune()
        assert self.kinds(store) == ["foreign"]
        assert files(data_root) == sorted([place.name, "README"])


class TestRoom:
    """What kept and partial blobs take is told."""

    @pytest.mark.usefixtures("a_day_later")
    def test_in_the_usage(self, blobs: Blobs, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as then:
            then.setattr("time.time_ns", lambda: 0)
            blobs.put(io.BytesIO(b"x" * 1000))
        blobs.put(io.BytesIO(b"y" * 300))
        partial = blobs.partial("ab" * 16)
        assert partial is not None
        with partial:
            partial.append(b"z" * 8192)
        found = store.disk_usage().blobs
        assert (found.kept, found.kept_size, found.unneeded, found.unneeded_size) == (2, 1300, 1, 1000)
        assert (found.partial, found.partial_size) == (1, 8192)
        assert store.info().blobs == found

    def test_by_the_command(self, blobs: Blobs, store: Store, tmp_path: Path) -> None:
        config = tmp_path / "daemon.json"
        roots = {"data-root": str(store.data_root), "exec-root": str(store.config.exec_root)}
        config.write_text(json.dumps(roots))
        run = [sys.executable, "-m", "layerstore.cli", "--config", config, "system", "df", "--format", "json"]
        before = subprocess.run(run, capture_output=True, text=True, check=True).stdout
        kinds = ["Images", "Containers", "Local Volumes", "Build Cache"]
        assert [json.loads(line)["Type"] for line in before.splitlines()] == kinds
        blobs.put(io.BytesIO(b"x" * 1000))
        after = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()[4:]
        assert [json.loads(line) for line in after] == [
            {"Type": "Kept blobs", "TotalCount": "1", "Active": "1", "Size": "1kB", "Reclaimable": "0B (0%)"}
        ]


def test_a_conversion_keeps_them(store: Store, blobs: Blobs, add: Adder) -> None:
    add(LAYER, name="x")
    blobs.put(io.BytesIO(GZIPPED))
    blobs.remember(None, KNOWN, [("docker.io", "a/b")])
    kept = blobs.put_manifest(MANIFEST_TYPE, b"{}")
    config = store.config
    store.close()
    layerstore.migrate("vfs", config=config)
    with layerstore.open(config=evolve(config, storage_driver="vfs")) as converted:
        assert converted.blobs.forms_of(KNOWN.diff_id) == [KNOWN]
        assert converted.blobs.places(KNOWN.digest, "docker.io") == ["a/b"]
        assert converted.blobs.manifest(kept.digest) == kept
        assert read(converted.blobs, name_of(GZIPPED)) == GZIPPED
        assert read(converted.blobs, name_of(LAYER)) == LAYER
        assert converted.check(content=True) == []
