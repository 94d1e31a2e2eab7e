"""The AI gateway under `genesis-flow server` beside the same one under `mlflow server` on SQLite.

    python benchmarks/gateway.py [--workers 2] [--callers 32] [--rounds 5] [--calls 200] [--json]
    python benchmarks/gateway.py --costs 10000 100000 1000000

Both call a provider on loopback that answers at once, and trace each call. The servers take turns. Latency is
of one caller; what the provider takes when it is called without a gateway is subtracted. Calls share the
processors with whoever makes them, so beside calls a second stands the processor time that each has taken,
the writing of its trace included: of the workers, and of the database if that is a process of its own. The
second form measures what budgets ask instead, with so many traced calls: their sum, and what a call pays,
which do not grow.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import costs
import pymongo
from servers import free_port, mongod

DIRECT, OURS, SQLITE = "provider", "genesis_flow", "MLflow on SQLite"
WITHOUT, WITH = "no budget", "a budget"
WORKERS, DATABASE = "workers", "database"
_START_SECONDS = 240
# A server that takes no more of a processor than this waits for calls; and how long that may take to come.
_IDLE, _IDLE_SECONDS = 0.05, 30
_SETTINGS = {
    "MLFLOW_CRYPTO_KEK_PASSPHRASE": "a passphrase of the benchmark",
    "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_PROXY": "127.0.0.1",
    # Neither has processes for jobs.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # Prices of models come with MLflow: nothing asks for newer ones.
    "MLFLOW_MODEL_CATALOG_URI": "",
}
_ASKED = {"messages": [{"role": "user", "content": "ping"}]}


@dataclass
class Place:
    """Where calls are sent, and what they took."""

    address: str
    path: str
    latencies: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    # Of workers and of databases: the first process, and what each call took of them in each round.
    processes: dict[str, int] = field(default_factory=dict)
    worked: dict[str, list[float]] = field(default_factory=dict)

    @property
    def request(self) -> bytes:
        body = json.dumps(_ASKED).encode()
        head = f"POST {self.path} HTTP/1.1\r\nhost: {urlsplit(self.address).netloc}\r\n"
        return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@contextlib.contextmanager
def running(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """With its children."""
    process = subprocess.Popen(command, start_new_session=True, text=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


@contextlib.contextmanager
def provider() -> Iterator[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running(sys.executable, str(Path(__file__).with_name("provider.py")), **pipes) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


@contextlib.contextmanager
def server(folder: Path, uri: str, workers: int, *command: str, **more: str) -> Iterator["Server"]:
    """It may still be starting."""
    port = free_port()
    options = ["--backend-store-uri", uri, "--port", str(port), "--workers", str(workers)]
    kept = {name: each for name, each in os.environ.items() if not name.startswith(("MLFLOW", "GENESIS"))}
    folder.mkdir()
    with (folder / "log").open("w") as log:
        where = {
            "cwd": folder,
            "env": {**kept, **_SETTINGS, **more},
            "stdout": log,
            "stderr": subprocess.STDOUT,
        }
        with running(sys.executable, "-m", *command, *options, **where) as process:
            yield Server(process, port, folder / "log")


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    port: int
    log: Path

    def address(self) -> str:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(self.log.read_text())
            time.sleep(0.2)
        return f"http://127.0.0.1:{self.port}"


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def process_of(uri: str) -> int:
    """A database's."""
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        return int(client.admin.command("serverStatus")["pid"])


