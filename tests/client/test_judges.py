"""Judges through ``mlflow.genai``, MLflow's commands and MLflow's server."""

import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import Run, run_command

JUDGE = json.dumps(
    {
        "name": "polite",
        "instructions_judge_pydantic_data": {
            "instructions": "Is {{ outputs }} polite?",
            "model": "openai:/gpt-4",
        },
    }
)


def test_judges_without_a_server(
    run_program: Run, genesis_uri: str, unique_name: str, tmp_path: Path
) -> None:
    found = run_program("judges", genesis_uri, unique_name).answer
    assert found["listed"] == ["polite", "short"]
    assert found["versions"] == [["Is {{ outputs }} polite?", 1], ["Is {{ outputs }} kind?", 2]]
    assert found["first"] == "Is {{ outputs }} polite?"
    assert found["guidelines"] == "Be short."
    for refused in ("start", "update"):
        assert "INVALID_PARAMETER_VALUE" in found[refused]
        assert "does not use a gateway model" in found[refused]
    assert found["stopped"] == 0
    assert found["gateway"] == "RESOURCE_DOES_NOT_EXIST: GatewayEndpoint not found (name='chat')"
    assert found["left"] == [2]
    assert found["at last"] == ["short"]
    listed = run_command(
        *(sys.executable, "-m", "mlflow", "scorers", "list", "--experiment-id", found["experiment"]),
        cwd=tmp_path,
        MLFLOW_TRACKING_URI=genesis_uri,
    )
    assert listed.code == 0, listed.stderr
    assert "short" in listed.stdout
    assert "polite" not in listed.stdout
    assert "Deleted for good" not in listed.stdout, "only gc has something to account for"


def test_every_scheme_of_the_stores_is_one_of_scorers() -> None:
    stores = {point.name for point in entry_points(group="mlflow.tracking_store", module=OURS)}
    assert {point.name for point in entry_points(group="mlflow.scorer_store", module=OURS)} == stores


OURS = "genesis_flow.plugins.entrypoints"


class Rest:
    """The server's routes of this area, called in this process."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def __call__(self, method: str, path: str, code: int = 200, **body: Any) -> Any:
        sent = {"query_string": body} if method == "GET" else {"json": body}
        answer = self.client.open(f"/api/3.0/mlflow/scorers/{path}", method=method, **sent)
        assert answer.status_code == code, answer.get_data(as_text=True)
        return answer.get_json()


@pytest.fixture
def rest(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Rest:
    from mlflow.server import app, handlers

    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", store_uri)
    monkeypatch.setattr(handlers, "_tracking_store", None)
    return Rest(app.test_client())


def test_routes(rest: Rest) -> None:
    scorer = {"experiment_id": "0", "name": "polite"}
    for number in (1, 2):
        made = rest("POST", "register", **scorer, serialized_scorer=JUDGE)
        assert made["version"] == number
    refused = rest(
        "POST", "register", 404, **scorer, serialized_scorer=JUDGE.replace("openai:/gpt-4", "gateway:/x")
    )
    assert refused["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert rest("POST", "register", 400, **scorer, serialized_scorer="no JSON")["error_code"] in (
        "INVALID_PARAMETER_VALUE",
        "BAD_REQUEST",
    )
    assert [each["scorer_version"] for each in rest("GET", "list", experiment_id="0")["scorers"]] == [2]
    assert [each["scorer_name"] for each in rest("GET", "list")["scorers"]] == ["polite"]
    versions = rest("GET", "versions", **scorer)["scorers"]
    assert [each["scorer_version"] for each in versions] == [1, 2]
    got = rest("GET", "get", **scorer, version=1)["scorer"]
    assert (got["scorer_version"], got["serialized_scorer"]) == (1, JUDGE)
    assert rest("GET", "get", 404, **scorer, version=3)["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    settings = {"experiment_id": "0", "name": "polite"}
    assert (
        rest("PUT", "online-config", 400, **settings, sample_rate=0.5)["error_code"]
        == "INVALID_PARAMETER_VALUE"
    )
    assert rest("PUT", "online-config", **settings, sample_rate=0)["config"]["sample_rate"] == 0
    found = rest("GET", "online-configs", scorer_ids=got["scorer_id"])
    assert [each["scorer_id"] for each in found["configs"]] == [got["scorer_id"]]
    rest("DELETE", "delete", **scorer, version=1)
    rest("DELETE", "delete", **scorer)
    assert rest("DELETE", "delete", 404, **scorer)["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert rest("GET", "list", experiment_id="0").get("scorers", []) == []
