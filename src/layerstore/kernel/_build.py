"""Builds `layerstore.kernel._shim`, the one compiled extension: cffi in API mode, stable ABI, GIL released.

Each part is a pair of files beside the Python module that fronts it: a header in the plain C that cffi can read, which
is both declaration to Python and include to C, and the C itself. Run by setuptools; nothing imports it at run time.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cffi import FFI

PACKAGE = Path(__file__).resolve().parent.parent
PARTS = (
    "kernel/files/failure",
    "kernel/mounts/mount",
    "kernel/namespaces/namespaces",
    "kernel/processes/house",
    "kernel/processes/spawn",
    "kernel/files/files",
    "kernel/files/remove",
    "kernel/files/shown",
    "kernel/copying/copy",
    "kernel/files/quota",
    "kernel/btrfs/btrfs",
    "kernel/watching/watching",
    "changes/linked",
    "changes/changes",
    "tar/unpack",
    "tar/pack",
    "tar/export",
    "tar/verify",
    "tar/entries",
    "tar/implied",
    "indexes/stack",
    "compression/goflate",
    "seekable/blocks",
    "gathering/rules",
    "gathering/walk",
    "faces/podman/crc64",
)
SHARED = (
    "kernel/files/listing",
    "kernel/files/pool",
    "kernel/files/xattrs",
    "kernel/files/acls",
    "kernel/files/within",
    "kernel/btrfs/tree",
    "kernel/files/entry",
    "kernel/copying/file",
    "kernel/processes/init",
    "changes/compare",
    "changes/upper",
    "changes/branch",
    "changes/exact",
    "changes/snapshot",
    "changes/copied",
    "changes/written",
    "changes/clamped",
    "tar/xxh64",
    "tar/entry",
    "tar/model",
    "tar/disk",
    "tar/queue",
    "tar/shadow",
    "tar/stream",
    "tar/place",
    "tar/resolve",
    "tar/replace",
    "tar/link",
    "tar/listing",
    "tar/write",
    "tar/finish",
    "tar/header",
    "indexes/tree",
    "indexes/image",
    "indexes/image_bytes",
    "indexes/image_folder",
    "indexes/image_xattr",
    "indexes/image_chunk",
    "compression/blocks",
    "gathering/matching",
)

COMPILE_ARGS: tuple[str, ...] = ("-std=gnu11", "-O2", "-pthread", "-Wall", "-Wextra", "-fvisibility=hidden")
if os.environ.get("LAYERSTORE_WERROR"):
    COMPILE_ARGS += ("-Werror",)  # for who changes this; a compiler of tomorrow may warn of more, and has to build it


def relative(path: Path) -> str:
    """`path` as setuptools wants it: relative to the project's root."""
    return path.relative_to(PACKAGE.parent.parent).as_posix()


def declarations(header: Path) -> str:
    """What cffi reads of a header: all but the lines for the preprocessor, of which it knows plain numbers alone."""
    text = header.read_text()
    return re.sub(r"^#(?!define \w+ -?\d).*\n", "", text, flags=re.MULTILINE)


def builder() -> FFI:
    """The extension's description."""
    ffi = FFI()
    for part in PARTS:
        ffi.cdef(declarations(PACKAGE / f"{part}.h"))
    prelude = ["#ifndef _GNU_SOURCE", "#define _GNU_SOURCE", "#endif", "#include <stdint.h>", "#include <stddef.h>"]
    ffi.set_source(
        "layerstore.kernel._shim",
        "\n".join([*prelude, *(f'#include "{part}.h"' for part in PARTS), ""]),
        sources=[relative(PACKAGE / f"{part}.c") for part in (*PARTS, *SHARED)],
        depends=[relative(header) for header in sorted(PACKAGE.glob("**/*.h"))],
        include_dirs=[relative(PACKAGE)],
        extra_compile_args=list(COMPILE_ARGS),
        # Executed by itself, the extension is the first process of a container: see kernel/processes/init.c.
        extra_link_args=["-pthread", "-Wl,-e,ls_init"],
        py_limited_api=True,
    )
    return ffi


ffibuilder = builder()

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
