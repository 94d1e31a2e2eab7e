"""The audit trail: who changed what, and when. docs/adr/0011-audit-trail.md says why it is done this way."""

import functools
import getpass
import inspect
import os
import socket
import sys
import weakref
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from mlflow.entities import Assessment, EvaluationDataset, Experiment, LoggedModel, Run, TraceInfo
from mlflow.entities.model_registry import ModelVersion
from mlflow.entities.trace_info_v2 import TraceInfoV2
from mlflow.entities.webhook import Webhook
from pymongo.errors import DuplicateKeyError

from genesis_flow.core.settings import Settings
from genesis_flow.documents.audit import AuditFields
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import workspace_of_call

BEGUN, DONE, FAILED, INTERRUPTED = "begun", "done", "failed", "interrupted"
# A process writes this before its first change, and so learns whether it may write here at all.
CONNECT = "connect"

LONGEST_TEXT = 500
MOST_IDS = 1000

Describe = Callable[[Any], Document]


def record(settings: Settings, store: str, operation: str, target: Document, outcome: str) -> Document:
    return {
        "_id": str(ObjectId()),
        "workspace": workspace_of_call(),
        "time": datetime.now(UTC),
        "actor": _actor(settings),
        "store": store,
        "operation": operation,
        "target": target,
        "outcome": outcome,
    }


async def write(database: Database, entry: Document) -> None:
    try:
        await database.everywhere(AuditFields).insert_one(entry)
    except DuplicateKeyError:
        return  # ids are never given out twice: an earlier try has written it, only its answer was lost


_introduced: "weakref.WeakSet[Database]" = weakref.WeakSet()


async def introduce(database: Database, store: str) -> None:
    """Write who connects, once for each open database: nobody may change what he may not record."""
    if database in _introduced:
        return
    async with database.lock("audit"):
        if database not in _introduced:
            await write(database, record(database.settings, store, CONNECT, {}, DONE))
            _introduced.add(database)


def target_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Document:
    """The target of a call, from its arguments. It must not fail, whatever they are."""
    try:
        arguments = _signature(function).bind(None, *args, **kwargs).arguments
    except TypeError:  # the call itself says what is wrong with it
        return {}
    target: Document = {}
    for name, value in arguments.items():
        if value is not None and (describe := ARGUMENTS.get(name) or _by_name(name)):
            target |= describe(value)
    return target


def made_by(result: Any) -> Document:
    """The id of what a call has made or changed, from what it returns."""
    known = (describe(result) for kind, describe in RESULTS if isinstance(result, kind))
    return next(known, None) or _identity(result)


_signature = functools.lru_cache(maxsize=None)(inspect.signature)


def _text(value: Any) -> str:
    """Text that a document can hold."""
    return str(value)[:LONGEST_TEXT].encode("utf-8", "replace").decode()


def _as(name: str) -> Describe:
    return lambda value: {name: _text(value)}


def _all(name: str) -> Describe:
    def describe(values: Any) -> Document:
        listed = _listed(values)
        more = {f"{name}_count": len(listed)} if len(listed) > MOST_IDS else {}
        return {name: [_text(value) for value in listed[:MOST_IDS]], **more}

    return describe


def _count(name: str) -> Describe:
    return lambda values: {name: len(values)} if hasattr(values, "__len__") else {}


def _fields(*names: str, prefix: str = "") -> Describe:
    def describe(entity: Any) -> Document:
        values = ((prefix + name, getattr(entity, name, None)) for name in names)
        return {name: _text(value) for name, value in values if value is not None}

    return describe


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str | bytes) else [values]


def _traces_of(spans: Any) -> Document:
    traces = dict.fromkeys(getattr(span, "trace_id", None) for span in _listed(spans))
    return {**_all("trace_ids")(traces), "spans": len(_listed(spans))}


def _versions(kind: str) -> Describe:
    """Versions of registered things, as `name/version`."""

    def describe(versions: Any) -> Document:
        listed = _listed(versions)
        names = [f"{getattr(one, 'name', '')}/{getattr(one, 'version', '')}" for one in listed]
        return _all(kind)(names)

    return describe


