"""Folders of models, as MLflow saves them and as an attacker would."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import yaml

TORCH_PICKLE = "archive/data.pkl"


class Runs:
    """Unpickled, it runs a command that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self._mark}'",)


class Note:
    """Of a type that nobody knows."""

    def __init__(self) -> None:
        self.text = "a note"


def malicious(mark: Path, protocol: int = 4) -> bytes:
    return pickle.dumps(Runs(mark), protocol)


def nested(mark: Path) -> bytes:
    """Deep in what looks like weights, and inside a pickle of a pickle."""
    return pickle.dumps({"weights": [1.0] * 100, "layers": [{"hook": (0, [Runs(mark)])}]})


def zipped(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def torch_file(pickled: bytes) -> bytes:
    """What torch.save writes: a zip with a pickle for the structure, and the numbers beside it."""
    return zipped({TORCH_PICKLE: pickled, "archive/version": b"3\n", "archive/data/0": bytes(64)})


def model_folder(
    folder: Path, flavors: dict[str, Any], files: dict[str, bytes | str], **described: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors, **described}))
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def sklearn_flavors(file: str, serialization_format: str = "cloudpickle", **more: Any) -> dict[str, Any]:
    return {
        "python_function": {"loader_module": "mlflow.sklearn", "model_path": file},
        "sklearn": {"pickled_model": file, "serialization_format": serialization_format, **more},
    }


def torch_flavors() -> dict[str, Any]:
    return {
        "python_function": {"loader_module": "mlflow.pytorch", "data": "data"},
        "pytorch": {"model_data": "data"},
    }
