"""Caches elsewhere, by whole builds: what one machine has done another need not do, and the image is the same."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import layerstore
from layerstore import ConfigError, Store
from layerstore.build.cache import Cache, prune, records
from layerstore.build.cache.documents import FIELD
from layerstore.build.cache.rows import TABLES
from layerstore.build.events import Ended, Warned
from layerstore.retention import CachePolicy
from support.building import Builder

TEXT = """\
FROM base AS tools
COPY tool /tool
RUN cat /tool > /made && true
FROM base
RUN true
COPY --from=tools /made /made
WORKDIR /work
RUN cat /made > result
"""
FILES = {"tool": "hammer\n"}
EPOCH = {"source_date_epoch": 1_700_000_000}


@pytest.fixture
def elsewhere(own_filesystem: Callable[..., Path], base_archive: Path, tmp_path: Path) -> Iterator[Builder]:
    """Builds in another store, which has the same base and has built nothing."""
    settings = layerstore.Config(
        data_root=own_filesystem("ext4") / "other", exec_root=tmp_path / "exec", storage_driver="overlay2"
    )
    with layerstore.open(config=settings) as store:
        store.load(base_archive)
        yield Builder(store, tmp_path / "elsewhere")


@pytest.mark.parametrize("kind", ["local", "store"])
def test_steps_that_were_done_elsewhere_are_not_done_again(
    make: Builder, elsewhere: Builder, tmp_path: Path, own_filesystem: Callable[..., Path], kind: str
) -> None:
    place = tmp_path / "cache" if kind == "local" else own_filesystem("ext4") / "cache"
    built = make(TEXT, FILES, cache_to=[f"type={kind},dest={place},mode=max"], **EPOCH)
    again = elsewhere(TEXT, FILES, cache_from=[f"type={kind},src={place}"], **EPOCH)
    assert elsewhere.done == []
    assert again.image.id == built.image.id


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_copy_that_depends_on_nothing_below_is_found_by_all_bases(
    make: Builder, elsewhere: Builder, tmp_path: Path, mode: str
) -> None:
    text = "FROM base\nRUN echo {} > /base\nCOPY --link tool /tools/tool\n"
    make(text.format("one"), FILES, cache_to=[f"type=local,dest={tmp_path / 'cache'},mode={mode}"])
    built = elsewhere(text.format("other"), FILES, cache_from=[f"type=local,src={tmp_path / 'cache'}"])
    assert elsewhere.done == ["RUN echo other > /base"]
    with built.image.mount() as root:
        assert (root / "tools/tool").read_text() == FILES["tool"]


def test_a_changed_file_lets_the_steps_after_it_be_done(make: Builder, elsewhere: Builder, tmp_path: Path) -> None:
    make(TEXT, FILES, cache_to=[f"type=local,dest={tmp_path / 'cache'},mode=max"])
    elsewhere(TEXT, {"tool": "saw\n"}, cache_from=[f"type=local,src={tmp_path / 'cache'}"])
    assert [title.partition(" ")[0] for title in elsewhere.done] == ["COPY", "RUN", "COPY", "WORKDIR", "RUN"]


def test_an_image_with_its_cache_is_the_same_whatever_was_cached(make: Builder, elsewhere: Builder) -> None:
    first = make(TEXT, FILES, cache_to=["type=inline"], **EPOCH)
    again = make(TEXT, FILES, build_args={"BUILDKIT_INLINE_CACHE": "1"}, **EPOCH)
    other = elsewhere(TEXT, FILES, cache_to=["type=inline"], **EPOCH)
    assert first.image.id == again.image.id == other.image.id
    assert FIELD in first.image.config
    assert FIELD not in make(TEXT, FILES, **EPOCH).image.config


def test_a_cache_that_is_missing_is_a_warning(make: Builder, tmp_path: Path) -> None:
    make(TEXT, FILES, cache_from=[f"type=local,src={tmp_path / 'none'}"])
    assert [event.message for event in make.events if isinstance(event, Warned) and "is not used" in event.message]


def test_what_is_no_cache_is_refused_before_anything_is_done(make: Builder, based: Store) -> None:
    with pytest.raises(ConfigError, match="the type s3 is not supported"):
        make(TEXT, FILES, cache_to=["type=s3,bucket=x"])
    assert not any(isinstance(event, Ended) for event in make.events)


def test_builds_keep_no_more_than_daemon_json_says(
    own_filesystem: Callable[..., Path], base_archive: Path, tmp_path: Path
) -> None:
    settings = layerstore.Config(
        data_root=own_filesystem("ext4") / "limited",
        exec_root=tmp_path / "exec",
        storage_driver="overlay2",
        build_cache=50_000,
    )
    with layerstore.open(config=settings) as store:
        store.load(base_archive)
        build = Builder(store, tmp_path / "context")
        old = build("FROM base\nRUN head -c 100000 /dev/urandom > /old\n", {})
        assert [record.shared for record in records(Cache(store))] == [True]
        old.image.remove()
        build("FROM base\nRUN head -c 100000 /dev/urandom > /new\n")
        assert ["/new" in record.description for record in records(Cache(store))] == [True]
        build("FROM base\nRUN head -c 100000 /dev/urandom > /new\n")
        assert build.done == []


def test_policies_of_daemon_json_are_carried_out_one_after_the_other(
    own_filesystem: Callable[..., Path], base_archive: Path, tmp_path: Path
) -> None:
    policies = (
        CachePolicy(texts={"type": ("exec.cachemount",), "description": ("cache gone", "cache none")}),
        CachePolicy(texts={"description": ("/two",)}, switches={"shared": frozenset({False})}, unused_for=3600),
        CachePolicy(texts={"description": ("/one",)}, all=True),
    )
    settings = layerstore.Config(
        data_root=own_filesystem("ext4") / "limited",
        exec_root=tmp_path / "exec",
        storage_driver="overlay2",
        build_cache=0,  # which policies take the place of
        build_policies=policies,
    )
    mounts = "--mount=type=cache,id=gone,target=/g --mount=type=cache,id=kept,target=/k"
    with layerstore.open(config=settings) as store:
        store.load(base_archive)
        build = Builder(store, tmp_path / "context")
        build(f"FROM base\nRUN {mounts} echo 2 > /two\nRUN echo 1 > /one\n", {})
        left = [record.description for record in records(Cache(store))]
        assert [line for line in left if line.startswith("cache")] == ["cache kept"]
        assert any("/two" in line for line in left)
        assert not any("/one" in line for line in left)


def test_a_cache_that_lies_about_what_a_step_stands_on_is_not_believed(make: Builder, based: Store) -> None:
    """Its layer, on nothing, would take the place of the whole base."""
    make("FROM base\nRUN echo good > /good\n", {})
    bare = make("FROM scratch\nCOPY evil /evil\n", {"evil": "evil"}).image.chain_id
    with based.tables(TABLES).write() as tx:
        tx.execute("UPDATE build_cache_entries SET layer = ? WHERE description LIKE '%good%'", (bare,))
    built = make("FROM base\nRUN echo good > /good\nRUN test ! -e /evil\n", {})
    with built.image.mount() as root:
        assert (root / "good").read_text() == "good\n"
        assert (root / "bin/sh").exists()


def test_of_two_builds_that_need_a_step_one_does_it(make: Builder, based: Store, tmp_path: Path) -> None:
    """The other waits for it, and says so."""
    count = "--mount=type=cache,id=count,target=/count"
    line = "echo once >> /count/runs; until [ -e /count/go ]; do sleep 0.05; done; date +%N > /when"
    text = f"FROM base\nRUN {count} {line}\nRUN {{}}\n"
    builders = [Builder(based, tmp_path / name) for name in ("one", "two")]
    images: list[str] = []

    def run(builder: Builder, line: str) -> None:
        images.append(builder(text.format(line), {}).image.layers[-1])

    threads = [
        threading.Thread(target=run, args=(builder, line))
        for builder, line in zip(builders, ("echo 1 > /a", "echo 2 > /b"), strict=True)
    ]
    for thread in threads:
        thread.start()
    with Cache(based).mounts.mount("count") as folder:
        deadline = time.monotonic() + 60
        while not any("waiting for another build" in builder.output for builder in builders):
            if time.monotonic() > deadline:
                break  # which is told below
            time.sleep(0.01)
        (folder / "go").touch()
    for thread in threads:
        thread.join()
    assert len(set(images)) == 2
    assert [builder.done for builder in builders if len(builder.done) == 1]
    assert sum("waiting for another build" in builder.output for builder in builders) == 1
    make(f"FROM base\nRUN {count} cat /count/runs > /runs && test $(wc -l < /runs) = 1\n")


def test_a_build_without_steps_gives_an_empty_cache(make: Builder, elsewhere: Builder, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    make("FROM scratch\nENV A=b\n", {}, cache_to=[f"type=local,dest={place},mode=max"])
    elsewhere(TEXT, FILES, cache_from=[f"type=local,src={place}"])
    assert len(elsewhere.done) == 6
    assert not [event for event in elsewhere.events if isinstance(event, Warned)]


def test_a_cache_in_a_folder_is_given_again_and_again(make: Builder, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "cache"
    sizes = []
    for word in ("one", "two", "two"):
        make("FROM scratch\nCOPY f /d\n", {"f": word}, cache_to=[f"type=local,dest={place},mode=max"])
        sizes.append(len(os.listdir(place / "blobs" / "sha256")))
        prune(Cache(make.store), all=True)
        (place / ".draft-of-the-dead").mkdir()
    assert sizes == [sizes[0]] * 3, "nothing of the one before is left"
    make("FROM scratch\nCOPY f /d\n", {"f": "two"}, cache_from=[f"type=local,src={place}"])
    assert make.done == []
