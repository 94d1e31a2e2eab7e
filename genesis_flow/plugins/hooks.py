"""Where MLflow's server asks for its own SQL store, and what is asked instead: one table.

The places where models come by are in `model_hooks`.

Each replacement leaves every other store to MLflow. One whose place is no longer what it was written for is
not applied: a warning names the version and what is off, and MLflow's own refusal stands. Places are
looked at in MLflow's source: to look at one must not import it.
"""

import functools
import importlib
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from genesis_flow.areas.gateway.resolving import endpoint_at_hand
from genesis_flow.plugins import job_hooks as jobs
from genesis_flow.plugins import login_hooks as login
from genesis_flow.plugins.after_import import LOGIN_MODULES
from genesis_flow.plugins.hook import Function, Hook, fitting, put_in
from genesis_flow.sync.tracking import MongoDBStore

GATEWAY = "the AI gateway's calls"
JOBS = "background jobs"
BUDGETS = "budgets that all workers share"
LOGIN = "users and permissions"
PAGES = "pages that MLflow shows for SQL databases alone"
SHORT_CUTS = "short cuts of the AI gateway's calls"


def _validated(original: Function) -> Function:
    def validate_store(store: Any) -> None:
        if not isinstance(store, MongoDBStore):
            original(store)

    return validate_store


def _resolved(original: Function) -> Function:
    def get_endpoint_config(endpoint_name: str, store: Any = None) -> Any:
        if not isinstance(store, MongoDBStore):
            return original(endpoint_name=endpoint_name, store=store)
        database = store.last_opened
        known = None if database is None else endpoint_at_hand(database, endpoint_name)
        config, guardrails = known or store._resolve_gateway_endpoint(endpoint_name)
        config.found_guardrails = guardrails  # type: ignore[attr-defined]  # for _guarded
        return config

    return get_endpoint_config


def _guarded(original: Function) -> Function:
    def load_guardrails(store: Any, endpoint_config: Any, request: Any) -> Any:
        found = getattr(endpoint_config, "found_guardrails", None)
        return original(store if found is None else _Guarded(store, found), endpoint_config, request)

    return load_guardrails


class _Guarded:
    """The store, which need not be asked again for the guardrails that came with the endpoint."""

    def __init__(self, store: MongoDBStore, found: list[Any]) -> None:
        self._found = found
        self.resolve_endpoint_in_scorer = store.resolve_endpoint_in_scorer

    def list_endpoint_guardrail_configs(self, endpoint_id: str) -> list[Any]:
        return self._found


def _shared(original: Function) -> Function:
    """One who has told MLflow of a Redis has a tracker that is shared already."""

    def get_budget_tracker() -> Any:
        # Imported here: the gateway needs packages of the server.
        from genesis_flow.compat.budgets import InMemoryBudgetTracker, store_of_calls

        tracker, store = original(), store_of_calls()
        if not isinstance(tracker, InMemoryBudgetTracker) or not isinstance(store, MongoDBStore):
            return tracker
        return _shared_budgets(store)

    return get_budget_tracker


@functools.lru_cache(maxsize=1)
def _shared_budgets(store: MongoDBStore) -> Any:
    from genesis_flow.plugins.budgets import SharedBudgets

    return SharedBudgets(store)


def _told(original: Function) -> Function:
    """Since MLflow 3.18 the page of issues is shown only if the server says that it has an SQL store."""

    def build_server_info_payload() -> dict[str, Any]:
        from genesis_flow.compat.stores import server_tracking_store

        payload: dict[str, Any] = original()
        if payload["store_type"] is None and isinstance(server_tracking_store(), MongoDBStore):
            payload["store_type"] = "SqlStore"
        return payload

    return build_server_info_payload


