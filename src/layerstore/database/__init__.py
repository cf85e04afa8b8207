"""The one source of truth: an SQLite database in WAL mode. The statements are their owners'.

`database` has connections and transactions, `schema` what there is and how earlier versions become this one, `failures`
what SQLite's errors mean, `kept` the files beside it, `read_only` what is there when nothing can be written.
"""

from layerstore.database.database import Database, Transaction
from layerstore.database.read_only import ReadOnlyDatabase
from layerstore.database.schema import Tables

__all__ = ["Database", "ReadOnlyDatabase", "Tables", "Transaction"]
