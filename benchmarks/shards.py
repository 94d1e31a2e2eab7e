"""What a sharded cluster would do with the commands of a load: how many shards each asks, and how evenly.

    python benchmarks/shards.py [--shards 2 8 64] [--runs 500] [--traces 500] [--scenes] [--json]

No cluster is needed, and none is measured: the commands that the store sends to one server are recorded and
routed by the rules of tools/shard_routes.py. The load is what trainings, agents and pages do; ``--scenes``
adds the calls of the test suite, each method once or more.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from servers import mongod

from genesis_flow.aio import MongoDBStore
from tests.commands import recorder
from tests.contract.trace_scenes import span, stated
from tools.shard_routes import Cluster, Command, transactions

LOGGING, PAGES, SCENES = "logging", "pages", "scenes"
Sent = list[tuple[str, Command]]


async def trainings(store: MongoDBStore, experiments: list[str], runs: int) -> list[str]:
    draw, ids = random.Random(1), []
    for number in range(runs):
        run = await store.create_run(draw.choice(experiments), "me", number, [RunTag("kind", "load")], "run")
        ids.append(run_id := run.info.run_id)
        await store.log_batch(run_id, [], [Param("lr", str(draw.random()))], [])
        for step in range(8):
            await store.log_metric(run_id, Metric("loss", draw.random(), step, step))
        await store.log_batch(run_id, [Metric(f"m{key}", 1.0, 1, 1) for key in range(10)], [], [])
        await store.update_run_info(run_id, RunStatus.FINISHED, number + 1, None)
    return ids


async def agents(store: MongoDBStore, experiments: list[str], traces: int) -> list[str]:
    draw, ids = random.Random(2), []
    for number in range(traces):
        experiment = draw.choice(experiments)
        trace = f"tr-{draw.getrandbits(128):032x}"
        await store.start_trace(stated(trace, experiment, start=number))
        await store.log_spans(experiment, [span(trace, each + 1) for each in range(4)])
        ids.append(trace)
    return ids


async def pages(store: MongoDBStore, experiments: list[str], runs: list[str], traces: list[str]) -> None:
    count = [MetricAggregation(AggregationType.COUNT)]
    for experiment in experiments:
        await store._search_runs([experiment], "", ViewType.ACTIVE_ONLY, 100, [], None)
        await store._search_runs([experiment], "metrics.loss < 0.5", ViewType.ACTIVE_ONLY, 100, [], None)
        await store.search_traces(locations=[experiment])
        await store.query_trace_metrics([experiment], MetricViewType.TRACES, "trace_count", count)
    for run in runs[:100]:
        await store.get_run(run)
        await store.get_metric_history(run, "loss")
    for trace in traces[:100]:
        await store.get_trace(trace)


async def record(uri: str, runs: int, traces: int, scenes: bool) -> dict[str, Sent]:
    sent: dict[str, Sent] = {}
    async with MongoDBStore(uri) as store:
        experiments = [await store.create_experiment(f"experiment {number}") for number in range(20)]
        with recorder.recording() as sent[LOGGING]:
            run_ids = await trainings(store, experiments, runs)
            trace_ids = await agents(store, experiments, traces)
        with recorder.recording() as sent[PAGES]:
            await pages(store, experiments, run_ids, trace_ids)
    if scenes:
        from tests.scenes import play
        from tests.trust.tour import World

        world = World(uri, tempfile.mkdtemp())
        with recorder.recording() as sent[SCENES]:
            await play(world)
        await world.close()
    return sent


def routed(sent: Sent, shards: int) -> dict[str, Any]:
    """How many commands ask one shard, several, or all, and how evenly the shards are asked."""
    cluster = Cluster(shards)
    kinds: Counter[str] = Counter()
    load: Counter[int] = Counter()
    broadcast: Counter[str] = Counter()
    documents: dict[str, Counter[int]] = defaultdict(Counter)
    for name, command in sent:
        route = cluster.route(name, command)
        if route is None:
            continue
        whole = route.collection not in cluster.keys
        kind = "whole" if whole else "one" if len(route.shards) == 1 else "some" if route.targeted else "all"
        kinds[kind] += 1
        if kind == "all":
            broadcast[f"{name} {route.collection}"] += 1
        if not whole:
            load.update(route.shards)
            if name == "insert" and kind == "one":
                documents[route.collection].update(route.shards)
    total = sum(kinds.values())
    open_ones = transactions(cluster, sent)
    return {
        "shards": shards,
        "commands": total,
        **{f"share {kind}": kinds[kind] / total for kind in ("one", "some", "all", "whole")},
        "transactions": len(open_ones),
        "transactions on several shards": sum(len(each) > 1 for each in open_ones.values()),
        "busiest to mean": max(load.values()) * shards / sum(load.values()),
        "most asked of all": dict(broadcast.most_common(5)),
    }


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| commands of | shards | commands | one shard | some | all | whole | transactions, of several shards"
    ]
    lines[0] += " | busiest shard to mean |"
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for load, rows in results.items():
        for row in rows:
            shares = " | ".join(f"{row[f'share {kind}']:.1%}" for kind in ("one", "some", "all", "whole"))
            wide = f"{row['transactions']}, {row['transactions on several shards']}"
            lines.append(
                f"| {load} | {row['shards']} | {row['commands']:,} | {shares} | {wide} "
                f"| {row['busiest to mean']:.2f} |"
            )
    for load, rows in results.items():
        asked = ", ".join(f"{name} ({count})" for name, count in rows[-1]["most asked of all"].items())
        lines.append(f"\nAsked of all shards by {load}: {asked or 'nothing'}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[2, 8, 64], help="how many shards")
    parser.add_argument("--runs", type=int, default=500, help="runs of the load")
    parser.add_argument("--traces", type=int, default=500, help="traces of the load")
    parser.add_argument("--scenes", action="store_true", help="also route the calls of the test suite")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, mongod(Path(folder)) as uri_of:
        sent = asyncio.run(record(uri_of("shards"), arguments.runs, arguments.traces, arguments.scenes))
    results = {load: [routed(each, shards) for shards in arguments.shards] for load, each in sent.items()}
    print(json.dumps(results, indent=2) if arguments.json else table(results))


if __name__ == "__main__":
    main()
