"""What the values of `build`'s options mean, in docker's forms. Pure; each raises `ValueError` in words."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from typing import Literal, cast

from layerstore.build.options import EXPORTS, Export, Secret, Ssh

__all__ = [
    "annotation",
    "arguments",
    "attestation",
    "call",
    "export",
    "fields",
    "label",
    "named",
    "secret",
    "ssh",
    "without",
]

_TRUTHS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


def named(text: str) -> tuple[str, str]:
    """`NAME=VALUE`, both of which there have to be."""
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise ValueError("must be NAME=VALUE")
    return name, value


def label(text: str) -> tuple[str, str]:
    """`NAME[=VALUE]`; without a value it is empty, as docker has it."""
    name, _, value = text.partition("=")
    if not name:
        raise ValueError("names nothing")
    return name, value


def annotation(text: str) -> tuple[str, str]:
    """`[manifest:]KEY=VALUE`, as buildx has it. Nothing here has an index, which would have some of its own."""
    name, equals, value = text.partition("=")
    kinds, colon, key = name.rpartition(":")
    if not key or not equals:
        raise ValueError("must be KEY=VALUE")
    if colon and kinds != "manifest":
        raise ValueError(f"annotates '{kinds}': only a manifest can be annotated")
    return key, value


def arguments(given: Iterable[str], own: Mapping[str, str]) -> dict[str, str]:
    """Each `--build-arg NAME[=VALUE]`; a name alone has the value that it has in `own`, or is left out."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name:
            raise ValueError(f"{text!r} names no variable")
        found.pop(name, None)
        if equals or name in own:
            found[name] = value if equals else own[name]
    return found


def fields(text: str) -> dict[str, str]:
    """`key=value,key=value` as CSV has it, so that a value in quotes may have a comma."""
    try:
        words = next(csv.reader([text], strict=True), [])
    except csv.Error as wrong:
        raise ValueError(str(wrong)) from None
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"invalid field '{word}' must be a key=value pair")
        found[key.strip().lower()] = value
    return found


def _only(found: Mapping[str, str], *known: str) -> None:
    for key in found:
        if key not in known:
            raise ValueError(f"unexpected key '{key}', of {', '.join(known)}")


def secret(text: str) -> Secret:
    """`id=ID[,src=FILE][,env=NAME][,type=file|env]`. With `type=env`, src names a variable."""
    found = fields(text)
    _only(found, "id", "src", "source", "env", "type")
    name = found.get("id", "")
    source = found.get("src", found.get("source"))
    variable = found.get("env")
    kind = found.get("type", "env" if variable is not None else "file" if source is not None else "")
    if kind not in ("", "file", "env"):
        raise ValueError(f"unsupported secret type '{kind}'")
    if variable is not None and (source is not None or kind == "file"):
        raise ValueError("a secret is in a file or in a variable")
    if not name and source is None and variable is None:
        raise ValueError("missing id")
    if kind == "env":
        variable, source = variable or source or name, None
    name = name or variable or (source or "").rpartition("/")[2]
    return Secret(name, file=source, env=variable)


def ssh(text: str) -> Ssh:
    """`default`, or `ID=SOCKET|KEY[,KEY]`."""
    name, equals, paths = text.partition("=")
    if not name:
        raise ValueError("missing id")
    found = tuple(path for path in paths.split(",") if path)
    if equals and not found:
        raise ValueError("names neither a socket nor a key")
    return Ssh(name, found)


def export(text: str) -> Export:
    """`type=KIND,dest=PATH,…`; a path alone is a folder, `-` a tar on standard output.

    As in docker, `docker` without a path is the image in the store, and `oci` with `tar=false` is a folder.
    """
    if text == "-":
        return Export("tar", "-")
    if "=" not in text:
        if not text:
            raise ValueError("names no place")
        return Export("local", text)
    found = fields(text)
    _only(found, "type", "dest", "name", "push", "rewrite-timestamp", "tar")
    given = found.get("type", "")
    if given == "registry":
        given, found["push"] = "image", "true"
    if given not in EXPORTS:
        raise ValueError(f"type is {', '.join(EXPORTS)} or registry, not '{given}'")
    place = found.get("dest")
    if given == "docker" and not place:
        given = "image"
    kind = cast("Literal['image', 'oci', 'docker', 'tar', 'local', 'cacheonly']", given)
    if kind == "cacheonly":
        if place is not None:
            raise ValueError("type=cacheonly writes nothing, and has no dest")
        return Export(kind)
    if kind == "local" and place == "-":
        raise ValueError("a folder is no standard output: type=tar,dest=- is a tar there")
    if not _truth(found, "tar", "true"):
        if kind != "oci" or place in (None, "", "-"):
            raise ValueError("tar=false is a folder, which is of type oci, and needs a dest")
        place = f"{place}/"
    if kind != "image" and not place:
        if kind == "local":
            raise ValueError("dest is required for local output")
        place = "-"
    if kind == "image" and place is not None:
        raise ValueError("an image in the store has no dest")
    names = tuple(name for name in found.get("name", "").split(",") if name)
    return Export(
        kind,
        place,
        names,
        push=_truth(found, "push"),
        rewrite_timestamp=_truth(found, "rewrite-timestamp"),
    )


def call(text: str) -> str:
    """`--call`: the names of what is done here. buildx has two more, and the form in which it is told."""
    method, comma, _ = text.partition(",")
    if method not in ("build", "check", "lint", "outline", "targets"):
        raise ValueError(f"unsupported call '{method}': it is build or check")
    if method in ("outline", "targets") or comma:
        raise ValueError("is not done here: it is build or check, without a format (layerstore build --help)")
    return method


def without(text: str) -> bool:
    """`--provenance` and `--sbom`: nothing is attested, so they can be turned off only."""
    if _TRUTHS.get(text) is not False:
        raise ValueError("no attestations are made here: it can be false")
    return False


def form(text: str) -> str:
    """podman's `--format`: which manifest an image has, of which OCI's alone is made here."""
    if text != "oci":
        raise ValueError("images have OCI's manifests; `layerstore save` and `push` tell what others are given")
    return text


def attestation(text: str) -> str:
    """`--attest type=TYPE,disabled=true`."""
    found = fields(text)
    if _TRUTHS.get(found.get("disabled", "false")) is not True:
        raise ValueError("no attestations are made here: type=TYPE,disabled=true is taken")
    return found.get("type", "")


def _truth(found: Mapping[str, str], key: str, default: str = "false") -> bool:
    text = found.get(key, default) or "true"
    if text not in _TRUTHS:
        raise ValueError(f"{key} is true or false, not '{text}'")
    return _TRUTHS[text]
