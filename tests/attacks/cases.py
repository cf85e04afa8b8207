"""Known attacks on tools that unpack layers or tars: what each did there, the input made for it, what must hold here.

Each is named by its number, as the list of the CVE Program, Go's, Python's or Rust's database of faults has it. The
inputs are of our own making: what is written there in prose, as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import field, frozen

from layerstore.testing import tars
from layerstore.testing.tars import (
    BLOCK,
    END,
    GNU_MAGIC,
    V7_MAGIC,
    archive,
    base256,
    file,
    folder,
    gnu_long,
    hardlink,
    header,
    pax,
    raw_pax,
    symlink,
    whiteout,
)

Tree = Mapping[str, str]
"""What each path is: `dir`, `fifo`, `-> words of a link`, or the text of a file."""

LONG = b"d" * 240


@frozen
class Attack:
    """`layers` are made for a folder of the host (`canary`: absolute, with `file` and `sub` in it): it stays as it is.

    `tree` is what the image shows, whose folders down to the canary's namesake are written as `@`; None: it is refused,
    and the error says `refusal`.
    """

    number: str
    did: str
    layers: Callable[[bytes], Sequence[bytes]] = field(repr=False)
    tree: Tree | None = None
    refusal: str = ""


def smuggled(said: int, meant: int) -> bytes:
    """A file whose header and PAX record differ about its size, and that holds another entry."""
    body = header(b"smuggled", size=0) + bytes(BLOCK)
    return pax([(b"size", b"%d" % meant)]) + header(b"outer", size=said) + body + tars.encode(file(b"last")) + END


STEPS = b"abcdefghijklmn"
UP = b"l" * 200


def beyond_path_max(canary: bytes) -> bytes:
    """Short links through folders whose names together are nearly as long as PATH_MAX, then up all of them, and out."""
    entries: list[tars.Entry] = []
    above = b""
    for at in range(len(STEPS)):
        entries += [folder(above + LONG), symlink(above + STEPS[at : at + 1], LONG)]
        above += LONG + b"/"
    chain = b"/".join(STEPS[at : at + 1] for at in range(len(STEPS)))
    entries += [
        symlink(chain + b"/" + UP, b"../" * len(STEPS)),
        symlink(b"escape", chain + b"/" + UP + b"/.." + canary),
    ]
    return archive(*entries, file(b"escape/file", b"changed"))


def beyond_path_max_tree() -> Tree:
    """What is to be seen of it: all within the tree."""
    found, above, long = {}, "", LONG.decode()
    for letter in STEPS.decode():
        found |= {above + long: "dir", above + letter: f"-> {long}"}
        above += long + "/"
    chain = "/".join(STEPS.decode())
    up = UP.decode()
    found |= {above + up: "-> " + "../" * len(STEPS), "escape": f"-> {chain}/{up}/..canary"}
    return found | {"@": "dir", "@/file": "changed"}


ATTACKS = [
    Attack(
        "CVE-2014-6407",
        "Docker, pull and load: a symbolic link of an image led to the host's files",
        lambda canary: [archive(symlink(b"l", canary), file(b"l/file", b"changed"))],
        {"l": "-> canary", "@": "dir", "@/file": "changed"},
    ),
    Attack(
        "CVE-2014-6407",
        "Docker, pull and load: a hard link of an image was one to the host's file",
        lambda canary: [archive(hardlink(b"h", canary + b"/file"), file(b"h", b"changed"))],
        {"h": "changed"},
    ),
    Attack(
        "CVE-2014-9356",
        "Docker: an absolute link of one layer, used by the next, led out of the tree",
        lambda canary: [archive(symlink(b"l", canary)), archive(file(b"l/file", b"changed"), whiteout(b"l/sub"))],
        {"l": "-> canary", "@": "dir", "@/file": "changed"},
    ),
    Attack(
        "CVE-2021-32760",
        "containerd: the mode of a file outside was changed by an entry for a link to it",
        lambda canary: [
            archive(
                symlink(b"f", canary + b"/file"), hardlink(b"h", b"f", mode=0o7777), hardlink(b"h", b"f", mode=0o777)
            )
        ],
        {"f": "-> canary/file", "h": "-> canary/file"},
    ),
    Attack(
        "CVE-2021-29136",
        "umoci: a layer made a symbolic link of the root itself, and the next wrote through it",
        lambda canary: [archive(symlink(b"./", canary)), archive(file(b"file", b"changed"))],
        refusal="the root of a layer is no directory",
    ),
    Attack(
        "CVE-2007-4559",
        "Python's tarfile: names with .. were written where they said",
        lambda canary: [archive(file(b"../" * 30 + canary.lstrip(b"/") + b"/file", b"changed"))],
        refusal="the name leads outside the layer",
    ),
    Attack(
        "CVE-2019-20907",
        "Python's tarfile: a PAX record of length 0 was read for ever",
        lambda canary: [raw_pax(b"0 path=x\n") + archive(file(b"f"))],
        refusal="a PAX header is malformed",
    ),
    Attack(
        "CVE-2024-6232",
        "Python's tarfile: a search in headers took time by the square of their length",
        lambda canary: [raw_pax(b"1" * 4_000_000) + archive(file(b"f"))],
        refusal="a PAX header is malformed",
    ),
    Attack(
        "CVE-2025-8194",
        "Python's tarfile: a negative size led back to the same header, for ever",
        lambda canary: [header(b"f", size=base256(-BLOCK, 12)) + archive(file(b"g"))],
        refusal="impossible size",
    ),
    Attack(
        "CVE-2025-4517",
        "Python's tarfile: a path beyond PATH_MAX was checked only in part, and led out",
        lambda canary: [beyond_path_max(canary)],
        beyond_path_max_tree(),
    ),
    Attack(
        "CVE-2025-4138",
        "Python's tarfile: words of a link with .. in them led out, though a filter looked at them",
        lambda canary: [archive(folder(b"d"), symlink(b"d/l", b"../d/../.." + canary), file(b"d/l/file", b"changed"))],
        {"d": "dir", "d/l": "-> ../d/../..canary", "@": "dir", "@/file": "changed"},
    ),
    Attack(
        "CVE-2024-12718",
        "Python's tarfile: time and mode of a folder outside were set, by way of a link that took its place",
        lambda canary: [
            archive(folder(b"d", mode=0o777, mtime=1), file(b"d/f"), symlink(b"d", canary), folder(b"d/.", mode=0o700))
        ],
        {"d": "dir"},
    ),
    Attack(
        "CVE-2025-4435",
        "Python's tarfile: what a filter had refused was written all the same",
        lambda canary: [archive(file(b"good"), file(b"../bad"), file(b"good too"))],
        refusal="the name leads outside the layer",
    ),
    Attack(
        "CVE-2016-6321",
        "GNU tar: what stands before .. in a name was cut off after the name had been judged",
        lambda canary: [archive(folder(b"etc"), file(b"etc/shadow/../../../" + canary.lstrip(b"/") + b"/file"))],
        refusal="the name leads outside the layer",
    ),
    Attack(
        "CVE-2006-6097",
        "GNU tar: a record of old long names (type N) made links to anywhere",
        lambda canary: [
            header(b"././@MaNgLeD", typeflag=b"N", size=64, magic=GNU_MAGIC)
            + tars.padded(b"Symlink " + canary + b" to l\n")
            + archive(file(b"l/file"))
        ],
        refusal="an entry has a type that layers do not have",
    ),
    Attack(
        "CVE-2022-48303",
        "GNU tar: a time of blanks in a header of version 7 was read beyond its field",
        lambda canary: [header(b"f", magic=V7_MAGIC, typeflag=b"\0", mtime=b" " * 12) + END],
        {"f": ""},
    ),
    Attack(
        "CVE-2023-39804",
        "GNU tar: a PAX record whose name was too long for the stack",
        lambda canary: [pax([(b"x" * 2_000_000, b"y")]) + archive(file(b"f"))],
        {"f": ""},
    ),
    Attack(
        "CVE-2016-5418",
        "libarchive: data of a hard link were written into what it led to",
        lambda canary: [
            header(b"h", typeflag=b"1", linkname=canary + b"/file", size=7)
            + tars.padded(b"changed")
            + archive(file(b"g"))
        ],
        refusal="not a tar header",
    ),
    Attack(
        "CVE-2021-23177",
        "libarchive: an ACL was set on what a link led to",
        lambda canary: [archive(symlink(b"l", canary + b"/file", xattrs={b"system.posix_acl_access": ACL}))],
        refusal="setxattr",
    ),
    Attack(
        "CVE-2021-31566",
        "libarchive: owner, mode and time were set on what a link led to",
        lambda canary: [archive(symlink(b"l", canary + b"/file", mode=0o7777, uid=9, gid=9, mtime=9))],
        {"l": "-> canary/file"},
    ),
    Attack(
        "CVE-2024-57970",
        "libarchive: a GNU long link that is cut short was read beyond its end",
        lambda canary: [gnu_long(b"K", b"x" * 2000)[: BLOCK + 700]],
        refusal="cut short",
    ),
    Attack(
        "CVE-2018-20990",
        "Rust's tar: a link was written through by a later entry of its own name",
        lambda canary: [archive(symlink(b"f", canary + b"/file"), file(b"f", b"changed"))],
        {"f": "changed"},
    ),
    Attack(
        "CVE-2021-38511",
        "Rust's tar: folders were made where a link led",
        lambda canary: [archive(symlink(b"l", b".." + canary), folder(b"l/new/one"))],
        {"l": "-> ..canary", "@": "dir", "@/new": "dir", "@/new/one": "dir"},
    ),
    Attack(
        "CVE-2025-62518",
        "Rust's tokio-tar: a size of 0 counted where PAX said another, and a file's bytes became entries",
        lambda canary: [smuggled(0, 2 * BLOCK)],
        {"outer": "smuggled", "last": ""},
    ),
    Attack(
        "CVE-2026-33055",
        "Rust's tar: a size other than 0 counted where PAX said another",
        lambda canary: [smuggled(5 * BLOCK, 2 * BLOCK)],
        {"outer": "smuggled", "last": ""},
    ),
    Attack(
        "CVE-2022-2879",
        "Go's archive/tar: a header was read into memory, however long it said that it was",
        lambda canary: [header(b"x", typeflag=b"x", size=base256(1 << 40, 12)) + bytes(1 << 20)],
        refusal="max-pax-header",
    ),
    Attack(
        "CVE-2025-58183",
        "Go's archive/tar: the map of a sparse file had any length",
        lambda canary: [
            pax(
                [
                    (b"GNU.sparse.major", b"1"),
                    (b"GNU.sparse.minor", b"0"),
                    (b"GNU.sparse.realsize", b"9"),
                    (b"size", b"%d" % (1 << 40)),
                ]
            )
            + header(b"f")
            + b"999999999\n"
            + b"0\n" * (5 << 20)
        ],
        refusal="max-pax-header",
    ),
]

ACL = bytes.fromhex("0200000001000700ffffffff04000700ffffffff20000700ffffffff")
"""An access ACL that allows all to all (acl(5), as it lies in the attribute)."""
