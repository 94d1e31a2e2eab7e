"""Data that look like a team's: experiments, a registry, prompts and traces, the same at every run.

For the screenshots and for the tests of the web interface; filled in through MLflow's public client.
"""

import math
import random
import time
from dataclasses import dataclass, field

import mlflow
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Metric, Param, RunTag, SpanType
from mlflow.tracing.constant import SpanAttributeKey, TokenUsageKey

CHURN = "churn-prediction"
FORECAST = "demand-forecast"
ASSISTANT = "support-assistant"
MODEL = "churn-classifier"
PROMPT = "support-answer"
STEPS = 80
BEST_RUN = "boosted trees, rate 0.05"

# MLflow draws colours from a few, some twice.
_COLOURS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd",
    "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#2f3640",
)  # fmt: skip

_RULES = "You answer customers of a shop, in at most three sentences and from the help pages only."

_DAY = 86_400_000
_SECOND_NS = 1_000_000_000

_QUESTIONS = (
    ("How do I reset my password?", "Open Settings, choose Security and press Reset password."),
    ("Can I move my invoice date?", "Yes: under Billing, choose Schedule and pick a new day."),
    ("Why was I charged twice?", "One of the two is a reservation that disappears within three days."),
    ("Do you ship to Iceland?", "We do, with a delivery time of six to nine days."),
    ("How can I export my data?", "Settings, Privacy, Export: you receive a link by mail."),
    ("Where is my order?", "It left our warehouse this morning and should arrive on Friday."),
)


# The page of a model version reads it, to show the model's signature.
_MLMODEL = """\
artifact_path: model
flavors:
  python_function:
    loader_module: churn.model
    python_version: 3.11.7
run_id: {run_id}
signature:
  inputs: '[{{"type": "long", "name": "tenure", "required": true}}, {{"type": "string", "name": "plan",
    "required": true}}, {{"type": "long", "name": "tickets", "required": true}}]'
  outputs: '[{{"type": "double", "name": "probability", "required": true}}]'
"""


@dataclass
class Demo:
    """What was made, for those who want to look at it."""

    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, list[str]] = field(default_factory=dict)
    trace_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Training:
    """A run that shall look like one: where its curves end, and how fast they get there."""

    name: str
    family: str
    rate: float
    depth: int
    quality: float
    speed: float


_TRAININGS = (
    Training("logistic regression, rate 0.1", "logistic", 0.1, 1, 0.742, 9),
    Training("logistic regression, rate 0.01", "logistic", 0.01, 1, 0.751, 22),
    Training("random forest, depth 6", "forest", 0.1, 6, 0.804, 12),
    Training("random forest, depth 12", "forest", 0.1, 12, 0.823, 10),
    Training("boosted trees, rate 0.3", "boosting", 0.3, 6, 0.838, 7),
    Training("boosted trees, rate 0.1", "boosting", 0.1, 6, 0.861, 14),
    Training(BEST_RUN, "boosting", 0.05, 8, 0.884, 20),
    Training("two-layer network", "network", 0.001, 2, 0.871, 26),
    Training("four-layer network", "network", 0.001, 4, 0.857, 18),
    Training("four-layer network, dropout", "network", 0.001, 4, 0.876, 30),
)


def fill(uri: str, now: int | None = None) -> Demo:
    """Make everything in the store at ``uri``."""
    now = now or int(time.time() * 1000)
    chance = random.Random(7)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = MlflowClient(uri)
    demo = Demo()
    _experiment(client, demo, CHURN, "Which customers will leave next month?")
    _experiment(client, demo, FORECAST, "Sales of the coming weeks, by shop and article.")
    _experiment(client, demo, ASSISTANT, "Answers to customers, from the help pages.")
    for index, training in enumerate(_TRAININGS):
        begin = now - 2 * _DAY + index * 2_400_000
        _run(client, demo, CHURN, training, begin, chance)
    for index, training in enumerate(_TRAININGS[3:8]):
        _run(client, demo, FORECAST, training, now - 5 * _DAY + index * 3_600_000, chance)
    _registry(client, demo)
    _prompts(client)
    _traces(demo, now, chance)
    return demo


