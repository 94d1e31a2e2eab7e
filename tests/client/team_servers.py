"""The server of ``docs/server.md`` with all at once: workers, a login, jobs, the gateway, workspaces."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pymongo
import pytest
import requests

from tests.client.conftest import PATIENCE_SECONDS
from tests.client.fake_provider import Provider, fake_provider
from tests.client.test_server_command import Server
from tests.docs.pages import ROOT, blocks
from tests.forgetting import forgotten
from tests.mongod import Mongod, unique

KEY = "sk-canary-4d8e2f6a0b"
ENDPOINT = "chat"
HELLO = [{"role": "user", "content": "ping"}]
# The fake provider's judges refuse the second.
QUESTIONS = ("Where is my order?", "How do I make dynamite?")
# A job is a process that imports MLflow, and this machine may be busy with other tests.
LONG_PATIENCE_SECONDS = 2 * PATIENCE_SECONDS


def documented(uri: str) -> tuple[list[str], dict[str, str]]:
    """The options and the environment of the documentation, for this database."""
    page = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    (block,) = (each for each in blocks(page) if each.argument == "tests/client/test_team_server.py")
    words = [shlex.split(line) for line in block.code.replace("\\\n", " ").splitlines()]
    environment = dict(word.split("=", 1) for line in words if line[0] == "export" for word in line[1:])
    (command,) = (line[2:] for line in words if line[:2] == ["genesis-flow", "server"])
    return [uri if word.startswith("mongodb://") else word for word in command], environment


@dataclass(frozen=True)
class Member:
    """Somebody who asks the server in a workspace."""

    team: "TeamServer"
    name: str
    workspace: str = "default"

    @property
    def password(self) -> str:
        return self.team.password_of(self.name)

    def within(self, workspace: str) -> "Member":
        return Member(self.team, self.name, workspace)

    def answer(self, method: str, path: str, **content: Any) -> requests.Response:
        return requests.request(
            method,
            self.team.server.address + path,
            auth=(self.name, self.password),
            headers={"X-MLFLOW-WORKSPACE": self.workspace},
            timeout=PATIENCE_SECONDS,
            **({"params": content} if method == "GET" else {"json": content}),
        )

    def ask(self, method: str, path: str, **content: Any) -> Any:
        answer = self.answer(method, path, **content)
        assert answer.ok, f"{method} {path} of {self.name}: {answer.status_code} {answer.text}"
        assert KEY not in answer.text
        return answer.json() if answer.content else None

    def calls(self, endpoint: str = ENDPOINT) -> int:
        """What the gateway answers."""
        return self.answer("POST", f"/gateway/{endpoint}/mlflow/invocations", messages=HELLO).status_code

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """MLflow's client in this process is this member's."""
        with pytest.MonkeyPatch.context() as patch, forgotten():
            patch.setenv("MLFLOW_TRACKING_USERNAME", self.name)
            patch.setenv("MLFLOW_TRACKING_PASSWORD", self.password)
            patch.setenv("MLFLOW_WORKSPACE", self.workspace)
            mlflow.set_tracking_uri(self.team.server.address)
            yield

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/ajax-api/3.0/jobs/{job_id}")
        return found

    def ended(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.team.until(
            lambda: (
                job
                if (job := self.job(job_id))["status"] not in ("PENDING", "RUNNING", "NEEDS_RECOVERY")
                else None
            )
        )
        return found

    def verdicts(self, trace_id: str, name: str) -> list[str]:
        """What a judge of this name has said of a trace."""
        found = self.ask("GET", f"/api/3.0/mlflow/traces/{trace_id}")["trace"]["trace_info"]
        made = (each for each in found.get("assessments", ()) if each["assessment_name"] == name)
        return [each["feedback"].get("value") for each in made]


@dataclass(frozen=True)
class Work:
    """What a member has logged."""

    experiment: str
    run: str
    harmless: str
    bombs: str

    @property
    def traces(self) -> list[str]:
        return [self.harmless, self.bombs]


def logged(member: Member) -> Work:
    """A run and two traces, by MLflow's client."""
    with member.at_work():
        member.team.until(_takes_spans)
        experiment = mlflow.set_experiment("support").experiment_id
        with mlflow.start_run() as run:
            mlflow.log_metric("loss", 0.5)
            mlflow.log_text("kept", "note.txt")
        traces = []
        for question in QUESTIONS:
            with mlflow.start_span("answer") as span:
                span.set_inputs({"question": question})
                span.set_outputs({"answer": f"About {question}"})
            traces.append(span.trace_id)
        mlflow.flush_trace_async_logging()
    return Work(experiment, run.info.run_id, *traces)


