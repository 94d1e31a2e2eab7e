"""A watch: what there is, and then what changes, without a gap and without a repetition."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, Literal, Protocol, Self

from genesis_flow.core.errors import invalid
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import Area, connect
from genesis_flow.mongo.scoping import current_workspace
from genesis_flow.watching.events import Event
from genesis_flow.watching.place import scope_name
from genesis_flow.watching.polling import Polled
from genesis_flow.watching.state import Scope, State, patiently
from genesis_flow.watching.streamed import Streamed

Start = Literal["beginning", "now"]

_AT_HAND = 500
NO_HISTORY = (
    "{where} keeps no history of changes, as a server that is no replica set and the portable profile do: a "
    "watch cannot go on behind a token. Watch without `after`; make the server a replica set of one for more."
)


class Source(Protocol):
    """Where events come from."""

    def take(self) -> Event | None:
        """The next event, if it is at hand."""

    async def work(self) -> None:
        """Wait, or read, until there may be one; giving up loses nothing."""

    def token(self) -> str | None: ...

    @property
    def has_told_all(self) -> bool: ...

    async def close(self) -> None: ...


class Watch:
    """An endless asynchronous iterator of events; ``close()``, or closing the store, ends it."""

    def __init__(
        self,
        area: Area,
        *,
        run_ids: Iterable[str] | None = None,
        experiment_ids: Iterable[str] | None = None,
        start: Start = "beginning",
        after: str | None = None,
    ) -> None:
        if start not in ("beginning", "now"):
            raise invalid(f"start must be 'beginning' or 'now', not {start!r:.60}.")
        self._area = area
        self._start = start
        self._after = after
        self._scope = Scope.of(current_workspace(), run_ids, experiment_ids)
        self._source: Source | None = None
        self._beginning = asyncio.Lock()
        self._ended = asyncio.Event()
        area.until_closed.add(self)

    @property
    def token(self) -> str | None:
        """Where a watch goes on behind all that this one has told; None before the first event."""
        return self._source.token() if self._source is not None else self._after

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """The next event, however long it takes; giving up waiting loses nothing."""
        while not self._ended.is_set():
            event = self._source.take() if self._source is not None else None
            if event is not None:
                return event
            await self.wait()
        raise StopAsyncIteration

    def at_hand(self) -> list[Event]:
        """The events that can be had without waiting, a few hundred at most."""
        events: list[Event] = []
        while self._source is not None and not self._ended.is_set() and len(events) < _AT_HAND:
            event = self._source.take()
            if event is None:
                break
            events.append(event)
        return events

    @property
    def has_told_all(self) -> bool:
        """Whether all was told that is known to this process by now."""
        return self._source is not None and self._source.has_told_all

    async def wait(self) -> None:
        """Wait until there may be something at hand, or the watch has ended."""
        await self._unless_ended(self._work())

    async def begin(self) -> None:
        """Connect, and see that what is watched is there and may be watched; else the first event does."""
        await self._begun()

    async def close(self) -> None:
        """End the watch: whoever waits for an event is told that there are no more."""
        self._ended.set()
        self._area.until_closed.discard(self)
        if self._source is not None:
            await self._source.close()

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def _work(self) -> None:
        await (await self._begun()).work()

    async def _unless_ended(self, work: Coroutine[Any, Any, None]) -> None:
        ended, working = asyncio.ensure_future(self._ended.wait()), asyncio.ensure_future(work)
        try:
            await asyncio.wait({ended, working}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            ended.cancel()
            if not working.done():
                working.cancel()
                await asyncio.wait({working})

    async def _begun(self) -> Source:
        async with self._beginning:
            if self._source is None:
                database = await connect(self._area)
                self._source = await self._make(database)
            return self._source

    async def _make(self, database: Database) -> Source:
        # Portable servers may have streams of their own kind, and standalone ones have none.
        is_streamed = database.has_transactions
        state = State(database, self._scope, is_grouped=is_streamed)
        await patiently(database, state.check)
        if not is_streamed:
            if self._after is not None:
                raise invalid(NO_HISTORY.format(where=database.settings.store_uri))
            polled = Polled(database, state, tells_state=self._start == "beginning")
            await polled.begin()
            return polled
        name = scope_name(
            database.settings.database,
            database.settings.prefix,
            self._scope.workspace,
            sorted(self._scope.run_ids),
            sorted(self._scope.experiments),
        )
        source = Streamed(database, self._scope, state, name, self._after, self._start == "beginning")
        await source.begin()
        return source
