"""images, history, tag, rmi and inspect, on a real store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import layerstore
from layerstore.digest import of_bytes
from layerstore.images import rows
from support import images as made

Run = Callable[..., Result]

pytestmark = pytest.mark.root

BASE = made.layer(made.folder("etc"), made.file("etc/hostname", "base\n"), made.file("big", b"x" * 123_456))
TOP = made.layer(made.file("etc/motd", "hello\n"))
LONG = "/bin/sh -c apt-get update && apt-get install -y --no-install-recommends python3"


def config(layers: list[bytes], created: str, **more: object) -> bytes:
    steps = [{"created": created, "created_by": LONG, "comment": f"layer {number}"} for number, _ in enumerate(layers)]
    steps.append({"created": created, "created_by": 'CMD ["/bin/sh"]', "empty_layer": True})
    return made.config(layers, created=created, history=steps, **more)


@pytest.fixture
def two(run: Run, tmp_path: Path) -> Run:
    """A store with base:1, tool:1 = tool:2 (base's layer and one more, labelled), and a nameless third."""
    labels = {
        "Env": ["A=1"],
        "Cmd": ["/bin/sh", "-c", "echo a long command line"],
        "Labels": {"io.x.kind": "tool", "y": ""},
    }
    archives = [
        ([BASE], ["base:1"], config([BASE], "2024-01-02T03:04:05.678901234Z")),
        ([BASE, TOP], ["tool:1", "tool:2"], config([BASE, TOP], "2024-02-03T04:05:06Z", config=labels)),
        ([TOP], [], config([TOP], "2024-03-04T05:06:07Z")),
    ]
    for number, (layers, names, settings) in enumerate(archives):
        archive = made.docker_archive(tmp_path / f"{number}.tar", layers, names, image_config=settings)
        run("load", str(archive))
    return run


def ids(run: Run, *args: str) -> list[str]:
    return run("images", *args).stdout.splitlines()


def test_images_prints_docker_s_table_newest_first(two: Run) -> None:
    head, *lines = two("images").stdout.splitlines()
    assert head == "REPOSITORY   TAG       IMAGE ID       CREATED       SIZE"
    rows = [line.split() for line in lines]
    assert [row[:2] for row in rows] == [["<none>", "<none>"], ["tool", "1"], ["tool", "2"], ["base", "1"]]
    assert {len(row[2]) for row in rows} == {12}
    assert rows[-1][-3:-1] in (["years", "ago"], ["months", "ago"])
    assert rows[-1][-1] == "133kB"


def test_an_empty_store_lists_heads_only(run: Run) -> None:
    assert run("images").stdout == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"
    assert run("images", "-q").stdout == ""
    assert run("ps").stdout == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    assert run("mount").stdout == "CONTAINER ID   NAMES     MOUNTPOINT\n"


ODD_TIMES = {
    "never": "0001-01-01T00:00:00Z",
    "first": "0001-01-01T00:00:01Z",
    "old": "1900-01-01T00:00:00.123456789123Z",
    "ahead": "2024-01-01T23:00:00+14:00",
    "behind": "2024-01-01T09:30:00-00:30",
    "leap": "2016-12-31t23:59:60z",
    "last": "9999-12-31T23:59:60-12:00",
    "nonsense": "yesterday",
    "half": "\ud800",
    "number": 1704067200,
    "null": None,
}
OLDEST_FIRST = ["first", "old", "leap", "ahead", "behind", "last"]


@pytest.mark.parametrize("where", ["UTC", "<-12>12", "<+14>-14"])
def test_no_time_of_an_image_is_too_odd(run: Run, tmp_path: Path, where: str, zone: Callable[[str], None]) -> None:
    zone(where)
    for name, created in ODD_TIMES.items():
        settings = made.config([TOP], created=created, author=name, history=[{"created": created}])
        run("load", str(made.docker_archive(tmp_path / f"{name}.tar", [TOP], [name], image_config=settings)))
    listed = run("images", "--format", "{{.Repository}}").stdout.split()
    assert [name for name in reversed(listed) if name in OLDEST_FIRST] == OLDEST_FIRST
    rows = [json.loads(line) for line in run("images", "--format", "json").stdout.splitlines()]
    timeless = {row["Repository"] for row in rows if row["CreatedAt"] == row["CreatedSince"] == "N/A"}
    assert timeless == set(ODD_TIMES) - set(OLDEST_FIRST) == {*listed[-len(timeless) :]}
    run("images")
    for name in ODD_TIMES:
        for form in ("table", "json", "{{.CreatedAt}}{{.CreatedSince}}"):
            run("history", "--format", form, name)
        run("history", "--no-human", name)
        assert run("inspect", "-f", "{{.Author}}", name).stdout == f"{name}\n"
        json.loads(run("inspect", name).stdout)
        run("images", "--filter", f"since={name}")
    assert run("images", "--format", "{{.Repository}}", "-f", "since=leap").stdout.split() == [
        "last",
        "behind",
        "ahead",
    ]
    early = run("images", "--format", "{{.Repository}}", "-f", "before=leap").stdout.split()
    assert set(early) == {"first", "old", *timeless}
    until = run("images", "--format", "{{.Repository}}", "-f", "until=1970-01-01T00:00:00Z").stdout.split()
    assert set(until) == {"first", "old", *timeless}


def test_images_in_other_forms(two: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    base = json.loads(two("images", "--format", "json", "base").stdout)
    assert base == {
        "ID": base["ID"],
        "Repository": "base",
        "Tag": "1",
        "Digest": "<none>",
        "CreatedSince": base["CreatedSince"],
        "CreatedAt": "2024-01-02 03:04:05 +0000 UTC",
        "Size": "133kB",
        "Containers": "0",
    }
    assert two("images", "--format", "{{.Repository}}:{{.Tag}}", "tool").stdout == "tool:1\ntool:2\n"
    assert two("images", "--no-trunc", "-q", "base").stdout.startswith("sha256:")
    assert "   DIGEST    IMAGE ID " in two("images", "--digests").stdout
    assert two("images", "--format", "table {{.Tag}}", "base").stdout == "TAG\n1\n"


def test_digests_have_lines_of_their_own_only_where_they_are_shown(two: Run, settings: Path) -> None:
    """What `images` and `images --digests` of docker 20.10 print of the same names."""
    digests = [of_bytes(bytes([number])) for number in range(2)]
    with layerstore.open(config=settings) as store:
        image = store.image("tool:1")
        with store._parts.database.write() as tx:
            for digest in digests:
                rows.set_digest(tx, image.id, "docker.io/library/tool", digest)
            rows.set_digest(tx, store.images()[0].id, "quay.io/team/other", digests[0])
    table = "{{.Repository}}:{{.Tag}}"
    other = "quay.io/team/other:<none>"
    assert two("images", "--format", table).stdout.splitlines() == [other, "tool:1", "tool:2", "base:1"]
    assert two("images", "--format", table + "@{{.Digest}}").stdout.splitlines() == [
        f"{other}@{digests[0]}",
        *(f"tool:{tag}@{digest}" for tag in "12" for digest in sorted(digests)),
        "base:1@<none>",
    ]
    head, first, *_ = two("images", "--digests", "quay.io/team/other").stdout.splitlines()
    assert first[head.index("DIGEST") :].startswith(digests[0])
    assert two("images", "--format", table, "--filter", "dangling=true").stdout.splitlines() == [other]
    assert other in two("images", "--format", table, "--filter", "dangling=false").stdout.splitlines()
    two("create", "--name", "box", f"quay.io/team/other@{digests[0]}")
    assert two("ps", "-a", "--format", "{{.Image}}").stdout == "quay.io/team/other\n"
    assert two("ps", "-a", "--no-trunc", "--format", "{{.Image}}").stdout == f"quay.io/team/other@{digests[0]}\n"
    assert two("rmi", f"tool@{digests[0]}").stdout == f"Untagged: tool@{digests[0]}\n"
    assert two("inspect", "--format", "{{.RepoDigests}}", "tool:1").stdout == f"[tool@{digests[1]}]\n"


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["tool"], ["tool:1", "tool:2"]),
        (["tool:2"], ["tool:2"]),
        (["*:1"], ["tool:1", "base:1"]),
        (["-f", "reference=b*", "-f", "reference=tool:2"], ["tool:2", "base:1"]),
        (["nope"], []),
        (["-f", "label=io.x.kind"], ["tool:1", "tool:2"]),
        (["-f", "label=io.x.kind=tool", "-f", "label=y"], ["tool:1", "tool:2"]),
        (["-f", "label=io.x.kind=other"], []),
        (["-f", "label!=io.x.kind"], ["<none>:<none>", "base:1"]),
        (["-f", "dangling=true"], ["<none>:<none>"]),
        (["-f", "dangling=false"], ["tool:1", "tool:2", "base:1"]),
        (["-f", "before=tool:1"], ["base:1"]),
        (["-f", "since=base:1"], ["<none>:<none>", "tool:1", "tool:2"]),
        (["-f", "since=base:1", "-f", "dangling=0"], ["tool:1", "tool:2"]),
        (["-f", "until=2024-02-01"], ["base:1"]),
        (["-f", "until=1h"], ["<none>:<none>", "tool:1", "tool:2", "base:1"]),
    ],
)
def test_images_filters(two: Run, args: list[str], names: list[str]) -> None:
    assert ids(two, *args, "--format", "{{.Repository}}:{{.Tag}}") == names


