"""Experiments, datasets, runs and logged models of a tree as records."""

import os
from collections.abc import Iterator
from typing import Any

from mlflow.entities import RunStatus
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from genesis_flow.importers.records import Body, Item, Problem, Record
from genesis_flow.importers.tree.files import (
    META,
    Damaged,
    below,
    decode,
    files,
    folders,
    key_of,
    read_bytes,
    read_meta,
    read_values,
    shown,
    size_of,
    text,
    told,
    whole,
)
from genesis_flow.importers.tree.metrics import read_metric

STAGES = ("active", "deleted")


def stage_of(meta: dict[str, Any], default: str = "active") -> str:
    stage = meta.get("lifecycle_stage") or default
    if stage not in STAGES:
        raise Damaged(f"lifecycle_stage is {stage!r}, not active or deleted")
    return str(stage)


def experiment_body(meta: dict[str, Any], folder_id: str, *, in_trash: bool) -> Body:
    """The experiment that a meta.yaml describes, without its tags."""
    stated = text(meta, "experiment_id")
    if stated is not None and stated != folder_id:
        raise Damaged(f"it is of experiment {stated}, but lies in the folder {folder_id}")
    if text(meta, "name") is None:
        raise Damaged("it has no name")
    return {
        **told("experiment", meta),
        "experiment_id": folder_id,
        "lifecycle_stage": stage_of(meta, "deleted" if in_trash else "active"),
        "tags": {},
    }


def read_experiment(folder: str, folder_id: str, *, in_trash: bool) -> Iterator[Item]:
    """An experiment; one whose meta.yaml cannot be read is made up, so that its runs have a place."""
    problems: list[Problem] = []
    path = os.path.join(folder, META)
    try:
        body = experiment_body(read_meta(path), folder_id, in_trash=in_trash)
    except Damaged as damage:
        name = "Default" if folder_id == "0" else f"recovered {folder_id}"
        reason = f"{damage}; what it contains is imported into an experiment named {name!r}"
        yield Problem("experiment", shown(path), reason, size_of(path))
        body = {
            "experiment_id": folder_id,
            "name": name,
            "artifact_location": f"file://{folder}",
            "lifecycle_stage": "deleted" if in_trash else "active",
            "creation_time": None,
            "last_update_time": None,
            "tags": {},
        }
    body["tags"] = read_values(os.path.join(folder, "tags"), "experiment_tag", problems)
    yield Record("experiment", folder_id, body)
    yield from problems


def read_datasets(folder: str, experiment_id: str) -> Iterator[Item]:
    parent = os.path.join(folder, "datasets")
    problems: list[Problem] = []
    names = _listed(parent, "dataset", problems)
    yield from problems
    for name in names:
        path = os.path.join(parent, name, META)
        try:
            yield Record("dataset", name, {"experiment_id": experiment_id, **dataset_body(read_meta(path))})
        except Damaged as damage:
            yield Problem("dataset", shown(path), str(damage), size_of(path))


def dataset_body(meta: dict[str, Any]) -> Body:
    body = told("dataset", meta)
    if body["name"] is None or body["digest"] is None:
        raise Damaged("it has no name or no digest")
    return {**body, "contexts": []}


def read_run(folder: str, experiment_folder: str, experiment_id: str) -> Iterator[Item]:
    run_id = os.path.basename(folder)
    path = os.path.join(folder, META)
    problems: list[Problem] = []
    try:
        body = _run_body(read_meta(path), run_id, experiment_id)
    except Damaged as damage:
        lost = sum(size_of(entry.path) for entry in _metadata_files(folder))
        yield Problem("run", shown(path), f"{damage}; the run is left out", lost)
        return
    body["params"] = read_values(os.path.join(folder, "params"), "param", problems)
    body["tags"] = read_values(os.path.join(folder, "tags"), "tag", problems)
    body["name"] = body["name"] or body["tags"].get(MLFLOW_RUN_NAME)
    _read_inputs(folder, experiment_folder, body, problems)
    _read_outputs(folder, body, problems)
    yield Record("run", run_id, body)
    yield from problems
    metrics = os.path.join(folder, "metrics")
    try:
        for entry in files(metrics):
            yield from read_metric(run_id, metrics, entry.path)
    except Damaged as damage:
        yield Problem("metric", shown(metrics), str(damage))


def _run_body(meta: dict[str, Any], run_id: str, experiment_id: str) -> Body:
    stated = text(meta, "run_id", "run_uuid")
    if stated is None:
        raise Damaged("it has no run_id, so it breaks off or is something else")
    if stated != run_id:
        raise Damaged(f"it is of run {stated}, but lies in the folder {run_id}")
    of = text(meta, "experiment_id")
    if of is not None and of != experiment_id:
        raise Damaged(f"it says experiment {of}, but the run lies in experiment {experiment_id}")
    stage = stage_of(meta)
    return {
        **told("run", meta),
        "run_id": run_id,
        "experiment_id": experiment_id,
        "name": text(meta, "run_name", "name"),
        "status": _status(meta.get("status")),
        "lifecycle_stage": stage,
        "params": {},
        "tags": {},
        "inputs": [],
        "model_inputs": [],
        "model_outputs": [],
    }


