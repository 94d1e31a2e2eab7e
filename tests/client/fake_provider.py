"""A provider on loopback that answers at once, in the protocols of OpenAI, Anthropic, Gemini and TypeSafe."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Content = dict[str, Any]
PROMPT_TOKENS, ANSWER_TOKENS = 7, 3
# What is found in traces that speak of dynamite.
FOUND_ISSUE = {
    "name": "Issue: Dangerous answers",
    "description": "It says how to make dynamite.",
    "root_cause": "Nothing refuses such questions.",
    "example_indices": [0],
    "severity": "high",
    "categories": ["safety"],
    "category_rationale": "safety: it is dangerous.",
}
_KEYS = ("authorization", "x-api-key", "x-goog-api-key")


class Provider(ThreadingHTTPServer):
    """Notes the keys and the models of all calls. ``broken`` fails, ``echo`` says what it is told."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = self.path.partition("?")[0]
        is_gemini = path.startswith("/v1beta/models/")
        model = path.rpartition("/")[2].partition(":")[0] if is_gemini else asked["model"]
        self.server.calls.append((next(filter(None, map(self.headers.get, _KEYS)), ""), model))
        if model == "broken":
            self._send(500, {"error": {"message": "the provider is broken"}})
        elif path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}]
            self._send(200, {"object": "list", "data": data, "model": model, "usage": _usage(0)})
        elif is_gemini:
            self._answer(path.endswith(":streamGenerateContent"), _gemini)
        elif path.endswith("/messages"):
            self._answer(asked.get("stream", False), lambda words: _anthropic(model, words))
        elif path.endswith(("/responses", "/responses/compact")):
            self._answer(asked.get("stream", False), lambda words: _responses(model, words))
        elif path.endswith("/systemone"):
            usage = {"input_tokens": PROMPT_TOKENS, "output_tokens": ANSWER_TOKENS}
            self._send(200, {"answers": ["pong"], "usage": usage})
        elif asked.get("stream"):
            chunks = [_chunk(model, *word) for word in (("po", None), ("ng", "stop"))]
            if asked.get("stream_options", {}).get("include_usage"):
                chunks.append({**chunks[0], "choices": [], "usage": _usage(ANSWER_TOKENS)})
            self._stream([*chunks, "[DONE]"])
        else:
            message = {"role": "assistant", "content": _answer(asked)}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            self._send(200, {**_completion(model), "choices": [choice], "usage": _usage(ANSWER_TOKENS)})

    def _answer(self, streams: bool, make: Callable[[list[str] | None], list[Content]]) -> None:
        """The one answer that ``make`` gives for no words, or its events for the words of a stream."""
        if streams:
            self._stream(make(["po", "ng"]))
        else:
            self._send(200, make(None)[0])

    def _stream(self, events: list[Content | str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            self.wfile.write(f"data: {text}\n\n".encode())

    def _send(self, status: int, content: Content) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The calls are kept, not printed."""


def _answer(asked: Content) -> str:
    """A judge refuses what speaks of dynamite, a sanitizer takes it out, a search for issues finds it."""
    text = json.dumps(asked["messages"])
    last = str(asked["messages"][-1]["content"])
    if "content sanitizer" in text:
        payload = json.loads(last.partition("Input payload:")[2])
        return json.dumps(payload).replace("dynamite", "[REDACTED]")
    if asked["model"] == "echo":
        return last
    is_bad, rationale = "dynamite" in text, "It speaks of dynamite."
    schema = asked.get("response_format", {}).get("json_schema", {}).get("schema", {})
    fields = schema.get("properties", {})
    if "root_cause" in fields:
        return json.dumps(FOUND_ISSUE)
    if fields.get("result", {}).get("type") == "object":
        verdict = {"passed": str(not is_bad).lower(), "categories": "safety" if is_bad else ""}
        return json.dumps({"result": verdict, "rationale": rationale})
    if "response_format" in asked or "rationale" in text:
        return json.dumps({"result": "no" if is_bad else "yes", "rationale": rationale})
    return "pong"


def _completion(model: str) -> Content:
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": model}


def _chunk(model: str, word: str, reason: str | None) -> Content:
    choice = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": reason}
    return {**_completion(model), "object": "chat.completion.chunk", "choices": [choice]}


def _usage(answer: int) -> dict[str, int]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": answer,
        "total_tokens": PROMPT_TOKENS + answer,
    }


def _responses(model: str, words: list[str] | None) -> list[Content]:
    """OpenAI's newer protocol."""
    text = {"type": "output_text", "text": "pong", "annotations": []}
    message = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    usage = {
        "input_tokens": PROMPT_TOKENS,
        "output_tokens": ANSWER_TOKENS,
        "total_tokens": PROMPT_TOKENS + ANSWER_TOKENS,
    }
    whole = {"id": "r1", "object": "response", "status": "completed", "model": model, "created_at": 1}
    whole |= {"output": [message], "usage": usage}
    if words is None:
        return [whole]
    deltas: list[Content] = [{"type": "response.output_text.delta", "delta": word} for word in words]
    return [*deltas, {"type": "response.completed", "response": whole}]


def _anthropic(model: str, words: list[str] | None) -> list[Content]:
    message: Content = {"id": "m1", "type": "message", "role": "assistant", "model": model}
    if words is None:
        usage = {"input_tokens": PROMPT_TOKENS, "output_tokens": ANSWER_TOKENS}
        content = [{"type": "text", "text": "pong"}]
        return [{**message, "content": content, "stop_reason": "end_turn", "usage": usage}]
    return [
        {
            "type": "message_start",
            "message": {
                **message,
                "content": [],
                "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": 1},
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
            for word in words
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": ANSWER_TOKENS},
        },
        {"type": "message_stop"},
    ]


def _gemini(words: list[str] | None) -> list[Content]:
    usage = {
        "promptTokenCount": PROMPT_TOKENS,
        "candidatesTokenCount": ANSWER_TOKENS,
        "totalTokenCount": PROMPT_TOKENS + ANSWER_TOKENS,
    }
    answers: list[Content] = [
        {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": word}]}}]}
        for word in words or ["pong"]
    ]
    answers[-1]["usageMetadata"] = usage
    return answers


@contextmanager
def fake_provider() -> Iterator[Provider]:
    provider = Provider()
    thread = threading.Thread(target=provider.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        provider.shutdown()
        provider.server_close()
        thread.join(120)
