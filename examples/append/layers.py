"""A build tool in a hundred lines: a program in Python, on a base image, in a registry.

    python layers.py 127.0.0.1:5000/python:3 app 127.0.0.1:5000/team/app:1 --module app

No daemon, no root, no Dockerfile, no store. The base stays where it is: its config is read, and its layers are neither
unpacked nor downloaded, where they lie in the registry that the image goes to (or in one that mounts them from another
repository of its own). What is sent is one layer and a config. The same sources are the same digest, whenever and
wherever it is built.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import py_compile
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import layerstore
from layerstore import registry

EPOCH = "1000000000"
"""The time that files and image have, in seconds since the epoch, where SOURCE_DATE_EPOCH says no other."""

LEFT_OUT = shutil.ignore_patterns("__pycache__", ".git", "*.pyc", ".venv")


def staged(source: Path, into: Path) -> None:
    """What comes into the layer: the sources, compiled in a way that does not depend on their times."""
    shutil.copytree(source, into, ignore=LEFT_OUT, symlinks=True)
    quiet, hashed = 1, py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(into, quiet=quiet, stripdir=into, prependdir="/app", invalidation_mode=hashed):
        raise SystemExit(f"layers.py: {source} does not compile")


def build(base: str, source: Path, target: str, module: str, *, told: layerstore.Progress | None = None) -> str:
    """Make the image, and push it; its digest. `base` and `target` are names in registries."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", EPOCH)  # which layerstore heeds, as other builders do
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "app"
        staged(source, app)
        made = registry.append(
            f"docker://{base}",
            app,
            f"docker://{target}",
            "/app",
            created_by=f"layers.py {source.name}",
            instructions=["WORKDIR /app", "ENTRYPOINT " + json.dumps(["python3", "-m", module])],
            progress=told,
        )
    return str(made.digest)


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("base", help="the image it stands on, in a registry")
    parser.add_argument("source", type=Path, help="the folder of the program")
    parser.add_argument("target", help="what it is called, in a registry")
    parser.add_argument("--module", required=True, help="what is run: python3 -m MODULE")
    given = parser.parse_args(arguments)
    try:
        print(build(given.base, given.source, given.target, given.module))
    except layerstore.LayerstoreError as error:
        print(f"layers.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