def test_a_filter_that_names_no_image_is_an_error(two: Run) -> None:
    result = two("images", "-f", "since=nope", code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("layerstore: ")


def test_history_prints_docker_s_table_newest_first(two: Run) -> None:
    head, *lines = two("history", "tool:1").stdout.splitlines()
    assert head.split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    [tool] = set(ids(two, "-q", "tool"))
    assert [line.split()[0] for line in lines] == [tool, "<missing>", "<missing>"]
    assert "   /bin/sh -c apt-get update && apt-get install…   " in lines[1]
    assert [line.split()[-3:] for line in lines[1:]] == [["10.2kB", "layer", "1"], ["133kB", "layer", "0"]]
    assert LONG in two("history", "--no-trunc", "tool:1").stdout
    assert two("history", "-q", "tool:1").stdout.splitlines() == [tool, "<missing>", "<missing>"]
    assert len(two("history", "-H=false", "tool:1").stdout.splitlines()[1].split()) >= 4


def test_history_in_other_forms(two: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    first = json.loads(two("history", "--format", "json", "--human=false", "base:1").stdout.splitlines()[-1])
    assert first["CreatedAt"] == "2024-01-02T03:04:05Z"
    assert first["CreatedBy"].startswith("/bin/sh -c apt-get")
    assert int(first["Size"]) == len(BASE)
    assert two("history", "--format", "{{.Comment}}", "base:1").stdout == "\nlayer 0\n"


def test_history_shows_which_line_made_which_folder(two: Run) -> None:
    lines = two(
        "history", "--layers", "--no-trunc", "--format", r"{{.Layer}}\t{{.Folder}}", "tool:1"
    ).stdout.splitlines()
    assert lines[0] == "(no layer)\t(no layer)"
    for line, tar in zip(lines[1:], (TOP, BASE), strict=True):
        layer, folder = line.split("\t")
        assert layer == made.digest(tar)
        assert (Path(folder) / "etc").is_dir()
    assert two("history", "--layers", "tool:1").stdout.splitlines()[0].split()[-2:] == ["LAYER", "FOLDER"]


def test_tag_and_rmi_say_what_docker_says(two: Run) -> None:
    [base] = two("images", "-q", "--no-trunc", "base").stdout.split()
    two("tag", "base:1", "other")
    assert two("images", "--format", "{{.Repository}}:{{.Tag}}", "other").stdout == "other:latest\n"
    assert two("rmi", "base:1").stdout == "Untagged: base:1\n"
    assert two("rmi", base[7:19]).stdout == f"Untagged: other:latest\nDeleted: {base}\n"


def test_rmi_goes_on_after_what_it_cannot_remove(two: Run) -> None:
    result = two("rmi", "nope", "base:1", "nix", code=1)
    assert result.stdout.startswith("Untagged: base:1\nDeleted: sha256:")
    assert sum(line.startswith("layerstore: ") for line in result.stderr.splitlines()) == 2


def test_rmi_by_force_says_what_is_not_there_and_is_no_failure(two: Run) -> None:
    result = two("rmi", "-f", "nope", "base:1")
    assert result.stdout.startswith("Untagged: base:1\n")
    assert "no such image: nope" in result.stderr


def test_rmi_by_id_of_an_image_with_several_names_wants_force(two: Run) -> None:
    [tool] = set(ids(two, "-q", "tool"))
    refused = two("rmi", tool, code=1)
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) <= 2
    forced = two("rmi", "-f", tool).stdout.splitlines()
    assert forced[:2] == ["Untagged: tool:1", "Untagged: tool:2"]
    assert forced[2].startswith("Deleted: sha256:")


def test_inspect_is_docker_s_array(two: Run) -> None:
    image, other = json.loads(two("inspect", "tool:2", "base:1").stdout)
    assert image["RepoTags"] == ["tool:1", "tool:2"]
    assert image["Config"]["Env"] == ["A=1"]
    assert image["Architecture"] == "amd64"
    assert image["RootFS"] == {"Type": "layers", "Layers": [made.digest(BASE), made.digest(TOP)]}
    assert image["GraphDriver"]["Name"] == "overlay2"
    assert set(image["GraphDriver"]["Data"]) == {"LowerDir", "MergedDir", "UpperDir", "WorkDir"}
    assert set(other["GraphDriver"]["Data"]) == {"MergedDir", "UpperDir", "WorkDir"}
    assert (Path(image["GraphDriver"]["Data"]["UpperDir"]) / "etc/motd").read_text() == "hello\n"
    assert (Path(image["GraphDriver"]["Data"]["LowerDir"]) / "etc/hostname").read_text() == "base\n"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.RepoTags}} {{index .RepoTags 0}}", "[tool:1 tool:2] tool:1"),
        ("{{.GraphDriver.Name}} {{len .RootFS.Layers}}", "overlay2 2"),
        ('{{index .Config.Labels "io.x.kind"}} {{.Config.Labels.nope}}', "tool <no value>"),
        ("{{json .Config.Env}} {{.Config.Entrypoint}} {{.Config.Volumes}}", '["A=1"] [] map[]'),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "io.x.kind=tool;y=;"),
        ('{{join .Config.Cmd " "}}', "/bin/sh -c echo a long command line"),
        ("{{.Os}}/{{.Architecture}}", "linux/amd64"),
    ],
)
def test_inspect_by_template(two: Run, template: str, expected: str) -> None:
    assert two("inspect", "-f", template, "tool:1").stdout == f"{expected}\n"


