"""The blocking store has MLflow's signatures, and its areas do not get into each other's way."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from genesis_flow.areas.jobs.area import AREA as JOBS
from genesis_flow.areas.users.area import AREA as USERS
from genesis_flow.areas.workspaces.area import AREA as WORKSPACES
from genesis_flow.mongo.operation import Area, operation
from genesis_flow.stores.joined import AsyncTrackingStore
from genesis_flow.sync.base import SyncFacade
from genesis_flow.sync.tracking import MongoDBStore
from tests.versions import SINCE_3_18

# Arguments that older versions of MLflow do not pass.
SINCE_3_18_ONLY = {
    "create_issue": ("issue_id", "last_seen_timestamp", "metadata"),
    "update_issue": (
        *("categories", "last_seen_timestamp", "last_updated_by"),
        *("metadata", "delete_metadata_keys"),
    ),
    "search_issues": (
        *("name", "statuses", "severities", "categories"),
        *("order_by", "include_total_count", "view"),
    ),
}

# Methods that older versions of MLflow do not call.
METHODS_SINCE_3_18 = set() if SINCE_3_18 else {"list_budget_policies_across_workspaces"}

Shape = tuple[str, Any, Any]

# Area's hooks, which a store calls in every area that has them.
HOOKS = {"open", "opened", "close", "remember_with", "database", "connected", "settings"}


def defined_by_us(cls: type) -> Iterator[str]:
    """The methods of MLflow's interface that are written here, whichever class of ours has them."""
    for name, member in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("__") and member.__module__.startswith("genesis_flow."):
            yield name


def mlflows(name: str) -> Callable[..., Any] | None:
    """MLflow's method of that name; the SQL store's signature is the one its server calls."""
    return getattr(SqlAlchemyStore, name, None) or getattr(AbstractStore, name, None)


def shape(function: Callable[..., Any]) -> list[Shape]:
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


def differences(ours: list[Shape], theirs: list[Shape]) -> list[tuple[Shape, Shape]]:
    """What callers of MLflow's method would notice. Ours may have a default where MLflow's has none."""
    assert [(name, kind) for name, kind, _ in ours] == [(name, kind) for name, kind, _ in theirs]
    return [
        (mine, other)
        for mine, other in zip(ours, theirs, strict=True)
        if mine != other and other[2] is not inspect.Parameter.empty
    ]


SHARED = sorted(name for name in defined_by_us(MongoDBStore) if mlflows(name) is not None)


@pytest.mark.parametrize("name", SHARED)
def test_signature(name: str) -> None:
    theirs = mlflows(name)
    assert theirs is not None
    ours = shape(getattr(MongoDBStore, name))
    newer = () if SINCE_3_18 else SINCE_3_18_ONLY.get(name, ())
    assert differences([each for each in ours if each[0] not in newer], shape(theirs)) == []
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for each, kind, _ in ours if each in newer)


def test_the_core_is_among_the_compared() -> None:
    core = {"create_run", "log_metric", "log_batch", "search_experiments", "_search_runs", "_hard_delete_run"}
    assert core <= set(SHARED)


def test_nothing_public_is_named_otherwise_than_in_mlflow() -> None:
    own = {name for name in defined_by_us(MongoDBStore) if not name.startswith("_") and mlflows(name) is None}
    # Under an older MLflow, which never asks for skills, their methods say what they need.
    newer = set() if SINCE_3_18 else METHODS_SINCE_3_18 | {name for name in own if "skill" in name}
    for area in (JOBS, USERS, WORKSPACES):  # MLflow has stores of their own for them
        own -= {name for part in area.tracking for name in vars(part)}
    own.remove("watch")  # MLflow has nothing of the kind
    assert own - newer - {name for name in vars(SyncFacade) if not name.startswith("_")} == set()


def areas() -> list[type]:
    return [cls for cls in AsyncTrackingStore.__mro__ if issubclass(cls, Area) and cls is not Area]


def test_no_two_areas_define_the_same_name() -> None:
    owner: dict[str, type] = {}
    for area in areas():
        for name in vars(area):
            if name in HOOKS or (name.startswith("__") and name.endswith("__")):
                continue
            assert name not in owner, f"{name} is defined by {owner[name].__name__} and {area.__name__}"
            owner[name] = area
    assert len(owner) > 40


@operation
async def _an_operation(self: Area) -> None:
    """Shows what the decorator makes of a method."""


def is_operation(member: object) -> bool:
    return getattr(member, "__code__", None) is _an_operation.__code__


def test_every_public_async_method_is_an_operation() -> None:
    bare = [
        f"{area.__name__}.{name}"
        for area in areas()
        for name, member in vars(area).items()
        if inspect.iscoroutinefunction(member) and not name.startswith("_") and name not in HOOKS
        if not is_operation(member)
    ]
    assert bare == []


def test_every_operation_is_in_the_blocking_store() -> None:
    operations = {name for area in areas() for name, member in vars(area).items() if is_operation(member)}
    assert "log_metric" in operations
    assert operations <= set(defined_by_us(MongoDBStore))
