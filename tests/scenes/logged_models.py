"""Logged models, their metrics, and their links to runs."""

from mlflow.entities import (
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelParameter,
    LoggedModelStatus,
    LoggedModelTag,
    Metric,
)

from tests.contract.trace_scenes import STARTED
from tests.scenes.stage import Stage


async def scene(stage: Stage) -> None:
    call, experiment, run_id = stage.track, stage["experiment"], stage["run"]
    for name in ("model", "doomed model"):
        tags, params = [LoggedModelTag("t", "1")], [LoggedModelParameter("p", "1")]
        made = await call("create_logged_model", experiment, name, run_id, tags, params, "agent")
        stage[name] = made.model_id
    model_id = stage["model"]
    await call("get_logged_model", model_id)
    await call("finalize_logged_model", model_id, LoggedModelStatus.READY)
    await call("log_logged_model_params", model_id, [LoggedModelParameter("q", "2")])
    await call("set_logged_model_tags", model_id, [LoggedModelTag("u", "2"), LoggedModelTag("v", "3")])
    await call("delete_logged_model_tag", model_id, "t")
    of_data = Metric("acc", 0.5, STARTED, 1, model_id=model_id, dataset_name="d", dataset_digest="1")
    await call("log_batch", run_id, [of_data, Metric("acc", 0.6, STARTED, 2, model_id=model_id)], [], [])
    await call("search_logged_models", [experiment])
    await call("log_inputs", run_id, models=[LoggedModelInput(model_id)])
    await call("log_outputs", run_id, [LoggedModelOutput(model_id, 3)])
    await call("delete_logged_model", stage["doomed model"])
    await call("_get_deleted_logged_models", 0)
    await call("_hard_delete_logged_model", stage["doomed model"])
