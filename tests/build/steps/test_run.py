"""RUN: what a program writes becomes a layer; what it was only lent does not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from layerstore import ConfigError
from layerstore.build import BuildError, Secret
from layerstore.build.steps import run
from support.building import Builder, Look, names_in


def test_what_a_program_writes_is_a_layer(make: Builder, look: Look) -> None:
    built = make("FROM base\nRUN echo hello > /greeting\n")
    assert look(built, "/greeting") == "hello\n"
    assert len(built.image.layers) == 2
    assert [line.created_by for line in built.image.history][1:] == ["RUN /bin/sh -c echo hello > /greeting # buildkit"]


def test_nothing_that_was_made_for_a_program_is_in_its_layer(make: Builder) -> None:
    built = make("FROM base\nRUN echo > /only\n")
    assert [change.path for change in built.image.changes()] == ["/only"]


def test_a_program_that_writes_nothing_makes_no_layer(make: Builder) -> None:
    built = make("FROM base\nRUN true\n")
    assert len(built.image.layers) == 1
    assert built.image.history[-1].empty_layer


def test_what_was_done_is_not_done_again(make: Builder) -> None:
    first = make("FROM base\nRUN echo one > /one\nRUN echo two > /two\n")
    assert make.done == ["RUN echo one > /one", "RUN echo two > /two"]
    second = make("FROM base\nRUN echo one > /one\nRUN echo two > /two\n")
    assert make.done == []
    assert second.image.layers == first.image.layers
    make("FROM base\nRUN echo one > /one\nRUN echo three > /three\n")
    assert make.done == ["RUN echo three > /three"]
    make("FROM base\nRUN echo one > /one\n", no_cache=True)
    assert make.done == ["RUN echo one > /one"]


def test_a_program_that_fails_is_told_with_its_line_and_its_output(make: Builder) -> None:
    with pytest.raises(BuildError) as caught:
        make("FROM base\n\nRUN echo before; echo reason >&2; exit 3\n")
    assert caught.value.exit_code == 3
    assert caught.value.output.decode().splitlines() == ["before", "reason"]
    assert caught.value.place is not None
    assert caught.value.place.line == 3
    assert "exit code: 3" in str(caught.value)
    assert ">>> RUN echo before" in str(caught.value)


def test_a_program_that_is_not_there_is_told(make: Builder) -> None:
    with pytest.raises(BuildError, match="nowhere"):
        make('FROM base\nRUN ["nowhere"]\n')


def test_finished_steps_stay_when_a_later_one_fails(make: Builder) -> None:
    with pytest.raises(BuildError):
        make("FROM base\nRUN echo > /done\nRUN false\n")
    make("FROM base\nRUN echo > /done\nRUN true\n")
    assert make.done == ["RUN true"]


def test_output_is_told_in_whole_lines(make: Builder) -> None:
    make("FROM base\nRUN printf 'a\\nb'; sleep 0.1; printf 'c\\nd'\n")
    assert make.output == "a\nbc\nd"


def test_variables_are_the_stage_s(make: Builder, look: Look) -> None:
    built = make(
        "FROM base\nARG GIVEN=default\nENV KEPT=yes\nRUN env | sort > /env\n",
        build_args={"GIVEN": "2", "http_proxy": "p"},
    )
    said = dict(line.split("=", 1) for line in look(built, "/env").splitlines())
    assert said["GIVEN"] == "2"
    assert said["KEPT"] == said["BASE"] == "yes"
    assert said["http_proxy"] == "p"
    assert said["HOME"] == "/root"
    assert "GIVEN" not in str(built.image.config["config"]["Env"])
    assert "http_proxy" not in built.image.config_bytes.decode()


def test_a_program_runs_as_the_user_and_where_the_stage_says(make: Builder, look: Look) -> None:
    built = make("FROM base\nWORKDIR /work\nUSER someone\nRUN id -u > /tmp/who; id -g >> /tmp/who; pwd >> /tmp/who\n")
    assert look(built, "/tmp/who").split() == ["1000", "1001", "/work"]


def test_a_heredoc_is_the_shell_s_or_a_program_of_its_own(make: Builder, look: Look) -> None:
    built = make(
        "FROM base\nRUN <<EOF\nfalse\necho one > /one\nEOF\nRUN <<EOF\n#!/bin/busybox sh\necho $0 > /two\nEOF\n"
        "RUN cat <<A > /three && cat <<B >> /three\na\nA\nb\nB\n"
    )
    assert look(built, "/one") == "one\n"
    assert look(built, "/two") == "/dev/pipes/EOF\n"
    assert look(built, "/three") == "a\nb\n"


def test_a_secret_is_lent_and_kept_nowhere(make: Builder, look: Look) -> None:
    word = os.urandom(8).hex()
    built = make(
        "FROM base\nRUN --mount=type=secret,id=key cd /run/secrets; (stat -c '%a %u' key; sha256sum < key) > /how\n"
        'RUN --mount=type=secret,id=key,env=KEY printf "%s" "$KEY" | sha256sum > /ok\n',
        secrets=[Secret("key", value=word.encode())],
    )
    digest = hashlib.sha256(word.encode()).hexdigest()
    assert look(built, "/how").split() == ["400", "0", digest, "-"]
    assert look(built, "/ok").split() == [digest, "-"]
    assert [change.path for change in built.image.changes(make.store.image("base"))] == ["/how", "/ok"]
    files = [path for path in make.store.data_root.parent.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if word.encode() in path.read_bytes()] == []


def test_a_secret_that_is_required_has_to_be_given(make: Builder) -> None:
    with pytest.raises(BuildError, match="secret key: not found"):
        make("FROM base\nRUN --mount=type=secret,id=key,required=true true\n")
    make("FROM base\nRUN --mount=type=secret,id=key test ! -e /run/secrets/key\n")


def test_a_cache_is_kept_between_builds_and_is_in_no_layer(make: Builder) -> None:
    line = "RUN --mount=type=cache,target=/cache echo {} >> /cache/log; wc -l < /cache/log > /count\n"
    first = make("FROM base\n" + line.format("a"))
    second = make("FROM base\n" + line.format("b"))
    assert [first.image.layers == second.image.layers, names_in(second) >= {"count"}] == [False, True]
    with second.image.mount() as root:
        assert (root / "count").read_text().strip() == "2"
        assert not (root / "cache").exists()


def test_a_stage_is_bound_and_what_is_written_on_it_is_dropped(make: Builder, look: Look) -> None:
    built = make(
        "FROM base AS one\nRUN mkdir /d && echo x > /d/f\n"
        "FROM base\nRUN --mount=type=bind,from=one,source=/d,target=/m cat /m/f > /a; ! echo > /m/g\n"
        "RUN --mount=type=bind,from=one,source=/d,target=/m,rw echo > /m/g && ls /m > /b\n"
        "RUN --mount=type=bind,from=one,source=/d,target=/m ls /m > /c\n"
    )
    assert look(built, "/a") == "x\n"
    assert look(built, "/b").split() == ["f", "g"]
    assert look(built, "/c").split() == ["f"]


def test_a_tmpfs_is_gone_afterwards(make: Builder) -> None:
    built = make("FROM base\nRUN --mount=type=tmpfs,target=/scratch,size=1m echo > /scratch/x && echo > /ok\n")
    assert "scratch" not in names_in(built)


def test_network_none_has_loopback_alone(make: Builder, look: Look) -> None:
    built = make("FROM base\nRUN --network=none ls /sys/class/net > /seen\n")
    assert look(built, "/seen").split() == ["lo"]


def test_what_weakens_the_sandbox_has_to_be_allowed(make: Builder) -> None:
    with pytest.raises(BuildError, match=r"security\.insecure is not allowed"):
        make("FROM base\nRUN --security=insecure true\n")
    make("FROM base\nRUN --security=insecure true\n", allow=["security.insecure"])


def test_a_failed_container_can_be_left(make: Builder) -> None:
    with pytest.raises(BuildError) as caught:
        make("FROM base\nRUN echo half > /half; exit 1\n", on_failure="shell")
    assert caught.value.container is not None
    box = make.store.container(caught.value.container)
    assert [change.path for change in box.changes()] == ["/half"]
    box.remove()


@pytest.mark.parametrize("source", ["folder", "folder/file"])
def test_a_bind_is_what_was_found_whatever_its_path_means_later(
    source: str, make: Builder, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.context({"folder/file": "inside"})
    (tmp_path / "file").write_text("outside")
    real = run.run_program

    def later(*arguments: Any, **more: Any) -> int:
        (make.folder / source).rename(make.folder / "moved")
        (make.folder / source).symlink_to(tmp_path / source.removeprefix("folder"))
        return real(*arguments, **more)

    monkeypatch.setattr(run, "run_program", later)
    built = make(f"FROM base\nRUN --mount=type=bind,source={source},target=/m cat /m/file > /a || cat /m > /a\n")
    assert look(built, "/a") == "inside"


def test_a_context_is_bound_without_what_is_ignored(make: Builder, look: Look) -> None:
    text = (
        "FROM base\nRUN --mount=type=bind,target=/m ls -A /m > /a\n"
        "RUN --mount=type=bind,source=f,target=/g,rw cat /g > /b; echo more >> /g\n"
    )
    built = make(text, {"f": "text", "no": "n", ".dockerignore": "no\n"})
    assert look(built, "/a").split() == [".dockerignore", "Dockerfile", "f"]
    assert look(built, "/b") == "text"
    assert (make.folder / "f").read_text() == "text"
    assert make.store.leases("building") == {}
    built = make(text, {"f": "other", "no": "n"})
    assert look(built, "/a").split() == ["Dockerfile", "f", "no"]
    assert look(built, "/b") == "other"


def test_a_cache_that_is_mounted_twice_waits_for_nobody(make: Builder, look: Look) -> None:
    built = make(
        "FROM base\n"
        "RUN --mount=type=cache,id=x,target=/a,sharing=locked --mount=type=cache,id=x,target=/b,sharing=locked "
        "echo 1 > /a/file && cat /b/file > /seen\n"
    )
    assert look(built, "/seen") == "1\n"


def test_caches_of_other_namespaces_are_others(make: Builder, look: Look) -> None:
    text = "FROM base\nRUN --mount=type=cache,target=/c echo x >> /c/log; wc -l < /c/log > /count\n"
    counts = [
        look(make(text, no_cache=True, build_args={"BUILDKIT_CACHE_MOUNT_NS": name} if name else {}), "/count")
        for name in ("", "one", "", "one", "two")
    ]
    assert [int(count) for count in counts] == [1, 1, 2, 2, 1]


def test_what_cannot_be_meant_is_refused(make: Builder) -> None:
    with pytest.raises(ConfigError, match="network mode 'bridge'"):
        make("FROM base\n", network="bridge")
    with pytest.raises(ConfigError, match="annotations"):
        make("FROM base\n", annotations={"a": "b"})
    with pytest.raises(BuildError, match="invalid ulimit: 'nofile'"):
        make("FROM base\nRUN true\n", ulimits=["nofile"])


def test_programs_have_what_the_build_was_given_for_them(make: Builder, look: Look) -> None:
    built = make(
        "FROM base\nRUN --network=host ulimit -n > /files; cat /etc/hosts > /hosts; df -k /dev/shm | tail -n 1 > /shm\n"
        "RUN hostname > /name\n",
        ulimits=["nofile=77:78"],
        add_hosts=["some.example:10.1.2.3"],
        shm_size=1 << 20,
    )
    assert look(built, "/files") == "77\n"
    assert "10.1.2.3\tsome.example" in look(built, "/hosts")
    assert look(built, "/shm").split()[1] == "1024"
    assert look(built, "/name") == "buildkitsandbox\n"


def test_stages_that_wait_in_a_step_let_others_work(make: Builder) -> None:
    waiting = "".join(
        f"FROM base AS s{n}\nRUN --mount=type=cache,from=last,target=/c,id=c{n} ls /c > /s{n}\n" for n in range(6)
    )
    make(
        "FROM base AS last\nRUN sleep 0.3; echo > /x\n"
        + waiting
        + "FROM base\n"
        + "".join(f"COPY --from=s{n} /s{n} /\n" for n in range(6))
    )


def test_what_is_lent_has_the_owner_and_mode_that_are_asked_for(make: Builder, look: Look) -> None:
    built = make(
        "FROM base\nUSER someone\nWORKDIR /home/someone\n"
        "RUN --mount=type=secret,id=key,target=d/k,uid=1000,gid=50,mode=0440 stat -c '%a %u %g' d/k > /tmp/a\n"
        "RUN --mount=type=cache,target=/c,uid=1000,gid=50,mode=0700 touch /c/x && stat -c '%a %u %g' /c > /tmp/b\n"
        "RUN --mount=type=tmpfs,target=/t,size=64k head -c 100000 /dev/zero > /t/x || echo full > /tmp/c\n",
        secrets=[Secret("key", value=b"k")],
    )
    assert look(built, "/tmp/a").split() == ["440", "1000", "50"]
    assert look(built, "/tmp/b").split() == ["700", "1000", "50"]
    assert look(built, "/tmp/c") == "full\n"
    assert names_in(built, "/home/someone") == set()


def test_a_container_that_is_left_says_no_secret(make: Builder) -> None:
    word = os.urandom(8).hex()
    with pytest.raises(BuildError) as caught:
        make(
            "FROM base\nRUN --mount=type=secret,id=key,env=KEY --mount=type=secret,id=key exit 1\n",
            secrets=[Secret("key", value=word.encode())],
            on_failure="checkpoint",
        )
    make.store.container(str(caught.value.container))
    files = [path for path in make.store.data_root.parent.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in files if word.encode() in path.read_bytes()] == []
    make.store.container(str(caught.value.container)).remove()


def test_secrets_are_files_variables_or_bytes(
    make: Builder, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("1")
    monkeypatch.setenv("SOME_SECRET", "2")
    built = make(
        "FROM base\nRUN --mount=type=secret,id=file --mount=type=secret,id=env --mount=type=secret,id=SOME_SECRET "
        "cd /run/secrets && cat file env SOME_SECRET > /said\n",
        secrets=[Secret("file", file=tmp_path / "file"), Secret("env", env="SOME_SECRET"), Secret("SOME_SECRET")],
    )
    assert look(built, "/said") == "122"
    with pytest.raises(ConfigError, match="cannot be read"):
        make("FROM base\nRUN --mount=type=secret,id=file true\n", secrets=[Secret("file", file="/nowhere/file")])


def test_equal_stages_that_are_bound_are_equal_input(make: Builder) -> None:
    text = "FROM base AS one\nRUN {}\nFROM base\nRUN --mount=type=bind,from=one,source=/d,target=/m ls -ln /m > /list\n"
    make(text.format("mkdir /d && echo x > /d/f"))
    make(text.format("mkdir /d; echo x > /d/f; echo > /other"))
    assert make.done == ["RUN mkdir /d; echo x > /d/f; echo > /other"]
    make(text.format("mkdir /d; echo x > /d/f; chown 5 /d/f"))
    assert len(make.done) == 2, "a program sees whose they are"
