"""What the fuzzed searches look through: a little of everything, the same in both stores."""

import random
from typing import Any

from mlflow.entities import (
    Dataset,
    DatasetInput,
    ExperimentTag,
    Feedback,
    LoggedModelParameter,
    LoggedModelStatus,
    LoggedModelTag,
    Metric,
    Param,
    RunStatus,
    RunTag,
)
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.entities.trace_state import TraceState

from tests.contract.pair import Pair
from tests.contract.scenes import Clock
from tests.contract.trace_scenes import span, stated, trace_id
from tests.trust.fuzz_grammar import Grammar

VALUES = ["a", "Alpha", "al_pha", "a%b_c", "Ä", "", "1", "quo'te", "$where", "x\\", "line\nbreak"]
LONG = "a" * 5000
RUN = "a" * 32

GRAMMARS = {
    "runs": Grammar(
        ["metrics.m", "metrics.`o.dd`", "metric.never", "start_time", "attributes.end_time", "created"],
        [
            *("params.p", "params.`a.b`", "param.never", "tags.t", 'tags."$where"', "tags.`mlflow.runName`"),
            *("status", "run_name", "attributes.run_id", "user_id", "artifact_uri", "dataset.name"),
            *("datasets.digest", "dataset.context", "lifecycle_stage"),
        ],
        [
            "metrics.m",
            "metrics.`o.dd`",
            "params.p",
            "tags.t",
            "start_time",
            "end_time",
            "status",
            "run_id",
            "x",
        ],
        [*VALUES, LONG],
    ),
    "experiments": Grammar(
        ["creation_time", "last_update_time", "attribute.creation_time"],
        ["name", "attribute.name", "experiment_id", "tags.t", "tags.`a.b`", "tags.never", "lifecycle_stage"],
        ["name", "creation_time", "last_update_time", "experiment_id", "attribute.name", "tags.t"],
        VALUES,
    ),
    "models": Grammar(
        ["metrics.m", "metrics.`o.dd`", "creation_timestamp", "last_updated_timestamp", "creation_time"],
        [
            "name",
            "params.p",
            "params.`a.b`",
            "tags.t",
            "model_type",
            "source_run_id",
            "model_id",
            "attributes.name",
        ],
        ["creation_timestamp", "name", "metrics.m", "model_type", "status", "source_run_id", "params.p"],
        VALUES,
    ),
    "traces": Grammar(
        ["timestamp", "timestamp_ms", "execution_time", "end_time", "feedback.good", "trace.timestamp"],
        [
            *("status", "trace.status", "name", "request_id", "client_request_id", "tags.t", "tag.`a.b`"),
            *(
                "metadata.k",
                "request_metadata.`l.m`",
                "run_id",
                "prompt",
                "span.name",
                "span.type",
                "span.status",
            ),
            *("span.attributes.model", "span.content", "trace.text", "feedback.good", "expectation.good"),
        ],
        ["timestamp", "status", "execution_time", "name", "tags.t", "request_id", "metadata.k", "end_time"],
        [*VALUES, "gpt", "OK", "s1", "step"],
    ),
    "registered models": Grammar(
        [],
        ["name", "attribute.name", "tags.t", "tag.`a.b`", "tags.never", "tags.`mlflow.prompt.is_prompt`"],
        ["name", "timestamp", "last_updated_timestamp", "creation_timestamp", "tags.t"],
        VALUES,
    ),
    "versions": Grammar(
        ["version_number", "attribute.version_number"],
        ["name", "run_id", "source_path", "tags.t", "tags.`a.b`", "attribute.name"],
        ["name", "version_number", "last_updated_timestamp", "creation_timestamp", "x"],
        VALUES,
    ),
    "datasets": Grammar(
        ["created_time", "last_update_time", "attributes.created_time"],
        ["name", "created_by", "last_updated_by", "tags.t", "tags.`a.b`", "digest"],
        ["name", "created_time", "last_update_time", "tags.t"],
        VALUES,
    ),
}


def fill_tracking(pair: Pair, clock: Clock) -> None:
    dice = random.Random(3)
    for number, name in enumerate(VALUES):
        if name:
            clock.now += number % 2
            tags = [ExperimentTag("t", dice.choice(VALUES)), ExperimentTag("a.b", str(number))]
            pair.create_experiment(name, tags=tags[: number % 3])
    runs = [_run(pair, number, dice) for number in range(16)]
    for number in range(16):
        _model(pair, clock, number, dice, runs[number % 4])
        _trace(pair, number, dice)
        clock.tick()
        tags = {"mlflow.user": dice.choice("ab"), "t": dice.choice(VALUES), "a.b": "1"}
        pair.create_dataset(dice.choice(VALUES[:5]), tags if number % 3 else None, [str(number % 2)])


