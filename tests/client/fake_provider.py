"""A provider on loopback that speaks OpenAI's protocol and answers at once."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Provider(ThreadingHTTPServer):
    """Notes the keys and the models of all calls. The model ``broken`` fails."""

    daemon_threads = True

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
        model = asked["model"]
        self.server.calls.append((self.headers["authorization"], model))
        if model == "broken":
            self._send(500, {"error": {"message": "the provider is broken"}})
        elif self.path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, 1.0]}]
            self._send(200, {"object": "list", "data": data, "model": model, "usage": _usage(7, 0)})
        elif asked.get("stream"):
            self._stream(model)
        else:
            message = {"role": "assistant", "content": _answer(asked)}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            self._send(200, {**_completion(model), "choices": [choice], "usage": _usage(7, 3)})

    def _stream(self, model: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for word, reason in (("po", None), ("ng", "stop")):
            choice = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": reason}
            chunk = {**_completion(model), "object": "chat.completion.chunk", "choices": [choice]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The calls are kept, not printed."""


def _answer(asked: dict[str, Any]) -> str:
    """A judge is asked for JSON, and refuses what speaks of dynamite."""
    text = json.dumps(asked["messages"])
    if "response_format" in asked or "rationale" in text:
        return json.dumps(
            {"result": "no" if "dynamite" in text else "yes", "rationale": "It speaks of dynamite."}
        )
    return "pong"


def _completion(model: str) -> dict[str, Any]:
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": model}


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


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
        thread.join(10)
