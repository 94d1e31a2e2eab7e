"""Random runs with few distinct values, so that ties are many, in MLflow's SQL store and in ours."""

import random
from dataclasses import dataclass, field
from typing import Any

from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    RunStatus,
    RunTag,
)
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from genesis_flow.areas.metrics.documents import MetricHeadFields
from genesis_flow.areas.runs.datasets import DatasetFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.documents.keys import escape, head_id
from genesis_flow.mongo.connection import Database

NAN, INFINITY = float("nan"), float("inf")
NUMBERS = [-INFINITY, -1.0, 0.0, 0.5, 2.5, INFINITY, NAN]
WORDS = ["a", "A", "b.c", "10", "9", "a%b_c", "äö", ""]


@dataclass
class Sample:
    """One run as both stores get it."""

    experiment: int
    name: str
    start_time: int | None
    end_time: int | None
    deleted: bool
    status: str = "RUNNING"
    user: str = ""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    inputs: list[tuple[str, str, str | None]] = field(default_factory=list)
    run_id: str = ""
    artifact_uri: str = ""


def random_samples(count: int, seed: int, experiments: int = 2) -> list[Sample]:
    dice = random.Random(seed)

    def some(keys: list[str], values: list[Any]) -> dict[str, Any]:
        return {key: dice.choice(values) for key in keys if dice.random() < 0.7}

    return [
        Sample(
            experiment=dice.randrange(experiments),
            name=dice.choice(["alpha", "beta", "Alpha"]),
            start_time=dice.choice([1, 2, 2, 3, 4]),
            end_time=dice.choice([None, None, 5, 6]),
            deleted=dice.random() < 0.2,
            status=dice.choice(["RUNNING", "FINISHED", "FAILED"]),
            user=dice.choice(["", "ann", "bob"]),
            params=some(["p", "q.r", "s t"], WORDS[:-1]),
            tags=some(["t", "u.v", "50"], WORDS),
            metrics=some(["m", "n.o", "rare"], NUMBERS),
            inputs=[
                (
                    dice.choice(["iris", "wine"]),
                    dice.choice(["d1", "d2"]),
                    dice.choice([None, "train", "eval"]),
                )
                for _ in range(dice.choice([0, 0, 1, 2]))
            ],
        )
        for _ in range(count)
    ]


def load_sql(store: SqlAlchemyStore, samples: list[Sample]) -> list[str]:
    """Write the samples through the API, fill in the ids it gave, and return the experiments' ids."""
    names = [f"experiment {number}" for number in range(1 + max(sample.experiment for sample in samples))]
    experiments = [store.create_experiment(name) for name in names]
    for sample in samples:
        tags = [RunTag(key, value) for key, value in sample.tags.items()]
        run = store.create_run(
            experiments[sample.experiment], sample.user, sample.start_time, tags, sample.name
        )
        sample.run_id, sample.artifact_uri = run.info.run_id, run.info.artifact_uri
        sample.tags = run.data.tags
        store.log_batch(
            sample.run_id,
            [Metric(key, value, 1, 0) for key, value in sample.metrics.items()],
            [Param(key, value) for key, value in sample.params.items()],
            [],
        )
        store.log_inputs(sample.run_id, [_dataset_input(*used) for used in _distinct(sample.inputs)])
        store.update_run_info(sample.run_id, RunStatus.from_string(sample.status), sample.end_time, None)
        if sample.deleted:
            store.delete_run(sample.run_id)
    return experiments


def _dataset_input(name: str, digest: str, context: str | None) -> DatasetInput:
    tags = [] if context is None else [InputTag(MLFLOW_DATASET_CONTEXT, context)]
    return DatasetInput(Dataset(name, digest, "local", "source"), tags)


def _distinct(inputs: list[tuple[str, str, str | None]]) -> list[tuple[str, str, str | None]]:
    """A run uses a dataset once; MLflow keeps the first use."""
    return list({used[:2]: used for used in reversed(inputs)}.values())


async def load_mongo(database: Database, samples: list[Sample], experiments: list[str]) -> None:
    """Write the samples as documents, past the store's own write path."""
    runs, heads, datasets = [], [], {}
    for sample in samples:
        experiment_id = int(experiments[sample.experiment])
        document = run_document(sample, experiment_id)
        runs.append(document)
        heads += head_documents(sample, experiment_id)
        for used in document["inputs"]:
            datasets[used["id"]] = {
                "_id": used["id"],
                "workspace": "default",
                "experiment_id": experiment_id,
                "name": used["name"],
                "digest": used["digest"],
                "source_type": "local",
                "source": "source",
            }
    for declared, documents in (
        (RunFields, runs),
        (MetricHeadFields, heads),
        (DatasetFields, list(datasets.values())),
    ):
        if documents:
            await database.collection(declared).insert_many(documents)


def run_document(sample: Sample, experiment_id: int) -> dict[str, Any]:
    return {
        "_id": sample.run_id,
        "workspace": "default",
        "experiment_id": experiment_id,
        "name": sample.name,
        "user_id": sample.user,
        "status": sample.status,
        "end_time": sample.end_time,
        # A field that has no value is null in some documents and missing in others.
        **({} if sample.start_time is None else {"start_time": sample.start_time}),
        "lifecycle_stage": "deleted" if sample.deleted else "active",
        "artifact_uri": sample.artifact_uri,
        "params": {escape(key): value for key, value in sample.params.items()},
        "tags": {escape(key): value for key, value in sample.tags.items()},
        "inputs": [
            {
                "id": f"{experiment_id}-{name}-{digest}",
                "name": name,
                "digest": digest,
                "context": context,
                "tags": [] if context is None else [[MLFLOW_DATASET_CONTEXT, context]],
            }
            for name, digest, context in _distinct(sample.inputs)
        ],
    }


def head_documents(sample: Sample, experiment_id: int) -> list[dict[str, Any]]:
    return [
        {
            "_id": head_id(sample.run_id, key),
            "workspace": "default",
            "run_uuid": sample.run_id,
            "key": key,
            "experiment_id": experiment_id,
            "start_time": sample.start_time,
            "active": not sample.deleted,
            "latest": {"step": 0, "timestamp": 1, "value": value},
            "tail": [[0, 1, value]],
            "packed": 0,
        }
        for key, value in sample.metrics.items()
    ]
