"""daemon.json: what it says, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from layerstore import config as configuration
from layerstore import options
from layerstore.config import Config, Engine, Proxies, driver_options, load, with_overrides
from layerstore.errors import ConfigError, LayerstoreError
from layerstore.retention import CachePolicy

Write = Callable[[object], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a daemon.json, given as text or as what is to be JSON."""

    def file(content: object) -> Path:
        path = tmp_path / "daemon.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return file


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert caught.value.path == str(path)
    return str(caught.value)


def test_no_file_is_normal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "DEFAULT_FILE", tmp_path / "etc" / "daemon.json")

    assert load() == Config(Path("/var/lib/layerstore"), Path("/run/layerstore"), None, (), None)


def test_roots_are_absolute_whoever_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = Config(data_root=Path("store"), exec_root=Path("exec"))
    assert (made.data_root, made.exec_root) == (tmp_path / "store", tmp_path / "exec")


def test_the_default_file_is_read_where_it_exists(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write({"storage-driver": "vfs"})
    monkeypatch.setattr(configuration, "DEFAULT_FILE", path)

    assert load() == Config(storage_driver="vfs", source=path)


def test_a_file_that_was_named_has_to_exist(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.json")
    assert "Is a directory" in refusal(tmp_path)


def test_all_keys_of_ours(write: Write) -> None:
    path = write(
        {
            "data-root": "/srv/layers",
            "exec-root": "/run/layers",
            "storage-driver": "overlay2",
            "storage-opts": ["overlay2.size=10G", "overlay2.volatile=true"],
        }
    )

    opts = ("overlay2.size=10G", "overlay2.volatile=true")
    assert load(path) == Config(Path("/srv/layers"), Path("/run/layers"), "overlay2", opts, path)


def test_all_keys_of_registries(write: Write) -> None:
    path = write(
        {
            "insecure-registries": ["registry.example:5000", "10.0.0.0/8", "http://old.example"],
            "registry-mirrors": ["https://mirror.example/", "http://10.0.0.1:5000"],
            "max-concurrent-downloads": 0,
            "max-concurrent-uploads": 8,
            "max-download-attempts": 1,
            "proxies": {"http-proxy": "http://proxy:3128", "https-proxy": "", "no-proxy": ".example,10.0.0.0/8"},
            "keep-blobs": True,
            "remotes": ["https://peer.example:5000"],
            "push-through": True,
        }
    )

    assert load(path) == Config(
        source=path,
        insecure_registries=("registry.example:5000", "10.0.0.0/8", "http://old.example"),
        registry_mirrors=("https://mirror.example/", "http://10.0.0.1:5000"),
        max_concurrent_downloads=0,
        max_concurrent_uploads=8,
        max_download_attempts=1,
        proxies=Proxies("http://proxy:3128", None, ".example,10.0.0.0/8"),
        keep_blobs=True,
        remotes=("https://peer.example:5000",),
        push_through=True,
    )


def test_without_them_registries_are_reached_as_docker_reaches_them(write: Write) -> None:
    config = load(write({}))

    assert (config.max_concurrent_downloads, config.max_concurrent_uploads, config.max_download_attempts) == (3, 5, 5)
    assert (config.insecure_registries, config.registry_mirrors, config.remotes) == ((), (), ())
    assert (config.keep_blobs, config.push_through, config.proxies) == (False, False, Proxies())


def test_a_password_in_the_file_is_in_no_error(write: Write) -> None:
    for content in (
        {"proxies": {"https-proxy": "http://anna:secret@proxy\n"}},
        {"proxies": "http://anna:secret@proxy"},
        {"registry-mirrors": ["https://anna:secret@mirror.example"]},
        {"remotes": ["https://anna:secret@peer", 1]},
        {"insecure-registries": ["anna:secret@peer"]},
    ):
        assert "secret" not in refusal(write(content))


def test_a_misspelt_key_of_the_proxies_is_named(write: Write) -> None:
    assert "Did you mean 'http-proxy'?" in refusal(write({"proxies": {"httpProxy": "http://proxy"}}))


def test_an_empty_file_says_nothing(write: Write) -> None:
    assert load(write("")) == Config(source=write(""))
    assert load(write({})) == Config(source=write({}))


def test_a_file_written_for_dockerd_is_taken(write: Write) -> None:
    path = write(
        {
            "data-root": "/srv/docker",
            "log-driver": "json-file",
            "log-opts": {"max-size": "10m"},
            "live-restore": True,
            "tls": True,
            "tlscacert": "/etc/docker/ca.pem",
            "features": {"buildkit": True},
            "builder": {"gc": {"enabled": True}},
            "default-address-pools": [{"base": "10.0.0.0/8", "size": 24}],
            "userns-remap": "",
            "storage-driver": "",
        }
    )

    assert load(path) == Config(data_root=Path("/srv/docker"), source=path)


def test_the_runtimes_of_a_file_written_for_dockerd_are_taken(write: Write) -> None:
    config = load(
        write(
            {
                "default-runtime": "lean",
                "runtimes": {
                    "lean": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]},
                    "kata": {"runtimeType": "io.containerd.kata.v2"},
                },
            }
        )
    )

    assert config.default_engine == "lean"
    assert config.engines == (Engine("lean", "/usr/bin/crun", ("--debug",)), Engine("kata", ""))


