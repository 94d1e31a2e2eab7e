"""Which reader reads a source, and how a database is opened without a chance to change it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from genesis_flow.core.redact import mask, mask_uri
from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.verify.compare import SourceReader
from genesis_flow.importers.verify.trees import TreeSource
from genesis_flow.importers.verify.wanted import Wanted

if TYPE_CHECKING:
    import sqlalchemy


def open_source(uri: str, wanted: Wanted) -> SourceReader:
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    if scheme not in ("", "file"):
        return _database(uri, wanted)
    folder = Path(unquote(urlsplit(uri).path) if scheme else uri).expanduser()
    if not folder.is_dir():
        raise ImportFailed(f"{str(folder)!r} is not a folder: name the mlruns folder that was imported.")
    return TreeSource(folder, wanted)


def workspaces_said(uri: str) -> dict[str, dict[str, str]] | None:
    """What a database says of its workspaces; trees have none."""
    if "://" not in uri or uri.lower().startswith("file:"):
        return None
    source = open_source(uri, Wanted())
    try:
        said: dict[str, dict[str, str]] = source.workspaces()  # type: ignore[attr-defined]  # databases have it
        return said
    finally:
        source.close()


def _database(uri: str, wanted: Wanted) -> SourceReader:
    try:
        import sqlalchemy as sa

        from genesis_flow.importers.verify.databases import DatabaseSource
    except ImportError as exc:
        raise ImportFailed(
            "Reading an SQL database needs SQLAlchemy: `pip install -e '.[import]'` in the checkout."
        ) from exc
    try:
        return DatabaseSource(engine_of(uri), wanted)
    except (sa.exc.SQLAlchemyError, ImportError) as exc:
        reason = mask(str(getattr(exc, "orig", None) or exc)).splitlines()[0]
        raise ImportFailed(f"{mask_uri(uri)} cannot be read: {reason}") from exc


def engine_of(uri: str) -> "sqlalchemy.Engine":
    import sqlalchemy as sa

    url = sa.make_url(uri)
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url)
    file = Path(url.database or "")
    if not file.is_file():
        raise ImportFailed(f"{str(file)!r} is not a file: name the SQLite database that was imported.")
    url = url.set(database=f"file:{quote(str(file))}", query={"mode": "ro", "uri": "true"})
    engine = sa.create_engine(url)
    sa.event.listen(engine, "connect", _tolerate_bytes)
    return engine


def _tolerate_bytes(connection: Any, record: Any) -> None:
    """SQLite keeps whatever bytes it was given; what is no text arrives as bytes, not as an error."""
    connection.text_factory = _text


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
