"""Long curves and small points: 320 points out of histories of several lengths, bytes a point on disk, and
the processor time of packing, on the embedded MongoDB.

python benchmarks/curves.py [--lengths 10000 100000 1000000] [--json]

Values are as a training makes them: float32 in float64, steps that rise by one, nearly regular timestamps.
"""

import argparse
import json
import math
import random
import statistics
import struct
import tempfile
import time
from array import array
from pathlib import Path

import pymongo
from mlflow.entities import Metric

from genesis_flow import MongoDBStore, embedded
from genesis_flow.areas.metrics.packing import Packed, encode

ASKED = 320
REPETITIONS = 15
BATCH = 1_000
NOW = 1_700_000_000_000
PACKED = (129, 1_024)


def points(count: int) -> list[Metric]:
    """A loss that falls, with noise, at steps of about a quarter of a second."""
    rng = random.Random(count)
    moment, made = NOW, []
    for step in range(count):
        moment += max(1, round(rng.gauss(250, 8)))
        loss = 2 * math.exp(-step / count * 3) + 0.3 + rng.gauss(0, 0.05)
        made.append(Metric("loss", struct.unpack("<f", struct.pack("<f", loss))[0], moment, step))
    return made


def milliseconds(store: MongoDBStore, run: str, start: int | None, end: int | None) -> float:
    times = []
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        found = store.get_metric_history_bulk_interval([run], "loss", ASKED, start, end)
        times.append((time.perf_counter() - begin) * 1000)
        assert len(found) == ASKED
    return statistics.median(times)


def bytes_on_disk(client: "pymongo.MongoClient[dict[str, object]]") -> tuple[int, int]:
    """Of documents and of indexes, after a checkpoint."""
    client.admin.command("fsync")
    stats = client["mlflow"].command("collStats", "metrics")
    return int(stats["storageSize"]), int(stats["totalIndexSize"])


def curve(length: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="gf-curves-") as folder:
        directory = Path(folder, "data")
        store = MongoDBStore(f"genesis://{directory}")
        run = store.create_run("0", "someone", NOW, [], None).info.run_id
        made = points(length)
        begin = time.perf_counter()
        for start in range(0, length, BATCH):
            store.log_batch(run, made[start : start + BATCH], [], [])
        seconds = time.perf_counter() - begin
        with pymongo.MongoClient[dict[str, object]](embedded.status(directory).uri) as client:
            documents, indexes = bytes_on_disk(client)
        return {
            "points": length,
            "points a second written": length / seconds,
            "ms, 320 of all": milliseconds(store, run, None, None),
            "ms, 320 of the half in the middle": milliseconds(store, run, length // 4, 3 * length // 4),
            "bytes a point": (documents + indexes) / length,
            "bytes a point, of these index": indexes / length,
        }


def packing() -> list[dict[str, float]]:
    rows = []
    for size in PACKED:
        made = points(size)
        columns = (
            array("q", [each.timestamp for each in made]),
            array("q", [each.step for each in made]),
            array("d", [each.value for each in made]),
        )
        packed = encode(*columns)
        rows.append(
            {
                "points": size,
                "bytes a point": len(packed) / size,
                "microseconds to pack": microseconds(lambda columns=columns: encode(*columns)),
                "microseconds to unpack": microseconds(
                    lambda packed=packed, size=size: Packed(packed, size).columns()
                ),
                "microseconds to find one point": microseconds(
                    lambda packed=packed, size=size: Packed(packed, size).point(size // 2)
                ),
            }
        )
    return rows


def microseconds(call: "object", times: int = 500) -> float:
    begin = time.process_time()
    for _ in range(times):
        call()  # type: ignore[operator]
    return (time.process_time() - begin) * 1e6 / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = {"packing": packing(), "curves": [curve(length) for length in arguments.lengths]}
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for rows in result.values():
        for row in rows:
            print(", ".join(f"{name} {value:,.2f}" for name, value in row.items()))


if __name__ == "__main__":
    main()
