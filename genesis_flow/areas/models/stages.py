"""Stages of model versions.

A transition is one update of the model's document, which holds the stage of every version that has one. So
with ``archive_existing_versions`` the stage passes from one version to the other at one moment, for every
reader and on every topology. The price is some 20 bytes in the model's document for each version that ever
left "None": 200 kB after 10,000. The times of the versions follow in a second write.
"""

from mlflow.entities.model_registry import ModelVersion
from mlflow.entities.model_registry.model_version_stages import (
    DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS,
    STAGE_ARCHIVED,
)
from mlflow.exceptions import MlflowException
from mlflow.utils.time import get_current_time_millis

from genesis_flow.areas.models.changes import change_model, if_version_exists, move_to_stage
from genesis_flow.areas.models.documents import version_id
from genesis_flow.areas.models.entities import version_entity
from genesis_flow.areas.models.guards import (
    canonical_stage,
    find_version,
    refuse_unknown_version,
    version_number,
    versions_in,
)
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.operation import Area, mutation


class Stages(Area):
    @mutation
    async def transition_model_version_stage(
        self, name: str, version: str | int, stage: str, archive_existing_versions: bool = False
    ) -> ModelVersion:
        """Move a version to a stage; the others in it can be archived."""
        target = canonical_stage(stage)
        if archive_existing_versions and target not in DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS:
            raise MlflowException(
                "Model version transition cannot archive existing model versions because "
                f"'{stage}' is not an Active stage. Valid stages are {DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS}"
            )
        number = version_number(version)
        model, _ = await find_version(self.database, name, number)
        now = get_current_time_millis()
        move = move_to_stage(self.database, number, target, archive_others=archive_existing_versions, now=now)
        change = if_version_exists(self.database, name, number, move)
        before, after = await change_model(self.database, model, change) or refuse_unknown_version(
            name, number
        )
        ids = [version_id(model["_id"], each) for each in (number, *_archived(before, after, number))]
        versions = versions_in(self.database)
        await versions.update_many({"_id": {"$in": ids}}, {"$set": {"last_updated_time": now}})
        moved = await versions.find_one({"_id": ids[0]})
        return version_entity(after, moved or refuse_unknown_version(name, number), with_aliases=True)


def _archived(before: Document, after: Document, number: int) -> list[int]:
    return [
        int(key)
        for key, stage in after["stages"].items()
        if stage == STAGE_ARCHIVED and before["stages"].get(key) != STAGE_ARCHIVED and key != str(number)
    ]
