"""What of a `Container` gives its tree to programs: launched beside it, started in it, and those that have it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from layerstore.containers.process import Process
from layerstore.containers.rows import Resident
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.containers.container import Container
    from layerstore.containers.launching import Stream
    from layerstore.kernel.processes.housing import Bind, Tmpfs
    from layerstore.kernel.processes.identity import Identity


@in_words("container {0.name}")
class Starts:
    """What a container can do with programs by itself, without what runs containers."""

    def launch(
        self,
        argv: Sequence[str],
        *,
        root: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        fds: Iterable[int] = (),
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        hide: Iterable[str | os.PathLike[str]] = (),
        new_session: bool = False,
        trees: Mapping[str, int] | None = None,
        lasts: bool = True,
        before: Callable[[int], object] | None = None,
    ) -> Process:
        """Start a program of the host, an OCI runtime or what stands before one, that sees this container's tree.

        The tree is mounted, writable, at `root`, an existing folder, in a mount namespace of the program and of what it
        starts; nowhere else, so nothing is left of it when the last of them has ended. If the container is mounted, or
        other processes have it, all see the same tree. In that namespace mounts are slaves of the host's (those of
        other containers of this store are not there); what is mounted at a path of `hide` is taken away there, and it
        is no error if nothing is.

        `argv[0]` is looked for in the PATH of `env`; None is this process's environment. `fds` are the descriptors that
        it has beside the streams, under the same numbers (3 and above). A stream is a descriptor or an open file,
        `subprocess.DEVNULL`, or None for this process's own. `new_session`: setsid(2) before.
        `lasts`: False for a container that is removed when the program has ended, whose writes then need not be on the
        disk; should it stay, and the machine go down, the driver may say that they are `Damaged`.
        `trees` are more that it sees, by the folder at which it does: what `Image.open_tree` gives, each once.
        `before` is called with a descriptor of the tree, to be read, before there is a process: what the program is to
        be told can depend on it. It may not ask anything of this container; what it raises is raised, and nothing runs.

        The container is running until the process, and all that `Process.keep` was told of, have ended. The process is
        in the database before it executes anything, and gone if this one dies before that. It outlives this process.

        Raises `CannotStart` (with `code` 127 or 126), `KernelError`, `ConfigError`; then nothing runs.
        """
        from layerstore.containers import launching

        container = self._container
        made = launching.program(
            container._containers.storage,
            argv,
            env=env,
            cwd=cwd,
            fds=fds,
            streams=(stdin, stdout, stderr),
            hide=hide,
            new_session=new_session,
            trees=trees or {},
        )
        container._state = None
        launcher = launching.launcher(made, root)
        return container._containers.launch(container, launcher, os.fsencode(root), lasts=lasts, before=before)

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        working_dir: str = "/",
        make_working_dir: bool = False,
        uid: int = 0,
        gid: int = 0,
        groups: Iterable[int] = (),
        hostname: str | None = None,
        mounts: Iterable[Bind | Tmpfs] = (),
        limits: Mapping[int, tuple[int, int]] | None = None,
        umask: int = 0o022,
        fds: Iterable[int] = (),
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        terminal: bool = False,
        init: bool = True,
        isolated: bool = True,
    ) -> Process:
        """Start a program of this container in it, without a runtime: quick, and less than a sandbox.

        The container's tree is its root, and with /proc, /dev and /sys (read-only), where the tree has folders for
        them, all that it sees. It has pid, mount, ipc and uts namespaces of its own; `isolated=False`: a mount
        namespace alone. The network is the host's; it keeps root's capabilities, no call is forbidden to it, and no
        cgroup limits it: for programs that are trusted.

        `argv[0]` is looked for in the PATH of `env`, which is all that it has; None is docker's PATH. `mounts` are made
        in the tree; a target that is not there is made, and stays; `working_dir` likewise, with `make_working_dir`.
        `limits` are by the numbers of `resource`, with -1 for none. `hostname`: None is the short ID. Streams and `fds`
        are as with `launch`; with `terminal`, they are a terminal of the container, and `Process.terminal` is its other
        end.

        With `init`, its parent is the first process of the pid namespace, which buries what it leaves behind, passes
        on signals, and ends as it does: 128 and the number of its signal. Without, it is the first process itself, and
        a signal that it does not handle does nothing, but for SIGKILL. All of the namespace ends with the first.

        While it lives, the container is running, as with `launch`. Raises `CannotStart`, `KernelError`, `ConfigError`;
        then nothing runs.
        """
        from layerstore.containers import launching
        from layerstore.kernel.processes.housing import House

        container = self._container
        house = House(
            mounts=tuple(mounts),
            hostname=(container.short_id if hostname is None else hostname) if isolated else None,
            isolated=isolated,
            terminal=terminal,
            limits=limits or {},
            umask=umask,
            uid=uid,
            gid=gid,
            groups=tuple(groups),
            init=init and isolated,
            makes_folder=make_working_dir,
        )
        streams = (stdin, stdout, stderr)
        made = launching.housed(argv, env=env, working_dir=working_dir, fds=fds, streams=streams, house=house)
        container._state = None
        # Any folder of the host will do, to be turned into the root from.
        launcher = launching.launcher(made, container._containers.storage.driver.home)
        return container._containers.launch(container, launcher, b"/")

    def processes(self) -> list[Process]:
        """The processes that have its tree and live, as far as this library was told of them, the first first."""
        container = self._container
        found = container._containers.residents(container.id)
        return [Process(container, resident.identity, None, resident.root) for resident in found]

    def _keep(self, identity: Identity, root: bytes) -> Process:
        container = self._container
        container._containers.keep(container.id, Resident(identity, root))
        return Process(container, identity, None, root)

    def _settle(self) -> None:
        container = self._container
        container._state = None
        if not container._containers.session.closed:
            container._containers.settle(container.id)

    @property
    def _container(self) -> Container:
        """The whole of which this is a part."""
        return cast("Container", self)
