"""The blocking registry takes what MLflow's registries take: its server and clients call by keyword."""

import inspect

import pytest
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from genesis_flow.aio import MongoDBModelRegistryStore as AsyncRegistry
from genesis_flow.mongo.operation import Area
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from tests.contract.test_signatures import differences, shape

METHODS = sorted(
    name
    for name, member in inspect.getmembers(SqlAlchemyStore, inspect.isfunction)
    if not name.startswith("_")
)


@pytest.mark.parametrize("name", METHODS)
def test_signatures(name: str) -> None:
    ours, theirs = shape(getattr(MongoDBModelRegistryStore, name)), shape(getattr(SqlAlchemyStore, name))
    assert differences(ours, theirs) == []


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_ours_and_awaitable_too(name: str) -> None:
    definer = next(cls for cls in MongoDBModelRegistryStore.__mro__ if name in vars(cls))
    assert definer is not AbstractStore
    assert inspect.iscoroutinefunction(inspect.unwrap(getattr(AsyncRegistry, name)))


def test_areas_do_not_hide_each_other() -> None:
    """A name that two areas define would be one method in the joined store."""
    seen: dict[str, type] = {}
    for cls in AsyncRegistry.__mro__:
        if cls in Area.__mro__ or not issubclass(cls, Area) or cls.__module__ == AsyncRegistry.__module__:
            continue
        for name in vars(cls):
            if not name.startswith("__"):
                assert seen.setdefault(name, cls) is cls, f"{name}: {seen[name]} and {cls}"
    assert "create_model_version" in seen
