"""Events from the change stream: first what there is, then each change that it does not have yet.

The stream is opened before the state is read, so nothing is missed. The state is read as it was at a moment:
changes up to then are in it, and are passed over; each metric has a moment of its own, as a long state is
not read at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from mlflow.exceptions import MlflowException

from genesis_flow.areas.metrics.documents import TAIL_LIMIT, MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.places import PLACE, waiting_points
from genesis_flow.areas.metrics.points import Point as Stored
from genesis_flow.areas.metrics.points import distinct, unpack
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.documents.keys import head_id
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.connection import Database
from genesis_flow.watching import heads
from genesis_flow.watching.events import (
    Event,
    MetricLogged,
    Point,
    RunCreated,
    RunDeleted,
    RunFound,
    changed,
    flat,
    whole,
)
from genesis_flow.watching.heads import Head, is_head, run_and_key
from genesis_flow.watching.hub import Change, Stream, hub_of, present
from genesis_flow.watching.place import Book, Moment, Place, Resumed, Time, resumed
from genesis_flow.watching.state import AT_ONCE, Scope, State, TooOld, keeps_nothing, patiently
from genesis_flow.watching.waiting import Waiting, is_place, of_place

_ITSELF = ""
# So often in a row a later moment is tried, with pauses that grow.
_MOST_TRIES = 20
_PAUSE = 0.02


class Streamed:
    def __init__(
        self,
        database: Database,
        scope: Scope,
        state: State,
        name: str,
        after: str | None,
        tells_state: bool,
    ) -> None:
        self._database = database
        self._hub = hub_of(database)
        self._scope = scope
        self._state = state
        self._name = name
        self._tells_state = tells_state
        self._book = Book()
        self._moment = Moment((0, 0))
        # The metrics of the runs that are watched, with what was told of them; and until when changes of a
        # run are in the state that was told.
        self._heads: dict[str, dict[str, Head]] = {}
        self._until: dict[str, Time] = {}
        # The places of these runs.
        self._waiting: dict[str, dict[str, Waiting]] = {}
        # Of the state: runs that are not read, documents that are not told, blocks of the first of these;
        # the moment at which it was read, and what waited in places then.
        self._unread: deque[str] = deque()
        self._untold: deque[tuple[type, Document]] = deque()
        self._blocks: list[Document] | None = None
        self._read_at: Time = (0, 0)
        self._places: dict[str, list[Document]] = {}
        self._tries = 0
        # Of a change that was heard: what is not taken of it.
        self._events: deque[Event] = deque()
        self._number: int | None = None
        self._own: Stream | None = None
        self._resumed = resumed(after, name) if after is not None else None
        # Until a change comes behind the token; and how much of the one at the token was told.
        self._is_at_token = self._resumed is not None
        self._part: int | None = None
        # What the token is as long as events wait to be taken.
        self._before: Callable[[], str | None] = self._token()

    async def begin(self) -> None:
        """Join the stream, and see what there is to tell before it."""
        place = self._resumed
        await self._hub.join(self, place.moment if place else None)
        self._moment = place.moment if place else self._hub.tip
        self._state.not_before = self._moment
        if place is not None:
            self._go_on(place)
        if place is None or place.is_partial:
            self._unread.extend(await patiently(self._database, self._state.run_ids))
        if place is None and not self._tells_state:
            while self._unread:
                await self._pass_state_over()

    def _go_on(self, place: Resumed) -> None:
        self._heads, self._waiting, self._part = place.heads, place.places, place.part
        for run_id, known in place.heads.items():
            for key, head in known.items():
                self._book.note(run_id, key, head)
            self._until[run_id] = known.pop(_ITSELF).until
        for run_id, places in place.places.items():
            for name, waiting in places.items():
                self._book.note_place(run_id, name, waiting)

    def token(self) -> str | None:
        return self._before() if self._events else self._place().token()

    async def close(self) -> None:
        self._hub.leave(self)
        await self._close_own()

    @property
    def has_told_all(self) -> bool:
        waits = self._unread or self._untold or self._events or self._number is None
        return not waits and self._number == self._hub.end

    def take(self) -> Event | None:
        while True:
            if self._events:
                event = self._events.popleft()
                self._before = event._token
                return event
            if self._untold:
                return self._tell_state()
            if self._unread or self._number is None or self._hub.has_gone(self._number):
                return None
            change = self._hub.change(self._number)
            if change is None:
                return None
            self._number += 1
            self._hear(change)

    async def work(self) -> None:
        if self._events:
            return
        if self._untold:
            await self._read_history()
        elif self._unread:
            await self._read_state()
        elif self._number is None or self._hub.has_gone(self._number):
            await self._catch_up()
        else:
            try:
                await self._hub.wait(self._number)
            except MlflowException:
                self._number = None  # whoever asks again joins another stream
                raise

    # What there is.

    async def _read_state(self) -> None:
        """Read some runs and their heads, which are told before others are read."""
        run_ids, runs, found, at = await self._state_of_some()
        self._read_at, self._places, self._blocks = at, {}, None
        of_run: dict[str, list[Document]] = {}
        for document in found:
            kind = self._places if is_place(document) else of_run
            kind.setdefault(document["run_uuid"], []).append(document)
        # All at once: who gives up before reads the same again.
        for _ in run_ids:
            self._unread.popleft()
        for run in runs:
            told = self._heads.get(run["_id"])
            if told is None:
                self._untold.append((RunFields, run))
            of_this = of_run.get(run["_id"], ())
            self._untold += [(MetricHeadFields, head) for head in of_this if head["key"] not in (told or ())]

    async def _pass_state_over(self) -> None:
        """Read some runs and their heads, of which only changes are told."""
        run_ids, runs, found, at = await self._state_of_some()
        for run in runs:
            self._watch_run(run, at, [each for each in found if each["run_uuid"] == run["_id"]])
        for head in found:
            if not is_place(head):
                self._watch_head(head, at)
        for _ in run_ids:
            self._unread.popleft()

    async def _state_of_some(self) -> tuple[list[str], list[Document], list[Document], Time]:
        """Some runs that are not read yet: their documents, heads and places as they were at a moment."""
        # If time was too short for so many, fewer are read before their histories.
        some = 1 if self._tries else AT_ONCE
        run_ids = [self._unread[index] for index in range(min(some, len(self._unread)))]
        state = self._state
        while True:
            # The server waits until most members have this moment.
            now = await patiently(self._database, lambda: present(self._database))
            at = max(now.time, state.not_before.time)
            try:
                runs = await patiently(self._database, partial(state.runs, run_ids, at))
                return run_ids, runs, await patiently(self._database, partial(state.heads, run_ids, at)), at
            except TooOld as error:
                await self._try_later_moment(error)

    async def _try_later_moment(self, error: TooOld) -> None:
        """A server that keeps no past moments would be asked for ever."""
        self._tries += 1
        if self._tries > _MOST_TRIES:
            raise keeps_nothing(self._database) from error
        await asyncio.sleep(_PAUSE * self._tries)

    async def _read_history(self) -> None:
        """Read the blocks of the metric that is told next."""
        _, head = self._untold[0]
        run_id, key = head["run_uuid"], head["key"]
        try:
            self._blocks = await patiently(
                self._database, lambda: self._state.blocks(run_id, key, self._read_at)
            )
            self._tries = 0
        except TooOld as error:
            await self._try_later_moment(error)
            # What is not told yet is read again, as it is later.
            left = dict.fromkeys(
                document["_id"] if kind is RunFields else document["run_uuid"]
                for kind, document in self._untold
            )
            self._untold.clear()
            self._unread.extendleft(reversed(left))

    def _tell_state(self) -> Event | None:
        kind, document = self._untold[0]
        if kind is RunFields:
            self._untold.popleft()
            self._watch_run(document, self._read_at, self._places.get(document["_id"], ()))
            return whole(RunFound, document, self._token())
        if document["packed"] and self._blocks is None:
            return None
        self._untold.popleft()
        blocks, self._blocks = self._blocks or [], None
        head = self._watch_head(document, self._read_at)
        tail = heads.of_tail(document["tail"])
        packed = [point for block in blocks for point in unpack(block)]
        waiting = [
            point
            for place in self._places.get(document["run_uuid"], ())
            for point in waiting_points(place, document["key"])
        ]
        points = distinct([*packed, *tail, *waiting])
        head.remember(points[-2 * TAIL_LIMIT :])
        return self._logged(document["run_uuid"], document["key"], points)

    def _watch_head(self, document: Document, until: Time) -> Head:
        """Note what the state has of a metric as told."""
        run_id, key = document["run_uuid"], document["key"]
        head = Head(packed=int(document["packed"]), until=until)
        head.has_told(heads.of_tail(document["tail"]))
        self._heads.setdefault(run_id, {})[key] = head
        self._book.note(run_id, key, head)
        return head

    def _watch_run(self, run: Document, until: Time, documents: Iterable[Document] = ()) -> None:
        """Note a run, and those of these documents that are its places, as told."""
        self._heads.setdefault(run["_id"], {})
        self._until[run["_id"]] = until
        self._book.note(run["_id"], _ITSELF, Head(until=until))
        for document in filter(is_place, documents):
            self._watch_place(document["_id"], run["_id"], Waiting.of(document))

    def _watch_place(self, identity: str, run_id: str, place: Waiting) -> None:
        name = identity.removeprefix(head_id(run_id, ""))
        self._waiting.setdefault(run_id, {})[name] = place
        self._book.note_place(run_id, name, place)

    # Changes.

    def _hear(self, change: Change) -> None:
        """Make events of a change, to be taken one by one."""
        self._before = self._place().token
        if change.moment == self._moment and self._part is not None:
            told, self._part, self._is_at_token = self._part, None, False
            self._events.extend(self._of(change)[told:])
        elif change.moment > self._moment:
            self._part, self._is_at_token, self._moment = None, False, change.moment
            self._events.extend(self._of(change))
        elif self._is_at_token:
            self._remember(change)

    def _of(self, change: Change) -> list[Event]:
        """What a change tells."""
        if change.kind is RunFields:
            event = self._of_run(change)
            return [] if event is None else [event]
        run_id, key = run_and_key(change.identity)
        known = self._heads.get(run_id)
        if known is None:
            return []
        if key == PLACE:
            return self._of_place(change, run_id)
        if self._is_in_state(change, run_id, key):
            return []
        if change.kind is MetricHeadFields:
            points = self._of_head(change, run_id, key, known)
            return [self._logged(run_id, key, points)] if points else []
        self._of_block(change, key, known)
        return []

    def _is_in_state(self, change: Change, run_id: str, key: str) -> bool:
        """Whether the state had it that was told of a metric; of a run itself if the key is empty."""
        head = self._heads[run_id].get(key)
        until = self._until[run_id]
        return change.moment.time <= (until if head is None else max(until, head.until))

    def _remember(self, change: Change) -> None:
        """A change that was told before the token.

        Of a transaction, some heads may come behind it, and their blocks came before.
        """
        run_id, key = run_and_key(change.identity)
        known = self._heads.get(run_id)
        if known is None or change.moment.time != self._moment.time:
            return
        if change.kind is MetricHeadFields and key in known:
            known[key].held = []
        elif change.kind is MetricBlockFields and not self._is_in_state(change, run_id, key):
            self._of_block(change, key, known)

    def _of_run(self, change: Change) -> Event | None:
        run_id, fields, document = change.identity, change.fields, change.document
        is_known = run_id in self._heads
        if not is_known:
            return None if change.operation == "delete" else self._of_unknown_run(change)
        if self._is_in_state(change, run_id, _ITSELF):
            return None
        if change.operation == "delete":
            return self._forget(run_id)
        if fields.get("workspace", self._scope.workspace) != self._scope.workspace:
            return self._forget(run_id)
        new = fields if document is None else flat(document)
        return changed(run_id, new, list(change.removed), self._token())

    def _of_unknown_run(self, change: Change) -> Event | None:
        run = change.document
        self._state.not_before = self._moment
        if run is None:
            if change.fields.get("workspace") == self._scope.workspace:
                self._unread.append(change.identity)  # it has come from another one
        elif self._scope.has(run):
            if not run.get("metric_keys"):
                self._watch_run(run, (0, 0))
                return whole(RunCreated, run, self._token())
            self._unread.append(run["_id"])  # it is imported, and its metrics may have come before it
        return None

    def _forget(self, run_id: str) -> Event:
        for key in (_ITSELF, *self._heads.pop(run_id), *self._waiting.pop(run_id, ())):
            self._book.strike(run_id, key)
        del self._until[run_id]
        return RunDeleted(run_id, _token=self._token())

    def _of_head(self, change: Change, run_id: str, key: str, known: dict[str, Head]) -> list[Stored]:
        if change.operation == "delete":
            if known.pop(key, None) is not None:
                self._book.strike(run_id, key)
            return []
        if change.document is not None:
            if not is_head(change.document):
                return []
            head = known.setdefault(key, Head())
            points = heads.of_new_head(change.document, head)
        elif heads.is_of_head(change.fields):
            head = known.setdefault(key, Head())
            points = heads.of_head(change.fields, head)
        else:
            return []
        self._book.note(run_id, key, head)
        return points

    def _of_block(self, change: Change, key: str, known: dict[str, Head]) -> None:
        if change.document is not None and heads.may_be_new(change.document, change.operation):
            heads.of_block(change.document, known.setdefault(key, Head()))

    def _of_place(self, change: Change, run_id: str) -> list[Event]:
        """The events of new rows, one for each metric. A token behind one of them says how many were told."""
        if self._is_in_state(change, run_id, PLACE):
            return []
        places, name = self._waiting.setdefault(run_id, {}), change.identity.removeprefix(head_id(run_id, ""))
        if change.operation == "delete":
            if places.pop(name, None) is not None:
                self._book.strike(run_id, name)
            return []
        if change.document is not None:
            place = Waiting(tuple(change.document["keys"]))
            fields = {"rows": change.document["rows"]}
        else:
            place, fields = places[name], change.fields
        points = place.points(of_place(fields, place))
        new = [(key, each) for key, each in points.items() if not self._is_in_state(change, run_id, key)]
        behind = [self._place(part).token for part in range(1, len(new))]
        self._watch_place(change.identity, run_id, place)
        behind.append(self._place().token)
        return [
            self._logged(run_id, key, each, token) for (key, each), token in zip(new, behind, strict=False)
        ]

    # The stream.

    async def _catch_up(self) -> None:
        """Read what the stream of all no longer has from one of our own, until they meet."""
        await self._hub.join(self, self._moment)
        # Behind a token from the begin of its moment: a transaction is one moment.
        behind = Moment(self._moment.time) if self._is_at_token else self._moment
        self._number = self._hub.number_behind(behind)
        if self._number is None:
            change = await patiently(self._database, self._next_of_own)
            if change is not None:
                self._hear(change)
        else:
            await self._close_own()

    async def _next_of_own(self) -> Change | None:
        try:
            if self._own is None:
                self._own = Stream(self._database)
                await self._own.open(Moment(self._moment.time))
            return await self._own.next()
        except BaseException:
            await self._close_own()
            raise

    async def _close_own(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            await own.close()

    # Events.

    def _logged(
        self, run_id: str, key: str, points: list[Stored], token: Callable[[], str] | None = None
    ) -> Event:
        told = tuple(Point(*point) for point in points)
        return MetricLogged(run_id, key, told, _token=token or self._token())

    def _token(self) -> Callable[[], str]:
        return self._place().token

    def _place(self, part: int | None = None) -> Place:
        book = self._book
        return Place(
            self._name,
            self._moment,
            bool(self._unread or self._untold),
            book.base,
            book.notes,
            len(book.notes),
            self._part if part is None else part,
        )
