"""The options of `build` as click has them, and the `BuildOptions` that they come to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import click
from attrs import evolve

from layerstore.cli.building import values
from layerstore.cli.run_options import many, one, switch
from layerstore.cli.run_options import values as run_values

if TYPE_CHECKING:
    from layerstore.build.options import BuildOptions

__all__ = ["build_options_of", "build_options_taken"]

F = TypeVar("F", bound=Callable[..., Any])


def _checked(text: str) -> str:
    """A limit as it is written; whether it is one is found out here."""
    run_values.ulimit(text)
    return text


def _host(text: str) -> str:
    run_values.host(text)
    return text


_OPTIONS: Final = (
    many("--add-host", "add_hosts", read=_host, metavar="HOST:IP", text="Add a line to /etc/hosts"),
    many("--allow", metavar="NAME", text="Let RUN have network.host or security.insecure"),
    many("--annotation", "annotations", read=values.annotation, metavar="KEY=VALUE", text="Annotate the manifest"),
    many("--build-arg", "build_args", metavar="NAME[=VALUE]", text="Set an ARG (default: this shell's value)"),
    many("--build-context", "contexts", read=values.named, metavar="NAME=PLACE", text="Add a context by that name"),
    many("--cache-from", metavar="PLACE", text="Take steps from there (type=local,src=DIR, an image, …)"),
    many("--cache-to", metavar="PLACE", text="Put steps there (type=local,dest=DIR, type=inline, …)"),
    one("--cgroup-parent", metavar="PATH", default="", text="Cgroup in which those of RUN are made"),
    one(
        "-f",
        "--file",
        metavar="FILE",
        text="The Dockerfile (default: PATH/Containerfile, else PATH/Dockerfile; -: standard input)",
    ),
    many("--label", "labels", read=values.label, metavar="KEY[=VALUE]", text="Set a label of the image"),
    one(
        "--network",
        read=lambda text: _one_of(text, "default", "host", "none"),
        metavar="MODE",
        default="default",
        text="Network of RUN: default, host or none",
    ),
    switch("--no-cache", text="Do each step again"),
    many("--no-cache-filter", metavar="STAGE", text="Do the steps of these stages again"),
    one(
        "--on-failure",
        read=lambda text: _one_of(text, "remove", "shell", "checkpoint"),
        metavar="WHAT",
        default="remove",
        text="What becomes of a failed RUN's container: remove it, open a shell in it, checkpoint it",
    ),
    many("-o", "--output", "outputs", read=values.export, metavar="PLACE", text="Where to (type=oci,dest=FILE)"),
    one("--platform", metavar="OS[/ARCH[/VARIANT]]", text="Platform of the image (default: the host's)"),
    switch("--pull", text="Look whether registries have newer base images"),
    switch("--push", text="Push the image under its names"),
    one("--runtime", metavar="NAME", text="OCI runtime that runs RUN (crun, runc, …)"),
    many(
        "--secret",
        "secrets",
        read=values.secret,
        metavar="id=ID,src=FILE",
        text="Let RUN mount a secret",
    ),
    one("--shm-size", read=run_values.size, metavar="BYTES", text="Size of /dev/shm in RUN (default: 64m)"),
    switch("--squash", text="Make one layer of all that the build adds"),
    many("--ssh", read=values.ssh, metavar="ID[=SOCKET|KEY]", text="Let RUN --mount=type=ssh have an agent or keys"),
    many("-t", "--tag", "tags", metavar="NAME", text="Name the image (may be given several times)"),
    one("--target", metavar="STAGE", text="Build this stage (default: the last one)"),
    many("--ulimit", "ulimits", read=_checked, metavar="NAME=SOFT[:HARD]", text="Set a resource limit of RUN"),
    switch("--verify", text="Do each step a second time, and tell what differs"),
)


def _one_of(text: str, *known: str) -> str:
    if text not in known:
        raise ValueError(f"must be {', '.join(known[:-1])} or {known[-1]}")
    return text


def build_options_taken(function: F) -> F:
    """Give a command of click's these options."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def build_options_of(given: Mapping[str, Any], own: Mapping[str, str] | None = None) -> BuildOptions:
    """What the options come to. `own` are the variables of this process. Raises `click.UsageError`."""
    from layerstore.build.options import BuildOptions, Export

    own = os.environ if own is None else own
    try:
        build_args = values.arguments(given["build_args"], own)
    except ValueError as wrong:
        raise click.UsageError(f"--build-arg: {wrong}") from None
    outputs: tuple[Export, ...] = given["outputs"] or (Export(),)
    if given["push"]:
        images = [output for output in outputs if output.kind == "image"] or [Export()]
        others = [output for output in outputs if output.kind != "image"]
        outputs = (*(evolve(image, push=True) for image in images), *others)
    return BuildOptions(
        file=given["file"],
        tags=given["tags"],
        target=given["target"],
        build_args=build_args,
        contexts=dict(given["contexts"]),
        secrets=given["secrets"],
        ssh=given["ssh"],
        platform=given["platform"],
        no_cache=given["no_cache"],
        no_cache_filter=given["no_cache_filter"],
        pull=given["pull"],
        cache_from=given["cache_from"],
        cache_to=given["cache_to"],
        outputs=outputs,
        labels=dict(given["labels"]),
        annotations=dict(given["annotations"]),
        squash=given["squash"],
        network=given["network"],
        allow=given["allow"],
        add_hosts=given["add_hosts"],
        shm_size=given["shm_size"],
        ulimits=given["ulimits"],
        cgroup_parent=given["cgroup_parent"],
        runtime=given["runtime"],
        verify=given["verify"],
        on_failure=_failure(given["on_failure"]),
    )


def _failure(text: str) -> Literal["remove", "shell", "checkpoint"]:
    return "shell" if text == "shell" else "checkpoint" if text == "checkpoint" else "remove"