@pytest.mark.parametrize("runtimes", [[], {"a": 1}, {"a": {}}, {"a": {"path": "/x", "runtimeArgs": "--debug"}}])
def test_a_runtime_that_is_not_said_well_is_named(write: Write, runtimes: object) -> None:
    assert "runtimes" in refusal(write({"runtimes": runtimes}))


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("storage-drivers", "storage-driver"),
        ("storage_driver", "storage-driver"),
        ("Data-Root", "data-root"),
        ("storage-opt", "storage-opts"),
        ("execroot", "exec-root"),
        ("log-drivers", "log-driver"),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest(write: Write, key: str, meant: str) -> None:
    path = write({key: "overlay2"})

    assert refusal(path) == f"{path}: unknown key {key!r}\nDid you mean {meant!r}?"


def test_a_key_that_resembles_none_gets_the_list_of_ours(write: Write) -> None:
    assert "The keys are data-root, exec-root, storage-driver, storage-opts, " in refusal(write({"qqqq": 1}))


def test_a_former_name_is_not_silently_ignored(write: Write) -> None:
    assert "'graph' is called 'data-root' now" in refusal(write({"graph": "/srv"}))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("data-root", "layers", "an absolute path"),
        ("data-root", "", "an absolute path"),
        ("data-root", "/a\0b", "an absolute path"),
        ("data-root", "/\ud800", "an absolute path"),
        ("exec-root", 7, "an absolute path"),
        ("exec-root", None, "an absolute path"),
        ("storage-driver", ["overlay2"], "the name of a driver"),
        ("storage-driver", False, "the name of a driver"),
        ("storage-opts", "overlay2.size=1G", "a list of strings"),
        ("storage-opts", [1], "a list of strings"),
        ("storage-opts", {"overlay2.size": "1G"}, "a list of strings"),
        ("storage-opts", None, "a list of strings"),
        ("insecure-registries", "host:5000", "a list such as"),
        ("insecure-registries", ["a b"], "a list such as"),
        ("insecure-registries", [""], "a list such as"),
        ("insecure-registries", ["10.0.0.0/x"], "a list such as"),
        ("insecure-registries", ["http://host/path"], "a list such as"),
        ("registry-mirrors", ["mirror.example"], "a list of URLs"),
        ("registry-mirrors", ["ftp://mirror.example"], "a list of URLs"),
        ("registry-mirrors", ["https://"], "a list of URLs"),
        ("registry-mirrors", ["https://mirror.example?a=b"], "a list of URLs"),
        ("registry-mirrors", ["https://mirror.example#a"], "a list of URLs"),
        ("registry-mirrors", [None], "a list of URLs"),
        ("max-concurrent-downloads", -1, "a number from 0 to"),
        ("max-concurrent-downloads", True, "a number from 0 to"),
        ("max-concurrent-uploads", "3", "a number from 0 to"),
        ("max-concurrent-uploads", 1.5, "a number from 0 to"),
        ("max-download-attempts", 0, "a number from 1 to"),
        ("max-download-attempts", None, "a number from 1 to"),
        ("proxies", [], '{"http-proxy": URL'),
        ("keep-blobs", 1, "true or false"),
        ("push-through", "true", "true or false"),
        ("remotes", "https://peer", "a list of strings"),
        ("remotes", [""], "a list of strings"),
    ],
)
def test_a_bad_value_names_file_key_and_what_is_allowed(write: Write, key: str, value: object, allowed: str) -> None:
    path = write({key: value})

    text = refusal(path)

    assert text.startswith(f"{path}: {key} must be {allowed}")
    assert text.endswith(f"not {json.dumps(value)}")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"data-root": "/srv",}', "line 1, column 22"),
        ('{\n  "data-root": /srv\n}', "line 2, column 16"),
        ("{", "line 1, column 2"),
        ('{"a": 1} x', "line 1, column 10"),
    ],
)
def test_broken_json_is_located(write: Write, text: str, where: str) -> None:
    path = write(text)

    assert refusal(path).startswith(f"{path}, {where}: ")


