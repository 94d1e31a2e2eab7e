"""Every public call of both stores, once, with arguments that make it do its work."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mlflow.entities import (
    Dataset,
    DatasetInput,
    ExperimentTag,
    Feedback,
    GatewayEndpointModelConfig,
    GatewayEndpointTag,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelParameter,
    LoggedModelStatus,
    LoggedModelTag,
    Metric,
    Param,
    RunStatus,
    RunTag,
    ViewType,
)
from mlflow.entities.gateway_budget_policy import (
    BudgetAction,
    BudgetDuration,
    BudgetDurationUnit,
    BudgetTargetScope,
    BudgetUnit,
)
from mlflow.entities.gateway_endpoint import GatewayModelLinkageType
from mlflow.entities.gateway_guardrail import GuardrailAction, GuardrailStage
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.entities.trace_status import TraceStatus
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent
from mlflow.genai.label_schemas import InputText
from mlflow.genai.label_schemas.label_schemas import LabelSchemaType
from mlflow.genai.review_queues import ReviewQueueType, ReviewStatus
from mlflow.models import Model

from tests.contract.trace_scenes import STARTED, span, stated, trace_id
from tests.versions import SINCE_3_18

Call = Callable[..., Awaitable[Any]]
EVENT = WebhookEvent(WebhookEntity.REGISTERED_MODEL, WebhookAction.CREATED)


async def most(track: Call, register: Call, folder: Path) -> Any:
    """All but webhooks and links to prompts; returns a prompt that is still there."""
    await runs(track)
    await datasets(track)
    await registered_models(register)
    prompt = await prompts(register)
    await traces(track, prompt, folder)
    await reviews(track)
    await issues(track)
    await scorers(track)
    await gateway(track)
    return prompt


async def runs(call: Call) -> None:
    experiment = await call("create_experiment", "e", tags=[ExperimentTag("a", "b")])
    await call("get_experiment", experiment)
    await call("get_experiment_by_name", "e")
    await call("search_experiments", ViewType.ALL)
    await call("set_experiment_tag", experiment, ExperimentTag("k", "v"))
    await call("delete_experiment_tag", experiment, "k")
    await call("rename_experiment", experiment, "renamed")
    await call("filter_active_experiment_ids", [experiment])
    run_id = (await call("create_run", experiment, "me", 1, [], "name")).info.run_id
    await call("get_run", run_id)
    await call("update_run_info", run_id, RunStatus.RUNNING, None, "other name")
    await call("log_param", run_id, Param("lr", "1"))
    await call("log_metric", run_id, Metric("loss", 1.0, 1, 1))
    await call("log_batch", run_id, [Metric("loss", 2.0, 2, 2)], [Param("p", "1")], [RunTag("t", "1")])
    await call("set_tag", run_id, RunTag("k", "v"))
    await call("delete_tag", run_id, "k")
    await call("get_metric_history", run_id, "loss")
    await call("get_metric_history_bulk", [run_id], "loss", 10)
    await call("get_metric_history_bulk_interval", [run_id], "loss", 10, 0, 5)
    await call("get_metric_history_bulk_interval_from_steps", run_id, "loss", [1], 10)
    await call("log_inputs", run_id, [DatasetInput(Dataset("d", "1", "local", "here"), [])])
    await call("_search_datasets", [experiment])
    await call("_search_runs", [experiment], "metrics.loss > 0", ViewType.ALL, 10, None, None)
    await call("record_logged_model", run_id, Model(artifact_path="m", run_id=run_id))
    await models(call, experiment, run_id)
    await call("delete_run", run_id)
    await call("restore_run", run_id)
    await call("delete_run", run_id)
    await call("_get_deleted_runs", 0)
    await call("_hard_delete_run", run_id)
    await call("delete_experiment", experiment)
    await call("restore_experiment", experiment)
    await call("delete_experiment", experiment)
    await call("_hard_delete_experiment", experiment)


async def models(call: Call, experiment: str, run_id: str) -> None:
    model_id = (await call("create_logged_model", experiment, "m")).model_id
    await call("get_logged_model", model_id)
    await call("search_logged_models", [experiment])
    await call("log_logged_model_params", model_id, [LoggedModelParameter("k", "v")])
    await call("set_logged_model_tags", model_id, [LoggedModelTag("k", "v")])
    await call("delete_logged_model_tag", model_id, "k")
    await call("finalize_logged_model", model_id, LoggedModelStatus.READY)
    await call("log_inputs", run_id, models=[LoggedModelInput(model_id)])
    await call("log_outputs", run_id, [LoggedModelOutput(model_id, 0)])
    await call("delete_logged_model", model_id)
    await call("_get_deleted_logged_models", 0)
    await call("_hard_delete_logged_model", model_id)


async def datasets(call: Call) -> None:
    dataset_id = (await call("create_dataset", "d", {"k": "v"}, ["0"])).dataset_id
    experiment = await call("create_experiment", "second")
    await call("get_dataset", dataset_id)
    await call("search_datasets", ["0"])
    await call("set_dataset_tags", dataset_id, {"a": "b"})
    await call("delete_dataset_tag", dataset_id, "a")
    await call("upsert_dataset_records", dataset_id, [{"inputs": {"q": "1"}}])
    records, _ = await call("_load_dataset_records", dataset_id)
    await call("delete_dataset_records", dataset_id, [records[0].dataset_record_id])
    await call("add_dataset_to_experiments", dataset_id, [experiment])
    await call("get_dataset_experiment_ids", dataset_id)
    await call("search_entities_by_source", dataset_id, "evaluation_dataset", "experiment")
    await call("search_entities_by_destination", experiment, "experiment", "evaluation_dataset")
    await call("remove_dataset_from_experiments", dataset_id, [experiment])
    await call("delete_dataset", dataset_id)


async def reviews(call: Call) -> None:
    experiment = await call("create_experiment", "reviewed")
    made = await call(
        "create_label_schema", experiment, name="l", type=LabelSchemaType.FEEDBACK, input=InputText()
    )
    await call("get_label_schema", made.schema_id)
    await call("list_label_schemas", experiment)
    await call("get_label_schema_by_name", experiment, "l")
    await call("update_label_schema", made.schema_id, name="m")
    queue = await call(
        "create_review_queue",
        experiment,
        name="q",
        queue_type=ReviewQueueType.CUSTOM,
        created_by="me",
        users=["ann"],
        schema_ids=[made.schema_id],
    )
    await call("get_or_create_user_queue", experiment, user="ann")
    await call("get_review_queue", queue.queue_id)
    await call("get_review_queue_by_name", experiment, name="q")
    await call("list_review_queues", experiment, user="ann")
    await call("update_review_queue", queue.queue_id, users=["bob"], schema_ids=[], new_owner="you")
    await call("add_items_to_review_queue", queue.queue_id, item_ids=["i"])
    await call("list_review_queue_items", queue.queue_id)
    await call(
        "set_review_queue_item_status",
        queue.queue_id,
        item_id="i",
        status=ReviewStatus.COMPLETE,
        completed_by="ann",
    )
    await call("remove_items_from_review_queue", queue.queue_id, item_ids=["i"])
    await call("delete_review_queue", queue.queue_id)
    await call("delete_label_schema", made.schema_id)


async def issues(call: Call) -> None:
    newer: dict[str, Any] = {"metadata": {"k": "v"}, "last_seen_timestamp": 5} if SINCE_3_18 else {}
    made = await call("create_issue", "0", "i", "d", created_by="me", categories=["c"], **newer)
    await call("get_issue", made.issue_id)
    await call("search_issues", "0", include_trace_count=True)
    await call("update_issue", made.issue_id, name="j", **newer)


async def traces(call: Call, prompt: Any, folder: Path) -> None:
    one, two, three = (trace_id(number) for number in (1, 2, 3))
    await call("start_trace", stated(one))
    await call("log_spans", "0", [span(one, 1), span(one, 2, 1)])
    await call("get_trace_info", one)
    await call("get_trace", one)
    await call("batch_get_traces", [one], None)
    await call("batch_get_trace_infos", [one], None)
    await call("search_traces", ["0"])
    await call("calculate_trace_filter_correlation", ["0"], "status = 'OK'", "status = 'ERROR'")
    counted = [MetricAggregation(AggregationType.COUNT)]
    await call("query_trace_metrics", ["0"], MetricViewType.TRACES, "trace_count", counted)
    await call("find_completed_sessions", "0", 0, STARTED * 2)
    await call("set_trace_tag", one, "k", "v")
    await call("delete_trace_tag", one, "k")
    run_id = (await call("create_run", "0", "me", 1, [], "traced")).info.run_id
    await call("link_traces_to_run", [one], run_id)
    await call("unlink_traces_from_run", [one], run_id)
    await call("link_prompts_to_trace", one, [prompt])
    made = await call("create_assessment", Feedback(name="good", value=True, trace_id=one))
    await call("get_assessment", one, made.assessment_id)
    await call("update_assessment", one, made.assessment_id, rationale="because")
    await call("delete_assessment", one, made.assessment_id)
    old = await call("deprecated_start_trace_v2", "0", STARTED, {}, {})
    await call("deprecated_end_trace_v2", old.request_id, STARTED + 1, TraceStatus.OK, {}, {})
    place = f"file://{folder}"
    await call("archive_traces", resolved_trace_archival_location=place, broader_retention="1d")
    await call("start_trace", stated(two))
    await call("start_trace", stated(three))
    await call("delete_traces", "0", trace_ids=[two])
    await call("_delete_traces", "0", trace_ids=[three])


async def gateway(call: Call) -> None:
    secret = (await call("create_gateway_secret", "k", {"api_key": "sk-1234567890"})).secret_id
    await call("get_secret_info", secret)
    await call("list_secret_infos")
    await call("update_gateway_secret", secret, {"api_key": "sk-0987654321"})
    await call("_get_decrypted_secret", secret)
    model = (await call("create_gateway_model_definition", "m", secret, "openai", "x")).model_definition_id
    await call("get_gateway_model_definition", model)
    await call("list_gateway_model_definitions")
    await call("update_gateway_model_definition", model, "other")
    primary, fallback = (GatewayEndpointModelConfig(model, kind) for kind in GatewayModelLinkageType)
    endpoint = (await call("create_gateway_endpoint", "chat", [primary])).endpoint_id
    await call("get_gateway_endpoint", endpoint)
    await call("list_gateway_endpoints")
    await call("_resolve_gateway_endpoint", "chat")
    await call("attach_model_to_endpoint", endpoint, fallback)
    await call("detach_model_from_endpoint", endpoint, model, "FALLBACK")
    await call("update_gateway_endpoint", endpoint, "renamed")
    await call("set_gateway_endpoint_tag", endpoint, GatewayEndpointTag("k", "v"))
    await call("delete_gateway_endpoint_tag", endpoint, "k")
    await call("create_endpoint_binding", endpoint, "scorer", "x")
    await call("list_endpoint_bindings", endpoint)
    await call("delete_endpoint_binding", endpoint, "scorer", "x")
    await gateway_rules(call, endpoint)
    await call("delete_gateway_endpoint", endpoint)
    await call("delete_gateway_model_definition", model)
    await call("delete_gateway_secret", secret)


async def gateway_rules(call: Call, endpoint: str) -> None:
    day = BudgetDuration(BudgetDurationUnit.DAYS, 1)
    aim = (BudgetTargetScope.GLOBAL, BudgetAction.REJECT)
    budget = (await call("create_budget_policy", BudgetUnit.USD, 1.0, day, *aim)).budget_policy_id
    await call("get_budget_policy", budget)
    await call("list_budget_policies")
    await call("list_budget_policies_across_workspaces")
    await call("update_budget_policy", budget, budget_amount=2.0)
    await call("sum_gateway_trace_cost", 0, 1)
    await call("delete_budget_policy", budget)
    text = '{"third_party_scorer_data": {"model": "openai:/gpt-4"}}'
    scorer = (await call("register_scorer", "0", "rule", text)).scorer_id
    how = (GuardrailStage.BEFORE, GuardrailAction.VALIDATION)
    guardrail = (await call("create_gateway_guardrail", "g", scorer, 1, *how)).guardrail_id
    await call("get_gateway_guardrail", guardrail)
    await call("list_gateway_guardrails")
    await call("add_guardrail_to_endpoint", endpoint, guardrail)
    await call("update_endpoint_guardrail_config", endpoint, guardrail, 1)
    await call("list_endpoint_guardrail_configs", endpoint)
    await call("remove_guardrail_from_endpoint", endpoint, guardrail)
    await call("delete_gateway_guardrail", guardrail)


async def scorers(call: Call) -> None:
    text = '{"third_party_scorer_data": {"model": "openai:/gpt-4"}}'
    version = await call("register_scorer", "0", "s", text)
    await call("register_scorer", "0", "s", text)
    await call("get_scorer", "0", "s", 1)
    await call("list_scorers", "0")
    await call("list_scorers_across_experiments", ["0"])
    await call("list_scorer_versions", "0", "s")
    await call("resolve_endpoint_in_scorer", version)
    await call("upsert_online_scoring_config", "0", "s", 0.0, "status = 'OK'")
    await call("get_online_scoring_configs", [version.scorer_id])
    await call("get_active_online_scorers")
    await call("delete_scorer", "0", "s", 1)
    await call("delete_scorer", "0", "s")


async def registered_models(call: Call) -> None:
    await call("create_registered_model", "m", [RegisteredModelTag("a", "b")])
    await call("get_registered_model", "m")
    await call("update_registered_model", "m", "described")
    await call("set_registered_model_tag", "m", RegisteredModelTag("k", "v"))
    await call("delete_registered_model_tag", "m", "k")
    await call("search_registered_models")
    version = await call("create_model_version", "m", "s3://bucket/model")
    await call("get_model_version", "m", 1)
    await call("get_model_version_download_uri", "m", 1)
    await call("update_model_version", "m", 1, "described")
    await call("set_model_version_tag", "m", 1, ModelVersionTag("k", "v"))
    await call("delete_model_version_tag", "m", 1, "k")
    await call("search_model_versions")
    await call("get_latest_versions", "m")
    await call("transition_model_version_stage", "m", 1, "Staging", False)
    await call("set_registered_model_alias", "m", "best", 1)
    await call("get_model_version_by_alias", "m", "best")
    await call("delete_registered_model_alias", "m", "best")
    await call("copy_model_version", version, "copy")
    await call("rename_registered_model", "m", "n")
    await call("delete_model_version", "n", 1)
    await call("delete_registered_model", "n")


async def prompts(call: Call) -> Any:
    await call("create_prompt", "p")
    await call("get_prompt", "p")
    await call("search_prompts")
    await call("set_prompt_tag", "p", "k", "v")
    await call("delete_prompt_tag", "p", "k")
    made = await call("create_prompt_version", "p", "say {{what}}")
    await call("get_prompt_version", "p", 1)
    await call("search_prompt_versions", "p")
    await call("set_prompt_alias", "p", "best", 1)
    await call("get_prompt_version_by_alias", "p", "best")
    await call("delete_prompt_alias", "p", "best")
    await call("set_prompt_version_tag", "p", 1, "k", "v")
    await call("delete_prompt_version_tag", "p", 1, "k")
    return made


async def prompt_links(call: Call, run_id: str, model_id: str, trace: str, prompt: Any) -> None:
    await call("link_prompt_version_to_run", "p", "1", run_id)
    await call("link_prompt_version_to_model", "p", "1", model_id)
    await call("link_prompts_to_trace", [prompt], trace)
    await call("delete_prompt_version", "p", 1)
    await call("delete_prompt", "p")


async def webhooks(call: Call, url: str) -> None:
    webhook_id = (await call("create_webhook", "w", url, [EVENT])).webhook_id
    await call("get_webhook", webhook_id)
    await call("list_webhooks")
    await call("list_webhooks_by_event", EVENT)
    await call("test_webhook", webhook_id)
    await call("update_webhook", webhook_id, name="other")
    await call("delete_webhook", webhook_id)
