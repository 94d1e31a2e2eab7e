"""A walk through every writing method of both stores, each step a call that leaves something behind.

The steps are the same each time, ids and times apart, so what a database holds afterwards can be compared.
"""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pymongo
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Expectation,
    ExperimentTag,
    Feedback,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelParameter,
    LoggedModelStatus,
    LoggedModelTag,
    Metric,
    Param,
    RunStatus,
    RunTag,
)
from mlflow.entities.model_registry import ModelVersionTag, PromptVersion, RegisteredModelTag
from mlflow.entities.webhook import WebhookEvent
from mlflow.genai.label_schemas import InputText
from mlflow.genai.label_schemas.label_schemas import LabelSchemaType
from mlflow.genai.review_queues import ReviewQueueType, ReviewStatus
from pymongo.database import Database

from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.areas.metrics.points import Point, distinct, unpack
from genesis_flow.documents.keys import children_of
from tests.contract.trace_scenes import STARTED, span, stated, trace_id
from tests.threads import InThreads
from tests.versions import SINCE_3_18

ONE, TWO, THREE = (trace_id(number) for number in (1, 2, 3))
EVENT = WebhookEvent.from_str("prompt.created")


class World:
    """The stores, and the ids that the steps so far have been given."""

    def __init__(self, uri: str, artifacts: str) -> None:
        self.store = MongoDBStore(uri, artifacts)
        self.registry = MongoDBModelRegistryStore(uri)
        self.ids: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        return self.ids[name]

    async def close(self) -> None:
        await self.store.close()
        await self.registry.close()


class WorldOfThreads(World):
    """The same with a blocking tracking store."""

    def __init__(self, uri: str, artifacts: str) -> None:
        super().__init__(uri, artifacts)
        self.store: Any = InThreads(uri, artifacts)


Step = Callable[[World], Awaitable[Any]]
STEPS: dict[str, Step] = {}
# What a training does: calls that a blocking caller runs itself, and what they need.
TRAINING = (
    "create_experiment",
    "create_run",
    "log_metric_new",
    "log_metric_known",
    "log_param",
    "set_tag",
    "delete_tag",
    "log_batch",
    "log_batch_known",
    "fill_tail",
    "fill_tail_more",
    "pack_tail",
    "log_metric_second",
    "update_run_info",
    "create_logged_model",
    "log_spans",
    "log_more_spans",
    "start_trace",
    "log_spans_of_stated_trace",
    "log_spans_of_stated_trace_again",
    "merge_trace",
    "start_doomed_trace",
)


def step(function: Step) -> Step:
    STEPS[function.__name__] = function
    return function


def call(name: str, make: Step) -> None:
    STEPS[name] = make


def points(key: str, start: int, count: int) -> list[Metric]:
    return [Metric(key, number, STARTED + number, number) for number in range(start, start + count)]


@step
async def create_experiment(world: World) -> None:
    world.ids["experiment"] = await world.store.create_experiment("ours", tags=[ExperimentTag("a.b", "1")])
    world.ids["other"] = await world.store.create_experiment("other")


@step
async def create_run(world: World) -> None:
    for name in ("run", "second", "doomed"):
        run = await world.store.create_run(world["experiment"], "me", STARTED, [RunTag("t", "v")], name)
        world.ids[name] = run.info.run_id
    moved = await world.store.create_run(world["other"], "me", STARTED, [], "moved")
    world.ids["moved"] = moved.info.run_id


