"""What the stores do on a server: the calls that MLflow makes all day, with their results."""

import json
import math
from functools import partial
from typing import Any

from mlflow.entities import (
    Dataset,
    DatasetInput,
    Feedback,
    LoggedModelParameter,
    LoggedModelStatus,
    Metric,
    Param,
    RunStatus,
    RunTag,
    Span,
    ViewType,
)
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, ErrorCode

from genesis_flow.cli.conformance.at_once import at_once
from genesis_flow.cli.conformance.outcome import Check, NotTried, expect
from genesis_flow.cli.conformance.trial import Trial
from genesis_flow.migrate.schema_check import compare
from genesis_flow.sync.tracking import MongoDBStore

_DEFAULT_EXPERIMENT = "0"
_POINTS = 300
_RUNS = 12
_RACERS = 8
_TRACES = 6
_BEGUN = 1_700_000_000_000


def _schema(trial: Trial) -> str:
    from genesis_flow.stores.areas import DECLARED

    default = trial.tracking().get_experiment(_DEFAULT_EXPERIMENT)
    expect(default is not None, "The default experiment is not there.")
    # Collections that the checks before have made are there, too.
    differences = [
        each for each in compare(trial.db, "", DECLARED, portable=trial.portable) if each.kind != "note"
    ]
    listed = "; ".join(f"{each.kind} {each.what} {each.detail}" for each in differences)
    expect(not differences, f"Not as declared: {listed}.")
    indexes = sum(len(list(trial.db[document.Settings.name].list_indexes())) for document in DECLARED)
    return f"{len(DECLARED)} collections with {indexes} indexes, made by the first call."


def _runs(trial: Trial) -> str:
    store = trial.tracking()
    experiment = store.create_experiment("runs", artifact_location="file:///conformance/runs")
    run_id = store.create_run(experiment, "someone", _BEGUN, [RunTag("a.b", "1")], "first").info.run_id
    store.log_batch(run_id, [Metric("loss", 0.5, 1, 1)], [Param("rate", "0.1"), Param("x.y", "z")], [])
    store.set_tag(run_id, RunTag("note", "some"))
    expect(_is_refused(store, run_id, Param("rate", "0.2")), "A param was changed.")
    dataset = Dataset("data", "1", "local", "here")
    store.log_inputs(run_id, [DatasetInput(dataset, [])])
    store.update_run_info(run_id, RunStatus.FINISHED, _BEGUN + 1, "renamed")
    run = store.get_run(run_id)
    expect(run.data.params == {"rate": "0.1", "x.y": "z"}, f"Params are {run.data.params}.")
    expect(run.data.metrics == {"loss": 0.5}, f"Metrics are {run.data.metrics}.")
    expect({"a.b", "note"} <= set(run.data.tags), f"Tags are {run.data.tags}.")
    expect(run.info.status == "FINISHED" and run.info.run_name == "renamed", "The run was not finished.")
    expect(
        [each.dataset.name for each in (run.inputs.dataset_inputs if run.inputs else [])] == ["data"],
        "The dataset is not there.",
    )
    store.delete_experiment(experiment)
    expect(store.get_run(run_id).info.lifecycle_stage == "deleted", "Its run did not follow the experiment.")
    store.restore_experiment(experiment)
    expect(store.get_run(run_id).info.lifecycle_stage == "active", "The run did not come back.")
    store.delete_run(run_id)
    store._hard_delete_run(run_id)
    left = trial.db["latest_metrics"].count_documents({"run_uuid": run_id})
    expect(left == 0, "Metrics of a run stayed that is deleted for good.")
    return "Made, filled, finished, deleted with its experiment, restored, removed for good."


def _is_refused(store: MongoDBStore, run_id: str, param: Param) -> bool:
    try:
        store.log_param(run_id, param)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(INVALID_PARAMETER_VALUE):
            raise
        return True
    return False


