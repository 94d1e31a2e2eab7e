"""``genesis-flow server --app-name basic-auth``: two servers with a login, users beside experiments.

Both start at the same moment on a database in which nothing is. When its schema is there their user is an
operator no more: what follows needs the role ``mlflowServer`` of docs/security.md, and no more.
"""

import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
import requests

from genesis_flow.migrate import command
from genesis_flow.stores.areas import DECLARED
from tests.client.conftest import PATIENCE_SECONDS
from tests.client.test_server_command import Server
from tests.migration.helpers import make_config
from tests.mongod import unique
from tests.roles import restricted_mongod

ADMIN = ("admin", "the canary of the admin")
ANN = ("ann", "the canary of ann")
BOB = ("bob", "the canary of bob")
DAN = ("dan", "the canary of dan")
ROOM = "/api/2.0/mlflow"
ROLES = "/api/3.0/mlflow"

Login = tuple[str, str] | None

# The first test waits for two servers, whose six processes import MLflow.
pytestmark = pytest.mark.timeout(900)


class Caller:
    """Calls one server, as whoever it is told."""

    def __init__(self, server: Server, store_uri: str) -> None:
        self.server = server
        self.store_uri = store_uri

    def __call__(self, login: Login, method: str, path: str, **content: Any) -> requests.Response:
        given = {"params": content} if method == "GET" else {"json": content}
        return requests.request(method, self.server.address + path, auth=login, timeout=150, **given)  # type: ignore[arg-type]

    def get(self, login: Login, path: str, **content: Any) -> requests.Response:
        return self(login, "GET", path, **content)

    def post(self, login: Login, path: str, **content: Any) -> requests.Response:
        return self(login, "POST", path, **content)

    def experiment(self, login: Login, name: str) -> str:
        made = self.post(login, f"{ROOM}/experiments/create", name=name)
        assert made.status_code == 200, made.text
        return str(made.json()["experiment_id"])

    def reads(self, login: Login, experiment_id: str) -> int:
        return self.get(login, f"{ROOM}/experiments/get", experiment_id=experiment_id).status_code

    def edits(self, login: Login, experiment_id: str) -> int:
        tag = {"experiment_id": experiment_id, "key": "k", "value": "v"}
        return self.post(login, f"{ROOM}/experiments/set-experiment-tag", **tag).status_code

    def deletes(self, login: Login, experiment_id: str) -> int:
        return self.post(login, f"{ROOM}/experiments/delete", experiment_id=experiment_id).status_code

    def grant(self, login: Login, user: str, experiment_id: str, permission: str) -> requests.Response:
        what = {"resource_type": "experiment", "resource_id": experiment_id, "permission": permission}
        return self.post(login, f"{ROLES}/users/permissions/grant", username=user, **what)

    def revoke(self, login: Login, user: str, experiment_id: str) -> requests.Response:
        what = {"resource_type": "experiment", "resource_id": experiment_id}
        return self.post(login, f"{ROLES}/users/permissions/revoke", username=user, **what)


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Caller, Caller]]:
    """Two servers whose URI has a percent sign, and whose admin and first two users are there."""
    name = unique("login")
    with restricted_mongod() as mongod:
        store_uri = f"{mongod.empty_database_uri(name)}&appName=a%20login"
        servers = [
            Server(
                tmp_path_factory.mktemp("login"),
                *("--workers", str(workers), "--app-name", "basic-auth"),
                GENESIS_FLOW_MONGODB_URI=store_uri,
                MLFLOW_AUTH_ADMIN_PASSWORD=ADMIN[1],
            )
            for workers in (2, 1)
        ]
        try:
            for server in servers:
                server.wait_for_address()
            config = make_config(mongod.root_uri(name))
            assert [each for each in command.check(config, DECLARED) if each.kind != "note"] == []
            mongod.is_operator_no_more(name)
            first, second = (Caller(server, store_uri) for server in servers)
            for user, password in (ANN, BOB):
                made = first.post(ADMIN, f"{ROOM}/users/create", username=user, password=password)
                assert made.status_code == 200, made.text
            yield first, second
        finally:
            for server in servers:
                server.process.terminate()
            codes = [server.process.wait(timeout=PATIENCE_SECONDS) for server in servers]
        said = "".join(server.said for server in servers)
        assert codes == [0, 0], said
        passwords = [password for _, password in (ADMIN, ANN, BOB, DAN)]
        assert not any(password in said for password in (*passwords, mongod.PASSWORD))