call("rename_experiment", lambda w: w.store.rename_experiment(w["experiment"], "renamed"))
call("set_experiment_tag", lambda w: w.store.set_experiment_tag(w["experiment"], ExperimentTag("t", "1")))
call("delete_experiment_tag", lambda w: w.store.delete_experiment_tag(w["experiment"], "a.b"))
call("log_metric_new", lambda w: w.store.log_metric(w["run"], Metric("m", 1, STARTED, 1)))
call("log_metric_known", lambda w: w.store.log_metric(w["run"], Metric("m", 2, STARTED + 1, 2)))
call("log_param", lambda w: w.store.log_param(w["run"], Param("p", "1")))
call("set_tag", lambda w: w.store.set_tag(w["run"], RunTag("t", "w")))
call("delete_tag", lambda w: w.store.delete_tag(w["run"], "t"))
call(
    "log_batch",
    lambda w: w.store.log_batch(
        w["run"],
        [*points("m", 3, 5), *points("n", 1, 5), *points("long", 1, 80)],
        [Param("q", "2"), Param("r.s", "3")],
        [RunTag("u", "x")],
    ),
)
call("log_batch_known", lambda w: w.store.log_batch(w["run"], points("m", 8, 3) + points("n", 6, 3), [], []))
call("fill_tail", lambda w: w.store.log_batch(w["run"], points("n", 9, 60), [], []))
call("fill_tail_more", lambda w: w.store.log_batch(w["run"], points("n", 69, 60), [], []))
call("pack_tail", lambda w: w.store.log_metric(w["run"], Metric("n", 129, STARTED + 129, 129)))
call("log_metric_second", lambda w: w.store.log_metric(w["second"], Metric("m", 9, STARTED, 9)))
call(
    "update_run_info",
    lambda w: w.store.update_run_info(w["run"], RunStatus.FINISHED, STARTED + 9, "new name"),
)


@step
async def create_logged_model(world: World) -> None:
    for name in ("model", "doomed model"):
        model = await world.store.create_logged_model(
            world["experiment"],
            name,
            world["run"],
            [LoggedModelTag("t", "1")],
            [LoggedModelParameter("p", "1")],
            "agent",
        )
        world.ids[name] = model.model_id


call(
    "finalize_logged_model",
    lambda w: w.store.finalize_logged_model(w["model"], LoggedModelStatus.READY),
)
call(
    "log_logged_model_params",
    lambda w: w.store.log_logged_model_params(w["model"], [LoggedModelParameter("q", "2")]),
)
call(
    "set_logged_model_tags",
    lambda w: w.store.set_logged_model_tags(w["model"], [LoggedModelTag("u", "2"), LoggedModelTag("v", "3")]),
)
call("delete_logged_model_tag", lambda w: w.store.delete_logged_model_tag(w["model"], "t"))
call(
    "log_model_metrics",
    lambda w: w.store.log_batch(
        w["run"],
        [
            Metric("acc", 0.5, STARTED, 1, model_id=w["model"], dataset_name="d", dataset_digest="1"),
            Metric("acc", 0.6, STARTED, 2, model_id=w["model"]),
        ],
        [],
        [],
    ),
)
call(
    "log_inputs",
    lambda w: w.store.log_inputs(
        w["run"],
        [
            DatasetInput(Dataset("d", "1", "local", "here"), [InputTag("mlflow.data.context", "train")]),
            DatasetInput(Dataset("e", "2", "local", "there"), []),
        ],
        [LoggedModelInput(w["model"])],
    ),
)
call("log_outputs", lambda w: w.store.log_outputs(w["run"], [LoggedModelOutput(w["model"], 3)]))
call("delete_run", lambda w: w.store.delete_run(w["run"]))
call("restore_run", lambda w: w.store.restore_run(w["run"]))
call("delete_experiment", lambda w: w.store.delete_experiment(w["experiment"]))
call("restore_experiment", lambda w: w.store.restore_experiment(w["experiment"]))
call("delete_other_experiment", lambda w: w.store.delete_experiment(w["other"]))
call("delete_doomed_run", lambda w: w.store.delete_run(w["doomed"]))
call("delete_logged_model", lambda w: w.store.delete_logged_model(w["doomed model"]))
call("hard_delete_run", lambda w: w.store._hard_delete_run(w["doomed"]))
call("hard_delete_logged_model", lambda w: w.store._hard_delete_logged_model(w["doomed model"]))
call("hard_delete_experiment", lambda w: w.store._hard_delete_experiment(w["other"]))

# Traces

