"""A chat model with tool calls and streaming, traced and judged.

    python 05_chat_model_example.py

An assistant of a bicycle shop answers from two tools. There is no language model behind it, so that the
example runs anywhere and always says the same: a few rules stand in its place and ask for the tools as it
would. The assistant is logged as code, loaded, asked with and without streaming, and its traces are
searched and rated. Runs on an embedded MongoDB in ./genesis-data unless MLFLOW_TRACKING_URI names another
store.

ChatModel speaks OpenAI's chat completions. For new agents MLflow recommends ResponsesAgent; both are
logged, loaded and traced in the same way.
"""

import json
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import mlflow
from mlflow.entities import AssessmentSource, SpanType
from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey
from mlflow.types.llm import (
    ChatChoice,
    ChatChoiceDelta,
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatCompletionResponse,
    ChatMessage,
    ChatParams,
    FunctionToolCallArguments,
    ToolCall,
)

warnings.filterwarnings("ignore", category=FutureWarning, message=".*ChatModel.*")

EXPERIMENT = "example 5: chat model"
STOCK = {"city bike": (4, 690.0), "racing bike": (1, 2450.0), "helmet": (23, 79.0)}
QUESTIONS = [
    "Do you have a racing bike?",
    "What do 3 helmets cost?",
    "Do you have a submarine?",
    "Tell me a joke.",
]


@mlflow.trace(span_type=SpanType.TOOL)
def look_up_stock(item: str) -> dict[str, Any]:
    if item not in STOCK:
        raise LookupError(f"the shop does not sell: {item}")
    pieces, price = STOCK[item]
    return {"item": item, "pieces": pieces, "price": price}


@mlflow.trace(span_type=SpanType.TOOL)
def multiply(price: float, count: int) -> float:
    return round(price * count, 2)


TOOLS = {"look_up_stock": look_up_stock, "multiply": multiply}


class ShopAssistant(mlflow.pyfunc.ChatModel):
    """Asks for tools until it can answer."""

    @mlflow.trace(name="assistant", span_type=SpanType.AGENT)
    def predict(
        self, context: Any, messages: list[ChatMessage], params: ChatParams
    ) -> ChatCompletionResponse:
        remember_session(params)
        conversation = list(messages)
        while calls := (reply := think(conversation)).tool_calls:
            conversation.append(reply)
            conversation.extend(use_tool(call) for call in calls)
        return ChatCompletionResponse(choices=[ChatChoice(message=reply)], model="shop-assistant")

    @mlflow.trace(
        name="assistant, streaming",
        span_type=SpanType.AGENT,
        output_reducer=lambda chunks: "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
    )
    def predict_stream(
        self, context: Any, messages: list[ChatMessage], params: ChatParams
    ) -> Iterator[ChatCompletionChunk]:
        """The answer word by word."""
        answer = self.predict(context, messages, params).choices[0].message.content or ""
        for word in re.findall(r"\S+\s*", answer):
            yield ChatCompletionChunk(choices=[ChatChunkChoice(delta=ChatChoiceDelta(content=word))])
        yield ChatCompletionChunk(choices=[ChatChunkChoice(delta=ChatChoiceDelta(), finish_reason="stop")])


@mlflow.trace(span_type=SpanType.CHAT_MODEL)
def think(conversation: list[ChatMessage]) -> ChatMessage:
    """In the place of a language model: the answer, or the calls of tools that it needs first."""
    question = next(message.content or "" for message in reversed(conversation) if message.role == "user")
    results = [json.loads(message.content or "") for message in conversation if message.role == "tool"]
    wanted = re.search(r"(\d+|an?) ([a-z ]+?)s?(?: cost)?\?", question)
    if wanted is None:
        reply = say("I know about bicycles only.")
    elif not results:
        reply = ask_for("look_up_stock", item=wanted[2])
    elif "error" in results[-1]:
        reply = say(f"I am sorry, {results[-1]['error']}.")
    elif wanted[1].isdigit() and len(results) == 1:
        reply = ask_for("multiply", price=results[0]["price"], count=int(wanted[1]))
    elif wanted[1].isdigit():
        reply = say(f"{wanted[1]} of them cost {results[-1]['result']:.2f} euros.")
    else:
        reply = say("Yes, {pieces} in stock, at {price:.2f} euros each.".format(**results[0]))
    count_tokens(conversation, reply)
    return reply


