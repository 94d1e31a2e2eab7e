"""Where MLflow asks whether a store, or a URI, is one of SQL: each such place was judged.

A version that asks somewhere else fails here, and somebody has to see what it keeps from users of MongoDB.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

Place = tuple[str, str, str]

# The SQL stores themselves.
_OF_SQL = ("db_migrations", "auth/db/", "dbmodels", "sqlalchemy", "store/db/")
_ASKED = frozenset({"extract_db_type_from_uri", "_validate_db_type_string", "DATABASE_ENGINES"})
_TAKEN = frozenset({"ManagedSessionMaker", "_get_managed_session_maker", "_get_sqlalchemy_store"})
_WORDS = (*_ASKED, *_TAKEN, "SqlAlchemy")

_SCHEMES = "gives SQL's schemes to SQL's store; ours stand beside them, by entry points"
_JOBS = "background jobs, which have hooks of their own"
_RESOLVED = "replaced by a hook: mlflow.server.gateway_api takes the function from here"
_WORKSPACES = "workspaces are kept by SQL alone"
_URIS = "tells SQL's schemes from others: who asks it is judged"
JUDGED = {
    ("cli/__init__.py", "gc"): _JOBS,
    ("cli/crypto.py", "rotate_kek"): "genesis-flow gateway rotate-key does it for MongoDB",
    ("genai/scorers/registry.py", "_register_scorer_stores"): _SCHEMES,
    ("server/auth/__init__.py", ""): "a hook makes a store of ours of the one that is made here",
    ("server/gateway_api.py", "_validate_store"): "replaced by a hook",
    ("server/handlers.py", "ModelRegistryStoreRegistryWrapper.__init__"): _SCHEMES,
    ("server/handlers.py", "TrackingStoreRegistryWrapper.__init__"): _SCHEMES,
    ("server/handlers.py", "_get_job_store"): _JOBS,
    ("server/handlers.py", "build_server_info_payload"): "replaced by a hook",
    ("server/jobs/lock_manager.py", "JobLockManager.__init__"): _JOBS,
    ("server/jobs/utils.py", "_check_requirements"): _JOBS,
    ("store/tracking/gateway/config_resolver.py", "get_endpoint_config"): _RESOLVED,
    ("store/tracking/gateway/config_resolver.py", "get_resource_endpoint_configs"): "nobody calls it",
    ("tracing/trace_rollup_service.py", "validate_sql_trace_rollup_startup"): "rollups are tables of SQL",
    ("tracking/_model_registry/utils.py", "_get_store_registry"): _SCHEMES,
    ("tracking/_tracking_service/utils.py", "_register_tracking_stores"): _SCHEMES,
    ("tracking/_workspace/registry.py", "_get_sqlalchemy_workspace_store"): _WORKSPACES,
    ("tracking/_workspace/registry.py", "_register_default_workspace_stores"): _WORKSPACES,
    ("utils/uri.py", "extract_db_type_from_uri"): _URIS,
    ("utils/uri.py", "get_uri_scheme"): _URIS,
    ("utils/validation.py", "_validate_db_type_string"): _URIS,
}


def test_each_place_was_judged() -> None:
    found = questions(Path(mlflow.__file__).parent)
    places = {(file, function) for file, function, _ in found}
    new = sorted(each for each in found if each[:2] not in JUDGED)
    assert not new, "say in JUDGED what these keep from a store on MongoDB"
    assert not JUDGED.keys() - places, "nothing is asked there any more"


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("isinstance(store, SqlAlchemyStore)", "isinstance SqlAlchemyStore"),
        ("isinstance(store, (FileStore, db.SqlAlchemyStore))", "isinstance (FileStore, db.SqlAlchemyStore)"),
        ("if get_uri_scheme(uri) in DATABASE_ENGINES: ...", "DATABASE_ENGINES"),
        ("with store.ManagedSessionMaker() as session: ...", "ManagedSessionMaker"),
        ("uri.extract_db_type_from_uri(it)", "extract_db_type_from_uri"),
        ("SqlAlchemyJobStore(it)", "makes SqlAlchemyJobStore"),
        ("isinstance(store, FileStore)", None),
        ("store: SqlAlchemyStore = given", None),
    ],
)
def test_what_counts_as_a_question(text: str, asked: str | None, tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(f"class Some:\n    def place(self, store):\n        {text}\n")
    found = {("new.py", "Some.place", asked)} if asked else set()
    assert questions(tmp_path) == found


def questions(mlflow: Path) -> set[Place]:
    """The file, the function and what it asks for, for each such place outside of the SQL stores."""
    found: set[Place] = set()
    for path in sorted(mlflow.rglob("*.py")):
        name = path.relative_to(mlflow).as_posix()
        if any(part in name for part in _OF_SQL):
            continue
        text = path.read_text(encoding="utf-8")
        if any(word in text for word in _WORDS):
            found.update((name, *each) for each in _in(ast.parse(text), ""))
    return found


def _in(node: ast.AST, place: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        inner = place
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{place}.{child.name}".lstrip(".")
        yield from ((place, asked) for asked in _asked(child))
        yield from _in(child, inner)


def _asked(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and node.id in _ASKED | _TAKEN:
        yield node.id
    elif isinstance(node, ast.Attribute) and node.attr in _ASKED | _TAKEN:
        yield node.attr
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in ("isinstance", "issubclass") and "SqlAlchemy" in ast.unparse(node.args[1]):
            yield f"{node.func.id} {ast.unparse(node.args[1])}"
        elif "SqlAlchemy" in node.func.id:
            yield f"makes {node.func.id}"
