"""Every store in a process of its own, on servers that are made for one part of the benchmark and then go."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from servers import mongod, postgresql

HERE = Path(__file__).parent
OURS, PLUGIN, SQLITE, POSTGRESQL, BARE = "genesis_flow", "mlflow-mongodb", "sqlite", "postgresql", "pymongo"
STORES = (OURS, PLUGIN, SQLITE, POSTGRESQL, BARE)


class Subject:
    """A store in a process of its own; ``ready`` waits until it is open."""

    def __init__(self, kind: str, uri: str, folder: Path, python: str) -> None:
        self.kind, self.uri, self.folder, self.python = kind, uri, folder, python
        # What ``prepare`` made, for other processes of this store.
        self.made: dict[str, Any] = {}
        # How long the last answer took it.
        self.seconds = 0.0
        self.log = (folder / f"{kind}.log").open("ab")
        self.process = subprocess.Popen(
            self.command("serve"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment(),
        )

    def command(self, *what: str) -> list[str]:
        """What starts a process of this store."""
        return [
            *(self.python, str(HERE / "subject.py"), self.kind, self.uri),
            *(str(self.folder / "artifacts"), *what),
        ]

    def ready(self) -> "Subject":
        self.answer()
        return self

    def another(self) -> "Subject":
        return Subject(self.kind, self.uri, self.folder, self.python)

    def prepare(self) -> None:
        self.made = self.ask("prepare")

    def ask(self, what: str, **options: Any) -> Any:
        self.send(what, **options)
        return self.answer()

    def send(self, what: str, **options: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, "with": options}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """What the process says next; LookupError if the store failed, RuntimeError if the process did."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            log = (self.folder / f"{self.kind}.log").read_text(errors="replace")[-3000:]
            raise RuntimeError(f"the process of {self.kind} ended:\n{log}")
        answer = json.loads(line)
        self.seconds = answer.get("seconds", 0.0)
        if "error" in answer:
            raise LookupError(answer["error"])
        return answer.get("value")

    def close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def environment() -> dict[str, str]:
    """As a user has it: with byte code, or every process would compile MLflow anew, and without telemetry."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"MLFLOW_DISABLE_TELEMETRY": "true"}


@contextlib.contextmanager
def subjects(names: list[str], plugin: str | None, notes: list[str]) -> Iterator[dict[str, Subject]]:
    """The stores, open and with empty databases; who is missing, and why, is noted."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="genesis-flow-bench-")))
        server = stack.enter_context(mongod(folder))
        uris = {
            OURS: server("ours"),
            PLUGIN: server("plugin"),
            BARE: server("floor"),
            SQLITE: f"sqlite:///{folder}/mlflow.db",
        }
        if POSTGRESQL in names and (uri := stack.enter_context(postgresql(folder))):
            uris[POSTGRESQL] = uri
        found = {}
        for name in names:
            if name not in uris:
                notes.append(f"{name} took no part: it is not installed.")
            elif name == PLUGIN and plugin is None:
                notes.append(f"{name} took no part: --plugin names no interpreter.")
            else:
                python = plugin if name == PLUGIN and plugin else sys.executable
                found[name] = Subject(name, uris[name], folder, python)
                stack.callback(found[name].close)
        for subject in found.values():
            subject.ready()
        for subject in found.values():
            subject.prepare()
        yield found
