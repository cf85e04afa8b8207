"""The targets of this folder, compiled with all C of the extension for libFuzzer (LLVM), ASan and UBSan."""

from __future__ import annotations

import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from layerstore.kernel import _build

HERE = Path(__file__).parent
TARGETS = tuple(sorted(path.stem for path in HERE.glob("*.c")))

_FLAGS = (
    *("-std=gnu11", "-O1", "-g1", "-pthread", "-fno-omit-frame-pointer", f"-I{_build.PACKAGE}"),
    # NULL + 0 is what it says in C2y and with every compiler there is.
    *("-fsanitize=fuzzer-no-link,address,undefined", "-fno-sanitize=pointer-overflow"),
    "-fno-sanitize-recover=undefined",
)
_LEFT_OUT = "kernel/processes/init"
"""A program of its own, which takes the C library's place."""


def sources() -> str:
    """What is compiled, as a digest: what was tried of other sources says nothing of these."""
    digest = hashlib.sha256(repr(_FLAGS).encode())
    for folder in (_build.PACKAGE, HERE):
        for path in sorted([*folder.rglob("*.c"), *folder.rglob("*.h")]):
            if path.name != "_shim.c":  # made of the headers
                digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


def build(folder: Path) -> None:
    """Make a program of each target in `folder`."""
    sources = [part for part in (*_build.PARTS, *_build.SHARED) if part != _LEFT_OUT]
    objects = [folder / f"{part.replace('/', '_')}.o" for part in sources]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        compiled = pool.map(_compile, [_build.PACKAGE / f"{part}.c" for part in sources], objects)
        assert len(list(compiled)) == len(objects)
        linked = pool.map(lambda name: _link(HERE / f"{name}.c", objects, folder / name), TARGETS)
        assert len(list(linked)) == len(TARGETS)


def _compile(source: Path, made: Path) -> None:
    subprocess.run(["clang", *_FLAGS, "-w", "-c", source, "-o", made], check=True)


def _link(source: Path, objects: list[Path], made: Path) -> None:
    strict = ("-Wall", "-Wextra", "-Werror", "-fsanitize=fuzzer")
    subprocess.run(["clang", *_FLAGS, *strict, source, *objects, "-lz", "-o", made], check=True)