def processor_ms(process: int) -> float:
    """What a process and those that it has started have taken of the processors so far."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = stat.read_text().rpartition(")")[2].split()
            number = int(stat.parent.name)
            parents[number], ticks[number] = int(fields[1]), sum(map(int, fields[11:15]))
    total, family = 0, {process}
    while family:
        total += sum(ticks.get(each, 0) for each in family)
        family = {child for child, parent in parents.items() if parent in family}
    return total * 1000 / os.sysconf("SC_CLK_TCK")


def when_idle(processes: Iterable[int], pause: float) -> dict[int, float]:
    """What processes have taken, once they do nothing more: traces are written behind the answers."""
    deadline = time.monotonic() + _IDLE_SECONDS
    before = {process: processor_ms(process) for process in processes}
    while time.monotonic() < deadline:
        time.sleep(pause)
        now = {process: processor_ms(process) for process in before}
        if all(now[each] - before[each] <= _IDLE * pause * 1000 for each in now):
            return now
        before = now
    return before


def manage(address: str, path: str, content: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{address}/api/3.0/mlflow/gateway/{path}/create",
        json.dumps(content).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        made: dict[str, Any] = next(iter(json.load(answer).values()))
    return made


def make_endpoints(
    address: str, provider_address: str, name: str, processes: dict[str, int]
) -> dict[str, Place]:
    """One for whose calls there is no budget, and one with a budget that is never spent."""
    secret = manage(
        address,
        "secrets",
        {
            "secret_name": "key",
            "secret_value": {"api_key": "sk-of-the-benchmark"},
            "provider": "openai",
            "auth_config": {"api_base": provider_address},
        },
    )
    model = {"name": "model", "secret_id": secret["secret_id"], "provider": "openai", "model_name": "gpt-4o"}
    definition = manage(address, "model-definitions", model)["model_definition_id"]
    attached = {"model_definition_id": definition, "linkage_type": "PRIMARY", "weight": 1.0}
    places = {}
    for number, kind in enumerate((WITHOUT, WITH)):
        endpoint = {"name": f"endpoint-{number}", "model_configs": [attached], "usage_tracking": True}
        made = manage(address, "endpoints", endpoint)
        places[f"{name}, {kind}"] = Place(
            address, f"/gateway/endpoint-{number}/mlflow/invocations", processes=processes
        )
    budget = {"budget_unit": "USD", "budget_amount": 1e9, "duration": {"unit": "DAYS", "value": 1}}
    aim = {"target_scope": "ENDPOINT", "target_value": made["endpoint_id"], "budget_action": "REJECT"}
    manage(address, "budgets", {**budget, **aim})
    return places


async def call(place: Place, calls: int) -> list[float]:
    """How long each took, in milliseconds, one after the other on one connection."""
    url = urlsplit(place.address)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    request, took = place.request, []
    for _ in range(calls):
        begin = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        took.append((time.perf_counter() - begin) * 1000)
        if not head.startswith(b"http/1.1 200"):
            raise SystemExit(f"{place.path}: {head.splitlines()[0]!r} {body!r:.500}")
    writer.close()
    await writer.wait_closed()
    return took


async def rate(place: Place, callers: int, calls: int) -> float:
    begin = time.perf_counter()
    await asyncio.gather(*(call(place, calls) for _ in range(callers)))
    return callers * calls / (time.perf_counter() - begin)


def measure(places: dict[str, Place], options: argparse.Namespace) -> None:
    each = max(1, options.calls // options.callers)
    for place in places.values():
        for _ in range(options.workers):  # so that all workers have been called
            asyncio.run(rate(place, options.callers, 2))
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        for place in random.sample(list(places.values()), len(places)):
            # Two connections, which may be with different workers.
            place.latencies += asyncio.run(call(place, options.calls // 2))
            place.latencies += asyncio.run(call(place, options.calls // 2))
            when_idle(place.processes.values(), options.pause)
        for place in random.sample(list(places.values()), len(places)):
            before = when_idle(place.processes.values(), options.pause)
            place.rates.append(asyncio.run(rate(place, options.callers, each)))
            after = when_idle(place.processes.values(), options.pause)
            for name, process in place.processes.items():
                took = (after[process] - before[process]) / (options.callers * each)
                place.worked.setdefault(name, []).append(took)


def figures(places: dict[str, Place]) -> dict[str, dict[str, float]]:
    direct = statistics.median(places[DIRECT].latencies)
    found = {}
    for name, place in places.items():
        cuts = statistics.quantiles(place.latencies, n=100)
        less = 0.0 if name == DIRECT else direct
        found[name] = {
            "p50_ms": cuts[49] - less,
            "p95_ms": cuts[94] - less,
            "calls_a_second": statistics.median(place.rates),
            **{f"{each}_processor_ms": statistics.median(took) for each, took in place.worked.items()},
        }
    return found


def gateways(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    with contextlib.ExitStack() as stack:
        database_uri = stack.enter_context(mongod(folder))
        upstream = stack.enter_context(provider())
        places = {DIRECT: Place(upstream, "/chat/completions")}
        servers = {
            OURS: (database_uri("gateway"), "genesis_flow.cli", "server"),
            SQLITE: (f"sqlite:///{folder / 'mlflow.db'}", "mlflow", "server"),
        }
        started = {
            name: stack.enter_context(server(folder / name, uri, options.workers, *command))
            for name, (uri, *command) in servers.items()
        }
        for name, each in started.items():
            processes = {WORKERS: each.process.pid}
            if name == OURS:
                processes[DATABASE] = process_of(database_uri("gateway"))
            places |= make_endpoints(each.address(), upstream, name, processes)
        measure(places, options)
    return figures(places)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200, help="of each kind, in each round")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two measurements")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--costs", type=int, nargs="+", metavar="TRACES")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # with what was started
    with tempfile.TemporaryDirectory() as folder:
        if options.costs:
            costs.measure(Path(folder), options.costs, options.rounds)
            return
        found = gateways(Path(folder), options)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print("| gateway | added p50, ms | added p95, ms | calls a second | ms of processors a call |")
    print("|---|---|---|---|---|")
    for name, values in found.items():
        kinds = [each for each in (WORKERS, DATABASE) if f"{each}_processor_ms" in values]
        worked = ", ".join(f"{each} {values[f'{each}_processor_ms']:.1f}" for each in kinds)
        print(
            f"| {name} | {values['p50_ms']:.2f} | {values['p95_ms']:.2f} | {values['calls_a_second']:.1f} "
            f"| {worked} |"
        )


if __name__ == "__main__":
    main()
