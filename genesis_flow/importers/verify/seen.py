"""The ids of all that a comparison has found: in memory while they are few, else in a file without a name."""

import sqlite3
from collections.abc import Iterable, Iterator

AT_ONCE = 500


class Seen:
    def __init__(self) -> None:
        self._ids = sqlite3.connect("")
        self._ids.execute("CREATE TABLE seen (kind TEXT, id TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID")

    def add(self, kind: str, ids: Iterable[str]) -> None:
        self._ids.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", ((kind, each) for each in ids))

    def has(self, kind: str, identifier: str) -> bool:
        query = "SELECT 1 FROM seen WHERE kind = ? AND id = ?"
        return self._ids.execute(query, (kind, identifier)).fetchone() is not None

    def portions(self, kind: str) -> Iterator[list[str]]:
        """All ids of a kind, some at a time."""
        last = ""
        query = "SELECT id FROM seen WHERE kind = ? AND id > ? ORDER BY id LIMIT ?"
        while portion := [each for (each,) in self._ids.execute(query, (kind, last, AT_ONCE))]:
            yield portion
            last = portion[-1]

    def close(self) -> None:
        self._ids.close()
