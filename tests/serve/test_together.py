"""Many clients at once, who push, pull and delete the same things."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import pytest

from serve import datasets
from serve.client import Client, digest

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.faces.serve.server import Server

pytestmark = pytest.mark.root


def test_many_clients_at_once(store: Store, serve: Callable[..., Server]) -> None:
    """Each answer is one that the protocol knows, what is there is whole, and nothing is left over."""
    server = serve(threads=6)
    shared = [datasets.make("image"), datasets.make("index"), datasets.make("artifacts-with-subject")]
    wrong: list[object] = []

    def live(number: int) -> None:
        random = Random(number)
        try:
            with Client(f"127.0.0.1:{server.port}") as client:
                for _ in range(6):
                    work(client, random, random.choice(shared))
        except Exception as error:
            wrong.append(error)

    def expect(found: object, status: int, *allowed: int) -> None:
        if status not in allowed:
            wrong.append(found)

    def work(client: Client, random: Random, data: datasets.Dataset) -> None:
        name = random.choice(["team/a", "team/b"])
        for content in data.blobs.values():
            if client("HEAD", f"/v2/{name}/blobs/{digest(content)}").status == 404:
                client.put_blob(name, content)
        for ref, (media_type, document) in data.manifests.items():
            found = client.put_manifest(name, ref, document, media_type)
            expect(found, found.status, 201, 404)
        for tag, ref in data.tags.items():
            found = client.put_manifest(name, tag, data.manifests[ref][1], data.manifests[ref][0])
            expect(found, found.status, 201, 404)
            found = client("GET", f"/v2/{name}/manifests/{tag}")
            expect(found, found.status, 200, 404)
        ref = random.choice([*data.manifests, *data.tags])
        if random.random() < 0.6:
            found = client("DELETE", f"/v2/{name}/manifests/{ref}")
            expect(found, found.status, 202, 404)
        for blob in data.blobs:
            if random.random() < 0.2:
                found = client("DELETE", f"/v2/{name}/blobs/{blob}")
                expect(found, found.status, 202, 404, 405)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store.check(content=True) == []
    with Client(f"127.0.0.1:{server.port}") as client:
        for name in client("GET", "/v2/_catalog").json["repositories"]:
            for tag in client("GET", f"/v2/{name}/tags/list").json["tags"]:
                found = client("GET", f"/v2/{name}/manifests/{tag}").json
                for part in (*found.get("layers", ()), *([found["config"]] if "config" in found else ())):
                    assert digest(client("GET", f"/v2/{name}/blobs/{part['digest']}").body) == part["digest"]
                for part in found.get("manifests", ()):
                    assert client("GET", f"/v2/{name}/manifests/{part['digest']}").status in (200, 404)
                assert client("DELETE", f"/v2/{name}/manifests/{tag}").status == 202
    for image in store.images():
        store.remove_image(image.id, force=True)
    store.repositories.prune(age=0)
    assert store.blobs.holds() == {}
    assert store.check(content=True) == []
