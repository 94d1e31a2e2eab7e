"""What metrics cost a ``log_metric``: the same call with the counters on and without them, in pairs.

    python benchmarks/metrics.py [--pairs 6000] [--rest 2]

One process, one run, two stores whose clients were made with the counters on and without; who counts is put
in and taken away between calls. The counters write to files, as in the processes of a server. The two
calls of a pair follow each other, in an order that changes, each after --rest milliseconds. Printed are the
medians, the median of the differences within pairs with the middle half of the medians of its twentieths,
and the same of the processor time. The thread that counts runs beside both.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from servers import mongod

ON, OFF = "with metrics", "without"
PARTS = 20

Call = Callable[[int], object]


def stores(uri: str, folder: str) -> tuple[dict[str, Call], Callable[[str], None]]:
    """A call of ``log_metric`` for each side, which has made some before; and what begins a side's turn."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    from mlflow.entities import Metric

    from genesis_flow import MongoDBStore
    from genesis_flow.mongo import observed

    calls: dict[str, Call] = {}
    run_id = None
    for side in (OFF, ON):
        if side == ON:
            from genesis_flow.mongo import counting

            counting.start()
        # Another name is another client.
        store = MongoDBStore(f"{uri}&appname={side.split()[0]}")
        run_id = run_id or store.create_run("0", "me", 1, [], None).info.run_id

        def log(number: int, store: MongoDBStore = store, run_id: str = run_id, key: str = side) -> None:
            store.log_metric(run_id, Metric(key, number / 7, number, number))

        for number in range(300):
            log(number)
        calls[side] = log
    observer = observed.observer
    assert observer is not None

    def turn(side: str) -> None:
        observed.observer = observer if side == ON else None

    return calls, turn


def measure(
    calls: dict[str, Call], turn: Callable[[str], None], pairs: int, rest: float
) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds and processor seconds of each call, by side."""
    draw = random.Random(1)
    taken: dict[str, tuple[list[float], list[float]]] = {side: ([], []) for side in calls}
    for number in range(1000, 1000 + pairs):
        for side in draw.sample([*calls], len(calls)):
            turn(side)
            time.sleep(rest)
            begun, used = time.perf_counter(), time.process_time()
            calls[side](number)
            taken[side][1].append(time.process_time() - used)
            taken[side][0].append(time.perf_counter() - begun)
    return taken


def compared(on: list[float], off: list[float]) -> str:
    differences = [a - b for a, b in zip(on, off, strict=True)]
    whole = statistics.median(off)
    length = max(len(differences) // PARTS, 1)
    parts = [
        statistics.median(differences[begin : begin + length]) for begin in range(0, len(differences), length)
    ]
    low, _, high = statistics.quantiles(parts, n=4)
    share = statistics.median(differences) / whole
    return (
        f"{1e6 * statistics.median(on):9.0f}{1e6 * whole:9.0f}{1e6 * statistics.median(differences):+8.0f}"
        f"{100 * share:+7.1f} %   ({100 * low / whole:+.1f} to {100 * high / whole:+.1f} %)"
    )


def counted_updates(folder: Path) -> float:
    """Of the side with metrics alone, if the sides are what they should be."""
    from genesis_flow.metrics.folder import Folder

    name = "genesis_flow_database_command_duration_seconds"
    samples = [sample for found in Folder(folder).collect() for sample in found.samples]
    return sum(
        each.value for each in samples if each.name == f"{name}_count" and each.labels["command"] == "update"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--rest", type=float, default=2.0, help="milliseconds before each call")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as counted,
        mongod(Path(folder)) as uri_of,
    ):
        calls, turn = stores(uri_of("metrics"), counted)
        taken = measure(calls, turn, given.pairs, given.rest / 1000)
        turn(ON)
        time.sleep(2)  # it is counted a little later
        print(f"counted: {counted_updates(Path(counted)):.0f} updates")
        print(f"{given.pairs} pairs of log_metric; microseconds")
        print(f"{'':10}{'with':>9}{'without':>9}{'more':>8}{'share':>9}")
        for index, name in enumerate(("time", "processor")):
            print(f"{name:10}{compared(taken[ON][index], taken[OFF][index])}")


if __name__ == "__main__":
    main()
