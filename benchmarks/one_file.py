"""What one file of a large image in a registry costs: the bytes that the registry sends for it.

    python -m benchmarks.one_file [--size 560]

The image is that of `benchmarks.lazy`: this machine's own Python and as much of its /usr as the size says (MiB), in one
layer. It is in a docker-registry as zstd:chunked, which skopeo made, as gzip with our index, and as gzip alone. A file
of some KiB from the middle of the layer is read by `layerstore cat` and by `layerstore.fs`, each in a process of its
own that has no store. The bytes are those that a relay before the registry hands to the client: manifests, configs,
headers of HTTP and all. What comes is compared with the file.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import time
from argparse import ArgumentParser, RawTextHelpFormatter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Final

from attrs import asdict, frozen

from benchmarks.bench import Measured, filesystem, machine, run, table, write_results
from benchmarks.clients import Registry
from benchmarks.lazy import make_image, opened
from benchmarks.relay import Relay

CHUNKED, INDEXED, GZIP = "zstd:chunked", "gzip, with an index", "gzip"
FORMS: Final = (CHUNKED, INDEXED, GZIP)
COMMAND, FSSPEC = "layerstore cat", "layerstore.fs"
BY_FSSPEC: Final = """
import sys
from layerstore.fs import RegistryFileSystem
fs = RegistryFileSystem(sys.argv[1], indexes=sys.argv[3] == "indexes")
sys.stdout.buffer.write(fs.cat_file(sys.argv[2]))
fs.close()
"""


@frozen
class Took:
    """One file read. Bytes are those that the registry sent; the time is that of the whole process."""

    form: str
    way: str
    bytes: int
    requests: int
    seconds: float


def ways(form: str, name: str, path: str) -> dict[str, list[str | Path]]:
    """How the file is read."""
    program, option = Path(sys.executable).with_name("layerstore"), ["--indexes"] if form == INDEXED else []
    return {
        COMMAND: [program, "cat", *option, f"docker://{name}:{path}"],
        FSSPEC: [sys.executable, "-c", BY_FSSPEC, name, path, "indexes" if form == INDEXED else "none"],
    }


def wanted(layer: Path) -> tuple[str, bytes]:
    """A file of some KiB from the middle of the layer."""
    half = layer.stat().st_size // 2
    with tarfile.open(layer) as tar:
        for entry in tar:
            if entry.isreg() and entry.offset > half and 2048 <= entry.size <= 16384:
                file = tar.extractfile(entry)
                assert file is not None
                return f"/{entry.name}", file.read()
    sys.exit("the layer has no file of that size in its second half")


def fill(place: Path, layer: Path, host: str) -> dict[str, str]:
    """Have the image in the registry in each form; its repositories."""
    names = {form: f"bench/form{number}:1" for number, form in enumerate(FORMS)}
    with opened(place / "origin" / "store") as store:
        for form in (GZIP, INDEXED):
            store.import_tar(layer, f"{host}/{names[form]}")
            store.push(f"{host}/{names[form]}", with_index=form == INDEXED)
        store.save(f"{host}/{names[GZIP]}", place / "image.tar")
    source, target = f"docker-archive:{place / 'image.tar'}", f"docker://{host}/{names[CHUNKED]}"
    options = ["--dest-tls-verify=false", "--format", "oci", "--dest-compress-format", "zstd:chunked"]
    run("skopeo", "copy", "-q", "--insecure-policy", *options, source, target)
    return names


def size_of(registry: Registry, name: str) -> int:
    """The bytes of the layers of an image."""
    repository, _, tag = name.partition(":")
    return sum(layer["size"] for layer in registry.get(f"/v2/{repository}/manifests/{tag}")["layers"])


def measure(relay: Relay, form: str, name: str, path: str, expected: bytes) -> Iterator[Took]:
    """Read the file in each way."""
    for way, words in ways(form, f"{relay.host.replace('127.0.0.1', 'localhost')}/{name}", path).items():
        relay.count_anew()
        before, start = relay.carried, time.perf_counter()
        done = subprocess.run(words, capture_output=True, check=True)
        seconds = time.perf_counter() - start
        assert done.stdout == expected, (form, way)
        yield Took(form, way, relay.carried - before, relay.requests, seconds)


def main() -> None:
    """See the module's text."""
    parser = ArgumentParser(prog="one_file", description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=560)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where loop images are made")
    parser.add_argument("--results", type=Path, help="folder to write the results to")
    options = parser.parse_args()
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        registry = undo.enter_context(Registry(folder / "registry"))
        layer = make_image(folder, options.size << 20)
        total = layer.stat().st_size
        path, expected = wanted(layer)
        place = undo.enter_context(filesystem(folder, size=(options.size * 6 + 2048) << 20))
        names = fill(place, layer, registry.host)
        sizes = {form: size_of(registry, name) for form, name in names.items()}
        relay = undo.enter_context(Relay(registry.host))
        found = [one for form in FORMS for one in measure(relay, form, names[form], path, expected)]
    rows = [
        [
            one.form,
            one.way,
            f"{sizes[one.form]:,}",
            f"{one.bytes:,}",
            f"{one.bytes / total:.2%}",
            f"{one.bytes / sizes[one.form]:.2%}",
            str(one.requests),
            f"{one.seconds:.2f}",
        ]
        for one in found
    ]
    head = ["layer", "way", "its bytes there", "bytes sent", "of the tar", "of the layer", "requests", "seconds"]
    text = table(head, rows)
    print(text)
    if options.results is None:
        return
    write_results(
        options.results / f"{date.today():%Y-%m-%d}-one-file",
        title="One file of a large image in a registry",
        facts=machine(),
        measured=[Measured(one.way, one.form, (one.seconds,)) for one in found],
        tables=text,
        remarks=[
            f"a tar of {total:,} bytes in one layer; {path} with {len(expected):,} bytes came right each time",
            "bytes sent: manifests, configs and headers of HTTP are among them; aim: 2 % of the image",
            "seconds: of the whole process, once, on a machine that others used",
        ],
        more={"found": [asdict(one) for one in found], "layers": sizes, "tar": total},
    )


if __name__ == "__main__":
    main()
