"""The ``[imports]`` section: data from elsewhere that a data migration may bring in as part of ``up``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genesis_flow.core.redact import Secret, mask_uri
from genesis_flow.migrate.errors import MigrationError

KEYS = ("file_store", "sql_database")
SQL_DIALECTS = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True, slots=True)
class Imports:
    """Configured sources; safe to print, since the database's URI may hold a password."""

    file_store: Path | None = None
    sql_database: Secret | None = None

    def __bool__(self) -> bool:
        return self.file_store is not None or self.sql_database is not None


def read_imports(values: Mapping[str, str], origin: str) -> Imports:
    """Check the section; ``origin`` names the file in errors."""
    for key in values:
        if key not in KEYS:
            raise MigrationError(f"{origin} [imports] has the unknown key {key!r}: use {' or '.join(KEYS)}.")
    folder = values.get("file_store", "").strip()
    database = values.get("sql_database", "").strip()
    return Imports(
        file_store=_checked_folder(Path(folder).expanduser(), origin) if folder else None,
        sql_database=_checked_database(database, origin) if database else None,
    )


def _checked_folder(path: Path, origin: str) -> Path:
    if not path.is_dir():
        raise MigrationError(
            f"{origin} [imports] file_store names {str(path)!r}, which is not a folder: "
            "name the mlruns folder, or remove the key."
        )
    return path.resolve()


def _checked_database(uri: str, origin: str) -> Secret:
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme.partition("+")[0].lower() not in SQL_DIALECTS:
        raise MigrationError(
            f"{origin} [imports] sql_database is {mask_uri(uri)!r}: write an SQLAlchemy URI that begins with "
            f"one of {', '.join(f'{dialect}://' for dialect in SQL_DIALECTS)}."
        )
    return Secret(uri)
