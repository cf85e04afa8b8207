"""Of a lazy image from which nothing is made, no layer is waited for: nor does a command say so."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from layerstore.cli.front import front
from lazy.conftest import Lazies
from lazy.gate import Gate
from registry.servers.quirks import Quirks

pytestmark = pytest.mark.root


def test_nothing_is_said_of_layers_that_a_squash_does_not_wait_for(lazies: Lazies, pushed: str, quirks: Quirks) -> None:
    Gate(quirks)
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
    file = lazies.root.with_name("daemon.json")
    file.write_text(json.dumps({"data-root": str(lazies.root), "exec-root": str(lazies.exec_root)}))

    def squash(since: str) -> Result:
        return CliRunner().invoke(front, ["--config", str(file), "squash", "--from", since, pushed])

    for since in (image.layers[0], image.chain_ids[0], image.chain_ids[1], pushed):  # one layer above it, or none
        assert squash(since).output == f"{image.id}\n"
    for since in (f"sha256:{'0' * 64}", "none:1"):
        told = squash(since)
        assert told.exit_code == 1
        assert "waited for" not in told.output
        assert "Name an image that it was built on, or one of its layers by its digest in full." in told.output
    with lazies.open() as store:
        assert len(store.lacking()) == 2
