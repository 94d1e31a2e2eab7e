"""From ``log_metric`` to the watcher: how long it takes until a point that was logged is told.

    python benchmarks/watch.py [--watchers 1 100] [--points 300] [--pause 0.02]

A process of its own logs, with a pause between two points, and says in each point's value when it began to
log it. Watchers, all in one other process, take the time at which each is told. Printed are the median, the
95th percentile and the longest of all watchers and points, and the processor time of the watching process for
each event.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from servers import mongod


def log(uri: str, run_id: str, points: int, pause: float) -> None:
    """Log points whose values are the times at which each was begun."""
    from mlflow.entities import Metric

    from genesis_flow import MongoDBStore

    store = MongoDBStore(uri)
    store.get_run(run_id)
    for step in range(points):
        time.sleep(pause)
        store.log_metric(run_id, Metric("began", time.time(), step, step))
    store.log_metric(run_id, Metric("last", 1.0, 1, 1))


async def watch(uri: str, watchers: int, points: int, pause: float) -> None:
    from genesis_flow.aio import MongoDBStore
    from genesis_flow.watching import MetricLogged, Watch

    async def read(watch: Watch) -> list[float]:
        waited: list[float] = []
        async for event in watch:
            now = time.time()
            if isinstance(event, MetricLogged):
                if event.key == "last":
                    break
                waited += [now - point.value for point in event.points]
        return waited

    async with MongoDBStore(uri) as store:
        run_id = (await store.create_run("0")).info.run_id
        watches = [store.watch(run_ids=[run_id], start="now") for _ in range(watchers)]
        await asyncio.gather(*(each.begin() for each in watches))
        reading = [asyncio.create_task(read(each)) for each in watches]
        logger = multiprocessing.get_context("spawn").Process(target=log, args=(uri, run_id, points, pause))
        logger.start()
        begun = time.process_time()
        waited = [each for told in await asyncio.gather(*reading) for each in told]
        used = time.process_time() - begun
        await asyncio.to_thread(logger.join)
    if len(waited) != watchers * points:
        raise SystemExit(f"{len(waited)} points were told, not {watchers * points}")
    ordered = sorted(waited)
    print(
        f"{watchers:>5} watchers: median {statistics.median(ordered) * 1000:.1f} ms, "
        f"95th percentile {ordered[int(len(ordered) * 0.95)] * 1000:.1f} ms, "
        f"longest {ordered[-1] * 1000:.1f} ms; "
        f"{used / len(waited) * 1e6:.0f} us of the processor for each event"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--watchers", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--points", type=int, default=300)
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two points")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, mongod(Path(folder)) as uri_of:
        for watchers in options.watchers:
            asyncio.run(watch(uri_of(f"watch_{watchers}"), watchers, options.points, options.pause))


if __name__ == "__main__":
    main()