def _metrics(trial: Trial) -> str:
    store = trial.tracking()
    run_id = _new_run(store, "metrics")
    points = [Metric("loss", 1 / (n + 1), n, n) for n in range(_POINTS)]
    store.log_batch(run_id, points[:100], [], [])
    for point in points[100:140]:
        store.log_metric(run_id, point)
    store.log_batch(run_id, points[90:], [], [])
    store.log_batch(run_id, [Metric("odd", math.nan, 1, 1), Metric("odd", math.inf, 2, 2)], [], [])
    history = store.get_metric_history(run_id, "loss")
    seen = [(each.step, each.value) for each in history]
    expect(
        seen == [(point.step, point.value) for point in points],
        f"The history has {len(seen)} points, other than the {_POINTS} that were logged, some of them twice.",
    )
    latest = store.get_run(run_id).data.metrics
    expect(latest["loss"] == points[-1].value and latest["odd"] == math.inf, f"The latest are {latest}.")
    sample = store.get_metric_history_bulk_interval([run_id], "loss", 10, 0, _POINTS)
    expect(
        0 < len(sample) <= 10 and sample[-1].step == _POINTS - 1, "A sample of a history has other points."
    )
    return f"A history of {_POINTS} points, some logged twice; NaN and infinity; a sample of it."


def _search(trial: Trial) -> str:
    store = trial.tracking()
    experiment = store.create_experiment("search")
    ids = []
    for n in range(_RUNS):
        run_id = store.create_run(
            experiment, "me", _BEGUN + n, [RunTag("kind", f"Kind {n % 3}")], f"run {n}"
        ).info.run_id
        metrics = [Metric("score", float(-n), 1, 1)] if n % 4 else []
        store.log_batch(run_id, metrics, [Param("size", str(n))], [])
        ids.append(run_id)

    def runs_found(filter_string: str, order: list[str] | None = None) -> list[int]:
        numbers: list[int] = []
        token = None
        while True:
            runs, token = store._search_runs(
                [experiment], filter_string, ViewType.ACTIVE_ONLY, 5, order, token
            )
            numbers += [ids.index(run.info.run_id) for run in runs]
            if not token:
                return numbers
            expect(len(numbers) <= _RUNS, "Pages repeat runs.")

    scored = [n for n in range(_RUNS) if n % 4]
    newest = list(range(_RUNS))[::-1]
    cases: list[tuple[str, list[str] | None, list[int]]] = [
        ("", None, newest),
        ("metrics.score < -4.5", None, [n for n in newest if n in scored and n > 4]),
        ("tags.kind LIKE 'Kind%1'", None, [n for n in newest if n % 3 == 1]),
        ("tags.kind ILIKE 'kind 2'", None, [n for n in newest if n % 3 == 2]),
        ("params.size = '7' AND tags.kind != 'x'", None, [7]),
        ("attributes.run_name = 'run 3'", None, [3]),
        ("", ["metrics.score ASC"], scored[::-1] + [n for n in newest if n not in scored]),
        ("", ["params.size DESC"], sorted(range(_RUNS), key=str, reverse=True)),
        ("", ["tags.kind ASC", "attributes.start_time ASC"], sorted(range(_RUNS), key=lambda n: (n % 3, n))),
    ]
    for filter_string, order, wanted in cases:
        seen = runs_found(filter_string, order)
        expect(seen == wanted, f"{filter_string!r} in the order {order} found runs {seen} and not {wanted}.")
    return f"{len(cases)} filters and orders over {_RUNS} runs, in pages of 5."


def _views(trial: Trial) -> str:
    if trial.portable:
        raise NotTried("The portable profile makes none.")
    store = trial.tracking()
    run_id = _new_run(store, "views")
    store.log_param(run_id, Param("a.b/c", "d"))
    rows = list(trial.db["params"].find({"run_uuid": run_id}))
    expect(rows == [{"run_uuid": run_id, "key": "a.b/c", "value": "d"}], f"The view of params gave {rows}.")
    return "Params of runs as rows, for queries by hand."


def _racing_params(trial: Trial) -> str:
    """Of clients that log different values of one param, one wins and all others are told."""
    stores = [trial.tracking(f"conformance {n}") for n in range(2)]
    run_id = _new_run(stores[0], "racing params")
    won: list[str] = []

    def log(value: str, store: MongoDBStore) -> None:
        if not _is_refused(store, run_id, Param("rate", value)):
            won.append(value)

    at_once([partial(log, str(n), stores[n % 2]) for n in range(_RACERS)])
    stored = stores[1].get_run(run_id).data.params
    expect(won == [stored.get("rate")], f"The values {won} were accepted, and {stored} is stored.")
    return f"Of {_RACERS} threads of two clients one set the param, and the others were told."


