"""Where the sum of a manifest is kept: in the database, as a tag of what the model's files belong to.

The manifest lies beside the files that it is of, so who can write there can write both. To change the tag one
has to write to the database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

TAG = "genesis_flow.manifest_sha256"


class Owner(Protocol):
    """What the files of a model belong to."""

    @property
    def words(self) -> str: ...

    def known(self) -> str | None:
        """The sum of the manifest, if one was kept."""

    def remember(self, manifest_sum: str) -> None:
        """Keep it."""

    def location(self) -> str:
        """Where the model's files are."""


@dataclass(frozen=True, slots=True)
class LoggedModelOwner:
    """A logged model, which MLflow 3 makes of each ``log_model``."""

    client: MlflowClient
    model_id: str

    @property
    def words(self) -> str:
        return f"models:/{self.model_id}"

    def known(self) -> str | None:
        with _absent_is_unknown():
            return self.client.get_logged_model(self.model_id).tags.get(TAG)
        return None

    def remember(self, manifest_sum: str) -> None:
        self.client.set_logged_model_tags(self.model_id, {TAG: manifest_sum})

    def location(self) -> str:
        return str(self.client.get_logged_model(self.model_id).artifact_location)


@dataclass(frozen=True, slots=True)
class VersionOwner:
    """A version of a registered model, whose files belong to nothing else."""

    client: MlflowClient
    name: str
    version: str

    @property
    def words(self) -> str:
        return f"models:/{self.name}/{self.version}"

    def known(self) -> str | None:
        with _absent_is_unknown():
            return self.client.get_model_version(self.name, self.version).tags.get(TAG)
        return None

    def remember(self, manifest_sum: str) -> None:
        self.client.set_model_version_tag(self.name, self.version, TAG, manifest_sum)

    def location(self) -> str:
        return str(self.client.get_model_version_download_uri(self.name, self.version))


@dataclass(frozen=True, slots=True)
class RunOwner:
    """A run, among whose artifacts MLflow 2 put the models."""

    client: MlflowClient
    run_id: str
    path: str

    @property
    def words(self) -> str:
        return f"runs:/{self.run_id}/{self.path}"

    @property
    def _tag(self) -> str:
        return f"{TAG}.{self.path}"

    def known(self) -> str | None:
        with _absent_is_unknown():
            return self.client.get_run(self.run_id).data.tags.get(self._tag)
        return None

    def remember(self, manifest_sum: str) -> None:
        self.client.set_tag(self.run_id, self._tag, manifest_sum)

    def location(self) -> str:
        return f"{self.client.get_run(self.run_id).info.artifact_uri}/{self.path}"


def of_version(client: MlflowClient, name: str, version: str) -> Owner:
    """The logged model or the run whose files a version has, else the version itself."""
    found = client.get_model_version(name, version)
    if model_id := getattr(found, "model_id", None):
        return LoggedModelOwner(client, model_id)
    if found.run_id:
        with _absent_is_unknown():
            root = f"{client.get_run(found.run_id).info.artifact_uri}/"
            source = found.source or ""
            if source.startswith(root):
                return RunOwner(client, found.run_id, source.removeprefix(root).rstrip("/"))
    return VersionOwner(client, name, version)


def of_run(client: MlflowClient, run_id: str, name: str) -> LoggedModelOwner | None:
    """The logged model that MLflow takes for this name in a run: the newest."""
    if "'" in name:
        return None
    experiment_id = client.get_run(run_id).info.experiment_id
    token: str | None = None
    while True:
        page = client.search_logged_models([experiment_id], f"name = '{name}'", page_token=token)
        for model in page:
            if model.source_run_id == run_id:
                return LoggedModelOwner(client, model.model_id)
        token = page.token
        if not token:
            return None


def said_by(folder: Path, client: MlflowClient) -> Owner | None:
    """Whose a folder says it is. It may lie: then its files are not the ones of that model's manifest."""
    try:
        import yaml

        said: Any = yaml.safe_load((folder / "MLmodel").read_bytes())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(said, dict):
        return None
    if isinstance(model_id := said.get("model_id"), str):
        return LoggedModelOwner(client, model_id)
    run_id, path = said.get("run_id"), said.get("artifact_path")
    return RunOwner(client, run_id, path) if isinstance(run_id, str) and isinstance(path, str) else None


@contextlib.contextmanager
def _absent_is_unknown() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
