"""The report in a terminal."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from genesis_flow.cli.look import text
from genesis_flow.cli.look.text import plain

SHOWN = 10
DAYS_SHOWN = 90
NOBODY = "(nobody named)"
_CURVE = 38
_MEGA = 1000
_COLUMNS = ("runs", "metrics", "points", "traces", "models")
_CURVES = ("runs", "points", "traces", "models")
_TRACKED = {
    "experiments": "experiments",
    "runs": "runs",
    "points": "points",
    "traces": "traces",
    "models": "logged models",
}
_REGISTERED = {
    "registered_models": "registered models",
    "model_versions": "versions",
    "prompts": "prompts",
    "prompt_versions": "versions of prompts",
}

Report = dict[str, Any]
Rows = list[list[str]]


def lines(report: Report, width: int | None) -> list[str]:
    told = [text.cut(each, width) for each in heading(report)]
    told += _section("Days", _days(report), width)
    if len(report["by_workspace"]) > 1:
        told += _section("Workspaces", sums(report["by_workspace"], "workspace", report), width)
    told += _section("Experiments with most runs", sums(report["by_experiment"], "experiment", report), width)
    told += _section("Users with most runs", sums(report["by_user"], "user", report), width)
    told += _section("Whose points", whose(report), width)
    told += _section("Runs with most points", runs(report), width)
    told += _section("Largest traces", traces(report), width)
    told += _section("Disk", sizes(report["disk"]), width)
    if report["disk"]["left_out"]:
        told += ["", report["disk"]["left_out"]]
    for gap in report["gaps"]:  # not cut: it is to be copied
        told += ["", f"Left out: {gap['says']}"]
    return told


def heading(report: Report) -> list[str]:
    totals, points = report["totals"], report["points"]
    since = report["since"]
    said: dict[str, str] = {}
    for name, words in {**_TRACKED, **_REGISTERED}.items():
        about = "about " if name == "points" and points["exact"] is False else ""
        deleted = totals.get(f"deleted_{name}")
        said[name] = f"{about}{totals[name]:,} {words}" + (f" ({deleted:,} deleted)" if deleted else "")
    told = [
        f"{plain(report['database'])}, "
        + (f"since {moment(since)}" if since is not None else "all there is"),
        ", ".join(said[name] for name in _TRACKED),
    ]
    if registered := [said[name] for name in _REGISTERED if totals[name]]:
        told.append(", ".join(registered))
    if points["exact"] is False:
        told.append(
            f"(points are estimated from {points['runs_read']:,} of {points['of_runs']:,} runs: --exact)"
        )
    if report["disk"]["bytes"] is not None:
        told.append(
            f"{size(report['disk']['bytes'])} on disk, about {size(report['disk']['bytes_a_day'])} more a day"
        )
    return told


def moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def size(amount: int | None) -> str:
    """Bytes in the unit that people read, of which a thousand make the next."""
    if amount is None:
        return "-"
    value = float(amount)
    for unit in ("B", "kB", "MB", "GB"):
        if value < _MEGA:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= _MEGA
    return f"{value:.1f} TB"


def recent_days(report: Report) -> list[dict[str, Any]]:
    """A row for each day up to now, of at most ninety, those on which nothing came included."""
    known = {each["day"]: each for each in report["by_day"]}
    today = datetime.fromtimestamp(report["now"] / 1000, UTC).date()
    first = today - timedelta(days=DAYS_SHOWN - 1)
    since = report["since"]
    if since is not None:
        first = max(first, datetime.fromtimestamp(since / 1000, UTC).date())
    else:
        days = [date.fromisoformat(day) for day in known if day is not None and day <= today.isoformat()]
        first = max(first, min(days, default=today))
    found = []
    while first <= today:
        found.append({"day": first.isoformat(), **known.get(first.isoformat(), {})})
        first += timedelta(days=1)
    return found


def _days(report: Report) -> Rows:
    days = recent_days(report)
    if len(days) < 2 or not text.draws_curves():
        return []
    rows = []
    for name in _CURVES:
        values = [float(day.get(name, 0)) for day in days]
        if any(values):
            per_day = f"{max(values):,.0f} at most, {sum(values):,.0f} in {len(days)} days"
            rows.append([name, text.curve(values, _CURVE), per_day])
    return [["", f"{days[0]['day']} to {days[-1]['day']}", "a day (UTC)"], *rows] if rows else []


def sums(entries: Sequence[dict[str, Any]], kind: str, report: Report) -> Rows:
    """The first of them, with the measures of which there are any."""
    shown = [name for name in _COLUMNS if report["totals"][name]]
    several = kind == "experiment" and len(report["by_workspace"]) > 1
    rows = [[kind, *shown]]
    for each in entries[:SHOWN]:
        if any(each[name] for name in shown):
            name = _named(each, kind) + (f" ({plain(each['workspace'])})" if several else "")
            rows.append([name, *(f"{each[measure]:,}" for measure in shown)])
    return rows if len(rows) > 1 else []


def _named(entry: dict[str, Any], kind: str) -> str:
    if kind == "experiment":
        return plain(entry["experiment"] or f"({entry['experiment_id']})")
    return plain(entry[kind]) if entry[kind] else NOBODY


def whose(report: Report) -> Rows:
    rows = [
        [_named(each, "user"), _named(each, "experiment"), f"{each['points']:,}", f"{each['metrics']:,}"]
        for each in report["by_user_and_experiment"][:SHOWN]
        if each["points"]
    ]
    return [["user", "experiment", "points", "metrics"], *rows] if rows else []


def runs(report: Report) -> Rows:
    rows = [
        [
            each["run_id"],
            plain(each["name"] or ""),
            _named(each, "experiment"),
            _named(each, "user"),
            f"{each['points']:,}",
        ]
        for each in report["largest"]["runs"]
    ]
    return [["run", "name", "experiment", "user", "points"], *rows] if rows else []


def traces(report: Report) -> Rows:
    rows = [
        [each["trace_id"], plain(each["name"] or ""), _named(each, "experiment"), size(each["bytes"])]
        for each in report["largest"]["traces"]
    ]
    return [["trace", "name", "experiment", "bytes"], *rows] if rows else []


def sizes(disk: dict[str, Any]) -> Rows:
    rows = [
        [
            each["collection"],
            "-" if each["documents"] is None else f"{each['documents']:,}",
            size(each["storage_bytes"]),
            size(each["index_bytes"]),
            size(each["bytes_a_day"]),
        ]
        for each in disk["collections"][:SHOWN]
    ]
    return [["collection", "documents", "data", "indexes", "more a day"], *rows] if rows else []


def _section(title: str, rows: Rows, width: int | None) -> list[str]:
    if not rows:
        return []
    found, _ = text.table(rows, None if width is None else width - 2, keeps=len(rows[0]))
    return ["", title, *(f"  {line}" for line in found)]
