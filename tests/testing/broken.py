"""A copy of the sources with one fault in it, and the kit run on that.

C is compiled one file at a time: the objects of the unbroken sources are made once a session.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from attrs import frozen

from testing.mutants import Mutant

ROOT = Path(__file__).parents[2]
PATIENCE = 900


@frozen
class Verdict:
    """`killed`: the kit failed. `says`: its last lines."""

    killed: bool
    says: str


class Broken:
    """Makes broken copies below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._objects: dict[str, Path] = {}

    def judge(self, mutant: Mutant, *, whole: bool = False) -> Verdict:
        """Run the kit's tests that are to find it out; `whole`: if none does, all that concern its case."""
        tree = self._folder / re.sub(r"\W+", "-", str(mutant))
        try:
            self._copy(tree)
            target = tree / mutant.file
            text = target.read_text()
            assert text.count(mutant.old) == 1, f"{mutant}: {mutant.file} has {text.count(mutant.old)} such places"
            target.write_text(text.replace(mutant.old, mutant.new))
            if mutant.file.endswith(".c"):
                self._link(tree, mutant.file)
            verdict = self._run(tree, f"{mutant.case} and ({mutant.tests})") if mutant.tests else None
            if whole and (verdict is None or not verdict.killed):
                verdict = self._run(tree, mutant.case)
            return verdict or Verdict(killed=False, says="nothing was run")
        finally:
            shutil.rmtree(tree, ignore_errors=True)

    def _copy(self, tree: Path) -> None:
        for part in ("src", "drivers"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))

    def _run(self, tree: Path, tests: str) -> Verdict:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
        path = os.pathsep.join([str(tree / "src"), str(tree / "drivers")])
        done = subprocess.run(
            [*command, "--tb=short", "tests/testing/test_conformance.py", "-k", tests],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
        says = "\n".join(done.stdout.splitlines()[-15:])
        # 2 and more: pytest itself did not get along; 5: there is no such test.
        assert done.returncode in (0, 1), f"{says}\n{done.stderr[-2000:]}"
        return Verdict(killed=done.returncode == 1, says=says)

    # --- C -----------------------------------------------------------------------------------------------------------

    def _link(self, tree: Path, file: str) -> None:
        """Build the extension of a broken tree from the objects of all other files."""
        broken = self._compile(tree, file, tree / "broken.o")
        objects = {**self._all_objects(), file: broken}
        extension = next((ROOT / "src/layerstore/kernel").glob("_shim*.so")).name
        target = tree / "src/layerstore/kernel" / extension
        target.unlink()
        subprocess.run(["cc", "-shared", "-pthread", "-o", target, *objects.values()], check=True)

    def _all_objects(self) -> dict[str, Path]:
        if not self._objects:
            front = self._folder / "_shim.c"
            runpy.run_path(str(ROOT / "src/layerstore/kernel/_build.py"))["ffibuilder"].emit_c_code(str(front))
            sources = [path for path in (ROOT / "src").rglob("*.c") if path.name != front.name]
            for number, source in enumerate([front, *sources]):
                name = str(source.relative_to(ROOT)) if source != front else str(front)
                self._objects[name] = self._compile(ROOT, name, self._folder / f"{number}.o")
        return self._objects

    def _compile(self, tree: Path, file: str, target: Path) -> Path:
        subprocess.run(self._command(tree, file, target), check=True)
        return target

    def _command(self, tree: Path, file: str, target: Path) -> list[str]:
        headers = [f"-I{tree / 'src/layerstore'}", f"-I{sysconfig.get_path('include')}"]
        flags = ["-std=gnu11", "-O1", "-fPIC", "-pthread", "-fvisibility=hidden", "-w", "-DPy_LIMITED_API=0x030B0000"]
        return ["cc", *flags, *headers, "-c", str(tree / file), "-o", str(target)]