call(
    "log_spans",
    lambda w: w.store.log_spans(
        w["experiment"],
        [
            span(ONE, 1, start=0, attributes={"mlflow.spanInputs": {"q": "x" * 200}}),
            span(ONE, 2, 1, kind="LLM", attributes={"mlflow.chat.tokenUsage": {"input_tokens": 3}}),
            span(ONE, 3, 1, attributes={"long": "y" * 100_000}),
        ],
    ),
)
call(
    "log_more_spans",
    lambda w: w.store.log_spans(
        w["experiment"],
        [span(ONE, 4, 1, attributes={"mlflow.chat.tokenUsage": {"input_tokens": 4}})],
    ),
)
call(
    "start_trace",
    lambda w: w.store.start_trace(
        stated(TWO, w["experiment"], tags={"t": "1"}, trace_metadata={"mlflow.trace.session": "s"})
    ),
)
# Of a trace that the store has just stated, which it then need not read.
call(
    "log_spans_of_stated_trace",
    lambda w: w.store.log_spans(
        w["experiment"],
        [span(TWO, 1, attributes={"user.id": "u"}), span(TWO, 2, 1, attributes={"mlflow.spanInputs": "a"})],
    ),
)
call(
    "log_spans_of_stated_trace_again",
    lambda w: w.store.log_spans(w["experiment"], [span(TWO, 2, 1, name="again"), span(TWO, 3, 1)]),
)
call("merge_trace", lambda w: w.store.start_trace(stated(ONE, w["experiment"], tags={"u": "2"})))
call("start_doomed_trace", lambda w: w.store.start_trace(stated(THREE, w["experiment"], start=-5)))
call("set_trace_tag", lambda w: w.store.set_trace_tag(ONE, "a.b", "1"))
call("delete_trace_tag", lambda w: w.store.delete_trace_tag(TWO, "t"))
call("link_traces", lambda w: w.store.link_traces_to_run([ONE, TWO], w["run"]))
call("unlink_traces", lambda w: w.store.unlink_traces_from_run([TWO], w["run"]))
call("link_prompts", lambda w: w.store.link_prompts_to_trace(ONE, [PromptVersion("greeting", 1, "Hi")]))


@step
async def create_assessment(world: World) -> None:
    feedback = await world.store.create_assessment(Feedback(name="f", value=1, trace_id=ONE))
    expectation = await world.store.create_assessment(Expectation(name="e", value="v", trace_id=ONE))
    world.ids["feedback"] = str(feedback.assessment_id)
    world.ids["expectation"] = str(expectation.assessment_id)


@step
async def override_assessment(world: World) -> None:
    """An assessment that makes another one invalid."""
    better = Feedback(name="f", value=2, trace_id=ONE, overrides=world["feedback"])
    world.ids["better"] = str((await world.store.create_assessment(better)).assessment_id)


call(
    "update_assessment",
    lambda w: w.store.update_assessment(ONE, w["better"], rationale="because", metadata={"k": "v"}),
)
call("delete_overriding", lambda w: w.store.delete_assessment(ONE, w["better"]))
call("delete_assessment", lambda w: w.store.delete_assessment(ONE, w["expectation"]))
call("delete_traces", lambda w: w.store.delete_traces(w["experiment"], trace_ids=[THREE]))


@step
async def archive_traces(world: World) -> None:
    location = Path(world.store.settings.artifact_root, "archive").as_uri()
    await world.store.archive_traces(resolved_trace_archival_location=location, broader_retention="1d")


# Evaluation datasets


@step
async def create_dataset(world: World) -> None:
    for name in ("data", "doomed data"):
        made = await world.store.create_dataset(name, {"k": "v"}, [world["experiment"]])
        world.ids[name] = made.dataset_id


call(
    "upsert_dataset_records",
    lambda w: w.store.upsert_dataset_records(
        w["data"], [{"inputs": {"q": str(number)}, "expectations": {"a": 1}} for number in range(3)]
    ),
)
call(
    "merge_dataset_records",
    lambda w: w.store.upsert_dataset_records(
        w["data"], [{"inputs": {"q": "1"}, "expectations": {"b": 2}, "tags": {"x": "y"}}]
    ),
)
call("set_dataset_tags", lambda w: w.store.set_dataset_tags(w["data"], {"k": "w", "l": "1"}))
call("delete_dataset_tag", lambda w: w.store.delete_dataset_tag(w["data"], "k"))
call("add_dataset", lambda w: w.store.add_dataset_to_experiments(w["data"], ["0"]))
call("remove_dataset", lambda w: w.store.remove_dataset_from_experiments(w["data"], ["0"]))
call("delete_dataset", lambda w: w.store.delete_dataset(w["doomed data"]))

# What people review, and what is wrong


