"""Calls of training loops that blocking callers run themselves: what they share, send and survive."""

import math
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore
from genesis_flow.areas.metrics.documents import TAIL_LIMIT
from genesis_flow.areas.metrics.methods import Metrics
from genesis_flow.areas.metrics.wide import WIDE_FROM
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.runs.methods import Runs
from genesis_flow.mongo import patience
from tests.commands import CommandRecorder
from tests.contract.trace_scenes import span, stated
from tests.faults import failing
from tests.mongod import Mongod, running_mongod
from tests.patience import answered_blocking

CALLERS = 32


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri


@pytest.fixture
def blocking_store(store_uri: str, tmp_path: Path) -> Iterator[MongoDBStore]:
    # A name of its own: the client of stores that other tests left open knows that threads met a moment ago.
    made = MongoDBStore(f"{store_uri}&appName=direct", f"{tmp_path}/artifacts")
    yield made
    made.close()


def new_run(store: MongoDBStore) -> str:
    return str(store.create_run("0", "me", 1, [], "a run").info.run_id)


def at_once(*calls: Callable[[], object]) -> list[Any]:
    """What each call returns, or the error that it raises; all begin at the same time."""
    barrier = threading.Barrier(len(calls))

    def work(call: Callable[[], object]) -> Any:
        barrier.wait()
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(work, calls))


def test_threads_share_commands(blocking_store: MongoDBStore, commands: CommandRecorder) -> None:
    store = blocking_store
    runs = [new_run(store) for _ in range(CALLERS)]
    for run_id in runs:
        store.log_metric(run_id, Metric("loss", 1.0, 0, 0))

    def train(run_id: str) -> None:
        for step in range(1, 11):
            store.log_metric(run_id, Metric("loss", float(step), step, step))
            store.set_tag(run_id, RunTag("t", str(step)))

    with commands.recording() as sent:
        assert at_once(*(lambda run_id=run_id: train(run_id) for run_id in runs)) == [None] * CALLERS
    assert {name for name, _ in sent} == {"update"}
    assert len(sent) < CALLERS * 20 / 2
    for run_id in runs:
        found = store.get_run(run_id)
        assert (found.data.metrics, found.data.tags["t"]) == ({"loss": 10.0}, "10")
        assert [point.step for point in store.get_metric_history(run_id, "loss")] == list(range(11))


def test_a_thread_that_is_alone_sends_a_command_a_call(
    blocking_store: MongoDBStore, commands: CommandRecorder
) -> None:
    """Also if nothing matches, which the answer says, and after there were others."""
    store = blocking_store
    runs = [new_run(store) for _ in range(4)]
    at_once(*(partial(store.set_tag, run_id, RunTag("t", "1")) for run_id in runs))
    with commands.recording() as sent:
        for number in range(10):
            store.set_tag(runs[0], RunTag("t", str(number)))
    assert [name for name, _ in sent] == ["update"] * 10
    assert store.last_opened is not None
    store.last_opened.crowded_until = 0.0
    with commands.recording() as sent, pytest.raises(MlflowException):
        store.set_tag("0" * 32, RunTag("t", "1"))
    assert [name for name, _ in sent] == ["update", "find"], "which says why"
    with commands.recording() as sent, pytest.raises(MlflowException, match="must be a text"):
        store.log_param(runs[0], Param({"$gt": ""}, "1"))
    assert sent == []


