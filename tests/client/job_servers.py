"""``genesis-flow server --jobs …`` with a judge whose model is a fake one behind the gateway."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pymongo
import pytest
import requests
from mlflow.entities import GatewayEndpointModelConfig
from mlflow.entities.gateway_endpoint import GatewayModelLinkageType
from mlflow.genai.judges import make_judge

from genesis_flow import MongoDBStore
from tests.client.conftest import PATIENCE_SECONDS
from tests.client.fake_provider import Provider, fake_provider
from tests.client.test_server_command import Server, _members
from tests.contract import trace_scenes
from tests.mongod import Mongod, unique
from tests.roles import RestrictedMongod

PASSPHRASE = "a passphrase of the tests, which is long"
KEY = "sk-canary-1b5d7f3a9c"
ENDPOINT = "judge"
AT_START = Path(__file__).parent / "at_start"
MINUTE_MILLISECONDS = 60_000
# Many processes load MLflow, one after the other.
LONG_PATIENCE_SECONDS = 2 * PATIENCE_SECONDS
ENDED = {"SUCCEEDED", "FAILED", "TIMEOUT", "CANCELED"}


class JobServer:
    """A running server, by its REST interface, and the store that it has."""

    def __init__(self, server: Server, store: MongoDBStore, uri: str) -> None:
        self.server = server
        self.store = store
        self.uri = uri

    def ask(self, method: str, path: str, **content: Any) -> Any:
        answer = requests.request(
            method, f"{self.server.address}/ajax-api/3.0/{path}", json=content, timeout=PATIENCE_SECONDS
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit(self, **params: Any) -> str:
        made: str = self.ask("POST", "jobs/", job_name="tell", params=params)["job_id"]
        return made

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"jobs/{job_id}")
        return found

    def kept(self, job_id: str) -> dict[str, Any]:
        """What the database has of a job."""
        with pymongo.MongoClient[dict[str, Any]](self.uri) as client:
            found = client.get_default_database()["jobs"].find_one({"_id": job_id})
        assert found is not None
        return found

    def until(self, holds: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + LONG_PATIENCE_SECONDS
        while not (found := holds()):
            assert time.monotonic() < deadline, self.server.said
            time.sleep(0.2)
        return found

    def ended(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.until(
            lambda: job if (job := self.job(job_id))["status"] in ENDED else None
        )
        return found

    def subprocesses(self) -> list[str]:
        """The processes of jobs."""
        return [line for line in self.server.group() if "_job_subproc_entry" in line]

    def verdicts(self, trace_id: str, name: str) -> list[str]:
        """What a judge of this name has said of a trace."""
        assessments = self.store.get_trace_info(trace_id).assessments
        return [each.feedback.value for each in assessments if each.name == name and each.feedback]


def judge(name: str) -> str:
    made = make_judge(
        name=name,
        instructions="Is {{ outputs }} free of bombs? Answer yes or no.",
        model=f"gateway:/{ENDPOINT}",
        feedback_value_type=str,
    )
    return json.dumps(made.model_dump())


def log_trace(store: MongoDBStore, number: int, answer: str, minutes_ago: int, experiment: str = "0") -> str:
    """A trace of one span."""
    trace_id = trace_scenes.trace_id(number)
    start = time.time() * 1000 - minutes_ago * MINUTE_MILLISECONDS - trace_scenes.STARTED
    asked = {"mlflow.spanInputs": {"question": "what?"}, "mlflow.spanOutputs": answer}
    store.start_trace(trace_scenes.stated(trace_id, experiment, start=int(start), response_preview=answer))
    store.log_spans(
        experiment, [trace_scenes.span(trace_id, 1, start=start, end=start + 10, attributes=asked)]
    )
    return trace_id


def make_endpoint(store: MongoDBStore, provider: Provider) -> None:
    secret = store.create_gateway_secret(
        "key", {"api_key": KEY}, provider="openai", auth_config={"api_base": provider.address}
    )
    model = store.create_gateway_model_definition("model", secret.secret_id, "openai", "gpt-4o")
    linked = GatewayEndpointModelConfig(model.model_definition_id, GatewayModelLinkageType.PRIMARY)
    store.create_gateway_endpoint(ENDPOINT, [linked])


@contextmanager
def job_server(
    mongod: Mongod | RestrictedMongod,
    folder: Path,
    engine: str,
    prepare: Callable[[MongoDBStore], None],
    **more: str,
) -> Iterator[JobServer]:
    """A server on a database in which an endpoint is, and what ``prepare`` puts there before the start."""
    name = unique(f"jobs_{engine}")
    uri = mongod.database_uri(name)
    environment = {
        "GENESIS_FLOW_MONGODB_URI": uri,  # not in the command: it may have a password
        "MLFLOW_CRYPTO_KEK_PASSPHRASE": PASSPHRASE,
        "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_MODEL_CATALOG_URI": "",
        "MLFLOW_ONLINE_SCORING_DEFAULT_TRACE_COMPLETION_BUFFER_SECONDS": "0",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(AT_START), os.environ.get("PYTHONPATH")))),
        "_MLFLOW_SUPPORTED_JOB_FUNCTION_LIST": "jobs_of_tests.tell",
        "_MLFLOW_ALLOWED_JOB_NAME_LIST": "tell",
        **more,
    }
    options = ("--workers", "1", "--jobs", engine)
    with fake_provider() as provider, closing(MongoDBStore(uri)) as store:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_CRYPTO_KEK_PASSPHRASE", PASSPHRASE)
            make_endpoint(store, provider)
            prepare(store)
        server = Server(folder, *options, **environment)
        try:
            server.wait_for_address(seconds=LONG_PATIENCE_SECONDS)
            yield JobServer(server, store, uri)
        finally:
            if server.process.poll() is None:
                server.stop()
            with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
                client.drop_database(name)


def queue_of(served: JobServer) -> Path:
    """Where the server keeps its queues, once it does: its processes may only just have begun."""

    def filled() -> Path | None:
        with contextlib.suppress(AssertionError, OSError, ValueError):
            queue = _queue_now(served)
            return queue if list(queue.iterdir()) else None
        return None

    found: Path = served.until(filled)
    return found


def _queue_now(served: JobServer) -> Path:
    """As a variable tells the processes of the server."""
    process = served.server.process.pid
    (child,) = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    for pid in _members(int(child)):
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = variable.partition(b"=")
            if name == b"_MLFLOW_HUEY_STORAGE_PATH":
                return Path(value.decode())
    raise AssertionError("no process has a queue")
