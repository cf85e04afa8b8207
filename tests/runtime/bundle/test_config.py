"""Every config.json is valid by the runtime spec's schema, and says what docker's would."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from attrs import evolve
from hypothesis import Phase, given
from hypothesis import strategies as st

import layerstore
from layerstore.kernel.files.descriptors import opened
from layerstore.runtime import bundle
from layerstore.runtime.health import check_of
from layerstore.runtime.options import Device, MountOption, RunOptions, Ulimit
from support.properties import by_day

from .conftest import HOST, VALIDATOR, check

IMAGE = {
    "architecture": "amd64",
    "config": {
        "Cmd": ["serve", "--all"],
        "Entrypoint": ["/bin/tool"],
        "Env": ["PATH=/bin", "A=1", "B=2"],
        "User": "web",
        "WorkingDir": "srv/web",
        "StopSignal": "SIGQUIT",
    },
}

names = st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)
text = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
variables = st.builds("{}={}".format, st.from_regex(r"[A-Z_]{1,6}", fullmatch=True), text)
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def several(strategy: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, min_size=least, max_size=3).map(tuple)


tmpfs = st.builds(
    MountOption,
    kind=st.just("tmpfs"),
    target=paths,
    read_only=st.booleans(),
    options=several(st.sampled_from(["size=64k", "mode=700", "exec", "ro", "nosuid", "uid=3", "size=1m"])),
)
binds = st.lists(
    st.builds(
        bundle.Bind,
        source=paths,
        target=paths,
        read_only=st.booleans(),
        recursive=st.booleans(),
        propagation=st.sampled_from(["", "private", "rslave", "shared", "rshared"]),
    ),
    max_size=3,
)
sound = st.builds(
    RunOptions,
    args=several(text, 1),
    entrypoint=maybe(several(text)),
    env=several(variables | names),
    working_dir=maybe(paths),
    user=maybe(st.sampled_from(["", "root", "web", "0", "33:more", "web:web", ":", "7:7"])),
    group_add=several(st.sampled_from(["more", "99"])),
    domainname=maybe(names),
    tty=st.booleans(),
    read_only=st.booleans(),
    mounts=several(tmpfs),
    ipc=st.sampled_from(["", "none", "private"]),
    cap_drop=several(st.sampled_from(["ALL", "CHOWN", "net_raw"])),
    security_opt=several(
        st.sampled_from(
            ["no-new-privileges", "seccomp=unconfined", "seccomp=builtin", "systempaths=unconfined", "label=disable"]
        )
    ),
    privileged=st.booleans(),
    devices=several(
        st.builds(Device, st.sampled_from(["/dev/fuse", "/dev/snd"]), paths, st.sampled_from(["r", "rwm"]))
    ),
    ulimits=several(
        st.builds(
            Ulimit, st.sampled_from(["nofile", "NPROC"]), st.integers(0, 9), st.integers(9, 2**63 - 1) | st.just(-1)
        )
    ),
    memory=maybe(st.integers(8 << 20, 2**40)),
    memory_reservation=maybe(st.integers(6 << 20, 8 << 20)),
    cpus=maybe(st.floats(0.01, 4)),
    cpu_shares=maybe(st.integers(0, 2**18)),
    cpuset_cpus=st.sampled_from(["", "0", "0-2,3"]),
    cpuset_mems=st.sampled_from(["", "0"]),
    pids_limit=maybe(st.integers(-1, 2**22)),
    shm_size=maybe(st.integers(1, 2**40)),
    oom_score_adj=maybe(st.integers(-1000, 1000)),
    cgroup_parent=st.sampled_from(["", "/there", "/there/"]),
    stop_signal=maybe(names),
    annotations=st.dictionaries(names, text, max_size=2),
)
odd: st.SearchStrategy[dict[str, Any]] = st.one_of(
    *(
        st.fixed_dictionaries({name: strategy})
        for name, strategy in {
            "args": st.just(()),
            "working_dir": names,
            "user": text | st.sampled_from(["nobody", "-1", "9999999999", "web:none", "0:-7"]),
            "group_add": several(names),
            "hostname": names,
            "init": st.just(True),
            "mounts": several(st.builds(MountOption, kind=st.just("tmpfs"), target=text, options=several(text))),
            "cap_add": several(st.sampled_from(["ALL", "CAP_SYS_ADMIN", "net_admin", "cap_bpf", "NONE", ""])),
            "security_opt": several(text | st.builds("{}={}".format, st.sampled_from(["seccomp", "apparmor"]), text)),
            "devices": several(st.builds(Device, text, text, text)),
            "ulimits": several(st.builds(Ulimit, names, st.integers(), st.integers())),
            "sysctls": st.dictionaries(
                st.sampled_from(["net.ipv4.ip_forward", "kernel.shmmax", "fs.mqueue.msg_max"]) | names,
                names,
                max_size=2,
            ),
            "memory": st.integers(),
            "memory_swap": st.integers(-1, 2**41),
            "cpus": st.floats(),
            "cpu_shares": st.integers(),
            "cpuset_cpus": text,
            "pids_limit": st.integers(),
            "shm_size": st.integers(),
            "oom_score_adj": st.integers(),
        }.items()
    )
)
hosts = st.builds(
    evolve,
    st.just(HOST),
    architecture=st.sampled_from(["x86_64", "aarch64", "s390x", "riscv64", "sparc"]),
    cgroup=st.sampled_from([0, 1, 2]),
    last_capability=st.sampled_from([37, 40]),
    bounding=st.sampled_from([-1, 0xA80425FB, 0]),
    seccomp=st.booleans(),
    swap_limits=st.booleans(),
    init=st.sampled_from([None, "/usr/bin/tini"]),
)
networks = st.sampled_from(
    [bundle.Network(), bundle.Network(namespace=""), bundle.Network(namespace="/proc/7/ns/net", address="10.0.2.100")]
)
shared = st.dictionaries(st.sampled_from(["pid", "ipc", "uts"]), st.sampled_from(["", "/proc/7/ns/x"]), max_size=2)
files = st.sampled_from([None, "/run/there"])
images = st.sampled_from([{}, IMAGE])

QUICK = (Phase.explicit, Phase.generate)
"""A config that is wrong is told as it is: options have so many parts that shrinking takes minutes."""


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bundle.Place]:
    root = tmp_path_factory.mktemp("root")
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:Web:/srv/web:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nmore:x:55:web\nweb:x:44:\n")
    with opened(root, os.O_PATH | os.O_DIRECTORY) as tree:
        yield bundle.Place(id="ab" * 32, root=str(root), tree=tree)


@by_day(50, phases=QUICK)
@given(sound, hosts, networks, shared, binds, files, images)
def test_every_config_is_valid(
    lasting: bundle.Place,
    options: RunOptions,
    host: bundle.HostFacts,
    network: bundle.Network,
    namespaces: dict[str, str],
    binds: list[bundle.Bind],
    files: str | None,
    image: Mapping[str, Any],
) -> None:
    place = evolve(lasting, network=network, namespaces=namespaces, files=files)
    config = bundle.make(image, options, evolve(host, seccomp=True), place, binds)
    check(config)
    targets = [mount["destination"] for mount in config["mounts"]]
    assert len(targets) == len(set(targets))
    for index, target in enumerate(targets):  # nothing is mounted over what is in it
        assert not any(earlier.startswith(f"{target}/") for earlier in targets[:index])
    assert config == bundle.make(image, options, evolve(host, seccomp=True), place, binds)


@by_day(50, phases=QUICK)
@given(sound, odd, hosts, networks)
def test_what_is_odd_is_valid_or_refused_in_words(
    lasting: bundle.Place, options: RunOptions, odd: dict[str, Any], host: bundle.HostFacts, network: bundle.Network
) -> None:
    config, refusal = None, None
    try:
        config = bundle.make(IMAGE, evolve(options, **odd), host, evolve(lasting, network=network))
    except layerstore.LayerstoreError as error:
        refusal = error
    if config is not None:
        check(config)
    else:
        assert refusal is not None
        assert refusal.message
        assert refusal.remedy


def test_the_schema_refuses_what_is_wrong(place: bundle.Place) -> None:
    config = bundle.make(IMAGE, RunOptions(), HOST, place)
    for wrong in (
        {"linux": config["linux"] | {"maskedPath": []}},
        {"process": config["process"] | {"user": {"uid": -1}}},
        {"mounts": [{"source": "x"}]},
    ):
        assert not VALIDATOR.is_valid(json.loads(json.dumps(config | wrong)))


def make(place: bundle.Place, image: Mapping[str, Any] = IMAGE, **said: Any) -> dict[str, Any]:
    """The config.json of these options."""
    return bundle.make(image, RunOptions(**said), HOST, place)


def program(place: bundle.Place, image: Mapping[str, Any] = IMAGE, **said: Any) -> dict[str, Any]:
    found: dict[str, Any] = make(place, image, **said)["process"]
    return found


def test_an_image_says_what_is_run(place: bundle.Place) -> None:
    process = program(place)
    assert process["args"] == ["/bin/tool", "serve", "--all"]
    assert process["cwd"] == "/srv/web"
    assert process["user"] == {"uid": 33, "gid": 44, "additionalGids": [44, 55, 56], "umask": 0o022}
    assert process["env"] == ["PATH=/bin", "HOSTNAME=there", "HOME=/srv/web", "A=1", "B=2"]
    assert make(place)["annotations"] == {"org.opencontainers.image.stopSignal": "SIGQUIT"}


@pytest.mark.parametrize(
    ("said", "args"),
    [
        ({"args": ("x",)}, ["/bin/tool", "x"]),
        ({"entrypoint": ("sh", "-c")}, ["sh", "-c"]),
        ({"entrypoint": (), "args": ("ls", "-l")}, ["ls", "-l"]),
        ({"init": True}, ["/dev/init", "--", "/bin/tool", "serve", "--all"]),
    ],
)
def test_options_say_what_is_run_instead(place: bundle.Place, said: dict[str, Any], args: list[str]) -> None:
    assert program(place, **said)["args"] == args


@pytest.mark.parametrize("said", [{"entrypoint": ()}, {"entrypoint": ("",)}])
def test_a_container_has_to_run_something(place: bundle.Place, said: dict[str, Any]) -> None:
    with pytest.raises(layerstore.ConfigError, match="no command specified"):
        program(place, **said)
    with pytest.raises(layerstore.ConfigError, match="no command specified"):
        program(place, image={})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("User", "WorkingDir", "StopSignal") for value in (5, [], {"a": 1}, "a\0b")),
        *(("Env", value) for value in (5, "A=b", {"A": "b"}, [5], [None], ["A=\0"])),
        *((name, value) for name in ("Cmd", "Entrypoint", "Shell") for value in (5, {"a": 1}, [5], [None], ["\0"])),
        *((name, value) for name in ("Volumes", "ExposedPorts", "Labels") for value in (5, ["/v"], "x")),
        ("Volumes", {"/a\0": {}}),
        ("Labels", {"a": 5}),
        *(("Healthcheck", value) for value in (5, "x", ["CMD", "true"], {"Test": 5}, {"Test": ["CMD", 5]})),
        *(("Healthcheck", {"Test": ["CMD", "true"], "Retries": value}) for value in ("x", [1], -1, True, 1 << 64)),
        *(("Healthcheck", {"Test": ["CMD", "true"], "Interval": value}) for value in ("x", -5, 1, 1.5, 1 << 64)),
    ],
)
def test_a_value_of_a_wrong_type_in_an_image_is_refused_by_its_name(
    place: bundle.Place, name: str, value: object
) -> None:
    image = {"config": {"Cmd": ["x"], name: value}}
    with pytest.raises(layerstore.ConfigError, match=rf"wrong value for '{name}") as refusal:
        program(place, image)
    assert refusal.value.remedy
    with pytest.raises(layerstore.ConfigError, match=rf"wrong value for '{name}"):
        check_of(image, RunOptions())


@pytest.mark.parametrize("image", [{}, {"config": None}, {"config": {"Env": None, "Cmd": "x", "Volumes": None}}])
def test_what_an_image_leaves_out_is_right(place: bundle.Place, image: dict[str, Any]) -> None:
    assert program(place, image, args=("y",))["args"] == ["y"]


def test_variables_of_the_options_are_over_those_of_the_image(place: bundle.Place) -> None:
    env = program(place, env=("A=", "B", "HOME=/h", "C=x=y"), tty=True)["env"]
    assert env == ["PATH=/bin", "HOSTNAME=there", "TERM=xterm", "HOME=/h", "A=", "C=x=y"]
    assert program(place, image={}, args=("x",))["env"][0].startswith("PATH=/usr/local/sbin:")


def test_root_has_dockers_capabilities_and_others_none_until_exec(place: bundle.Place) -> None:
    sets = program(place, user="0")["capabilities"]
    assert set(sets) == {"bounding", "effective", "permitted"}
    assert len(sets["bounding"]) == 14
    assert sets["bounding"] == sets["effective"] == sets["permitted"]
    assert program(place)["capabilities"] == {"bounding": sets["bounding"]}


@pytest.mark.parametrize(
    ("add", "drop", "count"),
    [
        (("SYS_ADMIN",), (), 15),
        (("cap_sys_admin", "CHOWN"), ("chown",), 15),
        ((), ("all",), 0),
        (("NET_RAW",), ("ALL",), 1),
        (("ALL",), (), 41),
        (("ALL",), ("MKNOD",), 40),
    ],
)
def test_capabilities_are_added_and_dropped(
    place: bundle.Place, add: tuple[str, ...], drop: tuple[str, ...], count: int
) -> None:
    assert len(program(place, cap_add=add, cap_drop=drop)["capabilities"]["bounding"]) == count


def test_an_unknown_capability_is_refused(place: bundle.Place) -> None:
    with pytest.raises(layerstore.ConfigError, match='invalid CapDrop: unknown capability: "CAP_FLY"'):
        program(place, cap_drop=("fly",))


def test_privileged_is_all_of_it(place: bundle.Place) -> None:
    config = make(place, privileged=True)
    assert len(config["process"]["capabilities"]["bounding"]) == 41
    assert not {"seccomp", "maskedPaths", "readonlyPaths"} & set(config["linux"])
    assert [node["path"] for node in config["linux"]["devices"]] == ["/dev/fuse", "/dev/sda"]
    assert config["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert all("ro" not in mount["options"] for mount in config["mounts"])


def test_a_device_is_made_and_allowed(place: bundle.Place) -> None:
    linux = make(place, devices=(Device("/dev/snd", "/dev/audio", "r"),))["linux"]
    assert [node["path"] for node in linux["devices"]] == ["/dev/audio/seq", "/dev/audio/timer"]
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert linux["resources"]["devices"][-1] == {"allow": True, "type": "c", "major": 116, "minor": 33, "access": "r"}
    with pytest.raises(layerstore.NotFound, match=r'gathering device information.*"/dev/none"'):
        make(place, devices=(Device("/dev/none", "/dev/none"),))


def test_mounts_of_the_user_take_the_place_of_the_usual_ones(place: bundle.Place) -> None:
    binds = [
        bundle.Bind("/a", "/data/inner/"),
        bundle.Bind("/b", "/data", read_only=True),
        bundle.Bind("/c", "/etc/hosts"),
        bundle.Bind("/d", "/dev/shm", propagation="rslave"),
    ]
    options = RunOptions(mounts=(MountOption("tmpfs", "/tmp", options=("size=1m", "exec")),), init=True)
    config = bundle.make(IMAGE, options, HOST, evolve(place, files="/run/there"), binds)
    by_target = {mount["destination"]: mount for mount in config["mounts"]}
    assert len(by_target) == len(config["mounts"])
    assert list(by_target)[-8:] == [
        "/data",
        "/tmp",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/data/inner",
        "/etc/hosts",
        "/dev/shm",
        "/dev/init",
    ]
    assert by_target["/data"]["options"] == ["rbind", "rprivate", "ro"]
    assert by_target["/tmp"]["options"] == ["nosuid", "nodev", "rw", "size=1m", "exec"]
    assert by_target["/etc/hosts"]["source"] == "/c"
    assert by_target["/etc/hostname"]["source"] == "/run/there/hostname"
    assert config["linux"]["rootfsPropagation"] == "slave"


def test_a_root_that_is_read_only_has_files_in_etc_that_are(place: bundle.Place) -> None:
    for read_only, access in ((True, "ro"), (False, "rw")):
        config = bundle.make(IMAGE, RunOptions(read_only=read_only), HOST, evolve(place, files="/run/there"))
        etc = {mount["destination"]: mount["options"] for mount in config["mounts"] if mount["destination"] > "/etc"}
        names = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
        assert [etc[name][-1] for name in names] == [access] * 3


def test_the_user_s_own_dev_has_nothing_of_ours(place: bundle.Place) -> None:
    config = bundle.make(IMAGE, RunOptions(), HOST, place, [bundle.Bind("/dev", "/dev")])
    assert [mount["destination"] for mount in config["mounts"]] == ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]


def test_namespaces_are_its_own_unless_they_are_shared(place: bundle.Place) -> None:
    assert [entry["type"] for entry in make(place)["linux"]["namespaces"]] == ["mount", "pid", "ipc", "uts"]
    shared = evolve(
        place, network=bundle.Network(namespace=""), namespaces={"pid": "", "ipc": "/proc/9/ns/ipc"}, shm="/there/shm"
    )
    config = bundle.make(IMAGE, RunOptions(), evolve(HOST, cgroup=2), shared)
    assert config["linux"]["namespaces"] == [
        {"type": "mount"},
        {"type": "ipc", "path": "/proc/9/ns/ipc"},
        {"type": "uts"},
        {"type": "network"},
        {"type": "cgroup"},
    ]
    assert config["hostname"] == "ab" * 6
    assert next(mount for mount in config["mounts"] if mount["destination"] == "/dev/shm")["source"] == "/there/shm"


def test_limits(place: bundle.Place) -> None:
    found = make(
        place,
        memory=64 << 20,
        cpus=1.5,
        pids_limit=0,
        cpuset_cpus="0-1",
        ulimits=(Ulimit("nofile", 64, -1),),
        oom_score_adj=-500,
    )
    resources = found["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 << 20, "swap": 128 << 20}
    assert resources["cpu"] == {"period": 100_000, "quota": 150_000, "cpus": "0-1"}
    assert resources["pids"] == {"limit": -1}
    assert found["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 2**64 - 1}]
    assert found["process"]["oomScoreAdj"] == -500


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        ({"memory": 8 << 20, "memory_swap": 7 << 20}, "memoryswap limit should be larger than memory limit"),
        ({"memory_swap": 7 << 20}, "always set the Memory limit when using Memoryswap"),
        ({"memory": 8 << 20, "memory_reservation": 9 << 20}, "can not be less than memory reservation"),
        ({"memory": 2**63}, "invalid --memory: 9223372036854775808"),
        ({"memory": 8 << 20, "memory_swap": -2}, "invalid --memory-swap: -2"),
        ({"cpus": 5.0}, "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"),
        ({"cpuset_cpus": "3-1"}, "invalid value 3-1 for cpuset cpus"),
        ({"ulimits": (Ulimit("nofiles", 1, 1),)}, "invalid ulimit type: nofiles"),
        ({"ulimits": (Ulimit("nofile", 2, 1),)}, "soft limit must be less than or equal to hard limit: 2 > 1"),
        ({"sysctls": {"vm.swappiness": "1"}}, "sysctl 'vm.swappiness' is not allowed"),
        ({"sysctls": {"net.core.somaxconn": "1"}}, "'net.core.somaxconn' not allowed in host network namespace"),
        ({"working_dir": "srv"}, "the working directory 'srv' is invalid, it needs to be an absolute path"),
        ({"oom_score_adj": 1001}, "range for oom score adj is"),
        ({"security_opt": ("seccomp=/none/there",)}, "opening seccomp profile .* failed: No such file"),
        ({"security_opt": ("seccomp={}",)}, "decoding seccomp profile failed"),
        ({"security_opt": ("label=type:x",)}, "invalid --security-opt"),
        ({"security_opt": ("apparmor=mine",)}, "AppArmor is not enabled"),
        ({"mounts": (MountOption("tmpfs", "x"),)}, "mount path must be absolute"),
        ({"mounts": (MountOption("tmpfs", "/."),)}, "destination can't be '/'"),
        ({"hostname": "x", "uts": "host"}, "conflicting options: hostname and the UTS mode"),
    ],
)
def test_docker_s_words_for_what_cannot_be(place: bundle.Place, said: dict[str, Any], words: str) -> None:
    with pytest.raises(layerstore.ConfigError, match=words) as caught:
        make(place, **said)
    assert caught.value.remedy
