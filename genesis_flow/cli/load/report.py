"""What a load test says at its end: a table and a plot, for a terminal, a program or a browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from genesis_flow.cli.chart import line_chart
from genesis_flow.cli.load.figures import Figures, Latencies

_COLUMNS = ("call", "calls", "failed", "a second", "median ms", "95 % ms", "99 % ms", "longest ms")
_BARS = " ▁▂▃▄▅▆▇█"
_ROWS = 6
_ALL = "all"
_STYLE = "body{font-family:sans-serif;margin:2em}td,th{padding:.3em .8em;text-align:right}"


@dataclass(frozen=True, slots=True)
class Report:
    """The figures, and what they are figures of."""

    store: str
    clients: int
    seconds: int
    slice_seconds: float
    figures: Figures

    @property
    def failed(self) -> int:
        return sum(self.figures.errors.values())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each kind of call, and one for all of them."""
        calls = {*self.figures.by_call, *self.figures.errors}
        rows = [
            self._row(call, self.figures.by_call.get(call, Latencies()), self.figures.errors.get(call, 0))
            for call in sorted(calls)
        ]
        return [*rows, self._row(_ALL, self.figures.all_calls, self.failed)]

    def _row(self, call: str, latencies: Latencies, failed: int) -> dict[str, Any]:
        times = [latencies.percentile(share) for share in (0.5, 0.95, 0.99)]
        longest = latencies.longest if latencies.count else None
        values = (call, latencies.count, failed, latencies.count / self.seconds, *times, longest)
        return dict(zip(_COLUMNS, values, strict=True))

    @property
    def slices(self) -> list[Latencies]:
        """The calls of each slice of the time; the last calls may end behind it."""
        number = max(1, round(self.seconds / self.slice_seconds))
        return [self.figures.by_slice.get(index, Latencies()) for index in range(number)]

    @property
    def throughput(self) -> list[float]:
        return [each.count / self.slice_seconds for each in self.slices]

    @property
    def latency(self) -> list[float]:
        return [each.percentile(0.95) or 0.0 for each in self.slices]

    def as_json(self) -> dict[str, Any]:
        names = [
            column.replace(" ", "_").replace("95_%", "p95").replace("99_%", "p99") for column in _COLUMNS
        ]
        return {
            "store": self.store,
            "clients": self.clients,
            "seconds": self.seconds,
            "calls": [dict(zip(names, row.values(), strict=True)) for row in self.rows],
            "slice_seconds": self.slice_seconds,
            "calls_a_second": self.throughput,
            "p95_ms": self.latency,
            "errors": self.figures.messages,
        }

    def as_text(self, *, draws: bool) -> Iterator[str]:
        yield f"{self.clients} clients, {self.seconds} s, {self.store}\n"
        cells = [list(_COLUMNS), *([_cell(value) for value in row.values()] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
        for row in cells:
            numbers = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
            yield "  ".join((f"{row[0]:<{widths[0]}}", *numbers))
        if draws:
            yield from _plot("calls a second", self.throughput)
            yield from _plot("95 % of the calls took no longer than, ms", self.latency)
        for message in self.figures.messages:
            yield f"\nA call failed: {message}"

    def as_html(self) -> str:
        head = "".join(f"<th>{escape(column)}</th>" for column in _COLUMNS)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(_cell(value))}</td>' for value in row.values())}</tr>"
            for row in self.rows
        )
        label = f"time, in slices of {self.slice_seconds:g} s"
        charts = "".join(
            f"<p>{line_chart(title, label, {title: values})}</p>"
            for title, values in (
                ("calls a second", self.throughput),
                ("latency of 95 %, ms", self.latency),
            )
        )
        errors = "".join(f"<p>A call failed: {escape(message)}</p>" for message in self.figures.messages)
        title = f"{self.clients} clients, {self.seconds} s, {escape(self.store)}"
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f"<style>{_STYLE}</style><h1>{title}</h1><table><tr>{head}</tr>{body}</table>{charts}{errors}</html>\n"
        )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _plot(title: str, values: Sequence[float]) -> Iterator[str]:
    """Columns of some rows' height, from 0 to the greatest value."""
    most = max(values, default=0.0) or 1.0
    steps = len(_BARS) - 1
    heights = [round(value / most * _ROWS * steps) for value in values]
    yield f"\n{title}"
    for row in reversed(range(_ROWS)):
        label = _cell(float(most)) if row == _ROWS - 1 else "0" if row == 0 else ""
        bars = "".join(_BARS[min(steps, max(0, height - row * steps))] for height in heights)
        yield f"{label:>9} |{bars}"
