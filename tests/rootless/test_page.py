"""The examples of docs/rootless.md, by an ordinary user."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless import outside
from rootless.conftest import NewUser
from support import images

PROJECT = Path(__file__).parent.parent.parent

RUN = """
import sys
from pathlib import Path
sys.path[:0] = ["{tests}", "{project}"]
from docs.test_examples import run_commands, run_python
run_commands("docs/rootless.md", Path.cwd())
run_python("docs/rootless.md", Path.cwd())
"""


@pytest.mark.root
def test_examples_of_the_page_run_without_root(new_user: NewUser) -> None:
    user = new_user("ext4", "one")
    images.docker_archive(user.home / "debian.tar", [images.layer(images.folder("etc"))], ["debian:latest"])
    (user.home / "daemon.json").write_text("{}")
    (user.home / "run.py").write_text(RUN.format(tests=PROJECT / "tests", project=PROJECT))

    user.run(outside.HOME / "run.py")
