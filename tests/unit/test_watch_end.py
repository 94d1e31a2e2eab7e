"""When ``genesis-flow watch --until-finished`` ends: not before it has shown what happened until then."""

from typing import Any

import pytest

from genesis_flow.cli.look import watcher
from genesis_flow.watching import Event, MetricLogged, RunChanged
from genesis_flow.watching.events import Point


def logged(step: int) -> MetricLogged:
    return MetricLogged("a", "loss", (Point(1, step, 0.5),), _token=lambda: None)


class Late:
    """A watch whose events come one group after the other, each when it is waited for."""

    has_told_all = True

    def __init__(self, *groups: list[Event]) -> None:
        self._coming = list(groups)
        self._there: list[Event] = []

    def at_hand(self) -> list[Event]:
        there, self._there = self._there, []
        return there

    async def wait(self) -> None:
        if not self._coming:
            raise TimeoutError
        self._there = self._coming.pop(0)


class Shown:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def show(self, event: Event, board: Any) -> None:
        self.events.append(event)

    def rest(self, board: Any) -> None:
        """Nothing is held back."""


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(
            [[logged(1)], [logged(2)], [RunChanged("a", status="FINISHED", _token=lambda: None)]], id="told"
        ),
        pytest.param([[logged(1)], [logged(2)]], id="had ended before"),
        pytest.param([], id="nothing comes"),
    ],
)
async def test_what_comes_before_the_end_is_shown(events: list[list[Event]]) -> None:
    """The database is ahead of the stream: it says at once that the run is finished."""
    wanted = watcher.Wanted("a", lambda key: True, "now", None, is_once=False, until_finished=True)
    shown = Shown()

    async def statuses() -> set[str]:
        return {"FINISHED"}

    watch: Any = Late(*events)
    assert await watcher._shown(watch, wanted, shown, statuses)
    assert shown.events == [event for group in events for event in group]
