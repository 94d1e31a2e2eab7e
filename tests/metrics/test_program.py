"""Metrics of programs: what they ask of the database, what goes wrong on the way, and that off is off."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from mlflow.entities import Metric, ViewType
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.exceptions import MlflowException
from prometheus_client.parser import text_string_to_metric_families

from genesis_flow import MongoDBStore, metrics
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.metrics.exporter import Exporter
from genesis_flow.mongo import counting, observed
from tests.client.conftest import user_environment
from tests.embedded.helpers import wait_until
from tests.faults import failing
from tests.metrics.samples import Samples, scraped
from tests.mongod import Mongod
from tests.patience import PATIENCE_SECONDS, answered

# What a program does of its own: so many calls that its thread sends, then calls of the loop.
TRAINING = """
import sys, mlflow
mlflow.set_tracking_uri({uri!r})
{before}
with mlflow.start_run():
    for step in range(20):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
{after}
print(sorted(name for name in sys.modules if name.startswith(("prometheus_client", "genesis_flow.metrics"))
    or name == "genesis_flow.mongo.counting"))
"""
# The loop's client and that of direct calls, which the first one makes, have a pool each.
LIMITED = """
import time
from mlflow.entities import Metric
from genesis_flow import MongoDBStore
from genesis_flow.mongo import counting
def reached(limit):
    for attempt in range(2400):
        if counting.registry.get_sample_value("genesis_flow_database_connections_limit") == limit:
            return
        time.sleep(0.05)
    raise AssertionError(limit)
counting.start()
store = MongoDBStore({uri!r})
run_id = store.create_run("0", "me", 1, [], None).info.run_id
reached(7)
for step in range(2):
    store.log_metric(run_id, Metric("loss", 1.0, step, step))
