"""Another builder of Dockerfiles, with a storage of its own, and the bases that both builders begin from."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cached_property
from pathlib import Path

from attrs import frozen

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/usr/sbin:/bin/false
nobody:x:65534:65534::/home:/bin/false
"""
GROUP = "root:x:0:\ndaemon:x:1:\nnobody:x:65534:\n"


def busybox(target: Path) -> Path:
    """The tar of a root filesystem with a busybox and the names that it goes by."""
    root = target.with_suffix(".root")
    for name in ("bin", "etc", "root", "sbin", "tmp", "usr/bin", "usr/sbin", "var/tmp"):
        (root / name).mkdir(parents=True)
    for name, mode in (("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777)):
        (root / name).chmod(mode)
    program = root / "bin/busybox"
    shutil.copy(str(shutil.which("busybox")), program)
    for name in subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    return packed(root, target)


def debian(target: Path) -> Path:
    """The tar of the smallest Debian that has apt, which is asked as this machine's own is."""
    root = target.with_suffix(".root")
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", root], check=True, stdout=subprocess.DEVNULL)
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log"):
        for path in (root / folder).rglob("*"):
            if path.is_file():
                path.unlink()
    return packed(root, target)


def packed(root: Path, target: Path) -> Path:
    """The tar of a folder, which goes."""
    subprocess.run(["tar", "-C", root, "--sort=name", "--numeric-owner", "-cf", target, "."], check=True)
    shutil.rmtree(root)
    return target


@frozen(slots=False)
class Buildah:
    """buildah, whose storage lies in `folder`."""

    folder: Path

    def __call__(self, *words: str | Path) -> str:
        """Run one of its commands, in a mount namespace of its own, for it leaves mounts behind; what it prints."""
        storage = [f"--root={self.folder}/graph", f"--runroot={self.folder}/run", "--storage-driver=overlay"]
        done = subprocess.run(
            ["unshare", "--mount", "buildah", *storage, *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"buildah {' '.join(map(str, words))}: {done.stderr[-2000:]}")
        return str(done.stdout).strip()

    @cached_property
    def _environment(self) -> dict[str, str]:
        settings = self.folder / "storage.conf"
        self.folder.mkdir(exist_ok=True)
        settings.write_text('[storage]\ndriver = "overlay"\n')
        policy = self.folder / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        return {**os.environ, "BUILDAH_ISOLATION": "chroot", "CONTAINERS_STORAGE_CONF": str(settings)}

    def base(self, name: str, root: Path) -> None:
        """Make an image of the tar of a root filesystem."""
        box = self("from", "scratch")
        self("add", "-q", box, root, "/")
        self("config", "--cmd", '["sh"]', "--env", PATH, box)
        self("commit", "-q", "--rm", box, f"localhost/{name}")

    def build(self, context: Path, name: str) -> None:
        """Build a context's Dockerfile."""
        options = ["--layers", "--pull-never", "--network=host", "--format=docker", self._policy]
        self("bud", *options, "-q", "-t", f"localhost/{name}", context)

    def save(self, name: str, target: Path) -> Path:
        """Write an image as a docker-archive, which has all that docker's format has."""
        self("push", "-q", self._policy, f"localhost/{name}", f"docker-archive:{target}:{name}")
        return target

    @property
    def _policy(self) -> str:
        return f"--signature-policy={self.folder}/policy.json"

    def clear(self) -> None:
        """Remove all of its images, and its storage."""
        self("rmi", "--all", "--force")
        shutil.rmtree(self.folder)
