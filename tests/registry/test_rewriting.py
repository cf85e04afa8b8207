"""registries.conf: where images are really read from, by containers-registries.conf(5), with two registries."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from layerstore import Config, registry
from layerstore.digest import Digest
from layerstore.errors import ConfigError, NotFound
from layerstore.reference import parse
from layerstore.registry.client.repository import Repository
from layerstore.registry.transport.hosts import HUB, sources
from layerstore.registry.transport.http import Http
from layerstore.registry.transport.registries import places_of
from layerstore.registry.transport.settings import Settings
from layerstore.registry.ways import ways
from support import images

from .reading import noise
from .servers.quirks import Quirks

DIGEST = f"sha256:{'a' * 64}"


def read_from(name: str) -> list[str]:
    """Where an image is read from, as names; `!` is one that is insecure."""
    places = places_of(parse(name))
    assert places is not None
    return [f"{place.domain}/{place.path}{'!' if place.insecure else ''}" for place in places]


@pytest.mark.parametrize(
    ("prefix", "location", "name", "there"),
    [
        ("example.com", "inner.example:5000", "example.com/foo/app:1", "inner.example:5000/foo/app"),
        ("example.com/foo", "inner.example/bar", "example.com/foo/app", "inner.example/bar/app"),
        ("example.com/foo/", "inner.example/bar/", "example.com/foo/a/b", "inner.example/bar/a/b"),
        ("example.com/foo", "inner.example/bar", "example.com/foo:1", "inner.example/bar"),
        ("docker.io/library/debian", "inner.example/deb", "debian:12", "inner.example/deb"),
        ("docker.io", "inner.example/hub", "debian", "inner.example/hub/library/debian"),
        ("example.com:5000", "docker.io/mine", "example.com:5000/app", "docker.io/mine/app"),
        ("example.com", "docker.io", "example.com/app", "docker.io/library/app"),
        ("example.com", "index.docker.io", "example.com/team/app", "docker.io/team/app"),
        ("docker.io", "index.docker.io", "debian", "docker.io/library/debian"),
        ("docker.io", "registry-1.docker.io", "debian", "docker.io/library/debian"),
        ("*.example.com", "inner.example", "a.b.example.com/app", "inner.example/app"),
        ("*.example.com", "inner.example/x", "a.example.com/app", "inner.example/x/app"),
        ("*.example.com", "inner.example", "a.example.com:5000/app", "inner.example:5000/app"),
        ("*.example.com", "", "a.example.com:5000/app", "a.example.com:5000/app"),
        ("example.com/app:1", "inner.example/other:1", "example.com/app:1", "inner.example/other"),
        (f"example.com/app@{DIGEST}", f"inner.example/x@{DIGEST}", f"example.com/app@{DIGEST}", "inner.example/x"),
        ("[::1]:5000/a", "inner.example/b", "[::1]:5000/a/c", "inner.example/b/c"),
    ],
)
def test_a_prefix_is_rewritten(prefix: str, location: str, name: str, there: str, conf: Callable[[str], Path]) -> None:
    conf(f"[[registry]]\nprefix = '{prefix}'\nlocation = '{location}'\n")
    assert read_from(name) == [there]


def test_the_longest_prefix_alone_counts(conf: Callable[[str], Path]) -> None:
    conf(
        "[[registry]]\nprefix = 'example.com'\nlocation = 'one.example'\ninsecure = true\n"
        "[[registry.mirror]]\nlocation = 'mirror.example/all'\n"
        "[[registry]]\nprefix = 'example.com/team'\nlocation = 'two.example/x'\n"
        "[[registry]]\nprefix = '*.example.com'\n"
        "[[registry.mirror]]\nlocation = 'mirror.example/wild'\ninsecure = true\n"
        "[[registry]]\nprefix = '*.b.example.com'\nlocation = 'three.example'\n"
        "[[registry]]\nlocation = 'plain.example/team'\ninsecure = true\n"
    )
    assert read_from("example.com/app") == ["mirror.example/all/app", "one.example/app!"]
    assert read_from("example.com/team/app") == ["two.example/x/app"]
    assert read_from("example.com/teams/app")[-1] == "one.example/teams/app!"
    assert read_from("a.example.com/app") == ["mirror.example/wild/app!", "a.example.com/app"]
    assert read_from("a.b.example.com/app") == ["three.example/app"]
    assert read_from("plain.example/team/app") == ["plain.example/team/app!"]
    for name in ("plain.example/app", "debian", "badexample.com/x"):
        assert places_of(parse(name)) is None


def test_which_mirrors_are_for_tags_and_which_for_digests(conf: Callable[[str], Path]) -> None:
    mirrors = "".join(
        f"[[registry.mirror]]\nlocation = '{name}.example'\n{said}"
        for name, said in {
            "all": "pull-from-mirror = 'all'\n",
            "digests": "pull-from-mirror = 'digest-only'\n",
            "tags": "pull-from-mirror = 'tag-only'\n",
            "any": "",
        }.items()
    )
    conf(f"[[registry]]\nlocation = 'x.example'\n{mirrors}")
    of_tags = [f"{name}.example/app" for name in ("all", "tags", "any", "x")]
    assert read_from("x.example/app") == read_from("x.example/app:1") == of_tags
    of_digests = [f"{name}.example/app" for name in ("all", "digests", "any", "x")]
    assert read_from(f"x.example/app@{DIGEST}") == read_from(f"x.example/app:1@{DIGEST}") == of_digests
    conf(
        "[[registry]]\nlocation = 'x.example'\nmirror-by-digest-only = true\n"
        "[[registry.mirror]]\nlocation = 'm.example'\n"
    )
    assert read_from("x.example/app") == ["x.example/app"]
    assert read_from(f"x.example/app@{DIGEST}") == ["m.example/app", "x.example/app"]


def test_blobs_of_a_repository_are_read_from_each_mirror(conf: Callable[[str], Path]) -> None:
    """Long after the pull, when nobody knows by which name their image came."""
    conf(
        "[[registry]]\nlocation = 'x.example'\n"
        "[[registry.mirror]]\nlocation = 'digests.example'\npull-from-mirror = 'digest-only'\n"
        "[[registry.mirror]]\nlocation = 'tags.example'\npull-from-mirror = 'tag-only'\n"
        "[[registry]]\nprefix = 'x.example/app:latest'\nlocation = 'y.example/app:latest'\n"
    )

    def asked(name: str) -> list[str]:
        places = places_of(parse(name), is_image=False)
        assert places is not None
        return [place.domain for place in places]

    assert asked("x.example/app") == ["digests.example", "tags.example", "x.example"]
    assert asked("x.example/app:1") == ["tags.example", "x.example"]
    assert asked(f"x.example/app@{DIGEST}") == ["digests.example", "x.example"]
    assert asked("x.example/app:latest") == ["y.example"]


def test_a_blob_that_was_seen_is_read_from_a_mirror_for_digests_alone(
    quirks: Quirks, elsewhere: Quirks, conf: Callable[[str], Path], http: Http, settings: Settings
) -> None:
    from attrs import evolve

    data = noise(30_000)
    blob = Digest(images.digest(data))
    conf(
        f"[[registry]]\nprefix = 'x.example'\nlocation = '{quirks.host}'\n"
        f"[[registry.mirror]]\nlocation = '{elsewhere.host}'\npull-from-mirror = 'digest-only'\n"
    )
    elsewhere.put_blob("team/app", data)
    heeding = evolve(settings, heeds_policy=True)
    where = parse("x.example/team/app")
    assert Repository.of_blobs(http, heeding, where).has_blob(blob) == len(data)
    assert Repository(http, heeding, where).has_blob(blob) is None


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("location = 'http://a.example'", "gives no name of an image"),
        ("location = 'inner'", "has to begin with a registry"),
        ("location = 'inner.example/UP'", "gives no name of an image"),
        ("location = 1", "is no text"),
        ("mirror = 'x'", "is no list of tables"),
        ("mirror = ['x']", "is no list of tables"),
        ("mirror = [{}]", "has no location"),
        ("mirror = [{location = 1}]", "is no text"),
        ("mirror = [{location = 'm.example', pull-from-mirror = 'never'}]", "is one of all, digest-only, tag-only"),
        ("mirror = [{location = 'm.example', pull-from-mirror = 1}]", "is one of all, digest-only, tag-only"),
        (
            "mirror-by-digest-only = true\nmirror = [{location = 'm.example', pull-from-mirror = 'all'}]",
            "cannot be with mirror-by-digest-only",
        ),
    ],
)
def test_a_table_that_cannot_be_understood_is_an_error(table: str, said: str, conf: Callable[[str], Path]) -> None:
    file = conf(f"[[registry]]\nprefix = 'x.example'\n{table}\n")
    with pytest.raises(ConfigError, match=said) as caught:
        places_of(parse("x.example/app"))
    assert str(file) in str(caught.value)
    assert "ignore-policy" in str(caught.value.remedy)
    assert places_of(parse("y.example/app")) is None


def test_a_location_of_one_tag_has_that_tag(conf: Callable[[str], Path]) -> None:
    conf("[[registry]]\nprefix = 'x.example/app:1'\nlocation = 'y.example/app:2'\n")
    with pytest.raises(ConfigError, match="does not end with :1"):
        places_of(parse("x.example/app:1"))


def test_how_each_is_reached(conf: Callable[[str], Path]) -> None:
    conf(
        "[[registry]]\nprefix = 'docker.io'\nlocation = 'inner.example/hub'\n"
        "[[registry.mirror]]\nlocation = 'plain.example/hub'\ninsecure = true\n"
        "[[registry]]\nlocation = 'quay.io'\n[[registry.mirror]]\nlocation = 'docker.io/mirrored'\n"
    )

    def told(settings: Settings, name: str = "debian") -> list[tuple[str, str, bool, bool]]:
        found = sources(settings, parse(name))
        return [(one.endpoint.base, one.path, one.endpoint.verify, one.endpoint.plain) for one in found]

    config = Config(registry_mirrors=("https://daemon.example",))
    assert told(Settings.of(config)) == [
        ("https://daemon.example", "library/debian", True, False),
        ("https://plain.example", "hub/library/debian", False, True),
        ("https://inner.example", "hub/library/debian", True, False),
    ]
    assert {entry[2] for entry in told(Settings.of(config, verify=True))} == {True}
    assert {entry[2] for entry in told(Settings.of(config, verify=False))} == {False}
    hub, own = sources(Settings.of(Config()), parse("quay.io/a/b"))
    # Credentials are those of the registry that is asked.
    assert (hub.endpoint.name, hub.endpoint.host, hub.path) == (HUB, "registry-1.docker.io", "mirrored/a/b")
    assert (own.endpoint.name, own.path) == ("quay.io", "a/b")
    ignoring = Settings.of(Config(ignore_policy=True))
    assert [source.path for source in sources(ignoring, parse("debian"))] == ["library/debian"]


def test_mirrors_are_asked_first_and_are_never_needed(
    quirks: Quirks, elsewhere: Quirks, conf: Callable[[str], Path], http: Http, settings: Settings
) -> None:
    from attrs import evolve

    data = noise(30_000)
    blob = Digest(images.digest(data))
    heeding = evolve(settings, heeds_policy=True)
    conf(
        f"[[registry]]\nprefix = 'logical.example'\nlocation = '{quirks.host}/own'\n"
        f"[[registry.mirror]]\nlocation = '{elsewhere.host}/one'\n"
        f"[[registry.mirror]]\nlocation = '{elsewhere.host}/two'\n"
    )
    there = Repository(http, heeding, parse("logical.example/app:1"))
    name = quirks.put_image("own/app", "1", [data], compress=False)
    assert there.manifest("1").digest == name
    assert [seen.target.split("/manifests")[0] for seen in elsewhere.requests] == ["/v2/one/app", "/v2/two/app"]
    assert [seen.target.split("/manifests")[0] for seen in quirks.requests] == ["/v2/own/app"]
    elsewhere.put_blob("two/app", data)
    quirks.forget()
    with there.blob(blob, len(data)) as reader:
        got = bytearray(len(data))
        at = 0
        while count := reader.readinto(memoryview(got)[at:]):
            at += count
    assert bytes(got) == data
    assert quirks.requests == []
    # Who may push reads from the registry that the name says, and so does who heeds nothing.
    for other in (
        Repository(http, heeding, parse(f"{quirks.host}/own/app"), actions=("pull", "push")),
        Repository(http, settings, parse(f"{quirks.host}/own/app")),
    ):
        assert other.manifest("1").digest == name


@pytest.mark.tools("skopeo")
@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("x.example/app:1", "prefix = 'x.example'\nlocation = '{own}/own'\ninsecure = true"),
        ("x.example/team/app:1", "prefix = 'x.example/team'\nlocation = '{own}/own'\ninsecure = true"),
        ("a.b.x.example/app:1", "prefix = '*.x.example'\nlocation = '{own}/own'\ninsecure = true"),
        ("app:1", "prefix = 'docker.io/library'\nlocation = '{own}/own'\ninsecure = true"),
        (
            "x.example/app:1",
            "prefix = 'x.example'\nlocation = '{own}/own'\ninsecure = true\n"
            "[[registry.mirror]]\nlocation = '{mirror}/one'\ninsecure = true\npull-from-mirror = 'digest-only'\n"
            "[[registry.mirror]]\nlocation = '{mirror}/two'\ninsecure = true\n"
            "[[registry.mirror]]\nlocation = '{mirror}/three'\ninsecure = true\npull-from-mirror = 'tag-only'",
        ),
        (
            "x.example/app:1",
            "prefix = 'x.example'\nlocation = '{own}/own'\ninsecure = true\nmirror-by-digest-only = true\n"
            "[[registry.mirror]]\nlocation = '{mirror}/one'\ninsecure = true",
        ),
    ],
)
def test_skopeo_asks_the_same(
    name: str, table: str, quirks: Quirks, elsewhere: Quirks, conf: Callable[[str], Path]
) -> None:
    digest = quirks.put_image("own/app", "1", [images.layer(images.file("hosts", "localhost\n"))])
    file = conf(f"[[registry]]\n{table.format(own=quirks.host, mirror=elsewhere.host)}\n")

    def asked() -> list[tuple[str, str]]:
        """For which manifests, by whom, each once."""
        found = {
            (server.host, seen.path): None
            for server in (elsewhere, quirks)
            for seen in server.requests
            if "/manifests/" in seen.path
        }
        quirks.forget()
        elsewhere.forget()
        return list(found)

    for wanted in (name, f"{name.rpartition(':')[0]}@{digest}"):
        command = ["skopeo", "--registries-conf", str(file), "inspect", "--raw", f"docker://{wanted}"]
        done = subprocess.run(command, timeout=60, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        theirs = asked()
        assert theirs
        assert registry.manifest(wanted).digest == digest
        assert asked() == theirs


@pytest.mark.root
def test_a_layer_that_is_wanted_again_comes_from_a_mirror_for_digests_alone(
    quirks: Quirks, conf: Callable[[str], Path], data_root: Path, tmp_path: Path
) -> None:
    digest = quirks.put_image("team/app", "1", [images.layer(images.file("hosts", "localhost\n"))])
    conf(
        "[[registry]]\nprefix = 'x.example'\nlocation = '127.0.0.1:1'\n"
        f"[[registry.mirror]]\nlocation = '{quirks.host}'\npull-from-mirror = 'digest-only'\n"
    )
    config = Config(data_root=data_root, exec_root=tmp_path / "exec", max_download_attempts=1)
    with layerstore.open(config=config) as store:
        image = store.pull(f"x.example/team/app@{digest}")
        diff_id = store.layer(image.layers[0]).diff_id
        with ways(config, store._parts.blobs) as found:
            [way] = [way for way in found.of(diff_id) if way.place == "x.example/team/app"]
            with way.open() as tar:
                got = bytearray(100_000)
                assert images.digest(bytes(got[: tar.readinto(memoryview(got))])) == diff_id


@pytest.mark.root
def test_an_image_keeps_the_name_that_it_was_asked_for_by(
    quirks: Quirks, elsewhere: Quirks, conf: Callable[[str], Path], data_root: Path, tmp_path: Path
) -> None:
    name = f"{quirks.host}/team/app:1"
    elsewhere.put_image("hidden/app", "1", [images.layer(images.file("hosts", "localhost\n"))])
    config = Config(data_root=data_root, exec_root=tmp_path / "exec")
    with layerstore.open(config=config) as store:
        with pytest.raises(NotFound):
            store.pull(name)
        conf(f"[[registry]]\nprefix = '{quirks.host}/team'\nlocation = '{elsewhere.host}/hidden'\n")
        quirks.forget()
        store.pull(name)
        image = store.image(name)
        assert list(image.tags) == [name]
        assert [digest.partition("@")[0] for digest in image.digests] == [name.removesuffix(":1")]
        registry.copy(f"docker://{name}", f"oci:{tmp_path}/layout")
        assert quirks.requests == []
        # What is pushed goes where its name says.
        store.push(name)
        assert quirks.asked("PUT", "/v2/team/app/manifests/1")
        assert not elsewhere.asked("PUT", "/")
