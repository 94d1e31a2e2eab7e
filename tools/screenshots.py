"""Take the pictures of the documentation: python tools/screenshots.py [FOLDER]

Starts `genesis-flow server` on an embedded database of its own, fills in a team's data, and writes PNGs of
MLflow's pages to docs/images unless another folder is named. Needs the extra `dev` and Debian's chromium.
"""

import argparse
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

from genesis_flow import embedded

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.browser import CHROMIUM_VARIABLE, Window, chromium, find_chromium, open_window  # noqa: E402
from tools.demo_data import ASSISTANT, CHURN, MODEL, Demo, fill  # noqa: E402

MOST_BYTES = 200_000
_COLOURS = 256
_SECONDS_TO_START = 120
# After what a page waits for is there, charts still move into place.
_SETTLE_MILLISECONDS = 1500

Shot = Callable[[Window, Demo], Page]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "images")
    folder: Path = parser.parse_args().folder
    executable = find_chromium()
    if executable is None:
        print(
            f"No Chromium: apt-get install chromium fonts-dejavu-core, or set {CHROMIUM_VARIABLE}.",
            file=sys.stderr,
        )
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    with running_server() as (address, uri), chromium(executable) as browser:
        demo = fill(uri)
        for name, shot in SHOTS.items():
            window = open_window(browser, address, width=1440, height=HEIGHTS.get(name, 860))
            page = shot(window, demo)
            page.wait_for_timeout(_SETTLE_MILLISECONDS)
            size = write(page.screenshot(), folder / f"{name}.png")
            window.close()
            print(f"{folder / name}.png  {size / 1000:.0f} kB", flush=True)
            if window.refused or size > MOST_BYTES:
                print(f"{name}: {window.refused or 'too large'}", file=sys.stderr)
                return 1
    return 0


@contextmanager
def running_server(
    *options: str, sql: bool = False, variables: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """Its address and the URI of its store, or those of MLflow on SQLite; nothing of it stays."""
    folder = Path(tempfile.mkdtemp(prefix="genesis-flow-screenshots-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"sqlite:///{folder}/mlflow.db" if sql else f"genesis://{folder}/data"
    program = ["mlflow", "server", "--default-artifact-root", f"file://{folder}/artifacts", "--workers", "1"]
    command = [sys.executable, "-m", *(program if sql else ("genesis_flow.cli", "server"))]
    command += ["--backend-store-uri", uri, "--port", str(port), *options]
    started = "Application startup complete" if sql else "MLflow is at"
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **(variables or {})}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + _SECONDS_TO_START
            while started not in (said := (folder / "log").read_text()):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"The server did not start:\n{said}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}", uri
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            if not sql:
                embedded.stop(folder / "data", force=True)
            shutil.rmtree(folder)


def write(png: bytes, path: Path) -> int:
    """The picture with a palette, a third of its size and no difference to be seen."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return path.stat().st_size


def run_table(window: Window, demo: Demo) -> Page:
    page = window.go(f"/experiments/{demo.experiments[CHURN]}/runs")
    page.locator(".ag-pinned-left-cols-container .ag-row").first.wait_for()
    choose_columns(
        page,
        show=("validation_accuracy", "validation_loss", "auc", "family", "learning_rate", "max_depth"),
        hide=("Dataset", "Source", "Models"),
    )
    page.locator(".ag-header-cell").filter(has_text="validation_accuracy").click()
    page.mouse.click(900, 10)
    return page


def choose_columns(page: Page, show: tuple[str, ...], hide: tuple[str, ...]) -> None:
    page.get_by_role("button", name="Columns", exact=True).click()
    for name in (*show, *hide):
        page.get_by_placeholder("Search columns").fill(name)
        page.locator("[class*=tree-treenode]").filter(has_text=name).last.click()
    page.mouse.click(900, 10)


def charts(window: Window, demo: Demo) -> Page:
    page = window.go(f"/experiments/{demo.experiments[CHURN]}/runs?compareRunsMode=CHART")
    page.locator(".js-plotly-plot .main-svg").nth(3).wait_for()
    return page


def run_metrics(window: Window, demo: Demo) -> Page:
    page = window.go(f"/experiments/{demo.experiments[CHURN]}/runs/{demo.runs[CHURN][6]}/model-metrics")
    page.locator(".js-plotly-plot .main-svg").nth(3).wait_for()
    return page


def compare(window: Window, demo: Demo) -> Page:
    runs = "[" + ",".join(f'"{run_id}"' for run_id in demo.runs[CHURN][2:]) + "]"
    page = window.go(f'/compare-runs?runs={runs}&experiments=["{demo.experiments[CHURN]}"]')
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    return page


def registry(window: Window, demo: Demo) -> Page:
    page = window.go(f"/models/{MODEL}")
    page.get_by_text("challenger").first.wait_for()
    return page


def traces(window: Window, demo: Demo) -> Page:
    page = window.go(f"/experiments/{demo.experiments[ASSISTANT]}/traces")
    page.get_by_text("24 of 24").wait_for()
    return page


def trace(window: Window, demo: Demo) -> Page:
    page = traces(window, demo)
    page.get_by_text("How can I export my data?").first.click()
    page.get_by_text("generate", exact=True).first.click()
    page.get_by_text("How can I help?").first.wait_for()
    return page


def usage(window: Window, demo: Demo) -> Page:
    page = window.go(f"/experiments/{demo.experiments[ASSISTANT]}/overview/usage?workflowType=genai")
    page.get_by_text(re.compile("Overall error rate")).wait_for()
    page.locator("svg.recharts-surface").first.wait_for()
    return page


SHOTS: dict[str, Shot] = {
    "runs": run_table,
    "charts": charts,
    "run-metrics": run_metrics,
    "compare": compare,
    "registry": registry,
    "traces": traces,
    "trace": trace,
    "usage": usage,
}

# Four charts in two rows.
HEIGHTS = {"charts": 1100}

if __name__ == "__main__":
    sys.exit(main())
