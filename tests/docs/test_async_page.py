"""The web application of docs/async.md answers."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.docs.pages import ROOT, blocks
from tests.docs.session import Session
from tests.mongod import Mongod, free_port


@pytest.fixture
def session(mongod: Mongod, database_name: str, store_uri: str, tmp_path: Path) -> Iterator[Session]:
    made = Session(tmp_path / "reader", mongod.uri, database_name)
    yield made
    made.close()


@pytest.fixture
def address(session: Session) -> Iterator[str]:
    """Where the application listens, once it does."""
    page = (ROOT / "docs" / "async.md").read_text(encoding="utf-8")
    (code,) = (block.code for block in blocks(page) if "FastAPI(" in block.code)
    (command,) = (block.code.split() for block in blocks(page) if block.code.startswith("uvicorn"))
    (session.directory / "app.py").write_text(session.substituted(code))
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--port", str(port)],
        cwd=session.directory,
        env=session.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = ""
        while "Uvicorn running on" not in said:  # the test's own limit ends this
            line = process.stderr.readline()
            assert line, f"the application ended:\n{said}"
            said += line
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode in (0, -15)


def test_the_application_of_the_page_reads_and_writes(address: str, session: Session) -> None:
    client = MlflowClient(session.store_uri)
    runs = [client.create_run("0", run_name=f"run {number}").info.run_id for number in range(5)]
    for number, run_id in enumerate(runs):
        client.log_metric(run_id, "auc", number / 10)
    assert asked(f"{address}/best?metric=auc") == [
        {"name": "run 4", "auc": 0.4},
        {"name": "run 3", "auc": 0.3},
        {"name": "run 2", "auc": 0.2},
    ]
    assert asked(f"{address}/runs/{runs[0]}/feedback/0.75", b"") is None
    assert client.get_run(runs[0]).data.metrics["feedback"] == 0.75
    with pytest.raises(urllib.error.HTTPError) as caught:
        asked(f"{address}/runs/{'0' * 32}/feedback/1", b"")
    assert caught.value.code == 404
    assert "0" * 32 in json.loads(caught.value.read())["detail"]


def asked(url: str, body: bytes | None = None) -> object:
    with urllib.request.urlopen(urllib.request.Request(url, data=body)) as answer:
        return json.loads(answer.read())
