"""Where MLflow uploads a model and downloads artifacts: with a manifest, and verified if that is switched on.

All flavors load through these four methods, and so do `mlflow.artifacts.download_artifacts` and servers of
models. They are replaced in every process that has a client, whatever its store, since the switch may be
turned at any time. What checks is loaded when something is downloaded.
"""

from typing import Any

from genesis_flow.plugins.hook import Function, Hook, fitting, put_in

MODELS = "manifests of models, and their verification (MLFLOW_ENABLE_SECURE_MODEL_LOADING)"


def _guarded(original: Function) -> Function:
    def download_artifacts(self: Any, artifact_path: str, dst_path: str | None = None) -> str:
        from genesis_flow.models.downloads import guarded

        return guarded(original, self, artifact_path, dst_path)

    return download_artifacts


def _guarded_of_models(original: Function) -> Function:
    def download_artifacts(
        self: Any, artifact_path: str, dst_path: str | None = None, lineage_header_info: Any = None
    ) -> str:
        from genesis_flow.models.downloads import guarded

        return guarded(original, self, artifact_path, dst_path, lineage_header_info)

    return download_artifacts


def _sealed(original: Function) -> Function:
    def log_model_artifacts(
        self: Any, model_id: str, local_dir: str, artifact_path: str | None = None
    ) -> None:
        from genesis_flow.models.sealing import sealed

        sealed(original, self, model_id, local_dir, artifact_path)

    return log_model_artifacts


_DOWNLOAD = ("self", "artifact_path", "dst_path")
_STORES = "mlflow.store.artifact"

MODEL_HOOKS = (
    Hook(f"{_STORES}.artifact_repo", "ArtifactRepository.download_artifacts", _DOWNLOAD, MODELS, _guarded),
    Hook(
        f"{_STORES}.local_artifact_repo",
        "LocalArtifactRepository.download_artifacts",
        _DOWNLOAD,
        MODELS,
        _guarded,
    ),
    Hook(
        f"{_STORES}.runs_artifact_repo",
        "RunsArtifactRepository.download_artifacts",
        _DOWNLOAD,
        MODELS,
        _guarded,
    ),
    Hook(
        f"{_STORES}.models_artifact_repo",
        "ModelsArtifactRepository.download_artifacts",
        (*_DOWNLOAD, "lineage_header_info"),
        MODELS,
        _guarded_of_models,
    ),
    Hook(
        "mlflow.tracking.client",
        "MlflowClient.log_model_artifacts",
        ("self", "model_id", "local_dir", "artifact_path"),
        MODELS,
        _sealed,
    ),
)


def apply_model_hooks() -> None:
    """Put them in; the modules are loaded, by the client that needs them all."""
    for hook in fitting(MODEL_HOOKS):
        put_in(hook)
