"""From a URI to an opened source."""

from urllib.parse import urlsplit

from genesis_flow.core.redact import mask_uri
from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.records import Source
from genesis_flow.migrate.imports import SQL_DIALECTS


def open_source(uri: str) -> Source:
    """Open the tree or the database that ``uri`` names; a plain path is a tree."""
    scheme = urlsplit(uri).scheme.lower()
    if scheme.partition("+")[0] in SQL_DIALECTS:
        from genesis_flow.importers.sql import open_sql  # needs SQLAlchemy, which trees do not

        return open_sql(uri)
    if scheme in ("", "file") or "://" not in uri:
        from genesis_flow.importers.tree import open_tree

        return open_tree(uri)
    raise ImportFailed(
        f"{mask_uri(uri)} cannot be imported: name an mlruns folder (file:///old/mlruns) or an SQL database "
        f"({', '.join(f'{dialect}://' for dialect in SQL_DIALECTS)})."
    )