def use_tool(call: ToolCall) -> ChatMessage:
    """What the tool returned, or why it failed: the model has to know either."""
    result: Any
    try:
        result = TOOLS[call.function.name](**json.loads(call.function.arguments))
    except LookupError as error:
        result = {"error": str(error)}
    content = json.dumps(result if isinstance(result, dict) else {"result": result})
    return ChatMessage(role="tool", content=content, tool_call_id=call.id, name=call.function.name)


def say(text: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=text)


def ask_for(tool: str, **arguments: Any) -> ChatMessage:
    function = FunctionToolCallArguments(name=tool, arguments=json.dumps(arguments))
    return ChatMessage(role="assistant", tool_calls=[ToolCall(id=f"call_{tool}", function=function)])


def count_tokens(conversation: list[ChatMessage], reply: ChatMessage) -> None:
    """Words, in the place of tokens: the trace adds them up."""
    read = sum(len((message.content or "").split()) for message in conversation)
    written = len((reply.content or "").split()) + len(reply.tool_calls or [])
    if span := mlflow.get_current_active_span():
        usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
        span.set_attribute(SpanAttributeKey.CHAT_USAGE, usage)


def remember_session(params: ChatParams) -> None:
    """Questions of one visit belong together."""
    if session := (params.custom_inputs or {}).get("session"):
        mlflow.update_current_trace(metadata={TraceMetadataKey.TRACE_SESSION: session})


# This file is both the model, which MLflow keeps as code, and the program that uses it.
mlflow.models.set_model(ShopAssistant())


def main() -> None:
    from shared import where_to_look  # the model does not need it

    print(__doc__)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "genesis://"))
    experiment = mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name="shop assistant") as run:
        logged = mlflow.pyfunc.log_model(
            name="assistant", python_model=__file__, pip_requirements=[f"mlflow=={mlflow.__version__}"]
        )
        assistant = mlflow.pyfunc.load_model(logged.model_uri)
        session = f"visit of {run.info.run_id[:8]}"
        traces = [ask(assistant, question, session) for question in QUESTIONS]
        ask_streaming(assistant, QUESTIONS[1], session)
    mlflow.flush_trace_async_logging()
    rate(traces)
    show(experiment.experiment_id, session)
    where_to_look(EXPERIMENT, "tab Traces: each question with its tool calls, ratings and words")


def request(question: str, session: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "custom_inputs": {"session": session}}


def ask(assistant: mlflow.pyfunc.PyFuncModel, question: str, session: str) -> str:
    """Print question and answer; the id of the trace."""
    answer = assistant.predict(request(question, session))
    print(f"> {question}\n  {answer['choices'][0]['message']['content']}")
    return str(mlflow.get_last_active_trace_id())


def ask_streaming(assistant: mlflow.pyfunc.PyFuncModel, question: str, session: str) -> None:
    print(f"> {question}  (streaming)\n ", end="")
    for chunk in assistant.predict_stream(request(question, session)):
        print(f" [{chunk['choices'][0]['delta'].get('content') or 'end'}]", end="")
    print()


def rate(traces: list[str]) -> None:
    """People and programs judge answers; both end up at the trace."""
    customer = AssessmentSource(source_type="HUMAN", source_id="customer")
    for trace_id, helpful in zip(traces, (True, True, False, False), strict=True):
        mlflow.log_feedback(trace_id=trace_id, name="helpful", value=helpful, source=customer)
    mlflow.log_expectation(trace_id=traces[1], name="price", value=237.0, source=customer)


def show(experiment_id: str, session: str) -> None:
    of_session = f"metadata.`{TraceMetadataKey.TRACE_SESSION}` = '{session}'"
    traces = mlflow.search_traces(
        locations=[experiment_id],
        filter_string=of_session,
        order_by=["timestamp_ms ASC"],
        return_type="list",
    )
    print(f"\n{'spans':>5} {'failed':>6} {'words':>5}  helpful  tools")
    for trace in traces:
        tools = [span.name for span in trace.data.spans if span.span_type == SpanType.TOOL]
        failed = sum(span.status.status_code == "ERROR" for span in trace.data.spans)
        ratings = [str(a.value) for a in trace.info.assessments if a.name == "helpful"]
        words = (trace.info.token_usage or {}).get("total_tokens", 0)
        counts = f"{len(trace.data.spans):5} {failed:6} {words:5}"
        print(f"{counts}  {''.join(ratings) or '-':7}  {', '.join(tools) or '-'}")
    unhelpful = mlflow.search_traces(
        locations=[experiment_id],
        filter_string=f"feedback.helpful = 'false' AND {of_session}",
        return_type="list",
    )
    print(f"{len(unhelpful)} answers did not help")


if __name__ == "__main__":
    main()
