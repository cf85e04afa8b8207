"""A tree to run programs of, facts of a made-up host, and the judges of a config.json: its schema, and the runtimes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from layerstore.runtime import bundle

SCHEMA = Path(__file__).parents[2] / "data/runtime-spec"
RUNTIMES = ("crun", "runc")

HOST = bundle.HostFacts(
    name="there",
    architecture="x86_64",
    kernel=(6, 1),
    cpus=4,
    hosts="127.0.0.1 localhost\n10.0.0.7 there\n",
    resolv_conf="nameserver 127.0.0.53\nsearch lan\noptions edns0\n",
    stub_resolv_conf="nameserver 10.0.0.1\n",
    init="/usr/bin/catatonit",
    nodes=lambda path: {
        "/dev/fuse": (bundle.Node("/dev/fuse", "c", 10, 229, 0o666, 0, 0),),
        "/dev": (
            bundle.Node("/dev/fuse", "c", 10, 229, 0o666, 0, 0),
            bundle.Node("/dev/sda", "b", 8, 0, 0o660, 0, 6),
        ),
        "/dev/snd": (
            bundle.Node("/dev/snd/seq", "c", 116, 1, 0o660, 0, 29),
            bundle.Node("/dev/snd/timer", "c", 116, 33, 0o660, 0, 29),
        ),
    }.get(path, ()),
)
"""A host that is not this one."""


def _strict(node: Any) -> Any:
    """The schema, such that a key that it does not know is an error wherever it lists keys."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "allOf" not in node and "additionalProperties" not in node:
        made["additionalProperties"] = False
    return made


def _validator() -> Draft4Validator:
    files = {path.name: _strict(json.loads(path.read_text())) for path in SCHEMA.glob("*.json")}
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(content, default_specification=DRAFT4)) for name, content in files.items()
    )
    return Draft4Validator(files["config-schema.json"], registry=registry)


VALIDATOR = _validator()


def check(config: Mapping[str, Any]) -> None:
    """A config.json is what the runtime spec's schema says, and has no key that it does not know."""
    found = sorted(VALIDATOR.iter_errors(json.loads(json.dumps(config))), key=lambda error: list(error.path))
    assert [f"{'/'.join(map(str, error.path))}: {error.message}" for error in found] == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with busybox, users and groups."""
    root = tmp_path / "root"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:Web:/srv/web:/bin/sh\nbare:x:70:71\n\n# a comment\n"
    )
    (root / "etc/group").write_text("root:x:0:\nweb:x:44:\nmore:x:55:other,web\nstaff:x:56:web\n")
    return root


@pytest.fixture
def tree(root: Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def place(root: Path, tree: int) -> bundle.Place:
    return bundle.Place(id="ab" * 32, root=str(root), tree=tree)


Run = Callable[[Mapping[str, Any]], subprocess.CompletedProcess[str]]


@pytest.fixture(params=RUNTIMES)
def run(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Run:
    """Runs a config.json by each runtime, where there is no hybrid hierarchy, which crun refuses."""
    runtime, busybox = shutil.which(request.param), shutil.which("busybox")
    if runtime is None or busybox is None:
        pytest.skip(f"{request.param} or busybox is not installed")
    shutil.copy(busybox, root / "bin/busybox")
    for name in (
        "sh",
        "true",
        "cat",
        "id",
        "ls",
        "env",
        "grep",
        "hostname",
        "mount",
        "mkdir",
        "touch",
        "ps",
        "stat",
        "readlink",
        "cut",
    ):
        (root / "bin" / name).symlink_to("busybox")

    def run(config: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "bundle"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        hide = "umount /sys/fs/cgroup/unified 2>/dev/null; exec "
        words = [runtime, "--root", str(tmp_path / "state"), "run", "--bundle", str(folder), f"test-{uuid4().hex[:12]}"]
        return subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{hide} "$@"', "sh", *words],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    return run