def test_a_bottom_layer_has_no_lower_directory(two: Run) -> None:
    assert two("inspect", "-f", "{{.GraphDriver.Data.LowerDir}}", "base:1").stdout == "<no value>\n"


def test_a_field_that_only_docker_has_is_empty(two: Run) -> None:
    text = "{{.Variant}}{{if .Config.Healthcheck}}x{{end}}{{json .Config.Healthcheck}} {{.Config.ExposedPorts}}"
    assert two("inspect", "-f", text, "base:1").stdout == "null map[]\n"
    assert two("images", "--format", "{{.SharedSize}} {{.UniqueSize}}", "base").stdout == "N/A N/A\n"
    assert (
        two("info", "-f", "{{.IndexServerAddress}}{{.Swarm.LocalNodeState}}{{json .GenericResources}}").stdout
        == "null\n"
    )
    two("create", "--name", "web", "base:1")
    text = "{{json .State.Health}}{{.HostConfig.VolumeDriver}} {{.NetworkSettings.IPAddress}}{{.Config.Tty}}"
    assert two("inspect", "-f", text, "web").stdout == "null false\n"
    text = "{{.Mounts}}{{.Networks}}{{.LocalVolumes}}{{.HealthStatus}} {{.Platform}}"
    assert two("ps", "-a", "--format", text).stdout == "host0 <nil>\n"


def test_inspect_shows_what_it_found_beside_what_it_did_not(two: Run) -> None:
    result = two("inspect", "base:1", "nope", "-f", "{{.Os}}", code=1)
    assert result.stdout == "linux\n"
    assert result.stderr.startswith("layerstore: no such object: nope\n")
    assert two("inspect", "nope", code=1).stdout == "[]\n"
    assert two("inspect", "--type", "container", "base:1", code=1).stdout == "[]\n"
    assert json.loads(two("inspect", "--type", "image", "-f", "json", "base:1").stdout)[0]["RepoTags"] == ["base:1"]


def test_a_template_that_asks_for_nothing_that_is_there_fails(two: Run) -> None:
    result = two("inspect", "-f", "{{.Nope}}", "base:1", code=1)
    assert result.stderr.startswith(
        "layerstore: template: .Nope: can't evaluate field Nope in type image.InspectResponse; there are: Arch"
    )