@pytest.mark.parametrize("text", ["[]", "3", '"text"', "null"])
def test_json_that_is_no_object_is_refused(write: Write, text: str) -> None:
    assert "must be a JSON object" in refusal(write(text))


def test_json_without_a_bottom_is_refused(write: Write) -> None:
    assert "nested too deeply" in refusal(write("[" * 100_000))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_bytes(b'{"data-root": "/\xff"}')

    assert "not a text in UTF-8" in refusal(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from([*configuration._OURS, "hosts"]) | st.text(max_size=6)


@given(st.dictionaries(keys, json_values, max_size=4))
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))

    try:
        said = str(load(path).source)
    except LayerstoreError as error:
        said = str(error)
    assert str(path) in said


# ---- what the command line says instead


def test_what_is_said_later_counts() -> None:
    config = Config(Path("/a"), Path("/b"), "overlay2", ("overlay2.size=1G",), Path("/etc/daemon.json"))

    assert with_overrides(config) == config
    changed = with_overrides(config, data_root=Path("/c"), storage_opts=["overlay2.size=2G"])
    assert changed.data_root == Path("/c")
    assert driver_options(changed, "overlay2", Settings).size == 2 << 30


def test_another_driver_takes_over_no_options_of_the_files() -> None:
    config = Config(storage_driver="overlay2", storage_opts=("overlay2.size=1G", "other.mode=b"))

    changed = with_overrides(config, storage_driver="other")

    assert changed.storage_driver == "other"
    assert changed.storage_opts == ("other.mode=b",)


# ---- the options of a driver


@frozen
class Settings:
    size: int | None = field(default=None, converter=options.size)
    fast: bool = field(default=False, converter=options.switch)
    mode: str = "a"


def settings_of(*opts: str) -> Settings:
    return driver_options(Config(storage_opts=opts, source=Path("/etc/daemon.json")), "overlay2", Settings)


def test_options_become_the_drivers_own_class() -> None:
    assert settings_of() == Settings()
    assert settings_of("overlay2.size=1G", "overlay2.fast=true", "overlay2.mode=x=y") == Settings("1G", "on", "x=y")
    assert settings_of(" Overlay2.Size = 1k") == Settings(1024)