def _run(pair: Pair, number: int, dice: random.Random) -> str:
    tags = [RunTag("t", dice.choice([*VALUES, LONG])), RunTag("$where", "sleep")][: number % 3]
    experiment, user = str(number % 2), dice.choice("ab")
    run_id: str = pair.create_run(
        experiment, user, 1000 + number // 2, tags, dice.choice(VALUES[:4])
    ).info.run_id
    metrics = [
        Metric("m", dice.choice([0.0, 0.5, 1.0, -1.0, float("nan")]), 1, step) for step in range(number % 3)
    ]
    metrics += [Metric("o.dd", dice.choice([0.5, 1000.0]), 1, 0)] * (number % 2)
    params = [Param("p", dice.choice([*VALUES, LONG])), Param("a.b", dice.choice(VALUES))][: number % 3]
    pair.log_batch(run_id, metrics, params, [])
    if number % 4 == 1:
        pair.update_run_info(run_id, RunStatus.FINISHED, 5000 + number, None)
    if number % 4 == 2:
        pair.log_inputs(run_id, [DatasetInput(Dataset(dice.choice("ab"), "1", "local", "here"), [])])
    return run_id


def _model(pair: Pair, clock: Clock, number: int, dice: random.Random, run_id: str) -> None:
    clock.tick()
    model_id = pair.create_logged_model(
        "0",
        dice.choice(["a", "Alpha", "al_pha"]),
        dice.choice([None, run_id]),
        [LoggedModelTag("t", dice.choice(VALUES))] if number % 2 else None,
        [LoggedModelParameter("p", dice.choice(VALUES)), LoggedModelParameter("a.b", "1")][: number % 3],
        dice.choice([None, "a", "1"]),
    ).model_id
    if number % 2:
        pair.finalize_logged_model(model_id, LoggedModelStatus.READY)
    metrics = [Metric("m", dice.choice([0.0, 0.5, 1.0]), 1, step, model_id) for step in range(number % 3)]
    if metrics:
        pair.log_batch(run_id, metrics, [], [])


def _trace(pair: Pair, number: int, dice: random.Random) -> None:
    identifier = trace_id(number + 1)
    spans = [
        span(
            identifier,
            each,
            None if each == 1 else 1,
            name=dice.choice(["step", "a"]),
            kind=dice.choice(["LLM", "a"]),
            status=dice.choice(["OK", "ERROR"]),
            attributes={"model": dice.choice(["gpt", "a", "$where"])},
        )
        for each in range(1, number % 3 + 1)
    ]
    if spans:
        pair.log_spans("0", spans)
    tags = {key: dice.choice(VALUES) for key in ("t", "a.b") if dice.random() < 0.6}
    if dice.random() < 0.5:
        tags["mlflow.traceName"] = dice.choice(["a", "Alpha"])
    metadata: dict[str, Any] = {key: dice.choice(VALUES) for key in ("k", "l.m") if dice.random() < 0.6}
    info = stated(
        identifier,
        start=number // 2,
        duration=dice.choice([None, 0, 1]),
        tags=tags,
        trace_metadata=metadata,
        state=dice.choice([TraceState.OK, TraceState.ERROR]),
    )
    pair.both("start_trace", info)  # the answers differ on purpose where spans came first
    if number % 3 == 0:
        pair.create_assessment(
            Feedback(name="good", value=dice.choice(["yes", 0.5, 1, True]), trace_id=identifier)
        )
    if number % 5 == 0:
        pair.link_traces_to_run([identifier], RUN)


def fill_registry(pair: Pair) -> None:
    dice = random.Random(4)
    for number, name in enumerate(each for each in VALUES if each and "\\" not in each):
        tags = [RegisteredModelTag("t", dice.choice(VALUES)), RegisteredModelTag("a.b", "1")][: number % 3]
        pair.create_registered_model(name, tags)
        for version in range(number % 4):
            version_tags = [ModelVersionTag("t", dice.choice(VALUES)), ModelVersionTag("a.b", "1")][
                : version % 3
            ]
            pair.create_model_version(name, f"s3://{number}/a", dice.choice([None, "a", "1"]), version_tags)
    pair.create_prompt("prompt", tags={"t": "a"})
