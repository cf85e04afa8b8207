"""A process that is killed before a moment at which it touches files or the database.

`KILLED_AT` begins the program of a child: it says `point`, a number, and `armed = True` where the counting begins.
"""

from __future__ import annotations

import textwrap

KILLED_AT = textwrap.dedent(
    """
    import os, signal, sys
    from layerstore.database import Database

    count, point, armed = 0, 0, False
    EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.listdir", "commit", "begin"}

    def hook(event, _):
        global count
        if armed and event in EVENTS:
            count += 1
            if count == point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    begin, end = Database._begin, Database._end
    def begun(self, *, durable):
        sys.audit("begin")
        return begin(self, durable=durable)
    def ended(self, connection, error, **options):
        end(self, connection, error, **options)
        sys.audit("commit")
    Database._begin, Database._end = begun, ended
    """
)
