"""What workspaces cost a training: `log_metric` of a direct client, with them and without.

    python benchmarks/workspaces.py [--rounds 5] [--calls 400] [--json]

Two processes on one mongod, each with a database and a run of its own, take turns; each call comes after 2 ms
of other work. Printed are medians of all calls, their processor time in the client and in the server.
"""

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from pauses import STEP, work
from servers import mongod, process_of, processor_seconds

WITHOUT, WITH = "without workspaces", "with workspaces"
TEAM = "team"


def client(uri: str, kind: str, pipe: Connection) -> None:
    """Make as many calls as it is told, time and again, until it is told none."""
    if kind == WITH:
        os.environ |= {"MLFLOW_ENABLE_WORKSPACES": "true", "MLFLOW_WORKSPACE": TEAM}
    from mlflow.entities import Metric, Workspace

    from genesis_flow import MongoDBStore
    from genesis_flow.sync.workspaces import MongoDBWorkspaceStore

    store = MongoDBStore(uri)
    if kind == WITH:
        MongoDBWorkspaceStore(uri).create_workspace(Workspace(TEAM))
    run_id = store.create_run(store.create_experiment("of a team"), "user", 1, [], "run").info.run_id
    step = 0
    pipe.send({})
    while calls := pipe.recv():
        took, used = [], 0.0
        for _ in range(calls):
            step += 1
            work(STEP)
            begin, begin_used = time.perf_counter(), time.process_time()
            store.log_metric(run_id, Metric("loss", 1.0, step, step))
            took.append((time.perf_counter() - begin) * 1000)
            used += time.process_time() - begin_used
        pipe.send({"took": took, "used": used * 1000 / calls})
    pipe.send({"logged": len(store.get_metric_history(run_id, "loss"))})


def measure(uris: dict[str, str], rounds: int, calls: int) -> dict[str, dict[str, float]]:
    context, pipes = multiprocessing.get_context("spawn"), {}
    for kind, uri in uris.items():
        pipes[kind], theirs = context.Pipe()
        context.Process(target=client, args=(uri, kind, theirs), daemon=True).start()
        theirs.close()  # so that a client that ended is not waited for
    server = process_of(next(iter(uris.values())))
    found: dict[str, dict[str, list[float]]] = {kind: {"took": [], "used": [], "server": []} for kind in uris}
    for pipe in pipes.values():
        pipe.recv()
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        for kind in random.sample(list(pipes), len(pipes)):
            before = processor_seconds(server)
            pipes[kind].send(calls)
            told: dict[str, Any] = pipes[kind].recv()
            if number:  # the first opens connections and compiles
                found[kind]["took"] += told["took"]
                found[kind]["used"].append(told["used"])
                found[kind]["server"].append((processor_seconds(server) - before) * 1000 / calls)
    for kind, pipe in pipes.items():
        pipe.send(0)
        if pipe.recv()["logged"] != (rounds + 1) * calls:
            raise SystemExit(f"{kind}: points are missing")
    return {
        kind: {
            "call_ms": statistics.median(each["took"]),
            "client_processor_ms": statistics.median(each["used"]),
            "server_processor_ms": statistics.median(each["server"]),
        }
        for kind, each in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=400, help="of each client, in each round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with tempfile.TemporaryDirectory(prefix="genesis-flow-bench-") as folder, mongod(Path(folder)) as server:
        uris = {WITHOUT: server("without"), WITH: server("with")}
        found = measure(uris, options.rounds, options.calls)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print("| `log_metric` | call, ms | processor of the client, ms | of the server, ms |\n|---|---|---|---|")
    for kind, values in found.items():
        print(f"| {kind} | {' | '.join(f'{value:.3f}' for value in values.values())} |")


if __name__ == "__main__":
    main()
