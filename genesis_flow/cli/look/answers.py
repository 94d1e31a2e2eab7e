"""What the tables show, for programs."""

import json
import math
from typing import Any

from mlflow.entities import Run

from genesis_flow.cli.look.artifacts import Artifacts
from genesis_flow.cli.look.reader import Detail
from genesis_flow.core.redact import mask


def dumped(value: Any) -> str:
    return json.dumps(sayable(value), indent=2, ensure_ascii=False)


def sayable(value: Any) -> Any:
    """Without passwords, and with words where JSON has no number."""
    if isinstance(value, dict):
        return {str(key): sayable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [sayable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return mask(value) if isinstance(value, str) else value


def of_run(run: Run, experiment: str) -> dict[str, Any]:
    info = run.info
    return {
        "run_id": info.run_id,
        "name": info.run_name,
        "experiment_id": info.experiment_id,
        "experiment": experiment,
        "status": info.status,
        "lifecycle_stage": info.lifecycle_stage,
        "user": info.user_id,
        "start_time": info.start_time,
        "end_time": info.end_time,
        "artifact_uri": info.artifact_uri,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "tags": run.data.tags,
    }


def of_detail(detail: Detail, artifacts: Artifacts) -> dict[str, Any]:
    return {
        **of_run(detail.run, detail.experiment),
        "metrics": {
            key: {
                "value": history.value,
                "step": history.step,
                "timestamp": history.timestamp,
                "points": history.points,
                "sample": history.sample,
            }
            for key, history in detail.histories.items()
        },
        "artifacts": None if artifacts.problem else [vars(file) for file in artifacts.files],
        "artifacts_problem": artifacts.problem,
    }