def test_a_thread_that_is_alone_needs_no_loop(
    blocking_store: MongoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = blocking_store
    new_run(store)  # opens the database, on the loop
    monkeypatch.setattr(store, "_in_portal", None)
    run_id = new_run(store)
    store.log_metric(run_id, Metric("loss", 1.0, 0, 0))
    store.log_metric(run_id, Metric("loss", 0.5, 1, 1))
    store.log_batch(run_id, [Metric("a", 1.0, 0, 0), Metric("a", 2.0, 1, 1)], [Param("b", "1")], [])
    store.log_batch(run_id, [Metric("a", 3.0, 2, 2), Metric("loss", 0.2, 2, 2)])
    store.log_batch(run_id, [], [Param("c", "1")], [RunTag("d", "1")])
    store.log_param(run_id, Param("p", "1"))
    store.set_tag(run_id, RunTag("t", "1"))
    store.delete_tag(run_id, "d")
    wide = [Metric(f"w{number}", 1.0, 0, 0) for number in range(WIDE_FROM)]
    store.log_batch(run_id, wide)
    store.log_batch(run_id, [Metric(each.key, 2.0, 1, 1) for each in wide])
    dataset = Dataset("d", "1", "local", "{}")
    store.log_inputs(run_id, [DatasetInput(dataset, [InputTag("t", "v")])])
    for step in range(2, TAIL_LIMIT + 9):
        store.log_metric(run_id, Metric("loss", 0.5, step, step))
    store.update_run_info(run_id, None, None, "another name")
    found = store.get_run(run_id)
    assert (found.info.run_name, found.data.tags["t"]) == ("another name", "1")
    assert (found.data.metrics["a"], found.data.metrics["w0"]) == (3.0, 2.0)
    assert found.data.params == {"p": "1", "b": "1", "c": "1"}
    assert [used.dataset.name for used in found.inputs.dataset_inputs] == ["d"]
    assert [point.value for point in store.get_metric_history(run_id, "a")] == [1.0, 2.0, 3.0]
    trace_id = f"tr-{uuid.uuid4().hex}"
    store.start_trace(stated(trace_id))
    store.log_spans("0", [span(trace_id, 1, None), span(trace_id, 2, 1)])
    store.set_trace_tag(trace_id, "t", "1")
    experiment = store.get_experiment("0")
    assert store.get_experiment_by_name(experiment.name).experiment_id == "0"
    with pytest.raises(MlflowException, match="not found") as refused:
        store.get_run("0" * 32)
    assert refused.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def made_by_loop(store: MongoDBStore, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls that the loop makes for a store from now on; its database is open."""
    new_run(store)
    calls: list[Any] = []
    of_loop = store._in_portal

    def noted(work: Any) -> Any:
        calls.append(work)
        return of_loop(work)

    monkeypatch.setattr(store, "_in_portal", noted)
    return calls


def test_the_loop_goes_on_with_the_call_of_a_thread(
    mongod: Mongod, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is there, and the thread was not told: a call of another name would make a second one."""
    name = "left-to-loop"
    store = MongoDBStore(f"{store_uri}&appName={name}&retryWrites=false", "s3://bucket")
    by_loop = made_by_loop(store, monkeypatch)
    before = {run.info.run_id for run in store.search_runs(["0"], "", 1, 1000)}
    lost = {"code": 91, "errmsg": "the server is going down"}
    with failing(mongod.uri, "insert", times=1, app=name, writeConcernError=lost):
        run_id = new_run(store)
    assert len(by_loop) == 1
    assert {run.info.run_id for run in store.search_runs(["0"], "", 1, 1000)} == before | {run_id}
    store.close()


def test_what_is_sent_at_once_is_left_to_the_loop(
    blocking_store: MongoDBStore, commands: CommandRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans of several traces, whose updates go side by side: the thread has sent nothing of them."""
    store = blocking_store
    by_loop = made_by_loop(store, monkeypatch)
    traces = [f"tr-{uuid.uuid4().hex}" for _ in range(3)]
    with commands.recording() as sent:
        store.log_spans("0", [span(trace_id, 1, None) for trace_id in traces])
    assert len(by_loop) == 1
    assert [name for name, _ in sent] == ["aggregate", "insert", "insert"]
    assert {store.get_trace_info(trace_id).trace_id for trace_id in traces} == {*traces}


def test_threads_that_come_at_once_make_no_calls_of_the_loop(
    blocking_store: MongoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends what they hand over, and knows nothing of the calls."""
    store = blocking_store
    runs = [new_run(store) for _ in range(8)]
    for run_id in runs:
        store.log_metric(run_id, Metric("loss", 1.0, 0, 0))
    database = store.last_opened
    assert database is not None

    def train(run_id: str) -> None:
        for step in range(1, 6):
            store.log_metric(run_id, Metric("loss", float(step), step, step))
            store.set_tag(run_id, RunTag("t", str(step)))
            store.log_param(run_id, Param(f"p{step}", "1"))

    with monkeypatch.context() as patched:
        patched.setattr(store, "_in_portal", None)
        patched.setattr(database, "crowded_until", math.inf)
        assert at_once(*(partial(train, run_id) for run_id in runs)) == [None] * len(runs)
    for run_id in runs:
        found = store.get_run(run_id).data
        assert (found.metrics, found.tags["t"], len(found.params)) == ({"loss": 5.0}, "5", 5)


def test_a_loop_that_was_not_told_is_told_by_the_next_thread(
    blocking_store: MongoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KeyboardInterrupt may come before the loop is told that threads have handed over updates."""
    store = blocking_store
    run_id = new_run(store)
    database = store.last_opened
    assert database is not None
    monkeypatch.setattr(database, "crowded_until", math.inf)
    joined = database._joined_by_all(RunFields)
    joined._is_told = True
    with monkeypatch.context() as patched:
        patched.setattr(joined, "_timeout", 0.1)
        store.set_tag(run_id, RunTag("t", "1"))
    with monkeypatch.context() as patched:
        patched.setattr(store, "_in_portal", None)
        store.set_tag(run_id, RunTag("t", "2"))
    assert store.get_run(run_id).data.tags["t"] == "2"


def test_first_points_of_a_thread_are_those_of_the_loop(
    mongod: Mongod, store_uri: str, blocking_store: MongoDBStore, commands: CommandRecorder
) -> None:
    store, heads = blocking_store, {}
    batch = [Metric("a", 1.0, 1, 1), Metric("b", 2.0, 2, 2), Metric("b", 3.0, 3, 3)], [Param("p", "1")], []
    ways = {"thread": store.log_batch, "loop": partial(store._run, Metrics.log_batch)}
    with pymongo.MongoClient[dict[str, Any]](store_uri) as client:
        database = client.get_default_database()
        for way, log_batch in ways.items():
            run_id = new_run(store)
            with commands.recording() as sent:
                log_batch(run_id, *batch)
            assert [name for name, _ in sent] == ["findAndModify", "insert", "commitTransaction"]
            found = database["latest_metrics"].find({"run_uuid": run_id}).sort("key")
            heads[way] = [(each.pop("_id"), each.pop("run_uuid"), [*each.items()])[2] for each in found]
            assert database["runs"].find_one({"_id": run_id})["metric_keys"] == 2
    assert heads["thread"] == heads["loop"]


def test_first_points_that_another_store_was_first_with(
    store_uri: str, blocking_store: MongoDBStore, tmp_path: Path
) -> None:
    store, other = blocking_store, MongoDBStore(store_uri, f"{tmp_path}/artifacts")
    run_id = new_run(store)
    other.log_metric(run_id, Metric("a", 1.0, 1, 1))
    store.log_batch(run_id, [Metric("a", 2.0, 2, 2), Metric("b", 2.0, 2, 2)], [Param("p", "1")], [])
    assert [point.value for point in store.get_metric_history(run_id, "a")] == [1.0, 2.0]
    found = other.get_run(run_id).data
    assert (found.metrics, found.params) == ({"a": 2.0, "b": 2.0}, {"p": "1"})
    other.delete_run(run_id)
    for call in (
        partial(store.log_metric, run_id, Metric("c", 1.0, 1, 1)),
        partial(store.log_batch, run_id, [Metric("d", 1.0, 1, 1)], [Param("q", "1")], []),
        partial(store.log_batch, run_id, [], [Param("q", "1")], []),
    ):
        with pytest.raises(MlflowException, match="must be in the 'active' state"):
            call()
    found = other.get_run(run_id).data
    assert (found.metrics, found.params) == ({"a": 2.0, "b": 2.0}, {"p": "1"})
    other.close()


@pytest.mark.parametrize("lost", ["findAndModify", "insert", "commitTransaction"])
def test_lost_answers_of_first_points_lose_and_double_nothing(
    mongod: Mongod, store_uri: str, lost: str
) -> None:
    name = f"first-{lost}"
    store = MongoDBStore(f"{store_uri}&appName={name}", "s3://bucket")
    run_id = new_run(store)
    store.set_tag(run_id, RunTag("t", "1"))  # the client of direct calls is there
    with failing(mongod.uri, lost, times=2, app=name, closeConnection=True):
        store.log_batch(run_id, [Metric("a", 1, 1, 1), Metric("b", 2, 2, 2)], [Param("p", "1")], [])
    assert [[p.value for p in store.get_metric_history(run_id, key)] for key in "ab"] == [[1], [2]]
    assert store.get_run(run_id).data.params == {"p": "1"}
    with pymongo.MongoClient[dict[str, Any]](store_uri) as client:
        run = client.get_default_database()["runs"].find_one({"_id": run_id})
    assert run is not None
    assert run["metric_keys"] == 2
    store.close()


def test_a_transaction_that_a_thread_left_open_bars_nobodys_way(
    mongod: Mongod, store_uri: str, commands: CommandRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its attempt is cut while the server holds the insertion up, with the run in its hands."""
    monkeypatch.setattr(patience, "SHARE_SECONDS", 2.0)
    name = "left-open"
    store = MongoDBStore(f"{store_uri}&appName={name}", "s3://bucket")
    run_id = new_run(store)
    store.set_tag(run_id, RunTag("t", "1"))
    stalled = failing(mongod.uri, "insert", times=1, app=name, blockConnection=True, blockTimeMS=4000)
    with stalled, commands.recording() as sent:
        store.log_metric(run_id, Metric("a", 1.0, 1, 1))
    names = [name for name, _ in sent]
    assert names[:2] == ["findAndModify", "insert"]
    assert names[-4:] == ["find", "findAndModify", "insert", "commitTransaction"]
    assert "killSessions" in names[:-4], "the loop goes on, and ends the session of the thread first"
    assert store.get_run(run_id).data.metrics == {"a": 1.0}
    store.close()


def test_a_thread_reads_a_run_by_a_command(blocking_store: MongoDBStore, commands: CommandRecorder) -> None:
    store = blocking_store
    run_id, deleted = new_run(store), new_run(store)
    store.log_batch(run_id, [Metric(f"m{n}", n, n, n) for n in range(3)], [Param("a.b", "1")], [])
    store.delete_run(deleted)
    with commands.recording() as sent:
        found = store.get_run(run_id)
        assert store.get_run(deleted).info.lifecycle_stage == "deleted"
    assert [name for name, _ in sent] == ["aggregate"] * 2
    by_loop = store._run(Runs.get_run, run_id)
    assert found.to_dictionary() == by_loop.to_dictionary()
    assert (found.data.metrics, found.data.params) == ({"m0": 0, "m1": 1, "m2": 2}, {"a.b": "1"})
    dataset = Dataset("d", "1", "local", "{}")
    store.log_inputs(run_id, [DatasetInput(dataset, [InputTag("t", "v")])])
    (used,) = store.get_run(run_id).inputs.dataset_inputs
    assert (used.dataset.name, [tag.value for tag in used.tags]) == ("d", ["v"])
    with pytest.raises(MlflowException, match="not found") as refused:
        store.get_run("0" * 32)
    assert refused.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with commands.recording() as sent, pytest.raises(MlflowException, match="must be a text"):
        store.get_run({"$gt": ""})  # type: ignore[arg-type]
    assert sent == []


def test_threads_that_read_at_once(blocking_store: MongoDBStore) -> None:
    runs = [new_run(blocking_store) for _ in range(CALLERS)]
    found = at_once(*(partial(blocking_store.get_run, run_id) for run_id in runs))
    assert [run.info.run_id for run in found] == runs


def test_a_read_whose_answer_is_lost_is_made_again(
    mongod: Mongod, blocking_store: MongoDBStore, database_name: str
) -> None:
    run_id = new_run(blocking_store)
    name = "lossy-reader"
    store = MongoDBStore(f"{mongod.database_uri(database_name)}&appName={name}&retryReads=false", "s3://b")
    store.get_run(run_id)
    with failing(mongod.uri, "aggregate", times=1, app=name, closeConnection=True):
        assert store.get_run(run_id).info.run_id == run_id
    store.close()


def test_what_is_more_than_an_update_goes_by_the_loop(
    blocking_store: MongoDBStore, commands: CommandRecorder
) -> None:
    """As it would be for a store that has no direct calls."""
    store = blocking_store
    run_id = new_run(store)
    for step in range(TAIL_LIMIT + 2):
        store.log_metric(run_id, Metric("loss", 1.0, step, step))
    assert len(store.get_metric_history(run_id, "loss")) == TAIL_LIMIT + 2
    store.log_param(run_id, Param("p", "1"))
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        store.log_param(run_id, Param("p", "2"))
    store.set_tag(run_id, RunTag("mlflow.runName", ""))  # changes nothing, as in MLflow
    store.delete_run(run_id)
    for call in (
        partial(store.log_metric, run_id, Metric("loss", 1.0, 500, 500)),
        partial(store.log_param, run_id, Param("q", "1")),
        partial(store.set_tag, run_id, RunTag("t", "1")),
    ):
        with pytest.raises(MlflowException, match="must be in the 'active' state"):
            call()


def test_a_lost_answer_of_a_direct_call_loses_and_doubles_nothing(
    mongod: Mongod, blocking_store: MongoDBStore, database_name: str
) -> None:
    run_id = new_run(blocking_store)
    name = "lossy"
    store = MongoDBStore(f"{mongod.database_uri(database_name)}&appName={name}&retryWrites=false", "s3://b")
    store.log_metric(run_id, Metric("loss", 0.0, 0, 0))
    store.log_metric(run_id, Metric("loss", 0.0, 1, 1))
    with failing(mongod.uri, "update", times=1, app=name, closeConnection=True):
        store.log_metric(run_id, Metric("loss", 0.0, 2, 2))
    assert [point.step for point in store.get_metric_history(run_id, "loss")] == [0, 1, 2]
    store.close()


def test_batches_of_many_threads_are_whole(blocking_store: MongoDBStore) -> None:
    store = blocking_store
    run_id = new_run(store)

    def log(number: int) -> None:
        metrics = [Metric(f"m{number % 4}", step, step, number * 100 + step) for step in range(60)]
        store.log_batch(run_id, metrics, [Param(f"p{number}", "1")], [RunTag("last", str(number))])

    assert at_once(*(lambda n=n: log(n) for n in range(16))) == [None] * 16
    found = store.get_run(run_id).data
    assert found.params == {f"p{number}": "1" for number in range(16)}
    for key in range(4):
        assert len(store.get_metric_history(run_id, f"m{key}")) == 4 * 60


def test_a_deadline_ends_a_direct_call(
    mongod: Mongod, blocking_store: MongoDBStore, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = new_run(blocking_store)
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", "4")
    name = "late"
    store = MongoDBStore(f"{mongod.database_uri(database_name)}&appName={name}", "s3://bucket")
    answered_blocking(lambda: store.set_tag(run_id, RunTag("t", "0")))
    with (
        failing(mongod.uri, "update", app=name, blockConnection=True, blockTimeMS=8000),
        pytest.raises(MlflowException) as caught,
    ):
        store.set_tag(run_id, RunTag("t", "1"))
    assert caught.value.error_code == "DEADLINE_EXCEEDED"
    store.close()


def test_a_restarted_server_is_found_again() -> None:
    with running_mongod() as server:
        store = MongoDBStore(server.database_uri("db"), "s3://bucket")
        run_id = new_run(store)
        server.kill()
        threading.Timer(1.0, server.start).start()
        store.log_metric(run_id, Metric("loss", 1.0, 1, 1))
        assert store.get_run(run_id).data.metrics == {"loss": 1.0}
        store.close()


def test_the_first_call_of_all_may_be_direct(store_uri: str) -> None:
    """It opens the database on the loop, and the default experiment is there."""
    store = MongoDBStore(store_uri, "s3://bucket")
    assert store.get_run(new_run(store)).info.experiment_id == "0"
    store.close()
