"""A PostgreSQL server for tests, on a free port of this machine."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mongod import free_port

PASSWORD = "S3CRETPW"
START_TIMEOUT = 60
_SETTINGS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "shared_buffers=32MB")
_INIT = ("-U", "tester", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")


def find(program: str) -> Path:
    """A program of PostgreSQL, which Debian keeps out of the path; a missing one fails under CI."""
    found = shutil.which(program) or next(
        iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True)), None
    )
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed (on Debian and Ubuntu: postgresql)")
        pytest.skip("PostgreSQL is not installed")
    return Path(found)


@contextlib.contextmanager
def running_postgresql() -> Iterator[str]:
    """The URI of a server whose user ``tester`` may do everything."""
    initdb, postgres = find("initdb"), find("postgres")
    # It refuses to run as root.
    owner = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="genesis-flow-postgresql-"))
    password = folder / "password"
    password.write_text(PASSWORD)
    data, port = folder / "data", free_port()
    process: subprocess.Popen[bytes] | None = None
    try:
        if owner:
            for path in (folder, password):
                shutil.chown(path, **owner)
        subprocess.run(
            [initdb, "-D", data, *_INIT, f"--pwfile={password}"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **owner,  # type: ignore[call-overload]
        )
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [postgres, "-D", data, "-p", str(port), *settings], stderr=log, stdout=log, cwd="/", **owner
            )
        uri = f"postgresql+psycopg://tester:{PASSWORD}@127.0.0.1:{port}/postgres"
        _wait_until_ready(uri, process, folder / "log")
        yield uri
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # without waiting for clients
            process.wait(START_TIMEOUT)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            psycopg.connect(uri.replace("+psycopg", ""), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()[-2000:]}") from error
            time.sleep(0.05)
        else:
            return


def fill(uri: str, webhook_key: str) -> None:
    """Let the installed MLflow fill a database as it does the fixtures."""
    program = Path(__file__).parent / "fixtures" / "fill_sql.py"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    environ |= {
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": webhook_key,
    }
    subprocess.run([sys.executable, program, uri], check=True, env=environ, stdout=subprocess.DEVNULL)