def _experiment(client: MlflowClient, demo: Demo, name: str, note: str) -> None:
    demo.experiments[name] = client.create_experiment(name)
    client.set_experiment_tag(demo.experiments[name], "mlflow.note.content", note)
    demo.runs[name] = []


def _run(
    client: MlflowClient, demo: Demo, experiment: str, training: Training, begin: int, chance: random.Random
) -> None:
    duration = 420_000 + int(training.speed * 40_000)
    run = client.create_run(
        demo.experiments[experiment],
        start_time=begin,
        run_name=training.name,
        tags={
            "mlflow.user": chance.choice(["ada", "grace", "katherine"]),
            "mlflow.source.name": "train.py",
            "team": "growth",
            "data": "2026-10",
            "mlflow.runColor": _COLOURS[_TRAININGS.index(training)],
        },
    )
    run_id = run.info.run_id
    params = {
        "family": training.family,
        "learning_rate": training.rate,
        "max_depth": training.depth,
        "batch_size": 256,
        "seed": 7,
    }
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
    client.log_batch(run_id, metrics=_curves(training, begin, duration, chance))
    client.log_batch(run_id, tags=[RunTag("candidate", str(training.quality > 0.87).lower())])
    client.log_text(run_id, _svg(training), "plots/learning_curve.svg")
    client.log_text(run_id, f"# {training.name}\n\nTrained on October 2026.\n", "README.md")
    client.log_dict(
        run_id, {"features": ["tenure", "plan", "tickets", "usage"], **params}, "model/model.json"
    )
    client.log_text(run_id, _MLMODEL.format(run_id=run_id), "model/MLmodel")
    client.set_terminated(run_id, end_time=begin + duration)
    demo.runs[experiment].append(run_id)


def _curves(training: Training, begin: int, duration: int, chance: random.Random) -> list[Metric]:
    points = []
    drift = 0.0
    for step in range(STEPS):
        progress = 1 - math.exp(-step / training.speed)
        drift = 0.8 * drift + chance.gauss(0, 0.006)
        overfit = max(0, step - 50) * 0.0009 * (training.rate > 0.05)
        values = {
            "train_loss": 0.69 - (0.69 - 0.42 * (1.12 - training.quality)) * progress + abs(drift) / 3,
            "validation_loss": 0.69
            - (0.69 - 1.35 * (1.1 - training.quality)) * progress
            + drift / 2
            + overfit,
            "validation_accuracy": 0.5 + (training.quality - 0.5) * progress + drift / 2 - overfit / 3,
        }
        time_of_step = begin + duration * (step + 1) // STEPS
        points += [Metric(key, round(value, 5), time_of_step, step) for key, value in values.items()]
    points.append(Metric("auc", round(training.quality + 0.031, 4), begin + duration, 0))
    return points


def _svg(training: Training) -> str:
    line = " ".join(
        f"{20 + 7 * step},{180 - 150 * (1 - math.exp(-step / training.speed)) * training.quality:.1f}"
        for step in range(STEPS)
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="200">'
        '<rect width="600" height="200" fill="white"/>'
        f'<polyline points="{line}" fill="none" stroke="#0b7285" stroke-width="2"/></svg>'
    )


def _registry(client: MlflowClient, demo: Demo) -> None:
    client.create_registered_model(
        MODEL, tags={"team": "growth", "task": "classification"}, description="Customers about to leave."
    )
    for index in (3, 5, 6):
        run_id = demo.runs[CHURN][index]
        source = f"{client.get_run(run_id).info.artifact_uri}/model"
        made = client.create_model_version(
            MODEL, source, run_id, tags={"validated": "true"}, description=_TRAININGS[index].name
        )
        alias = {3: None, 5: "champion", 6: "challenger"}[index]
        if alias:
            client.set_registered_model_alias(MODEL, alias, made.version)
    client.create_registered_model("demand-forecaster", tags={"team": "supply"})
    run_id = demo.runs[FORECAST][2]
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    client.create_model_version("demand-forecaster", source, run_id)


