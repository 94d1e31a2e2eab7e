"""``genesis-flow server --metrics`` as a platform team runs it: a real Prometheus, two workers, bad days."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

from tests.client.test_server_command import Server
from tests.embedded.helpers import wait_until
from tests.faults import failing
from tests.metrics.samples import Samples, scraped
from tests.metrics.test_files import tool
from tests.mongod import Mongod, free_port, guarded_mongod
from tests.patience import PATIENCE_SECONDS
from tools import gen_dashboard, prometheus

CANARY = "p4ssw0rd-canary"
pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="workers are looked for in /proc")


@pytest.fixture
def guarded() -> Iterator[Mongod]:
    with guarded_mongod("ada", CANARY) as running:
        yield running


@pytest.fixture
def metrics_port() -> int:
    return free_port()


@pytest.fixture
def server(guarded: Mongod, metrics_port: int, tmp_path: Path) -> Iterator[Server]:
    uri = f"mongodb://ada:{CANARY}@127.0.0.1:{guarded.port}/mlflow?directConnection=true&authSource=admin"
    options = ("--workers", "2", "--metrics", "--metrics-address", f"127.0.0.1:{metrics_port}")
    made = Server(tmp_path, *options, GENESIS_FLOW_MONGODB_URI=uri, TMPDIR=str(tmp_path))
    yield made
    if made.process.poll() is None:
        made.stop()


def load(server: Server, rounds: int) -> str:
    """What people and programs do, and what they do wrong; the last run."""
    client = MlflowClient(server.address)
    experiments = [each.experiment_id for each in client.search_experiments()]
    run_id = client.create_run(experiments[0]).info.run_id
    for step in range(rounds):
        client.log_metric(run_id, "loss", 1 / (step + 1), step=step)
        client.search_runs(experiments)
    server.get(f"/ajax-api/3.0/jobs/{run_id}")
    server.get(f"/nowhere/{run_id}")
    requests.request(run_id.upper(), server.address, timeout=PATIENCE_SECONDS)
    asked = {
        "experiment_ids": experiments,
        "view_type": "TRACES",
        "metric_name": "trace_count",
        "aggregations": [{"aggregation_type": "COUNT"}],
    }
    answer = requests.post(
        f"{server.address}/api/3.0/mlflow/traces/metrics", json=asked, timeout=PATIENCE_SECONDS
    )
    assert answer.ok, answer.text
    return run_id


def folder_of(server: Server) -> Path:
    (folder,) = server.log.parent.glob("genesis-flow-metrics-*")
    return folder


def workers(server: Server) -> list[int]:
    """The descendants of the command that count: MLflow and uvicorn stand between them."""
    counting = {file.stem.rsplit("_", 1)[-1] for file in folder_of(server).glob("*.db")}
    found, parents = list[int](), [server.process.pid]
    while parents:
        parents = [child for pid in parents for child in children(pid)]
        found += [pid for pid in parents if str(pid) in counting]
    return found


def children(pid: int) -> list[int]:
    found: list[int] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_a_platform_team_sees(server: Server, guarded: Mongod, metrics_port: int) -> None:
    address = f"http://127.0.0.1:{metrics_port}/metrics"
    server.wait_for_address()
    with prometheus.running(tool("prometheus"), f"127.0.0.1:{metrics_port}", free_port()) as watcher:
        root = f"mongodb://ada:{CANARY}@127.0.0.1:{guarded.port}/?directConnection=true&authSource=admin"
        # A thread's command that the driver repeats by itself counts once, so it must fail again.
        with failing(root, "find", times=4, errorCode=11602):
            run_id = load(server, 10)
        run_ids = [run_id, load(server, 10)]
        wait_until(lambda: scraped(address).values("database_up") == [1])
        # Commands are counted a moment after they are made.
        wait_until(lambda: scraped(address).sum("database_command_errors_total") >= 2)
        check_routes(scraped(address), run_ids)
        check_panels(watcher, lambda: run_ids.append(load(server, 3)))
        check_rules(watcher)
    check_dead_worker(server, address)
    check_bad_day(server, guarded, address)
    folder = folder_of(server)
    assert server.stop() == 0
    assert not folder.exists()
    assert CANARY not in server.said


def check_routes(found: Samples, run_ids: list[str]) -> None:
    """Those of Flask, those of FastAPI, and unknown ones under one name."""
    requests_of = "http_requests_total"
    assert found.sum(requests_of, method="POST", route="/api/2.0/mlflow/runs/log-metric", status="200") >= 10
    assert found.sum(requests_of, route="/ajax-api/3.0/jobs/{job_id}", status="404") >= 1
    assert found.sum(requests_of, route="other", method="GET", status="404") >= 1
    assert found.sum(requests_of, route="other", method="other") >= 1
    assert found.sum("database_command_duration_seconds_count") > 20
    assert all(text not in found.text.lower() for text in (*run_ids, CANARY, "nowhere"))


def check_panels(watcher: prometheus.Prometheus, go_on: Callable[[], None]) -> None:
    """Each query of the dashboard finds something while there is load."""
    texts = [query for panel in gen_dashboard.panels() for query in panel.queries.values()]
    queries = [gen_dashboard.query_for(text, interval="60s") for text in texts]

    def all_answer() -> bool:
        go_on()
        empty[:] = [query for query in queries if not watcher.query(query)]
        return not empty

    empty: list[str] = []
    try:
        wait_until(all_answer, pause=0.2)
    except AssertionError as error:
        raise AssertionError(f"These find nothing: {empty}") from error


def check_rules(watcher: prometheus.Prometheus) -> None:
    (group,) = watcher.ask("rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}, group
    firing = [
        alert["labels"]["alertname"]
        for alert in watcher.ask("alerts")["alerts"]
        if alert["state"] == "firing"
    ]
    assert not {"GenesisFlowDown", "GenesisFlowDatabaseDown", "GenesisFlowSchemaUnfit"} & {*firing}


def check_dead_worker(server: Server, address: str) -> None:
    """One that is killed leaves what it counted, and another takes its place."""
    wait_until(lambda: server.get("/health").ok and len(workers(server)) == 2)
    before = scraped(address)
    assert before.values("processes") == [2]
    killed = workers(server)[0]
    os.kill(killed, signal.SIGKILL)
    # uvicorn takes note of its end after a moment.
    wait_until(
        lambda: scraped(address).sum("processes") >= 1 and not [*folder_of(server).glob(f"*_{killed}.db")]
    )
    after = scraped(address)
    name = "http_requests_total"
    assert after.sum(name, route="/health") >= before.sum(name, route="/health")
    assert after.sum(name, route="/api/2.0/mlflow/runs/log-metric") == before.sum(
        name, route="/api/2.0/mlflow/runs/log-metric"
    )

    def both_count() -> bool:
        server.get("/health")
        return scraped(address).values("processes") == [2]

    wait_until(both_count, pause=0.2)
    assert scraped(address).values("http_requests_in_flight") == [0]


def check_bad_day(server: Server, guarded: Mongod, address: str) -> None:
    assert guarded.process is not None
    os.kill(guarded.process.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: scraped(address).values("database_up") == [0])
    finally:
        os.kill(guarded.process.pid, signal.SIGCONT)
    wait_until(lambda: scraped(address).values("database_up") == [1])
    guarded.kill()
    wait_until(lambda: scraped(address).values("database_up") == [0])
    away = scraped(address)
    assert not away.values("jobs", status="PENDING")
    assert away.sum("http_requests_total") > 0


@pytest.mark.parametrize(
    ("options", "variables", "says"),
    [
        (
            ["--metrics", "--expose-prometheus", "folder"],
            {},
            "--metrics and --expose-prometheus do not go together",
        ),
        (["--metrics"], {"MLFLOW_EXPOSE_PROMETHEUS": "x"}, "MLFLOW_EXPOSE_PROMETHEUS do not go together"),
        (["--metrics", "--metrics-address", "9464"], {}, "is a host and a port, such as 127.0.0.1:9464"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: list[str], variables: dict[str, str], says: str, store_uri: str, tmp_path: Path
) -> None:
    server = Server(tmp_path, "--uri", store_uri, *options, **variables)
    assert server.process.wait(timeout=PATIENCE_SECONDS) == 2
    assert says in " ".join(server.said.split())


def test_a_port_that_is_taken_is_one_sentence(store_uri: str, mongod: Mongod, tmp_path: Path) -> None:
    server = Server(
        tmp_path, "--uri", store_uri, "--metrics", "--metrics-address", f"127.0.0.1:{mongod.port}"
    )
    assert server.process.wait(timeout=PATIENCE_SECONDS) == 1
    assert "or choose another with --metrics-address." in server.said
    assert "Traceback" not in server.said
