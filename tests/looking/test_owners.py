"""Which package a file belongs to, by databases that dpkg and rpm made, and by such as nobody should have made."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from layerstore.looking.owners import Answer, owners_of


@contextmanager
def tree_of(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def owners(folder: Path, path: bytes) -> Answer:
    with tree_of(folder) as root:
        return owners_of(root, path)


def names(folder: Path, path: bytes) -> list[str]:
    return [str(owner) for owner in owners(folder, path).owners]


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


# --- dpkg ---


def deb(folder: Path, name: str, files: Mapping[str, str], version: str = "1.0-1", script: str = "") -> Path:
    """A package that dpkg-deb makes."""
    source = folder / f"{name}.source"
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    write(source, {**files, "DEBIAN/control": control})
    if script:
        write(source, {"DEBIAN/preinst": script})
        (source / "DEBIAN/preinst").chmod(0o755)
    target = folder / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", source, target], check=True, capture_output=True)
    return target


def install(root: Path, *packages: Path) -> None:
    """By dpkg itself, into a tree."""
    write(root, {"var/lib/dpkg/status": "", "var/lib/dpkg/available": ""})
    for name in ("info", "updates", "triggers"):
        (root / "var/lib/dpkg" / name).mkdir(exist_ok=True)
    command = ["dpkg", f"--root={root}", "--force-all", "--log=/dev/null", "-i", *map(str, packages)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.root
@pytest.mark.tools("dpkg", "dpkg-deb")
def test_dpkg_tells_whose_a_file_is(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    tool = deb(tmp_path, "tool", {"bin/tool": "x", "etc/tool.conf": "x", "usr/share/doc/tool/copyright": "x"})
    other = deb(tmp_path, "other", {"usr/share/doc/other/copyright": "x"}, version="1:2.0~rc1-3")
    install(root, tool, other)
    assert names(root, b"usr/bin/tool") == ["tool 1.0-1 all (dpkg)"]
    assert names(root, b"usr/share/doc/other/copyright") == ["other 1:2.0~rc1-3 all (dpkg)"]
    assert len(names(root, b"usr/share/doc")) == 2
    assert names(root, b"usr/bin/too") == []
    assert owners(root, b"usr/bin/too").databases == ("dpkg",)


@pytest.mark.root
@pytest.mark.tools("dpkg", "dpkg-deb", "dpkg-divert")
def test_a_diverted_file_is_its_own_packages_and_the_place_the_diverters(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    install(root, deb(tmp_path, "plain", {"usr/bin/sh": "plain"}))
    divert = ["dpkg-divert", f"--root={root}", "--package", "fancy", "--rename", "--divert", "/usr/bin/sh.plain"]
    subprocess.run([*divert, "--add", "/usr/bin/sh"], check=True, capture_output=True)
    fancy = deb(tmp_path, "fancy", {"usr/bin/sh": "fancy"})
    command = ["dpkg", f"--root={root}", "--force-all", "--log=/dev/null", "-i", str(fancy)]
    subprocess.run(command, check=True, capture_output=True)
    assert (root / "usr/bin/sh").read_text() == "fancy"
    assert names(root, b"usr/bin/sh") == ["fancy 1.0-1 all (dpkg)"]
    assert names(root, b"usr/bin/sh.plain") == ["plain 1.0-1 all (dpkg, diverted from /usr/bin/sh by fancy)"]


def test_images_without_dpkg_have_a_file_for_each_package(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "var/lib/dpkg/status.d/base": "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n",
            "var/lib/dpkg/status.d/base.md5sums": "0123  usr/lib/os-release\n4567  etc/host.conf\n",
        },
    )
    assert names(tmp_path, b"etc/host.conf") == ["base-files 12.4 amd64 (dpkg)"]
    assert names(tmp_path, b"etc/host") == []


# --- apk ---

APK = """\
C:Q1abc=
P:musl
V:1.2.5-r0
A:x86_64
F:lib
R:ld-musl-x86_64.so.1
a:0:0:755
R:libc.musl-x86_64.so.1

P:busybox
V:1.36.1-r29
A:x86_64
F:bin
R:busybox
F:
R:root-file

