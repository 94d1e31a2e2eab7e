"""What a client spends of its own on a call, to bare PyMongo: processor time, not the clock's.

Both sides run in this process, on this server and in turns, so a slow or busy machine slows both. The margins
are wide: they stand for another layer of objects in a hot path, not for a few microseconds.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param, RunTag

from genesis_flow import MongoDBStore

CALLS, ROUNDS = 50, 9
# Seen: writes at 1.1 to 1.7; get_run, which reads two collections and makes entities, at 1.8. All are direct.
WRITE_MARGIN, READ_MARGIN = 2.5, 3.0

Call = Callable[[int], object]


@pytest.fixture
def blocking_store(store_uri: str, tmp_path: object) -> Iterator[MongoDBStore]:
    made = MongoDBStore(store_uri, f"{tmp_path}/artifacts")
    yield made
    made.close()


@pytest.fixture
def floor(store_uri: str) -> Iterator[Any]:
    """A collection with one document, driven by PyMongo alone."""
    with pymongo.MongoClient(store_uri, w="majority") as client:
        collection = client.get_default_database()["floor"]
        collection.insert_one({"_id": 0, "params": {f"p{index}": "value" for index in range(10)}})
        yield collection


def processor_time(call: Call, first: int) -> float:
    """Of all threads of this process: the event loop's, too."""
    begin = time.process_time()
    for number in range(first, first + CALLS):
        call(number)
    return time.process_time() - begin


def overhead(call: Call, bare: Call) -> float:
    """The median over rounds in which both take a turn."""
    for each in (call, bare):
        processor_time(each, 0)
    ratios = []
    for round_ in range(1, ROUNDS + 1):
        own = processor_time(call, round_ * CALLS)
        ratios.append(own / processor_time(bare, round_ * CALLS))
    return statistics.median(ratios)


def test_a_call_costs_a_small_multiple_of_a_bare_command(
    blocking_store: MongoDBStore, floor: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    store = blocking_store
    run = store.create_run("0", "me", 1_700_000_000_000, [], "a run").info.run_id
    store.log_batch(run, [], [Param(f"p{index}", "value") for index in range(10)], [])

    def update(number: int) -> object:
        return floor.update_one({"_id": 0}, {"$set": {"value": number}})

    def read(_: int) -> object:
        return floor.find_one({"_id": 0})

    writes: dict[str, Call] = {
        "log_metric": lambda number: store.log_metric(run, Metric("loss", number / 7, number, number)),
        "log_param": lambda number: store.log_param(run, Param(f"q{number % 50}", "value")),
        "set_tag": lambda number: store.set_tag(run, RunTag("state", str(number))),
    }
    found = {name: (overhead(call, update), WRITE_MARGIN) for name, call in writes.items()}
    found["get_run"] = (overhead(lambda _: store.get_run(run), read), READ_MARGIN)
    with capsys.disabled():
        print(
            "\nprocessor time, to bare PyMongo:", {name: f"{ratio:.2f}" for name, (ratio, _) in found.items()}
        )
    over = {name: both for name, both in found.items() if both[0] > both[1]}
    assert over == {}, f"times the processor time of a bare command, and what is allowed: {over}"
