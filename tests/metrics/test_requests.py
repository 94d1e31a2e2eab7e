"""Requests by the template of their route: FastAPI's and Flask's alike, and nothing that a user chose."""

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from genesis_flow.compat.routes import Find, finder
from genesis_flow.metrics.requests import CountedRequests, Message, Scope
from genesis_flow.mongo import counting
from tests.metrics.samples import Samples

RUN = "5dcf7bec2dda4407a7d87752aa11437e"
FOUND = {
    ("GET", "/health"): "/health",
    ("HEAD", "/health"): "/health",
    ("POST", "/api/2.0/mlflow/runs/log-metric"): "/api/2.0/mlflow/runs/log-metric",
    # A path that is there, and a method that is not: the route says which answered 405.
    ("DELETE", "/api/2.0/mlflow/experiments/get"): "/api/2.0/mlflow/experiments/get",
    ("GET", f"/ajax-api/3.0/jobs/{RUN}"): "/ajax-api/3.0/jobs/{job_id}",
    ("POST", "/gateway/secret-name/mlflow/invocations"): "/gateway/{endpoint_name}/mlflow/invocations",
    ("GET", "/static-files/a/b.js"): "/static-files/<path:path>",
    ("POST", "/v1/traces"): "/v1/traces",
    ("GET", f"/nowhere/{RUN}"): None,
}
PREFIXED = """
import json
from mlflow.server.fastapi_app import app
from genesis_flow.compat.routes import finder
find = finder(app)
print(json.dumps([find("GET", path) for path in {paths!r}]))
"""


@pytest.fixture(scope="module")
def find() -> Find:
    from mlflow.server.fastapi_app import app

    return finder(app)


def test_the_template_of_each_kind_of_route_is_found(find: Find) -> None:
    assert {asked: find(*asked) for asked in FOUND} == FOUND


def test_templates_are_found_below_a_prefix() -> None:
    paths = [
        "/team/health",
        f"/team/ajax-api/3.0/jobs/{RUN}",
        "/team/get-artifact",
        f"/ajax-api/3.0/jobs/{RUN}",
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PREFIXED.format(paths=paths)],
        env={**os.environ, "_MLFLOW_STATIC_PREFIX": "/team"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [
        "/team/health",
        "/team/ajax-api/3.0/jobs/{job_id}",
        "/team/get-artifact",
        None,
    ]


def answer(app: CountedRequests, method: str, path: str) -> None:
    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        """Nobody reads it."""

    asyncio.run(app({"type": "http", "method": method, "path": path}, receive, send))


def test_labels_have_no_value_that_a_user_chose(find: Find) -> None:
    in_flight: list[float] = []

    async def application(scope: Scope, receive: Any, send: Any) -> None:
        in_flight.append(Samples(counting.registry.collect()).sum("http_requests_in_flight"))
        if scope["path"] == "/health":
            raise RuntimeError("an answer that was never begun")
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    before = Samples(counting.registry.collect())
    app = CountedRequests(application, find, own=["/genesis/ready"])
    answer(app, "GET", f"/nowhere/{RUN}")
    answer(app, "GET", f"/ajax-api/3.0/jobs/{RUN}")
    answer(app, "GET", f"/ajax-api/3.0/jobs/{RUN * 100}")
    answer(app, "GET", "/genesis/ready")
    answer(app, f"X{RUN}", "/version")
    with pytest.raises(RuntimeError):
        answer(app, "GET", "/health")
    after = Samples(counting.registry.collect())

    def more(route: str, **labels: str) -> float:
        found = [each.sum("http_requests_total", route=route, **labels) for each in (after, before)]
        return found[0] - found[1]

    assert more("other", method="GET", status="204") == 1
    assert more("other", method="other", status="204") == 1
    assert more("/ajax-api/3.0/jobs/{job_id}", status="204") == 2
    assert more("/genesis/ready") == 1
    assert more("/health", method="GET", status="500") == 1
    assert RUN not in after.text
    assert min(in_flight) == before.sum("http_requests_in_flight") + 1
    assert after.sum("http_requests_in_flight") == before.sum("http_requests_in_flight")
    assert after.sum("http_request_duration_seconds_count", route="/genesis/ready") >= 1
