"""Users, roles and permissions, beside MLflow's own SQL store of its login."""

import ast
import contextlib
import inspect
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import sqlalchemy
from mlflow.exceptions import MlflowException
from mlflow.server.auth import sqlalchemy_store as theirs
from mlflow.server.auth.permissions import ALL_PERMISSIONS, VALID_RESOURCE_TYPES
from pymongo.database import Database

from genesis_flow.compat import login
from genesis_flow.plugins.hook import put_in
from genesis_flow.plugins.hooks import LOGIN_HOOKS
from genesis_flow.sync.users import MongoDBAuthStore
from tests.contract import policy
from tests.contract.pair import Pair
from tests.contract.policy import Exemption, Rule, Wording
from tests.emptied import empty
from tests.mongod import Mongod
from tests.versions import SINCE_3_18, since_3_18

PASSWORD = "correct horse battery"
DELETED = ("user_role_assignments", "role_permissions", "roles", "users")

policy.RESULTS.update(
    {
        name: Exemption(Rule.UNORDERED, "SQL selects them without an order")
        for name in (
            *("list_grants", "list_role_grants_for_user_in_workspace"),
            "list_gateway_endpoint_permissions",
        )
    }
)
policy.WORDINGS += (
    Wording(
        r"(?P<what>(?:User|Role|Role permission) \(.*?\)) already exists\. Error: (?s:.*)",
        r"(?P<what>.*) already exists\.",
        "the SQL statement and its parameters are of no use to the user",
    ),
    Wording(
        r"resource_type 'workspace' is not supported by the per-user permission convenience APIs\..*",
        r"resource_type 'workspace' is not supported by the per-user permission convenience APIs\..*",
        "two methods that MLflow's server does not call are not named",
    ),
)


@pytest.fixture(scope="module")
def oracle_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[theirs.SqlAlchemyStore]:
    """MLflow's own; making its schema takes a second, so it is made once and emptied."""
    put_in(LOGIN_HOOKS[0])
    store = theirs.SqlAlchemyStore()
    store.init_db(f"sqlite:///{tmp_path_factory.mktemp('users')}/users.db")
    assert type(store) is theirs.SqlAlchemyStore
    yield store
    store.engine.dispose()


@pytest.fixture(scope="module")
def our_store(mongod: Mongod, contract_database: Database[dict[str, Any]]) -> Iterator[MongoDBAuthStore]:
    """Ours, made as MLflow's server makes it."""
    put_in(LOGIN_HOOKS[0])
    store: Any = theirs.SqlAlchemyStore()
    store.init_db(mongod.database_uri(contract_database.name))
    assert type(store) is MongoDBAuthStore
    yield store
    store.close()


