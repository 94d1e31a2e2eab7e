"""What compose runs before the server, on a mongod with the options of the file."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest
from mlflow import MlflowClient
from pymongo.errors import OperationFailure

from tests.mongod import Mongod

PROGRAM = Path(__file__).parents[2] / "deploy" / "prepare_mongodb.py"
ROOT_PASSWORD, PASSWORD = "root-canary", "mlflow-canary"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Mongod]:
    """As the image leaves it: the user root is there, and no replica set yet."""
    made = Mongod(tmp_path, replica_set=False)
    made.start()
    with pymongo.MongoClient(made.uri) as client:
        client.admin.command("createUser", "root", pwd=ROOT_PASSWORD, roles=["root"])
    made.stop()
    key = tmp_path / "key"
    key.write_text("a key that members share\n")
    key.chmod(0o400)
    made.options = ("--replSet", "rs0", "--keyFile", str(key))
    made.launch()
    made.wait_until_it_answers()
    yield made
    made.stop()


def prepare(server: Mongod, folder: Path, password: str) -> str:
    (folder / "root").write_text(f"{ROOT_PASSWORD}\n")
    (folder / "mlflow").write_text(f"{password}\n")
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        env={
            **os.environ,
            "MONGODB_ADDRESS": f"127.0.0.1:{server.port}",
            "MONGODB_ROOT_PASSWORD_FILE": str(folder / "root"),
            "MLFLOW_PASSWORD_FILE": str(folder / "mlflow"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout + done.stderr
    return done.stdout


def test_the_replica_set_and_the_user_are_made_once_and_serve_mlflow(server: Mongod, tmp_path: Path) -> None:
    assert re.fullmatch(r"rs0: made, of 127\.0\.0\.1:\d+\nmlflow: made\n", prepare(server, tmp_path, "first"))
    assert prepare(server, tmp_path, PASSWORD) == "mlflow: there already\n"
    uri = f"mongodb://mlflow:{PASSWORD}@127.0.0.1:{server.port}/mlflow?replicaSet=rs0&authSource=mlflow"
    client = MlflowClient(uri)
    run = client.create_run("0").info.run_id
    client.log_metric(run, "loss", 0.5)
    assert client.get_run(run).data.metrics == {"loss": 0.5}
    with pymongo.MongoClient(uri) as user, pytest.raises(OperationFailure, match="not authorized"):
        user["other"].things.insert_one({})
    old = f"mongodb://mlflow:first@127.0.0.1:{server.port}/?authSource=mlflow&directConnection=true"
    with pymongo.MongoClient(old) as user, pytest.raises(OperationFailure, match="Authentication failed"):
        user.admin.command("ping")
