"""transfer.py upload|download URI FILE FOLDER: one transfer, then one line of JSON about the process."""

import json
import resource
import sys
from pathlib import Path

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository


def peak_kilobytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(direction: str, uri: str, name: str, folder: str) -> None:
    repository = get_artifact_repository(uri)
    repository.list_artifacts()  # loads what has to be loaded
    before = peak_kilobytes()
    if direction == "upload":
        repository.log_artifact(str(Path(folder, name)))
    else:
        repository.download_artifacts(name, folder)
    print(json.dumps({"grown_by": (peak_kilobytes() - before) * 1024}))


main(*sys.argv[1:])
