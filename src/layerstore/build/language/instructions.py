"""The 18 instructions as frozen values, in the words of the Dockerfile reference.

What they hold is as it is written: variables stay names until `Scope.expand` fills them in, which gives a value of the
same class. What is not allowed wherever the variables lead (unknown flags, a missing destination) was refused before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from attrs import field

from layerstore.build.errors import Place
from layerstore.values import frozen

__all__ = [
    "Add",
    "Arg",
    "Argument",
    "Cmd",
    "Copy",
    "Dockerfile",
    "Entrypoint",
    "Env",
    "Expose",
    "From",
    "HealthCheck",
    "Heredoc",
    "Instruction",
    "Label",
    "Maintainer",
    "OnBuild",
    "Pair",
    "Run",
    "RunMount",
    "Shell",
    "Stage",
    "StopSignal",
    "User",
    "Volume",
    "Workdir",
]

Command = str | tuple[str, ...]
"""A command: text for the shell (shell form), or the words of a JSON array (exec form)."""


@frozen
class Heredoc:
    """A file that is written in the Dockerfile itself. `expand`: its name is not quoted, so variables are filled in.

    `chomp` (`<<-`): leading tabs are not meant. In COPY and ADD they are gone from `content`; in RUN, which may have to
    give all of it to the shell as it is, they are still there.
    """

    name: str
    content: str
    expand: bool = True
    chomp: bool = False


@frozen
class RunMount:
    """`RUN --mount`. What is not said is None, or what BuildKit takes then.

    A relative `target` is below the working directory; `""` is that directory itself. `id` is that of a cache (its
    target if nothing is said), a secret or an ssh agent. `mode` is a number, `size` is in bytes. `env` is the
    variable that gets a secret; then there is a file as well only if `target` says so.
    """

    type: str = "bind"
    target: str = ""
    source: str = ""
    from_: str | None = None
    id: str | None = None
    readonly: bool = True
    sharing: str = "shared"
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    required: bool = False
    env: str | None = None
    size: int | None = None
    text: str = ""
    """As it is written."""


@frozen
class Pair:
    """`NAME=value`; `legacy` if it is written `NAME value`."""

    name: str
    value: str
    legacy: bool = False


@frozen
class Argument:
    """One name of an ARG. `value` is its default; after expansion, what it has in this build. None: nothing."""

    name: str
    value: str | None = None


@frozen(kw_only=True)
class Instruction:
    """What all of them have."""

    NAME: ClassVar[str] = ""

    place: Place
    original: str
    """The line without its continuations, as it is written; of a heredoc, the line that begins it."""
    comments: tuple[str, ...] = ()
    """The comment lines right above it, without their `#`."""
    trigger: bool = False
    """It comes from an ONBUILD of the base image."""

    @property
    def keyword(self) -> str:
        """Its name as it is written: `FROM`, `from`."""
        return self.original.split(None, 1)[0]


@frozen(kw_only=True)
class From(Instruction):
    """The base of a stage: an image, an earlier stage, a named context or `scratch`."""

    NAME: ClassVar[str] = "FROM"
    image: str
    platform: str | None = None
    alias: str | None = None
    """The name of the stage, in lower case; None if it has none."""
    alias_written: str | None = None
    """The same as it is written."""
    as_written: str = ""
    """The word `AS` as it is written."""


@frozen(kw_only=True)
class Run(Instruction):
    """A command that is run in the container so far; what it writes becomes a layer."""

    NAME: ClassVar[str] = "RUN"
    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[RunMount, ...] = ()
    """Before expansion, of those that have variables only `from_` (which may have none) can be relied on."""
    network: str | None = None
    security: str | None = None


@frozen(kw_only=True)
class _Transfer(Instruction):
    """What COPY and ADD have in common. `exclude` are patterns as in .dockerignore."""

    sources: tuple[str, ...]
    heredocs: tuple[Heredoc, ...] = ()
    target: str
    chown: str | None = None
    chmod: str | None = None
    link: bool = False
    exclude: tuple[str, ...] = ()


@frozen(kw_only=True)
class Copy(_Transfer):
    """Files from the context, a stage, an image or a named context."""

    NAME: ClassVar[str] = "COPY"
    from_: str | None = None
    parents: bool = False


@frozen(kw_only=True)
class Add(_Transfer):
    """Files from the context or from elsewhere. `unpack` and `keep_git_dir` are None if nothing is said."""

    NAME: ClassVar[str] = "ADD"
    checksum: str | None = None
    keep_git_dir: bool | None = None
    unpack: bool | None = None

    from_: None = field(default=None, init=False)
    parents: bool = field(default=False, init=False)


@frozen(kw_only=True)
class Env(Instruction):
    """Variables of the environment, in this build and in the image."""

    NAME: ClassVar[str] = "ENV"
    variables: tuple[Pair, ...]


@frozen(kw_only=True)
class Arg(Instruction):
    """Variables that `--build-arg` may set, in this build alone."""

    NAME: ClassVar[str] = "ARG"
    arguments: tuple[Argument, ...]


@frozen(kw_only=True)
class Label(Instruction):
    """Labels of the image."""

    NAME: ClassVar[str] = "LABEL"
    labels: tuple[Pair, ...]


@frozen(kw_only=True)
class Expose(Instruction):
    """Ports as they are written: `80`, `53/udp`, `8000-8010`."""

    NAME: ClassVar[str] = "EXPOSE"
    ports: tuple[str, ...]


@frozen(kw_only=True)
class Volume(Instruction):
    """Paths where containers get volumes."""

    NAME: ClassVar[str] = "VOLUME"
    paths: tuple[str, ...]


@frozen(kw_only=True)
class User(Instruction):
    """Who runs what follows: `name`, `uid`, `name:group`, `uid:gid`."""

    NAME: ClassVar[str] = "USER"
    user: str


@frozen(kw_only=True)
class Workdir(Instruction):
    """The directory of what follows; a relative one is below the one before."""

    NAME: ClassVar[str] = "WORKDIR"
    path: str


@frozen(kw_only=True)
class Cmd(Instruction):
    """What a container runs if it is told nothing else, or the arguments of its entrypoint."""

    NAME: ClassVar[str] = "CMD"
    command: Command


@frozen(kw_only=True)
class Entrypoint(Instruction):
    """What a container runs."""

    NAME: ClassVar[str] = "ENTRYPOINT"
    command: Command


@frozen(kw_only=True)
class Shell(Instruction):
    """What runs the shell forms that follow."""

    NAME: ClassVar[str] = "SHELL"
    words: tuple[str, ...]


@frozen(kw_only=True)
class StopSignal(Instruction):
    """The signal that ends a container."""

    NAME: ClassVar[str] = "STOPSIGNAL"
    signal: str


@frozen(kw_only=True)
class HealthCheck(Instruction):
    """How to find out whether a container works. Times in nanoseconds; 0 is the default of whoever runs it.

    `test` is `("NONE",)`, `("CMD", word, …)` or `("CMD-SHELL", text)`.
    """

    NAME: ClassVar[str] = "HEALTHCHECK"
    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@frozen(kw_only=True)
class OnBuild(Instruction):
    """An instruction for builds whose base this image will be."""

    NAME: ClassVar[str] = "ONBUILD"
    expression: str


@frozen(kw_only=True)
class Maintainer(Instruction):
    """Who wrote the image: the `author` of its config."""

    NAME: ClassVar[str] = "MAINTAINER"
    author: str


@frozen
class Stage:
    """A FROM and what follows it. `name` is in lower case, None if it has none."""

    index: int
    name: str | None
    base: From
    instructions: tuple[Instruction, ...]

    @property
    def shown(self) -> str:
        """Its name in progress and errors: `stage-0` if it has none."""
        return self.name or f"stage-{self.index}"


@frozen
class Dockerfile:
    """All of a file. `directives` are its first comment lines: `syntax`, `escape`, `check`."""

    file: str
    directives: Mapping[str, str]
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    empty_continuations: tuple[Place, ...] = ()
    """Lines that end with a continuation and have an empty one below, which BuildKit warns of."""

    @property
    def escape(self) -> str:
        """The letter that escapes the next one, and continues a line: a backslash, or a backtick."""
        return self.directives.get("escape", "\\")
