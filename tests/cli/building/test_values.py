"""What the values of `build`'s options mean."""

import click
import pytest

from layerstore.build.options import BuildOptions, Export, Secret, Ssh
from layerstore.cli.build import build_command
from layerstore.cli.building import build_options_of, values
from layerstore.cli.front import front


def test_build_args_without_a_value_take_the_shells_or_are_left_out():
    given = ["A=1", "B", "C=", "D", "A=x=y"]
    assert values.arguments(given, {"B": "own", "A": "not this"}) == {"B": "own", "C": "", "A": "x=y"}
    with pytest.raises(ValueError, match="names no variable"):
        values.arguments(["=x"], {})


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("id=a,src=/f", Secret("a", file="/f")),
        ("id=a,source=f", Secret("a", file="f")),
        ("src=/d/f", Secret("f", file="/d/f")),
        ("id=a", Secret("a")),
        ("id=a,env=V", Secret("a", env="V")),
        ("env=V", Secret("V", env="V")),
        ("type=env,id=V", Secret("V", env="V")),
        ("type=env,id=a,src=V", Secret("a", env="V")),
        ('"id=a","src=/f,g"', Secret("a", file="/f,g")),
    ],
)
def test_secrets(text, secret):
    assert values.secret(text) == secret


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id", "must be a key=value pair"),
        ("id=a,sorce=b", "unexpected key 'sorce'"),
        ("type=file", "missing id"),
        ("id=a,type=x", "unsupported secret type"),
        ("id=a,env=b,src=c", "in a file or in a variable"),
        ('"id=a', ""),
    ],
)
def test_what_is_no_secret_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason or r"\w"):
        values.secret(text)


def test_labels_may_be_empty_and_contexts_may_not():
    assert [values.label(text) for text in ("a=b=c", "a=", "a")] == [("a", "b=c"), ("a", ""), ("a", "")]
    assert values.named("a=b") == ("a", "b")
    for read, text in ((values.label, "=b"), (values.named, "a="), (values.named, "a"), (values.named, "=b")):
        with pytest.raises(ValueError, match=r"names nothing|must be NAME=VALUE"):
            read(text)


def test_annotations_are_a_manifest_s():
    assert values.annotation("org.a/b=c=d:e") == values.annotation("manifest:org.a/b=c=d:e") == ("org.a/b", "c=d:e")
    for text in ("a", "=b", "index:a=b", "manifest,index:a=b"):
        with pytest.raises(ValueError, match=r"must be KEY=VALUE|only a manifest"):
            values.annotation(text)


def test_ssh():
    assert values.ssh("default") == Ssh("default")
    assert values.ssh("deploy=/k1,/k2") == Ssh("deploy", ("/k1", "/k2"))
    for text in ("", "=x", "x="):
        with pytest.raises(ValueError, match=r"missing id|neither a socket nor a key"):
            values.ssh(text)


@pytest.mark.parametrize(
    ("text", "export"),
    [
        ("out", Export("local", "out")),
        ("-", Export("tar", "-")),
        ("type=oci,dest=f.tar", Export("oci", "f.tar")),
        ("type=oci", Export("oci", "-")),
        ("type=oci,dest=d,tar=false", Export("oci", "d/")),
        ("type=oci,dest=f.tar,tar=true", Export("oci", "f.tar")),
        ("type=docker", Export("image")),
        ("type=docker,dest=-", Export("docker", "-")),
        ("type=local,dest=d", Export("local", "d")),
        ("type=image,name=a:1,push=true", Export("image", None, ("a:1",), push=True)),
        ('type=image,"name=a,b"', Export("image", None, ("a", "b"))),
        ("type=registry", Export("image", push=True)),
        ("type=cacheonly", Export("cacheonly")),
        ("type=oci,dest=x,rewrite-timestamp=true", Export("oci", "x", rewrite_timestamp=True)),
    ],
)
def test_outputs(text, export):
    assert values.export(text) == export


@pytest.mark.parametrize(
    "text",
    [
        "",
        "type=zip",
        "dest=x",
        "type=local",
        "type=local,dest=-",
        "type=image,dest=x",
        "type=cacheonly,dest=x",
        "type=oci,push=perhaps",
        "type=oci,tar=false",
        "type=docker,dest=x,tar=false",
        "type=oci,dest=x,tar=perhaps",
    ],
)
def test_what_is_no_output_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        values.export(text)


