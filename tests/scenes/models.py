"""Registered models and their versions."""

from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag

from tests.scenes.stage import Call, Stage


async def scene(stage: Stage) -> None:
    call = stage.register
    await registered_models(call)
    for _ in range(3):
        tags = [ModelVersionTag("t", "1")]
        await call("create_model_version", "m", "s3://bucket/model", stage["run"], tags)
    await call("create_model_version", "gone", "s3://bucket/other")
    await versions(call)
    await aliases_and_stages(call)
    await call("copy_model_version", await call("get_model_version", "m", 1), "copied")
    await call("rename_registered_model", "m", "renamed")
    await call("delete_model_version", "renamed", 3)
    await call("delete_registered_model", "gone")


async def registered_models(call: Call) -> None:
    await call("create_registered_model", "m", [RegisteredModelTag("t", "1")], "d")
    await call("create_registered_model", "gone")
    await call("get_registered_model", "m")
    await call("update_registered_model", "m", "described")
    await call("set_registered_model_tag", "m", RegisteredModelTag("u", "x" * 5000))
    await call("delete_registered_model_tag", "m", "t")
    await call("search_registered_models")


async def versions(call: Call) -> None:
    await call("get_model_version", "m", 1)
    await call("get_model_version_download_uri", "m", 1)
    await call("update_model_version", "m", 1, "described")
    await call("set_model_version_tag", "m", 1, ModelVersionTag("u", "2"))
    await call("delete_model_version_tag", "m", 1, "t")
    await call("search_model_versions")
    await call("get_latest_versions", "m")


async def aliases_and_stages(call: Call) -> None:
    await call("set_registered_model_alias", "m", "best", 1)
    await call("set_registered_model_alias", "m", "best", 2)
    await call("set_registered_model_alias", "m", "worst", 3)
    await call("get_model_version_by_alias", "m", "best")
    await call("delete_registered_model_alias", "m", "worst")
    await call("transition_model_version_stage", "m", 1, "Production", False)
    await call("transition_model_version_stage", "m", 2, "Production", True)
