"""How far an import is: nothing, lines, or a bar."""

import sys
import time
from collections.abc import Callable
from typing import IO

from genesis_flow.importers.stats import Stats
from genesis_flow.migrate.batches import RAREST_REPORT_SECONDS, REPORT_SECONDS, span

BAR_WIDTH = 24
BAR_SECONDS = 0.2


class Progress:
    """Says nothing; the base of those that do."""

    def begin(self, units: int | None) -> None:
        """``units``: how many there are, if that is known."""

    def phase(self, name: str) -> None:
        """What is read from now on."""

    def done(self, stats: Stats) -> None:
        """The sums so far."""

    def end(self) -> None:
        """Nothing more comes."""


class _Measured(Progress):
    def __init__(self) -> None:
        self._total: int | None = None
        self._phase = ""
        self._started = self._shown = self._passed = time.monotonic()

    def begin(self, units: int | None) -> None:
        self._total = units
        self._started = self._shown = self._passed = time.monotonic()

    def phase(self, name: str) -> None:
        self._phase = name.replace("_", " ") + "s"

    def done(self, stats: Stats) -> None:
        if stats.units == stats.unchanged_units:
            # Passing over what an earlier import brought says nothing of what has to be read.
            self._passed = time.monotonic()

    def line(self, stats: Stats) -> str:
        seconds = max(time.monotonic() - self._passed, 1e-9)
        rate = (stats.units - stats.unchanged_units) / seconds
        parts = [f"{self._phase}: {stats.units:,}"]
        if self._total:
            total = max(self._total, stats.units)
            parts = [f"{self._phase}: {stats.units:,} of {total:,} units ({100 * stats.units / total:.0f}%)"]
        if stats.unchanged_units:
            parts.append(f"{stats.unchanged_units:,} as they were")
        if rate:
            parts.append(f"{rate:,.0f}/s")
        if stats.points:
            parts.append(f"{stats.points:,} points ({stats.points / seconds:,.0f}/s)")
        if self._total and rate:
            parts.append(f"about {span(max(self._total - stats.units, 0) / rate)} left")
        return ", ".join(parts)


class Lines(_Measured):
    """A line now and then, the more rarely the longer it takes."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__()
        self._report = report

    def done(self, stats: Stats) -> None:
        super().done(stats)
        now = time.monotonic()
        pause = max(REPORT_SECONDS, min((now - self._started) / 20, RAREST_REPORT_SECONDS))
        if now - self._shown >= pause:
            self._shown = now
            self._report(self.line(stats))


class Bar(_Measured):
    """A bar on a terminal, drawn over itself."""

    def __init__(self, terminal: IO[str] | None = None) -> None:
        super().__init__()
        self._terminal = terminal or sys.stderr
        self._drawn = 0

    def done(self, stats: Stats) -> None:
        super().done(stats)
        now = time.monotonic()
        if now - self._shown >= BAR_SECONDS:
            self._shown = now
            self._draw(stats)

    def _draw(self, stats: Stats) -> None:
        bar = ""
        if self._total:
            filled = min(BAR_WIDTH, BAR_WIDTH * stats.units // self._total)
            bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] "
        text = bar + self.line(stats)
        self._terminal.write("\r" + text.ljust(self._drawn))
        self._terminal.flush()
        self._drawn = len(text)

    def end(self) -> None:
        if self._drawn:
            self._terminal.write("\r" + " " * self._drawn + "\r")
            self._terminal.flush()
            self._drawn = 0
