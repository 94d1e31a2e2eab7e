"""A small agent with tools: traced, judged by its user and by code, and searched for."""

import json
import sys

import mlflow
from mlflow.entities import AssessmentSource, SpanType
from mlflow.tracing.constant import SpanAttributeKey

uri, experiment_name = sys.argv[1:]
mlflow.set_tracking_uri(uri)
experiment = mlflow.set_experiment(experiment_name)


@mlflow.trace(span_type=SpanType.TOOL)
def look_up(city: str) -> int:
    if city == "Atlantis":
        raise LookupError(f"no such city: {city}")
    return len(city)


@mlflow.trace(span_type=SpanType.LLM)
def ask_model(question: str) -> str:
    span = mlflow.get_current_active_span()
    if span is not None:
        usage = {"input_tokens": len(question), "output_tokens": 2, "total_tokens": len(question) + 2}
        span.set_attribute(SpanAttributeKey.CHAT_USAGE, usage)
    return question.split()[-1].strip("?")


@mlflow.trace(name="agent", span_type=SpanType.AGENT)
def agent(question: str, user: str) -> str:
    metadata = {"mlflow.trace.user": user, "mlflow.trace.session": f"chat of {user}"}
    mlflow.update_current_trace(tags={"team": "travel"}, metadata=metadata)
    city = ask_model(question)
    return f"{city} has {look_up(city)} letters"


with mlflow.start_run() as run:
    agent("How long is Berlin?", "ann")
    berlin = mlflow.get_last_active_trace_id()
    agent("How long is Oslo?", "ann")
    try:
        agent("How long is Atlantis?", "bob")
    except LookupError:
        atlantis = mlflow.get_last_active_trace_id()
mlflow.flush_trace_async_logging()

human = AssessmentSource(source_type="HUMAN", source_id="ann")
mlflow.log_feedback(trace_id=berlin, name="helpful", value=True, source=human, rationale="short")
mlflow.log_feedback(trace_id=atlantis, name="helpful", value=False, source=human)
mlflow.log_expectation(trace_id=berlin, name="answer", value="6", source=human)


def found(filter_string: str) -> list[str]:
    traces = mlflow.search_traces(
        locations=[experiment.experiment_id], filter_string=filter_string, return_type="list"
    )
    return sorted(json.loads(trace.data.request)["question"] for trace in traces)


trace = mlflow.get_trace(berlin)
print(
    json.dumps(
        {
            "spans": [[span.name, span.span_type] for span in trace.data.spans],
            "state": str(trace.info.state),
            "response": trace.data.response,
            "tokens": trace.info.token_usage,
            "feedback": {each.name: each.value for each in trace.info.assessments},
            "of run": found(f"attributes.run_id = '{run.info.run_id}'"),
            "failed": found("attributes.status = 'ERROR'"),
            "disliked": found("feedback.helpful = 'false'"),
            "tool errors": found("span.type = 'TOOL' AND span.status = 'ERROR'"),
            "in text": found("trace.text LIKE '%Oslo%'"),
            "session": found("metadata.`mlflow.trace.session` = 'chat of ann'"),
        }
    )
)
