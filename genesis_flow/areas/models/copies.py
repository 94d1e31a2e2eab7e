"""Copies of model versions under another registered model."""

from mlflow.entities.model_registry import ModelVersion, ModelVersionTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.utils.logging_utils import eprint

from genesis_flow.areas.models.methods import RegisteredModels
from genesis_flow.areas.models.versions import ModelVersions
from genesis_flow.mongo.operation import Area, mutation


class Copies(RegisteredModels, ModelVersions, Area):
    @mutation
    async def copy_model_version(self, src_mv: ModelVersion, dst_name: str) -> ModelVersion:
        """Register a version again under ``dst_name``, which is created if it is not there.

        It says on standard error what MLflow's stores say.
        """
        try:
            await self.create_registered_model(dst_name)
            eprint(f"Successfully registered model '{dst_name}'.")
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            eprint(f"Registered model '{dst_name}' already exists. Creating a new version of this model...")
        try:
            copy = await self.create_model_version(
                name=dst_name,
                source=f"models:/{src_mv.name}/{src_mv.version}",
                run_id=src_mv.run_id,
                tags=[ModelVersionTag(key, value) for key, value in src_mv.tags.items()],
                run_link=src_mv.run_link,
                description=src_mv.description,
                model_id=src_mv.model_id,
            )
        except MlflowException as error:
            raise MlflowException(
                "Failed to create model version copy. The current model registry backend may not yet support "
                f"model version URI sources.\nError: {error}"
            ) from error
        eprint(
            f"Copied version '{src_mv.version}' of model '{src_mv.name}' to version '{copy.version}' of "
            f"model '{copy.name}'."
        )
        return copy
