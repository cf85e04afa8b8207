"""fsspec's own abstract suite, the parts that read; all that writes is refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests

from layerstore import Store
from layerstore.fs import ImageFileSystem

pytestmark = pytest.mark.root

Scenario = Callable[[Any, Any, str], str]


class Images(AbstractFixtures):
    """The suite's files, made in a folder and appended to nothing, as an image."""

    @pytest.fixture
    def fs(self, session_layer_store: Store) -> ImageFileSystem:
        return ImageFileSystem(store=session_layer_store, skip_instance_cache=True)

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_path(self) -> str:
        return "suite:made"

    @pytest.fixture
    def imaged(self, session_layer_store: Store, tmp_path: Path) -> Callable[[Scenario], str]:
        def made(scenario: Scenario) -> str:
            tag = f"suite{scenario.__name__}:1"
            if tag not in {tag for image in session_layer_store.images() for tag in image.tags}:
                scenario(LocalFileSystem(auto_mkdir=True), os.path.join, str(tmp_path / "made"))
                session_layer_store.scratch().append(tmp_path / "made", tags=[tag])
            return f"{tag}/source"

        return made

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, imaged: Callable[[Scenario], str]) -> str:
        return imaged(self._bulk_operations_scenario_0)

    @pytest.fixture
    def fs_glob_edge_cases_files(self, imaged: Callable[[Scenario], str]) -> str:
        return imaged(self._glob_edge_cases_files)

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, imaged: Callable[[Scenario], str]) -> str:
        return imaged(self._dir_and_file_with_same_name_prefix)

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, imaged: Callable[[Scenario], str]) -> str:
        return imaged(self._10_files_with_hashed_names)


class TestGet(Images, AbstractGetTests):
    """What the suite gets."""

    @pytest.fixture
    def prepared(self, session_layer_store: Store, fs_path: str, tmp_path: Path) -> ImageFileSystem:
        (tmp_path / "made/src").mkdir(parents=True)
        (tmp_path / "made/src/file").touch()
        session_layer_store.scratch().append(tmp_path / "made", tags=[fs_path])
        return Prepared(store=session_layer_store, skip_instance_cache=True)

    def test_get_directory_recursive(  # type: ignore[no-untyped-def]  # it makes its files itself
        self, prepared, fs_join, fs_path, local_fs, local_join, local_target
    ) -> None:
        super().test_get_directory_recursive(prepared, fs_join, fs_path, local_fs, local_join, local_target)


class Prepared(ImageFileSystem):
    """Its files are there already."""

    def mkdir(self, path: str, **_: Any) -> None:
        assert self.isdir(path)

    def touch(self, path: str, **_: Any) -> None:
        assert self.isfile(path)

    rm = mkdir


class TestWrite(Images):
    """What the suite would copy, move, put and pipe."""

    @pytest.fixture
    def source(self, fs_bulk_operations_scenario_0: str) -> str:
        return fs_bulk_operations_scenario_0

    @pytest.mark.parametrize(
        "write",
        [
            lambda fs, path: fs.open(f"{path}/new", "wb"),
            lambda fs, path: fs.open(f"{path}/file1", "ab"),
            lambda fs, path: fs.open(f"{path}/new", "xb"),
            lambda fs, path: fs.pipe({f"{path}/new": b"x"}),
            lambda fs, path: fs.pipe_file(f"{path}/new", b"x"),
            lambda fs, path: fs.write_text(f"{path}/new", "x"),
            lambda fs, path: fs.touch(f"{path}/new"),
            lambda fs, path: fs.put(__file__, f"{path}/new"),
            lambda fs, path: fs.copy(f"{path}/file1", f"{path}/new"),
            lambda fs, path: fs.mv(f"{path}/file1", f"{path}/new"),
            lambda fs, path: fs.rm(path, recursive=True),
            lambda fs, path: fs.rm_file(f"{path}/file1"),
            lambda fs, path: fs.mkdir(f"{path}/new"),
            lambda fs, path: fs.makedirs(f"{path}/new/er"),
            lambda fs, path: fs.rmdir(f"{path}/subdir"),
        ],
    )
    def test_it_is_refused(self, fs: Any, source: str, write: Callable[[Any, str], None]) -> None:
        before = fs.find(source, withdirs=True, detail=True)
        with pytest.raises(OSError, match="never altered") as refused:
            write(fs, source)
        assert refused.value.errno == errno.EROFS
        assert fs.find(source, withdirs=True, detail=True) == before
        assert len(before) == 8
