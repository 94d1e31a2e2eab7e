"""A mongod for tests: a one-node replica set (or a standalone) on a free loopback port."""

import contextlib
import random
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from genesis_flow.embedded import find_mongod

START_TIMEOUT = 120
# Without zlib, for which `genesis-flow doctor` warns about the version that tests run on.
COMPRESSORS = "--networkMessageCompressors"
# Files in memory: a database is made in half the time. Tests kill servers, not machines.
MEMORY = Path("/dev/shm")
ROOM = 8 * 2**30


# Below those that systems hand out by themselves, to whoever connects or asks for any port.
_PORTS = range(12_000, 26_000)
_kept: dict[int, socket.socket] = {}


def free_port() -> int:
    """A port that stays free for whoever will use it, also after a restart.

    A server may need ten seconds until it listens. Meanwhile a port that the system chose may be given to
    another process; this one is kept from all that ask here, by a socket of the same number for datagrams.
    """
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with contextlib.ExitStack() as undo:
            keeper = undo.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            try:
                keeper.bind(("127.0.0.1", port))
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            undo.pop_all()
            _kept[port] = keeper
            return port


def unique(prefix: str) -> str:
    """A database's name that no other has: a fixture of a module may be made twice in one process.

    A process keeps what it knows of a database, its indexes among it, so a name cannot come again.
    """
    return f"{prefix}_{uuid.uuid4().hex[:12]}"


class Mongod:
    """One server process, which the test that started it may also kill."""

    def __init__(self, folder: Path, *, replica_set: bool = True, options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.port = free_port()
        self.replica_set = replica_set
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    def database_uri(self, name: str) -> str:
        return f"mongodb://127.0.0.1:{self.port}/{name}?directConnection=true"

    def start(self) -> None:
        self.launch()
        self._wait_until_writable()

    def launch(self) -> None:
        """Start the process, and leave the rest to whoever makes it part of a larger replica set."""
        (self.folder / "db").mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [
                str(find_mongod()),
                *("--dbpath", str(self.folder / "db"), "--port", str(self.port), "--bind_ip", "127.0.0.1"),
                *("--logpath", str(self.folder / "mongod.log"), "--logappend", "--nounixsocket"),
                *("--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "256"),
                *("--wiredTigerEngineConfigString", "log=(file_max=8MB,prealloc=false)"),
                *("--setParameter", "diagnosticDataCollectionEnabled=false"),
                *("--setParameter", "enableTestCommands=1"),
                # By default the files of a dropped database stay open for five minutes, and a suite that
                # makes a database for each test runs out of file descriptors. Watches read some seconds back.
                *("--setParameter", "minSnapshotHistoryWindowInSeconds=5"),
                *(("--replSet", "rs0") if self.replica_set else ()),
                *(() if COMPRESSORS in self.options else (COMPRESSORS, "snappy,zstd")),
                *self.options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "mongod.log").read_text()[-2000:]
                raise RuntimeError(f"mongod did not start:\n{log}")
            time.sleep(0.02)

    def _wait_until_writable(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        self.wait_until_it_answers()
        with pymongo.MongoClient(self.uri) as client:
            if self.replica_set:
                member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
                with contextlib.suppress(OperationFailure):  # initiated by an earlier start
                    client.admin.command({"replSetInitiate": {"_id": "rs0", "members": [member]}})
            while not client.admin.command("hello").get("isWritablePrimary"):
                if time.monotonic() > deadline:
                    raise RuntimeError("mongod did not become writable")
                time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.2):
                pass
            with pymongo.MongoClient(self.uri, serverSelectionTimeoutMS=2000) as client:
                client.admin.command("ping")
        except (OSError, PyMongoError):
            return False
        return True

    def kill(self) -> None:
        """As a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def check_alive(self) -> None:
        """Raise, with the end of its log, if it ended by itself: tests then fail for no fault of theirs."""
        if self.process is not None and (code := self.process.poll()) is not None:
            log = (self.folder / "mongod.log").read_text()[-4000:]
            raise RuntimeError(f"mongod ended with exit code {code}:\n{log}")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=120)


@contextlib.contextmanager
def guarded_mongod(user: str, password: str) -> Iterator[Mongod]:
    """A server that asks for a password; this user may do everything."""
    with running_mongod(replica_set=False, options=("--auth",)) as server:
        with pymongo.MongoClient(server.uri) as client:
            client.admin.command("createUser", user, pwd=password, roles=["root"])
        yield server


@contextlib.contextmanager
def running_mongod(*, replica_set: bool = True, options: tuple[str, ...] = ()) -> Iterator[Mongod]:
    folder = Path(tempfile.mkdtemp(prefix="genesis-flow-test-", dir=_in_memory()))
    server = Mongod(folder, replica_set=replica_set, options=options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _in_memory() -> Path | None:
    """Where files are in memory, if there is more room than the servers of all workers need."""
    try:
        has_room = shutil.disk_usage(MEMORY).free >= ROOM
    except OSError:  # not on this system
        return None
    return MEMORY if has_room else None