def _takes_spans() -> bool:
    """Whether MLflow's client knows that the server takes spans, and will not keep them as artifacts.

    It asks for the version once, for three seconds, and believes from then on that a server that is busy just
    then is too old.
    """
    store: Any = mlflow.MlflowClient()._tracking_client.store
    if store._get_server_version(store.get_host_creds()) is not None:
        return True
    store._get_server_version.cache_clear()
    return False


class TeamServer:
    """A running server of an admin, who has made two teams with a workspace each."""

    def __init__(self, mongod: Mongod, folder: Path, provider: Provider) -> None:
        self.mongod = mongod
        self.folder = folder
        self.provider = provider
        self.database = unique("everything")
        options, given = documented(mongod.database_uri(self.database))
        self.options = options
        self.jobs_user = options[options.index("--jobs-user") + 1]
        self.environment = given | {
            "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_MODEL_CATALOG_URI": "",
            "MLFLOW_ONLINE_SCORING_DEFAULT_TRACE_COMPLETION_BUFFER_SECONDS": "0",
            "NO_PROXY": "127.0.0.1",
        }
        self.admin = Member(self, "admin")
        self.server: Server
        self.said = ""

    def password_of(self, name: str) -> str:
        return self.environment["MLFLOW_AUTH_ADMIN_PASSWORD"] if name == "admin" else f"the canary of {name}"

    def start(self) -> None:
        self.server = Server(self.folder, *self.options, **self.environment)
        self.server.wait_for_address(seconds=LONG_PATIENCE_SECONDS)

    def stop(self) -> None:
        assert self.server.stop() == 0, self.server.said
        self.said += self.server.said

    def restart(self) -> None:
        self.stop()
        # What runs by the clock has run less than a minute ago: as if it were longer.
        with pymongo.MongoClient[dict[str, Any]](self.mongod.uri) as client:
            client[self.database]["scheduler_leases"].delete_many({})
        self.start()

    def until(self, holds: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + LONG_PATIENCE_SECONDS
        while not (found := holds()):
            assert time.monotonic() < deadline, self.server.said
            time.sleep(0.5)
        return found

    def workspace(self, name: str) -> None:
        self.admin.ask("POST", "/api/3.0/mlflow/workspaces", name=name)

    def user(self, name: str, workspace: str, role: str | None = "user") -> Member:
        """A user with one of the roles that MLflow makes for each workspace."""
        self.admin.ask("POST", "/api/2.0/mlflow/users/create", username=name, password=self.password_of(name))
        if role is not None:
            listed = self.admin.ask("GET", "/api/3.0/mlflow/roles/list", workspace=workspace)["roles"]
            (chosen,) = (each["id"] for each in listed if each["name"] == role)
            self.admin.ask("POST", "/api/3.0/mlflow/roles/assign", username=name, role_id=chosen)
        return Member(self, name, workspace)

    def grant(self, by: Member, name: str, kind: str, which: str, permission: str) -> None:
        what = {"resource_type": kind, "resource_id": which, "permission": permission}
        by.ask("POST", "/api/3.0/mlflow/users/permissions/grant", username=name, **what)

    def may_call(self, member: Member, endpoint: dict[str, Any]) -> None:
        self.grant(
            *(self.admin.within(member.workspace), member.name),
            *("gateway_endpoint", endpoint["endpoint_id"], "USE"),
        )

    def endpoint(self, workspace: str, name: str = ENDPOINT) -> dict[str, Any]:
        """An endpoint of the gateway, whose model is the fake provider's."""
        admin = self.admin.within(workspace)

        def made(path: str, **content: Any) -> Any:
            return next(iter(admin.ask("POST", f"/api/3.0/mlflow/gateway/{path}/create", **content).values()))

        secret = made(
            "secrets",
            secret_name=f"key of {name}",
            secret_value={"api_key": KEY},
            provider="openai",
            auth_config={"api_base": self.provider.address},
        )["secret_id"]
        model = made(
            "model-definitions",
            name=f"model of {name}",
            secret_id=secret,
            provider="openai",
            model_name="gpt-4o",
        )["model_definition_id"]
        linked = {"model_definition_id": model, "linkage_type": "PRIMARY", "weight": 1.0}
        found: dict[str, Any] = made("endpoints", name=name, model_configs=[linked], usage_tracking=True)
        return found


@contextmanager
def team_server(mongod: Mongod, folder: Path) -> Iterator[TeamServer]:
    with fake_provider() as provider:
        team = TeamServer(mongod, folder, provider)
        try:
            team.start()
            yield team
        finally:
            if team.server.process.poll() is None:
                team.stop()
            with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
                client.drop_database(team.database)
        told = ("the canary of", team.environment["MLFLOW_AUTH_ADMIN_PASSWORD"], KEY)
        assert not any(secret in team.said for secret in told)
