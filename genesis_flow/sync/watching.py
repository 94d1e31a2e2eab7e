"""A watch for blocking callers."""

from collections import deque
from collections.abc import Iterator
from typing import Self

from genesis_flow.sync.portal import portal
from genesis_flow.watching import Event, Watch


class BlockingWatch:
    """An endless iterator of events; ``close()``, or closing the store, ends it. For one thread."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._at_hand: deque[Event] = deque()
        self._last: Event | None = None

    @property
    def token(self) -> str | None:
        """Where a watch goes on behind the last event that this one gave."""
        return self._last.token if self._last is not None else self._watch.token

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if not self._at_hand:
            self._at_hand.extend(portal.run(self._some))
        if not self._at_hand:
            raise StopIteration
        self._last = self._at_hand.popleft()
        return self._last

    def close(self) -> None:
        """End the watch; another thread may do so, too."""
        portal.run(self._watch.close)

    def __enter__(self) -> Self:
        portal.run(self._watch.begin)
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    async def _some(self) -> list[Event]:
        """The next event and those that are there with it: they share the way to this thread."""
        async for event in self._watch:
            return [event, *self._watch.at_hand()]
        return []
