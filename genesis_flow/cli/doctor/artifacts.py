"""Can a file be written to the artifact root, listed, read and deleted?"""

import tempfile
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from genesis_flow.cli.doctor.finding import Finding, fail, ok, skip, warn
from genesis_flow.core.redact import mask, mask_uri
from genesis_flow.core.settings import Server, Settings

_CONTENT = "written by genesis-flow doctor, which removes it again\n"
_NAME = "probe.txt"


class _StepFailed(Exception):
    """The step that could not be done; the cause is chained."""


def artifact_root(settings: Settings, timeout: float) -> Finding:
    """In a thread, because a client of a cloud may try again for minutes."""
    where = settings.artifact_root
    shown = mask_uri(where)
    if urlsplit(where).scheme in ("mlflow-artifacts", "http", "https"):
        return skip("artifacts", f"{shown} is behind an MLflow server.", "Check it where that server runs.")
    outcome: list[BaseException | None] = []

    def work() -> None:
        try:
            _probe(where)
        except Exception as error:  # noqa: BLE001 - reported below
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=work, name="genesis-flow-doctor-artifacts", daemon=True)
    thread.start()
    thread.join(timeout)
    details = {"root": shown, "source": settings.sources["artifact_root"]}
    if not outcome:
        return fail(
            "artifacts",
            f"{shown} did not answer within {timeout:g} s.",
            "Check its address and the network, or allow more with --timeout.",
            **details,
        )
    error = outcome[0]
    if error is None:
        return _judged(settings, shown, details)
    return fail("artifacts", mask(f"{shown}: {error}."), _advice(error), **details)


def _judged(settings: Settings, shown: str, details: dict[str, Any]) -> Finding:
    said = f"A file was written, listed, read and deleted in {shown}."
    if details["source"] == "default" and isinstance(settings.target, Server):
        return warn(
            "artifacts",
            f"{said} That is a folder where this command runs; every client has another.",
            "Name a place that all of them reach with GENESIS_FLOW_ARTIFACT_ROOT.",
            **details,
        )
    return ok("artifacts", said, **details)


def _advice(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, ImportError):
        return f"Install the package that it needs: {cause}."
    return "Check that it exists, and that these credentials may read, write and delete there."


def _probe(root: str) -> None:
    from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if not MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.is_set():
        # A bar for one small file would only stand in the way of the table.
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
        try:
            return _probe(root)
        finally:
            MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.unset()
    folder = f"genesis-flow-doctor-{uuid.uuid4().hex[:12]}"
    made = _missing_folders(root)
    repository = _step("cannot be opened", lambda: get_artifact_repository(root))
    try:
        try:
            _exchange(repository, folder)
        except _StepFailed:
            # The step that failed is the answer, whether or not this works.
            with suppress(Exception):
                repository.delete_artifacts(folder)
            raise
        _step(f"{folder} cannot be deleted", lambda: repository.delete_artifacts(folder))
    finally:
        for path in made:
            _remove_if_empty(path)


def _exchange(repository: Any, folder: str) -> None:
    with tempfile.TemporaryDirectory(prefix="genesis-flow-doctor-") as scratch:
        source, target = Path(scratch, _NAME), Path(scratch, "read")
        source.write_text(_CONTENT)
        target.mkdir()
        _step("no file can be written", lambda: repository.log_artifact(str(source), folder))
        listed = _step("cannot be listed", lambda: repository.list_artifacts(folder))
        if [entry.path for entry in listed] != [f"{folder}/{_NAME}"]:
            raise _StepFailed("a file that was just written is not listed")
        copied = _step(
            "no file can be read", lambda: repository.download_artifacts(f"{folder}/{_NAME}", str(target))
        )
        if Path(copied).read_text() != _CONTENT:
            raise _StepFailed("a file reads back with another content")


def _step(failure: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        text = " ".join(str(error).split())
        raise _StepFailed(f"{failure} ({type(error).__name__}: {text[:300]})") from error


def _missing_folders(root: str) -> list[Path]:
    """Folders of a local root that probing makes and that are not to stay, the deepest first."""
    from mlflow.utils.file_utils import local_file_uri_to_path

    if urlsplit(root).scheme not in ("", "file"):
        return []
    path = Path(local_file_uri_to_path(root))
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def _remove_if_empty(path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()
