"""The report as one HTML file: tables, and plots drawn as SVG. Nothing in it comes from elsewhere."""

from collections.abc import Sequence
from html import escape
from typing import Any

from genesis_flow.cli.look.text import plain
from genesis_flow.cli.usage import words

_PLOTS = (("runs", "Runs"), ("points", "Points"), ("traces", "Traces"), ("models", "Logged models"))
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 160, 70, 24, 20
_COLOUR = "#2563eb"
# A page may hold what users have logged: no script runs in it, and nothing is fetched.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #1f2937; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
table { border-collapse: collapse; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #e5e7eb; }
th { color: #4b5563; font-weight: 600; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.gap { background: #fef3c7; padding: .6rem .8rem; overflow-wrap: anywhere; }
"""


def page(report: words.Report) -> str:
    title, *about = words.heading(report)
    days = words.recent_days(report)
    plots = [
        bars(f"{title} a day", [(day["day"], day.get(name, 0)) for day in days])
        for name, title in _PLOTS
        if any(day.get(name) for day in days)
    ]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>Usage of {_text(report['database'])}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Usage of {_text(title)}</h1>",
        *(f"<p>{_text(line)}</p>" for line in about),
        f"<p>Counted {_text(words.moment(report['now']))}; days are in UTC.</p>",
        *(f'<p class="gap">Left out: {_text(gap["says"])}</p>' for gap in report["gaps"]),
        *(['<div class="plots">', *plots, "</div>"] if plots else []),
    ]
    for heading, rows in _tables(report):
        parts += _table(heading, rows)
    if report["disk"]["left_out"]:
        parts.append(f"<p>{_text(report['disk']['left_out'])}</p>")
    return "\n".join([*parts, "</body></html>", ""])


def _tables(report: words.Report) -> list[tuple[str, words.Rows]]:
    workspaces = report["by_workspace"]
    return [
        ("Workspaces", words.sums(workspaces, "workspace", report) if len(workspaces) > 1 else []),
        ("Experiments with most runs", words.sums(report["by_experiment"], "experiment", report)),
        ("Users with most runs", words.sums(report["by_user"], "user", report)),
        ("Whose points", words.whose(report)),
        ("Runs with most points", words.runs(report)),
        ("Largest traces", words.traces(report)),
        ("Disk", words.sizes(report["disk"])),
    ]


def _text(value: Any) -> str:
    return escape(plain(value))


def _table(heading: str, rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    head, *body = rows
    lines = [f"<h2>{_text(heading)}</h2>", "<table><tr>"]
    lines += [f"<th>{_text(cell)}</th>" for cell in head]
    for row in body:
        cells = (f"<td{_kind(name)}>{_text(cell)}</td>" for name, cell in zip(head, row, strict=True))
        lines.append(f"</tr><tr>{''.join(cells)}")
    return [*lines, "</tr></table>"]


_WORDS = ("workspace", "experiment", "user", "run", "name", "trace", "collection")


def _kind(column: str) -> str:
    return "" if column in _WORDS else ' class="number"'


def bars(title: str, values: Sequence[tuple[str, int]]) -> str:
    """A bar for each day. The first and the last are labelled, and each says what it is when pointed at."""
    most = max(value for _, value in values) or 1
    step = (_WIDTH - _LEFT) / len(values)
    floor = _HEIGHT - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="11" role="img">',
        f'<text x="{_LEFT}" y="14" font-weight="bold">{_text(title)}</text>',
        f'<text x="{_LEFT - 6}" y="{_TOP + 10}" text-anchor="end" fill="#4b5563">{most:,}</text>',
        f'<text x="{_LEFT - 6}" y="{floor}" text-anchor="end" fill="#4b5563">0</text>',
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{floor}" y2="{floor}" stroke="#9ca3af"/>',
    ]
    for index, (day, value) in enumerate(values):
        height = (floor - _TOP) * value / most
        parts.append(
            f'<rect x="{_LEFT + index * step:.1f}" y="{floor - height:.1f}" width="{max(step - 1, 0.5):.1f}" '
            f'height="{height:.1f}" fill="{_COLOUR}"><title>{_text(day)}: {value:,}</title></rect>'
        )
    first, last = _text(values[0][0]), _text(values[-1][0])
    parts += [
        f'<text x="{_LEFT}" y="{_HEIGHT - 5}" fill="#4b5563">{first}</text>',
        f'<text x="{_WIDTH}" y="{_HEIGHT - 5}" text-anchor="end" fill="#4b5563">{last}</text>',
    ]
    return "\n".join([*parts, "</svg>"])