@pytest.mark.parametrize(
    ("opt", "words"),
    [
        ("overlay2.siez=1G", "overlay2 has no option 'siez'\nDid you mean 'size'?"),
        ("overlay2.zzz=1", "overlay2 has no option 'zzz'\nThe options are size, fast, mode."),
        ("overlay2.size=big", "overlay2.size: 'big' is not a size such as 10G"),
        ("overlay2.fast=perhaps", "overlay2.fast: 'perhaps' is not true or false"),
        ("btrfs.size=1G", "is an option of btrfs, but the storage driver is overlay2"),
        ("overlay.size=1G", "Did you mean 'overlay2.size'?"),
        ("size=1G", "is not of the form overlay2.OPTION=VALUE"),
        ("overlay2.size", "is not of the form overlay2.OPTION=VALUE"),
        ("", "is not of the form"),
    ],
)
def test_a_bad_option_says_what_is_wrong_and_where(opt: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_of(opt)

    assert words in str(caught.value)
    assert str(caught.value).startswith("/etc/daemon.json: storage-opts: ")


def test_a_driver_without_options_says_so() -> None:
    @frozen
    class Nothing:
        pass

    with pytest.raises(ConfigError, match="It has no options"):
        driver_options(Config(storage_opts=("vfs.size=1",)), "vfs", Nothing)


@pytest.mark.parametrize(
    ("builder", "limit"),
    [
        ({}, None),
        ({"gc": {"enabled": True}}, None),
        ({"gc": {"enabled": True, "defaultKeepStorage": "20GB"}}, 20 << 30),
        ({"gc": {"defaultReservedSpace": 1000, "policy": [{"keepStorage": "1GB"}]}}, 1000),
        ({"gc": {"enabled": False, "defaultKeepStorage": "20GB"}}, None),
        ({"gc": {"defaultKeepStorage": "20GB"}, "entitlements": {}}, 20 << 30),
    ],
)
def test_how_much_builds_may_keep_is_said_as_for_dockerd(write: Write, builder: object, limit: int | None) -> None:
    assert load(write({"builder": builder})).build_cache == limit


def test_policies_of_the_cache_are_said_as_for_dockerd(write: Write) -> None:
    told = [
        {"keepStorage": "10GB", "filter": ["unused-for=1h30m", "type=exec.cachemount", "type=regular"]},
        {"filter": {"private": {"true": True}, "description": ["RUN"]}, "all": True},
        {"reservedSpace": 1000, "keepStorage": ""},
    ]
    assert load(write({"builder": {"gc": {"policy": told}}})).build_policies == (
        CachePolicy(10 << 30, unused_for=5400, texts={"type": ("exec.cachemount", "regular")}),
        CachePolicy(None, all=True, switches={"private": frozenset({True})}, texts={"description": ("RUN",)}),
        CachePolicy(1000),
    )
    assert load(write({"builder": {"gc": {"enabled": False, "policy": told}}})).build_policies == ()


@pytest.mark.parametrize(
    ("builder", "limit"), [({}, 500 << 20), ({"largeContext": "2GB", "gc": {}}, 2 << 30), ({"largeContext": 0}, 0)]
)
def test_how_much_of_a_context_is_much_can_be_said(write: Write, builder: object, limit: int) -> None:
    assert load(write({"builder": builder})).large_context == limit


@pytest.mark.parametrize(
    "builder",
    [
        [],
        None,
        {"gc": 1},
        {"gc": {"defaultKeepStorage": "much"}},
        {"gc": {"defaultKeepStorage": True}},
        {"largeContext": "much"},
        {"largeContext": -1},
        {"gc": {"policy": {}}},
        {"gc": {"policy": [1]}},
        {"gc": {"policy": [{}]}},
        {"gc": {"policy": [{"all": True}]}},
        {"gc": {"policy": [{"keepStorage": "much"}]}},
        {"gc": {"policy": [{"keepStorage": "1GB", "all": 1}]}},
        {"gc": {"policy": [{"keepStorage": "1GB", "minFreeSpace": "1GB"}]}},
        {"gc": {"policy": [{"keepStorage": "1GB", "keep": 1}]}},
        {"gc": {"policy": [{"filter": ["unused-for=2 days"]}]}},
        {"gc": {"policy": [{"filter": ["mutable=true"]}]}},
        {"gc": {"policy": [{"filter": ["shared=maybe"]}]}},
        {"gc": {"policy": [{"filter": ["shared"]}], "enabled": False}},
        {"gc": {"policy": [{"filter": "shared=true"}]}},
    ],
)
def test_a_limit_of_builds_that_is_not_said_well_is_named(write: Write, builder: object) -> None:
    assert "builder" in refusal(write({"builder": builder}))
