"""``genesis-flow quickstart``: from nothing to logged runs in one command."""

import json
import os
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genesis_flow.cli.directory import DataDirectory
from genesis_flow.cli.training import MOST_CHOICES

if TYPE_CHECKING:
    from mlflow.entities import Run

    from genesis_flow.cli.sweep import Sweep

# The extra `server` asks for it. The extra itself is not named: another project owns this project's name
# on the public index, and a pip that does not find genesis-flow installed would fetch that one.
SERVER_REQUIREMENTS = ("mlflow[auth]>=3.17,<4", "python-multipart>=0.0.18,<1")
INSTALL_SERVER = "pip install " + " ".join(f'"{each}"' for each in SERVER_REQUIREMENTS)

_COLUMNS = ("degree", "learning_rate", "validation_accuracy", "validation_loss", "train_loss")


@click.command(epilog="Run it again to add a sweep to the same experiment.")
@click.argument("directory", type=DataDirectory(), default="genesis-data")
@click.option(
    "--runs",
    type=click.IntRange(1, MOST_CHOICES),
    default=4,
    show_default=True,
    help="How many hyperparameter choices to train.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def quickstart(directory: Path, runs: int, as_json: bool) -> None:
    """Log a small training to an embedded MongoDB.

    Starts the database in DIRECTORY (./genesis-data unless given), trains a few classifiers with different
    hyperparameters, logs their params, metric curves and artifacts with MLflow, searches the runs, and says
    how to go on with your own code.
    """
    # As Settings does: a link to a data directory keeps the name the user chose.
    directory = Path(os.path.abspath(directory))  # noqa: PTH100
    uri = embedded_uri(directory)
    if not as_json:
        click.echo(f"Logging a small training to {uri}")
    begin = time.monotonic()
    try:
        from genesis_flow.cli.sweep import log_sweep  # imports MLflow, for which --help need not wait

        imported = time.monotonic()
        sweep = log_sweep(uri, runs)
    except KeyboardInterrupt:
        click.echo(f"Interrupted. {_left_behind(directory)}", err=True)
        raise
    if as_json:
        click.echo(json.dumps(summary(directory, sweep), indent=2))
        return
    click.echo("\n".join(account(directory, sweep, seconds_to_import=imported - begin)))


def _left_behind(directory: Path) -> str:
    if not directory.exists():
        return "Nothing was logged."
    quoted = shlex.quote(str(directory))
    return (
        f"What was logged so far stays in {directory}; to delete it: "
        f"genesis-flow db stop {quoted} && rm -r {quoted}"
    )


def embedded_uri(directory: Path) -> str:
    """The store URI of the embedded MongoDB in an absolute ``directory``."""
    return "genesis" + directory.as_uri().removeprefix("file")


def summary(directory: Path, sweep: "Sweep") -> dict[str, Any]:
    """What the quickstart did, for programs."""
    from genesis_flow.cli.sweep import EXPERIMENT, FILTER

    return {
        "uri": embedded_uri(directory),
        "directory": str(directory),
        "data_bytes": _size(directory / "db"),
        "artifact_bytes": _size(directory / "artifacts"),
        "experiment": {"id": sweep.experiment_id, "name": EXPERIMENT, "runs": sweep.runs_in_experiment},
        "parent_run_id": sweep.parent_run_id,
        "runs": [
            {
                "run_id": run.info.run_id,
                "name": run.info.run_name,
                "status": run.info.status,
                "params": run.data.params,
                "metrics": run.data.metrics,
            }
            for run in sweep.runs
        ],
        "best_run_id": sweep.runs[0].info.run_id,
        "filter": {"query": FILTER, "run_ids": [run.info.run_id for run in sweep.matching]},
        "metric_points": sweep.points,
        "seconds": {"open": round(sweep.seconds_to_open, 3), "log": round(sweep.seconds_to_log, 3)},
    }


def account(directory: Path, sweep: "Sweep", seconds_to_import: float) -> list[str]:
    """What was done, where it is, and what can be done next, for people."""
    from genesis_flow.cli.sweep import EXPERIMENT, FILTER, SORTED_BY

    best = sweep.runs[0]
    return [
        f"  imported MLflow              {seconds_to_import:6.1f} s",
        f"  opened the database          {sweep.seconds_to_open:6.1f} s",
        f"  trained and logged {len(sweep.runs):2d} runs   {sweep.seconds_to_log:6.1f} s   "
        f"({sweep.points} metric points, {len(sweep.runs) * 2 + 1} artifacts)",
        "",
        f'The runs, best first (experiment "{EXPERIMENT}", {sweep.runs_in_experiment} with the parent runs)',
        "",
        *("  " + line for line in _table(sweep.runs)),
        "",
        f"  ordered by  {', '.join(SORTED_BY)}",
        f"  best        {best.info.run_name} ({best.info.run_id})",
        f"  filter      {FILTER}: {len(sweep.matching)} of {len(sweep.runs)} runs",
        "",
        *_what_next(directory, best),
    ]


def _what_next(directory: Path, best: "Run") -> list[str]:
    from genesis_flow.cli.sweep import EXPERIMENT

    uri, quoted = embedded_uri(directory), shlex.quote(str(directory))
    return [
        "Where the data lies",
        f"  {directory / 'db'}  the database, {_readable(_size(directory / 'db'))}",
        f"  {directory / 'artifacts'}  charts and models, {_readable(_size(directory / 'artifacts'))}",
        f"  a chart to look at: {best.info.artifact_uri}/loss.svg",
        "",
        "Look at it in MLflow's UI",
        f"  {INSTALL_SERVER}",
        f"  genesis-flow server --backend-store-uri {shlex.quote(uri)}",
        "",
        "Log from your own code",
        "  import mlflow",
        f"  mlflow.set_tracking_uri({uri!r})",
        '  mlflow.log_metric("loss", 0.1)',
        f'  mlflow.search_runs(experiment_names=["{EXPERIMENT}"], output_format="list")',
        "",
        "Look at runs in the terminal",
        f"  genesis-flow runs {EXPERIMENT} --uri {shlex.quote(uri)}",
        f"  genesis-flow show {best.info.run_id[:8]} --uri {shlex.quote(uri)}",
        "",
        "The database stops by itself when no program uses it. Delete everything",
        f"  genesis-flow db stop {quoted} && rm -r {quoted}",
    ]


def _table(runs: "list[Run]") -> list[str]:
    """Aligned text columns."""
    rows = [["run", *_COLUMNS]]
    for run in runs:
        values = {**run.data.params, **{key: f"{value:.3f}" for key, value in run.data.metrics.items()}}
        rows.append([run.info.run_name, *(values.get(column, "") for column in _COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _size(folder: Path) -> int:
    """Bytes in the files below ``folder``; the database may remove some while they are counted."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _readable(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