@pytest.fixture
def users(
    our_store: MongoDBAuthStore,
    oracle_store: theirs.SqlAlchemyStore,
    contract_database: Database[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> Pair:
    # What a hash costs is werkzeug's matter: it is tested once, below.
    for module in (login, theirs):
        quick = lambda password: f"hash of {password}"  # noqa: E731
        name = "password_hash" if module is login else "generate_password_hash"
        monkeypatch.setattr(module, name, quick)
    monkeypatch.setattr(login, "is_password", lambda hashed, password: hashed == f"hash of {password}")
    monkeypatch.setattr(
        theirs, "check_password_hash", lambda hashed, password: hashed == f"hash of {password}"
    )
    empty(contract_database)
    with oracle_store.engine.begin() as connection:
        for table in DELETED:
            connection.execute(sqlalchemy.text(f"DELETE FROM {table}"))
    return Pair(our_store, oracle_store)


def called_by_mlflow() -> set[str]:
    """What MLflow's server uses of the store of its login."""
    found: set[str] = set()
    for path in Path(str(mlflow.__file__)).parent.joinpath("server").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        is_of_the_login = path.parent.name == "auth" or "server.auth" in text
        if path.name == "sqlalchemy_store.py" or not is_of_the_login:
            continue
        found |= {
            node.attr
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("store", "auth_store")
        }
    return found


def test_all_that_mlflows_server_calls_is_there() -> None:
    called = called_by_mlflow() & set(dir(theirs.SqlAlchemyStore))
    assert {"init_db", "authenticate_user", "list_grants", "_scorer_pattern"} < called
    lacking = {name for name in called if inspect.getattr_static(MongoDBAuthStore, name, None) is None}
    assert not lacking


def test_signatures() -> None:
    for name, theirs_ in inspect.getmembers(theirs.SqlAlchemyStore, inspect.isfunction):
        ours = inspect.getattr_static(MongoDBAuthStore, name, None)
        if name.startswith("_") or ours is None:
            continue
        newer = ("workspace", "requester") if not SINCE_3_18 and name == "list_users_with_roles" else ()
        taken = [each for each in inspect.signature(ours).parameters if each not in newer]
        assert taken == list(inspect.signature(theirs_).parameters), name


def test_what_is_not_called_says_so(our_store: MongoDBAuthStore) -> None:
    with pytest.raises(AttributeError, match="does not have create_experiment_permission"):
        our_store.create_experiment_permission("1", "ann", "READ")


def test_users(users: Pair) -> None:
    for name in ("ann", "bob", "Ann", "ä.b$c"):
        users.create_user(name, PASSWORD, is_admin=name == "ann")
    users.refused("create_user", "ann", PASSWORD)
    for name, password in (("", PASSWORD), (None, PASSWORD), ("eve", "short"), ("eve", ""), ("eve", None)):
        users.refused("create_user", name, password)
    for name in ("ann", "eve"):
        users.has_user(name)
        users.has_user(name, use_primary=True)
    for name, password in (("ann", PASSWORD), ("ann", "wrong"), ("eve", PASSWORD), ("ANN", PASSWORD)):
        users.authenticate_user(name, password)
        users.authenticate_user(name, password, use_primary=True)
    users.get_user("ann")
    users.refused("get_user", "eve")
    users.list_users()
    users.update_user("bob", password="another password of bob")
    users.authenticate_user("bob", PASSWORD)
    users.authenticate_user("bob", "another password of bob")
    users.update_user("bob", is_admin=True)
    users.update_user("bob", is_admin=False)
    users.update_user("bob")
    users.refused("update_user", "bob", "short")
    users.refused("update_user", "eve", "short")
    users.delete_user("bob")
    users.refused("delete_user", "bob")
    users.authenticate_user("bob", "another password of bob")
    users.list_users()


@since_3_18
def test_names_that_are_too_long(users: Pair) -> None:
    for name in ("n" * 256, "nul\0"):
        users.refused("create_user", name, PASSWORD)
        users.refused("create_role", name, "default")
    users.refused("create_role", "role", "default", "d" * 1025)


def test_roles_and_their_permissions(users: Pair) -> None:
    first = users.create_role("viewers", "default", "who looks")
    users.create_role("viewers", "team-a")
    users.refused("create_role", "viewers", "default")
    for name in ("__user_1__", "__user_x"):
        users.refused("create_role", name, "default")
        users.refused("update_role", first.id, name=name)
    users.get_role(first.id)
    users.refused("get_role", 99)
    users.get_role_by_name("team-a", "viewers")
    users.refused("get_role_by_name", "team-b", "viewers")
    for workspaces in (None, ["default"], ["default", "team-a"], [], ["team-b"]):
        users.list_roles(workspaces)
    one = users.add_role_permission(first.id, "experiment", "*", "READ")
    two = users.add_role_permission(first.id, "experiment", "7", "MANAGE")
    users.add_role_permission(first.id, "workspace", "*", "USE")
    for given in (
        (first.id, "experiment", "*", "EDIT"),  # there is one
        (first.id, "experiment", "8", "READ!"),
        (first.id, "nothing", "*", "READ"),
        (first.id, "workspace", "*", "READ"),
        (first.id, "workspace", "7", "MANAGE"),
        (99, "experiment", "*", "READ"),
    ):
        users.refused("add_role_permission", *given)
    users.get_role_permission(one.id)
    users.update_role_permission(two.id, "DENY")
    users.refused("update_role_permission", two.id, "READ!")
    users.remove_role_permission(one.id)
    for call in ("get_role_permission", "remove_role_permission"):
        users.refused(call, one.id)
    users.refused("update_role_permission", one.id, "READ")
    users.list_role_permissions(first.id)
    users.refused("list_role_permissions", 99)
    users.update_role(first.id, name="readers", description="")
    users.update_role(first.id)
    users.create_role("writers", "default")
    users.refused("update_role", first.id, name="writers")
    users.refused("update_role", 99, name="x")
    users.delete_role(first.id)
    users.refused("delete_role", first.id)
    users.list_roles()


def test_who_has_a_role(users: Pair) -> None:
    ann, bob = (users.create_user(name, PASSWORD).id for name in ("ann", "bob"))
    home, away = users.create_role("home", "default").id, users.create_role("away", "team-a").id
    admin = users.create_role("admin", "team-a").id
    users.add_role_permission(admin, "workspace", "*", "MANAGE")
    users.add_role_permission(home, "experiment", "*", "READ")
    users.assign_role_to_user(ann, home)
    users.assign_role_to_user(ann, away)
    users.assign_role_to_user(bob, admin)
    for given in ((ann, home), (ann, 99), (99, home)):
        users.refused("assign_role_to_user", *given)
    for user in (ann, bob, 99):
        users.list_user_roles(user)
        users.list_user_present_workspaces(user)
        users.list_workspace_admin_workspaces(user)
        for workspace in ("default", "team-a"):
            users.user_has_any_role_in_workspace(user, workspace)
            users.is_workspace_admin(user, workspace)
            users.list_user_roles_for_workspace(user, workspace)
        for other in (ann, bob):
            users.is_workspace_admin_of_any_of_users_workspaces(user, other)
    for name in ("ann", "bob", None):
        users.list_accessible_workspace_names(name)
    users.refused("list_accessible_workspace_names", "eve")
    users.list_users_with_roles()
    for role in (home, admin):
        users.list_role_users(role)
    users.refused("list_role_users", 99)
    users.unassign_role_from_user(ann, away)
    users.refused("unassign_role_from_user", ann, away)
    users.delete_role(home)
    users.list_user_roles(ann)
    users.delete_roles_for_workspace("team-a")
    users.list_user_roles(bob)
    users.list_users_with_roles()


@since_3_18
def test_users_of_a_workspace(users: Pair) -> None:
    users.create_user("root", PASSWORD, is_admin=True)
    ann = users.create_user("ann", PASSWORD).id
    users.create_user("bob", PASSWORD)
    users.assign_role_to_user(ann, users.create_role("away", "team-a").id)
    for workspace, requester in ((None, "bob"), ("team-a", None), ("team-a", "bob"), ("team-b", "ann")):
        users.list_users_with_roles(workspace, requester)


def test_what_is_granted_to_a_user(users: Pair) -> None:
    ann, bob = (users.create_user(name, PASSWORD).id for name in ("ann", "bob"))
    shared = users.create_role("shared", "default").id
    users.add_role_permission(shared, "experiment", "7", "EDIT")
    users.assign_role_to_user(bob, shared)
    users.grant_user_permission("ann", "experiment", "7", "READ")
    users.grant_user_permission("ann", "experiment", "7", "MANAGE")
    users.grant_user_permission("ann", "registered_model", "m", "MANAGE")
    users.grant_user_permission("bob", "registered_model", "m", "READ")
    users.grant_user_permission("bob", "workspace", "*", "USE")
    for endpoint in ("e-1", "e-2"):
        users.grant_user_permission("bob", "gateway_endpoint", endpoint, "USE")
    for user in ("ann", "bob"):
        users.list_gateway_endpoint_permissions(user)
    users.refused("list_gateway_endpoint_permissions", "eve")
    users.grant_user_resource_permission("bob", "experiment", "8", "DENY")
    for given in (
        ("bob", "experiment", "8", "READ"),  # there is one
        ("bob", "workspace", "*", "USE"),
        ("eve", "experiment", "8", "READ"),
        ("bob", "nothing", "8", "READ"),
        ("bob", "experiment", "8", "READ!"),
    ):
        users.refused("grant_user_resource_permission", *given)
    for given in (("eve", "experiment", "8", "READ"), ("ann", "experiment", "8", "NO_PERMISSIONS")):
        users.refused("grant_user_permission", *given)
    seen(users, ann, bob)
    users.rename_grants_for_resource("registered_model", "m", "n", workspace_scoped=True)
    users.rename_grants_for_resource("registered_model", "unknown", "x")
    seen(users, ann, bob)
    users.revoke_user_resource_permission("ann", "registered_model", "n")
    for given in (("ann", "registered_model", "n"), ("eve", "experiment", "7"), ("ann", "workspace", "*")):
        users.refused("revoke_user_resource_permission", *given)
    users.delete_grants_for_resource("experiment", "7")  # roles that users share keep theirs
    users.delete_grants_for_resource("registered_model", "n", workspace_scoped=True)
    users.delete_workspace_permissions_for_workspace("default")
    seen(users, ann, bob)
    users.delete_user("ann")
    seen(users, ann, bob)


def seen(users: Pair, *ids: int) -> None:
    for user in ids:
        users.list_grants(user, "default", {"experiment", "registered_model"})
        users.list_grants(user, "team-a", {"experiment"})
        users.list_role_grants_for_user_in_workspace(user, "default", "experiment")
        users.refused("list_grants", user, "default", {"nothing"})
    users.list_accessible_workspace_names("bob")
    users.list_roles()
    users.list_users_with_roles()


def test_each_permission_on_each_kind_of_thing(users: Pair) -> None:
    """Whether it may be given, to a role and to a user, and what is found of it then."""
    ann = users.create_user("ann", PASSWORD).id
    given = 0
    for kind in sorted(VALID_RESOURCE_TYPES):
        role = users.create_role(f"on {kind}", "default").id
        users.assign_role_to_user(ann, role)
        some = [("add_role_permission", role, each) for each in sorted(ALL_PERMISSIONS)]
        for (call, whom, permission), pattern in itertools.product(
            [*some, ("grant_user_permission", "ann", "READ")], ("*", "42")
        ):
            with contextlib.suppress(MlflowException):  # of which both say the same
                getattr(users, call)(whom, kind, pattern, permission)
                given += 1
        users.list_role_grants_for_user_in_workspace(ann, "default", kind)
        users.list_grants(ann, "default", {kind})
    assert given > len(VALID_RESOURCE_TYPES)
    users.list_roles()


@since_3_18
def test_what_is_granted_on_things(users: Pair) -> None:
    for name in ("zoe", "ann"):
        users.create_user(name, PASSWORD)
        users.grant_user_permissions(
            name, [("experiment", "07", "READ"), ("skill", "@org/s", "EDIT"), ("experiment", "7", "MANAGE")]
        )
    users.refused("grant_user_permissions", "ann", [("workspace", "*", "USE")])
    users.refused("grant_user_permissions", "eve", [])
    for name in ("writers", "admins"):
        role = users.create_role(name, "default").id
        users.add_role_permission(role, "experiment", " 7", "EDIT")
        users.add_role_permission(role, "skill", "*", "READ")
    users.refused("add_role_permission", role, "experiment", "seven", "READ")
    for types, patterns in (
        (["experiment"], ["7", "*"]),
        (["experiment", "skill"], ["7", "@org/s"]),
        ([], []),
    ):
        users.list_named_role_grants_for_resource(types, patterns)
        users.list_per_user_grants_for_resource(types, patterns)
    users.refused("list_per_user_grants_for_resource", ["nothing"], ["7"])


def test_another_who_has_the_role_of_one_user(users: Pair) -> None:
    users.create_user("ann", PASSWORD)
    bob = users.create_user("bob", PASSWORD).id
    users.grant_user_permission("ann", "experiment", "7", "READ")
    (own,) = users.list_roles()
    users.assign_role_to_user(bob, own.id)
    for store in (users.ours, users.oracle):
        with pytest.raises(MlflowException, match=r"assigned|has it, too") as caught:
            store.grant_user_permission("ann", "experiment", "8", "READ")
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_of_several_who_make_one_user_one_does(users: Pair) -> None:
    """MLflow's own start depends on the cause: it takes the admin that another worker made."""
    ours: Any = users.ours
    outcomes = at_once(4, lambda: ours.create_user("ann", PASSWORD))
    errors = [each for each in outcomes if isinstance(each, Exception)]
    assert len(errors) == 3
    assert {getattr(each, "error_code", None) for each in errors} == {"RESOURCE_ALREADY_EXISTS"}
    assert all(isinstance(each.__cause__, sqlalchemy.exc.IntegrityError) for each in errors)
    assert [each.username for each in ours.list_users()] == ["ann"]


def test_who_are_granted_something_at_once_have_it_all(users: Pair) -> None:
    ours: Any = users.ours
    ann = ours.create_user("ann", PASSWORD).id
    numbers = iter(range(8))

    def grant() -> None:
        ours.grant_user_permission("ann", "experiment", str(next(numbers)), "READ")

    assert [each for each in at_once(8, grant) if each is not None] == []
    granted = ours.list_grants(ann, "default", {"experiment"})
    assert sorted(each.resource_pattern for each in granted) == [str(number) for number in range(8)]
    assert len(ours.list_user_roles(ann)) == 1


def at_once(count: int, call: Any) -> list[Any]:
    """What ``call`` comes to in so many threads that begin together."""
    begin, outcomes = threading.Barrier(count), []

    def run() -> None:
        begin.wait()
        try:
            outcomes.append(call())
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_a_password_is_kept_as_mlflow_keeps_it(
    our_store: MongoDBAuthStore, contract_database: Database[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    empty(contract_database)
    user = our_store.create_user("ann", PASSWORD)
    kind = theirs.generate_password_hash("x").split("$")[0]
    assert user.password_hash.startswith(f"{kind}$")
    assert theirs.check_password_hash(user.password_hash, PASSWORD)
    assert our_store.authenticate_user("ann", PASSWORD)
    assert not our_store.authenticate_user("ann", PASSWORD + "!")
    with pytest.raises(MlflowException) as caught:
        our_store.create_user("bob", [PASSWORD])  # type: ignore[arg-type]
    assert PASSWORD not in str(caught.value)
    kept = contract_database["auth_users"].find_one({}, {"_id": 0})
    assert PASSWORD not in repr(kept) + caplog.text