@step
async def create_label_schema(world: World) -> None:
    for name in ("question", "doomed question"):
        made = await world.store.create_label_schema(
            world["experiment"], name=name, type=LabelSchemaType.FEEDBACK, input=InputText()
        )
        world.ids[name] = str(made.schema_id)


call("list_label_schemas", lambda w: w.store.list_label_schemas(w["experiment"]))
call("update_label_schema", lambda w: w.store.update_label_schema(w["question"], instruction="say"))
call("delete_label_schema", lambda w: w.store.delete_label_schema(w["doomed question"]))


@step
async def create_review_queue(world: World) -> None:
    for name in ("queue", "doomed queue"):
        made = await world.store.create_review_queue(
            world["experiment"], name=name, queue_type=ReviewQueueType.CUSTOM, users=["ann"]
        )
        world.ids[name] = made.queue_id


call("get_or_create_user_queue", lambda w: w.store.get_or_create_user_queue(w["experiment"], user="ann"))
call(
    "update_review_queue",
    lambda w: w.store.update_review_queue(w["queue"], name="renamed", schema_ids=[w["question"]]),
)
call("add_items", lambda w: w.store.add_items_to_review_queue(w["queue"], item_ids=[ONE, TWO]))
call("add_doomed_items", lambda w: w.store.add_items_to_review_queue(w["doomed queue"], item_ids=[ONE]))
call(
    "complete_item",
    lambda w: w.store.set_review_queue_item_status(
        w["queue"], item_id=ONE, status=ReviewStatus.COMPLETE, completed_by="ann"
    ),
)
call("remove_items", lambda w: w.store.remove_items_from_review_queue(w["queue"], item_ids=[TWO]))
call("delete_review_queue", lambda w: w.store.delete_review_queue(w["doomed queue"]))


_NEWER: dict[str, Any] = {"metadata": {"a.b": "c"}} if SINCE_3_18 else {}


@step
async def create_issue(world: World) -> None:
    made = await world.store.create_issue(world["experiment"], "issue", "d", source_run_id=world["run"])
    world.ids["issue"] = made.issue_id


call(
    "update_issue",
    lambda w: w.store.update_issue(w["issue"], name="other", **_NEWER),
)

# Scorers

SCORER = '{"third_party_scorer_data": {"model": "openai:/gpt-4"}}'
for number in (1, 2):
    call(f"register_scorer_{number}", lambda w: w.store.register_scorer("0", "judge", SCORER))
call("register_third_version", lambda w: w.store.register_scorer("0", "judge", '{"third": true}'))
call("register_doomed_scorer", lambda w: w.store.register_scorer("0", "doomed", SCORER))
call("set_online_scoring", lambda w: w.store.upsert_online_scoring_config("0", "judge", 0, "status = 'OK'"))
call("delete_version_of_scorer", lambda w: w.store.delete_scorer("0", "judge", 2))
call("delete_scorer", lambda w: w.store.delete_scorer("0", "doomed"))

# Registry

call("create_model", lambda w: w.registry.create_registered_model("m", [RegisteredModelTag("t", "1")], "d"))
call("create_second_model", lambda w: w.registry.create_registered_model("gone"))
for number in (1, 2, 3):
    call(
        f"create_model_version_{number}",
        lambda w: w.registry.create_model_version("m", "s3://x", w["run"], [ModelVersionTag("t", "1")]),
    )
call("create_version_of_second", lambda w: w.registry.create_model_version("gone", "s3://y"))
call("update_registered_model", lambda w: w.registry.update_registered_model("m", "new"))
call(
    "set_registered_model_tag",
    lambda w: w.registry.set_registered_model_tag("m", RegisteredModelTag("u", "x" * 5000)),
)
call("delete_registered_model_tag", lambda w: w.registry.delete_registered_model_tag("m", "t"))
call("update_model_version", lambda w: w.registry.update_model_version("m", 1, "text"))
call(
    "set_model_version_tag",
    lambda w: w.registry.set_model_version_tag("m", 1, ModelVersionTag("u", "2")),
)
call("delete_model_version_tag", lambda w: w.registry.delete_model_version_tag("m", 1, "t"))
call("set_alias", lambda w: w.registry.set_registered_model_alias("m", "best", 1))
call("move_alias", lambda w: w.registry.set_registered_model_alias("m", "best", 2))
call("set_other_alias", lambda w: w.registry.set_registered_model_alias("m", "worst", 3))
call("delete_alias", lambda w: w.registry.delete_registered_model_alias("m", "worst"))
call("stage", lambda w: w.registry.transition_model_version_stage("m", 1, "Production", False))
call("stage_archiving", lambda w: w.registry.transition_model_version_stage("m", 2, "Production", True))
call("delete_model_version", lambda w: w.registry.delete_model_version("m", 3))


