"""docker's options of `run`: what they mean, and what docker says of those that mean nothing.

The sentences and values are those that docker's client 28.2 and moby's daemon gave for the same words.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.cli.front import Command
from layerstore.cli.run_options import mounts, pairs, ports, run_options, run_options_of, values
from layerstore.errors import ConfigError
from layerstore.runtime.options import Device, HealthCheck, Isolation, MountOption, Port, RunOptions, Ulimit


def parsed(*words: str, own: dict[str, str] | None = None) -> RunOptions:
    """The options that `run WORDS… IMAGE sh` has."""
    found: list[RunOptions] = []

    @click.command("run", cls=Command, context_settings={"allow_interspersed_args": False, "help_option_names": []})
    @click.argument("image")
    @click.argument("args", nargs=-1)
    @run_options
    def command(image: str, args: tuple[str, ...], **options: Any) -> None:
        found.append(run_options_of(options, args, own or {}))

    with command.make_context("run", [*words, "debian", "sh"]) as ctx:
        command.invoke(ctx)
    return found[0]


def refused(*words: str) -> str:
    """What is said of options that are refused."""
    with pytest.raises((click.UsageError, ValueError)) as wrong:
        parsed(*words)
    return wrong.value.format_message() if isinstance(wrong.value, click.UsageError) else str(wrong.value)


def test_nothing_said_is_what_the_image_says() -> None:
    assert parsed() == RunOptions(args=("sh",))


def test_words_after_the_image_are_the_program_s() -> None:
    found: list[tuple[str, ...]] = []

    @click.command("run", cls=Command, context_settings={"allow_interspersed_args": False})
    @click.argument("image")
    @click.argument("args", nargs=-1)
    @run_options
    def command(image: str, args: tuple[str, ...], **options: Any) -> None:
        found.append((image, *args))

    with command.make_context("run", ["-it", "debian", "ls", "-la", "--", "--rm"]) as ctx:
        command.invoke(ctx)
    assert found == [("debian", "ls", "-la", "--", "--rm")]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("512m", 512 << 20),
        ("1.5k", 1536),
        ("1gb", 1 << 30),
        ("12pb", 12 << 50),
        ("10 m", 10 << 20),
        ("10MiB", 10 << 20),
        ("1e3", 1000),
        ("0", 0),
        ("7b", 7),
    ],
)
def test_sizes_are_binary(text: str, number: int) -> None:
    assert values.size(text) == number


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "invalid size: 'x'"),
        ("-1", "invalid size: '-1'"),
        ("1x", "invalid suffix: 'x'"),
        ("1kbb", "invalid suffix: 'kbb'"),
        ("0x10", "invalid size: '0x10'"),
        ("", "invalid size: ''"),
    ],
)
def test_what_is_no_size(text: str, words: str) -> None:
    assert refused("--memory", text) == f'invalid argument "{text}" for "-m, --memory" flag: {words}'


@given(st.integers(0, 1 << 60))
def test_a_plain_number_is_bytes(number: int) -> None:
    # As in Go, a size is a float before it is whole.
    assert values.size(str(number)) == int(float(number))


@given(st.text(max_size=12))
def test_any_text_is_a_value_or_refused_in_words(text: str) -> None:
    readers: list[Callable[[str], object]] = [
        values.size, values.swap, values.whole, values.processors, values.duration, values.variable, values.label,
        values.sysctl, values.ulimit, values.device, values.host, values.nameserver, values.search_domain,
        values.security, values.stream, values.isolation, values.signal_number, values.restart, values.pull,
        mounts.volume, mounts.mount, mounts.tmpfs, ports.ports,
    ]  # fmt: skip
    for read in readers:
        try:
            read(text)
        except ValueError as wrong:
            words = str(wrong)
        else:
            words = "taken"
        assert words


def test_limits_of_resources() -> None:
    found = parsed(
        "-m", "512m", "--memory-swap=-1", "--memory-reservation", "100m", "--cpus", "0.5", "-c", "100",
        "--cpuset-cpus", "0", "--pids-limit", "-1", "--shm-size", "1g", "--oom-score-adj", "-5",
    )  # fmt: skip
    assert found == RunOptions(
        args=("sh",),
        memory=512 << 20,
        memory_swap=-1,
        memory_reservation=100 << 20,
        cpus=0.5,
        cpu_shares=100,
        cpuset_cpus="0",
        pids_limit=-1,
        shm_size=1 << 30,
        oom_score_adj=-5,
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--cpus", "x"), 'invalid argument "x" for "--cpus" flag: failed to parse x as a rational number'),
        (("--cpus", "0.0000000001"), 'invalid argument "0.0000000001" for "--cpus" flag: value is too precise'),
        (
            ("--cpus", "-1"),
            f"Range of CPUs is from 0.01 to {os.cpu_count()}.00, as there are only {os.cpu_count()} CPUs",
        ),
        (("-m", "1k"), "Minimum memory limit allowed is 6MB"),
        (("--memory-swap", "1m"), "You should always set the Memory limit when using Memoryswap limit, see usage"),
        (("-m", "9m", "--memory-swap", "8m"), "Minimum memoryswap limit should be larger than memory limit, see usage"),
        (
            ("-m", "9m", "--memory-reservation", "10m"),
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (("--oom-score-adj", "2000"), "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        (("--pids-limit", "x"), 'invalid argument "x" for "--pids-limit" flag: \'x\' is not a whole number'),
        (("-e", "=x"), 'invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x'),
        (("-l", ""), 'invalid argument "" for "-l, --label" flag: invalid label \'\': empty name'),
        (("--sysctl", "a=1"), 'invalid argument "a=1" for "--sysctl" flag: sysctl \'a=1\' is not allowed'),
        (("--sysctl", "net.x"), 'invalid argument "net.x" for "--sysctl" flag: sysctl \'net.x\' is not allowed'),
        (("--ulimit", "x=1"), 'invalid argument "x=1" for "--ulimit" flag: invalid ulimit type: x'),
        (("--ulimit", "nofile"), 'invalid argument "nofile" for "--ulimit" flag: invalid ulimit argument: nofile'),
        (
            ("--ulimit", "nofile=3:2"),
            'invalid argument "nofile=3:2" for "--ulimit" flag: '
            "ulimit soft limit must be less than or equal to hard limit: 3 > 2",
        ),
        (
            ("--ulimit", "nofile=-1:5"),
            'invalid argument "nofile=-1:5" for "--ulimit" flag: '
            "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: 5",
        ),
        (
            ("--ulimit", "nofile=1:2:3"),
            'invalid argument "nofile=1:2:3" for "--ulimit" flag: '
            "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`",
        ),
        (("--device", "null"), 'invalid argument "null" for "--device" flag: null is not an absolute path'),
        (("--device", "/a:b"), 'invalid argument "/a:b" for "--device" flag: b is not an absolute path'),
        (("--device", "/a:/b:zz"), 'invalid argument "/a:/b:zz" for "--device" flag: bad mode specified: zz'),
        (("--device", ""), 'invalid argument "" for "--device" flag: bad format for path: '),
        (("--health-interval", "3"), 'time: missing unit in duration "3"'),
        (("--health-interval", "3y"), 'time: invalid duration "3y"'),
        (("--health-interval", "-1s"), "--health-interval cannot be negative"),
        (("--health-retries", "-1"), "--health-retries cannot be negative"),
        (("--no-healthcheck", "--health-cmd", "x"), "--no-healthcheck conflicts with --health-* options"),
        (("--security-opt", "x"), 'invalid argument "x" for "--security-opt" flag: invalid --security-opt: "x"'),
        (("--add-host", "a"), 'invalid argument "a" for "--add-host" flag: bad format for add-host: "a"'),
        (("--add-host", "a:x"), 'invalid argument "a:x" for "--add-host" flag: invalid IP address in add-host: "x"'),
        (("--dns", "x"), 'invalid argument "x" for "--dns" flag: IP address is not correctly formatted: x'),
        (("--dns-search", "x y"), 'invalid argument "x y" for "--dns-search" flag: x y is not a valid domain'),
        (("--pid", "foo"), 'invalid argument "foo" for "--pid" flag: invalid PID mode'),
        (("--pid", "container:"), 'invalid argument "container:" for "--pid" flag: invalid PID mode'),
        (("--uts", "container:x"), 'invalid argument "container:x" for "--uts" flag: invalid UTS mode'),
        (("--userns", "foo"), 'invalid argument "foo" for "--userns" flag: invalid USER mode'),
        (("-a", "x"), 'invalid argument "x" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR'),
        (("--pull", "x"), 'invalid pull option: \'x\': must be one of "always", "missing" or "never"'),
        (("-w", "rel"), "the working directory 'rel' is invalid, it needs to be an absolute path"),
        (("--stop-signal", "foo"), 'invalid argument "foo" for "--stop-signal" flag: invalid signal: foo'),
        (("--restart", "always"), "restart policy always needs a daemon"),
        (("--restart", "on-failure:x"), "invalid restart policy format: maximum retry count must be an integer"),
        (("--restart", "foo"), "invalid restart policy: unknown policy 'foo'; use 'no'"),
        (("--restart", "no:3"), "invalid restart policy: maximum retry count can only be used with 'on-failure'"),
        (("--isolation", "foo"), "isolation is one of none, process and full, not foo"),
        (("--isolation", "process", "-m", "9m"), "conflicting options: --memory needs --isolation full"),
        (("--isolation", "none", "--device", "/dev/null"), "conflicting options: --device needs --isolation full"),
        (("--network", "container:x", "-h", "y"), "conflicting options: hostname and the network mode"),
        (("--log-driver", "syslog"), "log driver syslog is not there; there are: json-file, k8s-file, none"),
        (("--nope",), "unknown flag: --nope"),
        (("-ik",), "unknown shorthand flag: 'k' in -k"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(*words)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("/anon", MountOption("volume", "/anon")),
        ("vol:/x", MountOption("volume", "/x", "vol")),
        ("vol:/x/:nocopy", MountOption("volume", "/x", "vol", no_copy=True)),
        ("/a:/b", MountOption("bind", "/b", "/a", make_source=True)),
        ("/a/:/b/../c:ro,z,rslave", MountOption("bind", "/c", "/a", True, make_source=True, propagation="rslave")),
        ("./a:/b", MountOption("bind", "/b", "/here/a", make_source=True)),
        (".:/b:U", MountOption("bind", "/b", "/here", chown=True, make_source=True)),
        ("a:/b:rw", MountOption("volume", "/b", "a")),
    ],
)
def test_volumes(text: str, option: MountOption) -> None:
    assert mounts.volume(text, here="/here") == option


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid empty volume spec"),
        ("/a:/b:/c:ro", "invalid spec: /a:/b:/c:ro: too many colons"),
        (":/b", "invalid volume specification: ':/b'"),
        ("/a:ro", "invalid volume specification: '/a:ro'"),
        ("/a:/b:zz", "invalid mode: zz"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        (
            "/x:a",
            "invalid volume specification: '/x:a': invalid mount config for type \"bind\": "
            "invalid mount path: 'a' mount path must be absolute",
        ),
        (
            "/x:/",
            "invalid volume specification: '/x:/': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'",
        ),
    ],
)
def test_what_is_no_volume(text: str, words: str) -> None:
    assert refused("-v", text) == f'invalid argument "{text}" for "-v, --volume" flag: {words}'


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("type=bind,src=/a,dst=/b,readonly", MountOption("bind", "/b", "/a", True)),
        ("type=bind,source=./a,target=/b,ro=false", MountOption("bind", "/b", "/here/a")),
        ("type=bind,src=/a,dst=/b,bind-propagation=rshared", MountOption("bind", "/b", "/a", propagation="rshared")),
        ("type=bind,src=/a,dst=/b,bind-recursive=disabled", MountOption("bind", "/b", "/a", recursive=False)),
        ("dst=/x", MountOption("volume", "/x")),
        ('type=volume,"src=a,b",destination=/x', MountOption("volume", "/x", "a,b")),
        ("src=v,dst=/x,volume-nocopy=true", MountOption("volume", "/x", "v", no_copy=True)),
        ("src=v,dst=/x,volume-subpath=s", MountOption("volume", "/x", "v", subpath="s")),
        ("type=tmpfs,dst=/t,tmpfs-size=1m", MountOption("tmpfs", "/t", options=("size=1048576",))),
        ("type=tmpfs,dst=/t,tmpfs-mode=1777", MountOption("tmpfs", "/t", options=("mode=1777",))),
        ("type=image,src=debian,dst=/d,image-subpath=etc", MountOption("image", "/d", "debian", subpath="etc")),
        ("TYPE=Volume,src=v,dst=/x,U", MountOption("volume", "/x", "v", chown=True)),
    ],
)
def test_mounts(text: str, option: MountOption) -> None:
    assert mounts.mount(text, here="/here") == option


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "value is empty"),
        ("src=/a", "target is required"),
        ("type=foo,dst=/a", 'invalid mount config for type "foo": mount type unknown'),
        ("foo,dst=/a", "invalid field 'foo' must be a key=value pair"),
        ("foo=1,dst=/a", "unexpected key 'foo' in 'foo=1'"),
        ("type=bind,dst=/a", 'invalid mount config for type "bind": field Source must not be empty'),
        ("type=bind,src=a,dst=/b", "invalid mount path: 'a' mount path must be absolute"),
        ("type=bind,src=/a,dst=/b,readonly=maybe", "invalid value for readonly: maybe"),
        ("type=bind,src=/a,dst=/b,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
        ("type=volume,src=a,dst=/b,tmpfs-size=1", "cannot mix 'tmpfs-*' options with mount type 'volume'"),
        ("type=tmpfs,dst=/b,bind-propagation=rshared", "cannot mix 'bind-*' options with mount type 'tmpfs'"),
        ("type=tmpfs,dst=/b,src=/a", 'invalid mount config for type "tmpfs": field Source must not be specified'),
        ("type=tmpfs,dst=/b,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
        ("type=tmpfs,dst=/b,tmpfs-size=xx", "invalid value for tmpfs-size: xx"),
        ("type=volume,dst=/b,volume-driver=nfs", "there is no volume driver nfs, but the driver local"),
        (
            "type=bind,src=/a,dst=/b,bind-recursive=foo",
            'invalid value for bind-recursive: foo (must be "enabled", "disabled", "writable", or "readonly")',
        ),
    ],
)
def test_what_is_no_mount(text: str, words: str) -> None:
    sentence = refused("--mount", text)
    assert sentence.startswith(f'invalid argument "{text}" for "--mount" flag: ')
    assert words in sentence


def test_a_tmpfs_has_options_of_mount() -> None:
    assert parsed("--tmpfs", "/a", "--tmpfs=/b:size=1m,noexec").mounts == (
        MountOption("tmpfs", "/a"),
        MountOption("tmpfs", "/b", options=("size=1m", "noexec")),
    )
    assert 'invalid tmpfs option ["zz"]' in refused("--tmpfs", "/a:zz")
    assert "invalid mount path: 'a' mount path must be absolute" in refused("--tmpfs", "a")


def test_each_place_has_one_mount_and_anonymous_volumes_give_way() -> None:
    found = parsed("-v", "/x", "-v", "/y", "-v", "/a:/x", "--tmpfs", "/t").mounts
    assert [(option.kind, option.target) for option in found] == [("bind", "/x"), ("tmpfs", "/t"), ("volume", "/y")]
    assert refused("-v", "/a:/x", "--tmpfs", "/x/") == "duplicate mount point: /x"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("80", (Port(80),)),
        ("8080:80/udp", (Port(80, 8080, "", "udp"),)),
        ("127.0.0.1::9", (Port(9, None, "127.0.0.1"),)),
        ("[::1]:80:81", (Port(81, 80, "::1"),)),
        ("::80", (Port(80),)),
        ("1-2:3-4/TCP", (Port(3, 1), Port(4, 2))),
    ],
)
def test_ports(text: str, found: tuple[Port, ...]) -> None:
    assert parsed("-p", text).ports == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no port specified: <empty>"),
        ("x", "invalid containerPort: x"),
        ("99999", "invalid containerPort: 99999"),
        ("0", "invalid containerPort: 0"),
        ("x:80", "invalid hostPort: x"),
        ("80:90-92", "invalid ranges specified for container and host Ports: 90-92 and 80"),
        ("80/foo", "invalid proto: foo"),
        ("host:80:80", "invalid IP address: host"),
        ("1.2.3.4.5:80:80", "invalid IP address: 1.2.3.4.5"),
    ],
)
def test_what_is_no_port(text: str, words: str) -> None:
    assert refused("-p", text) == f'invalid argument "{text}" for "-p, --publish" flag: {words}'


def test_environment_of_files_and_words(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbf# comment\r\nA=1\r\n  B=2 \nC\nHOME\n\n")
    found = parsed(
        "--env-file", str(file), "-e", "A=3", "-e", "D", "-e", "HOST", "-e", "E=", own={"HOME": "/root", "HOST": "here"}
    )
    assert found.env == ("B=2 ", "HOME=/root", "A=3", "D", "HOST=here", "E=")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"A B=1\n", "variable 'A B' contains whitespaces"),
        (b"ok=1\n\xff=2\n", "invalid utf8 bytes at line 2: [255, 61, 50]"),
        (b"=1\n", "no variable name on line '=1'"),
    ],
)
def test_what_no_file_of_variables_may_have(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "env"
    file.write_bytes(data)
    with pytest.raises(ConfigError) as wrong:
        parsed("--env-file", str(file))
    assert wrong.value.message == f"invalid env file ({file}): {words}"
    with pytest.raises(ConfigError, match="open label file /nowhere: no such file or directory"):
        parsed("--label-file", "/nowhere")


def test_labels_of_files_and_words(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("# x\nl1\nl2=v=w\nl3=old\n")
    found = parsed("--label-file", str(file), "-l", "l3=new", "-l", "l4", own={"l1": "not this"})
    assert found.labels == {"l1": "", "l2": "v=w", "l3": "new", "l4": ""}


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(["", "=1", "=2"])), max_size=8))
def test_the_last_word_on_a_variable_counts(words: list[tuple[str, str]]) -> None:
    found = pairs.environment([], [name + value for name, value in words], {"A": "own"})
    last = {name: name + (value or ("=own" if name == "A" else "")) for name, value in words}
    assert {text.partition("=")[0]: text for text in found} == last


def test_health_checks() -> None:
    found = parsed(
        "--health-cmd", "x y", "--health-interval", "3s", "--health-retries=2", "--health-timeout", "1m30s",
        "--health-start-period", "500ms",
    )  # fmt: skip
    assert found.health == HealthCheck(test=("CMD-SHELL", "x y"), interval=3, timeout=90, start_period=0.5, retries=2)
    assert parsed("--no-healthcheck").health == HealthCheck(disabled=True)
    assert parsed("--health-interval=1h").health == HealthCheck(interval=3600)
    assert parsed("--health-cmd=").health is None


def test_entrypoints() -> None:
    assert parsed("--entrypoint", "a b").entrypoint == ("a b",)
    assert parsed("--entrypoint=").entrypoint == ()


def test_all_the_rest() -> None:
    found = parsed(
        "-it", "--rm", "--init", "--privileged", "--read-only", "-P", "-u", "x:y", "-w", "/w", "-h", "host",
        "--domainname=d", "--group-add=g", "--cap-add=net_admin", "--cap-add=CAP_CHOWN", "--cap-drop=all",
        "--security-opt", "no-new-privileges", "--security-opt=label:disable", "--device", "/dev/null:/dev/x:r",
        "--device=/dev/fuse:rw", "--ulimit", "nofile=1:2", "--ulimit=nproc=5", "--ulimit=core=-1",
        "--sysctl=net.ipv4.ip_forward=1", "--annotation=a=b", "--volumes-from=c:ro", "--network=none",
        "--add-host=a:1.2.3.4", "--add-host=b=::1", "--add-host=c:host-gateway", "--dns=1.1.1.1", "--dns-search=.",
        "--dns-option=ndots:1", "--pid=host", "--ipc=none", "--uts=host", "--stop-signal=sigusr1", "--stop-timeout=3",
        "--isolation=default", "--runtime=crun", "--log-driver=none", "--cgroup-parent=/x", "--restart=no",
    )  # fmt: skip
    assert found == RunOptions(
        args=("sh",),
        tty=True,
        interactive=True,
        remove=True,
        init=True,
        privileged=True,
        read_only=True,
        publish_all=True,
        user="x:y",
        working_dir="/w",
        hostname="host",
        domainname="d",
        group_add=("g",),
        cap_add=("CAP_NET_ADMIN", "CAP_CHOWN"),
        cap_drop=("ALL",),
        security_opt=("no-new-privileges", "label=disable"),
        devices=(Device("/dev/null", "/dev/x", "r"), Device("/dev/fuse", "/dev/fuse", "rw")),
        ulimits=(Ulimit("nofile", 1, 2), Ulimit("nproc", 5, 5), Ulimit("core", -1, -1)),
        sysctls={"net.ipv4.ip_forward": "1"},
        annotations={"a": "b"},
        volumes_from=("c:ro",),
        network="none",
        add_hosts=("a:1.2.3.4", "b:::1", "c:host-gateway"),
        dns=("1.1.1.1",),
        dns_search=(".",),
        dns_options=("ndots:1",),
        pid="host",
        ipc="none",
        uts="host",
        stop_signal="sigusr1",
        stop_timeout=3,
        isolation=Isolation.FULL,
        runtime="crun",
        log_driver="none",
        cgroup_parent="/x",
    )


@pytest.mark.parametrize(
    ("text", "number"),
    [("9", 9), ("TERM", 15), ("sigusr1", signal.SIGUSR1), ("RTMIN+3", signal.SIGRTMIN + 3), ("rtmax-1", 63)],
)
def test_signals_by_name_and_number(text: str, number: int) -> None:
    assert values.signal_number(text) == number


@pytest.mark.parametrize("text", ["0", "99", "FOO", "", "RTMIN+99", "-9", "٣"])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(ValueError, match=f"^invalid signal: {text.replace('+', '.')}$"):
        values.signal_number(text)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 999))
def test_durations_add_up(hours: int, seconds: int, thousandths: int) -> None:
    assert values.duration(f"{hours}h{seconds}s{thousandths}ms") == pytest.approx(
        hours * 3600 + seconds + thousandths / 1000
    )