def _status(stated: Any) -> str:
    if stated is None:
        return "RUNNING"
    try:
        if isinstance(stated, str) and not stated.isdigit():
            RunStatus.from_string(stated)
            return stated
        return str(RunStatus.to_string(int(stated)))
    except Exception as error:
        raise Damaged(f"status is {stated!r}, which MLflow does not know") from error


def _read_inputs(folder: str, experiment_folder: str, body: Body, problems: list[Problem]) -> None:
    parent = os.path.join(folder, "inputs")
    for name in _listed(parent, "input", problems):
        path = os.path.join(parent, name, META)
        try:
            meta = read_meta(path)
            source = text(meta, "source_id")
            if source is None:
                raise Damaged("it has no source_id")
            if meta.get("source_type") == "MODEL":
                body["model_inputs"].append(source)
                continue
            tags = [[str(key), None if value is None else str(value)] for key, value in _tags(meta)]
            try:
                dataset = dataset_body(read_meta(below(experiment_folder, "datasets", source, META)))
            except Damaged as damage:
                raise Damaged(f"its dataset {source} is lost: {damage}") from damage
            body["inputs"].append({"name": dataset["name"], "digest": dataset["digest"], "tags": tags})
        except Damaged as damage:
            problems.append(Problem("input", shown(path), str(damage), size_of(path)))


def _read_outputs(folder: str, body: Body, problems: list[Problem]) -> None:
    parent = os.path.join(folder, "outputs")
    for name in _listed(parent, "output", problems):
        path = os.path.join(parent, name, META)
        try:
            meta = read_meta(path)
            body["model_outputs"].append([text(meta, "destination_id") or name, whole(meta, "step") or 0])
        except Damaged as damage:
            problems.append(Problem("output", shown(path), str(damage), size_of(path)))


def _tags(meta: dict[str, Any]) -> Any:
    tags = meta.get("tags") or {}
    if not isinstance(tags, dict):
        raise Damaged("its tags are not fields")
    return tags.items()


def _listed(parent: str, kind: str, problems: list[Problem]) -> list[str]:
    def odd(path: str, reason: str) -> None:
        problems.append(Problem(kind, shown(path), reason))

    try:
        return folders(parent, odd)
    except Damaged as damage:
        problems.append(Problem(kind, shown(parent), str(damage)))
        return []


def _metadata_files(folder: str) -> Iterator["os.DirEntry[str]"]:
    for name in ("params", "tags", "metrics", "inputs", "outputs"):
        try:
            yield from files(os.path.join(folder, name))
        except Damaged:
            continue


def read_logged_model(folder: str, experiment_id: str) -> Iterator[Item]:
    model_id = os.path.basename(folder)
    path = os.path.join(folder, META)
    problems: list[Problem] = []
    try:
        body = _model_body(read_meta(path), model_id, experiment_id)
    except Damaged as damage:
        yield Problem("logged_model", shown(path), f"{damage}; the model is left out", size_of(path))
        return
    body["params"] = read_values(os.path.join(folder, "params"), "logged_model_param", problems)
    body["tags"] = read_values(os.path.join(folder, "tags"), "logged_model_tag", problems)
    metrics = os.path.join(folder, "metrics")
    try:
        for entry in files(metrics):
            _read_model_metric(metrics, entry.path, body["metrics"], problems)
    except Damaged as damage:
        problems.append(Problem("logged_model_metric", shown(metrics), str(damage)))
    yield Record("logged_model", model_id, body)
    yield from problems


def _model_body(meta: dict[str, Any], model_id: str, experiment_id: str) -> Body:
    stated = text(meta, "model_id")
    if stated is not None and stated != model_id:
        raise Damaged(f"it is of model {stated}, but lies in the folder {model_id}")
    of = text(meta, "experiment_id")
    if of is not None and of != experiment_id:
        raise Damaged(f"it says experiment {of}, but the model lies in experiment {experiment_id}")
    created = whole(meta, "creation_timestamp", required=True)
    return {
        **told("logged_model", meta),
        "model_id": model_id,
        "experiment_id": experiment_id,
        "name": text(meta, "name") or model_id,
        "artifact_location": text(meta, "artifact_location") or "",
        "creation_timestamp": created,
        "last_updated_timestamp": whole(meta, "last_updated_timestamp") or created,
        "status": whole(meta, "status") or 0,
        "lifecycle_stage": stage_of(meta),
        "params": {},
        "tags": {},
        "metrics": [],
    }


def _read_model_metric(folder: str, path: str, points: list[dict[str, Any]], problems: list[Problem]) -> None:
    """Lines of: timestamp value step run [dataset digest]."""
    try:
        key = key_of(path, folder)
        lines = decode(read_bytes(path)).splitlines()
    except Damaged as damage:
        problems.append(Problem("logged_model_metric", shown(path), str(damage), size_of(path)))
        return
    for number, line in enumerate(lines, 1):
        fields = line.split(" ")
        try:
            if len(fields) not in (4, 6):
                raise ValueError
            point = {
                "run_id": fields[3],
                "key": key,
                "value": float(fields[1]),
                "timestamp": int(fields[0]),
                "step": int(fields[2]),
                "dataset_name": fields[4] if len(fields) == 6 else None,
                "dataset_digest": fields[5] if len(fields) == 6 else None,
            }
        except ValueError:
            reason = f"line {number} is not a point: {line[:60]!r}"
            problems.append(Problem("logged_model_metric", shown(path), reason, len(line)))
            continue
        points.append(point)
