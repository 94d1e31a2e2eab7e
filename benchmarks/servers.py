"""The databases that the stores are measured on, and how much disk they take."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo

from genesis_flow.embedded import find_mongod

POSTGRESQL = Path("/usr/lib/postgresql")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def mongod(folder: Path) -> Iterator[Callable[[str], str]]:
    """A replica set of one node, as small installations have it; yields the URI of each database."""
    port = free_port()
    data = folder / "mongod"
    data.mkdir()
    process = subprocess.Popen(
        [
            str(find_mongod()),
            *("--dbpath", str(data), "--port", str(port), "--bind_ip", "127.0.0.1", "--replSet", "rs0"),
            *("--wiredTigerCacheSizeGB", "4", "--oplogSize", "512", "--nounixsocket"),
            *("--logpath", str(folder / "mongod.log")),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        address = f"mongodb://127.0.0.1:{port}"
        with pymongo.MongoClient(
            f"{address}/?directConnection=true", serverSelectionTimeoutMS=60_000
        ) as client:
            client.admin.command("ping")
            member = {"_id": 0, "host": f"127.0.0.1:{port}"}
            client.admin.command({"replSetInitiate": {"_id": "rs0", "members": [member]}})
            while not client.admin.command("hello").get("isWritablePrimary"):
                time.sleep(0.05)
        yield lambda name: f"{address}/{name}?replicaSet=rs0&w=majority"
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str | None]:
    """A PostgreSQL with its own defaults, from Debian's package; None if it is not installed."""
    programs = sorted(POSTGRESQL.glob("*/bin"), key=lambda path: int(path.parent.name))
    if not programs:
        yield None
        return
    data = folder / "postgresql"
    data.mkdir()
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "check": True}
    if os.geteuid() == 0:  # it refuses to run as root
        options["user"] = "nobody"
        shutil.chown(data, "nobody")
        folder.chmod(0o755)
    port = free_port()
    subprocess.run(
        [
            str(programs[-1] / "initdb"),
            "-D",
            str(data),
            "-U",
            "bench",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
        ],
        cwd=data,
        **options,
    )
    control = [str(programs[-1] / "pg_ctl"), "-D", str(data), "-w", "-l", str(data / "log")]
    server = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    subprocess.run([*control, "-o", server, "start"], cwd=data, **options)
    try:
        yield f"postgresql://bench@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "fast", "stop"], cwd=data, **options)


def process_of(uri: str) -> int | None:
    """The process of the server behind a URI; a file has none."""
    if uri.startswith("sqlite:"):
        return None
    with pymongo.MongoClient(uri) as client:
        return int(client.admin.command("serverStatus")["pid"])


def processor_seconds(pid: int | None) -> float:
    """That a process has used until now."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def disk_of(kind: str, uri: str) -> int:
    """Bytes of a store's data and indexes."""
    if kind == "sqlite":
        path = Path(uri.removeprefix("sqlite:///"))
        return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
    if kind == "postgresql":
        import sqlalchemy

        engine = sqlalchemy.create_engine(uri, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("CHECKPOINT")
            return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())
    with pymongo.MongoClient(uri) as client:
        client.admin.command({"fsync": 1})
        found = client.get_default_database().command("dbStats")
        return int(found["storageSize"] + found["indexSize"])
