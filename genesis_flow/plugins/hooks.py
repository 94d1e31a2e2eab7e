"""Where MLflow's server asks for its own SQL store, and what is asked instead: one table.

Each replacement leaves every other store to MLflow. One whose place is no longer what it was written for is
not applied: a warning names the version and what is off, and MLflow's own refusal stands.
"""

import functools
import importlib
import inspect
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from genesis_flow.compat import packages
from genesis_flow.sync.tracking import MongoDBStore

_logger = logging.getLogger("genesis_flow")

GATEWAY = "the AI gateway's calls"
# How often a worker looks at what others have spent. MLflow's ten minutes let each worker spend a budget.
REFRESH_VARIABLE = "MLFLOW_GATEWAY_BUDGET_REFRESH_INTERVAL"
REFRESH_SECONDS = 5

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Hook:
    """A function of MLflow, the parameters that it had when this was written, and what takes its place."""

    module: str
    name: str
    parameters: tuple[str, ...]
    feature: str
    replacement: Callable[[Function], Function]
    """Makes the function from MLflow's own."""

    def why_not(self) -> str | None:
        """What there is against it, in the MLflow that is installed."""
        try:
            function = getattr(importlib.import_module(self.module), self.name)
        except (ImportError, AttributeError) as error:
            return str(error)
        found = tuple(inspect.signature(function).parameters)
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
)


def apply_hooks(hooks: tuple[Hook, ...] = HOOKS) -> None:
    """Put the replacements in; of a feature all, or none."""
    os.environ.setdefault(REFRESH_VARIABLE, str(REFRESH_SECONDS))
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
            continue
        for hook in of_feature:
            _apply(hook)


def _apply(hook: Hook) -> None:
    module = importlib.import_module(hook.module)
    original = getattr(module, hook.name)
    if hasattr(original, "replaces"):  # applied before
        return
    replacement = functools.wraps(original)(hook.replacement(original))
    replacement.replaces = original  # type: ignore[attr-defined]
    setattr(module, hook.name, replacement)
