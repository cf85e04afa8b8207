"""The images that the bench makes: the same for one seed, and like real ones."""

from __future__ import annotations

import hashlib
import statistics
import tarfile
from pathlib import Path

import pytest

from layerstore.bench import images


@pytest.mark.parametrize("kind", ["main", "big", "wide", "small", "deep-1", "deep-7"])
def test_a_seed_makes_the_same_image_every_time(kind: str, tmp_path: Path) -> None:
    def digest(seed: int) -> str:
        images.make_archive(tmp_path / "image.tar", kind, images.Shape(scale=0.02, seed=seed, depths=(1, 7)))
        return hashlib.sha256((tmp_path / "image.tar").read_bytes()).hexdigest()

    first = digest(1)
    assert digest(1) == first
    if kind in ("main", "big", "small"):
        assert digest(2) != first


def test_the_main_image_is_like_real_ones(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    images.make_archive(archive, "main", images.Shape(scale=0.2, seed=1, depths=()))
    layers = images.members(archive)
    assert len(layers) == 8
    sizes: list[int] = []
    seen: dict[str, int] = {}
    depths: set[int] = set()
    with archive.open("rb") as file:
        for offset, size in layers:
            file.seek(offset)
            with tarfile.open(fileobj=file, mode="r|") as tar:
                for info in tar:
                    depths.add(info.name.count("/"))
                    kind = (
                        "whiteout"
                        if "/.wh." in info.name
                        else {b"0": "file", b"1": "hard", b"2": "symlink"}.get(info.type, "other")
                    )
                    seen[kind] = seen.get(kind, 0) + 1
                    if kind == "file":
                        sizes.append(info.size)
            assert size % 512 == 0
    assert 3000 <= statistics.median(sizes) <= 5500
    assert max(sizes) > 3 << 20
    assert seen["symlink"] > seen["hard"] > 3
    assert seen["whiteout"] > 3
    assert max(depths) >= 7


def test_a_deep_image_shares_its_layers_with_a_shallower_one(tmp_path: Path) -> None:
    shape = images.Shape(scale=1, seed=1, depths=(3, 9))
    names = []
    for depth in (3, 9):
        images.make_archive(tmp_path / "deep.tar", f"deep-{depth}", shape)
        assert len(images.members(tmp_path / "deep.tar")) == depth
        with tarfile.open(tmp_path / "deep.tar") as tar:
            names.append({name for name in tar.getnames() if name.endswith(".tar")})
    assert names[0] < names[1]
