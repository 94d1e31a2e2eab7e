"""Which scorers online scoring can run. Since MLflow 3.18 it runs custom code too, in containers.

MLflow's modules are imported in the functions: they load what a client that logs metrics does not need.
"""

import logging
from typing import Any

from genesis_flow.compat.version import RELEASE

__all__ = [
    "is_custom",
    "is_custom_code",
    "refused_in_container",
    "runs_in_container",
    "told_to_run",
    "wants_expectations",
]

_logger = logging.getLogger("genesis_flow")
_SINCE_3_18 = RELEASE >= (3, 18)


def is_custom(data: dict[str, Any]) -> bool:
    """Whether a scorer is code of its own, and this MLflow knows how to run that."""
    if not _SINCE_3_18:
        return False
    from mlflow.genai.scorers.base import _serialized_scorer_is_custom_code

    return bool(_serialized_scorer_is_custom_code(data))


def is_custom_code(text: str) -> bool:
    """Whether a serialized scorer is code of its own, wherever in it."""
    from mlflow.genai.scorers.base import _serialized_scorer_is_custom_code

    return bool(_serialized_scorer_is_custom_code(text))


def runs_in_container(data: dict[str, Any]) -> bool:
    if not is_custom(data):
        return False
    from mlflow.genai.scorers.scorer_utils import container_scoring_enabled  # since MLflow 3.18

    return bool(container_scoring_enabled())


def refused_in_container(name: str, data: dict[str, Any]) -> str | None:
    """What there is against running this custom scorer, in MLflow's words."""
    from mlflow.genai.scorers.base import SerializedScorer, _is_decorator_scorer  # since MLflow 3.18
    from mlflow.genai.scorers.scorer_utils import (  # since MLflow 3.18
        _signature_param_names,
        container_scoring_enabled,
        custom_scorer_execution_blocked,
        custom_scorer_without_source_error_message,
        has_empty_call_source,
    )

    if not container_scoring_enabled():
        return (
            f"Scorer '{name}' is a custom scorer, and online scoring runs custom scorers only in job "
            "containers. To run them, an operator must set the environment variable "
            "'MLFLOW_JOB_CUSTOM_SCORER_EXECUTOR_BACKEND' to 'docker'."
        )
    if custom_scorer_execution_blocked(data):
        return (
            f"Scorer '{name}' is a custom scorer, and custom scorers are disabled on this server. To run "
            "them, an operator must set the environment variable 'MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS' to "
            "'true'."
        )
    if has_empty_call_source(data):
        return str(custom_scorer_without_source_error_message(name))
    serialized = SerializedScorer.from_dict(data)
    if not _is_decorator_scorer(serialized):
        return (
            f"Scorer '{name}' is not a single custom scorer (for example, it is an ensemble that includes "
            "custom scorers). Automatic evaluation supports custom scorers only on their own."
        )
    if "expectations" in _signature_param_names(serialized.call_signature):
        return _wants_expectations(name)
    return None


def told_to_run(name: str, experiment: int, data: dict[str, Any]) -> bool:
    """Whether a custom scorer can run now; the log says why not."""
    from mlflow.exceptions import MlflowException

    try:
        refusal = refused_in_container(name, data)
    except MlflowException as error:
        refusal = error.message
    if refusal is not None:
        _logger.warning("Skipping online scorer '%s' in experiment %s: %s", name, experiment, refusal)
    return refusal is None


def wants_expectations(name: str, text: str) -> str | None:
    """What there is against a judge that compares with what a person expects, which new traces lack."""
    from mlflow.genai.judges.instructions_judge import EXPECTATIONS_FIELD, InstructionsJudge
    from mlflow.genai.scorers.base import Scorer

    try:
        judge = Scorer.model_validate_json(text)
    except Exception as error:  # noqa: BLE001 - as MLflow: what cannot be read is not held against a scorer
        _logger.debug("Scorer '%s' cannot be read: %s", name, type(error).__name__)
        return None
    is_of_kind = isinstance(judge, InstructionsJudge) and EXPECTATIONS_FIELD in judge.get_input_fields()
    return _wants_expectations(name) if is_of_kind else None


def _wants_expectations(name: str) -> str:
    return (
        f"Scorer '{name}' requires expectations, but scorers with expectations are not currently supported "
        "for automatic evaluation."
    )
