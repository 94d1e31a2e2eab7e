"""A request of a user who is logged in, under `genesis-flow server` and under `mlflow server` on SQLite.

    python benchmarks/login.py [--rounds 5] [--calls 40] [--remembered SECONDS] [--json]

Both servers run twice, with and without a login; users of the SQLite server are in a SQLite of their own, as
MLflow has it. The servers take turns. The user is no admin and asks for an experiment of the user's own, so
that the password, the user and the permission are looked at. Printed are medians over all calls, and how much
of it the login is; the processor time is that of the server's processes, without the database's. To check a
password takes both most of it; --remembered sets MLflow's `auth_cache_ttl_seconds`, and leaves the rest.
"""

import argparse
import base64
import contextlib
import http.client
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway import Server, server
from servers import mongod, processor_seconds

OURS, SQLITE = "genesis_flow", "MLflow on SQLite"
LOGIN = ("--app-name", "basic-auth")
ADMIN, USER = ("admin", "a password of the admin"), ("ann", "a password of the user")
EXPERIMENTS, USERS = "/api/2.0/mlflow/experiments", "/api/2.0/mlflow/users"

Person = tuple[str, str] | None


@dataclass
class Asked:
    """A server, and what calls of it took."""

    address: str
    group: int
    login: bool
    path: str = ""
    took: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)

    def ask(
        self,
        connection: http.client.HTTPConnection,
        person: Person,
        method: str,
        path: str,
        content: dict[str, Any] | None = None,
    ) -> Any:
        headers = {"content-type": "application/json"}
        if person is not None:
            headers["authorization"] = f"Basic {base64.b64encode(':'.join(person).encode()).decode()}"
        connection.request(method, path, None if content is None else json.dumps(content), headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {body!r:.500}")
        return json.loads(body)

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=60)
        try:
            yield connection
        finally:
            connection.close()

    @property
    def person(self) -> Person:
        return USER if self.login else None

    def prepare(self) -> None:
        with self.connection() as connection:
            if self.login:
                user = dict(zip(("username", "password"), USER, strict=True))
                self.ask(connection, ADMIN, "POST", f"{USERS}/create", user)
            made = self.ask(connection, self.person, "POST", f"{EXPERIMENTS}/create", {"name": "mine"})
        self.path = f"{EXPERIMENTS}/get?experiment_id={made['experiment_id']}"

    def call(self, calls: int) -> None:
        with self.connection() as connection:
            self.ask(connection, self.person, "GET", self.path)  # the connection is there
            used = self.processor_seconds()
            for _ in range(calls):
                begin = time.perf_counter()
                self.ask(connection, self.person, "GET", self.path)
                self.took.append((time.perf_counter() - begin) * 1000)
            self.used.append((self.processor_seconds() - used) * 1000 / calls)

    def processor_seconds(self) -> float:
        """Of all processes of the server."""
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        found = 0.0
        for pid in pids:
            with contextlib.suppress(OSError):  # a process that has just ended
                if os.getpgid(pid) == self.group:
                    found += processor_seconds(pid)
        return found


def group_of(started: Server) -> int:
    """`genesis-flow server` starts MLflow in a group of its own."""
    pid = started.process.pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if os.getpgid(int(child)) != pid:
            return os.getpgid(int(child))
    return pid


@contextlib.contextmanager
def servers(folder: Path, remembered: int) -> Iterator[dict[tuple[str, bool], Asked]]:
    with contextlib.ExitStack() as stack:
        database_uri = stack.enter_context(mongod(folder))
        told = (
            "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
            f"auth_cache_ttl_seconds = {remembered}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        configs = {OURS: folder / "ours.ini", SQLITE: folder / "sqlite.ini"}
        configs[OURS].write_text(told)
        configs[SQLITE].write_text(f"{told}database_uri = sqlite:///{folder}/users.db\n")
        secrets = {"MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1], "MLFLOW_FLASK_SERVER_SECRET_KEY": "of a benchmark"}
        starting: dict[tuple[str, bool], Server] = {}
        for login in (False, True):
            options, more = (LOGIN, secrets) if login else ((), {})
            config = {name: {**more, "MLFLOW_AUTH_CONFIG_PATH": str(path)} for name, path in configs.items()}
            uri = database_uri(f"login_{login}")
            ours = server(
                folder / f"ours {login}", uri, 1, "genesis_flow.cli", "server", *options, **config[OURS]
            )
            starting[OURS, login] = stack.enter_context(ours)
            uri = f"sqlite:///{folder}/mlflow_{login}.db"
            theirs = server(
                folder / f"sqlite {login}", uri, 1, "mlflow", "server", *options, **config[SQLITE]
            )
            starting[SQLITE, login] = stack.enter_context(theirs)
        yield {
            (name, login): Asked(started.address(), group_of(started), login)
            for (name, login), started in starting.items()
        }


def figures(asked: dict[tuple[str, bool], Asked]) -> dict[str, dict[str, float]]:
    found = {}
    for name in (OURS, SQLITE):
        plain, login = (asked[name, each] for each in (False, True))
        middle = [statistics.median(each.took) for each in (plain, login)]
        used = [statistics.median(each.used) for each in (plain, login)]
        found[name] = {
            "without_login_ms": middle[0],
            "with_login_ms": middle[1],
            "login_ms": middle[1] - middle[0],
            "login_processor_ms": used[1] - used[0],
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=40, help="of each server, in each round")
    parser.add_argument("--remembered", type=int, default=0, metavar="SECONDS")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="genesis-flow-bench-") as folder,
        servers(Path(folder), options.remembered) as asked,
    ):
        for each in asked.values():
            each.prepare()
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for each in random.sample(list(asked.values()), len(asked)):
                each.call(options.calls)
        found = figures(asked)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print("| server | without a login, ms | with a login, ms | the login, ms | the login, processor ms |")
    print("|---|---|---|---|---|")
    for name, values in found.items():
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values.values())} |")


if __name__ == "__main__":
    main()
