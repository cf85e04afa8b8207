"""Who a program runs as: docker's rules, on the tree's own files and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerstore import ConfigError, LayerstoreError, NotFound
from layerstore.runtime.bundle import User, find_user


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (0,), "/root", "root")),
        ("root", User(0, 0, (0,), "/root", "root")),
        ("web", User(33, 44, (44, 55, 56), "/srv/web", "web")),
        ("33", User(33, 44, (44, 55, 56), "/srv/web", "web")),
        ("web:more", User(33, 55, (55,), "/srv/web", "web")),
        ("web:99", User(33, 99, (99,), "/srv/web", "web")),
        ("bare", User(70, 71, (71,), "/", "bare")),
        ("1234", User(1234, 0, (0,), "/", "")),
        ("1234:web", User(1234, 44, (44,), "/", "")),
        (":web", User(0, 44, (44,), "/root", "root")),
        ("0:0", User(0, 0, (0,), "/root", "root")),
    ],
)
def test_users_and_groups_by_name_and_number(tree: int, text: str, user: User) -> None:
    assert find_user(tree, text) == user


def test_groups_are_added(tree: int) -> None:
    assert find_user(tree, "bare", ("more", "7", "71")).groups == (71, 55, 7)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("web:none", "unable to find group none: no matching entries in group file"),
    ],
)
def test_who_is_not_there_is_told_in_docker_s_words(tree: int, text: str, words: str) -> None:
    with pytest.raises(NotFound) as caught:
        find_user(tree, text)
    assert caught.value.message == words
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["-1", "2147483648", "0:-3", "0:99999999999"])
def test_numbers_that_are_no_user_s(tree: int, text: str) -> None:
    with pytest.raises(ConfigError, match="uids and gids must be in range 0-2147483647"):
        find_user(tree, text)


def test_a_tree_without_the_files_has_numbers_only(root: Path, tree: int) -> None:
    (root / "etc/passwd").unlink()
    (root / "etc/group").unlink()
    assert find_user(tree, "") == User(0, 0, (0,), "/", "")
    assert find_user(tree, "5:6") == User(5, 6, (6,), "/", "")
    with pytest.raises(NotFound, match="unable to find user web"):
        find_user(tree, "web")


def test_a_link_leads_nowhere_but_into_the_tree(root: Path, tree: int, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("spy:x:66:66::/:\n")
    (root / "etc/passwd").rename(root / "passwd")
    (root / "etc/passwd").symlink_to("../../../../passwd")
    assert find_user(tree, "web").uid == 33
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").symlink_to(tmp_path / "passwd")
    with pytest.raises(NotFound, match="unable to find user spy"):
        find_user(tree, "spy")


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop"])
def test_what_is_no_file_is_not_read(root: Path, tree: int, kind: str) -> None:
    path = root / "etc/passwd"
    path.unlink()
    {"fifo": lambda: os.mkfifo(path), "folder": path.mkdir, "loop": lambda: path.symlink_to("passwd")}[kind]()
    with pytest.raises(NotFound, match="unable to find user web"):
        find_user(tree, "web")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.binary(max_size=100), st.text(max_size=10))
def test_any_files_give_a_user_or_a_refusal(root: Path, tree: int, passwd: bytes, group: bytes, text: str) -> None:
    (root / "etc/passwd").write_bytes(passwd)
    (root / "etc/group").write_bytes(group)
    try:
        user = find_user(tree, text)
    except LayerstoreError:
        return
    assert all(0 <= value < 2**31 for value in (user.uid, *user.groups))
    assert user.gid == user.groups[0]
    assert user.home
