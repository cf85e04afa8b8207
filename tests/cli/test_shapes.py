"""Fields that an object of docker's has by its type, whether the object has a value for them or not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.cli import shapes
from layerstore.cli.template import Duration, Struct, Template, TemplateError, as_json

IMAGE: dict[str, object] = {
    "Id": "sha256:12",
    "RepoTags": ["a:1"],
    "Config": {"Cmd": ["sh"], "Env": None, "Labels": {"a": "b"}},
    "Os": "linux",
    "GraphDriver": {"Data": None, "Name": "overlay2"},
    "RootFS": {"Type": "layers", "Layers": []},
}
HEALTHY: dict[str, object] = {
    "Id": "sha256:34",
    "Config": {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 90_000_000_000}, "Entrypoint": None, "Cmd": []},
    "Variant": "v8",
}
BARE: dict[str, object] = {"Id": "sha256:56", "Config": None}
CONTAINER: dict[str, object] = {
    "Id": "78",
    "State": {"Status": "created", "Running": False},
    "Mounts": [],
    "Mountpoint": "/m",
    "Config": {"Image": "a:1"},
}


def shown(template: str, value: dict[str, object]) -> str:
    return Template(template).render(shapes.inspected(value))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Variant}}|{{.OsVersion}}|{{.Author}}", "||"),
        ("{{.ID}} {{.Id}} {{.Size}}", "sha256:12 sha256:12 0"),
        ("{{.Config.User}}|{{.Config.WorkingDir}}|{{.Config.Tty}}", "||false"),
        ("{{.Config.Env}} {{.Config.Entrypoint}} {{.Config.Volumes}}", "[] [] map[]"),
        ("{{.Config.ExposedPorts}} {{len .Config.ExposedPorts}}", "map[] 0"),
        ('{{range $port, $_ := .Config.ExposedPorts}}{{$port}}{{end}}{{index .Config.ExposedPorts "80/tcp"}}', ""),
        ('{{.Config.Labels.a}}{{.Config.Labels.b}}{{index .Config.Labels "b"}}', "b<no value>"),
        ("{{if .Config.Healthcheck}}a{{else}}b{{end}}{{with .Config.Healthcheck}}{{.Test}}{{end}}", "b"),
        ("{{.Config.Healthcheck}} {{json .Config.Healthcheck}} {{json .Config.StopTimeout}}", "<nil> null null"),
        ("{{.RepoDigests}} {{json .RepoDigests}} {{.RootFS.Layers}}", "[] null []"),
        ("{{.GraphDriver.Data}} {{.Metadata.LastTagTime}}", "map[] 0001-01-01T00:00:00Z"),
        ("{{json .Config}}", '{"Cmd":["sh"],"Env":null,"Labels":{"a":"b"}}'),
        ("{{json .}}", as_json(IMAGE)),
    ],
)
def test_what_an_image_lacks_has_go_s_zero_value(template: str, expected: str) -> None:
    assert shown(template, IMAGE) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Config.Healthcheck.Interval}} {{.Config.Healthcheck.Timeout}}", "1m30s 0s"),
        ("{{.Config.Healthcheck.Retries}} {{.Config.Healthcheck.Test}}", "0 [CMD x]"),
        ("{{json .Config.Healthcheck}}", '{"Test":["CMD","x"],"Interval":90000000000}'),
        ("{{json .Config.Cmd}} {{json .Config.Entrypoint}} {{.Variant}}", "[] null v8"),
    ],
)
def test_what_a_part_of_an_image_lacks_has_it_too(template: str, expected: str) -> None:
    assert shown(template, HEALTHY) == expected


def test_an_image_without_a_config() -> None:
    assert shown("{{.Config.Cmd}}{{.Config.User}}{{json .Config}}{{if .Config}}a{{end}}", BARE) == "[]null"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{json .State.Health}} {{.State.Health}} {{if .State.Health}}a{{else}}b{{end}}", "null <nil> b"),
        ("{{.State.Pid}} {{.State.ExitCode}} {{.State.StartedAt}}", "0 0 0001-01-01T00:00:00Z"),
        ("{{.State.Status}} {{.State.Restarting}} {{.ID}}", "created false 78"),
        ("{{.HostConfig.NetworkMode}}|{{.HostConfig.RestartPolicy.Name}}|{{.HostConfig.Binds}}", "||[]"),
        ("{{.HostConfig.ConsoleSize}} {{.HostConfig.LogConfig.Type}}{{json .HostConfig}}", "[0 0] null"),
        (
            "{{.NetworkSettings.IPAddress}}{{range .NetworkSettings.Networks}}x{{end}}{{.NetworkSettings.Ports}}",
            "map[]",
        ),
        ("{{range .Mounts}}{{.Source}}{{end}}{{.Args}}{{.SizeRw}} {{.Mountpoint}}", "[]<nil> /m"),
        ("{{.Config.Image}} {{.Config.Hostname}}{{.Config.Labels}}", "a:1 map[]"),
        ("{{json .State}}", '{"Status":"created","Running":false}'),
    ],
)
def test_what_a_container_lacks_has_go_s_zero_value(template: str, expected: str) -> None:
    assert shown(template, CONTAINER) == expected


@pytest.mark.parametrize(
    ("template", "value", "words"),
    [
        (
            "{{.Nope}}",
            IMAGE,
            ".Nope: can't evaluate field Nope in type image.InspectResponse; there are: Arch",
        ),
        ("{{.Config.Nope}}", IMAGE, ".Config.Nope: can't evaluate field Nope in type container.Config; there are: "),
        ("{{.Config.Cmd.Nope}}", IMAGE, "can't evaluate field Nope in type []string"),
        ("{{.Os.Nope}}", IMAGE, "can't evaluate field Nope in type string"),
        ("{{.Size.Nope}}", IMAGE, "can't evaluate field Nope in type int64"),
        ("{{.Config.Healthcheck.Test}}", IMAGE, "nil pointer evaluating Test"),
        ("{{len .Config.Healthcheck}}", IMAGE, "len: nil pointer"),
        ("{{range .Config.Healthcheck}}{{end}}", IMAGE, "range: cannot go over a nil pointer"),
        ("{{.State}}", IMAGE, "can't evaluate field State in type image.InspectResponse"),
        ("{{.State.Health.Status}}", CONTAINER, "nil pointer evaluating Status"),
        ("{{.RootFS}}", CONTAINER, "can't evaluate field RootFS in type container.InspectResponse"),
    ],
)
def test_what_docker_s_objects_do_not_have_either_is_an_error(
    template: str, value: dict[str, object], words: str
) -> None:
    with pytest.raises(TemplateError) as caught:
        shown(template, value)
    assert words in str(caught.value)


def test_info_and_version_have_docker_s_fields() -> None:
    info = shapes.information({"Driver": "vfs", "Layers": 3})
    text = "{{.Driver}} {{.Layers}} {{.CgroupVersion}}{{.Swarm.LocalNodeState}}{{json .Warnings}} {{.Plugins.Volume}}"
    assert Template(text).render(info) == "vfs 3 null []"
    assert as_json(info) == '{"Driver":"vfs","Layers":3}'
    version = shapes.versions({"Version": "1", "Os": "linux"})
    assert Template("{{.Client.Version}}{{.Server.Version}}{{.Version}}{{.Server.Os}}").render(version) == "111linux"
    assert Template("{{.Client.GitCommit}}{{.Client.Platform.Name}}{{json .}}").render(version) == as_json(version)
    assert as_json(version) == '{"Version":"1","Os":"linux"}'


def test_a_value_of_another_kind_stays_as_it_is() -> None:
    odd = {"Id": 5, "Config": {"Env": "A=1", "Labels": ["a"], "Healthcheck": "x", "Volumes": 3}, "RootFS": None}
    assert shown("{{.Config.Env}}{{.Config.Labels}}{{.Config.Healthcheck}}{{.Config.Volumes}}", odd) == "A=1[a]x3"
    assert shown("{{json .}}", odd) == as_json(odd)


NAMES = st.sampled_from(["Config", "Healthcheck", "State", "Health", "Log", "Mounts", "Interval", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
)


@given(st.dictionaries(st.sampled_from(sorted(shapes.IMAGE.fields)), VALUES))
def test_the_json_of_an_object_is_its_own(value: dict[str, object]) -> None:
    for shape in (shapes.IMAGE, shapes.CONTAINER, shapes.INFO):
        assert json.loads(as_json(Struct(shape, value))) == value


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (1_000_000_000, "1s"),
        (3_300_000_001, "3.300000001s"),
        (60_000_000_000, "1m0s"),
        (5_405_500_000_000, "1h30m5.5s"),
        (-90_000_000_000, "-1m30s"),
    ],
)
def test_a_duration_is_shown_as_go_shows_it(nanoseconds: int, text: str) -> None:
    assert str(Duration(nanoseconds)) == text
