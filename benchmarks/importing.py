"""Imports: an mlruns tree and a SQLite database, against `mlflow migrate-filestore` on the same tree.

    python benchmarks/importing.py                                     500 runs, 1,000,000 points
    python benchmarks/importing.py --runs 10000 --points 5000000 --only ours
    python benchmarks/importing.py --runs 1 --metrics 1 --points 10000000 --only ours    one long run: memory
    python benchmarks/importing.py --runs 100000 --points 0 --only ours                  many runs: memory

Every step is a process of its own, from start to end, with one worker; seconds are those of the clock on the
wall, memory is the most that the process ever held. It makes its own MongoDB (a replica set of one node) in
the folder --scratch, and needs the extra `dev`. Read the ratio; everything else belongs to the machine.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import pymongo

from genesis_flow import embedded

NOW = 1_700_000_000_000
RUN_META = """artifact_uri: file://{folder}/artifacts
end_time: {end}
entry_point_name: ''
experiment_id: '{experiment}'
lifecycle_stage: active
run_id: {run_id}
run_name: run-{number}
source_name: ''
source_type: 4
source_version: ''
start_time: {start}
status: 3
tags: []
user_id: someone
"""
EXPERIMENT_META = """artifact_location: file://{folder}
creation_time: {now}
experiment_id: '{experiment}'
last_update_time: {now}
lifecycle_stage: active
name: {name}
"""


def make_tree(root: Path, runs: int, points: int, metrics: int) -> None:
    """As MLflow's file store writes it: runs in four experiments, 10 params and 5 tags each."""
    chance = random.Random(7)
    for experiment in range(4):
        folder = root / str(experiment)
        folder.mkdir(parents=True)
        name = f"experiment {experiment}" if experiment else "Default"
        meta = EXPERIMENT_META.format(folder=folder, experiment=experiment, name=name, now=NOW)
        (folder / "meta.yaml").write_text(meta)
    for number in range(runs):
        run_id = uuid.UUID(int=chance.getrandbits(128)).hex
        folder = root / str(number % 4) / run_id
        for part in ("params", "tags", "metrics", "artifacts"):
            (folder / part).mkdir(parents=True)
        start = NOW + number * 1_000
        meta = RUN_META.format(
            folder=folder, experiment=number % 4, run_id=run_id, number=number, start=start, end=start + 900
        )
        (folder / "meta.yaml").write_text(meta)
        for param in range(10):
            (folder / "params" / f"param_{param}").write_text(str(chance.random()))
        for tag in range(4):
            (folder / "tags" / f"tag_{tag}").write_text(f"value {chance.randrange(100)}")
        (folder / "tags" / "mlflow.runName").write_text(f"run-{number}")
        of_run = points // runs + (number < points % runs)
        for metric in range(metrics):
            steps = of_run // metrics + (metric < of_run % metrics)
            with (folder / "metrics" / f"metric_{metric}").open("w") as file:
                file.writelines(f"{start + 7 * step} {chance.random()} {step}\n" for step in range(steps))
            if not steps:
                (folder / "metrics" / f"metric_{metric}").unlink()


def run(command: list[str], scratch: Path) -> dict[str, Any]:
    """Run a process: its seconds, its memory in MB, what it printed."""
    environment = os.environ | {"MLFLOW_ALLOW_FILE_STORE": "true"}
    out = scratch / "out.txt"
    with out.open("w") as file:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{out.read_text()[-3000:]}")
    return {"seconds": seconds, "memory_mb": usage.ru_maxrss / 1024, "text": out.read_text()}


def ours(uri: str, source: str, scratch: Path, *options: str) -> dict[str, Any]:
    base = [sys.executable, "-m", "genesis_flow.cli.migrate", "--uri", uri, "-q", "import", source, "--json"]
    done = run([*base, *options], scratch)
    done["answer"] = json.loads(done.pop("text"))
    return done


def bytes_of_points(uri: str) -> int:
    """On disk, indexes included."""
    with pymongo.MongoClient(uri) as client:
        client.admin.command("fsync")
        database = client.get_default_database()
        names = set(database.list_collection_names())
        sizes = [
            database.command("collStats", name) for name in ("metrics", "latest_metrics") if name in names
        ]
    return sum(size["storageSize"] + size["totalIndexSize"] for size in sizes)


def shares(seconds: dict[str, float]) -> str:
    total = sum(seconds.values()) or 1.0
    return ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items())


def measure(source: str, server: str, points: int, scratch: Path) -> dict[str, Any]:
    """Import, import again, verify."""
    uri = server.replace("/?", f"/bench_{uuid.uuid4().hex[:8]}?")
    imported = ours(uri, source, scratch, "--workers", "1")
    size = bytes_of_points(uri)
    again = ours(uri, source, scratch)
    verified = ours(uri, source, scratch, "--verify")
    answer = imported["answer"]
    return {
        "seconds": imported["seconds"],
        "seconds_of_the_import_alone": answer["elapsed_seconds"],
        "points_per_second": points / imported["seconds"],
        "points_per_second_of_the_import_alone": points / answer["elapsed_seconds"],
        "bytes_per_point": size / points if points else None,
        "memory_mb": imported["memory_mb"],
        "shares": shares(answer["seconds"]),
        "again_seconds": again["seconds"],
        "verify_seconds": verified["seconds"],
        "verify_memory_mb": verified["memory_mb"],
        "verified_equal": verified["answer"]["equal"],
    }


def migrate_filestore(root: Path, database: Path, points: int, scratch: Path) -> dict[str, Any]:
    target = f"sqlite:///{database}"
    command = [sys.executable, "-m", "mlflow", "migrate-filestore", "--source", str(root), "--target", target]
    done = run([*command, "--no-progress"], scratch)
    return {
        "seconds": done["seconds"],
        "points_per_second": points / done["seconds"],
        "bytes_per_point": database.stat().st_size / points if points else None,
        "memory_mb": done["memory_mb"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--metrics", type=int, default=10, help="metrics of each run")
    parser.add_argument("--only", choices=["ours"], help="leave out `mlflow migrate-filestore` and SQLite")
    parser.add_argument(
        "--scratch", type=Path, help="where trees and databases are made; else a temporary folder"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="genesis-flow-bench-", dir=options.scratch))
    try:
        results = measured(options, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        tell(results)


def measured(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    root = scratch / "mlruns"
    make_tree(root, options.runs, options.points, options.metrics)
    results: dict[str, Any] = {"runs": options.runs, "points": options.points}
    server = embedded.acquire(scratch / "data", timeout=60)
    try:
        results["tree"] = measure(root.as_uri(), server.uri, options.points, scratch)
        if options.only is None:
            database = scratch / "mlflow.db"
            results["migrate-filestore"] = migrate_filestore(root, database, options.points, scratch)
            results["sqlite"] = measure(f"sqlite:///{database}", server.uri, options.points, scratch)
            results["ratio"] = results["migrate-filestore"]["seconds"] / results["tree"]["seconds"]
    finally:
        server.release()
    return results


def tell(results: dict[str, Any]) -> None:
    print(f"{results['runs']:,} runs, {results['points']:,} points, one worker")
    for name in ("migrate-filestore", "tree", "sqlite"):
        for key, value in results.get(name, {}).items():
            text = f"{value:,.1f}" if isinstance(value, float) else value
            print(f"{name:<18} {key:<38} {text}")
    if "ratio" in results:
        print(f"{'ratio':<18} migrate-filestore's seconds over ours    {results['ratio']:.1f}")


if __name__ == "__main__":
    main()