@step
async def copy_model_version(world: World) -> None:
    await world.registry.copy_model_version(await world.registry.get_model_version("m", 1), "copied")


call("rename_registered_model", lambda w: w.registry.rename_registered_model("m", "renamed"))
call("delete_registered_model", lambda w: w.registry.delete_registered_model("gone"))
call("create_prompt", lambda w: w.registry.create_prompt("greeting", "d", {"k": "v"}))
call("create_prompt_version", lambda w: w.registry.create_prompt_version("greeting", "Hello {{name}}"))
call("create_prompt_version_2", lambda w: w.registry.create_prompt_version("greeting", "Hi {{name}}"))
call("set_prompt_tag", lambda w: w.registry.set_prompt_tag("greeting", "a", "b"))
call("delete_prompt_tag", lambda w: w.registry.delete_prompt_tag("greeting", "k"))
call("set_prompt_alias", lambda w: w.registry.set_prompt_alias("greeting", "prod", 1))
call("delete_prompt_alias", lambda w: w.registry.delete_prompt_alias("greeting", "prod"))
call("set_prompt_version_tag", lambda w: w.registry.set_prompt_version_tag("greeting", 1, "a", "b"))
call("delete_prompt_version_tag", lambda w: w.registry.delete_prompt_version_tag("greeting", 1, "a"))
call("delete_prompt_version", lambda w: w.registry.delete_prompt_version("greeting", 2))


@step
async def create_webhook(world: World) -> None:
    made = await world.registry.create_webhook("hook", "https://8.8.8.8/hook", [EVENT], "text")
    world.ids["webhook"] = made.webhook_id
    doomed = await world.registry.create_webhook("doomed", "https://8.8.8.8/hook", [EVENT])
    world.ids["doomed webhook"] = doomed.webhook_id


call("update_webhook", lambda w: w.registry.update_webhook(w["webhook"], name="other"))
call("delete_webhook", lambda w: w.registry.delete_webhook(w["doomed webhook"]))

# They count updates, and repetitions are updates.
_COUNTS = dict.fromkeys(
    ("generation", "tokens_of", "revision", "packed", "metric_keys", "tail", "additions"), 0
)
_RANDOM = re.compile(
    "|".join(
        (
            r'(?<="_id": )\d+',
            r'(?<="experiment_id": )\d+',
            r'(?<="destination_id": ")\d+(?=")',
            r'(?<=/)\d+(?=[/"])',
            r"Timestamp\(\d+, \d+\)",
            r'(?<="default\|)\d+(?=\|)',
            r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}",
            r'(?<="digest": ")[0-9a-f]{8}(?=")',
            r"\b(?:17[5-9]|1[89]\d)\d{10}\b",
        )
    )
)


def history(database: Database[dict[str, Any]], head: dict[str, Any]) -> list[Point]:
    """Points may be in the tail of the head, in blocks or for a moment in both: a history is their set."""
    points = [(timestamp, number, value) for timestamp, number, value in head["tail"]]
    for block in database["metrics"].find({"_id": children_of(head["_id"])}):
        points += unpack(block)
    return distinct(points)


def contents(client: pymongo.MongoClient[dict[str, Any]], database: str) -> dict[str, list[str]]:
    """What a database holds, with random ids and the present time made the same."""
    found = {}
    for name in client[database].list_collection_names():
        if name not in ("schema_migrations", "counters", "system.views", "params", "tags", "metrics"):
            documents = client[database][name].find({}, _COUNTS)
            found[name] = sorted(
                _RANDOM.sub("*", json.dumps(document, default=repr, sort_keys=True)) for document in documents
            )
    found["histories"] = sorted(
        _RANDOM.sub("*", json.dumps([head["key"], history(client[database], head)]))
        for head in client[database]["latest_metrics"].find()
    )
    return found
