"""--verify: what a build does twice should be the same; what is not is told."""

from __future__ import annotations

import pytest

from layerstore.build import BuildError
from support.building import Builder


def test_what_is_the_same_twice_is_built(make: Builder) -> None:
    built = make(
        "FROM base\nRUN echo > /x; date +%N > /dev/null; true\nCOPY f /d/\nWORKDIR /w\nRUN rm /x\nRUN true\n",
        {"f": "f"},
        verify=True,
    )
    assert len(built.image.layers) == 5
    assert make.store.leases("building") == {}


def test_what_differs_is_told_by_step_file_and_attribute(make: Builder) -> None:
    text = (
        "FROM base\nRUN head -c 8 /dev/urandom > /content; cd /tmp; mktemp XXXXXX > /dev/null\n"
        "RUN --mount=type=cache,target=/c echo >> /c/n; chmod 60$(wc -l < /c/n) /etc/group; touch /same\n"
        'RUN touch -d @1500000000 /old; touch -d @$(head -c 3 /dev/urandom | od -An -tu4 | tr -d " ") /random\n'
    )
    with pytest.raises(BuildError) as caught:
        make(text, verify=True, source_date_epoch=1_700_000_000)
    said = str(caught.value)
    assert "/content: content" in said
    assert "only the first time" in said
    assert "only the second time" in said
    assert "/random: mtime" in said
    assert "/etc/group: mode" in said
    assert "  /same" not in said
    assert "  /old" not in said
    assert make.store.leases("building") == {}
