"""A replica set of three real mongods on loopback, whose members a test may kill, stop and bring back."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError

from tests.mongod import Mongod

# The default of 10 s would make every failover last 11 s.
_SETTINGS = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 500}
_PRIMARY, _SECONDARY = 1, 2


class ReplicaSet:
    def __init__(self, folder: Path, size: int = 3) -> None:
        self.members = [Mongod(folder / str(number)) for number in range(size)]

    def database_uri(self, name: str) -> str:
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in self.members)
        return f"mongodb://{hosts}/{name}?replicaSet=rs0"

    def start(self) -> None:
        for member in self.members:
            member.launch()
        for member in self.members:
            member.wait_until_it_answers()
        members = [
            {"_id": number, "host": f"127.0.0.1:{member.port}"} for number, member in enumerate(self.members)
        ]
        with pymongo.MongoClient(self.members[0].uri) as client:
            config = {"_id": "rs0", "members": members, "settings": _SETTINGS}
            client.admin.command({"replSetInitiate": config})
        self.wait_until_whole()

    def primary(self) -> Mongod | None:
        states = {member.port: _state(member) for member in self.members}
        return next((member for member in self.members if states[member.port] == _PRIMARY), None)

    def wait_for_primary(self, seconds: float = 120) -> Mongod:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (primary := self.primary()) is not None:
                return primary
            time.sleep(0.1)
        raise RuntimeError("no member became primary")

    def wait_until_whole(self, seconds: float = 150) -> None:
        """A primary, and all others following it."""
        deadline = time.monotonic() + seconds
        states: list[int | None] = []
        while time.monotonic() < deadline:
            states = sorted(_state(member) or 0 for member in self.members)
            if states == [_PRIMARY, *[_SECONDARY] * (len(self.members) - 1)]:
                return
            time.sleep(0.1)
        raise RuntimeError(f"the replica set did not become whole: {states}")

    def bring_back(self) -> None:
        """Start again whatever was killed, and wait until it has caught up."""
        for member in self.members:
            if member.process is None or member.process.poll() is not None:
                member.launch()
        for member in self.members:
            member.wait_until_it_answers()
        self.wait_until_whole()

    def kill(self) -> None:
        for member in self.members:
            member.kill()


def _state(member: Mongod) -> int | None:
    with (
        contextlib.suppress(PyMongoError),
        pymongo.timeout(2),
        pymongo.MongoClient(member.uri) as client,
    ):
        return int(client.admin.command("replSetGetStatus")["myState"])
    return None


@contextlib.contextmanager
def running_replica_set() -> Iterator[ReplicaSet]:
    folder = Path(tempfile.mkdtemp(prefix="genesis-flow-set-"))
    cluster = ReplicaSet(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(folder, ignore_errors=True)
