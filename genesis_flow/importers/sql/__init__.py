"""Reads the SQL databases of MLflow 2.0 and newer; SQLAlchemy is imported when one is opened."""

import importlib.util
from typing import TYPE_CHECKING

from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.records import Source

if TYPE_CHECKING:
    from genesis_flow.importers.sql.users import Logins

MISSING = "Reading an SQL database needs SQLAlchemy: `pip install -e '.[import]'` in the checkout."


def open_sql(uri: str) -> Source:
    """The database at an SQLAlchemy URI, as it is at this moment; nothing is ever written to it."""
    if importlib.util.find_spec("sqlalchemy") is None:
        raise ImportFailed(MISSING)
    from genesis_flow.importers.sql.snapshot import open_snapshot
    from genesis_flow.importers.sql.source import SqlSource

    snapshot = open_snapshot(uri)
    try:
        return SqlSource(snapshot)
    except BaseException:
        snapshot.close()
        raise


def open_logins(uri: str) -> "Logins":
    """The users of the database at an SQLAlchemy URI; nothing is ever written to it."""
    if importlib.util.find_spec("sqlalchemy") is None:
        raise ImportFailed(MISSING)
    from genesis_flow.importers.sql.users import read_logins

    return read_logins(uri)
