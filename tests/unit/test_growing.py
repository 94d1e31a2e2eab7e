"""A store that has at first what a training calls, and becomes the whole one."""

import subprocess
import sys
import threading
from typing import Any

import pytest

from genesis_flow.core.settings import Settings
from genesis_flow.stores.areas import AREAS
from genesis_flow.stores.joined import AsyncTrackingStore
from genesis_flow.stores.training import AsyncTrainingStore
from genesis_flow.sync.later import later

# In a process of its own: here everything is imported.
FOUND = """
import genesis_flow.stores.training
from genesis_flow.documents.declared import Declared, declared_collections
few = len(Declared.__subclasses__())
found = {declared.Settings.name for declared in declared_collections()}
from genesis_flow.stores.areas import DECLARED
assert few < 20, few
assert found == {declared.Settings.name for declared in DECLARED}, found
"""


@pytest.fixture
def store() -> Any:
    return AsyncTrainingStore(Settings.resolve("mongodb://localhost:1/nowhere"))


def test_it_stays_small_for_a_training(store: Any) -> None:
    assert not isinstance(store, AsyncTrackingStore)
    for name in ("create_run", "log_metric", "log_batch", "log_param", "set_tag", "get_experiment_by_name"):
        assert callable(getattr(store, name))
    assert type(store) is AsyncTrainingStore


def test_it_becomes_the_whole_store_with_what_it_has(store: Any) -> None:
    before = dict(vars(store))
    assert store.log_spans.__func__ is AsyncTrackingStore.log_spans
    assert type(store) is AsyncTrackingStore
    assert {name: vars(store)[name] for name in before} == before
    assert vars(store).keys() == vars(AsyncTrackingStore(store.settings)).keys()


def test_threads_that_ask_at_once_find_one_state(store: Any) -> None:
    begin = threading.Barrier(8)
    found: list[Any] = []

    def ask() -> None:
        begin.wait()
        found.append((store.log_spans, vars(store)["_known_traces"]))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(known is found[0][1] for _, known in found)


def test_what_no_store_has_is_not_there(store: Any) -> None:
    with pytest.raises(AttributeError, match="'AsyncTrainingStore' object has no attribute 'log_nothing'"):
        store.log_nothing  # noqa: B018
    assert type(store) is AsyncTrainingStore


def test_what_a_training_calls_is_of_the_store() -> None:
    for area in AREAS:
        assert set(area.training) <= set(area.tracking)
    assert set(AsyncTrainingStore.__mro__[2:]) <= set(AsyncTrackingStore.__mro__)


def test_all_collections_are_found_though_few_are_imported() -> None:
    done = subprocess.run([sys.executable, "-c", FOUND], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_later_module_is_imported_once_something_is_wanted() -> None:
    module: Any = later("colorsys")
    sys.modules.pop("colorsys", None)
    assert "colorsys" not in sys.modules
    assert module.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
    assert vars(module)["rgb_to_hsv"] is sys.modules["colorsys"].rgb_to_hsv
    with pytest.raises(AttributeError):
        module.nothing  # noqa: B018
