"""One of two clients of different versions of MLflow on one database.

It writes, changes or reads, as each line of its input says, and answers each with a line of JSON.
"""

import contextlib
import json
import sys
from typing import Any

import mlflow
import mlflow.genai
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.genai import datasets

STEPS = 50
uri, name, me, shared_run = sys.argv[1:]
mlflow.set_tracking_uri(uri)
mlflow.set_registry_uri(uri)
experiment_id = mlflow.set_experiment(name).experiment_id
client = MlflowClient()
person = AssessmentSource(source_type="HUMAN", source_id=me)


@mlflow.trace(span_type="LLM")
def model(question: str) -> str:
    span = mlflow.get_current_active_span()
    if span is not None:
        span.set_attribute(
            "mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
        )
    return question.upper()


@mlflow.trace(name="agent", span_type="AGENT")
def agent(question: str, fails: bool) -> str:
    mlflow.update_current_trace(tags={"by": me}, metadata={"mlflow.trace.session": f"session of {me}"})
    if fails:
        raise ValueError(question)
    return model(question)


def write() -> None:
    with mlflow.start_run(run_name=f"run of {me}") as run:
        mlflow.log_params({"writer": me, "odd key/1": "2"})
        mlflow.log_input(mlflow.data.from_numpy(__import__("numpy").arange(3), name="numbers"), "training")
        logged = mlflow.create_external_model(name=f"model-of-{me}", params={"depth": "3"}, tags={"by": me})
        for step in range(STEPS):
            mlflow.log_metric("loss", 1 / (step + 1), step=step, timestamp=1_000 + step)
            mlflow.log_metric(
                "accuracy", step / STEPS, step=step, timestamp=9_000 - step, model_id=logged.model_id
            )
            client.log_metric(shared_run, "shared", step, timestamp=len(me) + step, step=step)
            client.log_metric(shared_run, f"of {me}", step, timestamp=step, step=step)
        client.log_batch(
            shared_run, [Metric("m", 1.0, 1, 0)], [Param(f"p {me}", "1")], [RunTag(f"t {me}", "2")]
        )
    with contextlib.suppress(MlflowException):  # the other one has made it
        client.create_registered_model(name)
    for _ in range(5):
        client.create_model_version(name, f"/models/{me}", run.info.run_id, tags={"by": me})
    client.set_registered_model_tag(name, me, "was here")
    mlflow.genai.register_prompt(name=f"prompt-{name.split()[-1]}", template=f"Hello {{{{who}}}}, says {me}")
    for number in range(3):
        with contextlib.suppress(ValueError):
            agent(f"question {number} of {me}", fails=number == 2)
    mlflow.flush_trace_async_logging()
    made = datasets.create_dataset(
        name=f"dataset of {me} {name}", experiment_id=[experiment_id], tags={"by": me}
    )
    made.merge_records([{"inputs": {"q": number}, "expectations": {"a": number}} for number in range(4)])


def change() -> None:
    """Change what the other one has written."""
    for run in client.search_runs([experiment_id], f"params.writer != '{me}'"):
        client.set_tag(run.info.run_id, f"changed by {me}", "yes")
        client.log_metric(run.info.run_id, "loss", 7.0, timestamp=2_000, step=STEPS)
    for trace in traces():
        if trace.info.tags["by"] != me:
            mlflow.log_feedback(trace_id=trace.info.trace_id, name="good", value=True, source=person)
            client.set_trace_tag(trace.info.trace_id, f"changed by {me}", "yes")
    for found in models():
        if found.tags["by"] != me:
            client.set_logged_model_tags(found.model_id, {f"changed by {me}": "yes"})
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags["by"] != me:
            client.set_registered_model_alias(name, f"from-{me}", version.version)
            client.set_model_version_tag(name, version.version, f"changed by {me}", "yes")
    for found in datasets.search_datasets(experiment_ids=[experiment_id]):
        if found.tags["by"] != me:
            found.merge_records([{"inputs": {"q": f"of {me}"}, "expectations": {"a": 1}}])


def traces() -> list[Any]:
    found: list[Any] = mlflow.search_traces(locations=[experiment_id], return_type="list")
    return found


def models() -> list[Any]:
    return list(client.search_logged_models([experiment_id]))


def read() -> dict[str, Any]:
    """Everything, but for what one version has and the other has not."""
    return {
        "runs": {
            run.info.run_name: [
                run.info.status,
                run.info.lifecycle_stage,
                run.data.params,
                run.data.metrics,
                {key: value for key, value in run.data.tags.items() if "history" not in key},
                [each.dataset.to_dictionary() for each in run.inputs.dataset_inputs],
                {key: history(run.info.run_id, key) for key in sorted(run.data.metrics)},
            ]
            for run in client.search_runs([experiment_id])
        },
        "by metric": [run.info.run_name for run in client.search_runs([experiment_id], "metrics.loss > 5")],
        "models": {
            each.name: [
                str(each.status),
                each.params,
                each.tags,
                sorted((point.key, point.step, point.value) for point in each.metrics or []),
            ]
            for each in models()
        },
        "versions": {
            int(each.version): [each.source, each.tags, sorted(each.aliases)]
            for each in client.search_model_versions(f"name = '{name}'")
        },
        "registered": client.get_registered_model(name).tags,
        "aliases": dict(client.get_registered_model(name).aliases),
        "prompts": sorted(
            str(mlflow.genai.load_prompt(f"prompts:/prompt-{name.split()[-1]}/{number}").template)
            for number in (1, 2)
        ),
        "traces": sorted(map(trace_entry, traces())),
        "sessions": len(
            mlflow.search_traces(
                locations=[experiment_id],
                filter_string=f"metadata.`mlflow.trace.session` = 'session of {me}'",
                return_type="list",
            )
        ),
        "datasets": sorted(
            [each.name, each.tags, json.loads(each.profile)["num_records"], records(each)]
            for each in datasets.search_datasets(experiment_ids=[experiment_id])
        ),
    }


def history(run_id: str, key: str) -> list[Any]:
    return sorted(
        (point.step, point.timestamp, point.value) for point in client.get_metric_history(run_id, key)
    )


def records(dataset: Any) -> list[Any]:
    table = dataset.to_df()
    return sorted(map(list, zip(table["inputs"], table["expectations"], strict=True)), key=json.dumps)


def trace_entry(trace: Any) -> list[Any]:
    spans = [
        [
            span.name,
            span.span_type,
            span.status.status_code.name,
            span.parent_id is None,
            span.inputs,
            span.outputs,
        ]
        for span in trace.data.spans
    ]
    assessments = sorted([each.name, each.value, each.source.source_id] for each in trace.info.assessments)
    info = trace.info
    tags = {key: value for key, value in info.tags.items() if not key.startswith("mlflow.")}
    return [
        info.request_preview,
        info.response_preview,
        str(info.state),
        tags,
        info.token_usage,
        spans,
        assessments,
    ]


for line in sys.stdin:
    seen = {"write": write, "change": change, "read": read}[line.strip()]()
    print(json.dumps({"mlflow": mlflow.__version__, "seen": seen}, sort_keys=True), flush=True)