@pytest.mark.parametrize(
    ("read", "taken", "refused"),
    [
        (values.call, ("build", "check", "lint"), ("outline", "targets", "check,format=json", "x", "")),
        (values.without, ("false", "0", "F"), ("true", "mode=max", "", "1")),
        (values.attestation, ("type=sbom,disabled=true",), ("type=sbom", "type=provenance,mode=max", "disabled=false")),
    ],
)
def test_what_is_not_done_can_be_asked_not_to_be(read, taken, refused):
    for text in taken:
        read(text)
    for text in refused:
        with pytest.raises(ValueError, match=r"build or check|no attestations are made here"):
            read(text)


def options(*words):
    """What a command line comes to."""
    # Within the front, as always: a command keeps the help option of the first context that it is given.
    above = front.make_context("layerstore", ["build"])
    with build_command.make_context("build", [*words, "."], parent=above) as context:
        given = dict(context.params)
        return build_options_of(given, {"FROM_SHELL": "1"})


def test_without_options_it_is_what_the_library_takes():
    assert options() == BuildOptions(cgroup_parent="")


def test_what_the_classic_builder_had_is_taken_and_does_nothing():
    classic = ["--rm", "--rm=false", "--force-rm", "--compress", "-m", "1g", "--memory=1g", "--memory-swap=-1"]
    classic += ["-c", "5", "--cpu-period=1", "--cpu-quota", "2", "--cpuset-cpus=0", "--cpuset-mems=0"]
    classic += ["--disable-content-trust=false", "--isolation=default", "--security-opt", "x", "--provenance=false"]
    assert options(*classic, "--sbom=0", "--attest", "type=sbom,disabled=true", "--call=build") == options()


def test_all_options_reach_the_build():
    found = options(
        *("-t", "a:1", "--tag=b", "-f", "D", "--target", "t", "--build-arg", "FROM_SHELL", "--build-arg=V=2"),
        *("--build-context", "c=dir", "--secret", "id=s,src=f", "--ssh", "default", "--platform", "linux/arm64"),
        *("--no-cache", "--no-cache-filter", "s", "--pull", "--cache-from", "x", "--cache-to", "type=inline"),
        *(
            "-o",
            "out",
            "--label",
            "k=v",
            "--squash",
            "--network",
            "none",
            "--allow",
            "network.host",
        ),
        *("--add-host", "h:1.2.3.4", "--shm-size", "1m", "--ulimit", "nofile=1:2", "--runtime", "runc", "--verify"),
        *("--on-failure", "checkpoint", "--cgroup-parent", "p", "--annotation", "manifest:a=b"),
    )
    assert found == BuildOptions(
        file="D",
        tags=("a:1", "b"),
        target="t",
        build_args={"FROM_SHELL": "1", "V": "2"},
        contexts={"c": "dir"},
        secrets=(Secret("s", file="f"),),
        ssh=(Ssh("default"),),
        platform="linux/arm64",
        no_cache=True,
        no_cache_filter=("s",),
        pull=True,
        cache_from=("x",),
        cache_to=("type=inline",),
        outputs=(Export("local", "out"),),
        labels={"k": "v"},
        annotations={"a": "b"},
        squash=True,
        network="none",
        allow=("network.host",),
        add_hosts=("h:1.2.3.4",),
        shm_size=1 << 20,
        ulimits=("nofile=1:2",),
        cgroup_parent="p",
        runtime="runc",
        verify=True,
        on_failure="checkpoint",
    )


def test_push_is_an_output_beside_the_others():
    assert options("--push").outputs == (Export(push=True),)
    assert options("--push", "-o", "out").outputs == (Export(push=True), Export("local", "out"))


@pytest.mark.parametrize(
    "words",
    [
        ("--ulimit", "x"),
        ("--add-host", "x"),
        ("--network", "x"),
        ("--on-failure", "cry"),
        ("--secret", "x"),
        ("-o", "a=b"),
    ],
)
def test_what_means_nothing_is_wrong_usage(words):
    with pytest.raises(click.UsageError, match="invalid argument"):
        options(*words)