reached(2 * 7)
store.close()
reached(0)
print("closed")
"""
COMMANDS = "database_command_duration_seconds_count"


@pytest.fixture
def counts() -> Iterator[None]:
    """Metrics are on in this test alone."""
    counting.start()
    yield
    observed.observer = None


@pytest.fixture
def exporter(counts: None, store_uri: str) -> Iterator[Exporter]:
    with metrics.serve(0, store_uri=store_uri) as made:
        yield made


def now() -> Samples:
    counting.count()
    return Samples(counting.registry.collect())


def run(program: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=user_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_nothing_is_loaded_where_metrics_are_off(store_uri: str, tmp_path: Path) -> None:
    assert run(TRAINING.format(uri=store_uri, before="", after=""), tmp_path) == "[]"
    before, after = "import genesis_flow.metrics as metrics", ""
    assert (
        run(TRAINING.format(uri=store_uri, before=before, after=after), tmp_path)
        == "['genesis_flow.metrics']"
    )


def test_a_batch_leaves_a_file(store_uri: str, tmp_path: Path) -> None:
    before = "from genesis_flow import metrics; block = metrics.textfile('night.prom'); block.__enter__()"
    after = "block.__exit__(None, None, None)"
    run(TRAINING.format(uri=store_uri, before=before, after=after), tmp_path)
    found = Samples(text_string_to_metric_families((tmp_path / "night.prom").read_text()))
    assert found.sum(COMMANDS, command="update") >= 19
    assert found.label_values("batch") == {"night"}
    assert all("batch" in sample.labels for family in found.families for sample in family.samples)
    assert not any(name.endswith("_created") for name in found.names)
    assert [file.name for file in tmp_path.glob("*.prom*")] == ["night.prom"]


def test_the_variable_makes_any_program_count(store_uri: str, tmp_path: Path) -> None:
    after = "from genesis_flow.metrics import write_textfile; write_textfile('x.prom', batch='by-hand')"
    program = TRAINING.format(uri=store_uri, before="", after=after)
    run(program, tmp_path, GENESIS_FLOW_METRICS="true")
    found = Samples(text_string_to_metric_families((tmp_path / "x.prom").read_text()))
    assert found.sum(COMMANDS, command="update", batch="by-hand") >= 19
    run(program, tmp_path, GENESIS_FLOW_METRICS="false")
    assert "command=" not in (tmp_path / "x.prom").read_text()


@pytest.mark.parametrize("batch", ["", "a b", 'a"b', "x" * 101, "a\n"])
def test_the_name_of_a_batch_is_checked(batch: str, tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match="letters, digits"):
        metrics.write_textfile(tmp_path / "file.prom", batch=batch)
    assert [*tmp_path.iterdir()] == []


def test_commands_of_threads_and_of_loops_are_counted(exporter: Exporter, store_uri: str) -> None:
    address = f"http://127.0.0.1:{exporter.port}/metrics"
    before = scraped(address)
    # With a client of its own: one that stores of other tests left open was made when nobody counted.
    store = MongoDBStore(f"{store_uri}&appname=counted")
    run_id = store.create_run("0", "me", 1, [], None).info.run_id
    for step in range(20):
        store.log_metric(run_id, Metric("loss", 1.0, step, step))
    wait_until(
        lambda: scraped(address).values("database_up") == [1]
    )  # the question has a bound of two seconds
    after = scraped(address)
    # The first point is inserted, the others are an update each; a slow one may be sent again by the loop.
    assert 19 <= after.sum(COMMANDS, command="update") - before.sum(COMMANDS, command="update") < 2 * 19
    assert after.sum(COMMANDS, command="insert") > before.sum(COMMANDS, command="insert")
    assert after.sum("database_command_duration_seconds_sum", command="update") > 0
    assert after.sum("database_connections_in_use") == 0
    assert after.values("build_info", version="0.1.0") == [1]
    assert run_id not in after.text
    store.close()


def test_the_limit_is_that_of_the_pools_that_are_open(store_uri: str, tmp_path: Path) -> None:
    """In a program of its own: the driver tells late, in a thread, of clients that others have closed."""
    run(LIMITED.format(uri=f"{store_uri}&maxPoolSize=7"), tmp_path)


async def test_errors_and_retries_are_counted(counts: None, store_uri: str, mongod: Mongod) -> None:
    store = AsyncStore(f"{store_uri}&appname=retried")
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    before = now()
    # Azure's word for too many requests, which PyMongo leaves to the call.
    with failing(mongod.uri, "aggregate", "find", times=1, app="retried", errorCode=16500):
        await store.get_run(run_id)
    after = now()
    errors = "database_command_errors_total"
    name = "Location16500"
    assert after.sum(errors, error=name) - before.sum(errors, error=name) == 1
    retries = [each.sum("call_retries_total", method="get_run") for each in (before, after)]
    assert retries[1] - retries[0] == 1
    with failing(mongod.uri, "aggregate", "find", times=1, app="retried", closeConnection=True):
        await store.get_run(run_id)
    assert now().sum(errors, error="AutoReconnect") - after.sum(errors, error="AutoReconnect") == 1
    await store.close()


async def test_a_missed_deadline_is_counted(counts: None, store_uri: str, mongod: Mongod) -> None:
    store = AsyncStore(f"{store_uri}&appname=late&timeoutMS=4000")
    await answered(lambda: store.search_experiments(view_type=ViewType.ACTIVE_ONLY))
    before = now()
    blocked = {"blockConnection": True, "blockTimeMS": 6000}
    with (
        failing(mongod.uri, "find", "aggregate", app="late", **blocked),
        pytest.raises(MlflowException, match="did not finish the call within"),
    ):
        await store.search_experiments(view_type=ViewType.ACTIVE_ONLY)
    missed = now().sum("deadline_misses_total", method="search_experiments")
    assert missed - before.sum("deadline_misses_total", method="search_experiments") == 1
    await store.close()


async def test_where_answers_about_traces_come_from_is_counted(counts: None, store_uri: str) -> None:
    store = AsyncStore(store_uri)
    await store.search_experiments()
    before = now()
    await store.query_trace_metrics(
        ["0"], MetricViewType.TRACES, "trace_count", [MetricAggregation(AggregationType.COUNT)]
    )
    after = now()
    counted = [each.sum("kept_sums_answers_total", answered_from="traces") for each in (before, after)]
    assert counted[1] - counted[0] == 1
    await store.close()


def asked(address: str, headers: dict[str, str]) -> requests.Response:
    return requests.get(address, headers=headers, timeout=PATIENCE_SECONDS)


def test_the_address_answers_what_it_is_asked(exporter: Exporter) -> None:
    address = f"http://127.0.0.1:{exporter.port}"
    assert requests.get(f"{address}/", timeout=PATIENCE_SECONDS).status_code == 404
    assert requests.post(f"{address}/metrics", timeout=PATIENCE_SECONDS).status_code == 501
    plain = requests.get(
        f"{address}/metrics", headers={"Accept-Encoding": "identity"}, timeout=PATIENCE_SECONDS
    )
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert "Server" not in plain.headers
    packed = asked(f"{address}/metrics", {"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "genesis_flow_build_info" in packed.text
    wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
    assert requests.get(f"{address}/metrics", headers=wanted, timeout=PATIENCE_SECONDS).text.endswith(
        "# EOF\n"
    )


def test_a_port_that_is_taken_is_told_of(exporter: Exporter, store_uri: str) -> None:
    with pytest.raises(GenesisFlowError, match=f"port {exporter.port} .*choose another port"):
        metrics.serve(exporter.port, store_uri=store_uri)


def test_a_late_begin_is_told_of(store_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    store = MongoDBStore(store_uri)
    store.search_experiments()
    try:
        metrics.start()
        assert "before the first call of a store" in caplog.text
    finally:
        observed.observer = None
        store.close()


def test_a_forked_child_counts_nothing_of_its_parent(tmp_path: Path) -> None:
    program = """
import json, os
from genesis_flow.mongo import counting, observed
counting.start()
with observed.timed("find"):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, json.dumps(observed.observer is None).encode())
        os._exit(0)
    os.wait()
counting.count()
print(json.dumps([json.loads(os.read(read, 100)), counting.connections_in_use._value.get()]))
"""
    assert json.loads(run(program, tmp_path)) == [True, 0]
