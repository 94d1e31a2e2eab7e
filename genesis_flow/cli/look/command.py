"""``genesis-flow runs``, ``show`` and ``compare``: runs in a terminal."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from genesis_flow.cli.look import text
from genesis_flow.cli.look.text import plain

if TYPE_CHECKING:
    from mlflow.entities import Run

    from genesis_flow.cli.look.artifacts import Artifacts
    from genesis_flow.cli.look.reader import Detail, Page

_MOST_RUNS = 1000
_CURVE = 24
_SHORT_ID = 8
_OWN_TAGS = "mlflow."
_MISSING = "-"

database = click.option(
    "--uri",
    metavar="URI",
    help="mongodb://host/database[#prefix] or genesis:///dir. Else the environment (MLFLOW_TRACKING_URI, "
    "GENESIS_FLOW_MONGODB_URI), else mlflow.conf, else ./genesis-data.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
_settings = {"max_content_width": 100}


def _looking(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all three have."""
    return database(_json(command))


@click.command(context_settings=_settings)
@click.argument("experiment", required=False)
@click.option("--filter", "filter_string", default="", metavar="FILTER", help="As in mlflow.search_runs.")
@click.option(
    "--order-by",
    multiple=True,
    metavar="COLUMN [ASC|DESC]",
    help="As in mlflow.search_runs; may be given several times. Newest first unless given.",
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, _MOST_RUNS),
    default=20,
    show_default=True,
    help="How many runs to show at most.",
)
@click.option("--deleted", is_flag=True, help="Show deleted runs instead.")
@_looking
def runs(
    uri: str | None,
    experiment: str | None,
    filter_string: str,
    order_by: tuple[str, ...],
    limit: int,
    deleted: bool,
    as_json: bool,
) -> None:
    """List runs, newest first.

    EXPERIMENT is a name or an id; without it, the runs of all experiments are listed. In a terminal as many
    metrics and params are shown as find room; elsewhere all are, with whole ids.

    \b
    Examples:
      genesis-flow runs
      genesis-flow runs "first steps" --order-by "metrics.loss ASC" -n 5
      genesis-flow runs --filter "metrics.accuracy > 0.9 and params.depth = '3'"
      genesis-flow runs --uri mongodb://db/mlflow --json
    """
    from genesis_flow.cli.look import answers, reader  # import MLflow: --help need not wait

    page = reader.read(
        uri, lambda of: of.page(experiment, filter_string, list(order_by), limit, reader.VIEWS[deleted])
    )
    if as_json:
        shown = [answers.of_run(run, page.experiments[run.info.experiment_id]) for run in page.runs]
        click.echo(answers.dumped({"runs": shown, "has_more": page.has_more}))
        return
    _echo(_run_table(page, text.terminal_width(), with_experiment=experiment is None))


@click.command(context_settings=_settings)
@click.argument("run")
@_looking
def show(uri: str | None, run: str, as_json: bool) -> None:
    """Show a run: params, metrics with their curves, tags, artifacts.

    RUN is a run's id, the beginning of one, or a name, if it means one run only.

    \b
    Examples:
      genesis-flow show 3f2a91c0
      genesis-flow show "degree 3, rate 0.3"
      genesis-flow show 3f2a91c0 --json
    """
    from genesis_flow.cli.look import answers, artifacts, reader  # import MLflow: --help need not wait

    (detail,) = reader.read(uri, lambda of: of.details([run]))
    files = artifacts.listed(detail.run.info.artifact_uri)
    if as_json:
        click.echo(answers.dumped(answers.of_detail(detail, files)))
        return
    _echo(_account(detail, files, text.terminal_width()))


@click.command(context_settings=_settings)
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--all", "with_equal", is_flag=True, help="Show params and tags that do not differ, too.")
@_looking
def compare(uri: str | None, runs: tuple[str, ...], with_equal: bool, as_json: bool) -> None:
    """Compare runs: what differs in params and metrics.

    Each RUN is a run's id, the beginning of one, or a name, if it means one run only. With two runs the
    difference of each metric is shown, the second less the first.

    \b
    Examples:
      genesis-flow compare 3f2a91c0 77ab
      genesis-flow compare "rate 0.3" "rate 0.03" "rate 0.003" --all
      genesis-flow compare 3f2a91c0 77ab --json
    """
    if len(runs) < 2:
        raise click.UsageError("Name two runs or more to compare.")
    from genesis_flow.cli.look import answers, reader  # import MLflow: --help need not wait

    details = reader.read(uri, lambda of: of.details(list(runs)))
    if as_json:
        click.echo(answers.dumped(_differences(details)))
        return
    _echo(_comparison(details, with_equal, text.terminal_width()))


def _echo(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line)


def _run_table(page: "Page", width: int | None, *, with_experiment: bool) -> list[str]:
    if not page.runs:
        return ["No runs."]
    used: dict[str, Counter[str]] = {"metrics": Counter(), "params": Counter()}
    for run in page.runs:
        used["metrics"].update(run.data.metrics.keys())
        used["params"].update(run.data.params.keys())
    # Keys that most of the runs have come first, because the last columns may find no room.
    metrics, params = ([key for key, _ in used[kind].most_common()] for kind in ("metrics", "params"))
    where = ["experiment"] if with_experiment else []
    fixed = ["run", "name", *where, "status", "started", "took"]
    rows = [[*fixed, *map(plain, metrics), *map(plain, params)]]
    for run in page.runs:
        info = run.info
        named = [plain(page.experiments[info.experiment_id])] if with_experiment else []
        rows.append(
            [
                info.run_id[: None if width is None else _SHORT_ID],
                plain(info.run_name or ""),
                *named,
                info.status,
                text.moment(info.start_time),
                text.duration(info.start_time, info.end_time),
                *(_metric(run, key) for key in metrics),
                *(plain(run.data.params.get(key, _MISSING)) for key in params),
            ]
        )
    lines, left_out = text.table(rows, width, keeps=len(fixed))
    if left_out:
        lines.append(text.cut(f"({left_out} more columns: `genesis-flow show RUN`)", width))
    if page.has_more:
        lines.append(text.cut(f"(there are more runs than these {len(page.runs)}: --limit)", width))
    return lines


