"""What ``genesis-flow watch`` shows, and when it ends."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import click

from genesis_flow.cli.look import text
from genesis_flow.cli.look.answers import sayable
from genesis_flow.cli.look.reader import Reader, read
from genesis_flow.cli.look.text import plain
from genesis_flow.watching import (
    Event,
    MetricLogged,
    RunChanged,
    RunCreated,
    RunDeleted,
    RunFound,
    Watch,
)
from genesis_flow.watching.watch import Start

_CURVE = 32
_SHORT_ID = 8
# A curve in a terminal needs no more points than these; half of them go when there are more.
_MOST_POINTS = 4096
_MOST_METRICS = 12
_MOST_RUNS = 8
# A screen that is drawn more often than this is not seen.
_REDRAW_SECONDS = 0.2
# A stream tells within milliseconds what happened; a standalone server is asked every second.
_QUIET_SECONDS = 5.0
_RUNNING = {"RUNNING", "SCHEDULED"}
_FINISHED = {"FINISHED"}
_CLEAR = "\x1b[H\x1b[J"


@dataclass(frozen=True)
class Wanted:
    """What is to be watched, and until when."""

    what: str
    matches: Callable[[str], bool]
    start: Start
    after: str | None
    is_once: bool
    until_finished: bool


@dataclass
class Curve:
    points: int = 0
    step: int = 0
    value: float = 0.0
    values: list[float] = field(default_factory=list)
    every: int = 1

    def add(self, step: int, value: float) -> None:
        self.step, self.value = step, value
        if self.points % self.every == 0:
            self.values.append(value)
        if len(self.values) > _MOST_POINTS:
            self.values, self.every = self.values[::2], self.every * 2
        self.points += 1


@dataclass
class Seen:
    """A run as far as its events have told."""

    run_id: str
    name: str = ""
    status: str = ""
    lifecycle_stage: str = "active"
    params: dict[str, str | None] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)


class Board:
    """The runs that are watched, as they are now."""

    def __init__(self) -> None:
        self.runs: dict[str, Seen] = {}

    def take(self, event: Event) -> None:
        if isinstance(event, RunDeleted):
            self.runs.pop(event.run_id, None)
            return
        run = self.runs.setdefault(event.run_id, Seen(event.run_id))
        if isinstance(event, MetricLogged):
            curve = run.curves.setdefault(event.key, Curve())
            for point in event.points:
                curve.add(point.step, point.value)
        elif isinstance(event, RunFound | RunCreated | RunChanged):
            run.name = event.name or run.name
            run.status = event.status or run.status
            run.lifecycle_stage = event.lifecycle_stage or run.lifecycle_stage
            run.params |= event.params

    def has_ended(self) -> bool:
        """Whether the events have told of each run that it ended."""
        return bool(self.runs) and all(run.status not in {"", *_RUNNING} for run in self.runs.values())


class Output(Protocol):
    def show(self, event: Event, board: Board) -> None:
        """An event that came."""

    def rest(self, board: Board) -> None:
        """No event is at hand: what was held back is shown."""


class JsonLines:
    """A JSON object a line."""

    def __init__(self, *, with_tokens: bool) -> None:
        self._with_tokens = with_tokens

    def show(self, event: Event, board: Board) -> None:
        click.echo(json.dumps(sayable(event.to_json(with_token=self._with_tokens)), ensure_ascii=False))

    def rest(self, board: Board) -> None:
        """Each line was shown when it came."""


class Lines:
    """A line for each event."""

    def show(self, event: Event, board: Board) -> None:
        name = board.runs[event.run_id].name if event.run_id in board.runs else ""
        click.echo(f"{event.run_id[:_SHORT_ID]}  {plain(name)}  {_told(event)}")

    def rest(self, board: Board) -> None:
        """Each line was shown when it came."""


class Screen:
    """The runs with their curves, drawn anew a few times a second."""

    def __init__(self) -> None:
        self._drawn = 0.0
        self._is_stale = False

    def show(self, event: Event, board: Board) -> None:
        self._is_stale = True
        if time.monotonic() - self._drawn > _REDRAW_SECONDS:
            self.rest(board)

    def rest(self, board: Board) -> None:
        if self._is_stale:
            self._drawn, self._is_stale = time.monotonic(), False
            click.echo(_CLEAR + "\n".join(drawn(board, text.terminal_width())))


def drawn(board: Board, width: int | None) -> list[str]:
    """The lines of a screen: the newest runs, running ones first."""
    newest_first = list(board.runs.values())[::-1]
    runs = sorted(newest_first, key=lambda run: run.status not in _RUNNING)
    lines: list[str] = []
    for run in runs[:_MOST_RUNS]:
        deleted = ", deleted" if run.lifecycle_stage != "active" else ""
        lines.append(text.cut(f"{run.run_id[:_SHORT_ID]}  {plain(run.name)}  {run.status}{deleted}", width))
        if run.params:
            params = "  ".join(f"{plain(key)}={plain(value)}" for key, value in sorted(run.params.items()))
            lines.append(text.cut(f"  {params}", width))
        lines += _curves(run, width)
        lines.append("")
    if len(runs) > _MOST_RUNS:
        lines.append(f"({len(runs) - _MOST_RUNS} more runs)")
    return lines or ["No runs yet."]


def _curves(run: Seen, width: int | None) -> list[str]:
    shown = text.draws_curves()
    # What is logged by MLflow about the machine comes behind what people log.
    keys = sorted(run.curves, key=lambda key: (key.startswith("system/"), key))
    rows = [
        [
            plain(key),
            text.number(curve.value),
            text.curve(curve.values, _CURVE) if shown and curve.points > 1 else "",
            f"step {curve.step}, {curve.points} points",
        ]
        for key, curve in ((key, run.curves[key]) for key in keys[:_MOST_METRICS])
    ]
    if not rows:
        return []
    lines, _ = text.table(rows, None if width is None else width - 2, keeps=len(rows[0]))
    more = len(keys) - len(rows)
    return [f"  {line}" for line in lines] + ([f"  ({more} more metrics)"] if more else [])


def _told(event: Event) -> str:
    if isinstance(event, MetricLogged):
        last = event.points[-1]
        more = f" ({len(event.points)} points)" if len(event.points) > 1 else ""
        return f"{plain(event.key)} = {text.number(last.value)} at step {last.step}{more}"
    if isinstance(event, RunDeleted):
        return "deleted for good"
    assert isinstance(event, RunFound | RunCreated | RunChanged)
    told = [] if isinstance(event, RunChanged) else ["found" if isinstance(event, RunFound) else "created"]
    told += [event.status] if event.status else []
    told += [event.lifecycle_stage] if isinstance(event, RunChanged) and event.lifecycle_stage else []
    told += [f"param {plain(key)} = {plain(value)}" for key, value in event.params.items()]
    told += [f"tag {plain(key)} = {plain(value)}" for key, value in event.tags.items()]
    if isinstance(event, RunChanged):
        told += [f"name {plain(event.name)}"] if event.name else []
        told += [f"tag {plain(key)} removed" for key in event.removed_tags]
    return ", ".join(told)


def run(uri: str | None, wanted: Wanted, output: Output) -> bool:
    """Show what is watched until it ends; whether all runs are finished then, if that was asked for."""

    async def look(reader: Reader) -> bool:
        named = await reader.run_or_experiment(wanted.what)
        watch = Watch(
            reader,
            run_ids=named.run_ids,
            experiment_ids=named.experiment_ids,
            start=wanted.start,
            after=wanted.after,
        )
        async with watch:
            return await _shown(watch, wanted, output, lambda: reader.statuses(named))

    return read(uri, look)


async def _shown(
    watch: Watch, wanted: Wanted, output: Output, statuses: Callable[[], Awaitable[set[str]]]
) -> bool:
    board, is_to_be_asked = Board(), True
    while True:
        events = watch.at_hand()
        for event in events:
            if isinstance(event, MetricLogged) and not wanted.matches(event.key):
                continue
            is_to_be_asked |= not isinstance(event, MetricLogged)
            board.take(event)
            output.show(event, board)
        if not events:
            output.rest(board)
            if watch.has_told_all and wanted.is_once:
                return True
            if watch.has_told_all and wanted.until_finished and is_to_be_asked:
                # Asked for: a watch that began behind what there was does not know it.
                found, is_to_be_asked = await statuses(), False
                if not found & _RUNNING:
                    # The database knows that before the stream has told it.
                    if board.has_ended() or not await _comes(watch):
                        return found <= _FINISHED
                    is_to_be_asked = True
                    continue
            await watch.wait()
        await asyncio.sleep(0)  # a watch that always has more leaves room for Ctrl-C, too


async def _comes(watch: Watch) -> bool:
    """Whether there may be another event: none comes of a run that had ended before the watch began."""
    try:
        async with asyncio.timeout(_QUIET_SECONDS):
            await watch.wait()
    except TimeoutError:
        return False
    return True