"""


@pytest.mark.parametrize("place", ["lib/apk/db/installed", "usr/lib/apk/db/installed"])
def test_apk_tells_whose_a_file_is(tmp_path: Path, place: str) -> None:
    write(tmp_path, {place: APK})
    assert names(tmp_path, b"lib/libc.musl-x86_64.so.1") == ["musl 1.2.5-r0 x86_64 (apk)"]
    assert names(tmp_path, b"bin/busybox") == ["busybox 1.36.1-r29 x86_64 (apk)"]
    assert names(tmp_path, b"bin") == ["busybox 1.36.1-r29 x86_64 (apk)"]
    assert names(tmp_path, b"root-file") == ["busybox 1.36.1-r29 x86_64 (apk)"]
    assert names(tmp_path, b"lib/busybox") == []


# --- rpm ---

SPEC = """\
Name: tool
Epoch: 2
Version: 1.5
Release: 3
Summary: x
License: x
BuildArch: noarch
%description
x
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc/tool
echo x > %{buildroot}/usr/bin/tool
echo x > %{buildroot}/etc/tool/tool.conf
%files
/usr/bin/tool
/etc/tool
"""


@pytest.mark.root
@pytest.mark.tools("rpm", "rpmbuild")
def test_rpm_tells_whose_a_file_is(tmp_path: Path) -> None:
    write(tmp_path, {"tool.spec": SPEC})
    build = ["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}/made", "--nodeps", str(tmp_path / "tool.spec")]
    subprocess.run(build, check=True, capture_output=True)
    [package] = (tmp_path / "made").rglob("*.rpm")
    root = tmp_path / "root"
    root.mkdir()
    install = ["rpm", f"--root={root}", "--define", "_db_backend sqlite", "--define", "_dbpath /var/lib/rpm"]
    subprocess.run([*install, "--nodeps", "-i", str(package)], check=True, capture_output=True)
    assert names(root, b"usr/bin/tool") == ["tool 2:1.5-3 noarch (rpm)"]
    assert names(root, b"etc/tool/tool.conf") == ["tool 2:1.5-3 noarch (rpm)"]
    assert names(root, b"etc/tool") == ["tool 2:1.5-3 noarch (rpm)"]
    assert names(root, b"etc/tool.conf") == []


def rpmdb(path: Path, *statements: str) -> None:
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


PLACE = "var/lib/rpm/rpmdb.sqlite"
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"


@pytest.mark.parametrize(
    "statements",
    [
        (),
        (f"CREATE VIEW Basenames AS {ENDLESS} SELECT x AS hnum, 'tool' AS key FROM n", "CREATE TABLE Packages (hnum)"),
        ("CREATE TABLE Packages (hnum, blob)", "CREATE TABLE Basenames (other)"),
    ],
    ids=["empty", "endless", "other-columns"],
)
def test_an_rpm_database_that_is_none_is_told_and_runs_nothing(tmp_path: Path, statements: tuple[str, ...]) -> None:
    rpmdb(tmp_path / PLACE, *statements)
    answer = owners(tmp_path, b"usr/bin/tool")
    assert answer.owners == ()
    assert [sentence.startswith("rpm: rpmdb.sqlite cannot be read") for sentence in answer.unread] == [True]


FAR = b"\0\0\0\1\0\0\0\x10" + b"\0\0\x04\x5d\0\0\0\4\x7f\xff\xff\xff\xff\xff\xff\xff" + b"x" * 16
"""A header whose one entry points far beyond it."""


@pytest.mark.parametrize("blob", [b"", b"\0" * 8, b"\xff" * 64, FAR])
def test_a_damaged_header_owns_nothing(tmp_path: Path, blob: bytes) -> None:
    rpmdb(
        tmp_path / PLACE,
        "CREATE TABLE Packages (hnum INTEGER, blob BLOB)",
        "CREATE TABLE Basenames (key TEXT, hnum INTEGER)",
        f"INSERT INTO Packages VALUES (1, x'{blob.hex()}')",
        "INSERT INTO Basenames VALUES ('tool', 1)",
    )
    answer = owners(tmp_path, b"usr/bin/tool")
    assert (answer.owners, answer.unread) == ((), ())


def test_older_rpm_databases_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"var/lib/rpm/Packages": b"\0" * 100})
    assert owners(tmp_path, b"usr/bin/tool").unread == (
        "rpm: /var/lib/rpm/Packages is a Berkeley DB, which only rpm itself can read",
    )


# --- trees that mean harm ---


def test_a_tree_without_databases_owns_nothing(tmp_path: Path) -> None:
    assert owners(tmp_path, b"bin/x") == Answer((), (), ())


@pytest.mark.root
def test_pipes_devices_and_links_out_of_the_tree_are_not_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for folder in ("var/lib/dpkg/info", "lib/apk/db", "var/lib/rpm"):
        (root / folder).mkdir(parents=True)
    os.mkfifo(root / "var/lib/dpkg/status")
    os.mknod(root / "lib/apk/db/installed", 0o020644, os.makedev(1, 5))  # zeros without end
    (tmp_path / "outside.list").write_text("/bin/x\n")
    (root / "var/lib/dpkg/info/evil.list").symlink_to(tmp_path / "outside.list")
    (root / "var/lib/rpm/rpmdb.sqlite").symlink_to("/dev/zero")
    assert owners(root, b"bin/x").owners == ()


def test_a_database_of_terabytes_of_holes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"lib/apk/db/installed": ""})
    os.truncate(tmp_path / "lib/apk/db/installed", 1 << 40)
    answer = owners(tmp_path, b"bin/x")
    assert [sentence.startswith("apk: ") for sentence in answer.unread] == [True]
    assert "larger than 512 MiB" in answer.unread[0]
