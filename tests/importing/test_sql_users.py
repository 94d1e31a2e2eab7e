"""Users, roles and permissions of MLflow's own store of them: brought over, proven, taken back.

docs/importing.md says how.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pymongo
import pytest
from click.testing import CliRunner
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore as SqlUsers
from mlflow.utils.workspace_context import ServerWorkspaceContext

from genesis_flow.cli.migrate import cli
from genesis_flow.sync.users import MongoDBAuthStore
from tests.importing.jobs import Job

PASSWORD = "a password of twelve"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which MLflow keeps two users, a role, and what each was granted alone."""
    path = tmp_path_factory.mktemp("users") / "basic_auth.db"
    store = SqlUsers()
    store.init_db(f"sqlite:///{path}")
    store.create_user("root", PASSWORD, is_admin=True)
    store.create_user("gone", PASSWORD)
    ann = store.create_user("ann", PASSWORD)
    store.delete_user("gone")  # numbers have gaps
    role = store.create_role("readers", "default", "may read")
    other = store.create_role("readers", "team-a")
    for each in (role, other):
        store.add_role_permission(each.id, "experiment", "*", "READ")
        store.assign_role_to_user(ann.id, each.id)
    store.add_role_permission(role.id, "registered_model", "m/ü", "MANAGE")
    store.grant_user_permission("ann", "experiment", "7", "EDIT")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
        with ServerWorkspaceContext("team-a"):
            store.grant_user_permission("root", "experiment", "8", "MANAGE")
    store.engine.dispose()
    return path