@pytest.fixture(scope="module")
def call(callers: tuple[Caller, Caller]) -> Caller:
    """The first server, which has two workers."""
    return callers[0]


def test_servers_that_start_at_once_make_one_admin(callers: tuple[Caller, Caller]) -> None:
    """However many of their workers have looked for one, and found none."""
    said = "".join(caller.server.said for caller in callers)
    assert said.count("Created admin user") == 1, said
    for caller in callers:
        assert [caller.reads(person, "0") for person in (ADMIN, ANN, BOB)] == [200, 200, 200]


def test_health_needs_no_login_and_all_else_does(call: Caller) -> None:
    for path in ("/health", "/genesis/live", "/genesis/ready"):
        assert call.get(None, path).status_code == 200
    for login in (None, ("ann", "not the password"), ("eve", ANN[1]), ("ann", "")):
        assert call.get(login, f"{ROOM}/experiments/get", experiment_id="0").status_code == 401
        assert call.post(login, f"{ROOM}/users/create", username="eve", password=ANN[1]).status_code == 401
        assert call.get(login, "/ajax-api/3.0/jobs/unknown").status_code == 401
    assert call.reads(ANN, "0") == 200


def test_users_are_beside_the_experiments_and_no_password_is_anywhere(call: Caller) -> None:
    with pymongo.MongoClient[dict[str, Any]](call.store_uri) as client:
        kept = list(client.get_default_database()["auth_users"].find().sort("_id"))
    assert [each["username"] for each in kept[:3]] == ["admin", "ann", "bob"]
    assert [each["is_admin"] for each in kept[:3]] == [True, False, False]
    told = repr(kept) + "".join(call.server.group()) + call.server.said
    assert not any(password in told for _, password in (ADMIN, ANN, BOB))
    listed = call.get(ADMIN, f"{ROOM}/users/list").text
    assert "ann" in listed
    assert "scrypt" not in listed


def test_the_file_that_names_the_database_is_read_by_its_user_alone(call: Caller) -> None:
    pid = int(Path(f"/proc/{call.server.process.pid}/task/{call.server.process.pid}/children").read_text())
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    (path,) = (each.partition("=")[2] for each in environment if each.startswith("MLFLOW_AUTH_CONFIG_PATH="))
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert "appName=a%%20login" in Path(path).read_text()


def test_who_makes_an_experiment_may_do_everything_with_it(call: Caller) -> None:
    mine = call.experiment(ANN, "of ann")
    assert [call.reads(BOB, mine), call.edits(BOB, mine), call.deletes(BOB, mine)] == [200, 403, 403]
    assert call.grant(BOB, "bob", mine, "MANAGE").status_code == 403
    assert call.grant(ANN, "bob", mine, "EDIT").status_code == 200
    assert call.grant(ANN, "bob", mine, "EDIT").json()["error_code"] == "RESOURCE_ALREADY_EXISTS"
    assert [call.edits(BOB, mine), call.deletes(BOB, mine)] == [200, 403]
    assert call.revoke(ANN, "bob", mine).status_code == 200
    assert call.revoke(ANN, "bob", mine).json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert call.edits(BOB, mine) == 403
    assert call.grant(ANN, "bob", mine, "DENY").status_code == 200
    assert call.reads(BOB, mine) == 403
    assert call.deletes(ANN, mine) == 200


