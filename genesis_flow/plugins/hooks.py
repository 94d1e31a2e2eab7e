"""Where MLflow's server asks for its own SQL store, and what is asked instead: one table.

Each replacement leaves every other store to MLflow. One whose place is no longer what it was written for is
not applied: a warning names the version and what is off, and MLflow's own refusal stands. What is there is
read in MLflow's source: to look at a place must not import it.
"""

import functools
import importlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from genesis_flow.compat import packages
from genesis_flow.compat.source import parameters_of
from genesis_flow.plugins import job_hooks as jobs
from genesis_flow.sync.tracking import MongoDBStore

_logger = logging.getLogger("genesis_flow")

GATEWAY = "the AI gateway's calls"
JOBS = "background jobs"
BUDGETS = "budgets that all workers share"

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Hook:
    """A function of MLflow, the parameters that it had when this was written, and what takes its place."""

    module: str
    name: str
    parameters: tuple[str, ...]
    feature: str
    replacement: Callable[[Any], Any]
    """Makes the function from MLflow's own; or changes a class and returns it."""
    may_lack: bool = False
    """Whether a version that is supported has no such module."""

    def why_not(self) -> str | None:
        """What there is against it, in the MLflow that is installed."""
        try:
            found = parameters_of(self.module, self.name)
        except LookupError as error:
            return None if self.may_lack else str(error.args[0])
        return None if found == self.parameters else f"{self.name} takes {', '.join(found) or 'nothing'}"


def _validated(original: Function) -> Function:
    def validate_store(store: Any) -> None:
        if not isinstance(store, MongoDBStore):
            original(store)

    return validate_store


def _resolved(original: Function) -> Function:
    def get_endpoint_config(endpoint_name: str, store: Any = None) -> Any:
        if not isinstance(store, MongoDBStore):
            return original(endpoint_name=endpoint_name, store=store)
        config, guardrails = store._resolve_gateway_endpoint(endpoint_name)
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
    _job_hook(_UTILS, "_run_trace_archival_scheduler", _ARCHIVAL, jobs.archived_once),
    _job_hook("mlflow.genai.scorers.job", "run_online_scoring_scheduler", (), jobs.scored_once),
    _job_hook(
        "mlflow.genai.discovery.scheduler",
        "run_issue_detection_scheduler",
        ("now_ms",),
        jobs.detected_once,
        may_lack=True,
    ),
)


def apply_hooks(hooks: tuple[Hook, ...] = HOOKS) -> None:
    """Put the replacements in; of a feature all, or none."""
    for hook in _fitting(hooks):
        importlib.import_module(hook.module)
        _apply(hook)


def apply_loaded_hooks(loaded: str) -> None:
    """Put in what belongs to background jobs and is loaded by now: any process of a server may ask for them.

    A module that is being loaded, which loads this one, is told of at its own end.
    """
    for hook in _fitting(JOB_HOOKS):
        module = sys.modules.get(hook.module)
        if module is not None and (hook.module == loaded or not _is_loading(module)):
            _apply(hook)


def _is_loading(module: ModuleType) -> bool:
    return bool(getattr(module.__spec__, "_initializing", False))


@functools.cache
def _fitting(hooks: tuple[Hook, ...]) -> tuple[Hook, ...]:
    fitting: list[Hook] = []
    for feature in dict.fromkeys(hook.feature for hook in hooks):
        of_feature = [hook for hook in hooks if hook.feature == feature]
        if against := next(filter(None, (hook.why_not() for hook in of_feature)), None):
            _logger.warning(
                "MLflow %s is not what genesis_flow was written for (%s), so %s are off: install MLflow %s.",
                packages.installed(),
                against,
                feature,
                packages.TESTED_IN_WORDS,
            )
        else:
            fitting += of_feature
    return tuple(fitting)


def _apply(hook: Hook) -> None:
    module = importlib.import_module(hook.module)
    original = getattr(module, hook.name)
    if hasattr(original, "replaces"):  # applied before
        return
    replacement = hook.replacement(original)
    if replacement is not original:
        replacement = functools.wraps(original)(replacement)
    replacement.replaces = original
    setattr(module, hook.name, replacement)
