"""builder ls, df, prune and cache; what system df and system prune tell of what builds remember."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import Result

import layerstore
from layerstore import LayerSource
from layerstore.build.cache import Cache
from support import images as make

Run = Callable[..., Result]

pytestmark = pytest.mark.root

STEPS = {"a" * 64: "RUN one", "b" * 64: "RUN two"}


@pytest.fixture
def used(run: Run, settings: Path) -> Run:
    """Two steps, of which an image has the first, and a folder `npm` with a file."""
    with layerstore.open(config=settings) as store:
        cache = Cache(store)
        parent = None
        for number, (key, words) in enumerate(STEPS.items()):
            tar = make.layer(make.file(f"file{number}", b"x" * 50_000))
            layer = store.add_layer(
                LayerSource(lambda tar=tar: nullcontext(io.BytesIO(tar))),  # type: ignore[misc]
                parent,
                record=lambda tx, layer, key=key, words=words: cache.record(tx, key, layer, description=words),  # type: ignore[misc]
            )
            if parent is None:
                config = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}
                store.add_image(json.dumps(config).encode(), layer.chain_id, ["base:1"])
            parent = layer.chain_id
        with cache.mounts.mount("npm") as folder:
            (folder / "left").write_bytes(b"x" * 30_000)
    return run


def ids(run: Run, *more: str) -> set[str]:
    return {line.partition("-")[0] for line in run("builder", "ls", "-q", *more).stdout.split()}


def test_ls_shows_steps_and_folders(used: Run) -> None:
    lines = used("builder", "ls", "--format", "{{.Description}}|{{.CacheType}}|{{.Shared}}|{{.InUse}}").stdout
    assert set(lines.splitlines()) == {
        "cache npm|exec.cachemount|false|false",
        "RUN two|regular|false|false",
        "RUN one|regular|true|false",
    }
    assert used("builder", "ls").stdout.split("\n")[0].split("  ")[0] == "CACHE ID"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("shared=true", {"aaaaaaaaaaaa"}),
        ("private=true", {"bbbbbbbbbbbb", "build"}),
        ("type=exec.cachemount", {"build"}),
        ("description=two", {"bbbbbbbbbbbb"}),
        ("id=bb", {"bbbbbbbbbbbb"}),
        ("until=1h", set()),
        ("inuse=false", {"aaaaaaaaaaaa", "bbbbbbbbbbbb", "build"}),
    ],
)
def test_ls_filters(used: Run, given: str, expected: set[str]) -> None:
    assert ids(used, "--filter", given) == expected


def test_df_sums_up(used: Run) -> None:
    *_, shared, private, reclaimable, total = used("builder", "df").stdout.splitlines()
    assert shared.split() == ["Shared:", "61.44kB"]
    assert private.split()[0] == "Private:"
    assert reclaimable.split() == ["Reclaimable:", private.split()[1]]
    assert total.split()[0] == "Total:"


def test_prune_asks_and_spares_what_images_have(used: Run) -> None:
    refused = used("builder", "prune", stdin=b"n\n", code=1)
    assert refused.stderr.startswith("WARNING! This will remove all build cache that no image has.")
    told = used("builder", "prune", "-f").stdout
    assert "Deleted build cache objects:\n" in told
    assert "bbbbbbbbbbbb\n" in told
    assert "Total reclaimed space: 9" in told
    assert ids(used) == {"aaaaaaaaaaaa"}
    assert "aaaaaaaaaaaa\n" in used("builder", "prune", "-af").stdout
    assert used("builder", "prune", "-f").stdout == "Total reclaimed space: 0B\n"


def test_prune_keeps_as_much_as_is_asked_for(used: Run) -> None:
    assert used("builder", "prune", "-f", "--keep-storage", "10M").stdout == "Total reclaimed space: 0B\n"
    used("builder", "prune", "-f", "--keep-storage", "50k")
    assert ids(used) == {"aaaaaaaaaaaa", "build"}
    assert "keep-storage is a size" in used("builder", "prune", "-f", "--keep-storage", "much", code=2).stderr


def test_a_folder_is_no_container_of_ps(used: Run) -> None:
    used("create", "--name", "web", "base:1", "sh")
    assert used("ps", "-a", "--format", "{{.Names}}").stdout == "web\n"
    assert used("info", "-f", "{{.Containers}}").stdout == "1\n"
    used("rm", "web")
    [name] = used("builder", "cache", "ls", "--format", "{{.Container}}").stdout.split()
    assert "is kept by build_cache" in used("rm", "-f", name, code=1).stderr


def test_system_df_counts_it_apart(used: Run) -> None:
    told = used("system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}").stdout.splitlines()
    assert told[0] == "Images|1|0|61.44kB"
    assert "Images|61.44kB (100%)" in used("system", "df", "--format", "{{.Type}}|{{.Reclaimable}}").stdout
    assert told[1] == "Containers|0|0|0B"
    assert told[3].startswith("Build Cache|3|0|9")
    whole = used("system", "df", "-v").stdout
    assert "Build cache usage: 9" in whole
    assert "RUN" not in whole
    found = json.loads(used("system", "df", "-v", "--format", "json").stdout)
    assert {line["Description"] for line in found["BuildCache"]} == {"RUN one", "RUN two", "cache npm"}


def test_system_prune_takes_it_with_it(used: Run) -> None:
    asked = used("system", "prune", stdin=b"n\n", code=1).stderr
    assert "  - all build cache that no image has\n" in asked
    used("system", "prune", "-f", "--filter", "label=x")
    assert len(ids(used)) == 3
    used("image", "prune", "-f")
    used("container", "prune", "-f")
    assert len(ids(used)) == 3
    assert "Deleted build cache objects:\n" in used("system", "prune", "-f").stdout
    assert ids(used) == {"aaaaaaaaaaaa"}


def test_a_folder_goes_out_and_in(used: Run, tmp_path: Path) -> None:
    file = tmp_path / "npm.tar"
    used("builder", "cache", "export", "npm", str(file))
    with tarfile.open(file) as tar:
        assert "left" in {name.removeprefix("./") for name in tar.getnames()}
    assert used("builder", "cache", "export", "npm").stdout_bytes == file.read_bytes()
    assert used("builder", "cache", "export", "npm", "/dev/null").stdout == ""
    assert "Is a directory" in used("builder", "cache", "export", "npm", str(tmp_path), code=1).stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("npm")] == ["npm.tar"]
    used("builder", "cache", "import", "other", str(file))
    used("builder", "cache", "import", "third", stdin=file.read_bytes())
    assert used("builder", "cache", "ls", "-q").stdout.split() == ["npm", "other", "third"]
    assert "no such cache" in used("builder", "cache", "export", "none", code=1).stderr
    used("builder", "cache", "rm", "npm", "third")
    assert used("builder", "cache", "ls", "-q").stdout.split() == ["other"]
    assert "no such cache" in used("builder", "cache", "rm", "npm", code=1).stderr


def test_a_file_that_is_no_tar_is_refused_and_leaves_the_folder(used: Run, tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_bytes(b"no" * 1000)
    assert used("builder", "cache", "import", "npm", str(tmp_path / "no.tar"), code=1).stderr
