"""How long the spans of an experiment's traces stay in the database, if the MLflow server archives them."""

import logging

from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracing.trace_archival_config import get_trace_archival_server_config

from genesis_flow.compat.validation import validate_trace_archival_retention_string

_logger = logging.getLogger(__name__)


def with_retention(experiment: Experiment) -> Experiment:
    """Let an experiment say how long; without archival, which is configured for a server, it says nothing."""
    try:
        config = get_trace_archival_server_config()
        if config is None or not config.enabled:
            return experiment
        broader = validate_trace_archival_retention_string(config.retention)
    except MlflowException:
        _logger.warning(
            "The trace archival configuration is not valid, so experiments do not say how long their spans "
            "stay.",
            exc_info=True,
        )
        return experiment
    from genesis_flow.compat.archival import resolve_effective_trace_archival_retention  # a server's

    experiment.effective_trace_archival_retention = resolve_effective_trace_archival_retention(
        experiment_id=experiment.experiment_id,
        experiment_tags=experiment.tags,
        broader_retention=broader,
        long_retention_allowlist=set(config.long_retention_allowlist),
    )
    return experiment
