"""What a reader of the stores sees: a sentence for each method, and MLflow's own defaults."""

import inspect
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient
from mlflow.store.model_registry.abstract_store import AbstractStore as AbstractRegistry
from mlflow.store.tracking.abstract_store import AbstractStore as AbstractTracking

from genesis_flow import aio, sync
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore

ASYNCHRONOUS = {aio.MongoDBStore: AbstractTracking, aio.MongoDBModelRegistryStore: AbstractRegistry}
STORES = [*ASYNCHRONOUS, MongoDBStore, MongoDBModelRegistryStore]

# MLflow's client finds the version by a stage then, or takes the tag's parts instead of a tag.
FOUND_OTHERWISE = {
    ("delete_model_version_tag", "version"),
    ("delete_model_version_tag", "key"),
    ("set_model_version_tag", "version"),
}


def methods(store: type) -> Iterator[tuple[str, type]]:
    """The public methods that are written here, each with the class that has it."""
    for name in dir(store):
        owner = next(each for each in store.__mro__ if name in vars(each))
        ours = owner.__module__.partition(".")[0] == sync.__name__.partition(".")[0]
        if ours and not name.startswith("_") and callable(getattr(store, name)):
            yield name, owner


@pytest.mark.parametrize("store", STORES, ids=lambda store: f"{store.__module__}.{store.__name__}")
def test_every_public_method_says_what_it_does(store: type) -> None:
    found = list(methods(store))
    assert len(found) > 40
    silent = [f"{owner.__qualname__}.{name}" for name, owner in found if not vars(owner)[name].__doc__]
    assert silent == []


@pytest.mark.parametrize("store", ASYNCHRONOUS, ids=lambda store: store.__name__)
def test_what_may_be_left_out_with_mlflow_may_be_left_out_here(store: type) -> None:
    missing = {
        (name, parameter.name)
        for name, _ in methods(store)
        for theirs in (getattr(each, name, None) for each in (MlflowClient, ASYNCHRONOUS[store]))
        if theirs is not None
        for parameter in inspect.signature(getattr(store, name)).parameters.values()
        if parameter.default is parameter.empty and parameter.name in with_default(theirs)
    }
    assert missing - FOUND_OTHERWISE == set()


def with_default(function: object) -> set[str]:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return {each.name for each in parameters if each.default is not each.empty}
