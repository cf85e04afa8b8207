"""A second, plain copy of what the database says of images, containers, segments and volumes: a file for each.

The database is the truth; a record is what `rescue` makes it anew of when it is gone.

`rows` knows which rows a record has, and notices which were touched; `files` writes and reads it; `mirror` keeps both
in step. What is kept of a layer lies beside its skeleton instead (`layers.files`), durable with it.
"""

from layerstore.records.files import Records
from layerstore.records.mirror import MISSING, Mirror
from layerstore.records.rows import STORE

__all__ = ["MISSING", "STORE", "Mirror", "Records"]
