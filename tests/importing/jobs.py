"""Imports for tests: into a database, and what it holds afterwards."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
from pymongo.database import Database

from genesis_flow.importers.engine import Options, Outcome, run_import
from genesis_flow.importers.records import Filters
from genesis_flow.importers.rollback import RolledBack, rollback
from genesis_flow.migrate.config import MigrateConfig, load_config

BOOKKEEPING = ("import_", "schema_", "system.")


def config_for(uri: str) -> MigrateConfig:
    return load_config(uri, environ={})


class Job:
    """One database to import into."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def run(self, source: str, **options: Any) -> Outcome:
        filters = Filters(tuple(options.pop("experiments", ())), options.pop("since", None))
        return run_import(config_for(self.uri), source, Options(filters=filters, **options))

    def rollback(self, journal: str, **options: bool) -> RolledBack:
        return rollback(config_for(self.uri), journal, **options)

    @contextlib.contextmanager
    def database(self) -> Iterator[Database[dict[str, Any]]]:
        with pymongo.MongoClient[dict[str, Any]](self.uri) as client:
            yield client.get_default_database()

    def contents(self) -> dict[str, dict[Any, Any]]:
        """Every document of every collection but the bookkeeping's, by collection and id."""
        with self.database() as db:
            return {
                name: found
                for name in sorted(db.list_collection_names())
                if not name.startswith(BOOKKEEPING) and name not in ("params", "tags", "counters")
                if (found := {each["_id"]: each for each in db[name].find()})
            }


def reasons(outcome: Outcome) -> dict[str, str]:
    """The reasons by the last parts of the paths."""
    return {"/".join(Path(each.where).parts[-3:]): each.reason for each in outcome.first_problems}
