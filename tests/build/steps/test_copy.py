"""COPY and ADD: what lands where, whose it is, and what may not be in the way. BuildKit's rules, but where told."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from typing import Any

import pytest

from layerstore import LayerSource, Store, StoredLayer
from layerstore.build import BuildError, Built
from layerstore.build.events import Warned
from support import images
from support.building import Builder, Look, names_in

TREE = {"dir/a.txt": "a", "dir/sub/b.txt": "b", "one": "1", "two": "2"}


def facts(built: Built, path: str) -> tuple[int, int, int]:
    """Permissions, owner and group of a path of an image."""
    with built.image.mount() as root:
        found = os.lstat(root / path.lstrip("/"))
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def everything(built: Built, folder: str) -> list[str]:
    """All paths below a folder of an image, sorted."""
    with built.image.mount() as root:
        top = root / folder.lstrip("/")
        return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def test_a_folder_gives_what_it_has(make: Builder) -> None:
    built = make("FROM base\nCOPY dir /new\nCOPY dir /new2/\nCOPY dir /etc\n", TREE)
    assert everything(built, "/new") == everything(built, "/new2") == ["a.txt", "sub", "sub/b.txt"]
    assert {"a.txt", "sub", "passwd"} <= names_in(built, "/etc")


def test_a_file_takes_a_place_or_lands_in_a_folder(make: Builder, look: Look) -> None:
    built = make("FROM base\nWORKDIR /w\nCOPY one file\nCOPY one folder/\nCOPY one /etc\nCOPY one two more/\n", TREE)
    assert everything(built, "/w") == ["file", "folder", "folder/one", "more", "more/one", "more/two"]
    assert look(built, "/etc/one") == "1"


def test_several_sources_need_a_folder(make: Builder) -> None:
    with pytest.raises(BuildError, match="the destination must be a directory and end with a /"):
        make("FROM base\nCOPY one two /file\n", TREE)


FILES = {"a": "a", "b": "b", "d/x": "x", "e": "e", "e.tar": "no tar"}


@pytest.mark.parametrize("line", ["COPY [ab] /x", "ADD [ab] /x", "COPY [bde] /x", "COPY [ab] /etc/passwd"])
def test_several_files_of_a_pattern_need_a_folder(line: str, make: Builder) -> None:
    with pytest.raises(BuildError, match="the destination must be a directory and end with a /") as caught:
        make(f"FROM base\n{line}\n", FILES)
    assert caught.value.place is not None
    assert caught.value.place.line == 2


def test_what_a_pattern_means_lands_in_a_folder_that_is_there_or_is_made_by_another(make: Builder) -> None:
    built = make("FROM base\nCOPY [a] /file\nCOPY [ab] /tmp\nCOPY [de] /made\nCOPY [d] [e] /slash/\n", FILES)
    assert everything(built, "/tmp") == ["a", "b"]
    assert everything(built, "/made") == ["e", "x"]
    assert everything(built, "/slash") == ["e", "x"]
    assert names_in(built) >= {"file"}


def test_wildcards_are_go_s_and_give_what_folders_have(make: Builder) -> None:
    built = make("FROM base\nCOPY d* /a/\nCOPY [ot]* /b/\nCOPY dir/*.txt /c/\nCOPY ?ne /d/\n", TREE)
    assert everything(built, "/a") == ["a.txt", "sub", "sub/b.txt"]
    assert everything(built, "/b") == ["one", "two"]
    assert everything(built, "/c") == ["a.txt"]
    assert everything(built, "/d") == ["one"]


def test_a_pattern_that_nothing_fits_copies_nothing_and_is_told(make: Builder) -> None:
    built = make("FROM base\nCOPY *.none no?e /new/\n", TREE)
    assert "new" not in names_in(built)
    assert built.image.history[-1].empty_layer
    [told] = [event.message for event in make.events if isinstance(event, Warned)]
    assert told.startswith("COPY *.none no?e /new/: nothing")


def test_what_add_unpacks_keeps_its_modes(make: Builder) -> None:
    tar = images.layer(images.folder("in", mode=0o750), images.file("in/file", "x", mode=0o640))
    built = make("FROM base\nADD --chmod=600 t.tar /new\nADD --chmod=600 one /\n", {"t.tar": tar, "one": "1"})
    assert [facts(built, path)[0] for path in ("/new", "/new/in", "/new/in/file")] == [0o755, 0o750, 0o640]
    assert facts(built, "/one")[0] == 0o600


def test_a_source_that_is_not_there_is_told(make: Builder) -> None:
    with pytest.raises(BuildError, match="nowhere") as caught:
        make("FROM base\nCOPY one /\nCOPY nowhere /\n", TREE)
    assert caught.value.place is not None
    assert caught.value.place.line == 3


def test_owners_are_root_or_as_chown_says(make: Builder) -> None:
    make.context(TREE)
    os.chown(make.folder / "one", 4321, 4321)
    built = make(
        "FROM base\nCOPY one /plain\nCOPY --chown=someone one /name\nCOPY --chown=12 one /number\n"
        "COPY --chown=someone:staff one /both\nCOPY --chown=5:6 dir /made/folder\n"
    )
    assert facts(built, "/plain")[1:] == (0, 0)
    assert facts(built, "/name")[1:] == (1000, 1001)
    assert facts(built, "/number")[1:] == (12, 12)
    assert facts(built, "/both")[1:] == (1000, 50)
    assert (
        facts(built, "/made")[1:] == facts(built, "/made/folder")[1:] == facts(built, "/made/folder/sub")[1:] == (5, 6)
    )


def test_owners_of_stages_and_images_are_kept_unless_chown_says_otherwise(make: Builder) -> None:
    made = "FROM base AS made\nRUN mkdir -p /out/sub && echo x > /out/sub/file && chown -R {0}:{0} /out\n"
    text = "FROM base\nCOPY --from=made /out /new\nCOPY --from=made --chown=5:6 /out /given\n"
    first, second = make(made.format(41) + text), make(made.format(42) + text)
    assert facts(first, "/new")[1:] == (0, 0)
    assert facts(first, "/new/sub")[1:] == facts(first, "/new/sub/file")[1:] == (41, 41)
    assert facts(second, "/new/sub/file")[1:] == (42, 42)
    assert facts(second, "/given/sub/file")[1:] == (5, 6)


def test_an_owner_that_nobody_knows_fails(make: Builder) -> None:
    with pytest.raises(BuildError, match="unable to find user nobody-knows"):
        make("FROM base\nCOPY --chown=nobody-knows one /\n", TREE)


@pytest.mark.parametrize("owner", ["99999999999", "4294967295", "1:4294967296", "wide"])
def test_an_owner_that_cannot_be_is_refused(owner: str, make: Builder) -> None:
    with pytest.raises(BuildError) as caught:
        make(
            "FROM base\nRUN echo wide:x:99999999999:1::/:/bin/sh >> /etc/passwd\n"
            f"COPY --chown=4294967294 one /\nCOPY --chown={owner} one /\n",
            TREE,
        )
    assert caught.value.place is not None
    assert caught.value.place.line == 4


def test_modes_are_kept_or_as_chmod_says(make: Builder) -> None:
    make.context(TREE)
    (make.folder / "one").chmod(0o4750)
    (make.folder / "dir").chmod(0o700)
    (make.folder / "dir" / "sub").chmod(0o711)
    built = make(
        "FROM base\nCOPY one /kept\nCOPY --chmod=640 one /octal\nCOPY --chmod=go=u,a-w one /words\n"
        "COPY --chmod=u=rwX,go= dir /folder\nCOPY dir /plain\n"
    )
    assert facts(built, "/kept")[0] == 0o4750
    assert facts(built, "/octal")[0] == 0o640
    assert facts(built, "/words")[0] == 0o4555
    assert facts(built, "/folder")[0] == facts(built, "/folder/sub")[0] == 0o700
    assert facts(built, "/folder/a.txt")[0] == 0o600
    assert facts(built, "/plain")[0] == 0o755, "a new folder is not as the source is"
    assert facts(built, "/plain/sub")[0] == 0o711, "those below it are"


def test_folders_that_are_there_keep_what_they_are(make: Builder) -> None:
    built = make("FROM base\nCOPY one /tmp/\nCOPY dir /var/tmp\n", TREE)
    assert facts(built, "/tmp")[0] == 0o1777
    assert facts(built, "/var/tmp")[0] == 0o1777
    with built.image.mount() as root:
        assert (root / "tmp" / "one").exists()


def test_a_link_is_followed_on_the_way_and_never_out_of_the_root(make: Builder, look: Look) -> None:
    built = make(
        "FROM base\nRUN ln -s /etc /way && ln -s ../../../../etc /out && ln -s /etc/target /last\n"
        "COPY one /way/file\nCOPY two /out/other\nCOPY one /last\n",
        TREE,
    )
    assert look(built, "/etc/file") == look(built, "/etc/target") == "1"
    assert look(built, "/etc/other") == "2"


def test_a_folder_does_not_replace_a_link_and_a_file_no_folder(make: Builder) -> None:
    with pytest.raises(BuildError, match="cannot copy to non-directory: /lib") as caught:
        make("FROM base\nRUN ln -s usr /lib\nCOPY rootfs /\n", {"rootfs/lib/x": "x"})
    assert "a symbolic link" in str(caught.value)
    with pytest.raises(BuildError, match="cannot replace to directory /d/name with file"):
        make("FROM base\nRUN mkdir -p /d/name\nCOPY from /d\n", {"from/name": "x"})
    with pytest.raises(BuildError, match="cannot copy to non-directory: /etc/passwd"):
        make("FROM base\nCOPY from /etc/passwd\n", {"from/name": "x"})


def test_a_source_that_is_a_link_is_followed_and_links_below_it_are_kept(make: Builder) -> None:
    make.context(TREE)
    (make.folder / "link").symlink_to("dir")
    (make.folder / "dir" / "inner").symlink_to("a.txt")
    built = make("FROM base\nCOPY link /d\n")
    assert everything(built, "/d") == ["a.txt", "inner", "sub", "sub/b.txt"]
    with built.image.mount() as root:
        assert os.readlink(root / "d" / "inner") == "a.txt"


def test_names_of_one_file_are_links_within_a_folder_and_files_of_their_own_else(make: Builder) -> None:
    make.context(TREE)
    os.link(make.folder / "one", make.folder / "other")
    os.link(make.folder / "dir" / "a.txt", make.folder / "dir" / "sub" / "again.txt")
    os.link(make.folder / "dir" / "a.txt", make.folder / "outside.txt")
    copy = "COPY one other dir outside.txt /listed/\nCOPY o* /meant/\nCOPY --chmod=600 one other /moded/\n"
    add = "ADD one other /added/\nCOPY --parents one other /kept/\nCOPY dir/a.txt /d/\nCOPY --link other one /linked/\n"
    built = make(f"FROM base\n{copy}{add}")
    with built.image.mount() as root:
        for folder in ("listed", "meant", "moded", "added", "kept", "linked"):
            found = [os.lstat(root / folder / name) for name in ("one", "other")]
            assert [(one.st_nlink, one.st_size) for one in found] == [(1, 1), (1, 1)], folder
        listed = root / "listed"
        assert os.path.samefile(listed / "a.txt", listed / "sub" / "again.txt")
        assert (listed / "a.txt").stat().st_nlink == 2
        assert (listed / "outside.txt").stat().st_nlink == 1


def test_what_is_ignored_is_not_there_and_exclude_leaves_out(make: Builder) -> None:
    files = {**TREE, ".dockerignore": "# no\n*.log\n**/sub\n!keep.log\nDockerfile\n", "x.log": "x", "keep.log": "k"}
    built = make("FROM base\nCOPY . /all\nCOPY --exclude=two --exclude=d* . /some\n", files)
    assert everything(built, "/all") == [".dockerignore", "dir", "dir/a.txt", "keep.log", "one", "two"]
    assert everything(built, "/some") == [".dockerignore", "keep.log", "one"]


def test_exclude_counts_from_each_folder_that_a_pattern_means(make: Builder) -> None:
    files = {"d1/a.png": "", "d1/b.txt": "", "d2/c.png": "", "d2/in/d.txt": "", "d3/e.mp3": "", "d4.txt": ""}
    built = make(
        "FROM base\nCOPY --exclude=*/*.png d* .dockerignore /whole/\nCOPY --exclude=*.png d* /inner/\n"
        "COPY --exclude=*/*.png --exclude=**/*.txt . /deep\nADD --exclude=* d* /none\n"
        "COPY d*/* /contents/\nCOPY --exclude=*.txt d[24]* /two/\n",
        {**files, ".dockerignore": ""},
    )
    assert everything(built, "/whole") == [
        *(".dockerignore", "a.png", "b.txt", "c.png", "d4.txt", "e.mp3", "in", "in/d.txt"),
    ]
    assert everything(built, "/inner") == ["b.txt", "d4.txt", "e.mp3", "in", "in/d.txt"]
    assert everything(built, "/deep") == [".dockerignore", "Dockerfile", "d1", "d2", "d2/in", "d3", "d3/e.mp3"]
    assert everything(built, "/none") == []
    assert everything(built, "/contents") == ["a.png", "b.txt", "c.png", "d.txt", "e.mp3"]
    assert everything(built, "/two") == ["c.png", "in", "in/d.txt"]


def test_parents_keep_the_path_from_the_pivot_on(make: Builder) -> None:
    built = make("FROM base\nCOPY --parents dir/sub/b.txt one /a/\nCOPY --parents ./dir/./sub /b/\n", TREE)
    assert everything(built, "/a") == ["dir", "dir/sub", "dir/sub/b.txt", "one"]
    assert everything(built, "/b") == ["sub", "sub/b.txt"]


def test_what_comes_along_with_parents_counts_as_what_is_copied(make: Builder) -> None:
    make.context(TREE)
    (make.folder / "link").symlink_to("dir/sub")
    text = "FROM base\nCOPY --parents dir/sub/b.txt link/b.txt /a/\n"
    assert everything(make(text), "/a") == ["dir", "dir/sub", "dir/sub/b.txt", "link", "link/b.txt"]
    (make.folder / "dir/sub").chmod(0o700)
    built = make(text)
    assert facts(built, "/a/dir/sub")[0] == facts(built, "/a/link")[0] == 0o700
    make(text)
    assert make.done == []


def test_a_heredoc_is_a_file(make: Builder, look: Look) -> None:
    built = make(
        "FROM base\nARG V=2\nCOPY <<EOF /file\nv=$V\nEOF\nCOPY <<'RAW' <<-TABS /folder/\n$V\nRAW\n\ttab\nTABS\n"
    )
    assert look(built, "/file") == "v=2\n"
    assert look(built, "/folder/RAW") == "$V\n"
    assert look(built, "/folder/TABS") == "tab\n"
    assert facts(built, "/file") == (0o644, 0, 0)


def test_equal_content_is_known_again_whatever_its_times(make: Builder) -> None:
    make("FROM base\nCOPY dir /d\nCOPY one /\n", TREE)
    assert len(make.done) == 2
    os.utime(make.context(TREE) / "one", ns=(1, 1))
    make("FROM base\nCOPY dir /d\nCOPY one /\n")
    assert make.done == []
    make("FROM base\nCOPY dir /d\nCOPY one /\n", {**TREE, "one": "another"})
    assert make.done == ["COPY one /"]


def test_a_linked_copy_survives_another_base(make: Builder, look: Look) -> None:
    first = make("FROM base\nRUN echo 1 > /below\nCOPY --link dir /tmp/d\n", TREE)
    second = make("FROM base\nRUN echo 2 > /below\nCOPY --link dir /tmp/d\n", TREE)
    assert make.done == ["RUN echo 2 > /below"]
    assert first.image.layers[-1] == second.image.layers[-1]
    assert look(second, "/tmp/d/sub/b.txt") == "b"
    assert facts(second, "/tmp")[0] == 0o1777


def test_a_linked_copy_can_be_read_again_without_room_in_tmp(make: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bool] = []
    real = Store.add_layer

    def reading(store: Store, source: LayerSource, *arguments: Any, **options: Any) -> StoredLayer:
        if source.diff_id is not None:  # it lies on nothing, and is to lie on the base
            buffer, digest = bytearray(1 << 16), hashlib.sha256()
            with source.open() as stream:
                while count := stream.readinto(memoryview(buffer)):
                    digest.update(buffer[:count])
            read.append(source.diff_id == f"sha256:{digest.hexdigest()}")
        return real(store, source, *arguments, **options)

    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    monkeypatch.setattr(Store, "add_layer", reading)
    make("FROM base\nCOPY --link one /linked\n", TREE)
    assert read == [True]
    assert not any((make.store.data_root / "building").iterdir())


def test_files_come_from_stages_and_images(make: Builder, look: Look) -> None:
    built = make(
        "FROM base AS made\nRUN echo x > /x && mkdir /d && ln -s nowhere /d/l && ln /x /d/hard\n"
        "FROM scratch\nCOPY --from=made /x /d /\nCOPY --from=base /etc/passwd /p\nCOPY --from=0 x /y/\n"
    )
    assert look(built, "/x") == look(built, "/hard") == look(built, "/y/x") == "x\n"
    assert "someone" in look(built, "/p")
    assert names_in(built) == {"x", "hard", "l", "p", "y"}


def test_capabilities_of_files_are_kept(make: Builder) -> None:
    make.context(TREE)
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(make.folder / "one", "security.capability", value)
    built = make("FROM base\nCOPY one /\n")
    with built.image.mount() as root:
        assert os.getxattr(root / "one", "security.capability") == value


def test_a_wildcard_may_mean_nothing_beside_others(make: Builder) -> None:
    built = make("FROM base\nCOPY one yarn.lock* /d/\n", TREE)
    assert everything(built, "/d") == ["one"]
