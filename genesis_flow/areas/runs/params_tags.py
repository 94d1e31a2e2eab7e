"""Params and tags of a run: fields of its document, so each write is one conditional update.

A write that matches nothing reads the run to say why: unknown, deleted, another value.
"""

import json
from typing import Any

from mlflow.entities import Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_MODELS, MLFLOW_RUN_NAME

from genesis_flow.areas.experiments.guards import active, find_active_run
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.compat.validation import validate_length_limit, validate_param, validate_tag
from genesis_flow.core.errors import invalid
from genesis_flow.documents.keys import escape, stored_text
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.operation import Area, direct, direct_joined, is_repetition, mutation


class ParamsTags(Area):
    @property
    def _run_documents(self) -> Collection:
        return self.database.collection(RunFields)

    def _checked(self, param: Param) -> Param:
        (checked,) = within_limit(
            [validate_param(param.key, param.value)], self.settings.max_param_value_length
        )
        return checked

    @direct_joined
    @mutation
    async def log_param(self, run_id: str, param: Param) -> None:
        """Log a param of an active run; it cannot be changed later."""
        checked = self._checked(param)
        conditions, change = param_update([checked])
        query = {**active(run_id), **conditions}
        while True:
            if await self.database.joined(RunFields).update_one(query, {"$set": change}):
                return
            run = await find_active_run(self.database, run_id, {"lifecycle_stage": 1, "params": 1})
            refuse_changed_param(run_id, run, checked)

    @direct_joined
    @mutation
    async def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Set a tag of an active run."""
        change = tag_update([validate_tag(tag.key, tag.value)])
        if change and await self.database.joined(RunFields).update_one(active(run_id), {"$set": change}):
            return
        await find_active_run(self.database, run_id)

    @direct
    @mutation
    async def delete_tag(self, run_id: str, key: str) -> None:
        """Delete a tag of an active run."""
        if key:  # without a key there is no tag, and no path to one
            field = f"tags.{escape(key)}"
            query = {**active(run_id), field: {"$exists": True}}
            if (await self._run_documents.update_one(query, {"$unset": {field: ""}})).matched_count:
                return
        await find_active_run(self.database, run_id)
        if is_repetition():
            return
        raise MlflowException(f"No tag with name: {key} in run with id {run_id}", RESOURCE_DOES_NOT_EXIST)

    @mutation
    async def record_logged_model(self, run_id: str, mlflow_model: Any) -> None:
        """Append the model to the run's list of models, which MLflow keeps as JSON in a tag."""
        from mlflow.models import Model

        if not isinstance(mlflow_model, Model):
            given = type(mlflow_model)
            raise invalid(f"Argument 'mlflow_model' should be mlflow.models.Model, got '{given}'")
        field = f"tags.{escape(MLFLOW_LOGGED_MODELS)}"
        recorded = json.loads(json.dumps(mlflow_model.get_tags_dict()))
        while True:
            run = await find_active_run(self.database, run_id, {"lifecycle_stage": 1, field: 1})
            before = run.get("tags", {}).get(escape(MLFLOW_LOGGED_MODELS))
            models = json.loads(before) if before else []
            if recorded in models and is_repetition():
                return
            value = json.dumps([*models, recorded])
            validate_tag(MLFLOW_LOGGED_MODELS, value)
            # Only over the list that was read: of two who append at once, one reads again.
            result = await self._run_documents.update_one(
                {**active(run_id), field: before}, {"$set": {field: value}}
            )
            if result.matched_count:
                return


def within_limit(params: list[Param], limit: int) -> list[Param]:
    """``params`` cut to a limit below MLflow's, or refused, by the rule and the switch that MLflow has."""
    return [
        Param(
            param.key,
            validate_length_limit("Param value", limit, stored_text(param.value), truncate=True),
        )
        for param in params
    ]


def param_update(params: list[Param]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What must hold for ``params`` to be logged (each absent or equal), and the change that logs them."""
    for param in params:
        if param.value is None:
            raise MlflowException(f"Param '{param.key}' has no value. Log a string.", INVALID_PARAMETER_VALUE)
    fields = {f"params.{escape(param.key)}": param.value for param in params}
    # None stands for a field that is absent; a logged param is never null.
    return {field: {"$in": [None, value]} for field, value in fields.items()}, fields


def tag_update(tags: list[RunTag]) -> dict[str, Any]:
    """The change that sets ``tags``, the later of two with one key winning.

    The name of a run is its tag too. As in MLflow an empty one changes nothing.
    """
    change: dict[str, Any] = {}
    for tag in tags:
        if tag.key == MLFLOW_RUN_NAME:
            if not tag.value:
                continue
            change["name"] = stored_text(tag.value)
        change[f"tags.{escape(tag.key)}"] = stored_text(tag.value)
    return change


def refuse_changed_param(run_id: str, run: dict[str, Any], param: Param) -> None:
    """Raise if ``run`` has another value of ``param``; if not, it was active again before it was read."""
    old = run["params"].get(escape(param.key))
    if old is not None and old != param.value:
        raise MlflowException(
            f"Changing param values is not allowed. Param with key='{param.key}' was already logged with "
            f"value='{old}' for run ID='{run_id}'. Attempted logging new value '{param.value}'.",
            INVALID_PARAMETER_VALUE,
        )


def refuse_changed_params(run_id: str, run: dict[str, Any], params: list[Param]) -> None:
    changed = [
        {"key": param.key, "old_value": old, "new_value": param.value}
        for param in params
        if (old := run["params"].get(escape(param.key))) is not None and old != param.value
    ]
    if changed:
        raise MlflowException(
            f"Changing param values is not allowed. Params were already logged='{changed}' for run "
            f"ID='{run_id}'.",
            INVALID_PARAMETER_VALUE,
        )