def command(job: Job, *arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(cli, ["--uri", job.uri, "--quiet", *arguments, "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "pbkdf2" not in done.output
    assert "scrypt" not in done.output
    try:
        return done.exit_code, json.loads(done.stdout)
    except ValueError:
        return done.exit_code, done.output


@contextmanager
def users_of(uri: str) -> Iterator[Any]:
    store = MongoDBAuthStore()
    store.init_db(uri)
    try:
        yield store
    finally:
        store.close()


def told(store: Any) -> Any:
    """What a store says of its users and roles, with all numbers."""
    return [
        (
            vars(user),
            [{**vars(role), "_permissions": [vars(each) for each in role.permissions]} for role in roles],
        )
        for user, roles in store.list_users_with_roles()
    ]


def test_users_keep_passwords_roles_and_numbers(source: Path, job: Job) -> None:
    before, uri = job.contents(), f"sqlite:///{source}"
    code, planned = command(job, "import-users", uri, "--dry-run")
    assert (code, planned["users"], planned["roles"]) == (0, 2, 4), planned
    assert job.contents() == before
    code, answer = command(job, "import-users", uri)
    assert code == 0, answer
    assert (answer["users"], answer["roles"], answer["permissions"], answer["made"]) == (2, 4, 5, 6)
    assert command(job, "import-users", uri, "--verify")[0] == 0
    theirs = SqlUsers()
    theirs.init_db(uri)
    with users_of(job.uri) as ours:
        assert told(ours) == told(theirs)
        assert ours.authenticate_user("ann", PASSWORD)
        assert not ours.authenticate_user("ann", "another password")
        made = ours.create_user("new", PASSWORD)
        assert made.id > max(user.id for user in theirs.list_users())
        ours.grant_user_permission("new", "experiment", "9", "READ")
        ours.delete_user("new")
    theirs.engine.dispose()

    code, again = command(job, "import-users", uri)
    assert (code, again["made"], again["changed"]) == (0, 0, 0), again
    (journal,) = command(job, "import", "--list")[1]
    assert journal["source"].endswith("basic_auth.db (users)")
    code, answer = command(job, "import", "--rollback", journal["journal"])
    assert (code, answer["removed"]) == (0, {"auth_users": 2, "auth_roles": 4}), answer
    assert not {"auth_users", "auth_roles"} & job.contents().keys()


def test_what_the_target_has_itself_stays(source: Path, job: Job) -> None:
    uri = f"sqlite:///{source}"
    with users_of(job.uri) as ours:
        mine = ours.create_user("root", "my own password of mine", is_admin=True)
        ours.create_role("readers", "default")
    code, answer = command(job, "import-users", uri)
    assert code == 1
    assert "user root, role default/readers" in answer
    code, answer = command(job, "import-users", uri, "--on-conflict", "skip")
    assert code == 3, answer
    assert [(each["kind"], each["where"]) for each in answer["problems"]] == [
        ("user", "root"),
        ("role", "default/readers"),
    ]
    with users_of(job.uri) as ours:
        assert ours.authenticate_user("root", "my own password of mine")
        ann = ours.get_user("ann")
        assert ann.id != mine.id
        assert sorted(role.name for role in ours.list_user_roles(ann.id)) == [
            f"__user_{ann.id}__",
            "readers",
            "readers",
        ]
        assert ours.authenticate_user("ann", PASSWORD)
    code, verified = command(job, "import-users", uri, "--verify")
    assert code == 1
    assert {(each["kind"], each["name"]) for each in verified["differences"]} == {
        ("user", "root"),
        ("role", "readers"),
        ("role", "team-a/own role of root"),
    }


def test_a_repeated_import_brings_what_is_new_and_leaves_what_people_changed(
    source: Path, job: Job, tmp_path: Path
) -> None:
    path = tmp_path / "basic_auth.db"
    path.write_bytes(source.read_bytes())
    uri = f"sqlite:///{path}"
    assert command(job, "import-users", uri)[0] == 0
    with users_of(job.uri) as ours:
        ours.update_user("ann", password="changed in the target")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE users SET is_admin = 1 WHERE username = 'ann'")
        connection.execute("UPDATE roles SET description = 'new' WHERE workspace = 'team-a'")
        connection.execute("INSERT INTO users VALUES (99, 'late', 'a hash', 0)")
        connection.execute("INSERT INTO user_role_assignments VALUES (99, 98, 97)")
        connection.commit()
    code, answer = command(job, "import-users", uri)
    assert (code, answer["made"]) == (3, 1), answer
    told_of = {(each["kind"], each["where"]) for each in answer["problems"]}
    assert told_of == {("user_role_assignments", "table user_role_assignments, id=99"), ("user", "ann")}
    with users_of(job.uri) as ours:
        assert ours.authenticate_user("ann", "changed in the target")
        assert ours.get_user("late").id == 99
        assert ours.get_role_by_name("team-a", "readers").description == "new"
    (journal,) = command(job, "import", "--list")[1]
    code, answer = command(job, "import", "--rollback", journal["journal"])
    assert code == 3
    assert [each["kind"] for each in answer["kept"]] == ["auth_user"]
    with pymongo.MongoClient[dict[str, Any]](job.uri) as client:
        left = client.get_default_database()["auth_users"].find().to_list()
    assert [each["username"] for each in left] == ["ann"]


def test_a_killed_import_is_finished_by_the_same_command(
    source: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genesis_flow.importers import users

    real = users._Import._write

    class Killed(BaseException):
        """Nobody catches it."""

    def dying(self: Any, collection: str, documents: list[Any]) -> None:
        if collection == "auth_users":
            raise Killed
        real(self, collection, documents)

    uri = f"sqlite:///{source}"
    with monkeypatch.context() as patched:
        patched.setattr(users._Import, "_write", dying)
        with pytest.raises(Killed):
            command(job, "import-users", uri)
    assert command(job, "import-users", uri)[0] == 0
    assert command(job, "import-users", uri, "--verify")[0] == 0


def test_what_is_no_database_of_users_is_refused(job: Job, newest: Path, tmp_path: Path) -> None:
    code, answer = command(job, "import-users", f"sqlite:///{newest}")
    assert code == 1
    assert "has no users" in answer
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("CREATE TABLE users (id INTEGER, username TEXT)")
        connection.execute("CREATE TABLE experiment_permissions (id INTEGER)")
        connection.commit()
    code, answer = command(job, "import-users", f"sqlite:///{old}")
    assert code == 1
    assert "mlflow.server.auth db upgrade" in answer
