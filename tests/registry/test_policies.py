"""registries.conf and policy.json: what they forbid is not pulled, and what needs a signature is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from layerstore import Config, registry
from layerstore.errors import ConfigError, Denied
from layerstore.reference import parse
from layerstore.registry.transport import registries
from layerstore.registry.transport.policies import require_allowed
from layerstore.registry.transport.registries import insecure_hosts
from layerstore.registry.transport.settings import Settings
from support import images

from .conftest import CredentialFiles
from .servers.quirks import Quirks

ACCEPT = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]
DIGEST = f"sha256:{'a' * 64}"
SIGNED = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/pki/x"}]


@pytest.fixture
def policy(credential_files: CredentialFiles) -> Callable[[object], Path]:
    """`policy({...})`: the policy.json of who runs this."""
    file = credential_files.folder / ".config/containers/policy.json"
    file.parent.mkdir(parents=True, exist_ok=True)

    def write(content: object) -> Path:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return write


@pytest.fixture(autouse=True)
def _nothing_of_the_machine(conf: Callable[[str], Path], policy: Callable[[object], Path]) -> None:
    conf("")
    policy({"default": ACCEPT})


def test_the_most_precise_rule_counts(policy: Callable[[object], Path]) -> None:
    rules = {
        "": REJECT,
        "docker.io/library": ACCEPT,
        "docker.io/library/debian": SIGNED,
        "docker.io/library/debian:12": ACCEPT,
        "*.example": ACCEPT,
        "a.b.example": REJECT,
    }
    file = policy({"default": REJECT, "transports": {"docker": rules, "dir": {"": ACCEPT}}})
    for name in ("alpine", "debian:12", "x.example/a/b", "y.x.example/a", "y.x.example:5000/a"):
        require_allowed(parse(name))
    for name in ("quay.io/x/y", "a.b.example/c", "example/x", "quay.io/z"):
        with pytest.raises(Denied, match="is rejected by"):
            require_allowed(parse(name))
    with pytest.raises(Denied, match=r"debian:latest needs a signature by .*policy\.json .*signedBy") as caught:
        require_allowed(parse("debian"))
    assert "podman save IMAGE | layerstore load" in str(caught.value.remedy)
    assert str(file) in str(caught.value)
    policy({"default": ACCEPT, "transports": {"docker": {"quay.io": REJECT}}})
    require_allowed(parse("debian"))


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"default": []}', '{"default": [1]}', '{"default": 1}'])
def test_a_policy_that_cannot_be_understood_lets_nothing_pass(text: str, policy: Callable[[object], Path]) -> None:
    policy(text)
    with pytest.raises((ConfigError, Denied)):
        require_allowed(parse("debian"))


def test_what_registries_conf_blocks_or_trusts(conf: Callable[[str], Path]) -> None:
    file = conf(
        "unqualified-search-registries = ['quay.io']\n"
        "[[registry]]\nprefix = 'docker.io/bad'\nblocked = true\n"
        "[[registry]]\nprefix = 'docker.io/bad/good'\nblocked = false\n"
        "[[registry]]\nprefix = 'docker.io/bad/good:old'\nblocked = true\n"
        f"[[registry]]\nprefix = 'docker.io/bad/good@{DIGEST}'\nblocked = true\n"
        "[[registry]]\nprefix = '*.blocked.example'\nblocked = true\n"
        "[[registry]]\nlocation = 'plain.example:5000'\ninsecure = true\n"
        "[[registry]]\nlocation = 'plain.example/team'\ninsecure = true\n"
    )
    for name in ("debian", "bad/good", "bad/good:1", "blocked.example/x", "bads/x"):
        require_allowed(parse(name))
    for name in ("bad/x", "bad/good:old", f"bad/good:1@{DIGEST}", "a.blocked.example/x", "a.b.blocked.example:5000/x"):
        with pytest.raises(Denied, match="is blocked by"):
            require_allowed(parse(name))
    assert insecure_hosts() == ("plain.example:5000",)
    assert Settings.of(Config(insecure_registries=("a",))).insecure == ("a", "plain.example:5000")
    assert Settings.of(Config(ignore_policy=True)).insecure == ()
    file.write_text("[[registry]")
    with pytest.raises(ConfigError, match="no TOML"):
        require_allowed(parse("debian"))


def test_of_several_files_the_longest_prefix_counts_and_of_one_prefix_the_last_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, later = tmp_path / "registries.conf", tmp_path / "50-later.conf"
    monkeypatch.setattr(registries, "_files", lambda: iter([main, later]))
    main.write_text(
        "[[registry]]\nprefix = 'docker.io/bad/'\nblocked = true\n"
        "[[registry]]\nprefix = 'quay.io'\nblocked = true\n"
        "[[registry]]\nlocation = 'plain.example'\ninsecure = true\n"
    )
    later.write_text(
        "[[registry]]\nprefix = 'docker.io'\nblocked = false\n"
        "[[registry]]\nprefix = 'quay.io'\nblocked = false\n"
        "[[registry]]\nlocation = 'plain.example'\ninsecure = false\n"
    )
    with pytest.raises(Denied, match=r"is blocked by .*registries\.conf: docker\.io/bad"):
        require_allowed(parse("bad/x"))
    require_allowed(parse("good/x"))
    require_allowed(parse("quay.io/x"))
    assert insecure_hosts() == ()


@pytest.mark.root
def test_pulls_and_copies_are_refused_and_pushes_are_not(
    quirks: Quirks, policy: Callable[[object], Path], data_root: Path, tmp_path: Path
) -> None:
    quirks.put_image("app", "1", [images.layer(images.file("hosts", "localhost\n"))])
    name = f"{quirks.host}/app:1"
    policy({"default": ACCEPT, "transports": {"docker": {quirks.host: SIGNED}}})
    with layerstore.open(config=Config(data_root=data_root, exec_root=tmp_path / "exec")) as store:
        with pytest.raises(Denied, match="needs a signature"):
            store.pull(name)
        with pytest.raises(Denied, match="needs a signature"):
            registry.copy(f"docker://{name}", f"oci:{tmp_path}/layout")
        assert not quirks.requests
        assert registry.manifest(name).digest
    config = Config(data_root=data_root, exec_root=tmp_path / "exec", ignore_policy=True)
    with layerstore.open(config=config) as store:
        store.pull(name)
    with layerstore.open(config=Config(data_root=data_root, exec_root=tmp_path / "exec")) as store:
        store.push(name)
