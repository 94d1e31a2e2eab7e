"""Everything that a pair of MLflow stores answers, in plain values that can be compared."""

import math
from enum import Enum
from typing import Any

from mlflow.entities import ViewType
from mlflow.entities._mlflow_object import _MlflowObject
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent

from tests.contract.policy import fields_of, is_entity

SPANS_LOCATION = "mlflow.trace.spansLocation"
# What MLflow's SQL store keeps for infinity.
HUGE = 1.7976931348623157e308
# Lists that SQL selects without an order.
_UNORDERED = {
    "aliases",
    "assessments",
    "dataset_inputs",
    "events",
    "latest_versions",
    "metrics",
    "model_inputs",
    "model_outputs",
    "tags",
}
# Asked for on their own; and what names the store instead of the thing.
_LEFT_OUT = {"experiment_ids", "records", "last_registered_model_version"}


def plain(value: Any, name: str = "") -> Any:
    """An entity as nested values, with every public field."""
    if isinstance(value, Enum):
        return value.value
    if is_entity(value) or isinstance(value, _MlflowObject):
        fields = {key: plain(each, key) for key, each in fields_of(value).items() if key not in _LEFT_OUT}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        values = [plain(each) for each in value]
        return sorted(values, key=repr) if name in _UNORDERED else values
    if isinstance(value, float):
        return _number(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _number(value: float) -> Any:
    if math.isnan(value):
        return "nan"
    if abs(value) >= HUGE:
        return math.copysign(math.inf, value)
    return value


def tracking_state(store: Any) -> dict[str, Any]:
    experiments = store.search_experiments(ViewType.ALL, max_results=1000)
    ids = sorted((each.experiment_id for each in experiments), key=int)
    state: dict[str, Any] = {
        "experiments": {each.experiment_id: plain(each) for each in experiments},
        "runs": {},
        "histories": {},
        "datasets": sorted((plain(each) for each in store._search_datasets(ids)), key=repr),
    }
    runs = _pages(store.search_runs, ids, "", ViewType.ALL, max_results=1000)
    state["order of runs"] = [run.info.run_id for run in runs]
    for run in runs:
        run_id = run.info.run_id
        state["runs"][run_id] = plain(store.get_run(run_id))
        for key in run.data.metrics:
            history = [plain(point) for point in _pages(store.get_metric_history, run_id, key)]
            # Two stores may order points of one time and step otherwise.
            state["histories"][run_id, key] = sorted(history, key=repr)
    state["deleted runs"] = sorted(store._get_deleted_runs())
    state["models"] = plain(_pages(store.search_logged_models, ids))
    return state


def genai_state(store: Any) -> dict[str, Any]:
    experiments = store.search_experiments(ViewType.ALL, max_results=1000)
    ids = sorted((each.experiment_id for each in experiments), key=int)
    traces = _pages(store.search_traces, ids, max_results=500)
    state: dict[str, Any] = {
        "order of traces": [trace.trace_id for trace in traces],
        "traces": {trace.trace_id: plain(store.get_trace_info(trace.trace_id)) for trace in traces},
        "spans": {},
        "assessments": {},
        "evaluation": {},
    }
    here = [trace.trace_id for trace in traces if trace.tags.get(SPANS_LOCATION) == "TRACKING_STORE"]
    for trace in store.batch_get_traces(here):
        spans = [span.to_dict() for span in trace.data.spans]
        state["spans"][trace.info.trace_id] = sorted(spans, key=lambda span: str(span["span_id"]))
    for dataset in _pages(store.search_datasets):
        records, _ = store._load_dataset_records(dataset.dataset_id)
        state["evaluation"][dataset.dataset_id] = {
            "dataset": plain(dataset),
            "records": {record.dataset_record_id: plain(record) for record in records},
            "experiments": sorted(store.get_dataset_experiment_ids(dataset.dataset_id)),
        }
    runs = _pages(store.search_runs, ids, "", ViewType.ALL, max_results=1000)
    state["by run"] = {
        run.info.run_id: sorted(
            each.trace_id
            for each in _pages(store.search_traces, ids, f"attributes.run_id = '{run.info.run_id}'")
        )
        for run in runs
    }
    linked = _pages(store.search_traces, ids, "prompt = 'greeting/1'")
    state["by prompt"] = sorted(trace.trace_id for trace in linked)
    return state


def registry_state(store: Any, *, with_webhooks: bool = True) -> dict[str, Any]:
    models = [*_pages(store.search_registered_models, max_results=1000), *_prompts(store)]
    state: dict[str, Any] = {"models": {}, "versions": {}, "aliases": {}, "latest": {}}
    for model in models:
        state["models"][model.name] = plain(store.get_registered_model(model.name))
        state["latest"][model.name] = plain(store.get_latest_versions(model.name), "latest_versions")
        of_model = f"name = '{model.name}'"
        for version in _pages(store.search_model_versions, of_model, max_results=1000):
            name, number = version.name, version.version
            state["versions"][name, int(number)] = [
                plain(store.get_model_version(name, number)),
                store.get_model_version_download_uri(name, number),
            ]
        for alias in _aliases(store.get_registered_model(model.name)):
            state["aliases"][model.name, alias] = plain(store.get_model_version_by_alias(model.name, alias))
    if not with_webhooks:
        return state
    webhooks = [plain(each) for each in store.list_webhooks()]
    event = WebhookEvent(WebhookEntity.REGISTERED_MODEL, WebhookAction.CREATED)
    # Ours tells secrets only to those who deliver.
    secrets = {each.webhook_id: each.secret for each in store.list_webhooks_by_event(event)}
    state["webhooks"] = sorted((each | {"secret": "hidden"} for each in webhooks), key=repr)
    state["secrets"] = secrets
    return state


def _prompts(store: Any) -> list[Any]:
    return _pages(store.search_registered_models, "tag.`mlflow.prompt.is_prompt` = 'true'", max_results=1000)


def _aliases(model: Any) -> list[str]:
    aliases = model.aliases
    return sorted(aliases if isinstance(aliases, dict) else (alias.alias for alias in aliases))


def _pages(search: Any, *args: Any, **kwargs: Any) -> list[Any]:
    found, token = [], None
    while True:
        page = search(*args, **kwargs, page_token=token)
        entries, token = page if isinstance(page, tuple) else (page, page.token)
        found += entries
        if not token:
            return found


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """The places where two states differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in {**ours, **theirs}:
            found += differences(ours.get(key, "missing"), theirs.get(key, "missing"), f"{where}.{key}")
        return found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        found = []
        for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            found += differences(one, other, f"{where}[{at}]")
        return found
    return [] if ours == theirs else [f"{where}: {ours!r} instead of {theirs!r}"]
