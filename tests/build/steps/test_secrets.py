"""Secrets are on no disk, neither while a program has them nor after whoever builds was killed."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import pytest

from build.steps.apart import awaited, building, running
from layerstore import Store
from layerstore.build.steps.session import sweep
from layerstore.runtime import Runtime

pytestmark = [pytest.mark.root, pytest.mark.tools("crun")]

RUN = "RUN --mount=type=secret,id=key,env=KEY --mount=type=secret,id=key,target=/key "


def places_of(word: str, store: Store) -> list[Path]:
    """The files below data-root and exec-root, and in the folder of temporary files, that have a word in them."""
    found = []
    for top in (store.data_root, store.config.exec_root):
        for folder, _, names in os.walk(top):
            for path in (Path(folder, name) for name in names):
                if path.is_file() and not path.is_symlink() and word.encode() in path.read_bytes():
                    found.append(path)
    return found


@pytest.mark.parametrize("engine", ["crun", "runc"])
def test_a_secret_is_on_no_disk_while_its_program_runs_and_after_a_kill(
    engine: str, based: Store, tmp_path: Path
) -> None:
    if shutil.which(engine, path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"there is no {engine}")
    word, seconds = os.urandom(16).hex(), str(secrets.randbelow(10**6) + 10**6)
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text(
        f'FROM base\n{RUN} test "$KEY" = "$(cat /key)" || exit 1; exec sleep {seconds}\n'
    )
    options = {"secrets": [["key", word]], "runtime": engine}
    with building(based.config, tmp_path / "context", **options) as process:
        [program] = awaited(lambda: running("sleep", seconds), process)
        assert word.encode() in Path(f"/proc/{program}/environ").read_bytes()
        assert places_of(word, based) == []
        process.kill()
    assert places_of(word, based) == []
    assert sweep(based) == 1
    assert running("sleep", seconds) == []
    assert places_of(word, based) == []
    assert based.containers() == []
    assert Runtime(based).places.all() == []
