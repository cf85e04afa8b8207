"""The C parts under AddressSanitizer and UBSan: their own tests once more, on an instrumented build.

By day every test with one or a few of its cases (`support.sanitized`), by night with all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.shared import made_once

PROJECT = Path(__file__).parent.parent
INSTRUMENT = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O0 -g1"
TESTS = {
    "tar": ("tests/tar", "tests/indexes"),
    "kernel": ("tests/kernel", "tests/gathering", "tests/compressing"),
    "drivers": (
        "tests/drivers/test_overlay2.py",
        "tests/drivers/test_aufs.py",
        "tests/core/test_launching.py",
        "tests/core/test_starting.py",
        "tests/trees/test_equal.py",
    ),
}
"""All C is in reach of these: what finds changes by marks is driven by the two drivers. Parts, for several workers."""
LEFT_OUT = ["500_layers", "as_many_names", "threads_launch_at_once"]
if os.environ.get("HYPOTHESIS_PROFILE") != "nightly":
    # Thousands of stacks of two entries: random stacks take the same ways through the C parts. And what is the same
    # again and again, to see that it does not take too long.
    LEFT_OUT += ["every_pair", "many_entries", "again_and_again", "wide_folder", "takes_its_time_once"]
    LEFT_OUT += ["many_small_files", "every_edit_is_the_same_layer", "depth_beyond"]
    # Any byte of what is read in another form: the fuzzers do that, too, under the same sanitizers.
    LEFT_OUT += ["no_byte_of_a", "skeleton_whose_index_lies", "skeleton_with_wrong_bytes"]
OPTIONS = (
    *("-k", " and ".join(f"not {name}" for name in LEFT_OUT)),
    *("-p", "no:cacheprovider", "-p", "support.sanitized"),
    "--assert=plain",  # what a failing assert compares is told by the plain run
    # UBSan writes to standard error and ends the process at once: what pytest had captured would be lost.
    "--capture=sys",
)


def runtime(name: str) -> str:
    """The path of a sanitizer's library, which has to be loaded before Python itself."""
    return subprocess.run(
        ["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def instrumented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with an instrumented extension."""
    return made_once(tmp_path_factory, "sanitized", build)


def build(copy: Path) -> None:
    """Copy the sources, and compile the extension for the sanitizers."""
    leave = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    for part in ("src", "drivers", "tests"):
        shutil.copytree(PROJECT / part, copy / part, ignore=leave)
    for part in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / part, copy / part)
    recipe = copy / "src/layerstore/kernel/_build.py"
    recipe.write_text(recipe.read_text().replace('"-O2", ', ""))  # which would come after ours, and takes its time
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=copy,
        env={**os.environ, "CFLAGS": INSTRUMENT, "LDFLAGS": INSTRUMENT},
        check=True,
    )


@pytest.mark.root
@pytest.mark.tools("gcc")
@pytest.mark.parametrize("part", TESTS)
def test_the_c_parts_touch_no_memory_but_their_own(instrumented: Path, tmp_path: Path, part: str) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *OPTIONS, *TESTS[part]],
        cwd=instrumented,
        env={
            **os.environ,
            "PYTHONPATH": f"{instrumented}/src:{instrumented}/drivers:{instrumented}/tests",
            "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
            # Buffers that Python hands to C are watched too.
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": f"detect_leaks=1:quarantine_size_mb=16:allocator_may_return_null=1:log_path={reports}/at",
            "LSAN_OPTIONS": "exitcode=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
        capture_output=True,
        text=True,
        errors="replace",  # names of files may be any bytes
        check=False,
    )
    # Other programs that tests start (mkfs, say) have leaks, too, and Python has some at its end.
    found = [report.read_text(errors="replace") for report in sorted(reports.iterdir())]
    wrong = [text for text in found if "_shim.abi3.so" in text or "ERROR: AddressSanitizer" in text]
    assert not wrong, "\n".join(wrong)[:20_000]
    assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