def _racing_metrics(trial: Trial) -> str:
    stores = [trial.tracking(f"conformance {n}") for n in range(2)]
    run_id = _new_run(stores[0], "racing metrics")

    def log(writer: int) -> None:
        for n in range(20):
            step = writer * 1000 + n
            stores[writer % 2].log_metric(run_id, Metric("loss", float(step), step, step))

    at_once([partial(log, writer) for writer in range(_RACERS)])
    steps = [each.step for each in stores[0].get_metric_history(run_id, "loss")]
    expect(len(steps) == len(set(steps)) == _RACERS * 20, f"Of {_RACERS * 20} points {len(steps)} are there.")
    latest = stores[1].get_run(run_id).data.metrics["loss"]
    expect(latest == max(steps), f"The latest point is {latest} and not {max(steps)}.")
    return f"{len(steps)} points of {_RACERS} threads of two clients, each once; the latest is the latest."


def _registry(trial: Trial) -> str:
    registry = trial.registry()
    registry.create_registered_model("model", [RegisteredModelTag("team", "a")], "for a test")
    for n in range(3):
        registry.create_model_version("model", f"s3://bucket/{n}", tags=[ModelVersionTag("n", str(n))])
    registry.set_registered_model_alias("model", "best", "2")
    registry.transition_model_version_stage("model", "1", "Production", False)
    registry.transition_model_version_stage("model", "3", "Production", True)
    best = registry.get_model_version_by_alias("model", "best").version
    expect(str(best) == "2", f"The alias names version {best}.")
    stages = [registry.get_model_version("model", str(n)).current_stage for n in (1, 2, 3)]
    expect(stages == ["Archived", "None", "Production"], f"The stages are {stages}.")
    versions = [each.version for each in registry.search_model_versions("name = 'model' AND tags.n = '1'")]
    expect([str(each) for each in versions] == ["2"], f"A search of versions found {versions}.")
    registry.rename_registered_model("model", "renamed")
    names = [each.name for each in registry.search_registered_models("name LIKE 'ren%' AND tags.team = 'a'")]
    expect(names == ["renamed"], f"A search of models found {names}.")
    registry.delete_model_version("renamed", "2")
    registry.delete_registered_model("renamed")
    expect(not registry.search_registered_models(), "The model stayed.")
    expect(not registry.search_model_versions(), "Versions of the model stayed.")
    return "A model with versions, aliases, stages, tags and a new name; searched and deleted."


def _logged_models(trial: Trial) -> str:
    store = trial.tracking()
    experiment = store.create_experiment("logged models")
    model = store.create_logged_model(experiment, "m", params=[LoggedModelParameter("depth", "3")])
    run_id = store.create_run(experiment, "me", _BEGUN, [], None).info.run_id
    store.log_batch(run_id, [Metric("score", 0.5, 1, 1, model_id=model.model_id)], [], [])
    store.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    order = [{"field_name": "metrics.score", "ascending": False}]
    models = store.search_logged_models(
        [experiment], "params.depth = '3' AND metrics.score > 0.4", order_by=order
    )
    expect([each.model_id for each in models] == [model.model_id], "A search did not find the model.")
    expect([each.value for each in models[0].metrics or []] == [0.5], "The model has not its metric.")
    store.delete_logged_model(model.model_id)
    expect(not store.search_logged_models([experiment]), "The model stayed.")
    return "Made, measured, searched by param and metric, deleted."


def _traces(trial: Trial) -> str:
    store = trial.tracking()
    experiment = store.create_experiment("traces")
    ids = [f"tr-{n + 1:032x}" for n in range(_TRACES)]
    for n, trace_id in enumerate(ids):
        store.log_spans(experiment, [_span(trace_id, 1, n), _span(trace_id, 2, n, parent=1)])
    store.set_trace_tag(ids[0], "kind", "odd")
    store.create_assessment(Feedback(name="good", value=True, trace_id=ids[1]))

    def traces_found(filter_string: str) -> list[int]:
        traces, _ = store.search_traces([experiment], filter_string, order_by=["timestamp_ms ASC"])
        return [ids.index(trace.trace_id) for trace in traces]

    cases = [
        ("", list(range(_TRACES))),
        ("tags.kind = 'odd'", [0]),
        ("feedback.good = 'true'", [1]),
        ("span.name LIKE 'step 2%'", list(range(_TRACES))),
        (f"timestamp_ms > {_BEGUN + 3000}", [4, 5]),
    ]
    for filter_string, wanted in cases:
        seen = traces_found(filter_string)
        expect(seen == wanted, f"{filter_string!r} found traces {seen} and not {wanted}.")
    (trace,) = store.batch_get_traces([ids[2]], None)
    names = sorted(each.name for each in trace.data.spans)
    expect(names == ["step 1 of 2", "step 2 of 2"], f"The trace has the spans {names}.")
    store.delete_traces(experiment, trace_ids=ids[:2])
    expect(traces_found("") == [2, 3, 4, 5], "Deleted traces stayed, or others went.")
    return f"{_TRACES} traces of two spans, {len(cases)} filters, tags, assessments, deletion."