def _described_once(described: Any) -> Any:
    """MLflow describes the body of each call as a JSON schema, in case that a guardrail rewrites it.

    It is the same each time, and takes a quarter of the processor time of a call.
    """
    describe = described.model_json_schema.__func__

    @functools.cache
    def text() -> str:
        return json.dumps(describe(described))

    def model_json_schema(cls: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if cls is not described or args or kwargs:
            return dict(describe(cls, *args, **kwargs))
        schema: dict[str, Any] = json.loads(text())  # who gets it may change it
        return schema

    described.model_json_schema = classmethod(functools.wraps(describe)(model_json_schema))
    return described


HOOKS = (
    Hook("mlflow.server.gateway_api", "_validate_store", ("store",), GATEWAY, _validated),
    Hook("mlflow.server.gateway_api", "get_endpoint_config", ("endpoint_name", "store"), GATEWAY, _resolved),
    Hook(
        "mlflow.server.gateway_api",
        "load_guardrails",
        ("store", "endpoint_config", "request"),
        GATEWAY,
        _guarded,
    ),
    Hook("mlflow.gateway.budget", "get_budget_tracker", (), BUDGETS, _shared),
    Hook("mlflow.server.handlers", "get_budget_tracker", (), BUDGETS, _shared),
    Hook("mlflow.server.handlers", "build_server_info_payload", (), PAGES, _told),
    Hook("mlflow.server.server_info_api", "build_server_info_payload", (), PAGES, _told),
    Hook("mlflow.types.chat", "ChatCompletionRequest", (), SHORT_CUTS, _described_once),
    Hook("mlflow.types.chat", "ChatCompletionResponse", (), SHORT_CUTS, _described_once),
)

_UTILS = "mlflow.server.jobs.utils"
_UNFINISHED = ("job_store", "statuses", "end_timestamp", "handler")
_ARCHIVAL = ("tracking_store", "settings")


def _job_hook(
    module: str, name: str, parameters: tuple[str, ...], replacement: Callable[[Any], Any], **more: bool
) -> Hook:
    return Hook(module, name, parameters, JOBS, replacement, **more)


JOB_HOOKS = (
    _job_hook("mlflow.utils.uri", "extract_db_type_from_uri", ("db_uri",), jobs.told_the_type),
    _job_hook("mlflow.store.jobs.sqlalchemy_store", "SqlAlchemyJobStore", ("db_uri",), jobs.stored),
    _job_hook("mlflow.server.jobs.lock_manager", "JobLockManager", ("job_store",), jobs.locked),
    _job_hook(_UTILS, "_launch_job_execution_runner", ("env_map", "server_proc_pid"), jobs.tidied),
    _job_hook(_UTILS, "_for_each_unfinished_job", _UNFINISHED, jobs.recovered),
    _job_hook(_UTILS, "_enqueue_unfinished_jobs", ("server_launching_timestamp",), jobs.watched),
    _job_hook(_UTILS, "_exec_job_in_subproc", jobs.EXECUTED, jobs.leased),
    _job_hook(_UTILS, "_prepare_job_subprocess", jobs.PREPARED, jobs.told_the_run),
    _job_hook(_UTILS, "_run_trace_archival_scheduler", _ARCHIVAL, jobs.archived_once),
    _job_hook("mlflow.genai.utils.gateway_utils", "_build_auth_headers", (), jobs.addressed),
    _job_hook("mlflow.genai.scorers.job", "run_online_scoring_scheduler", (), jobs.scored_once),
    _job_hook(
        "mlflow.genai.discovery.scheduler",
        "run_issue_detection_scheduler",
        ("now_ms",),
        jobs.detected_once,
        may_lack=True,
    ),
)

LOGIN_HOOKS = (
    Hook(
        "mlflow.server.auth.sqlalchemy_store",
        "SqlAlchemyStore.init_db",
        ("self", "db_uri", "read_db_uri"),
        LOGIN,
        login.kept,
    ),
    Hook("mlflow.server.auth", "create_app", ("app",), LOGIN, login.extended),
)


def apply_hooks(hooks: tuple[Hook, ...] = HOOKS) -> None:
    """Put the replacements in; of a feature all, or none."""
    for hook in fitting(hooks):
        importlib.import_module(hook.module)
        put_in(hook)


def apply_loaded_hooks(loaded: str) -> None:
    """Put in what is loaded by now of background jobs, which any process may ask for, or of the login.

    A module that is being loaded, which loads this one, is told of at its own end.
    """
    for hook in fitting(LOGIN_HOOKS if loaded in LOGIN_MODULES else JOB_HOOKS):
        module = sys.modules.get(hook.module)
        if module is not None and (hook.module == loaded or not _is_loading(module)):
            put_in(hook)


def _is_loading(module: ModuleType) -> bool:
    return bool(getattr(module.__spec__, "_initializing", False))
