"""Debian's docker-registry (distribution 2.8), as a process."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

from .seaweed import BUCKET, Seaweed
from .tokens import TokenService

USER, PASSWORD = "anna", "open sesame"
_HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"
"""By bcrypt, the only hash that it takes, with the least rounds."""

_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")


class DockerRegistry:
    """A docker-registry while the `with` lasts. Open to all, unless told otherwise.

    It keeps its blobs in `folder`, or in the bucket `BUCKET` of an S3, `objects`, to which it sends who reads them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        basic: bool = False,
        tokens: TokenService | None = None,
        objects: Seaweed | None = None,
        **http: Any,
    ) -> None:
        self.folder = folder
        self.log = folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
            "http": {"addr": "127.0.0.1:0", "secret": "of the tests", **http},
        }
        if objects is not None:
            settings["storage"] = {
                "s3": {
                    "accesskey": "anna",
                    "secretkey": "open sesame",
                    "region": "us-east-1",
                    "regionendpoint": objects.url,
                    "bucket": BUCKET,
                    "secure": False,
                    "v4auth": True,
                    "encrypt": False,
                    "rootdirectory": f"/{folder.name}",
                },
            }
        if basic:
            (folder / "htpasswd").write_text(_HTPASSWD)
            settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
        if tokens is not None:
            (folder / "token.crt").write_bytes(tokens.certificate)
            settings["auth"] = {
                "token": {
                    "realm": f"{tokens.url}/token",
                    "service": tokens.service,
                    "issuer": tokens.issuer,
                    "rootcertbundle": str(folder / "token.crt"),
                }
            }
        self._config = folder / "config.yml"
        self._config.write_text(json.dumps(settings))  # JSON is YAML
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # Dies with the tests, should these be killed.
        with_parent = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        # With AWS_CA_BUNDLE set, Debian's panics; with a TRACES exporter, newer ones wait for one.
        environment = {"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*with_parent, "docker-registry", "serve", str(self._config)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.host = f"127.0.0.1:{self._wait_until_it_listens()}"
        except BaseException:
            self.__exit__()
            raise
        self.url = f"http://{self.host}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _wait_until_it_listens(self) -> int:
        assert self._process is not None
        for _ in range(3000):  # a minute
            if found := _LISTENING.search(self.log.read_text(errors="replace")):
                return int(found[1])
            try:
                self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            break
        raise AssertionError(f"docker-registry does not start:\n{self.log.read_text(errors='replace')}")
