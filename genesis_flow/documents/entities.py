"""Documents as MLflow entities."""

from typing import Any, NamedTuple

from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    ExperimentTag,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
)

from genesis_flow.documents.keys import unescape, unescape_map
from genesis_flow.documents.plain import Document


def whole(number: int | None) -> int | None:
    """A plain int for BSON's 64-bit one, a subclass that YAML, for one, refuses to write."""
    return None if number is None else int(number)


def maybe(document: Document, field: str) -> Any:
    """A field that may be missing. MLflow annotates as str some that its own store, too, leaves None."""
    return document.get(field)


def experiment_entity(document: Document) -> Experiment:
    return Experiment(
        experiment_id=str(document["_id"]),
        name=document["name"],
        artifact_location=maybe(document, "artifact_location"),
        lifecycle_stage=document["lifecycle_stage"],
        tags=[ExperimentTag(unescape(key), value) for key, value in (document.get("tags") or {}).items()],
        creation_time=whole(document["creation_time"]),
        last_update_time=whole(document["last_update_time"]),
    )


def metric_entity(key: str, latest: Document) -> Metric:
    return Metric(key, latest["value"], int(latest["timestamp"]), int(latest["step"]))


def metric_entities(heads: list[Document]) -> list[Metric]:
    return [metric_entity(head["key"], head["latest"]) for head in heads]


def run_info_entity(document: Document) -> RunInfo:
    return RunInfo(
        run_id=document["_id"],
        run_name=document.get("name"),
        experiment_id=str(document["experiment_id"]),
        user_id=maybe(document, "user_id"),
        status=document["status"],
        start_time=whole(document.get("start_time")),  # type: ignore[arg-type]  # None, as in MLflow's store
        end_time=whole(document.get("end_time")),
        lifecycle_stage=document["lifecycle_stage"],
        artifact_uri=document.get("artifact_uri"),
    )


class RunParts(NamedTuple):
    """What of a run's entity its own document is enough for."""

    info: RunInfo
    params: dict[str, Any]
    tags: dict[str, Any]


def run_parts(document: Document) -> RunParts:
    params, tags = unescape_map(document.get("params")), unescape_map(document.get("tags"))
    return RunParts(run_info_entity(document), params, tags)


def run_entity(
    document: Document,
    metrics: list[Metric],
    datasets: dict[str, Document],
    *,
    with_model_inputs: bool,
    parts: RunParts | None = None,
) -> Run:
    """A run with its latest metrics and inputs; ``datasets`` are documents by id.

    MLflow gives the models a run read from only with a single run, not with a page of them.
    """
    parts = parts or run_parts(document)
    data = RunData(metrics)
    # Not by lists of Param and RunTag, of which MLflow takes key and value: objects that nobody keeps.
    data.params.update(parts.params)
    data.tags.update(parts.tags)
    inputs = [
        DatasetInput(
            dataset=dataset_entity(datasets[used["id"]]),
            tags=[InputTag(key, value) for key, value in used.get("tags") or []],
        )
        for used in document.get("inputs") or []
        if used["id"] in datasets
    ]
    models = [LoggedModelInput(model_id=model_id) for model_id in document.get("model_inputs") or []]
    outputs = [
        LoggedModelOutput(model_id=model_id, step=int(step))
        for model_id, step in document.get("model_outputs") or []
    ]
    run_inputs = (
        RunInputs(dataset_inputs=inputs, model_inputs=models)
        if with_model_inputs
        else RunInputs(dataset_inputs=inputs)
    )
    return Run(parts.info, data, run_inputs, RunOutputs(outputs))


def dataset_entity(document: Document) -> Dataset:
    return Dataset(
        name=document["name"],
        digest=document["digest"],
        source_type=maybe(document, "source_type"),
        source=maybe(document, "source"),
        schema=document.get("schema"),
        profile=document.get("profile"),
    )