def _named(declared: Any) -> Document:
    """Of a declaration that a user wrote, what it is called."""
    known = declared if isinstance(declared, dict) else {}
    return {part: _text(known[part]) for part in ("name", "version") if known.get(part)}


def _names(declared: Any) -> Document:
    return _all("names")([_named(each).get("name", "") for each in _listed(declared)])


def _by_name(name: str) -> Describe | None:
    """The description of an argument that is called like an id, or like a list of ids."""
    if name.endswith("_id") and name != "user_id":  # the actor is named elsewhere
        return _as(name)
    return _all(name) if name.endswith("_ids") else None


def _identity(entity: Any) -> Document:
    """The ids in an entity of a kind that is in no list, and its name and version."""
    if not type(entity).__module__.startswith("mlflow."):
        return {}
    names = (name for name in dir(entity) if name.endswith("_id") and not name.startswith("_"))
    return _fields(*names, "name", "version")(entity)


# The description of an argument, by its name. Values of params, tags, metrics, descriptions and secrets are
# none of an audit trail's business.
ARGUMENTS: dict[str, Describe] = {
    **{
        name: _as(name)
        for name in (
            *("name", "new_name", "dst_name", "scorer_name", "version", "alias", "stage", "key"),
            *("organization", "workspace_name", "server_name", "server_version", "server_alias"),
            *("secret_name", "target_scope", "resource_type"),
            *("username", "resource_pattern", "old_pattern", "new_pattern", "permission"),
            *("is_admin", "workspace_name"),
            *("kind", "origin", "destination"),
            *("job_name", "lock_key", "lease_key", "older_than"),
            *("max_timestamp_millis", "max_traces", "location", "resolved_trace_archival_location"),
        )
    },
    **{name: _count(name) for name in ("metrics", "params", "tags", "datasets", "models", "records")},
    **{name: _fields("key") for name in ("param", "metric", "tag")},
    # Budgets count for one that is told by its name, which is no target.
    "workspace": _fields("name"),
    "mode": lambda mode: {"mode": _text(getattr(mode, "value", mode))},
    "request_id": _as("trace_id"),
    "trace_info": _fields("trace_id", "experiment_id"),
    "assessment": _fields("trace_id", "name"),
    "src_mv": _fields("name", "version", prefix="source_"),
    "mlflow_model": _fields("model_uuid"),
    "spans": _traces_of,
    "server_json": _named,
    "skill_definitions": _names,
    "prompt_versions": _versions("prompts"),
    "mcp_servers": _versions("mcp_servers"),
}

RESULTS: tuple[tuple[type, Describe], ...] = (
    (Run, lambda run: {"run_id": run.info.run_id}),
    (Experiment, _fields("experiment_id")),
    (LoggedModel, _fields("model_id")),
    (TraceInfo, _fields("trace_id")),
    (TraceInfoV2, lambda info: {"trace_id": info.request_id}),
    (Assessment, _fields("trace_id", "assessment_id")),
    (EvaluationDataset, _fields("dataset_id")),
    (ModelVersion, _fields("name", "version")),
    (Webhook, _fields("webhook_id")),
)


def _actor(settings: Settings) -> Document:
    actor: Document = dict(_process(os.getpid()))
    if settings.username is not None:
        actor["database_user"] = settings.username
    if (user := _request_user()) is not None:
        actor["request_user"] = user
    return actor


@functools.lru_cache(maxsize=1)
def _process(pid: int) -> Document:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # containers run as users without a name
        user = f"uid {os.getuid()}"
    return {"user": user, "host": socket.gethostname(), "pid": pid}


def _request_user() -> str | None:
    """Inside MLflow's server: the name that the request came with."""
    flask = sys.modules.get("flask")
    if flask is None or not flask.has_request_context():
        return None
    authorization = flask.request.authorization
    name = authorization.username if authorization is not None else None
    return _text(name) if name else None
