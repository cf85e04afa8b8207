"""A row of the database and the record beside it say different things: which is true, where that can be proved.

What a layer is, is proved by its files; an image's config by the image's ID. The rest nobody can prove: then both are
told, and neither is altered.
"""

from __future__ import annotations

from attrs import evolve

from layerstore.database import Database
from layerstore.digest import DiffID, ImageID, of_bytes
from layerstore.errors import Damaged, LayerstoreError, named
from layerstore.images import rows as image_rows
from layerstore.layers import Diff, Layers
from layerstore.layers import rows as layer_rows
from layerstore.layers.diffs import differences
from layerstore.layers.files import LayerFiles
from layerstore.records import Mirror

__all__ = ["prove_images", "prove_layers"]


def prove_layers(layers: Layers, files: LayerFiles) -> tuple[set[DiffID], dict[str | None, LayerstoreError]]:
    """Write rows and records of layers anew that are not the same, of what the files prove.

    Returns the DiffIDs that rows had and that were none, and by the paths of records why nothing could be proved.
    """
    wrong: set[DiffID] = set()
    errors: dict[str | None, LayerstoreError] = {}
    with layers.database.read() as tx:
        diffs, places = layer_rows.all_diffs(tx), layer_rows.places(tx)
    for row in diffs:
        try:
            read = files.read_record(row.key)
        except Damaged:
            read = None
        except LayerstoreError as error:
            errors[str(files.record_of(row.key))] = error
            continue
        record = row if read is None else read[0]
        if read is not None and not differences(row, record):
            continue
        try:
            right = _proved(row, record, files)
        except LayerstoreError as error:
            errors[str(files.record_of(row.key))] = error
            continue
        if differences(row, right):
            wrong |= {row.diff_id} - {right.diff_id}
            with layers.database.write() as tx:
                layer_rows.correct(tx, right)
        place = places.get(row.key) if read is None else read[1]
        if place is not None:
            draft = layers.session.folder / f"{row.key}.record"
            files.write_record(draft, right, place)
            with named("rename", draft):
                draft.rename(files.record_of(row.key))
    return wrong, errors


def _proved(row: Diff, record: Diff, files: LayerFiles) -> Diff:
    """What row and record ought to say. Raises `LayerstoreError` if that is not known."""
    found, size = files.identify(row.key), 0

    def count(data: memoryview) -> None:
        nonlocal size
        size += len(data)

    files.give_out(evolve(row, diff_id=found), count)
    if found not in (row.diff_id, record.diff_id):
        raise Damaged(
            f"layer {row.key} is {found}, and neither {row.diff_id}, as the database has it, nor {record.diff_id}, "
            f"as {files.record_of(row.key)} has it",
            layer=row.diff_id,
        )
    right = evolve(row, diff_id=found, size=size, damaged=False)
    other = evolve(record, diff_id=found, size=size, damaged=False)
    if told := differences(right, other):
        raise LayerstoreError(
            f"of layer {found} nothing proves whether the database is right, or {files.record_of(row.key)}: "
            f"{', '.join(told)}",
            remedy="Load or pull an image that has it again after its images were removed.",
        )
    return right


def prove_images(database: Database, mirror: Mirror) -> set[ImageID]:
    """Write configs anew that are not what the image's ID says, of records that are. Returns those images."""
    with database.read() as tx:
        rows = [row for row in image_rows.every(tx) if ImageID(of_bytes(row.config)) != row.id]
    mended: set[ImageID] = set()
    for row in rows:
        try:
            listed = (mirror.records.read("images", row.id) or {}).get("images")
        except LayerstoreError:
            continue  # `check` tells of it
        for known in listed if isinstance(listed, list) else ():
            config = known.get("config")
            if isinstance(config, bytes) and ImageID(of_bytes(config)) == row.id:
                with database.write() as tx:
                    image_rows.set_config(tx, row.id, config)
                mended.add(row.id)
    return mended
