"""The sources of ``[imports]`` in alembic_like.ini, imported as a part of ``genesis-migrate up``."""

from collections.abc import Callable

from genesis_flow.importers.engine import Options, Outcome, import_parts
from genesis_flow.importers.journal import DONE, INCOMPLETE, Journal
from genesis_flow.importers.progress import Progress
from genesis_flow.importers.records import Filters
from genesis_flow.importers.sources import open_source
from genesis_flow.importers.target import ImportTarget
from genesis_flow.importers.workspaces import parts_of
from genesis_flow.migrate.config import MigrateConfig, opened
from genesis_flow.migrate.files import MigrationFile
from genesis_flow.migrate.runner import plain_ledger

ONCE, AGAIN, NEVER = "once", "again", "never"


def pending_imports(config: MigrateConfig, when: str) -> list[str]:
    """The URIs of the configured sources that ``up`` would read now; they may hold passwords."""
    imports = config.imports
    uris = [imports.file_store.as_uri()] if imports.file_store is not None else []
    if imports.sql_database is not None:
        uris.append(imports.sql_database.reveal())
    if when == NEVER or not uris:
        return []
    return uris if when == AGAIN else [uri for uri in uris if not _is_done(config, uri)]


def run_configured(
    config: MigrateConfig, when: str, progress: Callable[[], Progress] = Progress
) -> list[Outcome]:
    """Import what ``[imports]`` names, and note it in the history that the ledger keeps."""
    outcomes = []
    made = (
        outcome
        for uri in pending_imports(config, when)
        for outcome in import_parts(config, uri, Options(), progress)
    )
    for outcome in made:
        outcomes.append(outcome)
        state = DONE if outcome.complete else INCOMPLETE
        with opened(config) as target:
            plain_ledger(target).record(
                "import",
                MigrationFile(outcome.journal, state, config.script_location),
                duration_ms=round(outcome.seconds * 1000),
                source=outcome.source,
            )
    return outcomes


def source_name(uri: str) -> str:
    """How the source is called where people read it: without its password."""
    source = open_source(uri)
    try:
        return source.name
    finally:
        source.close()


def _is_done(config: MigrateConfig, uri: str) -> bool:
    source = open_source(uri)
    try:
        workspaces = [part.workspace for part in parts_of(source, Filters())]
        with opened(config) as connected:
            targets = [ImportTarget(connected.db, config.settings.prefix, each) for each in workspaces]
            journals = [Journal.of_source(target, source.name) for target in targets]
            return all(journal.state in (DONE, INCOMPLETE) for journal in journals)
    finally:
        source.close()