def _prompts(client: MlflowClient) -> None:
    texts = (
        "Answer the customer's question: {{question}}",
        "Answer the question from these pages only.\n\nPages: {{pages}}\n\nQuestion: {{question}}",
        "You answer customers of a shop, in at most three sentences and from these pages only.\n\n"
        "Pages: {{pages}}\n\nQuestion: {{question}}\n\nIf the pages do not say, hand over to a person.",
    )
    for text, message in zip(
        texts, ("First try", "Only from the help pages", "Short; hands over"), strict=True
    ):
        client.register_prompt(PROMPT, text, commit_message=message, tags={"team": "support"})
    client.set_prompt_alias(PROMPT, "production", 2)
    client.set_prompt_alias(PROMPT, "candidate", 3)


def _traces(demo: Demo, now: int, chance: random.Random) -> None:
    mlflow.set_experiment(experiment_id=demo.experiments[ASSISTANT])
    for index in range(24):
        question, answer = _QUESTIONS[index % len(_QUESTIONS)]
        begin = (now - 6 * _DAY + index * 21_000_000) * 1_000_000
        demo.trace_ids.append(_trace(question, answer, begin, index, chance))
    mlflow.flush_trace_async_logging()
    for index, trace_id in enumerate(demo.trace_ids):
        if index % 2 == 0:
            mlflow.log_feedback(
                trace_id=trace_id,
                name="helpful",
                value=index % 8 != 0,
                source=AssessmentSource(source_type="HUMAN", source_id="grace"),
                rationale="Says where to click." if index % 8 else "Too vague.",
            )


def _messages(question: str, page: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": f"{_RULES}\n\nHelp pages:\n\n> {page}"},
        {"role": "user", "content": "Hello! I am a customer of yours."},
        {"role": "assistant", "content": "Welcome! How can I help?"},
        {"role": "user", "content": question},
    ]


def _trace(question: str, answer: str, begin: int, index: int, chance: random.Random) -> str:
    fails = index == 17
    root = mlflow.start_span_no_context(
        "answer_customer", span_type=SpanType.CHAIN, inputs={"question": question}, start_time_ns=begin
    )
    found = begin + int(chance.uniform(0.06, 0.14) * _SECOND_NS)
    retriever = mlflow.start_span_no_context(
        "search_help_pages",
        span_type=SpanType.RETRIEVER,
        parent_span=root,
        inputs={"query": question},
        start_time_ns=begin + 2_000_000,
    )
    pages = [
        {"page_content": answer, "metadata": {"doc_uri": f"help/{index % 6 + 1}"}, "id": str(index % 6 + 1)}
    ]
    retriever.end(outputs=pages, end_time_ns=found)
    model = mlflow.start_span_no_context(
        "generate",
        span_type=SpanType.CHAT_MODEL,
        parent_span=root,
        inputs={"messages": _messages(question, answer)},
        start_time_ns=found,
    )
    end = found + int(chance.uniform(0.4, 1.6) * _SECOND_NS)
    if fails:
        model.record_exception(TimeoutError("the model did not answer in 30 s"))
        model.end(status="ERROR", end_time_ns=end)
        root.end(status="ERROR", end_time_ns=end)
        return str(root.trace_id)
    prompt, completion = chance.randint(180, 420), chance.randint(20, 70)
    model.set_attribute(
        SpanAttributeKey.CHAT_USAGE,
        {
            TokenUsageKey.INPUT_TOKENS: prompt,
            TokenUsageKey.OUTPUT_TOKENS: completion,
            TokenUsageKey.TOTAL_TOKENS: prompt + completion,
        },
    )
    model.end(outputs={"choices": [{"message": {"role": "assistant", "content": answer}}]}, end_time_ns=end)
    root.end(outputs={"answer": answer}, end_time_ns=end + 3_000_000)
    return str(root.trace_id)
