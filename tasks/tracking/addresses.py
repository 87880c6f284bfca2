"""How SQLite is to open a database that is looked at."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote


def address_to_look(database: Path) -> str:
    """How SQLite opens a database so that nothing of it changes: whoever may write takes the log in when he leaves.

    Where there is no log, it is the other way round: who may only read would leave an empty one.
    """
    log, index = (database.with_name(f"{database.name}{end}") for end in ("-wal", "-shm"))
    return f"file:{quote(str(database))}{'?mode=ro' * (log.exists() and index.exists())}"