def _metric(run: "Run", key: str) -> str:
    return text.number(run.data.metrics[key]) if key in run.data.metrics else _MISSING


def _account(detail: "Detail", artifacts: "Artifacts", width: int | None) -> list[str]:
    info, data = detail.run.info, detail.run.data
    head = [
        ["run", info.run_id],
        ["name", plain(info.run_name or "")],
        ["experiment", f"{plain(detail.experiment)} ({info.experiment_id})"],
        ["status", info.status if info.lifecycle_stage == "active" else f"{info.status}, deleted"],
        ["started", text.moment(info.start_time)],
        ["took", text.duration(info.start_time, info.end_time)],
        ["user", plain(info.user_id or "")],
    ]
    params = [[plain(key), plain(value)] for key, value in sorted(data.params.items())]
    tags = [[plain(key), plain(value)] for key, value in sorted(data.tags.items())]
    files = [
        [plain(file.path) + ("/" if file.is_dir else ""), "" if file.bytes is None else f"{file.bytes:,}"]
        for file in artifacts.files
    ]
    # MLflow's own tags come last: people look for those that they wrote.
    tags.sort(key=lambda tag: tag[0].startswith(_OWN_TAGS))
    lines = [text.cut(f"{key:<10}  {value}".rstrip(), width) for key, value in head if value]
    lines += _section("Params", params, width)
    lines += _section("Metrics", _curves(detail), width)
    lines += _section("Tags", tags, width)
    lines += _section("Artifacts", files, width)
    if artifacts.problem:
        lines += [
            "",
            "Artifacts",
            f"  {text.cut(plain(artifacts.problem), None if width is None else width - 2)}",
        ]
    return lines


def _curves(detail: "Detail") -> list[list[str]]:
    drawn = text.draws_curves()
    rows = []
    for key, history in detail.histories.items():
        values = [value for _, value in history.sample]
        several = history.points > 1
        rows.append(
            [
                plain(key),
                text.number(history.value),
                text.curve(values, _CURVE) if several and drawn else "",
                f"step {history.step}, {history.points} points" if several else f"step {history.step}",
            ]
        )
    return rows


def _section(title: str, rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    if not rows:
        return []
    lines, _ = text.table(rows, None if width is None else width - 2, keeps=len(rows[0]))
    return ["", title, *(f"  {line}" for line in lines)]


def _comparison(details: "list[Detail]", with_equal: bool, width: int | None) -> list[str]:
    short = None if width is None else _SHORT_ID
    names = [plain(detail.run.info.run_name or "") for detail in details]
    heading = ["", *names]
    ids = ["run", *(detail.run.info.run_id[:short] for detail in details)]
    status = ["status", *(detail.run.info.status for detail in details)]
    took = [
        "took",
        *(text.duration(each.run.info.start_time, each.run.info.end_time) for each in details),
    ]
    body: list[list[str]] = [ids, status, took]
    equal = 0
    for kind, mark in (("params", ""), ("tags", "tag ")):
        for key, values in _side_by_side(details, kind).items():
            if kind == "tags" and key.startswith(_OWN_TAGS):
                continue
            if len(set(values)) == 1 and not with_equal:
                equal += 1
                continue
            body.append(
                [mark + plain(key), *(_MISSING if value is None else plain(value) for value in values)]
            )
    metrics = _side_by_side(details, "metrics")
    difference = ["difference"] if metrics and len(details) == 2 else []
    for key, values in metrics.items():
        shown = [_MISSING if value is None else text.number(value) for value in values]
        body.append([plain(key), *shown, *([_less(values)] if difference else [])])
    rows = [
        row + [""] * (len(details) + 1 + len(difference) - len(row)) for row in [heading + difference, *body]
    ]
    lines, _ = text.table(rows, width, keeps=len(rows[0]))
    if equal:
        lines.append(text.cut(f"({equal} params and tags are the same: --all)", width))
    return lines


def _side_by_side(details: "list[Detail]", kind: str) -> dict[str, list[Any]]:
    """The values of all runs by key; None is for a run without it."""
    found = [getattr(detail.run.data, kind) for detail in details]
    return {key: [each.get(key) for each in found] for key in sorted(set().union(*found))}


def _less(values: Sequence[float | None]) -> str:
    first, second = values
    if first is None or second is None or not math.isfinite(second - first):
        return _MISSING
    return ("+" if second > first else "") + text.number(second - first)


def _differences(details: "list[Detail]") -> dict[str, Any]:
    from genesis_flow.cli.look import answers

    def side_by_side(kind: str) -> dict[str, Any]:
        return {
            key: {"values": values, "differ": len(set(map(repr, values))) > 1}
            for key, values in _side_by_side(details, kind).items()
        }

    shown = [answers.of_run(detail.run, detail.experiment) for detail in details]
    about = ("run_id", "name", "experiment_id", "experiment", "status", "start_time", "end_time")
    return {
        "runs": [{key: run[key] for key in about} for run in shown],
        **{kind: side_by_side(kind) for kind in ("params", "metrics", "tags")},
    }
