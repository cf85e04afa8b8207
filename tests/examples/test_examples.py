"""The programs of `examples/`, run as their pages say."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import layerstore
from layerstore.faces.serve import Registry
from layerstore.faces.serve.server import Server
from support import programs
from support.properties import NIGHTLY

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def loaded(path: Path) -> ModuleType:
    """A program as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.root
@pytest.mark.tools("sh", "rm", "grep")
@pytest.mark.skipif(not NIGHTLY, reason="by night: another pytest is begun")
def test_each_test_of_the_plugins_user_has_a_branch_of_its_own(tmp_path: Path) -> None:
    image = programs.archive(tmp_path / "image.tar")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path, "."],
        cwd=EXAMPLES / "branches",
        env={**os.environ, "IMAGE": str(image), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 passed" in done.stdout


class Watched:
    """A registry, and what it was asked for."""

    def __init__(self, inner: Callable[..., Iterable[bytes]]) -> None:
        self._inner = inner
        self.asked: list[tuple[str, str]] = []

    def __call__(self, environment: dict[str, Any], begin: Callable[..., Any]) -> Iterable[bytes]:
        self.asked.append((environment["REQUEST_METHOD"], environment["PATH_INFO"]))
        return self._inner(environment, begin)


@pytest.mark.root
def test_a_layer_is_appended_and_those_below_stay_where_they_are(
    layer_store: layerstore.Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    tool = loaded(EXAMPLES / "append" / "layers.py")
    [base] = layer_store.load(programs.archive(tmp_path / "base.tar"))
    source = tmp_path / "app"
    (source / "hello").mkdir(parents=True)
    (source / "hello" / "__main__.py").write_text("print('hello')\n")
    registry = Watched(Registry(layer_store))
    with Server("127.0.0.1", 0, registry) as server:
        host = server.url.removeprefix("http://")
        layer_store.tag("debian", f"{host}/base:1")
        layer_store.push(f"{host}/base:1")
        registry.asked.clear()

        assert tool.main([f"{host}/base:1", str(source), f"{host}/team/app:1", "--module", "hello"]) == 0

        printed = capsys.readouterr().out.strip()
        read = [path for method, path in registry.asked if method == "GET" and "/blobs/" in path]
        assert read == [f"/v2/base/blobs/{base.id}"], "of the base nothing but its config"
        os.utime(source / "hello" / "__main__.py")
        assert tool.build(f"{host}/base:1", source, f"{host}/team/again:1", "hello") == printed
        assert tool.main([f"{host}/nothing:1", str(source), f"{host}/x:1", "--module", "hello"]) == 1
        assert "layers.py: " in capsys.readouterr().err
        made = layer_store.pull(f"{host}/team/app:1")
    assert made.layers[:-1] == base.layers
    assert made.config["config"]["Entrypoint"] == ["python3", "-m", "hello"]
    with layer_store.browse(made) as tree:
        assert tree.read("/app/hello/__main__.py") == b"print('hello')\n"


def test_their_page_shows_them_as_they_are() -> None:
    page = (EXAMPLES.parent / "docs" / "integrations.md").read_text()
    sources = [textwrap.dedent(path.read_text()) for path in EXAMPLES.rglob("*.py")]
    plain = ["\n".join(line.strip() for line in text.splitlines()) for text in sources]
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    for block in blocks:
        shown = "\n".join(line.strip() for line in block.strip().splitlines())
        assert any(shown in text for text in plain), block
    for path in EXAMPLES.iterdir():
        assert f"examples/{path.name}/" in page, f"docs/integrations.md says nothing of {path.name}"