def test_a_role_gives_what_it_has_to_all_who_have_it(call: Caller) -> None:
    mine = call.experiment(ADMIN, "of a role")
    made = call.post(ADMIN, f"{ROLES}/roles/create", name="editors", workspace="default")
    assert made.status_code == 200, made.text
    role = made.json()["role"]["id"]
    what = {"resource_type": "experiment", "resource_pattern": mine, "permission": "MANAGE"}
    added = call.post(ADMIN, f"{ROLES}/roles/permissions/add", role_id=role, **what)
    assert added.status_code == 200, added.text
    assert call.post(BOB, f"{ROLES}/roles/assign", username="bob", role_id=role).status_code == 403
    assert call.edits(BOB, mine) == 403
    assert call.post(ADMIN, f"{ROLES}/roles/assign", username="bob", role_id=role).status_code == 200
    assert call.edits(BOB, mine) == 200
    assert call(ADMIN, "DELETE", f"{ROLES}/roles/delete", role_id=role).status_code == 200
    assert call.edits(BOB, mine) == 403


def test_another_password_and_another_admin(call: Caller) -> None:
    cid = ("cid", "the first password of cid")
    now = ("cid", "the second password of cid")
    assert call.post(BOB, f"{ROOM}/users/create", username=cid[0], password=cid[1]).status_code == 403
    assert call.post(ADMIN, f"{ROOM}/users/create", username=cid[0], password=cid[1]).status_code == 200
    again = call.post(ADMIN, f"{ROOM}/users/create", username=cid[0], password=cid[1])
    assert again.json()["error_code"] == "RESOURCE_ALREADY_EXISTS"
    changed = call(ADMIN, "PATCH", f"{ROOM}/users/update-password", username="cid", password=now[1])
    assert changed.status_code == 200, changed.text
    assert [call.reads(cid, "0"), call.reads(now, "0")] == [401, 200]
    made = call(ADMIN, "PATCH", f"{ROOM}/users/update-admin", username="cid", is_admin=True)
    assert made.status_code == 200, made.text
    assert call.deletes(now, call.experiment(ANN, "deleted by another admin")) == 200
    assert call(ADMIN, "DELETE", f"{ROOM}/users/delete", username="cid").status_code == 200
    # Whichever worker is asked.
    assert {call.reads(now, "0") for _ in range(4)} == {401}


def test_what_two_servers_are_asked_at_once_is_done_once(callers: tuple[Caller, Caller]) -> None:
    """A user, a role, and the own role of a user who is granted several things."""
    call = callers[0]
    mine = [call.experiment(ANN, f"for dan {number}") for number in range(2)]

    def at_once(ask: Callable[[Caller, int], requests.Response]) -> list[requests.Response]:
        begin, answers = threading.Barrier(2), list[requests.Response]()

        def work(number: int) -> None:
            begin.wait(60)
            answers.append(ask(callers[number], number))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(begin.parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    user = dict(zip(("username", "password"), DAN, strict=True))
    role = {"name": "of two servers", "workspace": "default"}
    for path, content in ((f"{ROOM}/users/create", user), (f"{ROLES}/roles/create", role)):
        answers = at_once(lambda each, _, path=path, content=content: each.post(ADMIN, path, **content))
        refused = [each.json()["error_code"] for each in answers if each.status_code != 200]
        assert refused == ["RESOURCE_ALREADY_EXISTS"], [each.text for each in answers]
    granted = at_once(lambda each, number: each.grant(ANN, "dan", mine[number], "EDIT"))
    assert [each.status_code for each in granted] == [200, 200], [each.text for each in granted]
    assert [call.edits(DAN, each) for each in mine] == [200, 200]
    with pymongo.MongoClient[dict[str, Any]](call.store_uri) as client:
        database = client.get_default_database()
        dan = database["auth_users"].find_one({"username": "dan"})
        assert dan is not None
        assert database["auth_roles"].count_documents({"owner_id": dan["_id"]}) == 1
