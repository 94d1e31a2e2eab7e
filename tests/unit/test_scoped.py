"""Collections that are held to a workspace: what they send, and what they refuse."""

import asyncio
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.workspace_context import ServerWorkspaceContext
from pymongo import DeleteOne, IndexModel, InsertOne, ReplaceOne, UpdateMany, UpdateOne

from genesis_flow.mongo.binding import Documents
from genesis_flow.mongo.scoped import OutOfScope, ScopedCollection, ScopedUpdates
from genesis_flow.mongo.scoping import current_workspace, held, workspaces_enabled
from genesis_flow.stores.areas import DECLARED

OWN = {"workspace": "team-a"}
FOREIGN = {"workspace": "team-b"}


class Recorded:
    """Takes any call, and keeps what it was called with."""

    name = "runs"

    def __init__(self) -> None:
        self.sent: Any = None

    def __getattr__(self, method: str) -> Any:
        async def call(*args: Any, **options: Any) -> bool:
            self.sent = args
            return True

        return call


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def collection(recorded: Recorded) -> ScopedCollection:
    return ScopedCollection(recorded, "team-a", frozenset(["owned"]))


@pytest.mark.parametrize(
    "method",
    [
        *("find", "find_one", "find_one_and_update", "find_one_and_delete", "find_one_and_replace"),
        *("count_documents", "update_one", "update_many", "delete_one", "delete_many"),
    ],
)
async def test_a_query_is_restricted(collection: ScopedCollection, recorded: Recorded, method: str) -> None:
    await getattr(collection, method)({"_id": 1}, {"x": 1})
    assert recorded.sent == ({"_id": 1, **OWN}, {"x": 1})
    await getattr(collection, method)()
    assert recorded.sent == (OWN,)
    with pytest.raises(OutOfScope):
        await getattr(collection, method)(FOREIGN)


async def test_values_and_joined_updates_are_restricted(
    collection: ScopedCollection, recorded: Recorded
) -> None:
    await collection.distinct("x", {"_id": 1})
    assert recorded.sent == ("x", {"_id": 1, **OWN})
    assert await ScopedUpdates(recorded, "team-a").update_one({"_id": 1}, {"$set": {}})
    assert recorded.sent == ({"_id": 1, **OWN}, {"$set": {}})


async def test_what_is_inserted_is_the_workspaces(collection: ScopedCollection, recorded: Recorded) -> None:
    await collection.insert_one(OWN)
    await collection.insert_many([OWN])
    await collection.replace_one({"_id": 1}, OWN)
    assert recorded.sent == ({"_id": 1, **OWN}, OWN)
    for document in (FOREIGN, {}):
        with pytest.raises(OutOfScope):
            await collection.insert_one(document)
        with pytest.raises(OutOfScope):
            await collection.insert_many([OWN, document])
        with pytest.raises(OutOfScope):
            await collection.replace_one({"_id": 1}, document)


async def test_bulks_are_restricted_one_by_one(collection: ScopedCollection, recorded: Recorded) -> None:
    given = [
        InsertOne(OWN),
        ReplaceOne({"_id": 1}, OWN, upsert=True),
        UpdateOne({"_id": 1}, {"$set": {}}, upsert=True),
        UpdateMany({}, {"$set": {}}),
        DeleteOne({"_id": 1}),
    ]
    await collection.bulk_write(given)
    (sent,) = recorded.sent
    assert sent == [
        InsertOne(OWN),
        ReplaceOne({"_id": 1, **OWN}, OWN, upsert=True),
        UpdateOne({"_id": 1, **OWN}, {"$set": {}}, upsert=True),
        UpdateMany(OWN, {"$set": {}}),
        DeleteOne({"_id": 1, **OWN}),
    ]
    assert given[2] == UpdateOne({"_id": 1}, {"$set": {}}, upsert=True)  # the caller's is as it was
    for request in (InsertOne(FOREIGN), ReplaceOne({}, FOREIGN), DeleteOne(FOREIGN), IndexModel("x")):
        with pytest.raises(OutOfScope):
            await collection.bulk_write([request])


async def test_pipelines_are_restricted_and_what_they_join(
    collection: ScopedCollection, recorded: Recorded
) -> None:
    beside = {"$unionWith": {"coll": "owned", "pipeline": [{"$limit": 1}]}}
    children = {"$unionWith": {"coll": "children", "pipeline": []}}
    await collection.aggregate([{"$match": {"_id": 1}}, beside, children])
    held_beside = {"$unionWith": {"coll": "owned", "pipeline": [{"$match": OWN}, {"$limit": 1}]}}
    assert recorded.sent == ([{"$match": {"_id": 1, **OWN}}, held_beside, children],)
    await collection.aggregate([{"$sort": {"x": 1}}])
    assert recorded.sent == ([{"$match": OWN}, {"$sort": {"x": 1}}],)


def test_there_is_no_way_around(collection: ScopedCollection) -> None:
    for name in ("drop", "rename", "database", "aggregate_raw_batches", "estimated_document_count", "watch"):
        assert not hasattr(collection, name)


class Handle:
    """A database whose collections are named by themselves."""

    def __getitem__(self, name: str) -> Any:
        made = Recorded()
        made.name = name
        return made


def test_who_has_a_workspace_is_handed_out_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Documents(Handle(), "p_")  # type: ignore[arg-type]
    assert not workspaces_enabled()
    assert isinstance(documents.collection(DECLARED[0]), Recorded)
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    for declared in DECLARED:
        if "workspace" in declared.model_fields:
            with ServerWorkspaceContext("team-a"):
                handed: Any = documents.collection(declared)
            assert isinstance(handed, ScopedCollection)
            assert handed._workspace == "team-a"
            assert handed.name in handed._owned
            with pytest.raises(MlflowException, match="Active workspace is required") as refused:
                documents.collection(declared)
            assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
        else:
            assert isinstance(documents.collection(declared), Recorded)
        assert isinstance(documents.everywhere(declared), Recorded)


def test_the_workspace_is_the_requests_or_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team-b")
    assert current_workspace() == "default"
    assert held({"_id": 1}) == {"_id": 1}
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    assert current_workspace() == "team-b"
    with ServerWorkspaceContext("team-a"):
        assert current_workspace() == "team-a"
        assert held({"_id": 1}) == {"_id": 1, **OWN}
        assert asyncio.run(_told()) == "team-a"
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "false")
    assert current_workspace() == "default"


async def _told() -> str:
    return await asyncio.to_thread(current_workspace)
