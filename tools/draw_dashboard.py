"""Draw the dashboard from what a real Prometheus saw of a real server: python tools/draw_dashboard.py [FILE]

Starts `genesis-flow server --metrics` on an embedded database of its own and a Prometheus beside it, has a
few clients work for --seconds, and draws panels of tools/gen_dashboard.py into docs/images/dashboard.svg
unless another file is named. Needs the extra `dev` and Prometheus (tools/prometheus.py).
"""

import argparse
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as pyplot
from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from genesis_flow import embedded  # noqa: E402
from tools import gen_dashboard, prometheus  # noqa: E402

SHOWN = (
    *("Requests by route", "Time of a request", "Requests by status", "Requests in flight"),
    *("Commands", "Time of a command, 19 of 20"),
)
STEP_SECONDS = 2.0
_SECONDS_TO_START = 120
_MOST_NAMES = 6
_UNITS = {"reqps": "a second", "ops": "a second", "s": "ms", "none": ""}
Series = dict[str, tuple[list[float], list[float]]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "docs" / "images" / "dashboard.svg")
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    program = prometheus.find()
    if program is None:
        raise SystemExit("Prometheus is missing: python tools/prometheus.py .ci/prometheus")
    with tempfile.TemporaryDirectory() as name:
        target = free_port()
        with (
            server(Path(name), target) as address,
            prometheus.running(program, f"127.0.0.1:{target}", free_port()) as watcher,
        ):
            begun = time.time()
            work(address, given.seconds)
            draw(watcher, begun, time.time(), given.file)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(folder: Path, metrics: int) -> Iterator[str]:
    port = free_port()
    options = ["--uri", f"genesis://{folder}/data", "--port", str(port), "--workers", "2"]
    options += ["--metrics", "--metrics-address", f"127.0.0.1:{metrics}"]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "genesis_flow.cli", "server", *options],
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + _SECONDS_TO_START
        while "MLflow is at" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        embedded.stop(folder / "data", force=True)


def work(address: str, seconds: float) -> None:
    """Three who train, and one who looks at what they do."""
    ends = time.monotonic() + seconds
    threads = [threading.Thread(target=train, args=(address, ends, seed)) for seed in range(3)]
    threads.append(threading.Thread(target=look, args=(address, ends)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def train(address: str, ends: float, seed: int) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client, dice = MlflowClient(address), random.Random(seed)
    while time.monotonic() < ends:
        run_id = client.create_run("0").info.run_id
        client.log_batch(run_id, params=[Param(f"p{number}", str(dice.random())) for number in range(10)])
        for step in range(dice.randrange(50, 200)):
            client.log_metric(run_id, "loss", 1 / (step + 1), step=step)
            if step % 10 == 0:
                points = [Metric(f"m{number}", dice.random(), 0, step) for number in range(20)]
                client.log_batch(run_id, metrics=points)
            if time.monotonic() > ends:
                break
            time.sleep(dice.uniform(0, 0.05))
        client.set_terminated(run_id)
        time.sleep(dice.uniform(0, 5))


def look(address: str, ends: float) -> None:
    import requests
    from mlflow import MlflowClient

    client, dice = MlflowClient(address), random.Random(7)
    while time.monotonic() < ends:
        runs = client.search_runs(["0"], order_by=["metrics.loss ASC"], max_results=50)
        if runs:
            client.get_metric_history(dice.choice(runs).info.run_id, "loss")
        requests.get(f"{address}/ajax-api/3.0/jobs/none", timeout=10)
        time.sleep(dice.uniform(0, 0.5))


def draw(watcher: prometheus.Prometheus, begin: float, end: float, file: Path) -> None:
    panels = {panel.title: panel for panel in gen_dashboard.panels()}
    matplotlib.rcParams.update(
        {
            "font.size": 8,
            "svg.hashsalt": "genesis-flow",
            "svg.fonttype": "none",
            "axes.grid": True,
            "grid.alpha": 0.3,
        }
    )
    figure, axes = pyplot.subplots(3, 2, figsize=(11, 8), layout="constrained")
    for title, axis in zip(SHOWN, axes.flat, strict=True):
        panel = panels[title]
        draw_panel(axis, panel, found(watcher, panel, begin, end), begin)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    print(f"{file}: {file.stat().st_size // 1000} kB")


def found(watcher: prometheus.Prometheus, panel: gen_dashboard.Panel, begin: float, end: float) -> Series:
    series: Series = {}
    for name, text in panel.queries.items():
        query = gen_dashboard.query_for(text, interval="10s")
        for each in watcher.query_range(query, begin + 5, end, STEP_SECONDS):
            told = re.sub(r"\{(\w+)\}", lambda match, labels=each["metric"]: labels.get(match[1], ""), name)
            values = [float(value) for _, value in each["values"]]
            series[told] = ([float(moment) for moment, _ in each["values"]], values)
    return series


def draw_panel(axis: Axes, panel: gen_dashboard.Panel, series: Series, begin: float) -> None:
    axis.set_title(panel.title, loc="left", fontweight="bold")
    scale = 1000.0 if panel.unit == "s" else 1.0
    shown = sorted(series.items(), key=lambda each: -sum(filter(math.isfinite, each[1][1])))[:_MOST_NAMES]
    for name, (moments, values) in shown:
        times = [moment - begin for moment in moments]
        axis.plot(times, [value * scale for value in values], label=name, linewidth=1.1)
    # Room for the names above the lines.
    axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * 1.5)
    axis.set_ylabel(_UNITS[panel.unit])
    axis.legend(fontsize=6, loc="upper right", framealpha=0.8, ncols=2)


if __name__ == "__main__":
    main()
