"""Binding documents to databases and prefixes, without a server.

mongomock-motor stands in here for what it can do: names, inserts, finds. Anything about indexes, updates or
concurrency is tested on a real mongod, since mongomock gets some of it silently wrong.
"""

from typing import Any

import mongomock
import mongomock_motor
import pytest

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.mongo.binding import Documents
from genesis_flow.stores.areas import DECLARED


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A mongomock client that takes the arguments which Beanie 2 passes."""
    original = mongomock.Database.list_collection_names

    def list_collection_names(self: Any, filter: Any = None, session: Any = None, **_: Any) -> Any:
        return original(self, filter, session)

    monkeypatch.setattr(mongomock.Database, "list_collection_names", list_collection_names)
    return mongomock_motor.AsyncMongoMockClient()


def experiment(name: str) -> dict[str, Any]:
    return {
        "_id": 1,
        "workspace": "default",
        "name": name,
        "lifecycle_stage": "active",
        "creation_time": 1,
        "last_update_time": 1,
    }


async def test_prefixes_and_databases_do_not_see_each_other(client: Any) -> None:
    bound = {
        (database, prefix): Documents(client[database], prefix)
        for database in ("one", "two")
        for prefix in ("", "team_")
    }
    for (database, prefix), documents in bound.items():
        model = await documents.model(ExperimentFields)
        await model(**experiment(f"{database} {prefix}")).insert()
    for (database, prefix), documents in bound.items():
        found = await (await documents.model(ExperimentFields)).find_all().to_list()
        assert [document.name for document in found] == [f"{database} {prefix}"]
    names = await client["one"].list_collection_names()
    assert sorted(names) == ["experiments", "team_experiments"]


async def test_every_declared_document_is_bound_by_its_name(client: Any) -> None:
    documents = Documents(client["one"], "x_")
    names = [documents.collection(declared).name for declared in DECLARED]
    assert names == ["x_" + declared.Settings.name for declared in DECLARED]
    assert len(set(names)) == len(names)
    assert (await documents.model(RunFields)).__name__ == "Run"
