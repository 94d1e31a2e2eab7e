"""Questions, review queues, issues and scorers of an SQL database: brought over, compared, taken back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.jobs import Job
from tests.importing.people import TABLES, delete_gateway, fill, people_state
from tests.importing.sql_databases import ARTIFACT_ROOT, connected, oracle
from tests.importing.stores import differences
from tests.importing.verifying import check

COLLECTIONS = ("label_schemas", "review_queues", "review_queue_items", "issues", "scorers")


class Source:
    """A database with all of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = f"sqlite:///{path}"
        with oracle(path) as (store, _):
            fill(store)
            self.state = people_state(store)
        delete_gateway(path)

    def execute(self, *statements: str) -> None:
        with connected(self.path) as connection:
            for statement in statements:
                assert connection.execute(statement).rowcount, statement

    def rows(self, query: str) -> list[Any]:
        with connected(self.path) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def source(newest: Path) -> Source:
    return Source(newest)


@pytest.fixture
def store(job: Job) -> Iterator[MongoDBStore]:
    made = MongoDBStore(job.uri, ARTIFACT_ROOT)
    yield made
    made.close()


def test_the_source_has_rows_in_every_table(source: Source) -> None:
    for table in TABLES:
        assert source.rows(f"SELECT COUNT(*) FROM {table}") > [(1,)], table


def test_stores_answer_the_same(source: Source, job: Job) -> None:
    outcome = job.run(source.uri)
    assert (outcome.first_problems, outcome.unsupported) == ([], {})
    store = MongoDBStore(job.uri, ARTIFACT_ROOT)
    with oracle(source.path) as (theirs, _):
        expected = people_state(theirs)
    ours = people_state(store)
    store.close()
    assert differences(ours, expected) == []
    found = check(job.uri, source.uri)
    assert (found.exit_code, found.outcome.differences) == (0, [])
