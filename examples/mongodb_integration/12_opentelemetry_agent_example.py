"""Traces of an agent that knows OpenTelemetry only: no line of it calls mlflow.

    python 12_opentelemetry_agent_example.py

The agent describes its work in spans with the names that OpenTelemetry has for generative AI (gen_ai.*), as
instrumented frameworks do. One line gives it MLflow's tracer provider; its spans become traces in the
store, with kinds of spans, tokens and errors, and no collector in between. An agent in another language
sends the same to `genesis-flow server`, as OTLP over HTTP to /v1/traces with the header
x-mlflow-experiment-id. Runs on an embedded MongoDB in ./genesis-data unless MLFLOW_TRACKING_URI names
another store.
"""

import json
import os

import mlflow
from opentelemetry import trace
from shared import where_to_look

EXPERIMENT = "example 12: an agent of OpenTelemetry"
QUESTIONS = ["weather in Lima", "weather in Oslo", "weather in Atlantis"]
DEGREES = {"Lima": 19, "Oslo": 4}


class Agent:
    """Two calls of a model with one of a tool in between; rules stand in the model's place."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self.tracer = tracer

    def answer(self, question: str, conversation: str) -> str:
        about = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "weather agent",
            "gen_ai.conversation.id": conversation,
            "session.id": conversation,
        }
        with self.tracer.start_as_current_span("invoke_agent weather agent", attributes=about):
            city = self.chat(question, question.rsplit(" ", 1)[-1])
            try:
                degrees = str(self.tool(city))
            except LookupError as error:
                degrees = f"unknown: {error}"
            return self.chat(degrees, f"In {city} it is {degrees}." if city in DEGREES else "I do not know.")

    def chat(self, said: str, reply: str) -> str:
        about = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "rules-1",
            "gen_ai.input.messages": messages("user", said),
            "gen_ai.output.messages": messages("assistant", reply),
            "gen_ai.usage.input_tokens": len(said.split()),
            "gen_ai.usage.output_tokens": len(reply.split()),
        }
        with self.tracer.start_as_current_span("chat rules-1", attributes=about):
            return reply

    def tool(self, city: str) -> int:
        about = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "thermometer"}
        # An exception marks the span as failed, and is kept with its traceback.
        with self.tracer.start_as_current_span("execute_tool thermometer", attributes=about):
            if city not in DEGREES:
                raise LookupError(f"there is no thermometer in {city}")
            return DEGREES[city]


def messages(role: str, text: str) -> str:
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}]}])


def main() -> None:
    print(__doc__)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "genesis://"))
    experiment = mlflow.set_experiment(EXPERIMENT)
    # The line: instrumented libraries take it as `tracer_provider`.
    agent = Agent(mlflow.tracing.get_bridged_tracer_provider().get_tracer("weather"))
    for question in QUESTIONS:
        print(f"> {question}\n  {agent.answer(question, conversation='a day in spring')}")
    mlflow.flush_trace_async_logging()

    traces = mlflow.search_traces(
        locations=[experiment.experiment_id],
        order_by=["timestamp_ms DESC"],
        max_results=len(QUESTIONS),
        return_type="list",
    )
    print(f"\n{'spans':>5} {'failed':>6} {'tokens':>6}  kinds")
    for found in reversed(traces):
        failed = sum(span.status.status_code == "ERROR" for span in found.data.spans)
        tokens = (found.info.token_usage or {}).get("total_tokens", 0)
        kinds = ", ".join(sorted({span.span_type for span in found.data.spans}))
        print(f"{len(found.data.spans):5} {failed:6} {tokens:6}  {kinds}")
    where_to_look(EXPERIMENT, "tab Traces: the failed tool is marked, with its error")


if __name__ == "__main__":
    main()
