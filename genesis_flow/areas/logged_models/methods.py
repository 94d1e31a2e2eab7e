"""Logged models: create, read, finalize, params, tags, soft deletion.

A model is one document, so params and tags are fields and every write is one
conditional update. Its metrics come in with those of runs, see ``metrics.py``.

Round trips: create two (the experiment, the insert); get two side by side (the model, its metrics); finalize
the same behind its update; tags, deletion one; params one. Deleted models can be written, as in MLflow.
"""

import asyncio
from typing import Any, NoReturn

from mlflow.entities import LoggedModel, LoggedModelParameter, LoggedModelStatus, LoggedModelTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.uri import append_to_uri_path

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.experiments.guards import (
    ACTIVE,
    DELETED,
    check_experiment_active,
    experiment_number,
    refuse_unknown_experiment,
)
from genesis_flow.areas.logged_models.documents import (
    LoggedModelFields,
    ModelMetricFields,
    logged_model_entity,
)
from genesis_flow.areas.logged_models.metrics import refuse_unknown_model
from genesis_flow.compat.names import generate_random_name
from genesis_flow.compat.validation import validate_logged_model_name
from genesis_flow.documents.keys import escape, unescape
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, call_token, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.writes import insert_once

MODELS_FOLDER = "models"
ARTIFACTS_FOLDER = "artifacts"


class LoggedModels(Area):
    @property
    def _logged_models(self) -> Collection:
        return self.database.collection(LoggedModelFields)

    @mutation
    async def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: list[LoggedModelTag] | None = None,
        params: list[LoggedModelParameter] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """Make a model in an experiment, pending until it is finalized."""
        validate_logged_model_name(name)
        param_fields, tag_fields = _param_fields(params or []), _tag_fields(tags or [])
        number = experiment_number(experiment_id)
        experiment = await self.database.collection(ExperimentFields).find_one(
            scoped({"_id": number}), {"lifecycle_stage": 1, "artifact_location": 1}
        )
        if experiment is None:
            refuse_unknown_experiment(number)
        check_experiment_active(experiment)
        model_id = f"m-{call_token()}"
        now = get_current_time_millis()
        fields = LoggedModelFields(
            _id=model_id,
            workspace=current_workspace(),
            experiment_id=number,
            name=name or generate_random_name(),
            artifact_location=append_to_uri_path(
                experiment["artifact_location"], MODELS_FOLDER, model_id, ARTIFACTS_FOLDER
            ),
            creation_timestamp=now,
            last_updated_timestamp=now,
            status=LoggedModelStatus.PENDING.to_int(),
            lifecycle_stage=ACTIVE,
            model_type=model_type,
            source_run_id=source_run_id,
            params=param_fields,
            tags=tag_fields,
        )
        document = fields.model_dump(by_alias=True, exclude_none=True)
        return logged_model_entity(await insert_once(self._logged_models, document), [])

    @operation
    async def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> LoggedModel:
        """A model, by its id."""
        query = {"_id": model_id}
        if not allow_deleted:
            query["lifecycle_stage"] = ACTIVE
        model, metrics = await asyncio.gather(
            self._logged_models.find_one(scoped(query)), self._metrics_of_model(model_id)
        )
        if model is None:
            refuse_unknown_model(model_id)
        return logged_model_entity(model, metrics)

    @mutation
    async def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """Say whether making a model succeeded or failed."""
        await self._update_model(
            model_id, {"status": status.to_int(), "last_updated_timestamp": get_current_time_millis()}
        )
        return await self.get_logged_model(model_id, allow_deleted=True)

    @mutation
    async def log_logged_model_params(self, model_id: str, params: list[LoggedModelParameter]) -> None:
        """Add params to a model."""
        fields = _param_fields(params)
        if not fields:
            await self._find_model(model_id)
            return
        # None stands for a param that is not logged yet; a repetition finds its own values.
        unchanged = {f"params.{field}": {"$in": [None, value]} for field, value in fields.items()}
        change = {"$set": {f"params.{field}": value for field, value in fields.items()}}
        while True:
            query = scoped({"_id": model_id, **unchanged})
            if (await self._logged_models.update_one(query, change)).matched_count:
                return
            model = await self._find_model(model_id, {"params": 1})
            for field, value in fields.items():
                if model["params"].get(field, value) != value:
                    _refuse_changed_param(model_id, field, model["params"][field], value)

    @mutation
    async def set_logged_model_tags(self, model_id: str, tags: list[LoggedModelTag]) -> None:
        """Set tags of a model."""
        change = {f"tags.{key}": value for key, value in _tag_fields(tags).items()}
        if change:
            await self._update_model(model_id, change)
        else:
            await self._find_model(model_id)

    @mutation
    async def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Delete a tag of a model."""
        field = f"tags.{escape(key)}"
        query = scoped({"_id": model_id, field: {"$exists": True}})
        if (await self._logged_models.update_one(query, {"$unset": {field: ""}})).matched_count:
            return
        await self._find_model(model_id)
        if is_repetition():
            return
        raise MlflowException(
            f"No tag with key {key!r} found for model with ID {model_id!r}.", RESOURCE_DOES_NOT_EXIST
        )

    @mutation
    async def delete_logged_model(self, model_id: str) -> None:
        """Mark a model as deleted; searches no longer find it."""
        await self._update_model(
            model_id, {"lifecycle_stage": DELETED, "last_updated_timestamp": get_current_time_millis()}
        )

    async def _update_model(self, model_id: str, change: dict[str, Any]) -> None:
        result = await self._logged_models.update_one(scoped({"_id": model_id}), {"$set": change})
        if not result.matched_count:
            refuse_unknown_model(model_id)

    async def _find_model(self, model_id: str, projection: dict[str, Any] | None = None) -> Document:
        model = await self._logged_models.find_one(scoped({"_id": model_id}), projection or {"_id": 1})
        if model is None:
            refuse_unknown_model(model_id)
        return model

    async def _metrics_of_model(self, model_id: str) -> list[Document]:
        return (
            await self.database.collection(ModelMetricFields)
            .find({"model_id": model_id}, batch_size=BATCH)
            .to_list()
        )


def _refuse_changed_param(model_id: str, field: str, old: str, new: str) -> NoReturn:
    raise MlflowException(
        f"Changing param values is not allowed. Param with key='{unescape(field)}' was already logged with "
        f"value='{old}' for model ID='{model_id}'. Attempted logging new value '{new}'.",
        INVALID_PARAMETER_VALUE,
    )


def _param_fields(params: list[LoggedModelParameter]) -> dict[str, str]:
    """Params by escaped key; one key has one value."""
    fields: dict[str, str] = {}
    for param in params:
        if param.value is None:
            raise MlflowException(f"Param '{param.key}' has no value. Log a string.", INVALID_PARAMETER_VALUE)
        value = fields.setdefault(escape(param.key), str(param.value))
        if value != str(param.value):
            raise MlflowException(
                f"Param '{param.key}' is given twice, with the values '{value}' and '{param.value}'. Give it "
                "once.",
                INVALID_PARAMETER_VALUE,
            )
    return fields


def _tag_fields(tags: list[LoggedModelTag]) -> dict[str, str]:
    """Tags by escaped key, the later of two with one key winning."""
    for tag in tags:
        if tag.value is None:
            raise MlflowException(f"Tag '{tag.key}' has no value. Set a string.", INVALID_PARAMETER_VALUE)
    return {escape(tag.key): str(tag.value) for tag in tags}
