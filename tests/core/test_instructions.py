"""`commit --change`: Dockerfile instructions on an image's run configuration."""

from __future__ import annotations

from typing import Any

import pytest

from layerstore.errors import ConfigError
from layerstore.images.instructions import apply

BASE: dict[str, Any] = {"Env": ["PATH=/bin", "A=1"], "Cmd": ["bash"], "WorkingDir": "/srv"}


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("CMD echo hi", "Cmd", ["/bin/sh", "-c", "echo hi"]),
        ('cmd ["echo", "hi"]', "Cmd", ["echo", "hi"]),
        ('CMD ["not json', "Cmd", ["/bin/sh", "-c", '["not json']),
        ("CMD []", "Cmd", []),
        ("CMD [ ]", "Cmd", []),
        ('CMD [""]', "Cmd", [""]),
        ("CMD [] x", "Cmd", ["/bin/sh", "-c", "[] x"]),
        ("CMD\techo hi", "Cmd", ["/bin/sh", "-c", "echo hi"]),
        ('ENTRYPOINT ["/init"]', "Entrypoint", ["/init"]),
        ("ENTRYPOINT []", "Entrypoint", None),
        ("ENTRYPOINT ['/init']", "Entrypoint", ["/bin/sh", "-c", "['/init']"]),
        ("ENV A= B=''", "Env", ["PATH=/bin", "A=", "B="]),
        ("LABEL a=", "Labels", {"a": ""}),
        ("ONBUILD CMD []", "OnBuild", ["CMD []"]),
        ("ENV B=2 C='x y' D=\"$A z\" E=a\\ b", "Env", ["PATH=/bin", "A=1", "B=2", "C=x y", "D=1 z", "E=a b"]),
        ("ENV A two words", "Env", ["PATH=/bin", "A=two words"]),
        ("ENV PATH=/opt:$PATH", "Env", ["PATH=/opt:/bin", "A=1"]),
        ("ENV X=${NONE:-dflt} Y=${A:+set} Z='$A'", "Env", ["PATH=/bin", "A=1", "X=dflt", "Y=set", "Z=$A"]),
        ("EXPOSE 80 53/udp 8000-8001", "ExposedPorts", {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}}),
        ('LABEL a=b "c d"="e f"', "Labels", {"a": "b", "c d": "e f"}),
        ("ONBUILD RUN make", "OnBuild", ["RUN make"]),
        ("USER me:us", "User", "me:us"),
        ('VOLUME ["/data", "/more"]', "Volumes", {"/data": {}, "/more": {}}),
        ('VOLUME ["/my data", " /$A "]', "Volumes", {"/my data": {}, "/1": {}}),
        ("VOLUME /data /more", "Volumes", {"/data": {}, "/more": {}}),
        ("WORKDIR app", "WorkingDir", "/srv/app"),
        ("WORKDIR /a/../b/", "WorkingDir", "/b"),
        ("STOPSIGNAL SIGINT", "StopSignal", "SIGINT"),
        ("HEALTHCHECK NONE", "Healthcheck", {"Test": ["NONE"]}),
        (
            "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f http://localhost/",
            "Healthcheck",
            {"Test": ["CMD-SHELL", "curl -f http://localhost/"], "Interval": 90_000_000_000, "Retries": 3},
        ),
        ('HEALTHCHECK CMD [""]', "Healthcheck", {"Test": ["CMD", ""]}),
        ('HEALTHCHECK CMD ["true"]', "Healthcheck", {"Test": ["CMD", "true"]}),
    ],
)
def test_instruction_sets_its_field(change: str, key: str, value: object) -> None:
    assert apply(BASE, [change])[key] == value


def test_base_is_left_alone() -> None:
    apply(BASE, ["ENV A=2"])
    assert BASE["Env"] == ["PATH=/bin", "A=1"]


def test_new_entrypoint_drops_the_inherited_command_only() -> None:
    assert "Cmd" not in apply(BASE, ['ENTRYPOINT ["/x"]'])
    assert apply(BASE, ["CMD a", 'ENTRYPOINT ["/x"]'])["Cmd"] == ["/bin/sh", "-c", "a"]


def test_an_empty_command_is_not_an_absent_one() -> None:
    base = {"Entrypoint": ["/init"], "Cmd": ["bash"], "Shell": ["/bin/ash", "-c"]}
    assert apply(base, ["ENTRYPOINT []", "CMD []"]) == {**base, "Entrypoint": None, "Cmd": []}
    assert apply(base, ["CMD []", "ENTRYPOINT []"]) == {**base, "Entrypoint": None, "Cmd": []}
    assert apply(base, ["CMD []"]) == {**base, "Cmd": []}
    assert apply(base, ["ENTRYPOINT []"]) == {"Entrypoint": None, "Shell": base["Shell"]}
    assert apply({"Entrypoint": None, "Cmd": None, "Env": None}, ["ENV A=1"])["Env"] == ["A=1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("VOLUME []", "VOLUME requires at least one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("VOLUME /data $NONE", "VOLUME specified can not be an empty string"),
        ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --retries=3", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE CMD x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK []", r'Unknown type "\[\]" in HEALTHCHECK \(try CMD\)'),
        ('CMD ["a", 1]', "when using JSON array syntax, arrays must be comprised of strings only"),
        ("ENTRYPOINT [null]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ('VOLUME [["/a"]]', "when using JSON array syntax, arrays must be comprised of strings only"),
        ("HEALTHCHECK CMD [1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ENV =x", "ENV names can not be blank"),
        ("LABEL ''=x", "LABEL names can not be blank"),
    ],
)
def test_what_docker_refuses_is_refused_in_its_words(change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        apply({}, [change])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("RUN make", "RUN"),
        ("FROM x", "FROM"),
        ("CMD", "argument"),
        ("ENV A", "no value"),
        ("ENV A=1 B", "key=value"),
        ('ENV A="1', "quote"),
        ("EXPOSE 0", "EXPOSE 0"),
        ("EXPOSE 80/icmp", "80/icmp"),
        ("EXPOSE 70000", "70000"),
        ("ONBUILD FROM x", "FROM"),
        ("HEALTHCHECK --every=1s CMD x", "--every"),
        ("HEALTHCHECK --interval=soon CMD x", "soon"),
        ("HEALTHCHECK --retries=x CMD x", "retries"),
        ("HEALTHCHECK maybe", "CMD"),
    ],
)
def test_wrong_instruction_is_named(change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        apply({}, [change])
