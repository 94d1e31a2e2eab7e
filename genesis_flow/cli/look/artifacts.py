"""The artifacts of a run, or why they cannot be listed: the rest of the run is worth showing all the same."""

from dataclasses import dataclass, field

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from genesis_flow.core.redact import mask


@dataclass(frozen=True)
class File:
    path: str
    is_dir: bool
    bytes: int | None


@dataclass(frozen=True)
class Artifacts:
    files: list[File] = field(default_factory=list)
    problem: str | None = None


def listed(uri: str | None) -> Artifacts:
    """The topmost level, as each further one may cost a request."""
    if not uri:
        return Artifacts()
    try:
        files = get_artifact_repository(uri).list_artifacts()
    except Exception as error:  # noqa: BLE001 - a store of any kind, with a package that may be missing
        said = " ".join(mask(str(error)).split()) or type(error).__name__
        return Artifacts(problem=f"{mask(uri)} cannot be listed: {said}")
    return Artifacts([File(each.path, each.is_dir, each.file_size) for each in files])
