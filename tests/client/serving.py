"""MLflow's own server as a process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from tests.client.conftest import PATIENCE_SECONDS, user_environment
from tests.mongod import free_port


@contextlib.contextmanager
def mlflow_server(
    backend: str, folder: Path, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The address of ``mlflow server``, and its process, which logs to ``log``; it ends with its children.

    Without its runner of background jobs, which are eight processes more that load MLflow, unless told so.
    """
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment}
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", backend]
    options = ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *options, "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env=user_environment(**environment),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not answers(address):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield address, process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=PATIENCE_SECONDS)


def answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/health", timeout=10).ok
    except (requests.ConnectionError, requests.Timeout):  # or it is slow, on a busy machine
        return False