def _percentiles(trial: Trial) -> str:
    store = trial.tracking()
    experiment = store.create_experiment("sums")
    for n in range(5):
        store.log_spans(experiment, [_span(f"tr-{n + 100:032x}", 1, n, milliseconds=10 * (n + 1))])
    asked = [
        MetricAggregation(AggregationType.AVG),
        MetricAggregation(AggregationType.PERCENTILE, 50),
    ]
    # A second time from the sums that the first one may have kept.
    for _ in range(2):
        (point,) = store.query_trace_metrics([experiment], MetricViewType.TRACES, "latency", asked)
        values = {name: float(value) for name, value in point.values.items()}
        expect(values == {"AVG": 30, "P50": 30}, f"Five traces gave {values}.")
    return "Average and median of latencies."


def _evaluation(trial: Trial) -> str:
    store = trial.tracking()
    dataset = store.create_dataset("questions", {"k": "v"}, [_DEFAULT_EXPERIMENT])
    rows = [{"inputs": {"q": str(n)}, "expectations": {"a": n}} for n in range(5)]
    store.upsert_dataset_records(dataset.dataset_id, rows)
    again = store.upsert_dataset_records(dataset.dataset_id, [{**rows[0], "expectations": {"b": 1}}])
    expect(again == {"inserted": 0, "updated": 1}, f"A record that came again gave {again}.")
    records, _ = store._load_dataset_records(dataset.dataset_id)
    expect(len(records) == 5, f"{len(records)} records are there and not 5.")
    (first,) = [record for record in records if record.inputs == {"q": "0"}]
    expect(first.expectations == {"a": 0, "b": 1}, f"A record that came again is {first.expectations}.")
    datasets = store.search_datasets([_DEFAULT_EXPERIMENT], filter_string="tags.k = 'v'")
    expect([each.dataset_id for each in datasets] == [dataset.dataset_id], "A search lacks the dataset.")
    store.delete_dataset(dataset.dataset_id)
    expect(not store.search_datasets([_DEFAULT_EXPERIMENT]), "The dataset stayed.")
    return "A dataset with five records, one of them merged; searched and deleted."


def _new_run(store: MongoDBStore, experiment: str) -> str:
    run_id: str = store.create_run(store.create_experiment(experiment), "me", _BEGUN, [], None).info.run_id
    return run_id


def _span(trace_id: str, number: int, second: int, parent: int | None = None, milliseconds: int = 10) -> Span:
    begun = (_BEGUN + second * 1000) * 1_000_000
    fields: dict[str, Any] = {
        "trace_id": trace_id,
        "span_id": f"{number:016x}",
        "parent_span_id": None if parent is None else f"{parent:016x}",
        "name": f"step {number} of {second}",
        "start_time_unix_nano": begun,
        "end_time_unix_nano": begun + milliseconds * 1_000_000,
        "attributes": {"mlflow.traceRequestId": json.dumps(trace_id)},
        "status": {"code": "STATUS_CODE_OK", "message": ""},
        "events": [],
    }
    return Span.from_dict(fields)


CHECKS = (
    Check("schema", _schema),
    Check("runs", _runs),
    Check("metrics", _metrics),
    Check("search", _search),
    Check("views", _views),
    Check("racing params", _racing_params),
    Check("racing metrics", _racing_metrics),
    Check("registry", _registry),
    Check("logged models", _logged_models),
    Check("traces", _traces),
    Check("percentiles", _percentiles),
    Check("evaluation", _evaluation),
)
