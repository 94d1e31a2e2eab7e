"""What people and judges leave in MLflow's SQL store: questions, review queues, issues, scorers."""

import json
from typing import Any

from mlflow.entities import GatewayEndpointModelConfig, GatewayModelLinkageType
from mlflow.entities.assessment import IssueReference
from mlflow.entities.issue import IssueSeverity, IssueStatus
from mlflow.genai.label_schemas import InputCategorical, InputNumeric, InputPassFail, InputText
from mlflow.genai.label_schemas.label_schemas import LabelSchemaType
from mlflow.genai.review_queues import ReviewQueueType
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.importing.stores import plain
from tests.versions import SINCE_3_18

TABLES = (
    *("label_schemas", "review_queues", "review_queue_users", "review_queue_label_schemas"),
    *("review_queue_items", "issues", "scorers", "scorer_versions", "online_scoring_configs"),
    "endpoint_bindings",
)


def judge(model: str | None, name: str = "judge") -> str:
    data = {"instructions": "Is {{ outputs }} fine?", "model": model} if model else {"a": 1}
    return json.dumps({"name": name, "instructions_judge_pydantic_data": data}, separators=(",", ":"))


def fill(store: SqlAlchemyStore) -> None:
    """Several of each, in two experiments, with every field that the installed MLflow can set."""
    traces = [trace.trace_id for trace in store.search_traces(locations=["1"])[0]]
    run = store.search_runs(["1"], "", 1)[0].info.run_id
    for number in ("1", "2"):
        store.list_label_schemas(number)  # makes the default question
        _fill_queues(store, number, _questions(store, number), traces)
        _fill_issues(store, number, traces, run if number == "1" else None)
    _fill_scorers(store)


def _questions(store: Any, number: str) -> list[str]:
    kinds = {
        "Good ü": InputPassFail(positive_label="Yes.", negative_label="$No"),
        "which": InputCategorical(options=["a", "b"], multi_select=True),
        "How Much": InputNumeric(min_value=0.0, max_value=1.5),
        "say": InputText(max_length=100),
    }
    return [
        store.create_label_schema(
            number,
            name=name,
            type=LabelSchemaType.FEEDBACK if name != "say" else LabelSchemaType.EXPECTATION,
            input=kind,
            instruction=None if name == "which" else f"Tell {name}",
            enable_comment=name == "say",
        ).schema_id
        for name, kind in kinds.items()
    ]


def _fill_queues(store: Any, number: str, questions: list[str], traces: list[str]) -> None:
    default = store.get_label_schema_by_name(number, "Feedback").schema_id
    queue = store.create_review_queue(
        number,
        name=" Team A ",
        queue_type=ReviewQueueType.CUSTOM,
        created_by="boss",
        users=["Zoe", "adam"],
        schema_ids=[*questions[:2], default],
    )
    store.add_items_to_review_queue(queue.queue_id, item_ids=[*traces[:3], "tr-gone"])
    store.set_review_queue_item_status(
        queue.queue_id, item_id=traces[0], status="complete", completed_by="Zoe"
    )
    store.set_review_queue_item_status(
        queue.queue_id, item_id=traces[1], status="declined", completed_by="adam"
    )
    own = store.get_or_create_user_queue(number, user="Adam")
    store.add_items_to_review_queue(own.queue_id, item_ids=traces[:1])
    store.create_review_queue(number, name="empty", queue_type=ReviewQueueType.CUSTOM)


def _fill_issues(store: Any, number: str, traces: list[str], run: str | None) -> None:
    more: dict[str, Any] = {}
    if SINCE_3_18:
        more = {"last_seen_timestamp": 1_700_000_000_000, "metadata": {"a.b$": "1", "plain": "ü"}}
    issue = store.create_issue(
        number,
        "Slow Ü",
        "too slow",
        status=IssueStatus.RESOLVED,
        severity=IssueSeverity.HIGH,
        root_causes=["net", "net"],
        source_run_id=run,
        categories=[" Cost", "cost", "x"],
        created_by="me",
        **more,
    )
    store.create_issue(number, "bare", "", severity=None)
    for trace in traces[:2]:
        store.create_assessment(IssueReference(issue_id=issue.issue_id, issue_name="slow", trace_id=trace))
    if SINCE_3_18:
        store.update_issue(issue.issue_id, last_updated_by="you", categories=["B", "x"])
        emptied = store.create_issue(number, "emptied", "e", metadata={"k": "v"})
        store.update_issue(emptied.issue_id, delete_metadata_keys=["k"])


def _fill_scorers(store: Any) -> None:
    secret = store.create_gateway_secret("key", {"api_key": "x" * 20}, provider="openai")
    model = store.create_gateway_model_definition("model", secret.secret_id, "openai", "gpt")
    config = GatewayEndpointModelConfig(model.model_definition_id, GatewayModelLinkageType.PRIMARY)
    endpoint = store.create_gateway_endpoint("chat", [config], usage_tracking=False)
    for number in ("1", "2"):
        for model_uri in ("openai:/gpt", "gateway:/chat"):
            store.register_scorer(number, "judge", judge(model_uri))
        store.register_scorer(number, "Plain ü", judge(None, "plain"))
        store.upsert_online_scoring_config(number, "judge", 0.25, "status = 'OK'")
        store.upsert_online_scoring_config(number, "Plain ü", 0, None)
        store.register_scorer(number, "emptied", judge(None))
        store.delete_scorer(number, "emptied", 1)
    assert store.list_endpoint_bindings(endpoint_id=endpoint.endpoint_id)


def people_state(store: Any, numbers: tuple[str, ...] = ("1", "2")) -> dict[str, Any]:
    """Everything that a store answers of what people and judges left."""
    state: dict[str, Any] = {}
    for number in numbers:
        schemas, queues = store.list_label_schemas(number), store.list_review_queues(number)
        scorers = store.list_scorers(number)
        ids = [scorer.scorer_id for scorer in scorers]
        state[number] = {
            "schemas": plain(list(schemas)),
            "queues": plain(list(queues)),
            "items": {queue.queue_id: plain(_items(store, queue.queue_id)) for queue in queues},
            "issues": plain(list(store.search_issues(number, include_trace_count=True))),
            "scorers": [_scorer(scorer) for scorer in scorers],
            "versions": [
                _scorer(version)
                for scorer in scorers
                for version in store.list_scorer_versions(number, scorer.scorer_name)
            ],
            "latest": [_scorer(store.get_scorer(number, scorer.scorer_name)) for scorer in scorers],
            "online": {each.scorer_id: vars(each) for each in store.get_online_scoring_configs(ids)},
        }
    return state


def _items(store: Any, queue_id: str) -> list[Any]:
    return list(store.list_review_queue_items(queue_id))


def _scorer(version: Any) -> dict[str, Any]:
    return {name.lstrip("_"): value for name, value in vars(version).items()}
