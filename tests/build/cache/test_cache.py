"""Results of steps: found by their key alone, done once however many need them, and gone with their layers."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import layerstore
from layerstore import KernelError, ReadOnlyStore, Store, StoredLayer, Transaction
from layerstore.build.cache import OWNER, Cache, prune, records, rows

from .conftest import Done, layer_with

pytestmark = pytest.mark.root

KEY, OTHER = "a" * 64, "b" * 64


def test_a_step_that_was_done_is_found_by_its_key_and_no_other(cache: Cache, done: Done) -> None:
    layer = done(KEY)
    found = cache.find(KEY)
    assert found is not None
    assert (found.layer, found.description) == (layer, "RUN make")
    assert cache.find(OTHER) is None


def test_a_step_that_wrote_nothing_is_found_without_a_layer(cache: Cache) -> None:
    cache.record_nothing(KEY, description="RUN true")
    found = cache.find(KEY)
    assert found is not None
    assert found.layer is None


def test_results_stay_when_the_store_is_pruned_and_opened_again(
    store: Store, settings: layerstore.Config, done: Done
) -> None:
    layer = done(KEY)
    store.prune(all_images=True, containers=True)
    store.close()
    with layerstore.open(config=settings) as again:
        found = Cache(again).find(KEY)
        assert found is not None
        assert found.layer == layer
        assert again.check(content=True) == []


def test_a_result_whose_layer_is_gone_is_none(store: Store, cache: Cache, done: Done) -> None:
    done(KEY)
    store.end_leases(OWNER, store.leases(OWNER))
    assert cache.find(KEY) is None


def test_a_result_that_is_damaged_is_none(store: Store, cache: Cache, done: Done) -> None:
    done(KEY, name="much", content=b"x" * 100_000)
    [path] = list((store.data_root / "overlay2").rglob("much"))
    path.write_bytes(b"y" * 100_000)
    assert store.check(content=True)
    assert cache.find(KEY) is None


def test_a_step_that_came_to_the_same_once_more_has_one_lease(store: Store, cache: Cache, done: Done) -> None:
    chain = done(KEY).chain_id
    assert done(KEY).chain_id == chain
    assert list(store.leases(OWNER).values()) == [chain]
    found = cache.find(KEY)
    assert found is not None
    assert found.layer is not None
    assert found.layer.chain_id == chain


def test_a_step_that_is_done_anew_takes_the_place_of_the_former(store: Store, cache: Cache, done: Done) -> None:
    before = done(KEY, name="before")
    with cache.claim(KEY, anew=True) as entry:
        assert entry is None
        after = done(KEY, name="after")
    found = cache.find(KEY)
    assert found is not None
    assert found.layer == after
    prune(cache)
    with pytest.raises(layerstore.NotFound):
        store.layer(before.chain_id)


def test_of_many_threads_one_does_the_work(cache: Cache, done: Done) -> None:
    made: list[str] = []
    seen: list[StoredLayer | None] = []

    def need() -> None:
        with cache.claim(KEY) as entry:
            if entry is None:
                time.sleep(0.05)
                made.append(done(KEY).chain_id)
            else:
                seen.append(entry.layer)

    threads = [threading.Thread(target=need) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert [layer and layer.chain_id for layer in seen] == made * 7


WORK = """
import io, sys, time, layerstore
from contextlib import nullcontext
from layerstore import LayerSource
from layerstore.build.cache import Cache
from pathlib import Path
data_root, exec_root, key, what, log = sys.argv[1:]
settings = layerstore.Config(data_root=data_root, exec_root=exec_root, storage_driver="overlay2")
with layerstore.open(config=settings) as store, Cache(store) as cache:
    with cache.claim(key, waits=lambda: print("waits", flush=True)) as entry:
        print("hit" if entry else "does", flush=True)
        if entry is None:
            sys.stdin.readline()
            if what == "dies":
                import os, signal
                os.kill(os.getpid(), signal.SIGKILL)
            tar = Path(log).read_bytes()
            store.add_layer(
                LayerSource(lambda: nullcontext(io.BytesIO(tar))),
                record=lambda tx, layer: cache.record(tx, key, layer, description="RUN make"),
            )
"""


def _process(settings: layerstore.Config, what: str, tar: Path) -> subprocess.Popen[str]:
    arguments = [settings.data_root, settings.exec_root, KEY, what, tar]
    return subprocess.Popen(
        [sys.executable, "-c", WORK, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("what", ["lives", "dies"])
def test_a_process_waits_for_another_that_does_the_step(
    store: Store, settings: layerstore.Config, tmp_path: Path, what: str
) -> None:
    """It takes what comes of it, or does it itself when the other has died."""
    from support import images as make

    tar = tmp_path / "tar"
    tar.write_bytes(make.layer(make.file("made", "x")))
    with _process(settings, what, tar) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "does\n"
        with _process(settings, "lives", tar) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "waits\n"
            print(file=first.stdin, flush=True)
            assert second.stdout.readline() == ("hit\n" if what == "lives" else "does\n")
            second.communicate("\n", timeout=30)
            assert second.returncode == 0
    assert Cache(store).find(KEY) is not None
    assert store.check(content=True) == []


def test_whoever_waits_hears_that_the_build_is_over(cache: Cache) -> None:
    class Over(Exception):
        pass

    def stop() -> None:
        raise Over

    with cache.claim(KEY), pytest.raises(Over), cache.claim(KEY, stop=stop):
        pytest.fail("two have claimed the same step")


def test_what_is_hit_by_a_quicker_key_is_known_by_the_exact_one(store: Store, cache: Cache) -> None:
    """Else what a build gives to a cache elsewhere would depend on what was cached here."""
    with Cache(store) as first:
        store.add_layer(
            layer_with("file", "x"),
            record=lambda tx, layer: [
                first.record(tx, key, layer, description="COPY . .", exact=KEY) for key in (OTHER, KEY)
            ],
        )
        given = first.steps()
    with Cache(store) as second:
        found = second.find(OTHER)
        assert found is not None
        assert found.exact == KEY
        assert second.steps() == given
        assert list(given) == [KEY]


def test_what_cannot_be_written_to_is_told_of(
    store: Store, settings: layerstore.Config, cache: Cache, done: Done
) -> None:
    done(KEY)
    with cache.mounts.mount("x"):
        pass
    store.close()
    root = settings.data_root
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        with layerstore.open(config=settings) as frozen:
            assert {record.kind for record in records(Cache(frozen))} == {"regular", "exec.cachemount"}
            assert Cache(frozen).find(KEY) is not None
            with pytest.raises(ReadOnlyStore):
                prune(Cache(frozen))
    finally:
        subprocess.run(["umount", root], check=True)


def test_a_build_that_is_over_is_written_down_though_the_disk_is_full_at_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, refused = rows.end, []

    def once(tx: Transaction, names: list[str]) -> None:
        if not refused:
            refused.extend(names)
            raise KernelError("sqlite", errno.ENOSPC)
        end(tx, names)

    monkeypatch.setattr(rows, "end", once)
    with Cache(store) as cache:
        pass
    assert refused
    with cache.database.read() as tx:
        assert rows.builds(tx) == {}
